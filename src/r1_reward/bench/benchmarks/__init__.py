"""The benchmarks, one file each. A file that defines ``BENCHMARK`` is discovered by its name, without a registry entry.

find_benchmark("vl-rewardbench").title      # imports benchmarks/vl_rewardbench.py
register(Benchmark(name="mine", ...))       # a benchmark defined outside this package
"""

from __future__ import annotations

import difflib
import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from r1_reward.records.errors import UserError

if TYPE_CHECKING:
    from r1_reward.bench.benchmark import Benchmark

REGISTERED: dict[str, Benchmark] = {}
"""Benchmarks added by :func:`register`, by name."""


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks without importing their files."""
    files = (module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))
    return [*files, *REGISTERED]


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name; raises UserError if there is none."""
    if name in REGISTERED:
        return REGISTERED[name]
    names = benchmark_names()
    if name in names:
        found: Benchmark = import_module(f"{__name__}.{name.replace('-', '_')}").BENCHMARK
        return found
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}."
    raise UserError(f"unknown benchmark {name!r}; {hint}")


def register(benchmark: Benchmark) -> Benchmark:
    """Add a benchmark of your own and return it; raises UserError if its name is taken."""
    if benchmark.name in benchmark_names():
        raise UserError(f"a benchmark named {benchmark.name!r} already exists; choose another name.")
    REGISTERED[benchmark.name] = benchmark
    return benchmark

"""Run the tests of each plug-in against its published package: ``make plugs``, or ``make plugs ARGS=verl``.

``tests/plugs/NAME.txt`` lists the packages of one environment, each pinned. By default they are installed without their
dependencies over the environment this runs in, whose packages they share: trainers pin drivers and versions that a
machine without a GPU cannot meet. A file that begins with ``# with dependencies`` gets its own environment.
``NAME.sh``, if it exists, runs after the installation, with the environment's Python as its argument. The
tests are ``tests/plugs/test_NAME.py`` and ``test_NAME_*.py``; their output is saved to
``benchmarks/results/plugs/NAME.txt``.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".plugs"
LOGS = ROOT / "benchmarks" / "results" / "plugs"
WITH_DEPENDENCIES = "# with dependencies"


def names() -> list[str]:
    """Return the names of the environments."""
    return sorted(path.stem for path in HERE.glob("*.txt"))


def make(name: str) -> Path:
    """Return the Python of an environment; rebuild it if its packages differ from those in its file."""
    wanted, after = (HERE / f"{name}.txt").read_text(), HERE / f"{name}.sh"
    wanted_after = after.read_text() if after.is_file() else ""
    folder = ENVIRONMENTS / name
    python, made = folder / "bin" / "python", folder / "packages.txt"
    if made.is_file() and made.read_text() == wanted + wanted_after:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(HERE / f"{name}.txt")]
    if wanted.startswith(WITH_DEPENDENCIES):
        subprocess.run([*install, "--editable", f"{ROOT}[serve]", "pytest", "httpx"], check=True)
    else:
        shared = sysconfig.get_path("purelib")
        own = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        # As a site directory, since otherwise the base's .pth files (an editable install of this package) are not read.
        Path(own, "zz_base.pth").write_text(f"import site; site.addsitedir({shared!r})\n")
        subprocess.run([*install, "--no-deps"], check=True)
    if wanted_after:
        subprocess.run(["sh", str(after), str(python)], check=True)
    made.write_text(wanted + wanted_after)
    return python


def run(name: str) -> bool:
    """Run the tests of one environment, save their output, and return whether they passed."""
    python = make(name)
    packages = (HERE / f"{name}.txt").read_text()
    tests = [str(path) for path in (*HERE.glob(f"test_{name}.py"), *sorted(HERE.glob(f"test_{name}_*.py")))]
    command = [str(python), "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-v", "--tb=short", *tests]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    header = f"{datetime.date.today()}  {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    LOGS.mkdir(parents=True, exist_ok=True)
    text = f"{header}\n{packages}\n{_without_places(done.stdout)}"
    (LOGS / f"{name}.txt").write_text(text)
    print(done.stdout)
    return done.returncode == 0


def _without_places(text: str) -> str:
    """Return a log without this machine's folders."""
    return re.sub(re.escape(str(ROOT)) + r"/?", "", text)


def main() -> int:
    """Run the named environments, or all of them."""
    asked = sys.argv[1:] or names()
    unknown = sorted(set(asked) - set(names()))
    if unknown:
        print(f"{', '.join(unknown)}: no such plug; there are {', '.join(names())}", file=sys.stderr)
        return 2
    failed = [name for name in asked if not run(name)]
    print(f"{len(asked) - len(failed)} of {len(asked)} plugs passed" + (f"; not {', '.join(failed)}" if failed else ""))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())

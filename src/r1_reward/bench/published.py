"""Check whether the numbers of a published row are arithmetically possible.

Every accuracy is k right of n rows, so there must be an integer k that gives the printed percentage for a known n, and
overall and macro must follow from the categories. :func:`impossible` checks a row and returns what does not fit::

    benchmark = find_benchmark("vl-rewardbench")
    for row in benchmark.published:
        print(row.model, impossible(benchmark, row) or "possible")

A script usually formats all numbers of a row in the same way, so a row is possible if it fits with all numbers rounded,
or with all numbers truncated, at the last printed digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from r1_reward.bench.benchmark import OFFICIAL, Benchmark, PublishedRow

_SIGMAS = 5


class Fit(NamedTuple):
    """Counts that give the printed numbers of a row."""

    counts: tuple[tuple[int, int], ...]
    """(right, rows) of each category, or of all rows if no categories are printed."""
    missing: int
    """Number of rows left out."""

    @property
    def rows(self) -> int:
        """Total number of rows."""
        return sum(n for _, n in self.counts)

    def __str__(self) -> str:
        right = sum(k for k, _ in self.counts)
        return f"{', '.join(str(k) for k, _ in self.counts)}: {right}/{self.rows}"


class _Printed(NamedTuple):
    """A percentage as printed, equal to ``digits / scale`` percent."""

    text: str
    digits: int
    scale: int


_Test = Callable[[_Printed, "int | Fraction", int], bool]


def _rounds(value: _Printed, k: int | Fraction, n: int) -> bool:
    """Return whether k/n rounds to the printed value; a half may be rounded either way."""
    return -n <= 200 * value.scale * k - 2 * value.digits * n <= n


def _cuts(value: _Printed, k: int | Fraction, n: int) -> bool:
    """Return whether k/n gives the printed value when truncated."""
    return value.digits * n <= 100 * value.scale * k < (value.digits + 1) * n


def impossible(benchmark: Benchmark, row: PublishedRow, grouping: str | None = None) -> str | None:
    """Return why no counts on all rows give the printed numbers, or None if some do.

    ``grouping`` checks the row under a grouping other than its own. A row whose grouping is not stated is impossible
    only if it fits none. The reason refers to rounding; truncation did not make the row fit, either.
    """
    names = [grouping] if grouping else _groupings_of(benchmark, row)
    if not _is_counted(benchmark, row) or any(_fit(benchmark, row, name) for name in names):
        return None
    faults = _faults(benchmark, row, names)
    return f"{'; '.join(faults)}: {_hint(benchmark, row, names)}"


def fits(benchmark: Benchmark, row: PublishedRow) -> dict[str, Fit]:
    """Return the groupings of the benchmark under which the numbers fit counts on all rows."""
    names = benchmark.groupings if _is_counted(benchmark, row) else ()
    found = {name: _fit(benchmark, row, name) for name in names}
    return {name: fit for name, fit in found.items() if fit}


def _is_counted(benchmark: Benchmark, row: PublishedRow) -> bool:
    """Return whether a row has shares of known numbers of rows, and not just a macro or a score of another kind."""
    known = benchmark.groupings
    return bool(known) and any(name in row.values for name in (*known[OFFICIAL], benchmark.heading("overall")))


def below_chance(benchmark: Benchmark, row: PublishedRow) -> str | None:
    """Return an explanation if the overall is so far below 50 % that some verdicts cannot have been counted, else None.

    The threshold is five standard deviations of a fair coin. A judge that consistently prefers the wrong response would
    have such a score, too, but inverted it would be a good judge.
    """
    printed = _printed(row).get(benchmark.heading("overall"))
    names = _groupings_of(benchmark, row)
    if printed is None or not names or benchmark.official is not None:
        return None
    n = _total(benchmark, names[0])
    sigmas = float(50 - _percent(printed)) / (50 / n**0.5)
    if sigmas <= _SIGMAS:
        return None
    categories = [
        _percent(printed) for name, printed in _printed(row).items() if name in _sizes(benchmark, row, names[0])
    ]
    all_below = ", and so is every category" if categories and max(categories) < 50 else ""
    return (
        f"{printed.text} is {sigmas:.0f} standard deviations below a coin's 50{all_below}: unreadable verdicts or ties "
        "were counted as wrong"
    )


def explained_by_drops(benchmark: Benchmark, row: PublishedRow) -> bool:
    """Return whether an impossible row can be explained by its rule ``drop``, which leaves out some rows."""
    return row.rule == "drop" and any(
        _fit(benchmark, row, name, benchmark.max_missing) for name in _groupings_of(benchmark, row)
    )


def sizes_of(benchmark: Benchmark, grouping: str) -> str:
    """Return the category sizes of a grouping, such as ``183/749/318``."""
    return "/".join(str(n) for n in benchmark.groupings[grouping].values())


def _groupings_of(benchmark: Benchmark, row: PublishedRow) -> list[str]:
    known = benchmark.groupings
    return [row.grouping] if row.grouping in known else list(known)


def _printed(row: PublishedRow) -> dict[str, _Printed]:
    """Return the values with their precision; if all second decimals are 0, one decimal was printed."""
    texts = dict(row.values)
    if len(texts) > 1 and all(text[-3:-2] == "." and text.endswith("0") for text in texts.values()):
        texts = {column: text[:-1] for column, text in texts.items()}
    printed = {}
    for column, text in texts.items():
        whole, _, decimals = text.partition(".")
        printed[column] = _Printed(text, int(whole + decimals), 10 ** len(decimals))
    return printed


def _percent(value: _Printed) -> Fraction:
    return Fraction(value.digits, value.scale)


def _sizes(benchmark: Benchmark, row: PublishedRow, grouping: str) -> dict[str, int]:
    """Return the rows of each category that the row publishes."""
    return {column: n for column, n in benchmark.groupings[grouping].items() if column in row.values}


def _total(benchmark: Benchmark, grouping: str) -> int:
    return sum(benchmark.groupings[grouping].values())


def _counts(value: _Printed, n: int, test: _Test = _rounds) -> list[int]:
    """Return all k for which k of n is printed as the value."""
    low = max(0, (2 * value.digits - 1) * n // (200 * value.scale))
    high = min(n, (value.digits + 1) * n // (100 * value.scale) + 1)
    return [k for k in range(low, high + 1) if test(value, k, n)]


def _fit(benchmark: Benchmark, row: PublishedRow, grouping: str, missing: int = 0) -> Fit | None:
    """Return counts that give all numbers of the row, with the fewest missing rows; rounding is tried first."""
    return _search(benchmark, row, grouping, _rounds, missing) or (
        None if missing else _search(benchmark, row, grouping, _cuts, 0)
    )


def _search(benchmark: Benchmark, row: PublishedRow, grouping: str, test: _Test, missing: int) -> Fit | None:
    printed = _printed(row)
    ids = benchmark.ids
    plus = printed.get(benchmark.heading("acc_plus"))
    if ids and plus and not _counts(plus, ids, test):
        return None
    # A row without categories is treated as one category with all rows.
    sizes = _sizes(benchmark, row, grouping) or {benchmark.heading("overall"): _total(benchmark, grouping)}
    options = [
        [(k, n - gone) for gone in range(min(missing, n - 1) + 1) for k in _counts(printed[column], n - gone, test)]
        for column, n in sizes.items()
    ]
    everything = sum(sizes.values())
    best: Fit | None = None
    for counts in product(*options):
        gone = everything - sum(n for _, n in counts)
        if (best is None or gone < best.missing) and _follow(benchmark, printed, counts, test):
            best = Fit(counts, gone)
    return best


def _follow(
    benchmark: Benchmark,
    printed: Mapping[str, _Printed],
    counts: Sequence[tuple[int, int]],
    test: _Test,
) -> bool:
    """Return whether overall and macro, if printed, follow from the categories' counts."""
    overall = printed.get(benchmark.heading("overall"))
    if overall and not test(overall, sum(k for k, _ in counts), sum(n for _, n in counts)):
        return False
    macro = printed.get(benchmark.heading("macro"))
    if macro is None:
        return True
    exact = sum((Fraction(k, n) for k, n in counts), Fraction()) / len(counts)
    shown = _mean(_percent(printed[column]) for column in benchmark.groupings[OFFICIAL]) / 100
    return any(test(macro, mean, 1) for mean in (exact, shown))


def _mean(values: Iterable[Fraction]) -> Fraction:
    numbers = list(values)
    return sum(numbers, Fraction()) / len(numbers)


def _faults(benchmark: Benchmark, row: PublishedRow, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the numbers under the groupings."""
    printed = _printed(row)
    overall = benchmark.heading("overall")
    denominators: dict[str, list[int]] = {}
    for name in names:
        for column, n in {**_sizes(benchmark, row, name), overall: _total(benchmark, name)}.items():
            denominators.setdefault(column, []).append(n)
    if benchmark.ids:
        denominators[benchmark.heading("acc_plus")] = [benchmark.ids]
    faults = []
    for column, sizes in denominators.items():
        if column in printed and not any(_counts(printed[column], n) for n in sizes):
            shares = [f"k/{n}" for n in dict.fromkeys(sizes)]
            listed = shares[0] if len(shares) == 1 else f"{', '.join(shares[:-1])} or {shares[-1]}"
            faults.append(f"{printed[column].text} is not {listed}")
    faults += _overall_fault(benchmark, row, printed, names)
    if macro := printed.get(benchmark.heading("macro")):
        mean = _mean(_percent(printed[column]) for column in _sizes(benchmark, row, names[0]))
        # The exact mean differs from that of the printed values by less than one unit of the last digit.
        if abs(mean - _percent(macro)) * macro.scale > 2:
            faults.append(f"macro {macro.text} is not the mean of the categories, {float(mean):.2f}")
    return faults or ["the numbers are possible one by one, but not together"]


def _overall_fault(
    benchmark: Benchmark, row: PublishedRow, printed: Mapping[str, _Printed], names: Sequence[str]
) -> list[str]:
    """Return a fault if the categories do not add up to the printed overall under any of the groupings."""
    column = benchmark.heading("overall")
    if column not in printed or not _sizes(benchmark, row, names[0]):
        return []
    sums = []
    for name in names:
        sizes = _sizes(benchmark, row, name)
        options = [_counts(printed[category], n) for category, n in sizes.items()]
        weighed = sum((_percent(printed[category]) * n for category, n in sizes.items()), Fraction())
        weighed /= sum(sizes.values())
        unique = all(len(option) == 1 for option in options)
        exact = Fraction(100 * sum(option[0] for option in options), sum(sizes.values())) if unique else weighed
        slack = 0 if unique else Fraction(1, 2 * min(printed[category].scale for category in sizes))
        if abs(exact - _percent(printed[column])) <= slack + Fraction(1, 2 * printed[column].scale):
            return []
        counts = f" ({sum(option[0] for option in options)}/{sum(sizes.values())})" if unique else ""
        sums.append(f"{float(exact):.2f}{counts}")
    return [f"the categories give {' or '.join(dict.fromkeys(sums))} overall, not {printed[column].text}"]


def _hint(benchmark: Benchmark, row: PublishedRow, names: Sequence[str]) -> str:
    """Return a possible explanation of an impossible row."""
    for name, exact in fits(benchmark, row).items():
        return f"it fits {sizes_of(benchmark, name)} exactly ({exact})"
    if benchmark.max_missing:
        reduced = [fit for name in names if (fit := _fit(benchmark, row, name, benchmark.max_missing))]
        if not reduced:
            return f"even up to {benchmark.max_missing} missing {benchmark.unit} per category do not explain it"
        fewest = min(reduced, key=lambda one: one.missing)
        parts = ", ".join(f"{k}/{n}" for k, n in fewest.counts)
        dropped = " (left out by the rule 'drop')" if row.rule == "drop" else ""
        return f"rows must be missing{dropped}; {fewest.missing} would explain it ({parts})"
    printed = _printed(row)
    column = benchmark.heading("overall")
    reason = "not counts of these rows"
    if _overall_fault(benchmark, row, printed, names):
        mean = _mean(_percent(printed[category]) for category in _sizes(benchmark, row, names[0]))
        if _rounds(printed[column], mean / 100, 1):
            reason += f", and the overall is the unweighted mean of the columns, {float(mean):.2f}"
    return reason

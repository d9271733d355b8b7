"""Choose the rows of a mixture: how many from each source, on which side of the split, with which label.

All decisions depend on the row keys (:mod:`r1_reward.data.keys`), the config and its seed. A source is sampled with the
seed and its own name, so adding another source does not change its sample.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from r1_reward.data.duplicates import Components
from r1_reward.data.keys import Keys
from r1_reward.data.mix_config import MixConfig, Source
from r1_reward.records.errors import UserError


class Choice(NamedTuple):
    """The rows of a mixture."""

    labels: dict[int, int]
    """The preferred response of each chosen row in the mixture, in the order of the sources."""
    test: set[int]
    taken: dict[str, dict[str, int]]
    """Row counts by source and part; a source without parts has the one part ""."""
    split: dict[str, int]
    """Number of groups of connected rows, and size of the largest."""
    warnings: list[str]


def choose(
    keys: Keys,
    clusters: np.ndarray,
    removed: Collection[int],
    config: MixConfig,
    counts: Mapping[str, Mapping[str, int]],
) -> Choice:
    """Draw the rows of every source, their side and their label; raises UserError if a source has too few rows.

    ``clusters`` holds the cluster of each image, ``removed`` the removed rows, ``counts`` the rows read by source and
    kind.
    """
    left: dict[str, dict[str, list[int]]] = {name: {} for name in config.sources}
    for row in range(len(keys)):
        if row not in removed:
            left[keys.source[row]].setdefault(keys.kind[row], []).append(row)
    clean_counts = {name: {kind: len(rows) for kind, rows in kinds.items()} for name, kinds in left.items()}
    if config.short == "refuse":
        require_enough(config, clean_counts, counts)
    chosen: list[int] = []
    taken: dict[str, dict[str, int]] = {}
    warnings: list[str] = []
    for name, source in config.sources.items():
        for part, wanted in _wanted(source, clean_counts[name]).items():
            rows = [row for kind, rows in left[name].items() if kind == part or not source.parts for row in rows]
            if len(rows) < wanted:
                what = _named(name, source, part)
                warnings.append(f"{what}: {wanted:,} rows were requested, but {len(rows):,} are left after cleaning.")
            drawn = random.Random(f"{config.seed}/{name}/{part}").sample(sorted(rows), min(wanted, len(rows)))
            taken.setdefault(name, {})[part] = len(drawn)
            chosen += drawn
    chosen.sort()
    if not chosen:
        raise UserError("No rows are left to mix; check the sources and their counts.")
    test, split = split_groups(keys, clusters, chosen, config.test_share, config.seed)
    labels = deal_labels(keys, chosen, test, random.Random(f"{config.seed}/labels"))
    for side, rows in (("train", [row for row in chosen if row not in test]), ("test", sorted(test))):
        ones = sum(labels[row] == 1 for row in rows)
        if abs(len(rows) - 2 * ones) > 1:
            warnings.append(
                f"{side}: {ones:,} rows prefer response 1 and {len(rows) - ones:,} prefer response 2, because rows "
                "with reasoning are never swapped."
            )
    return Choice(labels, test, taken, split, warnings)


def _wanted(source: Source, there: Mapping[str, int]) -> dict[str, int]:
    """Return how many rows of each part are requested from a source; a source without parts has the one part ""."""
    return dict(source.parts) or {"": sum(there.values()) if source.count is None else source.count}


def _named(name: str, source: Source, part: str) -> str:
    """Return the name of a source or of one of its parts; rows without a kind are the part ""."""
    return f"{name}, part {part or repr(part)}" if source.parts else name


def require_enough(
    config: MixConfig, there: Mapping[str, Mapping[str, int]], read: Mapping[str, Mapping[str, int]]
) -> None:
    """Raise UserError if any source has fewer rows than requested."""
    lines = []
    for name, source in config.sources.items():
        for part, wanted in _wanted(source, there[name]).items():
            left, all_rows = (
                kinds[name].get(part, 0) if source.parts else sum(kinds[name].values()) for kinds in (there, read)
            )
            if left < wanted:
                found = f"it has {left:,}" if there is read else f"{left:,} of its {all_rows:,} are left after cleaning"
                lines.append(f"{_named(name, source, part)}: {wanted:,} rows were requested, but {found}.")
    if lines:
        raise UserError("\n".join([*lines, "Request fewer, or set `short: take-all` to use all available rows."]))


def split_groups(
    keys: Keys, clusters: np.ndarray, chosen: Sequence[int], share: float, seed: int
) -> tuple[set[int], dict[str, int]]:
    """Return the rows of the test side, and the number and largest size of the groups of connected rows.

    Rows are connected by a near-duplicate image, a video, the same long question and responses, or, without images and
    videos, the same question. Rows that are connected, directly or through others, are on the same side. The test side
    has at most ``share`` (0..1) of the rows. Raises UserError if no group is small enough for a requested test side.
    """
    names: dict[Hashable, int] = {}
    first, second = [], []
    for place, row in enumerate(chosen):
        marks: list[Hashable] = [("picture", int(clusters[picture])) for picture in keys.pictures[row]]
        marks += [("video", keys.video[row])] if keys.video[row] else []
        marks = marks or [("question", keys.prompt[row])]
        marks += [("text", keys.text[row])] if keys.text[row] else []
        for mark in marks:
            first.append(place)
            second.append(len(chosen) + names.setdefault(mark, len(names)))
    components = Components(len(chosen) + len(names))
    components.join(first, second)
    groups: dict[int, list[int]] = {}
    for place, label in enumerate(components.labels()[: len(chosen)].tolist()):
        groups.setdefault(label, []).append(chosen[place])
    order = list(groups.values())
    random.Random(f"{seed}/split").shuffle(order)
    room = round(len(chosen) * share)
    test: set[int] = set()
    for group in order:
        if len(test) + len(group) <= room:
            test.update(group)
    if share and not test:
        raise UserError(
            f"test_share: no group of connected rows is small enough for {share:g} of {len(chosen):,} rows. "
            "Use more rows, a larger share, or 0 for no test side."
        )
    return test, {"groups": len(groups), "largest_group": max(map(len, groups.values()))}


def deal_labels(keys: Keys, chosen: Sequence[int], test: set[int], rng: random.Random) -> dict[int, int]:
    """Return labels with as many ones as twos, on each side and overall; odd totals differ by one."""
    coin = rng.randrange(2)
    train = [row for row in chosen if row not in test]
    ones_train = (len(train) + coin) // 2
    labels: dict[int, int] = {}
    for rows, wanted in ((train, ones_train), (sorted(test), (len(chosen) + coin) // 2 - ones_train)):
        free = [row for row in rows if not keys.fixed[row]]
        fixed_ones = sum(keys.preferred[row] == 1 for row in rows if keys.fixed[row])
        ones = set(rng.sample(free, min(max(wanted - fixed_ones, 0), len(free))))
        labels |= {row: keys.preferred[row] if keys.fixed[row] else 2 - (row in ones) for row in rows}
    return {row: labels[row] for row in chosen}

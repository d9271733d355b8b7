"""Mix sources by count, without ties, duplicates, benchmark rows, or an image on both sides of the split.

    report = mix(load_mix("recipes/data-200k.yaml"), "data/mixed")

The sources are read twice: once to compute comparison keys (:mod:`r1_reward.data.keys`), once to write the chosen rows,
so memory does not grow with the images. In between, in this order: ties, rows with unreadable images, exact and near
duplicates (the first copy stays, in the order of the config) and rows near a benchmark are removed; the requested
number of rows is sampled from each source, using only the seed and the source's name; labels 1 and 2 are balanced; and
connected rows go to the same side. The folder appears complete or not at all::

    DIR/train/pairs-*.parquet, DIR/test/pairs-*.parquet     rows, sources interleaved at random
    DIR/report.json   DIR/removed.jsonl                     counts and config; removed rows with reasons
    DIR/README.md     DIR/plots/*.png                       the data card
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from r1_reward.data.annotation_report import rows_by_state
from r1_reward.data.card import Statistics, write_card
from r1_reward.data.choosing import Choice, choose, require_enough
from r1_reward.data.contamination import BenchmarkIndex, OpenBenchmark
from r1_reward.data.duplicates import exact_duplicates, near_duplicates
from r1_reward.data.keys import Keys, count_rows
from r1_reward.data.mix_config import MixConfig, Source
from r1_reward.records.content import text_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import CONTENTS
from r1_reward.store.dataset_card import CARD, may_replace
from r1_reward.store.files import replace_folder, restore_folder, write_json, write_text
from r1_reward.store.run_folder import locked
from r1_reward.store.shards import PairWriter, pair_files, read_rows

EXAMPLES = 3
"""Number of removed rows per reason shown in report.json."""

_EXCERPT = 300  # characters of a text in an example


class Mixture(NamedTuple):
    """The result of :func:`mix`."""

    report: dict[str, Any]
    """The content of report.json."""
    seconds: dict[str, float]
    """Duration of each phase."""


def mix(
    config: MixConfig,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    open_benchmark: OpenBenchmark | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Mixture:
    """Write a mixture to ``out`` (default ``config.out``) and return its report.

    ``open_benchmark`` loads the benchmarks named in the config (:func:`r1_reward.bench.suites.load_suite`). ``say`` is
    called with progress messages. The same sources, config and seed give the same bytes.

    Raises:
        UserError: a source or benchmark cannot be read or has too few rows, or ``out`` is in use, not empty, a mount
            point, or contains the current folder.
    """
    folder = Path(out or config.out or "")
    if not (out or config.out):
        raise UserError("No output folder: set --out, or `out` in the config.")
    if config.benchmarks and open_benchmark is None:
        raise TypeError("The config names benchmarks, so mix() needs open_benchmark=r1_reward.bench.suites.load_suite.")
    clock = _Clock(say)
    with _work_folder(folder, overwrite) as work:
        counts = count_rows(config.sources)
        if config.short == "refuse":
            require_enough(config, counts, counts)
        clock.start("benchmarks")
        benchmarks = BenchmarkIndex(config.benchmarks, config.contamination, open_benchmark)
        clock.start("keys")
        keys = Keys(sum(sum(kinds.values()) for kinds in counts.values()))
        for name, source in config.sources.items():
            keys.add(name, source.path, say)
        clock.start("clean")
        clusters = keys.images.clusters(config.near.image_bits)
        removed = clean(keys, clusters, config, benchmarks)
        clock.start("choose")
        choice = choose(keys, clusters, removed, config, counts)
        clock.start("write")
        statistics, examples = _write(keys, removed, choice, config, work)
        report = _report(config, counts, removed, choice, keys, benchmarks) | {"examples": examples}
        clock.start("card")
        report["statistics"] = statistics.summary()
        write_text(work / "removed.jsonl", "".join(_removed_lines(keys, removed)))
        write_card(work, report, statistics)
        if not may_replace(folder / CARD):
            shutil.copyfile(folder / CARD, work / CARD)
        write_json(work / "report.json", report)
    return Mixture(report, clock.end())


class _Clock:
    """Times the phases and reports each one."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._name, self._since = say, "count", time.perf_counter()
        self._seconds: dict[str, float] = {}

    def start(self, name: str) -> None:
        self.end()
        self._name, self._since = name, time.perf_counter()

    def end(self) -> dict[str, float]:
        self._seconds[self._name] = time.perf_counter() - self._since
        self._say(f"{self._name}: {self._seconds[self._name]:.1f} s")
        return self._seconds


@contextmanager
def _work_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Create a temporary folder next to ``out``, and move it there on success."""
    if out.is_symlink():  # videos are named relative to the folder as it is given, so it cannot be written elsewhere
        raise UserError(
            f"{out}: is a link, which would be replaced by a folder. Give the folder itself: {out.resolve()}"
        )
    if Path.cwd().is_relative_to(out.resolve()):  # a shell would be left in the folder that was replaced
        raise UserError(
            f"{out}: is or contains the current folder, which would be replaced as a whole. Choose another folder, or "
            "run the command from elsewhere."
        )
    if os.path.ismount(out):
        raise UserError(f"{out}: is a mount point, which cannot be replaced as a whole. Choose a folder inside it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.with_name(f".{out.name}.lock"), out):
        restore_folder(out)
        _require_free(out, overwrite)
        work = out.with_name(f".{out.name}.part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
            replace_folder(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _require_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UserError(f"{out}: already exists. Choose another folder, or add --overwrite.")
    if not ((out / "report.json").is_file() and (out / "removed.jsonl").is_file()):
        raise UserError(f"{out}: not a mixture (it has no report.json and removed.jsonl), so it is not overwritten.")


class Removed(NamedTuple):
    """Why a row was removed."""

    reason: str
    detail: str
    of: int | None = None
    """The row that it duplicates, nearly duplicates or contradicts."""


def clean(keys: Keys, clusters: np.ndarray, config: MixConfig, benchmarks: BenchmarkIndex) -> dict[int, Removed]:
    """Return the rows to remove, with reasons: ties, unreadable images, duplicates, similarity to a benchmark."""
    removed: dict[int, Removed] = {}
    for row in range(len(keys)):
        if keys.preferred[row] == 0:
            removed[row] = Removed("tie", "neither response is preferred")
        elif reason := keys.unreadable(row):
            removed[row] = Removed("unreadable picture", reason)
    readable = [row for row in range(len(keys)) if row not in removed]
    exact = exact_duplicates([keys.exact[row] for row in readable], [keys.orientation[row] for row in readable])
    for found in exact:
        other = readable[found.of]
        place = keys.place(other)
        detail = f"{place} prefers the other response" if found.reason == "contradiction" else f"same as {place}"
        removed[readable[found.row]] = Removed(found.reason, detail, other)
    rest = [row for row in readable if row not in removed]
    media = [_media(keys, row, clusters) for row in range(len(keys))]
    sides = [_sides(keys, row, clusters) for row in range(len(keys))]
    for near in near_duplicates(rest, keys.signatures, media, config.near.text, sides):
        detail = f"near {keys.place(near.of)}: similarity {near.similarity:.2f}"
        removed[near.row] = Removed(near.reason, detail, near.of)
    pictures = benchmarks.match_images(keys.images)
    for row in rest:
        if row in removed:
            continue
        if text := benchmarks.match_texts(keys.signatures[row], keys.lengths[row].tolist()):
            removed[row] = Removed("benchmark text", str(text))
        elif image := next((pictures[picture] for picture in keys.pictures[row] if picture in pictures), None):
            removed[row] = Removed("benchmark picture", str(image))
    return removed


def _media(keys: Keys, row: int, clusters: np.ndarray) -> Hashable:
    """Return what near duplicates must share: image clusters or the digest of a video, and the criteria.

    Images inside the responses are compared by :func:`_sides`.
    """
    within = sum(map(len, keys.within[row][1:]))
    pictures = keys.pictures[row][: len(keys.pictures[row]) - within]
    return tuple(int(clusters[picture]) for picture in pictures) or keys.video[row], keys.criteria[row]


def _sides(keys: Keys, row: int, clusters: np.ndarray) -> tuple[Hashable, Hashable]:
    """Return the clusters of the images inside response 1 and inside response 2."""
    first, second = keys.within[row][1:] or ((), ())
    return tuple(int(clusters[picture]) for picture in first), tuple(int(clusters[picture]) for picture in second)


def _write(
    keys: Keys, removed: Mapping[int, Removed], choice: Choice, config: MixConfig, work: Path
) -> tuple[Statistics, dict[str, list[dict[str, str]]]]:
    """Write the rows of both sides; return their statistics and examples of removed rows."""
    shown: dict[str, list[int]] = {}
    for row in sorted(removed):
        if len(rows := shown.setdefault(removed[row].reason, [])) < EXAMPLES:
            rows.append(row)
    wanted = {row for rows in shown.values() for row in rows}
    examples: dict[str, list[dict[str, str]]] = {reason: [] for reason in sorted(shown)}
    statistics = Statistics()
    turn = [keys.source[row] for row in choice.labels]
    random.Random(f"{config.seed}/order").shuffle(turn)
    with ExitStack() as stack:
        sides = ["train", "test"] if choice.test else ["train"]
        writers = {side: stack.enter_context(PairWriter(work / side, lock=False)) for side in sides}

        def rows_of(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
            for row, data in _read_again(keys, name, config.sources[name]):
                if row in choice.labels and not keys.holds(row, data):
                    raise UserError(f"{config.sources[name].path}: changed during mixing. Run the command again.")
                if row in wanted:
                    examples[removed[row].reason].append(_example(data, removed[row]))
                if row in choice.labels:
                    yield row, data

        streams = {name: rows_of(name) for name in config.sources}
        for name in turn:
            row, data = next(streams[name])
            side = "test" if row in choice.test else "train"
            final = _final(data, choice.labels[row], name, keys, row)
            writers[side].add(final)
            prints = (keys.images.fingerprints[picture] for picture in keys.pictures[row])
            statistics.add(final, name, side, [found.size for found in prints if not isinstance(found, str)])
        for stream in streams.values():  # examples may come after the last chosen row
            next(stream, None)
        for side, writer in writers.items():
            writer.close({"rows": writer.rows, "side": side, "of": "a mixture; see ../report.json"})
    return statistics, examples


def _read_again(keys: Keys, name: str, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, row) of a source; raises UserError if it changed since the keys were computed."""
    rows = (row for row in range(len(keys)) if keys.source[row] == name)
    found = ((file.name, data) for file in pair_files(source.path) for data in read_rows(file))
    for row, again in zip_longest(rows, found):
        if row is None or again is None or (keys.file[row], keys.id[row]) != (again[0], again[1]["id"]):
            raise UserError(f"{source.path}: changed during mixing. Run the command again.")
        yield row, again[1]


def _final(data: Mapping[str, Any], label: int, name: str, keys: Keys, row: int) -> dict[str, Any]:
    """Return a row for the mixture: responses swapped if its label changes, source and provenance filled in."""
    final = dict(data)
    if label != data["preferred"]:
        final |= {"response_1": data["response_2"], "response_2": data["response_1"], "preferred": label}
    final["source"] = data["source"] or name
    final["provenance"] = data["provenance"] or f"{name}:{keys.file[row]}:{keys.number[row]}"
    return final


def _example(data: Mapping[str, Any], why: Removed) -> dict[str, str]:
    texts = {field: text_of(data[field])[:_EXCERPT] for field in CONTENTS}
    return {"id": data["id"], "provenance": data["provenance"], "detail": why.detail, **texts}


def _removed_lines(keys: Keys, removed: Mapping[int, Removed]) -> Iterator[str]:
    """Yield a JSON line for each removed row: its place, the reason, and the place of the other row, if any."""

    def where(row: int) -> dict[str, Any]:
        return {"source": keys.source[row], "file": keys.file[row], "row": keys.number[row], "id": keys.id[row]}

    for row, why in sorted(removed.items()):
        line = {**where(row), "reason": why.reason, "detail": why.detail}
        if why.of is not None:
            line["of"] = where(why.of)
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _report(
    config: MixConfig,
    counts: Mapping[str, Mapping[str, int]],
    removed: Mapping[int, Removed],
    choice: Choice,
    keys: Keys,
    benchmarks: BenchmarkIndex,
) -> dict[str, Any]:
    """Return the content of report.json without examples and statistics."""
    by_source = {name: Counter[str]() for name in config.sources}
    for row, why in removed.items():
        by_source[keys.source[row]][why.reason] += 1
    sources = {}
    for name, source in config.sources.items():
        read, out = sum(counts[name].values()), sum(by_source[name].values())
        taken = choice.taken[name]
        sources[name] = {
            "path": source.path,
            "read": read,
            "removed": dict(sorted(by_source[name].items())),
            "not_drawn": read - out - sum(taken.values()),
            "taken": sum(taken.values()),
            "parts": taken if source.parts else {},
            "judged": rows_by_state(Path(source.path)),
        }
    return {
        "rows": len(choice.labels),
        "train": len(choice.labels) - len(choice.test),
        "test": len(choice.test),
        "labels": {
            side: {str(label): sum(choice.labels[row] == label for row in rows) for label in (1, 2)}
            for side, rows in (("train", choice.labels.keys() - choice.test), ("test", choice.test))
        },
        "sources": sources,
        "removed": dict(sorted(Counter(why.reason for why in removed.values()).items())),
        "benchmarks": benchmarks.described,
        "split": choice.split,
        "warnings": choice.warnings,
        "config": config.model_dump(exclude={"out"}),
    }

"""Import a public source of preference pairs into a pair folder, and account for every dropped row.

::

    report = import_pairs("vl-feedback", "vlfeedback_80k.jsonl", "data/vl-feedback", images="merged_images")
    report["read"], report["kept"], report["dropped"]       # 80258, 381904, {"tie": 99577, ...}

The folder holds the pairs (:mod:`r1_reward.store.shards`), ``dropped.jsonl`` with file, row and reason of everything
dropped, and ``report.json`` with the counts. It appears only once it is complete. ``provenance`` says where a pair was
read, and ``id`` begins with the source's name, so that no two sources share an id.

Every source lists the preferred answer first. Here a hash of the seed, the question and the two answers decides which
answer becomes response 1, independently of the label, so the same pair has the same order in every import.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from r1_reward.data.sources import Source, find_source
from r1_reward.data.sources.common import Candidate, Drop, Row
from r1_reward.data.sources.error_marks import error_mark
from r1_reward.data.sources.media import MediaFolder
from r1_reward.records.checks import picture_problem, text_problems, to_pair
from r1_reward.records.content import Content, Place, map_media, same_content, text_of
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Answer
from r1_reward.store.part_columns import with_media
from r1_reward.store.rows import KINDS, RawRow, RowSource, open_source
from r1_reward.store.shards import PairWriter

DROPPED = "dropped.jsonl"
WARN_SHARE = 0.01
"""Share of pairs without a usable image above which the report warns."""

_DETAILS = 1000  # distinct details counted per reason; more than this are usually file names
_LONGEST_DETAIL = 200  # characters
_IMAGE_REASONS = ("image missing", "image outside root", "image too large", "image damaged", "video missing")

Progress = Callable[[int, int], None]
"""Called with the numbers of rows read and pairs kept so far."""


class NothingImported(UserError):
    """No row could be imported; the file may belong to another source."""


@dataclass
class Tally:
    """Counts over the rows read so far."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    details: dict[str, Counter[str]] = field(default_factory=dict)
    """Counts of details by reason, for the first ``_DETAILS`` distinct ones."""
    missing: Counter[str] = field(default_factory=Counter)
    """Rows dropped for lack of a field, by field."""
    objects: int = 0
    """Rows that are JSON objects."""
    columns: tuple[str, ...] = ()
    """Fields of the first of these."""
    kinds: Counter[str] = field(default_factory=Counter)
    preferred: Counter[int] = field(default_factory=Counter)


def import_pairs(
    source: str,
    origin: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    split: str | None = None,
    config: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Import a source into the pair folder ``out`` and return the report that is also written to ``report.json``.

    ``origin`` is a JSONL, JSON or parquet file, a folder with files of one of these kinds, or a dataset on the Hub
    (``split`` and ``config`` select a part). ``images`` is the folder that paths in the rows are relative to (default:
    the folder of ``origin``). ``limit`` is the maximum number of rows to read. ``read`` counts rows; ``kept`` counts
    pairs, and one row may yield several; ``dropped`` counts, by reason, pairs or rows that yielded none.

    Raises:
        NothingImported: all rows lack a field, or no pair is left.
        UserError: the source, file or folder does not exist; a file is truncated or does not contain rows; or ``out``
            already holds pairs and ``overwrite`` is False.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit: must be at least 1 row, not {limit}.")
    reader = find_source(source)
    opened = open_source(origin, split=split or reader.split, config=config, file=reader.file, kinds=KINDS, stream=True)
    root = opened.folder if images is None else Path(images)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Image paths are relative to it; choose another with --images.")
    with PairWriter(out, overwrite=overwrite) as writer:
        with open(writer.staging / DROPPED, "w", encoding="utf-8", errors="backslashreplace") as file:
            job = _Import(source, reader, MediaFolder(root, by_name=reader.by_name), seed, writer, file)
            job.run(opened, limit, progress)
        report = _report(job.tally, source, origin, images, seed, limit, split or reader.split)
        writer.close(report)
    return report


class _Import:
    """An import in progress."""

    def __init__(
        self, name: str, source: Source, media: MediaFolder, seed: int, writer: PairWriter, dropped: TextIO
    ) -> None:
        self.name, self.source, self.media, self.seed = name, source, media, seed
        self.writer, self.dropped = writer, dropped
        self.tally = Tally()

    def run(self, origin: RowSource, limit: int | None, progress: Progress | None) -> None:
        for raw in origin.rows():
            if limit is not None and self.tally.read == limit:
                break
            if raw.lost:  # an unknown number of rows is lost
                raise UserError(f"{raw.file}: {raw.place}: {raw.broken}. Check that the file is complete.")
            self.tally.read += 1
            self._row(raw)
            if progress is not None:
                progress(self.tally.read, self.tally.kept)
        _require_pairs(self.tally, origin)

    def _row(self, raw: RawRow) -> None:
        """Add the pairs of a row, and record the reason for each one dropped."""
        drop = partial(self._drop, raw)
        if raw.broken is not None or not isinstance(raw.data, dict):
            drop("", Drop("not JSON", raw.broken or "is not a JSON object"))
            return
        row = Row(raw.data)
        self.tally.objects += 1
        self.tally.columns = self.tally.columns or tuple(raw.data)
        name, embedded = row.label("id", "idx", "question_id"), _Media(self.media)
        try:
            for item in self.source.read(row):
                if isinstance(item, Drop):
                    drop(name, item)
                    continue
                try:
                    self._add(item, raw, embedded)
                except Drop as reason:
                    drop(item.id, reason)
        except Drop as reason:  # the whole row
            if reason.reason == "missing field":
                self.tally.missing[reason.detail] += 1
            drop(name, reason)

    def _add(self, candidate: Candidate, raw: RawRow, media: _Media) -> None:
        provenance = f"{self.name}:{os.path.basename(raw.file)}:{raw.number}"
        label = candidate.preferred or chosen_place(candidate, self.seed)
        responses = (candidate.chosen, candidate.rejected)
        first, second = responses if label == 1 else responses[::-1]
        numbered = not candidate.id or candidate.id.startswith(":")
        pair: dict[str, Any] = {
            "id": f"{provenance}{candidate.id}" if numbered else f"{self.name}:{candidate.id}",
            "question": candidate.question,
            "response_1": first,
            "response_2": second,
            "preferred": label,
            "source": self.name,
            "kind": candidate.kind,
            "provenance": provenance,
            **candidate.kept,
        }
        _require_usable(pair | {"images": [""] * len(candidate.images), "video": candidate.video})
        if candidate.video is not None:
            pair["video"] = self.media.video(candidate.video)
        self.writer.add(with_media(pair, media.medium) | {"images": media.images(candidate.images)})
        self.tally.kept += 1
        self.tally.kinds[pair["kind"]] += 1
        self.tally.preferred[label] += 1

    def _drop(self, raw: RawRow, name: str, drop: Drop) -> None:
        self.tally.dropped[drop.reason] += 1
        details = self.tally.details.setdefault(drop.reason, Counter())
        if drop.detail in details or len(details) < _DETAILS:
            details[drop.detail] += 1
        place = {"source": self.name, "file": raw.file, "row": raw.number, "id": name[:200]}
        line = {**place, "reason": drop.reason, "detail": drop.detail[:300]}
        self.dropped.write(json.dumps(line, ensure_ascii=False) + "\n")


class _Media:
    """The images of one row, read once for all its pairs."""

    def __init__(self, media: MediaFolder) -> None:
        self._media = media
        self._cells: dict[int, tuple[Mapping[str, Any], dict[str, Any] | Drop]] = {}

    def medium(self, place: Place) -> Any:
        """Return what is stored for an image or video inside a content."""
        return self._image(place.source) if place.kind == "image" else self._media.video(place.source)

    def images(self, cells: tuple[Mapping[str, Any], ...]) -> list[dict[str, Any]]:
        return [self._image(cell) for cell in cells]

    def _image(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        if id(cell) not in self._cells:  # storing the cell keeps it alive, so its id stays unique
            try:
                self._cells[id(cell)] = cell, self._media.image(cell)
            except Drop as drop:
                self._cells[id(cell)] = cell, drop
        _, found = self._cells[id(cell)]
        if isinstance(found, Drop):
            raise found
        return found


def chosen_place(candidate: Candidate, seed: int) -> Answer:
    """Return which response the chosen answer becomes: a hash of the texts decides which of the two comes first.

    The hash does not depend on which answer is chosen, so the position carries no information about the label.
    """
    question, chosen, rejected = map(_key, (candidate.question, candidate.chosen, candidate.rejected))
    answers = sorted((chosen, rejected))
    digest = hashlib.sha256(json.dumps([seed, question, *answers]).encode()).digest()
    return 1 if answers[digest[0] & 1] == chosen else 2


def _key(content: Content) -> str:
    """Return the identity of a content: the text itself, or the texts of parts with the bytes or names of images."""
    return content if isinstance(content, str) else json.dumps(map_media(content, _name))


def _name(place: Place) -> str:
    cell = place.source
    data = cell.get("bytes") if isinstance(cell, Mapping) else None
    name = cell.get("path") if isinstance(cell, Mapping) else cell
    return str(name) if data is None else f"sha256:{hashlib.sha256(data).hexdigest()}"


def _require_usable(pair: Mapping[str, Any]) -> None:
    """Raise Drop for texts that a pair file does not accept, and for answers that are error messages."""
    pair = with_media(pair, _name)
    for name in ("response_1", "response_2"):
        if (mark := error_mark(text_of(pair[name]))) is not None:
            raise Drop("error reply", mark)
    if same_content(pair["response_1"], pair["response_2"]):
        raise Drop("identical answers")
    if reason := picture_problem(pair):
        raise Drop("picture places", f"question {reason}")
    for name, reason in [*to_pair(dict(pair))[1], *text_problems(dict(pair))]:
        raise Drop("unusable text", f"{name} {reason}")


def _require_pairs(tally: Tally, origin: RowSource) -> None:
    """Raise NothingImported with the reasons if no pair was kept."""
    if not tally.read:
        raise UserError(f"{origin.name}: has no rows.")
    if tally.kept:
        return
    for name, count in tally.missing.items():
        if count == tally.objects:
            there = ", ".join(tally.columns[:20]) or "no fields"
            raise NothingImported(f"{origin.name}: no row has the field {name}. The fields are: {there}.")
    reasons = ", ".join(f"{reason} {count}" for reason, count in tally.dropped.most_common())
    why = "; ".join(_details(tally))
    raise NothingImported(
        f"{origin.name}: none of the {tally.read} rows yields a pair ({reasons}).{why and f' Most common: {why}.'}"
    )


def _details(tally: Tally) -> Iterator[str]:
    """Yield the most common detail of each reason, such as ``wrong type: chosen is a list, not text``."""
    for reason, count in tally.dropped.most_common():
        detail, often = tally.details[reason].most_common(1)[0]
        if detail:
            share = "" if often == count else f" ({often:,} of {count:,})"
            yield f"{reason}: {detail[:_LONGEST_DETAIL].rstrip('.')}{share}"


def _report(tally: Tally, source: str, origin: Any, images: Any, seed: int, limit: Any, split: str) -> dict[str, Any]:
    total = tally.kept + sum(tally.dropped.values())
    lost = sum(tally.dropped[reason] for reason in _IMAGE_REASONS)
    warnings = []
    if lost > WARN_SHARE * total:
        warnings.append(
            f"{lost:,} of {total:,} pairs ({lost / total:.1%}) have no usable image; see {DROPPED}. "
            "Check that the image folder is the right one and complete."
        )
    return {
        "source": source,
        "from": str(origin),
        "images": None if images is None else str(images),
        "split": split,
        "seed": seed,
        "limit": limit,
        "read": tally.read,
        "kept": tally.kept,
        "dropped": dict(tally.dropped.most_common()),
        "kinds": dict(sorted(tally.kinds.items())),
        "preferred": {str(label): tally.preferred[label] for label in (1, 2)},
        "warnings": warnings,
    }

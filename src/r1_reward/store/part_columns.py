"""Contents in files: as texts where no row of a file has parts, else as lists of parts, whose pictures are cells.

A cell is ``{"bytes": ..., "path": ...}``, as in the column ``images``. What reads a file takes either form, and shards
of both kinds side by side; what writes one begins with texts and turns to parts when the first row has some::

    with PairRowWriter(Path("pairs.parquet"), group_rows=256) as writer:
        writer.add({"question": "Which digit?", ...})
        writer.add({"question": [{"type": "image", "image": {"bytes": png, "path": None}}, ...], ...})
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, LargeList, List, Value
from datasets import Image as ImageFeature

from r1_reward.records.content import ContentError, Place, fill_places, map_media, places_of, to_parts
from r1_reward.records.schema import CONTENTS
from r1_reward.store.rows import RowWriter, undecoded

PARTS = List(
    {"type": Value("string"), "text": Value("string"), "image": ImageFeature(decode=False), "video": Value("string")}
)
"""The feature of a content where any row of a file has parts."""

FEATURES = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "images": List(ImageFeature(decode=False)),
        "video": Value("string"),
        "response_1": Value("string"),
        "response_2": Value("string"),
        "preferred": Value("int64"),
        "criteria": Value("string"),
        "source": Value("string"),
        "kind": Value("string"),
        "provenance": Value("string"),
        "reasoning": Value("string"),
        "attempts": Value("int64"),
    }
)
"""The columns of pairs whose contents are texts."""

FEATURES_WITH_PARTS = Features({**FEATURES, **dict.fromkeys(CONTENTS, PARTS)})
"""The columns of pairs of which any has parts."""


SCHEMA = undecoded(FEATURES, decode=True).arrow_schema
"""Of parquet files of pairs. Other programs that read one with `datasets` get decoded images: Image() in its header,
not Image(decode=False); Dataset.to_parquet would leave undecoded images as mere paths."""

SCHEMA_WITH_PARTS = undecoded(FEATURES_WITH_PARTS, decode=True).arrow_schema


def have_parts(columns: Any) -> bool:
    """Say whether any content of a row, a schema or features is a list of parts."""
    if isinstance(columns, pa.Schema):
        return any(name in columns.names and pa.types.is_nested(columns.field(name).type) for name in CONTENTS)
    return any(isinstance(columns.get(name), list | List | LargeList) for name in CONTENTS)


def as_column(content: Any) -> list[dict[str, Any]]:
    """Return a content as a value of a column of parts."""
    empty = dict.fromkeys(("type", "text", "image", "video"))
    parts = to_parts(content)
    return [empty | part for part in ([{"type": "text", "text": parts}] if isinstance(parts, str) else parts)]


def widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table whose texts are lists of one part where a schema has contents as parts; all else is as it was."""
    for index, name in enumerate(table.column_names):
        wanted = schema.field(name).type if name in CONTENTS and name in schema.names else None
        if wanted is not None and pa.types.is_nested(wanted) and not pa.types.is_nested(table.field(index).type):
            values = [None if text is None else as_column(text) for text in table.column(index).to_pylist()]
            table = table.set_column(index, name, pa.array(values, wanted))
    return table


def widen_file(file: Path) -> None:
    """Rewrite a parquet file of pairs whose contents are texts so that they are lists of parts."""
    _reopened(file).close()


def _reopened(file: Path) -> pq.ParquetWriter:
    """Return a writer that has written all rows of a file anew, as parts, a group of rows at a time."""
    before = file.with_name(f".{file.name}.texts")
    os.replace(file, before)
    writer = pq.ParquetWriter(file, SCHEMA_WITH_PARTS)
    try:
        with pq.ParquetFile(before) as texts:
            for group in range(texts.num_row_groups):
                table = widened(texts.read_row_group(group), SCHEMA_WITH_PARTS)
                writer.write_table(pa.Table.from_arrays(table.columns, schema=SCHEMA_WITH_PARTS))
    except BaseException:
        writer.close()
        raise
    finally:
        before.unlink(missing_ok=True)
    return writer


class PairRowWriter(RowWriter):
    """Writes rows of pairs to a parquet file, whose contents are texts until the first row with parts comes."""

    def __init__(self, file: Path, *, group_rows: int, group_bytes: int | None = None, parts: bool = False) -> None:
        """``parts`` begins with parts at once."""
        schema = SCHEMA_WITH_PARTS if parts else SCHEMA
        super().__init__(file, schema, group_rows=group_rows, group_bytes=group_bytes)
        self._path, self.parts = file, parts

    def add(self, row: Mapping[str, Any], size: int = 0) -> None:
        """Add a row of about ``size`` bytes."""
        if not self.parts and have_parts(row):
            self._file.close()
            self._file, self._schema, self.parts = _reopened(self._path), SCHEMA_WITH_PARTS, True
        super().add(row, size)

    def _write(self) -> None:
        if self.parts:
            self._group = [{**row, **{name: as_column(row[name]) for name in CONTENTS}} for row in self._group]
        super()._write()


# ---- rows


def media_at(value: Any, name: str) -> Iterator[tuple[str, Place]]:
    """Yield each picture and video of a field that may hold parts, and where it is: ``response_1[2].image``.

    What cannot be read is left for others to complain about.
    """
    if not isinstance(value, list | tuple):
        return
    for index, part in enumerate(value):
        try:
            places = places_of([part])
        except ContentError:
            continue
        for place in places:
            yield f"{name}[{index}].{place.kind}", place if place.source is not None else _named(part, place)


def _named(part: Any, place: Place) -> Place:
    """Return a place without a source with what its part gives for one: a blank text is read as none."""
    given = part.get(place.kind, part.get(f"{place.kind}_url")) if isinstance(part, Mapping) else None
    given = given.get("url") if isinstance(given, Mapping) else given
    return place._replace(source=given) if isinstance(given, str) else place


def with_media(
    row: Mapping[str, Any], change: Callable[[Place], Any], names: Iterable[str] = CONTENTS
) -> dict[str, Any]:
    """Return a row whose contents have other pictures and videos; a content that cannot be read stays as it is."""
    return {**row, **{name: _changed(row[name], change) for name in names if isinstance(row.get(name), list | tuple)}}


def _changed(content: Any, change: Callable[[Place], Any]) -> Any:
    try:
        return map_media(content, change)
    except ContentError:
        return content


def filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked row whose contents are in canonical form, each picture with its source.

    A text is a text, and image parts without a picture have taken the row's ``images``.

    Raises:
        ContentError: parts and images do not match.
    """
    contents = [row[name] for name in CONTENTS]
    if all(isinstance(content, str) for content in contents):
        return dict(row)
    contents, images = fill_places(contents, row.get("images") or [])
    return {**row, **dict(zip(CONTENTS, map(to_parts, contents), strict=True)), "images": images}

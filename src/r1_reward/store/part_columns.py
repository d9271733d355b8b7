"""Contents in parquet: texts if no row of a file has parts, else lists of parts, whose images are cells.

A cell is ``{"bytes": ..., "path": ...}``, as in the column ``images``. Readers accept either form, also mixed among
shards; writers begin with texts and switch to parts at the first row that has some::

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
"""The feature of a content if any row of a file has parts."""

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
"""The columns of pairs if any row has parts."""


SCHEMA = undecoded(FEATURES, decode=True).arrow_schema
"""The schema of parquet files of pairs. Its metadata says Image(), not Image(decode=False), so that other programs get
decoded images from `datasets`; Dataset.to_parquet would write undecoded images as mere paths."""

SCHEMA_WITH_PARTS = undecoded(FEATURES_WITH_PARTS, decode=True).arrow_schema


def have_parts(columns: Any) -> bool:
    """Return whether any content of a row, a schema or features is a list of parts."""
    if isinstance(columns, pa.Schema):
        return any(name in columns.names and pa.types.is_nested(columns.field(name).type) for name in CONTENTS)
    return any(isinstance(columns.get(name), list | List | LargeList) for name in CONTENTS)


def as_column(content: Any) -> list[dict[str, Any]]:
    """Return a content as a value for a column of parts."""
    empty = dict.fromkeys(("type", "text", "image", "video"))
    parts = to_parts(content)
    return [empty | part for part in ([{"type": "text", "text": parts}] if isinstance(parts, str) else parts)]


def widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with texts turned into lists of one part for the contents that are parts in ``schema``."""
    for index, name in enumerate(table.column_names):
        wanted = schema.field(name).type if name in CONTENTS and name in schema.names else None
        if wanted is not None and pa.types.is_nested(wanted) and not pa.types.is_nested(table.field(index).type):
            values = [None if text is None else as_column(text) for text in table.column(index).to_pylist()]
            table = table.set_column(index, name, pa.array(values, wanted))
    return table


def widen_file(file: Path) -> None:
    """Rewrite a parquet file of pairs so that its contents are lists of parts instead of texts."""
    _reopened(file).close()


def _reopened(file: Path) -> pq.ParquetWriter:
    """Rewrite all rows of a file as parts, one row group at a time, and return the still open writer."""
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
    """Writes pairs to a parquet file, with contents as texts until the first row with parts."""

    def __init__(self, file: Path, *, group_rows: int, group_bytes: int | None = None, parts: bool = False) -> None:
        """Create the file; with ``parts``, contents are parts from the first row on."""
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
    """Yield the name and place of each image and video of a field that may have parts: ``response_1[2].image``.

    Unreadable parts are skipped; validation reports them.
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
    """Return a place without a source with the blank text that its part has as a source, if it has one."""
    given = part.get(place.kind, part.get(f"{place.kind}_url")) if isinstance(part, Mapping) else None
    given = given.get("url") if isinstance(given, Mapping) else given
    return place._replace(source=given) if isinstance(given, str) else place


def with_media(
    row: Mapping[str, Any], change: Callable[[Place], Any], names: Iterable[str] = CONTENTS
) -> dict[str, Any]:
    """Return a row with the images and videos of its contents replaced; unreadable contents stay unchanged."""
    return {**row, **{name: _changed(row[name], change) for name in names if isinstance(row.get(name), list | tuple)}}


def _changed(content: Any, change: Callable[[Place], Any]) -> Any:
    try:
        return map_media(content, change)
    except ContentError:
        return content


def filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked row with its contents in canonical form: text, or parts that all have a source.

    Image parts without a source are filled from the row's ``images``.

    Raises:
        ContentError: If parts and images do not match.
    """
    contents = [row[name] for name in CONTENTS]
    if all(isinstance(content, str) for content in contents):
        return dict(row)
    contents, images = fill_places(contents, row.get("images") or [])
    return {**row, **dict(zip(CONTENTS, map(to_parts, contents), strict=True)), "images": images}

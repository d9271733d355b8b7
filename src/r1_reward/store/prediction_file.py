"""The file a run adds its predictions to: an append log that ends up sorted by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.store.append_log import AppendLog
from r1_reward.store.dataset_card import Columns, write_card
from r1_reward.store.files import complete_file

_TEXTS, _NUMBERS = ("key", "id", "category", "paper_category", "issue", "media"), ("index", "preferred", "longer")
VOTE = {
    "answer": "int64", "swapped": "bool", "text": "string", "well_formed": "bool", "tokens": "int64",
    "truncated": "bool", "probability": "float64",
}  # fmt: skip
"""The fields of a :class:`~r1_reward.records.schema.Judgment`, and their types for `datasets`."""
COLUMNS: Columns = (
    *({"name": name, "dtype": "string"} for name in _TEXTS),
    *({"name": name, "dtype": "int64"} for name in _NUMBERS),
    {"name": "members", "list": "int64"},
    {"name": "passes", "list": {"list": [{"name": name, "dtype": dtype} for name, dtype in VOTE.items()]}},
)
"""The columns of predictions for `datasets`, which takes them from the first rows where nobody says: a field that is
null there, or that only later rows have, then ends the loading."""


class Judged(NamedTuple):
    """What a line says of which row was judged."""

    key: str
    media: str | None
    """Digest of the pictures and the video that were shown, None if the file does not tell."""


class PredictionFile:
    """One JSON object a line, one line a row of the benchmark, with at least ``index`` and ``key``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = AppendLog(path, "a prediction", _judged)

    def repair(self) -> dict[int, Judged]:
        """Cut off a line that a crash left half written; return the rows that are there by their index.

        Raises:
            UserError: a line other than the last is broken, or a row is there twice.
        """
        done: dict[int, Judged] = {}
        for line, _, (index, judged) in self._log.entries():
            if index in done:
                raise self._log.wrong(line, f"row {index} is there twice")
            done[index] = judged
        return done

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, which are on disk when it returns."""
        self._log.append(rows)
        self._log.sync()

    def close(self) -> None:
        """Close the file; lines can be added again."""
        self._log.close()

    def sort(self) -> None:
        """Put the lines into the order of the rows, if rows that failed at first were added later."""
        places = sorted((entry.value[0], entry.place) for entry in self._log.entries())
        if [place for _, place in places] == sorted(place for _, place in places):
            return
        with complete_file(self.path) as part, open(self.path, "rb") as file, open(part, "wb") as sorted_file:
            for _, place in places:
                file.seek(place.offset)
                sorted_file.write(file.read(place.length))


def write_predictions_card(folder: Path, splits: Mapping[str, str]) -> None:
    """Write the card with which `datasets` loads a folder of predictions; ``splits`` are their files by name."""
    write_card(
        folder,
        {"default": splits},
        "Predictions of a judge",
        "A line for each row of a benchmark: what is right, and every vote (`passes`: one list an order of the "
        "responses). `answer` is the response that a vote prefers, in the stored order; 0 is a tie, null unreadable.",
        features={"default": COLUMNS},
    )


def _judged(row: Any) -> tuple[int, Judged]:
    index, key, media = row["index"], row["key"], row.get("media")
    if not isinstance(index, int) or not isinstance(key, str) or not isinstance(media, str | None):
        raise ValueError(json.dumps([index, key, media]))
    return index, Judged(key, media)

"""The predictions of a run: an append-only log, sorted by row at the end."""

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
"""The columns of predictions for `datasets`, which would infer them from the first rows and then fail at a field that
is null there, or that only later rows have."""


class Judged(NamedTuple):
    """The identity of the row that a line judges."""

    key: str
    media: str | None
    """Digest of the images and the video shown, None if the file does not record it."""


class PredictionFile:
    """A JSONL file with one line per row of the benchmark, each with at least ``index`` and ``key``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = AppendLog(path, "a prediction", _judged)

    def repair(self) -> dict[int, Judged]:
        """Truncate an incomplete last line, and return the existing rows by index.

        Raises:
            UserError: If any other line is invalid, or a row occurs twice.
        """
        done: dict[int, Judged] = {}
        for line, _, (index, judged) in self._log.entries():
            if index in done:
                raise self._log.wrong(line, f"row {index} occurs twice")
            done[index] = judged
        return done

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows and flush them to disk."""
        self._log.append(rows)
        self._log.sync()

    def close(self) -> None:
        """Close the file; the next append reopens it."""
        self._log.close()

    def sort(self) -> None:
        """Sort the lines by row, if rows that failed at first were added later."""
        places = sorted((entry.value[0], entry.place) for entry in self._log.entries())
        if [place for _, place in places] == sorted(place for _, place in places):
            return
        with complete_file(self.path) as part, open(self.path, "rb") as file, open(part, "wb") as sorted_file:
            for _, place in places:
                file.seek(place.offset)
                sorted_file.write(file.read(place.length))


def write_predictions_card(folder: Path, splits: Mapping[str, str]) -> None:
    """Write the card that lets `datasets` load a folder of predictions; ``splits`` maps names to files."""
    write_card(
        folder,
        {"default": splits},
        "Predictions of a judge",
        "One line per row of a benchmark: the label and all votes (`passes`: one list per order of the responses). "
        "`answer` is the response that a vote prefers, in the stored order; 0 is a tie, null is unreadable.",
        features={"default": COLUMNS},
    )


def _judged(row: Any) -> tuple[int, Judged]:
    index, key, media = row["index"], row["key"], row.get("media")
    if not isinstance(index, int) or not isinstance(key, str) or not isinstance(media, str | None):
        raise ValueError(json.dumps([index, key, media]))
    return index, Judged(key, media)

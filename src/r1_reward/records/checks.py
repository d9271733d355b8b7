"""What is wrong with a row of a pair file, in words that a person can act on; pictures are checked elsewhere.

>>> to_pair({"id": "7", "question": "Which digit?"})[1]
[('response_1', 'is missing'), ('response_2', 'is missing'), ('preferred', 'is missing')]
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from r1_reward.records.errors import UserError
from r1_reward.records.schema import PreferencePair

MAX_RESPONSE_CHARS = 50_000
"""Longest response accepted, in characters: about 12,000 tokens, more than any judge prompt here has room for."""

FIELDS = tuple(PreferencePair.model_fields)
REQUIRED = tuple(name for name, field in PreferencePair.model_fields.items() if field.is_required())
_LISTED = 20
_SURROGATE = "contains a lone surrogate, which no text file can hold"
_PATTERNED = ("question", "response_1", "response_2")  # pydantic itself finds a surrogate where there is a pattern


class Problem(NamedTuple):
    """One thing wrong with a pair file; ``line`` counts from 1 (rows in parquet) and is 0 for the file as a whole."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "file"
        return f"{place}, {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


class PairFileError(UserError):
    """A pair file has problems: all of them in ``problems``, the first 20 in the message; ``rows`` were read."""

    def __init__(self, problems: Sequence[Problem], rows: int) -> None:
        self.problems = list(problems)
        self.rows = rows
        file, count = self.problems[0].file, len(self.problems)
        lines = [f"{file}: {count} problem{'s' if count > 1 else ''} in {rows} row{'' if rows == 1 else 's'}"]
        lines += [f"  {problem}" for problem in self.problems[:_LISTED]]
        if count > _LISTED:
            lines.append(f"  ... and {count - _LISTED} more. To see all: r1-reward data validate {file}")
        super().__init__("\n".join(lines))


def to_pair(row: dict[str, Any]) -> tuple[PreferencePair | None, list[tuple[str, str]]]:
    """Return a row as a pair, or None and what is wrong with which field."""
    # Pydantic takes True and 1.0 for the literal 1.
    odd = row.get("preferred") in (1, 2) and type(row["preferred"]) is not int
    problems = [("preferred", f"must be 1 or 2, not {_short(row['preferred'])}")] if odd else []
    try:
        pair = PreferencePair.model_validate(row)
    except ValidationError as error:
        return None, problems + [_explain(one) for one in error.errors(include_url=False)]
    return (None if odd else pair), problems


def _explain(error: Any) -> tuple[str, str]:
    """Return field and reason, in plain words, of one pydantic error."""
    field = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in error["loc"])
    given = error.get("input")
    reasons: dict[str, Callable[[], str]] = {
        "missing": lambda: "is missing",
        "extra_forbidden": lambda: unknown_field(field),
        "string_pattern_mismatch": lambda: "is blank",
        "string_unicode": lambda: _SURROGATE,
        "string_type": lambda: f"must be text, not {kind_of(given)}",
        "list_type": lambda: f"must be a list, not {kind_of(given)}",
        "int_type": lambda: f"must be a whole number, not {_short(given)}",
        "literal_error": lambda: f"must be 1 or 2, not {_short(given)}",
        "greater_than_equal": lambda: f"must be 1 or more, not {_short(given)}",
    }
    return field, reasons.get(error["type"], lambda: error["msg"])()


def unknown_field(name: str) -> str:
    """Return the reason to give for a field that does not exist, with the nearest right name if one is near."""
    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f"is not a known field; did you mean {near[0]}?" if near else f"is not one of {', '.join(FIELDS)}"


def text_problems(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the schema cannot say about texts."""
    for field in FIELDS:
        if isinstance(row.get(field), str) and "\0" in row[field]:
            yield field, "contains a NUL character"
        if field not in _PATTERNED and isinstance(row.get(field), str) and _has_surrogate(row[field]):
            yield field, _SURROGATE
    first, second = row.get("response_1"), row.get("response_2")
    for field, text in (("response_1", first), ("response_2", second)):
        if isinstance(text, str) and len(text) > MAX_RESPONSE_CHARS:
            yield field, f"has {len(text):,} characters; at most {MAX_RESPONSE_CHARS:,} are accepted"
    if isinstance(first, str) and isinstance(second, str) and first.strip() and first.strip() == second.strip():
        yield "response_2", "is the same as response_1"


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def kind_of(value: Any) -> str:
    """Name the type of a JSON value."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return names.get(type(value)) or ("a list" if isinstance(value, list) else "an object")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."

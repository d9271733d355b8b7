"""Validate rows of a pair file, with reasons that a person can act on; image files are checked elsewhere.

>>> to_pair({"id": "7", "question": "Which digit?"})[1]
[('response_1', 'is missing'), ('response_2', 'is missing'), ('preferred', 'is missing')]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from r1_reward.records.content import (
    Content,
    ContentError,
    blank,
    fill_places,
    places_of,
    read_parts,
    same_content,
    to_parts,
)
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.groups import ResponseGroup
from r1_reward.records.parsing import parse_judgment
from r1_reward.records.placeholders import find_placeholders, mismatch
from r1_reward.records.schema import CONTENTS, PreferencePair
from r1_reward.records.texts import is_blank

MAX_RESPONSE_CHARS = 50_000
"""Longest accepted response, in characters: about 12,000 tokens, more than fits into any judge prompt here."""

FIELDS = tuple(PreferencePair.model_fields)
REQUIRED = tuple(name for name, field in PreferencePair.model_fields.items() if field.is_required())
_LISTED = 20
_NUMBER = re.compile(r"\d[\d,]*")
_LABELS = "must be 1 or 2 (or 0 for a tie)"
_FEW = 3  # up to so many problems of one kind are listed individually
_SURROGATE = "contains a lone surrogate, which cannot be encoded as UTF-8"


class Problem(NamedTuple):
    """One problem of a pair file; ``line`` counts from 1 (rows in parquet) and is 0 for the file as a whole."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else "file"
        return f"{place}, {self.field}: {self.reason}" if self.field else f"{place}: {self.reason}"


class Summarised(NamedTuple):
    """A problem, and the other lines with a problem of the same kind: none, or at least three."""

    problem: Problem
    also: list[int]


def summarise(problems: Iterable[Problem]) -> list[Summarised]:
    """Return the problems in line order; a kind that occurs more than three times is represented by its first.

    Problems are of the same kind if field and reason are equal up to numbers.
    """
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(_kind(problem), []).append(problem)
    many = {kind: found for kind, found in kinds.items() if len(found) > _FEW}
    few = [Summarised(problem, []) for kind, found in kinds.items() if kind not in many for problem in found]
    firsts = [Summarised(found[0], [other.line for other in found[1:]]) for found in many.values()]
    return sorted(few + firsts, key=lambda one: one.problem.line)


def _kind(problem: Problem) -> tuple[str, str]:
    return _NUMBER.sub("#", problem.field), _NUMBER.sub("#", problem.reason)


def also_lines(lines: Sequence[int]) -> str:
    """Return further lines in words, naming the first three: ``71,086 more: lines 2, 3, 4, ...``."""
    return f"{len(lines):,} more: lines {', '.join(map(str, lines[:3]))}, ..."


class PairFileError(UserError):
    """A pair file has problems; ``problems`` has all of them, the message at most 20 kinds. ``rows`` were read."""

    def __init__(self, problems: Sequence[Problem], rows: int) -> None:
        self.problems = list(problems)
        self.rows = rows
        file, count = self.problems[0].file, len(self.problems)
        lines = [f"{file}: {count:,} problem{'s' if count > 1 else ''} in {rows:,} row{'' if rows == 1 else 's'}"]
        shown = summarise(self.problems)
        lines += [f"  {one.problem}" + (f" ({also_lines(one.also)})" if one.also else "") for one in shown[:_LISTED]]
        if left := sum(1 + len(one.also) for one in shown[_LISTED:]):
            lines.append(f"  ... and {left:,} more. To list all: r1-reward data validate {file}")
        super().__init__("\n".join(lines))


def to_pair(row: dict[str, Any]) -> tuple[PreferencePair | None, list[tuple[str, str]]]:
    """Return a row as a pair, or None and the problems as (field, reason)."""
    # Pydantic accepts True and 1.0 as the literal 1.
    odd = row.get("preferred") in (0, 1, 2) and type(row["preferred"]) is not int
    problems = [("preferred", f"{_LABELS}, not {_short(row['preferred'])}")] if odd else []
    try:
        pair = PreferencePair.model_validate(row)
    except ValidationError as error:
        return None, problems + [_explain(one) for one in error.errors(include_url=False)]
    return (None if odd else pair), problems


def to_group(row: dict[str, Any]) -> tuple[ResponseGroup | None, list[tuple[str, str]]]:
    """Return a row as a ranked group, or None and the problems as (field, reason)."""
    try:
        return ResponseGroup.model_validate(row), []
    except ValidationError as error:
        return None, [_explain(one) for one in error.errors(include_url=False)]


def _explain(error: Any) -> tuple[str, str]:
    """Return field and reason, in plain words, of one pydantic error."""
    # After a content's name, loc lists the types of the union.
    loc = error["loc"][: {"responses": 2, **dict.fromkeys(CONTENTS, 1)}.get(str(error["loc"][:1] and error["loc"][0]))]
    field = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in loc)
    given = error.get("input")
    if error["type"] in ("places", "ranking"):
        return {"places": "images", "ranking": "ranking"}[error["type"]], error["msg"]
    reasons: dict[str, Callable[[], str]] = {
        "missing": lambda: "is missing",
        "extra_forbidden": lambda: unknown_field(field),
        "string_unicode": lambda: _SURROGATE,
        "string_type": lambda: f"must be text, not {kind_of(given)}",
        "list_type": lambda: f"must be a list, not {kind_of(given)}",
        "too_short": lambda: "is empty",
        "int_type": lambda: f"must be a whole number, not {_short(given)}",
        "literal_error": lambda: f"{_LABELS}, not {_short(given)}",
        "greater_than_equal": lambda: f"must be 1 or more, not {_short(given)}",
    }
    return field, reasons.get(error["type"], lambda: error["msg"])()


def unknown_field(name: str) -> str:
    """Return the reason for an unknown field, with the closest valid name if there is one."""
    near = difflib.get_close_matches(name, FIELDS, n=1)
    return f"is not a known field; did you mean {near[0]}?" if near else f"is not one of {', '.join(FIELDS)}"


def text_problems(row: dict[str, Any], *, ties: bool = True) -> Iterator[tuple[str, str]]:
    """Yield the problems that the schema cannot express; without ``ties``, a row without a winner is one too."""
    for field in FIELDS:
        for text in _texts(row.get(field)):
            if "\0" in text:
                yield field, "contains a NUL character"
            if _has_surrogate(text):
                yield field, _SURROGATE
    row = _filled(row)
    first: Any = row.get("response_1")
    second: Any = row.get("response_2")
    for field, content in (("response_1", first), ("response_2", second), ("criteria", row.get("criteria"))):
        if (length := sum(map(len, _texts(content)))) > MAX_RESPONSE_CHARS:
            yield field, f"has {length:,} characters; at most {MAX_RESPONSE_CHARS:,} are accepted"
    if _is_known(first) and _is_known(second) and not blank(first) and same_content(first, second):
        yield "response_2", "is the same as response_1"
    if reason := picture_problem(row):
        yield "question", reason
    if not ties and row.get("preferred") == 0 and type(row["preferred"]) is int:
        yield "preferred", "is a tie (0), but the prompt asks for a winner; `r1-reward data mix` removes such rows"


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its images filled into the image parts, or unchanged if they do not match."""
    names, images = [name for name in CONTENTS if _is_content(row.get(name))], row.get("images")
    if not isinstance(images, list | tuple):
        return row
    try:
        contents, left = fill_places([row[name] for name in names], images)
    except ContentError:
        return row
    return {**row, **dict(zip(names, contents, strict=True)), "images": left}


def _is_known(value: Any) -> bool:
    """Return whether a value is a content and all its media are known."""
    return _is_content(value) and all(place.source is not None for place in places_of(value))


def _is_content(value: Any) -> bool:
    try:
        read_parts(value)
    except ContentError:
        return False
    return True


def _texts(value: Any) -> list[str]:
    """Return the texts of a field's value, whatever it is."""
    if isinstance(value, list):
        return [text for part in value if isinstance(part, dict) and isinstance(text := part.get("text"), str)]
    return [value] if isinstance(value, str) else []


def picture_problem(row: Mapping[str, Any]) -> str | None:
    """Return why the image placeholders in a question do not match the row's images; a video matches any number."""
    question, images = row.get("question"), row.get("images")
    if isinstance(question, list):
        if not _is_content(question):
            return None
        question = to_parts(question)  # joins parts that are all text
    if isinstance(question, list):
        return placeholder_problem(question)
    if not isinstance(question, str) or not isinstance(images, list | tuple | None) or row.get("video"):
        return None
    return mismatch(find_placeholders(question), len(images or ()))


def placeholder_problem(question: Content) -> str | None:
    """Return why the image positions are ambiguous: a placeholder in the text of a question that has parts."""
    tokens = [place.text for text in read_parts(question) if isinstance(text, str) for place in find_placeholders(text)]
    if not tokens:
        return None
    return f"has parts, and an image placeholder in a text ({tokens[0]}); replace the placeholder by an image part"


def reasoning_problem(row: Mapping[str, Any]) -> str | None:
    """Return why the reasoning of a row is unfit for imitation, or None if it is fit or absent.

    It must end in a readable verdict that agrees with the label.
    """
    reasoning, preferred = row.get("reasoning"), row.get("preferred")
    if not isinstance(reasoning, str):
        return None
    if is_blank(reasoning):
        return "is blank; omit the field if there is no reasoning"
    answer = parse_judgment(reasoning).answer
    if answer is None:
        return "has no readable verdict (<answer>1</answer> or <answer>2</answer> after the thought)"
    return None if answer == preferred else f"prefers response {answer}, but the row prefers {preferred}"


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."

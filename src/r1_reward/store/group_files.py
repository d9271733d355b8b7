"""Group files: rows of a question and several responses, optionally ranked, and their validation.

``r1-reward score`` judges such a file, and ``r1-reward data import groups`` turns its rankings into pairs::

    {"id": "7", "question": "Which digit?", "images": ["7.png"], "responses": ["Three.", "Eight."], "ranking": [1, 2]}

    check_groups(Path("groups.jsonl"))      # GroupCounts(groups=1, responses=2, ...); raises PairFileError
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from r1_reward.records.checks import text_problems, to_group
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.groups import ResponseGroup, pairs_of
from r1_reward.store.checker import Checker
from r1_reward.store.rows import RawRow, file_rows
from r1_reward.store.video import FRAMES

FIELDS = tuple(ResponseGroup.model_fields)


class GroupCounts(NamedTuple):
    """Counts of a valid group file."""

    groups: int = 0
    responses: int = 0
    ranked: int = 0
    """Groups with a ranking."""
    pairs: int = 0
    """Two responses of different rank."""
    ties: int = 0
    """Two responses of equal rank."""


def is_group_file(path: str | Path) -> bool:
    """Return whether a file's first row has a question and responses, and is not a pair."""
    try:
        first = next((raw.data for raw in _rows(Path(path)) if isinstance(raw.data, dict)), {})
    except (UserError, OSError):
        return False
    return {"question", "responses"} <= set(first) and not {"response_1", "response_2"} & set(first)


def check_groups(path: str | Path, *, check_images: bool = True, video_frames: int = FRAMES) -> GroupCounts:
    """Check every row of a group file, images included, and return its counts.

    Unknown fields are ignored, unless they look like a misspelling of a known one.

    Raises:
        PairFileError: If a row is invalid, or there are no rows; it lists all problems.
        UserError: If the file cannot be read.
    """
    file, counts = Path(path), GroupCounts()
    checker = Checker(str(file), file.parent, check_images, video_frames)
    for raw in _rows(file):
        if raw.broken is not None or not isinstance(raw.data, dict):
            checker.unusable(raw.number, raw.broken or f"is {kind_of(raw.data)}, not an object with fields")
        elif (group := _check(checker, raw.number, raw.data)) is not None:
            preferred = [pair.preferred for pair in pairs_of(group, ties=True)]
            ties = preferred.count(0)
            more = (1, len(group.responses), group.ranking is not None, len(preferred) - ties, ties)
            counts = GroupCounts(*(old + new for old, new in zip(counts, more, strict=True)))
    checker.finish()
    return counts


def _rows(file: Path) -> Iterator[RawRow]:
    return file_rows(file) if file.is_file() and file.suffix in (".jsonl", ".parquet") else iter(())


def _check(checker: Checker, line: int, row: Mapping[str, Any]) -> ResponseGroup | None:
    """Record the problems of a row, and return it as a group if it is valid."""
    checker.rows += 1
    given = {name: value for name, value in row.items() if value is not None}
    for name in set(given) - set(FIELDS):
        if near := difflib.get_close_matches(name, FIELDS, n=1):
            checker.add(line, name, f"is not a known field; did you mean {near[0]}?")
    given = {name: value for name, value in given.items() if name in FIELDS}
    listed = given.get("responses")
    responses = {f"responses[{number}]": one for number, one in enumerate(listed if isinstance(listed, list) else ())}
    names = ("question", *responses)
    media = checker.media_of({**given, **responses}, names)
    keyed = checker.with_keys({**given, **responses}, names)
    fields = {name: value for name, value in keyed.items() if name not in responses}
    if isinstance(listed, list):
        fields["responses"] = [keyed[name] for name in responses]
    name = given.get("id", str(line))
    fields["id"] = str(name) if type(name) is int else name
    group, problems = to_group(fields)
    shown = given if group is None else {**given, "question": group.question, "images": group.images}
    for field, reason in [*problems, *_text_problems(shown, responses)]:
        checker.add(line, field, reason)
    checker.check_media(line, media)
    if "images" not in given and not media:
        checker.add(line, "images", "is missing (use an empty list if there are none)")
    return group


def _text_problems(given: Mapping[str, Any], responses: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from text_problems({name: value for name, value in given.items() if name != "responses"})
    for name, response in responses.items():
        yield from ((name, reason) for _, reason in text_problems({"response_1": response}))

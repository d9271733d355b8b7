"""Read what a trainer's label says to the judge.

OpenRLHF and slime post only the prompt, the response and the row's label. A label that is a JSON object, or the text of
one, can supply the rest under the names of ``/v1/reward``. All keys are optional, and other keys are ignored::

    {"question": "Which digit?", "images": ["data/7.png"], "group": "row-7", "group_size": 8, "answer": "eight"}

The judge is shown ``question`` in place of the prompt: text, or parts. ``images``, or ``image`` if another of these
keys is present, are the prompt's pictures, each a path, a URL, base64, or ``{"path"|"url"|"base64": ...}``. ``group``
and ``group_size`` say which samples belong together and how many there are, for trainers that send one sample at a
time. A label that is not an object, or has none of these keys, is not meant for the judge: :data:`SILENT`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from r1_reward.records.content import Content, ContentError, blank, read_parts
from r1_reward.records.errors import kind_of
from r1_reward.serve.chats import pictures_in

_SOURCES = ("path", "url", "base64")
_LONGEST_GROUP, _LARGEST_GROUP = 200, 1_000_000


class LabelError(ValueError):
    """A label has an invalid value under one of our keys; ``key`` says which."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key} {reason}")
        self.key, self.reason = key, reason


class Label(NamedTuple):
    """What a label says."""

    question: Content | None = None
    images: tuple[str | dict[str, str], ...] = ()
    group: str | None = None
    group_size: int | None = None


SILENT = Label()
_KEYS = frozenset(Label._fields)


def read_label(label: Any) -> Label:
    """Return what a label says to the judge, or :data:`SILENT` if it is not meant for the judge.

    Raises:
        LabelError: one of our keys has an invalid value.
    """
    if isinstance(label, str) and label.lstrip().startswith("{"):
        try:
            label = json.loads(label)
        except (ValueError, RecursionError):
            return SILENT
    if not isinstance(label, Mapping):
        return SILENT
    given = {key: value for key, value in label.items() if key in _KEYS and value is not None}
    if not given:
        return SILENT
    return Label(
        _question(given.get("question")), _images(pictures_in(label)), _group(given.get("group")), _size(given)
    )


def _question(question: Any) -> Content | None:
    if question is None:
        return None
    try:
        read_parts(question)
    except ContentError as error:
        raise LabelError("question", str(error)) from error
    if blank(question):
        raise LabelError("question", "is blank")
    return question


def _images(images: list[Any]) -> tuple[str | dict[str, str], ...]:
    if not all(isinstance(one, str) and one.strip() or _is_source(one) for one in images):
        raise LabelError("images", 'must be paths, URLs, base64 or {"path"|"url"|"base64": ...}')
    return tuple(images)


def _is_source(image: Any) -> bool:
    return (
        isinstance(image, Mapping)
        and len(image) == 1
        and isinstance(image.get(next(iter(image))), str)
        and (next(iter(image)) in _SOURCES)
    )


def _group(group: Any) -> str | None:
    if group is None:
        return None
    group = _whole(group)
    if isinstance(group, bool) or not isinstance(group, str | int):
        raise LabelError("group", f"must be text or an integer, not {kind_of(group)}")
    name = str(group)
    if not name.strip() or len(name) > _LONGEST_GROUP:
        raise LabelError("group", f"must have 1 to {_LONGEST_GROUP} characters")
    return name


def _size(given: Mapping[str, Any]) -> int | None:
    size = _whole(given.get("group_size"))
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 2 <= size <= _LARGEST_GROUP:
        raise LabelError("group_size", f"must be an integer from 2 to {_LARGEST_GROUP:,}")
    if given.get("group") is None:
        raise LabelError("group_size", "needs group, too")
    return size


def _whole(number: Any) -> Any:
    """Return 8 for 8.0, since table columns with empty cells hold floats; return anything else unchanged."""
    return int(number) if isinstance(number, float) and number.is_integer() else number

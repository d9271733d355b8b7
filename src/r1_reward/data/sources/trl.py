"""TRL's preference format: ``prompt``, ``chosen`` and ``rejected`` as lists of messages, and ``images``.

``chosen`` is preferred. A field may also be plain text; a message's content is text or a list of parts, whose images
are taken from ``images`` in order, or from the parts if the row has no ``images``. Images between texts, and those in
an answer, keep their positions as parts. The prompt may be missing if ``chosen`` and ``rejected`` both begin with it.
Rows are dropped for several turns, a system message, different prompts, audio, or a number of images that differs from
the number of placeholders. Ids come from ``id`` or ``idx``; ``criteria`` are kept.

:func:`to_row` writes rows for DPOTrainer and RewardTrainer, with the images before the question or at their positions
inside it. Tokens that would end a turn or add an image are neutralized, because TRL renders texts verbatim. Additional
columns, which training ignores, keep the rest of the pair, and the original texts if they differ from the messages, so
a written row can be read back exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1_reward.data.sources.common import (
    Candidate,
    Drop,
    Row,
    a_text,
    an_image,
    one_exchange,
    require_same_question,
    turns,
    with_pictures,
)
from r1_reward.records.content import Content, ContentError, Piece, Place, fill_places, places_of, read_parts, to_parts
from r1_reward.records.placeholders import name_pictures
from r1_reward.records.prompt import break_control_tokens
from r1_reward.records.schema import CONTENTS

_ROLES = ("user", "assistant")
_KEPT = ("id", "source", "kind", "provenance", "reasoning", "attempts", "criteria")
_MESSAGES = ("prompt", "chosen", "rejected")
AS_WRITTEN = "as_written"
"""The column with the original question, chosen and rejected as JSON, if the messages differ from them."""


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield the pair of a row."""
    ours = _is_ours(row)
    yield (_written(row) if ours else None) or _read(row, ours=ours)


def _read(row: Row, *, ours: bool) -> Candidate:
    prompt = row.data.get("prompt")
    if prompt is None and isinstance(row.data.get("chosen"), str):
        raise Drop("missing field", "prompt")  # plain text cannot be split into prompt and answer
    before = [] if prompt is None else _chat(prompt, "prompt", "user")
    sides = []
    for name in ("chosen", "rejected"):
        chat = before + _chat(row.value(name), name, "assistant")
        sides.append(one_exchange(chat, name, _ROLES))
    (question, chosen), (other, rejected) = sides
    images = () if ours and not row.data.get("images") else _images(row, (question, chosen, rejected))
    question, answers, left = with_pictures(question, (chosen, rejected), images, "prompt" if before else "chosen")
    if not before:
        other, *_ = with_pictures(other, (chosen, rejected), images, "rejected")
        require_same_question(question, other, "chosen and rejected ask")
    if ours:
        return _candidate(row, question, answers, left)
    return Candidate(
        row.label("id", "idx"), question, answers[0], answers[1], left, kind=row.label("kind"), kept=row.criteria()
    )


def _chat(value: Any, name: str, role: str) -> list[tuple[str, Content]]:
    """Return the turns of a field; plain text is one turn of ``role``."""
    return [(role, a_text(value, name))] if isinstance(value, str) else list(turns(value, name))


def _images(row: Row, contents: tuple[Content, ...]) -> tuple[Mapping[str, Any], ...]:
    """Return the images of a row; none if its parts contain them."""
    listed = row.data.get("images")
    own = any(place.source is not None for content in contents for place in places_of(content))
    if own and not listed and row.data.get("image") is None:
        return ()
    if listed is None:
        return (row.image("image", "images"),)
    cells = [an_image(value, f"images[{index}]") for index, value in enumerate(row.list("images"))]
    if not cells or None in cells:
        raise Drop("no image", "images")
    return tuple(cell for cell in cells if cell is not None)


# ---- rows that we wrote


def _is_ours(row: Row) -> bool:
    named = all(isinstance(row.data.get(name), str) for name in ("id", "source"))
    return named and row.data.get("preferred") in (1, 2) and AS_WRITTEN in row.data


def _candidate(
    row: Row, question: Content, answers: Sequence[Content], images: Sequence[Mapping[str, Any]]
) -> Candidate:
    """Return the pair of a row that we wrote, with all kept fields."""
    kept = {name: row.data[name] for name in _KEPT if row.data.get(name) is not None}
    return Candidate(
        row.label("id"), question, answers[0], answers[1], tuple(images), preferred=row.data["preferred"], kept=kept
    )


def _written(row: Row) -> Candidate | None:
    """Return the pair of a row from its original texts; None if they do not (or no longer) yield this row.

    Raises Drop if a value in ``images`` is not an image.
    """
    images = [an_image(value, f"images[{index}]") for index, value in enumerate(row.data.get("images") or [])]
    try:
        kept = json.loads(row.data[AS_WRITTEN])
        answers, front = [kept["chosen"], kept["rejected"]], kept["images"]
        (question,), _ = fill_places([kept["question"]], images[front:])
        messages = _messages(question, answers, front, parts="images" in row.data)
    except (TypeError, KeyError, ValueError):  # invalid: edited, or not written by us
        return None
    if messages != {name: row.data.get(name) for name in _MESSAGES}:
        return None
    return _candidate(row, question, answers, [cell for cell in images[:front] if cell is not None])


def to_row(pair: Mapping[str, Any], *, pictures: bool) -> dict[str, Any]:
    """Return a pair as a row of this source, with all columns; ``pictures`` says whether rows have images.

    With images a message's content is a list of parts, with ``{"type": "image", "text": None}`` for each of ``images``;
    otherwise it is text, because chat templates of text models do not accept parts.

    Raises:
        Drop: the pair is a tie, has a video, has images in a response (TRL passes only the prompt's images to the
            processor), or has images although ``pictures`` is False.
    """
    if pair["preferred"] == 0:
        raise Drop("tie", "neither response is preferred")
    cells = _pictures(pair)
    if cells and not pictures:
        raise Drop("pictures", f"the question has {len(cells)}, but text-only rows were requested")
    better, question, front = pair["preferred"], pair["question"], len(pair["images"])
    answers = [pair[f"response_{better}"], pair[f"response_{3 - better}"]]
    row = _messages(question, answers, front, parts=pictures) | ({"images": cells} if pictures else {})
    row |= {name: pair.get(name) for name in _KEPT} | {"preferred": better, AS_WRITTEN: None}
    if not _says(row, question, answers, pair["images"]):
        # Image parts without a source take the images after the first ``front`` ones.
        written = to_parts([Place("image") if isinstance(one, Place) else one for one in read_parts(question)])
        kept = {"question": written, "chosen": answers[0], "rejected": answers[1], "images": front}
        row[AS_WRITTEN] = json.dumps(kept, ensure_ascii=False)
    return row


def _pictures(pair: Mapping[str, Any]) -> list[Any]:
    """Return the images of a pair in the order shown; raises Drop for media that TRL does not support."""
    if pair.get("video") or any(place.kind == "video" for name in CONTENTS for place in places_of(pair[name])):
        raise Drop("video", "TRL's preference trainers only support images")
    for name in ("response_1", "response_2"):
        if found := len(places_of(pair[name])):
            raise Drop("pictures within responses", f"{name} has {found}")
    return [*pair["images"], *(place.source for place in places_of(pair["question"]))]


def _messages(question: Content, answers: Sequence[Any], front: int, *, parts: bool) -> dict[str, Any]:
    """Return prompt, chosen and rejected with ``front`` images before the question and control tokens neutralized."""
    shown = [name_pictures(question)] if isinstance(question, str) else read_parts(question)
    contents = [[*(Place("image") for _ in range(front)), *shown], *([answer] for answer in answers)]
    return {
        name: [{"role": role, "content": _content(content, parts=parts)}]
        for name, role, content in zip(_MESSAGES, ("user", "assistant", "assistant"), contents, strict=True)
    }


def _content(pieces: Sequence[Piece], *, parts: bool) -> str | list[dict[str, Any]]:
    told = [break_control_tokens(piece) if isinstance(piece, str) else None for piece in pieces]
    if parts:
        return [{"type": "image" if text is None else "text", "text": text} for text in told]
    return "".join(text for text in told if text is not None)


def _says(row: Mapping[str, Any], question: Content, answers: Sequence[Content], images: Sequence[Any]) -> bool:
    """Return whether reading the row's messages gives exactly the pair's texts and image positions."""
    try:
        found = _read(Row(row), ours=True)
    except (Drop, ContentError):
        return False
    return [found.question, found.chosen, found.rejected, *found.images] == [question, *answers, *images]


def has_control_tokens(pair: Mapping[str, Any]) -> bool:
    """Return whether a pair's texts contain control tokens, apart from image placeholders that are replaced."""
    question = pair["question"]
    shown = [name_pictures(question)] if isinstance(question, str) else read_parts(question)
    texts = [piece for piece in (*shown, pair["response_1"], pair["response_2"]) if isinstance(piece, str)]
    return any(break_control_tokens(text) != text for text in texts)

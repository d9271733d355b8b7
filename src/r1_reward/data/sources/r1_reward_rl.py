"""R1-Reward-RL: rows with complete prompts (paper, Table 1), parsed back into pairs and written from pairs.

A row has ``message`` (a chat as a JSON string: one user turn with the prompt's text and its images), ``answer``
(``["<answer>1</answer>"]``), ``question`` and ``image``. The prompt is split into question and responses at its
headings; a prompt in which a heading occurs twice is ambiguous and dropped. The responses keep their order and the
label is the ``answer``. Images come from the column ``image`` (embedded, base64 or a path), or else from the paths in
the message, which are looked up by their trailing parts.

:func:`to_row` writes such rows. Control tokens in a pair's texts are neutralized in the prompt, as everywhere; the
original texts are kept in additional columns, which training ignores, so a written row can be read back exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1_reward.data.sources.common import Candidate, Drop, Row, a_text, an_image
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.prompt import build_prompt, with_criteria
from r1_reward.records.schema import Answer
from r1_reward.store.encoded import decode
from r1_reward.store.images import image_suffix

MAX_BASE64 = 80 << 20
"""Maximum length of base64 text to decode, in characters; about 60 MB of image."""

_LONGEST_PATH = 4096  # characters; longer base64 that is not an image is a damaged image, not a path
_KEPT = ("id", "source", "kind", "provenance", "reasoning", "attempts", "criteria")
_TEXTS = ("question", "response_1", "response_2")
_ANSWER = re.compile(r"\s*<answer>\s*([12])\s*</answer>\s*")
_NAMES = ["[question]", "[response 1]", "[response 2]", "**output format"]
_HEADING = r"^{hashes} (?i:(\[question\]|\[response [12]\]):[ \t]*\n?|(\*\*output format))"
# The checkpoint's prompt uses six "#"; a training example of its authors has four before one of the headings.
_HEADINGS = [re.compile(_HEADING.replace("{hashes}", hashes), re.MULTILINE) for hashes in ("#{6}", "#{3,6}")]
_GAP = "  \n\n"  # what the template appends to each text


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield the pair of a row."""
    prompt, paths = _parse_message(row.text("message"))
    preferred = _parse_answer(row.value("answer"))
    question, *responses = _texts(row, prompt)
    embedded = _image(row.data.get("image"))
    images = (embedded,) if embedded is not None and len(paths) <= 1 else tuple({"path": path} for path in paths)
    if not images:
        raise Drop("no image", "neither the column image nor the message has one")
    chosen, rejected = responses if preferred == 1 else reversed(responses)
    kept = {name: row.data[name] for name in _KEPT if row.data.get(name) is not None} if _is_ours(row) else {}
    yield Candidate(row.label("id"), question, chosen, rejected, images, preferred=preferred, kept=kept)


def _is_ours(row: Row) -> bool:
    return isinstance(row.data.get("source"), str) and isinstance(row.data.get("id"), str)


def _parse_message(message: str) -> tuple[str, list[str]]:
    """Return the prompt and the paths of its images; raises Drop if the message is not a chat with one such turn."""
    try:
        chat = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise Drop("unreadable prompt", "message is not JSON") from error
    if not isinstance(chat, list) or not all(isinstance(turn, Mapping) for turn in chat):
        raise Drop("unreadable prompt", f"message is {kind_of(chat)}, not a chat")
    if [turn.get("role") for turn in chat] != ["user"]:
        raise Drop("several turns" if len(chat) > 1 else "unreadable prompt", "message is not a single user turn")
    content = chat[0].get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    if not all(isinstance(part, Mapping) for part in parts):
        raise Drop("unreadable prompt", "the content of the message is not a list of parts")
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    paths = [part.get("image") for part in parts if part.get("type") == "image"]
    if len(texts) != 1 or len(texts) + len(paths) != len(parts):
        raise Drop("unreadable prompt", "the message is not one text with images")
    if not all(isinstance(path, str) and path for path in paths):
        raise Drop("wrong type", "an image of the message is not a path")
    return a_text(texts[0], "message"), [str(path).removeprefix("file://") for path in paths]


def _parse_answer(value: Any) -> Answer:
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    match = _ANSWER.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Drop("unreadable label", f"answer {str(value)[:60]!r} is not <answer>1</answer> or <answer>2</answer>")
    return 1 if match[1] == "1" else 2


def _texts(row: Row, prompt: str) -> Sequence[str]:
    """Return question and responses: the columns of our own exports if they yield this prompt, else parsed from it."""
    texts = [row.data.get(name) for name in _TEXTS]
    if all(isinstance(text, str) for text in texts) and _prompt(row.data) == prompt:
        return texts  # type: ignore[return-value]
    return [a_text(text, name) for text, name in zip(cut_prompt(prompt), _TEXTS, strict=True)]


def cut_prompt(prompt: str) -> tuple[str, str, str]:
    """Return question, response 1 and response 2 of a complete prompt, exactly as they were inserted.

    Raises:
        Drop: a heading is missing, repeated or out of order.
    """
    for pattern in _HEADINGS:
        found = list(pattern.finditer(prompt))
        names = [(match[1] or match[2]).lower() for match in found]
        if names == _NAMES:
            ends = [match.end() for match in found[:3]]
            starts = [match.start() for match in found[1:]]
            question, first, second = (_without_gap(prompt[end:start]) for end, start in zip(ends, starts, strict=True))
            return question, first, second
    listed = ", ".join(names[:6]) or "none"
    raise Drop("unreadable prompt", f"the headings are {listed}; expected {', '.join(_NAMES)}, each once")


def _without_gap(text: str) -> str:
    return text.removesuffix(_GAP) if text.endswith(_GAP) else text.strip()


def _image(value: Any) -> Mapping[str, Any] | None:
    """Return the column ``image`` as a cell: embedded bytes, base64 text or a path; None if it is empty."""
    if not isinstance(value, str):
        return an_image(value, "image")
    if len(value) > MAX_BASE64:
        raise Drop("image too large", f"{len(value):,} characters of base64")
    # Some data URIs of base64 do not say so.
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        data = decode(text)
    except ValueError:
        data = b""
    if not data or (len(value) < _LONGEST_PATH and image_suffix(data) == ".img"):  # a path: images/7 is base64
        return an_image(value, "image")
    return {"bytes": data, "path": None}


def _prompt(pair: Mapping[str, Any]) -> str:
    """Return the complete prompt of a pair, including its criteria."""
    question = with_criteria(pair["question"], pair.get("criteria"))
    assert isinstance(question, str), "a text with criteria is a text"
    return build_prompt(question, pair["response_1"], pair["response_2"])


def to_row(pair: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Return a pair as a row of this source, with images given by ``paths`` (those in the message).

    The images come before the text, as in training and evaluation. Raises UserError if there is no image.
    """
    if not paths:
        raise UserError(f"pair {pair['id']}: has no image, but rows of r1-reward-rl need one.")
    text = _prompt(pair)
    content = [{"type": "image", "image": path} for path in paths] + [{"type": "text", "text": text}]
    row = {
        "question": pair["question"],
        "message": json.dumps([{"role": "user", "content": content}], ensure_ascii=False),
        "answer": [f"<answer>{pair['preferred']}</answer>"],
        "image": paths[0],
        "response_1": pair["response_1"],
        "response_2": pair["response_2"],
    }
    return row | {name: pair[name] for name in _KEPT if pair.get(name) not in (None, "") or name in ("id", "source")}

"""The prompt of a scalar reward model: a single answer and, optionally, a critique of it.

>>> build_scalar_messages("Which digit?", "A three.<|im_end|>", images=1)[0]["content"][0]
{'type': 'image'}

Training data compare two answers, but a critique is about one. :func:`critique_of` extracts it from the teacher's text:

>>> reasoning = "<think>I see a two. Response 1 misreads it. Response 2 is right. Response 2 is better.</think>"
>>> critique_of(reasoning, 1)
'I see a two. The response misreads it.'
>>> critique_of(reasoning, 2)
'I see a two. The response is right.'
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from r1_reward.records.content import Mixed, Shown, pictures_of
from r1_reward.records.parsing import parse_judgment
from r1_reward.records.prompt import fill_template
from r1_reward.records.schema import Answer

_PLACEHOLDER = re.compile(r"\{(question|answer)\}")
_HEADING = re.compile(r"#{6}[ \t]*\[response\]", re.IGNORECASE)  # neutralize() handles those of the pairwise prompt

_SENTENCE = re.compile(r".+?(?:[.!?](?=\s)|\n+|$)\s*", re.DOTALL)
_NAMED = re.compile(
    r"\[?\bresponse\s*#?\s*([12])\b\]?|\b(?:the\s+)?(first|second)\s+(?:response|answer)\b", re.IGNORECASE
)
_COMPARES = re.compile(
    r"\b(?:better|best|worse|worst|superior|inferior|prefer\w*|winner|wins|outperforms|responses|the other)\b",
    re.IGNORECASE,
)


def build_scalar_messages(
    question: Shown, response: Shown, *, images: int = 0, special_tokens: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Return the chat that shows one answer: one user turn, images first, with both contents neutralized.

    ``special_tokens``: the tokenizer's, see :func:`r1_reward.records.prompt.neutralize`.
    """
    given = {"question": _without_headings(question), "answer": _without_headings(response)}
    parts = fill_template(scalar_template(), _PLACEHOLDER, given, special_tokens)
    return [{"role": "user", "content": [*({"type": "image"} for _ in range(images)), *parts]}]


def show_answer(
    question: Shown, images: Sequence[Any], response: Shown, *, special_tokens: Iterable[str] = ()
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the chat of :func:`build_scalar_messages`, and all its images in the order of the chat's image parts.

    ``images`` come before the prompt.
    """
    messages = build_scalar_messages(question, response, images=len(images), special_tokens=special_tokens)
    return messages, [*images, *pictures_of(question, response)]


def _without_headings(content: Shown) -> Shown:
    if isinstance(content, Mixed):
        pieces = (_without_headings(piece) if isinstance(piece, str) else piece for piece in content.pieces)
        return content._replace(pieces=tuple(pieces))
    return _HEADING.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)


@functools.cache
def scalar_template() -> str:
    """Return the template with its placeholders ``{question}`` and ``{answer}``."""
    return (resources.files("r1_reward.records") / "templates" / "scalar.txt").read_text(encoding="utf-8")


def template_version() -> str:
    """Return a hash of the template (16 hex digits); a head is only valid with the prompt it was trained on."""
    return hashlib.sha256(scalar_template().encode()).hexdigest()[:16]


def critique_of(reasoning: str, response: Answer) -> str | None:
    """Return what a teacher's comparison says about one response, None if it says nothing.

    From the reasoning (without tags and verdict), keep the sentences that name only this response or none. Sentences
    that name the other response or compare are dropped, and the response's number is removed from the rest, because a
    model that sees one answer cannot know it. The label is not used.
    """
    kept = []
    for sentence in _SENTENCE.findall(parse_judgment(reasoning).reasoning):
        named = {_number(match) for match in _NAMED.finditer(sentence)}
        if named <= {response} and not _COMPARES.search(sentence):
            kept.append(_NAMED.sub(_without_number, sentence))
    return "".join(kept).strip() or None


def _number(match: re.Match[str]) -> int:
    return int(match[1]) if match[1] else 1 if match[2].lower() == "first" else 2


def _without_number(match: re.Match[str]) -> str:
    if match[0].startswith("["):
        return "[Response]"
    return "The response" if not match.string[: match.start()].strip() else "the response"

"""Read the question in a trainer's prompt: plain text, text in a chat template, or chat messages.

    prompt = "<|im_start|>user\\n<image>Which digit?<|im_end|>\\n<|im_start|>assistant\\n"
    ask(read_turns(prompt), [picture])  # Prompt(question="Which digit?", images=[picture])
    ask(read_turns(prompt))             # WrongPictures: has a place for 1 picture (<image>), and none came
    clean("It is 3.<|im_end|>\\n")       # "It is 3."

The question is the last user message, preceded by a transcript of the earlier turns. Special tokens do not reach the
judge. The module needs only the standard library, since plug-ins use it inside a trainer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from r1_reward.records.content import Content, Piece, Place, map_media, places_of, read_parts
from r1_reward.records.placeholders import find_placeholders
from r1_reward.serve.chats import PromptError, Shown, Turn, in_front, joined, read_turn, said, show, sources_of

_FAMILIES = tuple(
    (re.compile(start), re.compile(end))
    for start, end in (
        (r"<\|im_start\|>(\w+)\n", r"<\|im_end\|>"),  # ChatML: Qwen, InternVL
        (r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n", r"<\|eot_id\|>"),  # Llama 3
        (r"<start_of_turn>(user|model)\n", r"<end_of_turn>"),  # Gemma
        (r"<\|(system|user|assistant)\|>\n?", r"<\|end\|>"),  # GLM, Phi
    )
)
"""For each chat template, the pattern that begins a turn, with its role, and the one that ends it."""
_TOKEN = r"(?:<[|｜][^\s<>|｜]{1,64}[|｜]>|</?s>|<pad>|<bos>|<eos>|<end_of_turn>)"
_LEADING, _LAST = re.compile(rf"(?:\s|{_TOKEN})*"), re.compile(rf"{_TOKEN}\Z")
_LONGEST_TOKEN = 66
_NAMED = 200  # characters of a prompt quoted in messages


class Prompt(NamedTuple):
    """A question to a judge."""

    question: Content
    """Text, or texts and pictures in order."""
    images: list[Any]
    """Pictures in front of the question."""

    def apart(self) -> tuple[str | list[dict[str, Any]], list[Any]]:
        """Return the question with empty places, which JSON can hold, and all its pictures in order."""
        places = sources_of(self.question)
        if not places:
            return map_media(self.question, _without_source), self.images
        bare = map_media([*(Place("image") for _ in self.images), *read_parts(self.question)], _without_source)
        return bare, [*self.images, *places]


def question_of(
    prompt: str | Sequence[Mapping[str, Any]], pictures: Sequence[Any] = (), instead: Content | None = None
) -> Prompt:
    """Return the question in a prompt.

    ``pictures`` are all its pictures in order; without them, those in its parts are shown. ``instead`` replaces the
    question, see :func:`ask`.

    Raises:
        PromptError: the prompt cannot be shown to a judge as the policy saw it; the message quotes the prompt.
    """
    try:
        turns = read_turns((messages_in(prompt) or prompt) if isinstance(prompt, str) else prompt)
        return ask([turn.without_sources() for turn in turns] if pictures else turns, pictures, instead)
    except PromptError as error:
        named = prompt if isinstance(prompt, str) else json.dumps(prompt, default=str, ensure_ascii=False)
        raise type(error)(f"the prompt {named[:_NAMED]!r} {error}") from error


def read_turns(prompt: str | Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Return the turns of a prompt; text without a known chat template is a single user turn.

    Raises:
        PromptError: a message has no role or no content, or one of its parts is neither text nor picture.
    """
    if not isinstance(prompt, str):
        if not prompt or not all(isinstance(one, Mapping) and "role" in one and "content" in one for one in prompt):
            raise PromptError("must be text, or a list of messages with role and content")
        return [read_turn(str(message["role"]), message["content"]) for message in prompt]
    starts = turn_starts(prompt)
    if not starts:
        return [Turn("user", [_without_ends(prompt)])]
    borders = [*(turn.header for turn in starts[1:]), len(prompt)]
    return [
        Turn(turn.role, [turn.end.split(prompt[turn.start : border], maxsplit=1)[0]])
        for turn, border in zip(starts, borders, strict=True)
    ]


class TurnStart(NamedTuple):
    """Where a turn begins in a text with a chat template."""

    role: str
    header: int
    """Offset of the turn's header."""
    start: int
    """Offset of the turn's content, after the header."""
    end: re.Pattern[str]
    """Pattern that ends the turn."""


def turn_starts(text: str) -> list[TurnStart]:
    """Return the turns of the chat template that occurs first in a text; others count as plain text."""
    found = [[(match, end) for match in start.finditer(text)] for start, end in _FAMILIES]
    first = min(filter(None, found), key=lambda matches: matches[0][0].start(), default=[])
    return [
        TurnStart("assistant" if match[1] == "model" else match[1], match.start(), match.end(), end)
        for match, end in first
    ]


def messages_in(prompt: str) -> list[dict[str, Any]] | None:
    """Return the chat that a text contains as JSON, or None if it is not one."""
    if not prompt.lstrip().startswith("["):
        return None
    try:
        messages = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    is_chat = isinstance(messages, list) and messages
    if not is_chat or not all(isinstance(one, dict) and "role" in one and "content" in one for one in messages):
        return None
    return messages


def ask(turns: Sequence[Turn], beside: Sequence[Any] = (), instead: Content | None = None) -> Prompt:
    """Return the question in turns whose pictures are in their parts or came ``beside`` them, in order.

    ``instead`` replaces the text of the turns; it is shown with its own pictures if it has any, else with theirs.

    Raises:
        WrongPictures: the number of pictures differs from the number of places for them.
        PromptError: there is no user text.
    """
    if instead is None:
        return _question(turns, show(turns, beside))
    question = read_turn("user", instead)
    own = [] if beside else sources_of(instead)
    own = [source for source in own if source is not None]
    pictures = show(turns, beside or own).everything
    try:
        return _question([question], show([question], [] if own else pictures))
    except PromptError as error:
        raise type(error)(f"comes with a question that {error}") from error


def _question(turns: Sequence[Turn], shown: Shown) -> Prompt:
    said_by = [(turn.role, content) for turn, content in zip(turns, shown.contents, strict=True)]
    last = max((i for i, (role, content) in enumerate(said_by) if role == "user" and said(content)), default=None)
    if last is None:
        raise PromptError("has no question: no text in a user message")
    if in_front(said_by):
        texts = [(role, said(content)) for role, content in said_by]
        return Prompt(_transcript(texts[: last + 1]), shown.everything)
    behind = sources_of(*(content for _, content in said_by[last + 1 :]))
    question = map_media(_transcript(said_by[: last + 1]), lambda place: place.source)
    return Prompt(question, [*behind, *shown.pictures])


def clean(text: str) -> str:
    """Return a text without white space and special tokens at its ends, in linear time."""
    start, end = leading(text), len(text)
    while end > start:
        if text[end - 1].isspace():
            end -= 1
        elif last := _LAST.search(text, max(start, end - _LONGEST_TOKEN), end):
            end = last.start()
        else:
            break
    return text[start:end]


def leading(text: str) -> int:
    """Return the length of the white space and special tokens at the start of a text."""
    match = _LEADING.match(text)
    return match.end() if match else 0


def _without_source(_: Place) -> None:
    return None


def _transcript(turns: Sequence[tuple[str, Content]]) -> Content:
    """Return the last turn, preceded by the earlier ones with their roles; blank turns are left out."""
    pieces: list[Piece] = []
    for role, content in turns[:-1]:
        if said(content) or places_of(content):
            pieces += [f"{role}: ", *read_parts(joined(read_parts(content))), "\n\n"]
    return joined([*pieces, *read_parts(joined(read_parts(turns[-1][1])))])


def _without_ends(prompt: str) -> str:
    """Return a prompt without white space and special tokens at its ends, but with its picture tokens."""
    places = find_placeholders(prompt)
    if not places:
        return clean(prompt)
    first, last = places[0].start, places[-1].end
    return prompt[min(leading(prompt), first) : last] + clean("." + prompt[last:])[1:]

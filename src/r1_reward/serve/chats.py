"""Which pictures a trainer's prompt shows, and what its turns say beside them: the one place for every dialect.

A trainer marks a picture by a token in the text, by a part of a message that holds it, or by a part without it, whose
picture travels beside the prompt::

    turns = [read_turn("user", [{"type": "image"}, {"type": "text", "text": "Which digit?"}])]
    show(turns, [picture])              # Shown(texts=["Which digit?"], pictures=[picture])
    show(turns)                         # WrongPictures: has a place for 1 picture (an image part), and none came

Nothing is judged blind: every place has its picture, and no other number of pictures comes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from r1_reward.records.placeholders import Placeholder, find_placeholders, mismatch, name_pictures

_KINDS = ("image", "image_url", "input_image")
_HOLDERS = ("image", "image_url", "url", "path", "base64", "source")
_TEXTS = ("text", "input_text")
_TOKEN = "<image>"


class PromptError(ValueError):
    """A prompt cannot be shown to a judge; the message follows the name of the prompt."""


class WrongPictures(PromptError):
    """The pictures that came are not as many as the places for them."""


class Part(NamedTuple):
    """A picture within a message; ``source`` is as the trainer gave it, None if it is elsewhere."""

    source: Any


class Turn(NamedTuple):
    """One message: texts and pictures in their order."""

    role: str
    pieces: list[str | Part]

    def without_sources(self) -> Turn:
        """Return the turn for pictures that all come beside the chat."""
        return Turn(self.role, [piece if isinstance(piece, str) else Part(None) for piece in self.pieces])


class Shown(NamedTuple):
    """What a judge is shown of a chat."""

    texts: list[str]
    """Of each turn, without any vision token; a picture within the text is named ("image 2")."""
    pictures: list[Any]
    """In the order of the chat."""


def read_turn(role: str, content: Any) -> Turn:
    """Return a message of any trainer's chat, of which the content is text, a list of parts, or nothing.

    Raises:
        PromptError: it is neither, or a part is neither text nor picture.
    """
    if isinstance(content, str):
        return Turn(role, [content])
    if not isinstance(content, Iterable | None) or isinstance(content, Mapping):
        raise PromptError("has a message whose content is neither text nor a list of parts")
    return Turn(role, [_piece(part) for part in content or ()])


def _piece(part: Any) -> str | Part:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise PromptError(f"has a part that is neither text nor an object, but {type(part).__name__}")
    kind = part.get("type") or next((name for name in (*_KINDS, "text") if part.get(name) is not None), None)
    if kind in _TEXTS:
        return str(part.get("text") or "")
    if kind not in _KINDS:
        raise PromptError(f"has a part of type {str(kind)[:40]}; parts of a message must be text or images")
    source = next((part[name] for name in _HOLDERS if part.get(name) is not None), None)
    if isinstance(source, Mapping) and not source.keys() & {"bytes", "path"}:
        source = source.get("url") or source.get("data")  # OpenAI's and Anthropic's forms
    return Part(None if isinstance(source, str) and not source.strip() else source)


def show(turns: Sequence[Turn], beside: Sequence[Any] = ()) -> Shown:
    """Return what a judge is shown of a chat, the pictures of which are in its parts or came ``beside`` it, in order.

    Without any place for a picture that is not in its part, those beside are shown behind the others. Parts and tokens
    may mark the same pictures (a trainer that adds parts to a text with ``<image>`` in it).

    Raises:
        WrongPictures: they are not as many as the places for them.
    """
    parts = [piece for turn in turns for piece in turn.pieces if isinstance(piece, Part)]
    texts = [piece for turn in turns for piece in turn.pieces if isinstance(piece, str)]
    tokens = [place for text in texts for place in find_placeholders(text)]
    nameless = sum(part.source is None for part in parts)
    total = len(parts) - nameless + len(beside)
    by_number = all(place.number is not None for place in tokens) and mismatch(tokens, total) is None
    twice = bool(parts) and len(beside) == nameless and (len(tokens) == len(parts) or by_number)
    places = [Placeholder(0, 0, "image", "an image part") for _ in parts] + ([] if twice else tokens)
    if (nameless or tokens) and (reason := mismatch(places, total)):
        raise WrongPictures(reason)
    by_token = twice and bool(tokens)  # which says where in the text
    marked = [_marked(turn, parts=not by_token) for turn in turns]
    several = sum(bool(find_placeholders(text)) for text in marked) > 1
    named, before = [], 0
    for text in marked:
        named.append(name_pictures(text, before, ends=several))
        before += len(_unnumbered(text))
    return Shown(named, list(_in_order(turns, beside, tokens=not twice)))


def _unnumbered(text: str) -> list[Placeholder]:
    return [place for place in find_placeholders(text) if place.kind == "image" and place.number is None]


def _marked(turn: Turn, *, parts: bool) -> str:
    """Return the text of a turn, with a token for each of its parts if these are to be named."""
    pieces = [piece if isinstance(piece, str) else _TOKEN for piece in turn.pieces if parts or isinstance(piece, str)]
    return "\n".join(pieces)


def _in_order(turns: Sequence[Turn], beside: Sequence[Any], *, tokens: bool) -> Iterator[Any]:
    """Yield the pictures: each part's own, or the next of those beside; then what is left of these."""
    left = iter(beside)
    for turn in turns:
        for piece in turn.pieces:
            if isinstance(piece, Part):
                yield piece.source if piece.source is not None else next(left)
            elif tokens:
                yield from (picture for _, picture in zip(_unnumbered(piece), left, strict=False))
    yield from left

"""Render chats with a checkpoint's template, whether or not it supports interleaved images and system messages.

Most templates render an image at the position of its part. Some (LLaVA's) render all images of a turn first and then
all texts, which loses which image belongs to which answer. For these, the text names each image at its position, as a
plain question does: "image 2". Other templates (Gemma 2's, older ones of Mistral) have no system message, which carries
the judge's instructions; it is then prepended to the user's text::

    prompt = render(processor, messages)
"""

from __future__ import annotations

from typing import Any

_KEPT: dict[str, bool] = {}
_SYSTEM: dict[str, bool] = {}
"""Caches by template: whether it keeps image positions, and whether it renders a system message."""


def render(processor: Any, messages: list[dict[str, Any]]) -> str:
    """Return a chat as text, with the generation prompt."""
    shown = placed(processor, with_system(processor, messages))
    text: str = processor.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
    return text


def with_system(processor: Any, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages that the processor's template can render.

    If it does not support a system message, that is prepended to the user's first text.
    """
    first, *others = messages
    if first["role"] != "system" or not others or _knows_system(processor):
        return messages
    asked, *rest = others
    return [
        {**asked, "content": [*_parts(first["content"]), {"type": "text", "text": "\n\n"}, *_parts(asked["content"])]},
        *rest,
    ]


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _knows_system(processor: Any) -> bool:
    from jinja2 import TemplateError

    key = str(processor.chat_template)
    if key not in _SYSTEM:
        mark = "what the judge is asked for"
        chat = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("system", mark), ("user", "a"))
        ]
        try:
            _SYSTEM[key] = mark in processor.apply_chat_template(chat, tokenize=False)
        except (TemplateError, TypeError):  # the template raises, or concatenates parts and a string
            _SYSTEM[key] = False
    return _SYSTEM[key]


def placed(processor: Any, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages that the processor's template renders without losing image positions.

    Images stay in order. A chat without images after a text is returned unchanged.
    """
    if not any(_within(message["content"]) for message in messages) or _keeps_places(processor):
        return messages
    shown, before = [], 0
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            message = {**message, "content": _named(content, before)}
            before += sum(part["type"] == "image" for part in content)
        shown.append(message)
    return shown


def _within(content: Any) -> bool:
    """Return whether an image follows a text."""
    kinds = [] if isinstance(content, str) else [part["type"] for part in content]
    return "text" in kinds and "image" in kinds[kinds.index("text") :]


def _keeps_places(processor: Any) -> bool:
    key = str(processor.chat_template)
    if key not in _KEPT:
        first, second, picture = {"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image"}
        within, behind = (
            processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
            for parts in ([first, picture, second], [first, second, picture])
        )
        _KEPT[key] = within != behind
    return _KEPT[key]


def _named(content: list[dict[str, Any]], before: int) -> list[dict[str, Any]]:
    """Return a turn's images followed by its text, which names the images inside it by number."""
    text, number = "", before
    for place, part in enumerate(content):
        if part["type"] == "text":
            # An image separates words, its name does not.
            parted = place and content[place - 1]["type"] == "image" and text and part["text"][:1].isalnum()
            text += " " * bool(parted) + part["text"]
        elif part["type"] == "image":
            number += 1
            text += " " * text[-1:].isalnum() + f"image {number}" if text else ""
    return [*(part for part in content if part["type"] != "text"), {"type": "text", "text": text}]

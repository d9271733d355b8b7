"""How long a prompt may be: a model has a fixed number of positions, and past them its output is meaningless.

    limit = position_limit(model.config)                       # 32,768, or None for a model without a limit of its own
    PromptTooLong.counted(10_213, limit, 1024, pictures=160, shown=2)   # the error of a request without room

The limit is the model's, not the tokenizer's ``model_max_length``, which is often a placeholder. Picture tokens count
like any other. If a prompt leaves less room than a judgment may take, the judgment gets the room that is left; if it
needs more, it is cut there and counted as cut.
"""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING, Any

from r1_reward.engines.engine import EngineError

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)
SHORTER = "shorten the question or the responses, or scale pictures down (--max-pixels)"
"""Advice for error messages."""

_READ = 20_000  # characters of a refusal that are searched
_TOO_LONG = re.compile(
    r"context[ _-](?:length|window|size|limit)"  # vLLM, SGLang, OpenAI, Mistral, DeepSeek, llama.cpp
    r"|(?:prompt|inputs?|request|text|messages?)(?: \([^)]*\))? (?:is|are) (?:too long|longer than)"  # Anthropic, vLLM
    r"|longer than the (?:maximum )?model"
    r"|too many (?:input |prompt )?tokens"
    r"|tokens? (?:count )?(?:\(\d+\) )?exceeds? "  # Gemini
    r"|inputs?`? tokens \+ `?max_new_tokens"  # TGI
    r"|reduce the length of the (?:messages|prompt|input)",
    re.IGNORECASE,
)
_STRETCHED = ("linear", "dynamic", "yarn", "longrope", "llama3")


class PromptTooLong(EngineError):
    """One prompt is longer than the model can read; nothing was generated. The other requests continue."""

    tokens: int | None = None
    """Tokens of the prompt; None if only a server knows."""
    limit: int | None = None
    """Positions of the model; None if only a server knows."""
    pictures: int = 0
    """How many of the prompt's tokens belong to pictures."""

    @classmethod
    def counted(
        cls, tokens: int, limit: int, max_new_tokens: int, *, pictures: int = 0, shown: int = 0
    ) -> PromptTooLong:
        """Return the error for a prompt of this many tokens, ``pictures`` of them from the ``shown`` pictures."""
        many = "pictures" if not shown else "a picture" if shown == 1 else f"{shown:,} pictures"
        of_pictures = f" ({pictures:,} of them from {many})" if pictures else ""
        judged = f" for prompt and judgment (up to {max_new_tokens:,} new tokens)" if max_new_tokens else ""
        error = cls(
            f"the prompt is too long: it has {tokens:,} tokens{of_pictures}, and the model has {limit:,} positions"
            f"{judged}; {SHORTER}"
        )
        error.tokens, error.limit, error.pictures = tokens, limit, pictures
        return error


def says_too_long(refusal: str) -> bool:
    """Return whether a refusal says that the prompt, or prompt and judgment together, are too long for the model."""
    return _TOO_LONG.search(refusal[:_READ]) is not None


def position_limit(config: Any) -> int | None:
    """Return how many positions a model has, None if its configuration sets no limit.

    Rotary positions that are scaled (``rope_parameters``: YaRN and others) count at their scaled length.
    """
    get_text_config = getattr(config, "get_text_config", None)
    text = get_text_config() if get_text_config is not None else config
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind = rope.get("rope_type") or rope.get("type")
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if kind in _STRETCHED and isinstance(factor, (int, float)) and math.isfinite(factor):
        return max(limit, int((original or limit) * factor))
    return limit


def new_tokens(prompt: int, limit: int | None, wanted: int) -> int:
    """Return how many of the ``wanted`` new tokens fit after a prompt, 0 or less if there is no room."""
    return wanted if limit is None else min(wanted, limit - prompt)


class ShortRoom:
    """Warns once that a prompt leaves less room than a judgment may take."""

    def __init__(self, limit: int | None) -> None:
        self._limit, self._told = limit, False

    def of(self, room: int, wanted: int) -> None:
        """Warn if the ``room`` that a prompt leaves is less than ``wanted``; both in tokens."""
        if room < wanted and not self._told:
            self._told = True
            _LOG.warning(
                "a prompt leaves room for %d of %d new tokens (the model has %d positions); a judgment that needs "
                "more is cut there and counted as cut. Later prompts like this are not reported",
                room, wanted, self._limit,
            )  # fmt: skip


def picture_tokens(config: Any) -> list[int]:
    """Return the placeholder tokens of pictures and videos in a model's input."""
    names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
    tokens = (getattr(config, name, None) for name in names)
    return [token for token in tokens if token is not None]


def count_pictures(tokens: Tensor, config: Any) -> int:
    """Return how many of a prompt's (T,) tokens belong to pictures."""
    return sum(int((tokens == token).sum()) for token in set(picture_tokens(config)))

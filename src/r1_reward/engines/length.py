"""How long a prompt may be: a model has so many positions and no more, and beyond them it says anything.

    limit = position_limit(model.config)                    # 32,768, or None for a model without a limit of its own
    PromptTooLong(10_213, limit, 1024, pictures=160)        # what a request ends with that has no room

The limit is the model's, not the tokenizer's ``model_max_length``, which is often a placeholder. Tokens of pictures
count like any other. A prompt that leaves less room than a judgement may take is judged in what is left; a judgement
that needs more is cut there and counted as cut.
"""

from __future__ import annotations

import math
from typing import Any

from r1_reward.engines.engine import EngineError

_STRETCHED = ("linear", "dynamic", "yarn", "longrope", "llama3")


class PromptTooLong(EngineError):
    """One prompt has more tokens than the model has positions; nothing was generated."""

    def __init__(self, tokens: int, limit: int, max_new_tokens: int, *, pictures: int = 0) -> None:
        """Name the prompt's ``tokens``, those of its ``pictures`` among them, and what the model has room for."""
        of_pictures = f" ({pictures:,} of them of pictures)" if pictures else ""
        also = ", or scale its pictures down (--max-pixels, --model-pixels of the server)" if pictures else ""
        judged = f" for prompt and judgement (up to {max_new_tokens:,} new tokens)" if max_new_tokens else ""
        super().__init__(
            f"the prompt is too long: it has {tokens:,} tokens{of_pictures}, and the model has {limit:,} positions"
            f"{judged}; shorten the question or the responses{also}"
        )
        self.tokens, self.limit, self.max_new_tokens, self.pictures = tokens, limit, max_new_tokens, pictures


def position_limit(config: Any) -> int | None:
    """Return how many tokens a model can tell apart by their places, None if its configuration names no limit.

    Where rotary positions are stretched (``rope_parameters``: YaRN and others), the stretched length counts.
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
    """Return how many of the ``wanted`` new tokens have a position behind a prompt, 0 or less if there is no room."""
    return wanted if limit is None else min(wanted, limit - prompt)

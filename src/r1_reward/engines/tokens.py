"""From generated tokens to a completion, shared by all engines that generate in this process.

::

    reader = TokenReader(tokenizer, dialect, verdict_tokens(processor, dialect), ends)
    reader.read([491, 20, 7], margin=lambda step: 2.5, prompt=text)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from r1_reward.records.dialect import Dialect
from r1_reward.records.parsing import is_tag, with_template_thought
from r1_reward.records.schema import Completion


class TokenReader:
    """Reads the tokens of judgments that one model generates in one dialect."""

    def __init__(self, tokenizer: Any, dialect: Dialect, verdicts: tuple[int, int] | None, ends: set[int]) -> None:
        """Take the model's tokenizer and dialect, the tokens of the two verdicts, and those that end a text."""
        self.tokenizer, self.dialect, self.verdicts, self.ends = tokenizer, dialect, verdicts, ends
        self._text = text_decoder(tokenizer)

    def read(self, tokens: Sequence[int], margin: Callable[[int], float] | None, prompt: str) -> Completion:
        """Return the completion, truncated if no end token was generated.

        ``margin`` gives the logit of the first verdict minus that of the second at a step; without it, the completion
        has no probability. ``prompt`` is the chat as text.
        """
        stop = next((i for i, token in enumerate(tokens) if token in self.ends), None)
        kept = list(tokens if stop is None else tokens[:stop])
        text = with_template_thought(prompt, self._text(kept))
        # Only if the text has an answer: a tag inside a thought does not count.
        readable = self.verdicts is not None and self.dialect.parse(text, cut=stop is None).answer is not None
        step = self.dialect.position(kept, self.verdicts or (), self.tokenizer.decode, text) if readable else None
        probability = None
        if step is not None and margin is not None:
            probability = _probability(margin(step))
        return Completion(
            text=text,
            tokens=len(kept) + (stop is not None),
            truncated=stop is None,
            probability=probability,
        )


def text_decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Return a function that decodes generated tokens without the special ones, but with the tags of a judgment.

    Some tokenizers mark the tags of a thought as special. Without them, a draft in the thought would be a verdict.
    """

    @functools.cache
    def dropped(token: int) -> bool:
        if tokenizer.decode([token], skip_special_tokens=True):
            return False
        text = tokenizer.decode([token], skip_special_tokens=False)
        return bool(text) and not is_tag(text)

    def decode(tokens: Sequence[int]) -> str:
        text: str = tokenizer.decode([token for token in tokens if not dropped(token)], skip_special_tokens=False)
        return text

    return decode


def _probability(margin: float) -> float:
    """Return the sigmoid of a margin in logits, rounded, since the margin differs slightly from batch to batch.

    Four digits; six within 0.001 of 0 and 1, where that difference is 250 times smaller and 0.99995 is far from 1.
    """
    probability = 0.5 + 0.5 * math.tanh(margin / 2)
    return round(probability, 4 if 0.001 < probability < 0.999 else 6)


def end_tokens(configured: int | Sequence[int] | None, tokenizer: Any) -> set[int]:
    """Return the tokens that end a text: those in the generation config, and the tokenizer's own."""
    ends = configured if isinstance(configured, Sequence) else [configured]
    return {token for token in (*ends, tokenizer.eos_token_id) if token is not None}


def verdict_tokens(processor: Any, dialect: Dialect) -> tuple[int, int] | None:
    """Return the tokens of the two verdicts, or None if they do not differ in exactly one token."""
    if dialect.verdicts is None:
        return None
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    texts = [dialect.form.format(verdict) for verdict in dialect.verdicts]
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    differing = [(a, b) for a, b in zip(one, two, strict=False) if a != b]
    return differing[0] if len(one) == len(two) and len(differing) == 1 else None

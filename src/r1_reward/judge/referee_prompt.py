"""The prompt for a language model as referee, and the parser of its reply."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import resources

from r1_reward.judge.rule_referee import WINDOW
from r1_reward.records.parsing import spoken_from
from r1_reward.records.prompt import neutralize


def referee_prompt(reasoning: str, answer: int, *, tail: int = WINDOW, special_tokens: Iterable[str] = ()) -> str:
    """Return the prompt about the last ``tail`` characters of a reasoning and its answer (1 or 2).

    The reasoning cannot break out of its fence: every line is quoted, and a space breaks up tags and special tokens.
    ``special_tokens`` are the tokenizer's, see :func:`r1_reward.records.prompt.neutralize`.
    """
    quoted = "\n".join(f"> {line}" for line in reasoning[-tail:].splitlines())
    # After quoting, since that can complete a tag: "<answer", a line break, and the ">" of the quote.
    safe = neutralize(_FENCE.sub("< ", quoted), special_tokens)
    texts = {"reasoning": safe, "answer": str(answer)}
    return _PLACEHOLDER.sub(lambda match: texts[match[1]], referee_template())


def read_verdict(text: str, *, cut: bool = False) -> float | None:
    """Return 1.0 (yes) or 0.0 (no) from the single answer tag outside the thought, which must end the text.

    Anything else is None. ``cut`` is as in :func:`r1_reward.records.parsing.parse_judgment`.

    >>> read_verdict("<answer>yes</answer>"), read_verdict("<answer>Probably</answer>"), read_verdict("yes")
    (1.0, None, None)
    """
    start = spoken_from(text, cut=cut)
    if start is None:
        return None
    said = text[start:]
    verdict = _VERDICT.search(said)
    if verdict is None or said.count("<answer>") != 1 or said.count("</answer>") != 1:
        return None
    return float(verdict[1] == "yes")


@functools.cache
def referee_template() -> str:
    """Return the template of the prompt, with the placeholders ``{reasoning}`` and ``{answer}``."""
    return (resources.files("r1_reward.judge") / "templates" / "referee.txt").read_text(encoding="utf-8")


_PLACEHOLDER = re.compile(r"\{(reasoning|answer)\}")
_FENCE = re.compile(r"<(?=\s*/?\s*reasoning)", re.IGNORECASE)
_VERDICT = re.compile(r"<answer>\s*(yes|no)\s*</answer>\s*\Z")

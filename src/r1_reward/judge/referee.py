"""Does the reasoning support the answer? The consistency reward asks a referee (method section 3).

A referee sees the reasoning and the answer, never the question or the candidates. :class:`RuleReferee` needs no second
model. The referees of :mod:`r1_reward.judge.referee_models` send
:func:`~r1_reward.judge.referee_prompt.referee_prompt` to a language model. :func:`load_referee` loads any of them::

    referee = load_referee("server:Qwen/Qwen2.5-VL-7B-Instruct@http://localhost:8000/v1")
    referee.judge(["... so Response 2 is better."], [2])        # [1.0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from r1_reward.judge.rule_referee import RuleReferee
from r1_reward.records.errors import UserError
from r1_reward.records.settings import at_home

__all__ = ["Referee", "RuleReferee", "load_referee"]


class Referee(Protocol):
    """Judges whether each reasoning supports its answer; one call for a whole batch."""

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return, for each reasoning, 1.0 if it supports the answer (1 or 2), 0.0 if not, None if unknown."""
        ...


def load_referee(spec: str, *, cache: Path | None = None) -> Referee:
    """Return the referee that ``spec`` names.

    Args:
        spec: ``rule``; ``server:MODEL@http://HOST:PORT/v1``, with the key in ``OPENAI_API_KEY`` if it needs one; or
            ``local:PATH``, a text or image-text checkpoint.
        cache: The file for a server's verdicts, see :class:`r1_reward.judge.referee_models.ServerReferee`.

    Raises:
        UserError: ``spec`` has none of these forms, or its model cannot be loaded.
    """
    kind, _, name = spec.strip().partition(":")
    if spec.strip() == "rule":
        return RuleReferee()
    # Split at the first @ before a URL: the model's name, or a password in the URL, may have others.
    if kind == "server" and (server := re.fullmatch(r"(\S+?)@(https?://\S+)", name)):
        from r1_reward.judge.referee_models import ServerReferee

        return ServerReferee(server[1], server[2], cache=cache)
    if kind == "local" and name.strip():
        from r1_reward.judge.referee_models import LocalReferee

        return LocalReferee(at_home(name.strip()))
    raise UserError(
        f"{spec!r} is not a referee; the forms are: rule, server:MODEL@http://localhost:8000/v1, local:PATH"
    )

"""A referee that errs on purpose, to measure the cost of a weak one.

>>> from r1_reward.judge.referee import RuleReferee
>>> ErringReferee(RuleReferee(), noise=1.0, seed=0).judge(["Response 2 is better."], [2])
[0.0]
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from r1_reward.judge.referee import Referee


def flip_verdict(verdict: float | None, text: str, *, noise: float, seed: int) -> float | None:
    """Return the verdict, reversed with probability ``noise``.

    The draw is a hash of ``seed`` and ``text``, so the same text always gets the same error, as from a real referee
    whose answers are cached. An unknown verdict (None) remains unknown.
    """
    if verdict is None:
        return None
    digest = hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    return 1.0 - verdict if draw < noise else verdict


class ErringReferee:
    """Reverses a share of another referee's verdicts, drawn from seed, answer and reasoning."""

    def __init__(self, referee: Referee, *, noise: float, seed: int) -> None:
        """Take the share to reverse, in [0, 1], and the seed of the draws."""
        self._referee, self._noise, self._seed = referee, noise, seed
        self._flipped = self._known = 0

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return the other referee's verdicts, some of them reversed; None remains None."""
        heard = []
        for reasoning, answer, verdict in zip(
            reasonings, answers, self._referee.judge(reasonings, answers), strict=True
        ):
            said = flip_verdict(verdict, f"{answer}\n{reasoning}", noise=self._noise, seed=self._seed)
            heard.append(said)
            self._known += verdict is not None
            self._flipped += said != verdict
        return heard

    def take_counts(self) -> tuple[int, int]:
        """Return the numbers of reversed and of known verdicts since the last call."""
        counts, self._flipped, self._known = (self._flipped, self._known), 0, 0
        return counts

"""Judge with a scalar reward model: every answer gets a reward of its own, and the larger one wins.

    judge = ScalarEngine(*load_scalar("runs/scalar"))
    judge.rewards([("Which digit is it?", [picture], "A three."), ("Which digit is it?", [picture], "An eight.")])

A critique-then-score model first writes a critique, greedily, and is then scored behind it. Answers are scored alone,
so there is no order to be fooled by; :func:`r1_reward.judge.judging.judge` makes judgments of pairs out of the rewards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from r1_reward.engines.in_process import Request, TransformersEngine
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import special_tokens_of
from r1_reward.records.scalar_prompt import build_scalar_messages

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from r1_reward.models.scalar import Candidate, ScalarRewardModel


class Score(NamedTuple):
    """What a scalar reward model says of one answer."""

    reward: float
    """Unbounded, in logits: the difference of two is the log-odds that the first answer is preferred. May be NaN."""
    critique: str = ""
    """What the model wrote before it scored; empty for a model that only scores."""
    tokens: int = 0
    """Generated tokens."""
    truncated: bool = False
    """Whether the limit cut the critique."""


_UNSCORED = Score(math.nan)


@runtime_checkable
class AnswerScorer(Protocol):
    """A judge that scores answers alone."""

    special_tokens: tuple[str, ...]

    def score(self, candidates: Sequence[Candidate], *, max_new_tokens: int = 1024) -> list[Score]:
        """Return one score for each candidate; ``max_new_tokens`` limits a critique."""
        ...


class ScalarEngine:
    """A scalar reward model and its processor in this process, scoring in batches."""

    def __init__(self, model: ScalarRewardModel, processor: ProcessorMixin, *, batch_size: int = 64) -> None:
        """Take what :func:`r1_reward.models.scalar.load_scalar` returns; ``batch_size`` counts answers."""
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.special_tokens = special_tokens_of(processor)

    def rewards(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the reward of each candidate, NaN where the model computed no number."""
        return [score.reward for score in self.score(candidates)]

    def score(self, candidates: Sequence[Candidate], *, max_new_tokens: int = 1024) -> list[Score]:
        """Return the score of each candidate, in order.

        Raises:
            UserError: the accelerator has too little memory for ``batch_size`` answers.
        """
        written = self._critiques(candidates, max_new_tokens) if self.model.critique else [_UNSCORED] * len(candidates)
        # Answers of similar length share a batch: less padding.
        order = sorted(range(len(candidates)), key=lambda i: len(candidates[i][2]) + len(written[i].critique))
        scores = list(written)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rewards = self._rewards([candidates[i] for i in batch], [written[i].critique for i in batch])
            for i, reward in zip(batch, rewards, strict=True):
                scores[i] = written[i]._replace(reward=reward)
        return scores

    def _critiques(self, candidates: Sequence[Candidate], max_new_tokens: int) -> list[Score]:
        engine = TransformersEngine(self.model.base, self.processor, batch_size=self.batch_size)
        requests = [
            Request(
                build_scalar_messages(question, response, images=len(images), special_tokens=self.special_tokens),
                images,
            )
            for question, images, response in candidates
        ]
        completions = [drawn[0] for drawn in engine.generate(requests, max_new_tokens=max_new_tokens)]  # type: ignore[index]
        return [Score(math.nan, one.text, one.tokens, one.truncated) for one in completions]

    def _rewards(self, candidates: Sequence[Candidate], critiques: Sequence[str]) -> list[float]:
        import torch

        from r1_reward.models.scalar import encode

        self.model.eval()
        try:
            inputs = encode(self.processor, candidates, critiques if self.model.critique else None)
            inputs.pop("labels", None)
            with torch.inference_mode():
                output = self.model(**{name: value.to(self.model.base.device) for name, value in inputs.items()})
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory with {len(candidates)} answers at once; take a smaller batch size "
                f"(now {self.batch_size})"
            ) from error
        return output.rewards.tolist()

"""A scalar reward model as an engine: it scores each answer separately, and the larger reward wins.

    engine = ScalarEngine(*load_scalar("runs/scalar"))
    engine.rewards([("Which digit is it?", [picture], "A three."), ("Which digit is it?", [picture], "An eight.")])

A critique-then-score model first writes a critique, greedily, and then scores the answer given the critique. There is
no order to mislead the model, and every vote on a pair is the same. The vote has the form of any other judgment, so
callers need not know which kind of model wrote it::

    <think>Reward 1.25 for response 1, 0.5 for response 2.</think><answer>1</answer>

If the rewards are equal or not finite, there is no vote: the text has no answer.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.engines.engine import Answered, BatchSession, EngineError, Request
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.length import PromptTooLong, count_pictures, position_limit
from r1_reward.records.content import Shown, key_of, pictures_of
from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import DEFAULT, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import neutralize, special_tokens_of
from r1_reward.records.scalar_prompt import show_answer
from r1_reward.records.schema import Completion

if TYPE_CHECKING:
    from PIL import Image
    from transformers import ProcessorMixin

    from r1_reward.models.scalar import Candidate, ScalarRewardModel

_WINDOW = 2  # batches of answers scored together
_KNOWN = 4096  # scores kept, so that a candidate in several comparisons is scored once


class Comparison(NamedTuple):
    """A request to a scalar engine: two answers, and the number of votes."""

    question: Shown
    images: list[Image.Image]
    """Shown before the question."""
    responses: tuple[Shown, Shown]
    votes: int
    max_new_tokens: int


class Score(NamedTuple):
    """A scalar reward model's score of one answer."""

    reward: float
    """Unbounded, in logits: the difference of two is the log-odds that the first answer is preferred. May be NaN."""
    critique: str = ""
    """The text the model wrote before scoring; empty for a model that only scores."""
    tokens: int = 0
    """Generated tokens."""
    truncated: bool = False
    """Whether the token limit cut the critique."""


_UNSCORED = Score(math.nan)


class Scoring:
    """An engine whose votes come from scores of single answers; subclasses implement :meth:`score`."""

    special_tokens: tuple[str, ...] = ()
    dialect: Dialect = find_dialect(DEFAULT)
    """The form its votes are written in; the model itself has no dialect."""
    deterministic = True
    batch_size = 64

    def __init__(self) -> None:
        self._known: OrderedDict[str, Score | EngineError] = OrderedDict()

    def score(self, candidates: Sequence[Candidate], *, max_new_tokens: int = 1024) -> list[Score | EngineError]:
        """Return each candidate's score, in order, or the error instead; ``max_new_tokens`` limits a critique."""
        raise NotImplementedError

    def open(self) -> BatchSession:
        """Start a session that scores about two batches at a time and reuses recent scores."""
        return BatchSession(max(1, _WINDOW * self.batch_size // 2), self._answer)

    def compare(
        self,
        question: Shown,
        images: Sequence[Image.Image],
        first: Shown,
        second: Shown,
        *,
        seeds: tuple[int, ...] = (0,),
        temperature: float = 0.0,  # noqa: ARG002  nothing is sampled
        max_new_tokens: int = 1024,
    ) -> Comparison:
        """Return the request to compare the rewards of two responses; ``max_new_tokens`` limits a critique."""
        return Comparison(question, list(images), (first, second), len(seeds), max_new_tokens)

    def _answer(self, asked: list[Comparison]) -> Iterator[Answered]:
        keys = [[_key(one, response) for response in one.responses] for one in asked]
        new: dict[int, dict[str, Candidate]] = {}
        for one, own in zip(asked, keys, strict=True):
            for key, response in zip(own, one.responses, strict=True):
                if key not in self._known:
                    new.setdefault(one.max_new_tokens, {})[key] = (one.question, one.images, response)
        for limit, candidates in new.items():
            scores = self.score(list(candidates.values()), max_new_tokens=limit)
            self._known.update(zip(candidates, scores, strict=True))
        for one, own in zip(asked, keys, strict=True):
            first, second = (self._known[key] for key in own)
            if isinstance(first, EngineError):
                yield first
            elif isinstance(second, EngineError):
                yield second
            else:
                yield [compare_scores(first, second)] * one.votes
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)


class ScalarEngine(Scoring):
    """A scalar reward model and its processor in this process, scoring in batches."""

    def __init__(self, model: ScalarRewardModel, processor: ProcessorMixin, *, batch_size: int = 64) -> None:
        """Take what :func:`r1_reward.models.scalar.load_scalar` returns; ``batch_size`` counts answers."""
        super().__init__()
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.special_tokens = special_tokens_of(processor)

    def rewards(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return the reward of each candidate, NaN where the model returned NaN."""
        scores = self.score(candidates)
        for score in scores:
            if isinstance(score, EngineError):
                raise score
        return [score.reward for score in scores if isinstance(score, Score)]

    def score(self, candidates: Sequence[Candidate], *, max_new_tokens: int = 1024) -> list[Score | EngineError]:
        """Return each candidate's score, in order, or an error if its prompt is too long for the model.

        Raises:
            UserError: the accelerator has too little memory for ``batch_size`` answers.
        """
        scores: list[Score | EngineError] = [_UNSCORED] * len(candidates)
        if self.model.critique:
            scores = self._critiques(candidates, max_new_tokens)
        written = {i: score for i, score in enumerate(scores) if isinstance(score, Score)}
        # Answers of similar length share a batch: less padding.
        order = sorted(written, key=lambda i: len(key_of(candidates[i][2])) + len(written[i].critique))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rewards = self._rewards([candidates[i] for i in batch], [written[i].critique for i in batch])
            for i, reward in zip(batch, rewards, strict=True):
                scores[i] = reward if isinstance(reward, EngineError) else written[i]._replace(reward=reward)
        return scores

    def _critiques(self, candidates: Sequence[Candidate], max_new_tokens: int) -> list[Score | EngineError]:
        engine = TransformersEngine(self.model.base, self.processor, batch_size=self.batch_size)
        requests = [
            Request(*show_answer(*candidate, special_tokens=self.special_tokens), max_new_tokens=max_new_tokens)
            for candidate in candidates
        ]
        scores: list[Score | EngineError] = []
        for drawn in engine.generate(requests):
            if isinstance(drawn, EngineError):
                scores.append(drawn)
            else:
                # Critiques are trained without tags; a chat template that opens a thought opens it again for scoring.
                critique = drawn[0].text.removeprefix("<think>")
                scores.append(Score(math.nan, critique, drawn[0].tokens, drawn[0].truncated))
        return scores

    def _rewards(self, candidates: Sequence[Candidate], critiques: Sequence[str]) -> list[float | EngineError]:
        import torch

        from r1_reward.models.scalar import encode

        self.model.eval()
        try:
            inputs = encode(self.processor, candidates, critiques if self.model.critique else None)
            inputs.pop("labels", None)
            long = self._too_long(inputs, candidates)
            if long:
                fit = [i for i in range(len(candidates)) if i not in long]
                found = self._rewards([candidates[i] for i in fit], [critiques[i] for i in fit]) if fit else []
                known = {**long, **dict(zip(fit, found, strict=True))}
                return [known[i] for i in range(len(candidates))]
            with torch.inference_mode():
                output = self.model(**{name: value.to(self.model.base.device) for name, value in inputs.items()})
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory with {len(candidates)} answers at once; use a smaller batch size "
                f"(now {self.batch_size})"
            ) from error
        return output.rewards.tolist()

    def _too_long(self, inputs: dict[str, Any], candidates: Sequence[Candidate]) -> dict[int, EngineError]:
        """Return the errors of answers too long to score, by index; a critique's prompt was checked before."""
        config = self.model.base.config
        limit = None if self.model.critique else position_limit(config)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        too_long: dict[int, EngineError] = {}
        for i, (length, (question, images, response)) in enumerate(zip(lengths, candidates, strict=True)):
            if limit is not None and length > limit:
                of_pictures = count_pictures(inputs["input_ids"][i], config)
                shown = len(images) + len(pictures_of(question, response))
                too_long[i] = PromptTooLong.counted(length, limit, 0, pictures=of_pictures, shown=shown)
        return too_long


def compare_scores(first: Score, second: Score) -> Completion:
    """Return the judgment of two scores, in the order shown; it has no answer if they are equal or not finite."""
    gap = first.reward - second.reward
    vote = "" if not math.isfinite(gap) or gap == 0 else f"<answer>{1 if gap > 0 else 2}</answer>"
    critiques = [
        f"\n[Response {n}]: {neutralize(score.critique)}" for n, score in ((1, first), (2, second)) if score.critique
    ]
    rewards = f"Reward {first.reward:.6g} for response 1, {second.reward:.6g} for response 2."
    return Completion(
        text=f"<think>{rewards}{''.join(critiques)}</think>{vote}",
        tokens=first.tokens + second.tokens,
        truncated=first.truncated or second.truncated,
        # The sigmoid, in a form that does not overflow.
        probability=round(0.5 + 0.5 * math.tanh(gap / 2), 6) if vote else None,
    )


def _key(one: Comparison, response: Shown) -> str:
    """Return a score's key: a hash of the texts, the pixels and the critique limit."""
    # The type is part of the key, so that no text can pass for a picture.
    contents = [[isinstance(content, str), key_of(content)] for content in (one.question, response)]
    digest = hashlib.sha256(json.dumps([contents, one.max_new_tokens]).encode())
    for picture in one.images:
        digest.update(f"{picture.width}x{picture.height}:{picture.mode}".encode())
        digest.update(picture.tobytes())
    return digest.hexdigest()

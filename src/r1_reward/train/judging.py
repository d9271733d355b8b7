"""Compute the rewards of a rollout's texts: result, format, and a referee's verdicts, which may be missing.

::

    scores = score_judgments(texts, preferred, referee, config)
    watch.add(scores.asked, scores.unknown)     # stops the run if the referee fails
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from r1_reward.judge.referee import Referee
from r1_reward.judge.settings import OnUnreadable
from r1_reward.judge.unreadable import Reading, UnreadableJudge, Watch, read
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment
from r1_reward.records.schema import Answer
from r1_reward.rewards import combine_rewards, consistency_value, format_reward, result_reward

if TYPE_CHECKING:
    from r1_reward.train.rl_config import StableReinforceConfig


class RefereeOutage(UserError):
    """The referee returned too few verdicts to continue training."""


BATCHES = 3
"""Minimum number of recent rollouts over which the share of unknown verdicts is computed."""
FEWEST = 16
"""Minimum number of verdicts requested in them before the share counts; more rollouts are taken if they have fewer."""


METRICS = (
    "accuracy", "parse_rate", "unscorable", "reward/result", "reward/format", "reward/consistency", "referee_unknown",
)  # fmt: skip
"""All metrics that a batch may have."""


class Scores(NamedTuple):
    """The rewards of a batch of texts and what to log about it."""

    rewards: list[float | None]
    """R of each text; None for a sample that cannot be scored because the referee's verdict is missing."""
    metrics: dict[str, float]
    """accuracy, parse_rate, unscorable (share of samples), reward/*; referee_unknown only if the referee was asked."""
    counts: dict[str, int]
    """Number of samples over which each metric is averaged."""
    asked: int
    """Number of verdicts requested from the referee."""
    unknown: int
    """Number of these that were None."""
    readings: list[Reading]
    """Whether each text could be read, and why not."""


def score_judgments(
    texts: Sequence[str],
    preferred: Sequence[Answer],
    referee: Referee,
    config: StableReinforceConfig,
    *,
    cut: Sequence[bool] | None = None,
) -> Scores:
    """Return the rewards R of the texts (method section 3), composed as ``config`` says.

    ``cut`` says for each text whether the token limit ended it; None if unknown.
    With ``consistency_mode`` multiply the referee judges right answers only, since it cannot change the reward of a
    wrong one. With add it judges every readable answer.
    """
    cut = [False] * len(texts) if cut is None else cut
    judgments = [parse_judgment(text, cut=ended) for text, ended in zip(texts, cut, strict=True)]
    results = [result_reward(text, label, cut=ended) for text, label, ended in zip(texts, preferred, cut, strict=True)]
    formats = [format_reward(text, config.format) for text in texts]
    everywhere = config.consistency_mode == "add"
    asked = [
        i for i, judgment in enumerate(judgments) if judgment.answer is not None and (everywhere or results[i] > 0)
    ]
    verdicts = referee.judge([judgments[i].reasoning for i in asked], [judgments[i].answer or 0 for i in asked])
    consistency: list[float | None] = [0.0] * len(texts)  # a text the referee did not judge earns no bonus
    for i, verdict in zip(asked, verdicts, strict=True):
        consistency[i] = consistency_value(verdict, config.consistency_values)
    rewards = [
        combine_rewards(
            *parts,
            consistency_weight=config.consistency_weight,
            format_weight=config.format_weight,
            consistency_mode=config.consistency_mode,
            format_mode=config.format_mode,
        )
        for parts in zip(results, consistency, formats, strict=True)
    ]
    known = [value for i in asked if (value := consistency[i]) is not None]
    metrics = {
        "accuracy": mean(results),
        "parse_rate": mean([float(judgment.answer is not None) for judgment in judgments]),
        "unscorable": mean([float(reward is None) for reward in rewards]),
        "reward/result": mean(results),
        "reward/format": mean(formats),
        "reward/consistency": mean(known),
    }
    counts = {**dict.fromkeys(metrics, len(texts)), "reward/consistency": len(known)}
    if asked:
        metrics["referee_unknown"] = 1 - len(known) / len(asked)
        counts["referee_unknown"] = len(asked)
    readings = [
        read(text, readable=judgment.answer is not None, truncated=ended)
        for text, judgment, ended in zip(texts, judgments, cut, strict=True)
    ]
    return Scores(rewards, metrics, counts, len(asked), len(asked) - len(known), readings)


class PolicyWatch:
    """Warns early that none of a policy's first judgments can be read, so that only the format is rewarded."""

    def __init__(self, on_unreadable: OnUnreadable, max_completion_length: int | None, *, speaks: bool) -> None:
        """Take what to do, the token limit of a judgment, and whether this process prints messages."""
        limit = f"max_completion_length (now {max_completion_length})"
        self._watch = Watch("the policy", on_unreadable, limit=limit, speaks=speaks)

    def add(self, readings: Sequence[Reading], answers: int, readable: int) -> None:
        """Count one rollout: this process's judgments, and the total and readable number in all processes.

        Raises:
            UnreadableJudge: None of the first judgments can be read, and ``on_unreadable`` is stop.
        """
        own = sum(not reading.reason for reading in readings)
        if not self._watch.add(readings, elsewhere=(answers - len(readings), readable - own)):
            raise UnreadableJudge(
                f"{self._watch.words}\nStopped. A policy must write some verdicts before RL can train it: begin with a "
                "cold start (`r1-reward train sft`), or continue with on_unreadable: warn."
            )


class RefereeWatch:
    """Stops a run whose referee no longer answers, instead of training on the rest."""

    def __init__(self, limit: float, name: str) -> None:
        self._limit, self._name = limit, name
        self._batches: deque[tuple[int, int]] = deque()

    def counts(self) -> list[list[int]]:
        """Return asked and unknown of the recent rollouts, newest last."""
        return [list(counts) for counts in self._batches]

    def restore(self, counts: Sequence[Sequence[int]]) -> None:
        """Restore what `counts` returned."""
        self._batches.extend((asked, unknown) for asked, unknown in counts)

    def add(self, asked: int, unknown: int) -> None:
        """Count one rollout of all processes.

        Raises:
            RefereeOutage: Of the verdicts requested in the last three rollouts, or in as many more as it takes to have
                at least 16, a larger share than the limit is unknown.
        """
        self._batches.append((asked, unknown))
        while len(self._batches) > BATCHES and sum(n for n, _ in self._batches) - self._batches[0][0] >= FEWEST:
            self._batches.popleft()
        total, missing = (sum(counts) for counts in zip(*self._batches, strict=True))
        if total >= FEWEST and missing > self._limit * total:
            raise RefereeOutage(
                f"the referee ({self._name}) gave no verdict on {missing} of {total} judgments in the last "
                f"{len(self._batches)} rollouts ({missing / total:.0%}; max_referee_unknown is {self._limit:.0%}). "
                "Stopped, because the remaining samples are biased: fix the referee, then --resume."
            )


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN if there are no values."""
    return sum(values) / len(values) if values else float("nan")

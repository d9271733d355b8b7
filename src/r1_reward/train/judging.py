"""From the texts of a rollout to its rewards: results, formats, and a referee's verdicts that may be missing.

scores = score_judgments(texts, preferred, referee, config)
watch.add(scores.asked, scores.unknown)     # stops the run when the referee is out
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
    """The referee gives too few verdicts to continue training."""


BATCHES = 3
"""Over how many rollouts the share of unknown verdicts is taken."""
FEWEST = 16
"""How many verdicts must have been asked for in them before the share counts."""


METRICS = (
    "accuracy", "parse_rate", "unscorable", "reward/result", "reward/format", "reward/consistency", "referee_unknown",
)  # fmt: skip
"""Every metric that a batch may have."""


class Scores(NamedTuple):
    """The rewards of a batch of texts and what to log about it."""

    rewards: list[float | None]
    """R of each text; None for a sample that cannot be scored, because a verdict it needed is missing."""
    metrics: dict[str, float]
    """accuracy, parse_rate, unscorable (share of the samples), reward/*; referee_unknown only where one was asked."""
    counts: dict[str, int]
    """How many samples of this batch each of them is the mean of."""
    asked: int
    """Verdicts asked of the referee."""
    unknown: int
    """How many of them were None."""
    readings: list[Reading]
    """What came of reading each text."""


def score_judgments(
    texts: Sequence[str],
    preferred: Sequence[Answer],
    referee: Referee,
    config: StableReinforceConfig,
    *,
    cut: Sequence[bool] | None = None,
) -> Scores:
    """Return R of each text (method section 3), composed as the config says.

    ``cut`` says of each text whether the token limit ended it, where that is known.
    With ``consistency_mode`` multiply the referee is asked about right answers only: it could not change what a wrong
    one earns. With add it is asked about every readable answer.
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
    consistency: list[float | None] = [0.0] * len(texts)  # what nobody was asked about earns no bonus
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
    """Says early that none of a policy's first judgements can be read: nothing but the format is rewarded then."""

    def __init__(self, on_unreadable: OnUnreadable, max_completion_length: int | None, *, speaks: bool) -> None:
        """Take what to do, what limits a judgement, and whether this is the process that speaks."""
        limit = f"max_completion_length (now {max_completion_length})"
        self._watch = Watch("the policy", on_unreadable, limit=limit, speaks=speaks)

    def add(self, readings: Sequence[Reading], answers: int, readable: int) -> None:
        """Count one rollout: this process's judgements, and how many there are, and are readable, in all processes.

        Raises:
            UnreadableJudge: none of the first judgements can be read, and the run was to stop then.
        """
        own = sum(not reading.reason for reading in readings)
        if not self._watch.add(readings, elsewhere=(answers - len(readings), readable - own)):
            raise UnreadableJudge(
                f"{self._watch.words}\nStopped. A policy has to write some verdicts before it can be trained on them: "
                "begin with a cold start (`r1-reward train sft`), or continue with on_unreadable: warn."
            )


class RefereeWatch:
    """Stops a run whose referee no longer answers, instead of training on what is left."""

    def __init__(self, limit: float, name: str) -> None:
        self._limit, self._name = limit, name
        self._batches: deque[tuple[int, int]] = deque(maxlen=BATCHES)

    def counts(self) -> list[list[int]]:
        """Return asked and unknown of the rollouts in view, the latest last."""
        return [list(counts) for counts in self._batches]

    def restore(self, counts: Sequence[Sequence[int]]) -> None:
        """Go on from what `counts` returned."""
        self._batches.extend((asked, unknown) for asked, unknown in counts)

    def add(self, asked: int, unknown: int) -> None:
        """Count one rollout of all processes.

        Raises:
            UserError: of the verdicts asked for in the last three rollouts, 16 or more, a larger share than the limit
                is unknown.
        """
        self._batches.append((asked, unknown))
        total, missing = (sum(counts) for counts in zip(*self._batches, strict=True))
        if total >= FEWEST and missing > self._limit * total:
            raise RefereeOutage(
                f"the referee ({self._name}) gave no verdict on {missing} of {total} judgments in the last "
                f"{len(self._batches)} rollouts ({missing / total:.0%}; max_referee_unknown is {self._limit:.0%}). "
                "Stopped, since what remains is a biased part of the rollout: make the referee answer, then --resume."
            )


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN for no values."""
    return sum(values) / len(values) if values else float("nan")

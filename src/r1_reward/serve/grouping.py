"""Shared code of protocols that score responses against each other: options in the URL, and the judging.

Route("/rerank", RerankRequest, RerankResponse, rerank, options=group_options(settings))
scored = await service.in_rounds(budget, lambda model: score_each(model, groups, call.options.model_dump()))
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import ConfigDict, Field, create_model

from r1_reward.engines.engine import EngineError
from r1_reward.judge.groups import Group, ScoredGroup, score_groups
from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve.judge_client import UNREADABLE, Scored
from r1_reward.serve.schemas import Grouping, StopRule
from r1_reward.serve.settings import ServerSettings

_ALONE = "no other response of its group can be judged, so there is nothing to compare it with"


class GroupOptions(Grouping):
    """Options in the URL, since the protocol defines the body; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")

    votes: int = Field(default=1, ge=1)
    both_orders: bool = True
    stop: StopRule | None = None


def group_options(settings: ServerSettings) -> type[GroupOptions]:
    """Return the options, with a server's limits in their schema."""
    most: dict[str, Any] = {"maximum": settings.max_votes}
    votes: Any = (int, Field(default=1, ge=1, json_schema_extra=most))
    return create_model("GroupOptions", __base__=GroupOptions, votes=votes)


def score_each(model: RewardModel, groups: list[Group], options: Mapping[str, Any]) -> list[ScoredGroup]:
    """Return each group with its rewards.

    A comparison that is too long for the judge counts as unreadable, since a single long response can cause it; the
    group keeps the error.

    Args:
        model: The judge.
        groups: The groups of one request.
        options: The fields of :class:`GroupOptions`, and ``temperature`` to override the judge's own.

    Raises:
        EngineError: a comparison failed for another reason.
    """
    grouping = {name: options[name] for name in Grouping.model_fields}
    compare = partial(
        model.compare_many, **{name: value for name, value in options.items() if name not in Grouping.model_fields}
    )
    done: list[ScoredGroup] = []
    for scored in score_groups(groups, compare, **grouping, seed=model.seed, video_frames=model.video_frames):
        if isinstance(scored, EngineError):
            raise scored
        if scored.failures:
            raise scored.failures[0]
        done.append(scored)
    return done


def reasoned(group: ScoredGroup) -> list[Scored]:
    """Return the reward of each response of a group, or why it has none."""
    why = UNREADABLE if len(group.rewards) > 1 else _ALONE
    if group.errors:
        why = f"{why}: {group.errors[0]}"
    return [Scored(reward, why if reward is None else None) for reward in group.rewards]

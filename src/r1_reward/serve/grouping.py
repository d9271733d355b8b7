"""What protocols share that score responses against each other: options in the URL, and the judging.

Route("/rerank", RerankRequest, RerankResponse, rerank, options=group_options(settings))
scored = await service.in_rounds(budget, lambda model: score_each(model, groups, call.options))
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import ConfigDict, Field, create_model

from r1_reward.engines.engine import EngineError
from r1_reward.judge.groups import Group, ScoredGroup, score_groups
from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve.schemas import Grouping, StopRule
from r1_reward.serve.settings import ServerSettings


class GroupOptions(Grouping):
    """What stands in the URL, since others decide on the body; a name that is none of these is refused."""

    model_config = ConfigDict(extra="forbid")

    votes: int = Field(default=1, ge=1)
    both_orders: bool = True
    stop: StopRule | None = None


def group_options(settings: ServerSettings) -> type[GroupOptions]:
    """Return the options with a server's limits in their document."""
    most: dict[str, Any] = {"maximum": settings.max_votes}
    votes: Any = (int, Field(default=1, ge=1, json_schema_extra=most))
    return create_model("GroupOptions", __base__=GroupOptions, votes=votes)


def score_each(model: RewardModel, groups: list[Group], options: GroupOptions) -> list[ScoredGroup]:
    """Return each group with its rewards; raises EngineError where one comparison has no answer, which ends it all."""
    compare = partial(model.compare_many, votes=options.votes, both_orders=options.both_orders, stop=options.stop)
    grouping = options.model_dump(include=set(Grouping.model_fields))
    done: list[ScoredGroup] = []
    for scored in score_groups(groups, compare, **grouping, seed=model.seed):
        if isinstance(scored, EngineError):
            raise scored
        if scored.errors:
            raise scored.errors[0]
        done.append(scored)
    return done

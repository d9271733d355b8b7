"""Our own routes: compare two responses, rank several, or give each a reward."""

from __future__ import annotations

from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.ranking import default_budget
from r1_reward.serve import schemas
from r1_reward.serve.batching import Sampling
from r1_reward.serve.budget import Budget
from r1_reward.serve.routes import Call, Route
from r1_reward.serve.service import Service, pairs_of
from r1_reward.serve.settings import ServerSettings


def routes(settings: ServerSettings) -> tuple[Route, ...]:
    """Return the routes, with a server's limits in their documents."""
    models = schemas.RequestModels(settings)
    return (
        Route("/v1/compare", models.compare, schemas.CompareResponse, compare, form=True),
        Route("/v1/rank", models.rank, schemas.RankResponse, rank, form=True),
        Route("/v1/reward", models.reward, schemas.RewardResponse, reward, form=True),
    )


async def compare(service: Service, call: Call[schemas.CompareRequest, None]) -> schemas.CompareResponse:
    """Say which of two responses is better, with every vote."""
    asked, budget = call.body, call.budget
    budget.text(asked.response_1, "response_1")
    budget.text(asked.response_2, "response_2")
    _spend(budget, asked, 1, "votes")
    (images,) = await service.open([("images", [*asked.images, *call.uploads])], budget)
    pair = PairToJudge(asked.question, images, asked.response_1, asked.response_2)
    return schemas.compare_response(await service.compare(pair, _sampling(asked), budget))


async def rank(service: Service, call: Call[schemas.RankRequest, None]) -> schemas.RankResponse:
    """Order responses from best to worst, with scores."""
    asked, budget = call.body, call.budget
    _check_responses(budget, asked.responses)
    most = default_budget(len(set(asked.responses))) if asked.budget is None else asked.budget
    _spend(budget, asked, min(most, pairs_of(asked.responses)), "responses")
    (images,) = await service.open([("images", [*asked.images, *call.uploads])], budget)
    options = _sampling(asked)._asdict()
    ranking = await service.in_rounds(
        budget, lambda model: model.rank(asked.question, images, asked.responses, budget=asked.budget, **options)
    )
    return schemas.rank_response(ranking)


async def reward(service: Service, call: Call[schemas.RewardRequest, None]) -> schemas.RewardResponse:
    """Give each response a reward, measured against the others."""
    asked, budget = call.body, call.budget
    _check_responses(budget, asked.responses)
    _spend(budget, asked, pairs_of(asked.responses, asked.schedule, asked.comparisons), "responses")
    (images,) = await service.open([("images", [*asked.images, *call.uploads])], budget)
    options = _sampling(asked)._asdict() | asked.model_dump(include=set(schemas.Grouping.model_fields))
    rewards = await service.in_rounds(
        budget, lambda model: model.rewards(asked.question, images, asked.responses, **options)
    )
    return schemas.reward_response(rewards)


def _check_responses(budget: Budget, responses: list[str]) -> None:
    budget.responses(len(responses), "responses")
    for number, response in enumerate(responses):
        budget.text(response, f"responses[{number}]")


def _spend(budget: Budget, asked: schemas.Question, pairs: int, field: str) -> None:
    budget.text(asked.question, "question")
    budget.judgments(pairs, votes=asked.votes, both_orders=asked.both_orders, field=field)


def _sampling(asked: schemas.Question) -> Sampling:
    return Sampling(asked.votes, asked.both_orders, None, asked.stop)

"""Our own routes: compare two responses, rank several, or give each a reward."""

from __future__ import annotations

from typing import Any

from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.ranking import default_budget
from r1_reward.serve import schemas
from r1_reward.serve.batching import Sampling
from r1_reward.serve.budget import Budget
from r1_reward.serve.pictures import named_contents
from r1_reward.serve.routes import Call, Route
from r1_reward.serve.service import Service, Unopened, different, pairs_of
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
    sent = _sent(call, {"response_1": asked.response_1, "response_2": asked.response_2})
    _spend(budget, asked, 1, "votes")
    ((images, (question, first, second)),) = await service.open([sent], budget)
    pair = PairToJudge(question, images, first, second, asked.criteria)
    return schemas.compare_response(await service.compare(pair, _sampling(asked), budget))


async def rank(service: Service, call: Call[schemas.RankRequest, None]) -> schemas.RankResponse:
    """Order responses from best to worst, with scores."""
    asked, budget = call.body, call.budget
    sent = _sent(call, _responses(budget, asked.responses))
    to_rank = list(sent.contents.values())[1:]
    most = default_budget(different(to_rank)) if asked.budget is None else asked.budget
    _spend(budget, asked, min(most, pairs_of(to_rank)), "responses")
    ((images, (question, *responses)),) = await service.open([sent], budget)
    options = _sampling(asked)._asdict()
    ranking = await service.in_rounds(
        budget,
        lambda model: model.rank(question, images, responses, budget=asked.budget, criteria=asked.criteria, **options),
    )
    return schemas.rank_response(ranking)


async def reward(service: Service, call: Call[schemas.RewardRequest, None]) -> schemas.RewardResponse:
    """Give each response a reward, measured against the others."""
    asked, budget = call.body, call.budget
    sent = _sent(call, _responses(budget, asked.responses))
    _spend(budget, asked, pairs_of(list(sent.contents.values())[1:], asked.schedule, asked.comparisons), "responses")
    ((images, (question, *responses)),) = await service.open([sent], budget)
    options = _sampling(asked)._asdict() | asked.model_dump(include={"criteria", *schemas.Grouping.model_fields})
    rewards = await service.in_rounds(budget, lambda model: model.rewards(question, images, responses, **options))
    return schemas.reward_response(rewards)


def _responses(budget: Budget, responses: list[schemas.PartsOrText]) -> dict[str, schemas.PartsOrText]:
    budget.responses(len(responses), "responses")
    return {f"responses[{number}]": response for number, response in enumerate(responses)}


def _sent(call: Call[Any, None], responses: dict[str, schemas.PartsOrText]) -> Unopened:
    """Return what was sent, its texts drawn from the budget: the question, then the responses."""
    asked = call.body
    sent = {"question": asked.question, **responses}
    for field, content in sent.items():
        texts = [content] if isinstance(content, str) else [getattr(part, "text", "") for part in content]
        call.budget.text("".join(texts), field)
    if asked.criteria is not None:
        call.budget.text(asked.criteria, "criteria")
    return Unopened(*named_contents(sent, [*asked.images, *call.uploads]))


def _spend(budget: Budget, asked: schemas.Question, pairs: int, field: str) -> None:
    budget.judgments(pairs, votes=asked.votes, both_orders=asked.both_orders, field=field)


def _sampling(asked: schemas.Question) -> Sampling:
    return Sampling(asked.votes, asked.both_orders, None, asked.stop)

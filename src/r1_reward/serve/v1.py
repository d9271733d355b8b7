"""Our own routes: compare two responses, rank several, or reward each."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from typing import Any

from r1_reward.judge.prepare import PairToJudge
from r1_reward.judge.ranking import default_budget
from r1_reward.judge.schedules import count_comparisons
from r1_reward.records.content import Place, read_parts
from r1_reward.serve import schemas
from r1_reward.serve.batching import Sampling
from r1_reward.serve.budget import Budget
from r1_reward.serve.cohorts import Prompt, Sample
from r1_reward.serve.dialects.openai import NO_MODEL, require_model
from r1_reward.serve.errors import Refusal
from r1_reward.serve.pictures import named_contents
from r1_reward.serve.routes import GROUPED, Call, ErrorForm, Route
from r1_reward.serve.service import Service, Unopened, different, pairs_of
from r1_reward.serve.settings import ServerSettings

_ERRORS = ErrorForm(more=NO_MODEL)
_GROUPED = ErrorForm(more={**NO_MODEL, **GROUPED.more})
_Rewards = schemas.GroupRewardResponse | schemas.RewardResponse


def routes(settings: ServerSettings) -> tuple[Route, ...]:
    """Return the routes, with a server's limits in their schemas."""
    models = schemas.RequestModels(settings)
    return (
        Route("/v1/compare", models.compare, schemas.CompareResponse, compare, form=True, errors=_ERRORS),
        Route("/v1/rank", models.rank, schemas.RankResponse, rank, form=True, errors=_ERRORS),
        Route("/v1/reward", models.reward, _Rewards, reward, form=True, errors=_GROUPED),
    )


async def compare(service: Service, call: Call[schemas.CompareRequest, None]) -> schemas.CompareResponse:
    """Say which of two responses is better, with every vote."""
    asked, budget = call.body, call.budget
    require_model(asked.model, service)
    sent = _sent(call, {"response_1": asked.response_1, "response_2": asked.response_2})
    _spend(budget, asked, 1, "votes")
    ((images, (question, first, second)),) = await service.open([sent], budget)
    pair = PairToJudge(question, images, first, second, asked.criteria)
    verdict = await service.compare(pair, _sampling(asked), budget)
    return schemas.compare_response(verdict, service.batcher.model.engine.dialect)


async def rank(service: Service, call: Call[schemas.RankRequest, None]) -> schemas.RankResponse:
    """Order responses from best to worst, with scores."""
    asked, budget = call.body, call.budget
    require_model(asked.model, service)
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


def reward(
    service: Service, call: Call[schemas.RewardRequest, None]
) -> Awaitable[schemas.RewardResponse | schemas.GroupRewardResponse]:
    """Give each response a reward, measured against the others; with ``group``, also against other requests'."""
    require_model(call.body.model, service)
    # Not a coroutine, which would keep the body in memory while the request waits.
    return _reward(service, call) if call.body.group is None else _group_reward(service, call, call.body.group)


async def _reward(service: Service, call: Call[schemas.RewardRequest, None]) -> schemas.RewardResponse:
    """Judge the responses of one request."""
    asked, budget = call.body, call.budget
    for field in ("group_size", "samples"):
        if getattr(asked, field) is not None:
            raise Refusal(422, "needs group, the id of the group that these responses belong to", field)
    sent = _sent(call, _responses(budget, asked.responses))
    _spend(budget, asked, pairs_of(list(sent.contents.values())[1:], asked.schedule, asked.comparisons), "responses")
    ((images, (question, *responses)),) = await service.open([sent], budget)
    options = {**_options(asked), "criteria": asked.criteria}
    rewards = await service.in_rounds(budget, lambda model: model.rewards(question, images, responses, **options))
    return schemas.reward_response(rewards)


async def _group_reward(
    service: Service, call: Call[schemas.RewardRequest, None], group: str
) -> schemas.GroupRewardResponse:
    """Give each response a reward, measured against those of its group, which other requests send."""
    size, gone = _group_size(call), call.gone
    prompt, samples = await _arrived(service, call)
    del call  # frees the body: the request may wait for a long time
    waiting = service.cohorts.rewards(group, size, prompt, samples, gone=gone)
    del prompt
    return schemas.group_reward_response(await waiting)


def _group_size(call: Call[schemas.RewardRequest, None]) -> int:
    """Return how many responses the group has.

    Raises:
        Refusal: the request is inconsistent or too large.
    """
    asked, count = call.body, len(call.body.responses)
    size, samples = asked.group_size, asked.samples
    if size is None:
        raise Refusal(422, "is missing: send how many responses the group has, over all its requests", "group_size")
    if count > size:
        raise Refusal(422, f"has {count} responses, but the group_size is {size}", "responses")
    if samples is not None and len(samples) != count:
        raise Refusal(422, f"has {len(samples)} ids for {count} responses; send one id per response", "samples")
    if samples is not None and len(set(samples)) < count:
        raise Refusal(422, "has the same id for two responses; the ids must differ", "samples")
    call.budget.responses(size, "group_size")
    _spend(call.budget, asked, count_comparisons(asked.schedule, size, asked.comparisons), "group_size")
    return size


async def _arrived(service: Service, call: Call[schemas.RewardRequest, None]) -> tuple[Prompt, list[Sample]]:
    """Return a request's share of a group with its pictures open, except those in responses that are too long."""
    asked = call.body
    fields = {f"responses[{number}]": response for number, response in enumerate(asked.responses)}
    long = {field: call.budget.too_long(_text(response)) for field, response in fields.items()}
    sent = _sent(call, fields, [field for field, why in long.items() if why])
    ((images, (question, *responses)),) = await service.open([sent], call.budget)
    ids: Sequence[str | None] = asked.samples or [None] * len(responses)
    samples = [Sample.of(*one) for one in zip(ids, responses, long.values(), strict=True)]
    return Prompt(question, images, _options(asked), asked.criteria), samples


def _responses(budget: Budget, responses: list[schemas.PartsOrText]) -> dict[str, schemas.PartsOrText]:
    budget.responses(len(responses), "responses")
    return {f"responses[{number}]": response for number, response in enumerate(responses)}


def _sent(call: Call[Any, None], responses: dict[str, schemas.PartsOrText], long: Collection[str] = ()) -> Unopened:
    """Return the question and then the responses, of the ``long`` ones only the text: they are not judged.

    All other texts and pictures count against the budget.
    """
    asked = call.body
    sent = {"question": asked.question, **responses}
    for field, content in sent.items():
        if field not in long:
            call.budget.text(_text(content), field)
    if asked.criteria is not None:
        call.budget.text(asked.criteria, "criteria")
    contents, images = named_contents(sent, [*asked.images, *call.uploads])
    return Unopened(contents | {field: _text(sent[field]) for field in long}, images)


def _text(content: schemas.PartsOrText) -> str:
    """Return the text of a content as the judge's limit counts it: with the line breaks between adjacent texts."""
    if isinstance(content, str):
        return content
    pieces = read_parts([part.text if isinstance(part, schemas.TextPart) else Place("image") for part in content])
    return "".join(piece for piece in pieces if isinstance(piece, str))


def _spend(budget: Budget, asked: schemas.Question, pairs: int, field: str) -> None:
    budget.judgments(pairs, votes=asked.votes, both_orders=asked.both_orders, field=field)


def _sampling(asked: schemas.Question) -> Sampling:
    return Sampling(asked.votes, asked.both_orders, None, asked.stop)


def _options(asked: schemas.RewardRequest) -> dict[str, Any]:
    return _sampling(asked)._asdict() | asked.model_dump(include=set(schemas.Grouping.model_fields))

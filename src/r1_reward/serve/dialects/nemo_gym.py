"""NeMo Gym: the routes of a resources server that compares rollouts (``genrm_compare``).

``POST /compare`` carries all responses to a prompt. ``POST /verify`` carries one rollout; a group is judged together
(:mod:`r1_reward.serve.cohorts`) once ``--group-size`` of its rollouts have arrived::

    {"responses_create_params": {"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:..."}, {"type": "input_text", "text": "Which digit?"}]}]},
     "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "A three."}]}]},
     "_ng_group_id": "step 7, prompt 3", "_ng_group_attempt": 0, "_ng_rollout_index": 5}

    {"responses_create_params": ..., "response": ..., "reward": 0.4, "mask_sample": false, ...}

Rewards are win rates in [-1, 1]. A response that is too long, or without a readable comparison, gets -1. If the judge
fails, all rollouts of the group get ``mask_sample`` true. ``principle`` is the criteria.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import count
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from r1_reward.judge.comparisons import Comparison
from r1_reward.judge.groups import Group, ScoredGroup
from r1_reward.judge.schedules import count_comparisons
from r1_reward.records.content import Content, ContentError, map_media, text_of
from r1_reward.records.texts import is_blank
from r1_reward.serve.budget import Budget
from r1_reward.serve.chats import PromptError, Turn, read_turn
from r1_reward.serve.cohorts import JudgingFailed, Prompt, Sample
from r1_reward.serve.dialects.openai import linked
from r1_reward.serve.errors import Refusal
from r1_reward.serve.grouping import GroupOptions, group_options, score_each
from r1_reward.serve.judge_client import or_empty
from r1_reward.serve.outcomes import WORST, filled
from r1_reward.serve.routes import Call, ErrorForm, Route
from r1_reward.serve.service import Service, Unopened, pairs_of
from r1_reward.serve.settings import ServerSettings
from r1_reward.serve.templates import ask

_INPUT, _OUTPUT = "responses_create_params.input", "response"
_TEXTS = ("input_text", "output_text", "text")


class GymCompareRequest(BaseModel):
    """Responses to one prompt; other keys are ignored."""

    model_config = ConfigDict(strict=True)

    conversation_history: list[dict[str, Any]] = Field(
        min_length=1, description="Messages with role and content: text, or parts as in the Responses API."
    )
    response_objs: list[dict[str, Any]] = Field(min_length=2, description="Response objects of the Responses API.")
    principle: str | None = Field(default=None, description="The criteria to judge the responses by.")


class GymCompareResponse(BaseModel):
    """A reward for each response, and all comparisons."""

    rewards: list[float]
    comparison_results: list[dict[str, float | int | None]] = Field(
        description="Indices start at 0; scores and ranking map the probability to NeMo Gym's scales, 1-5 and 1-6."
    )
    metrics: dict[str, float]


class VerifyRequest(BaseModel):
    """One rollout of a group; all other keys are returned if the judge fails."""

    model_config = ConfigDict(strict=True, extra="allow", validate_by_name=True, validate_by_alias=True)

    responses_create_params: dict[str, Any]
    response: dict[str, Any]
    principle: str | None = None
    prompt_id: str | None = None
    group_id: str | None = Field(default=None, alias="_ng_group_id")
    group_attempt: int = Field(default=0, ge=0, alias="_ng_group_attempt")
    task_index: int | None = Field(default=None, alias="_ng_task_index")
    rollout_index: int | None = Field(default=None, ge=0, alias="_ng_rollout_index")


class VerifyResponse(BaseModel):
    """The rollout with its reward."""

    model_config = ConfigDict(extra="allow", validate_by_name=True, validate_by_alias=True)

    responses_create_params: dict[str, Any]
    response: dict[str, Any]
    reward: float
    mask_sample: bool = Field(default=False, description="Whether to ignore the reward because the judge failed.")
    failure_kind: str | None = None
    failure_reason: str | None = Field(default=None, description="Why the judge gave no reward.")
    group_id: str | None = Field(default=None, alias="_ng_group_id")
    group_attempt: int = Field(default=0, alias="_ng_group_attempt")
    rollout_index: int | None = Field(default=None, alias="_ng_rollout_index")


class Detail(BaseModel):
    """An error, in the form of NeMo Gym's servers."""

    detail: str


_COMES_BACK = set(VerifyRequest.model_fields) & set(VerifyResponse.model_fields)


def _detail(refusal: Refusal) -> dict[str, str]:
    return {"detail": ": ".join(filter(None, [refusal.field, refusal.message]))}


_FORM = ErrorForm(model=Detail, body=_detail, statuses={502: 503})  # its servers' status for a failed judge
_GROUPED = replace(
    _FORM, more={409: "The request does not fit its group, or the rollout arrived before with another response."}
)


class VerifyOptions(GroupOptions):
    """The options, and the number of rollouts per prompt."""

    group_size: int | None = Field(default=None, ge=2)


def routes(settings: ServerSettings) -> tuple[Route, ...]:
    """Return the routes of a comparing resources server."""
    compared = group_options(settings)
    verified = create_model("VerifyOptions", __base__=(VerifyOptions, compared))
    return (
        Route("/compare", GymCompareRequest, GymCompareResponse, compare, options=compared, errors=_FORM),
        Route("/verify", VerifyRequest, VerifyResponse, verify, options=verified, errors=_GROUPED, patient=True),
    )


# All responses at once.


async def compare(service: Service, call: Call[GymCompareRequest, GroupOptions]) -> GymCompareResponse:
    """Give each of NeMo Gym's responses a reward, measured against the others."""
    asked, options, budget = call.body, call.options, call.budget
    texts = [_said(one, f"response_objs[{number}]") for number, one in enumerate(asked.response_objs)]
    budget.responses(len(texts), "response_objs")
    places = [place for place, text in enumerate(texts) if budget.too_long(text) is None]
    shown = [texts[place] for place in places]
    pairs = pairs_of(shown, options.schedule, options.comparisons) if shown else 0
    budget.judgments(pairs, votes=options.votes, both_orders=options.both_orders, field="response_objs")
    turns = _turns(asked.conversation_history, "conversation_history")
    prompt = await _opened(service, budget, turns, "conversation_history", asked.principle, options)
    group = Group(prompt.question, prompt.images, shown, asked.principle)
    groups = [group] if shown else []
    scored = await service.in_rounds(budget, lambda model: score_each(model, groups, options.model_dump()))
    rewards: list[float | None] = [None] * len(texts)
    for place, reward in zip(places, scored[0].rewards if scored else [], strict=True):
        rewards[place] = reward
    played = [one._replace(first=places[one.first], second=places[one.second]) for one in _comparisons(scored)]
    return GymCompareResponse(
        rewards=filled(rewards), comparison_results=[_result(one) for one in played], metrics=_metrics(played, rewards)
    )


def _comparisons(scored: list[ScoredGroup]) -> list[Comparison]:
    return [comparison for one in scored for comparison in one.comparisons]


def _result(one: Comparison) -> dict[str, float | int | None]:
    """Return a comparison in NeMo Gym's form: scores from 1 to 5, and a ranking from 1 (first is better) to 6."""
    p = one.probability
    scores: dict[str, float | None] = {"score_1": None, "score_2": None, "ranking": None}
    if p is not None:
        scores = {"score_1": 1 + 4 * p, "score_2": 5 - 4 * p, "ranking": 6 - 5 * p}
    return {"response_i": one.first, "response_j": one.second, "judge_idx": 0, "probability": p, **scores}


def _metrics(played: list[Comparison], rewards: list[float | None]) -> dict[str, float]:
    unreadable = sum(one.probability is None for one in played)
    return {
        "comparisons": float(len(played)),
        "unreadable_rate": unreadable / len(played) if played else 0.0,
        "unscored_rate": sum(reward is None for reward in rewards) / len(rewards),
    }


# One rollout of a group.


async def verify(service: Service, call: Call[VerifyRequest, VerifyOptions]) -> VerifyResponse:
    """Give one of NeMo Gym's rollouts a reward, measured against the rest of its group in other requests."""
    asked, options, budget, gone = call.body, call.options, call.budget, call.gone
    size = _group_size(asked, options, service.settings)
    budget.responses(size, "group_size")
    pairs = count_comparisons(options.schedule, size, options.comparisons)
    budget.judgments(pairs, votes=options.votes, both_orders=options.both_orders, field="group_size")
    text = _said(asked.response, _OUTPUT)
    turns = _asked(asked.responses_create_params)
    prompt = await _opened(service, budget, turns, _INPUT, asked.principle, options)
    sample = Sample.of(str(asked.rollout_index), text, budget.too_long(text))
    try:
        waiting = service.cohorts.rewards(
            _group(asked),
            size,
            prompt,
            [sample],
            gone=gone,
            attempt=asked.group_attempt,
            replay=asked.group_id is not None,
        )
        del prompt, turns  # a waiting request must not hold pictures
        ((reward, why),) = await waiting
    except JudgingFailed as error:
        return VerifyResponse.model_validate(asked.model_dump(by_alias=True) | _masked(asked, error.message))
    failure = {} if reward is not None else {"failure_kind": "r1_reward:unscored", "failure_reason": why}
    own = asked.model_dump(by_alias=True, include=_COMES_BACK)  # other keys might pass for our answer
    return VerifyResponse.model_validate({**own, "reward": WORST if reward is None else reward, **failure})


def _group_size(asked: VerifyRequest, options: VerifyOptions, settings: ServerSettings) -> int:
    """Return how many rollouts the group has.

    Raises:
        Refusal: the size is unknown, or the rollout's index does not fit it.
    """
    size = options.group_size or settings.group_size
    if size is None:
        advice = "start it with --group-size, NeMo Gym's num_rollouts_per_prompt"
        raise Refusal(422, f"this server does not know how many rollouts a prompt has; {advice}", "group_size")
    if options.kind != "win_rate":
        raise Refusal(422, "must be win_rate for rewards of single rollouts", "kind")
    if asked.rollout_index is None:
        raise Refusal(422, "is missing; without it, a rollout that is sent again counts twice", "_ng_rollout_index")
    if asked.rollout_index >= size:
        reason = f"is {asked.rollout_index}, but must be less than the group's size, {size}"
        raise Refusal(422, reason, "_ng_rollout_index")
    return size


def _group(asked: VerifyRequest) -> str:
    """Return the id of a rollout's group: the caller's, or else its task and prompt."""
    if asked.group_id is not None:
        return f"NeMo Gym group {asked.group_id}"
    shown = json.dumps([asked.responses_create_params, asked.principle], sort_keys=True)
    task = asked.prompt_id if asked.task_index is None else asked.task_index
    return f"NeMo Gym task {task}, prompt {hashlib.sha256(shown.encode()).hexdigest()}"


def _masked(asked: VerifyRequest, why: str) -> dict[str, Any]:
    """Return the keys that NeMo Gym's own servers set if the judge failed on a rollout."""
    extra = asked.model_extra or {}
    config = extra["instance_config"] if isinstance(extra.get("instance_config"), dict) else {}
    return {
        "reward": 0.0,
        "mask_sample": True,
        "failure_kind": "judge_failed",
        "failure_reason": why,
        "instance_config": {**config, "mask_sample": True},
        "_ng_failure_class": "judge_failed",
        "_ng_failure_judge_error": why,
    }


# The prompt, and the response.


async def _opened(
    service: Service, budget: Budget, turns: list[Turn], field: str, principle: str | None, options: GroupOptions
) -> Prompt:
    """Return the question in the turns with its pictures open, counted against the budget."""
    try:
        question, images = ask(turns)
    except PromptError as error:
        raise Refusal(422, str(error), field) from error
    budget.text(text_of(question), field)
    if principle is not None:
        if is_blank(principle):
            raise Refusal(422, "is blank", "principle")
        budget.text(principle, "principle")
    number = count(len(images))  # pictures at their places are numbered after those in front
    named = map_media(question, lambda place: linked(place.source, f"{field}[{next(number)}]"))
    in_front = [linked(image, f"{field}[{place}]").source for place, image in enumerate(images)]
    ((opened, (shown,)),) = await service.open([Unopened({field: named}, in_front, field)], budget)
    return Prompt(shown, opened, options.model_dump(exclude={"group_size"}), principle)


def _asked(params: dict[str, Any]) -> list[Turn]:
    """Return the turns of a request to the Responses API."""
    items, instructions = params.get("input"), params.get("instructions")
    turns = _turns([{"role": "user", "content": items}] if isinstance(items, str) else items, _INPUT)
    return [Turn("system", [instructions]), *turns] if isinstance(instructions, str) else turns


def _turns(items: Any, field: str) -> list[Turn]:
    """Return the turns in items of the Responses API, without reasoning."""
    if not isinstance(items, list) or not items:
        raise Refusal(422, "must be text or a list of messages", field)
    turns: list[Turn] = []
    for number, item in enumerate(items):
        place = f"{field}[{number}]"
        kind = item.get("type", "message") if isinstance(item, dict) else None
        try:
            if kind == "message":
                turns.append(read_turn(str(item.get("role", "user")), _content(item.get("content"), place)))
            elif kind == "function_call":
                turns.append(Turn("assistant", [f"{item.get('name')}({item.get('arguments')})"]))
            elif kind == "function_call_output":
                turns.append(read_turn("tool", _content(item.get("output"), place)))
            elif kind != "reasoning":
                reason = f"has type {kind}; only messages, function calls, their outputs and reasoning are supported"
                raise Refusal(422, reason, place)
        except (PromptError, ContentError) as error:
            raise Refusal(422, str(error), place) from error
    return turns


def _content(content: Any, field: str) -> Content | None:
    """Return the content of a message with its parts in the common form."""
    return [_part(part, field) for part in content] if isinstance(content, list) else content


def _part(part: Any, field: str) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    if kind == "image_url":
        return part
    if kind != "input_image":
        raise Refusal(422, f"has a part of type {kind}; parts must be input_text or input_image", field)
    if not isinstance(part.get("image_url"), str):
        raise Refusal(422, "has an input_image without image_url; a file_id is not supported", field)
    return {"type": "image", "image": part["image_url"]}


def _said(response: dict[str, Any], field: str) -> str:
    """Return the text of a response without its reasoning, or "(empty response)" if it is blank."""
    output = response.get("output")
    if not isinstance(output, list):
        raise Refusal(422, "has no output list; send a response object of the Responses API", field)
    messages = [item for item in output if isinstance(item, dict) and item.get("type") == "message"]
    contents = [item["content"] for item in messages if isinstance(item.get("content"), list)]
    parts = [part for content in contents for part in content if isinstance(part, dict)]
    texts = [part.get("refusal" if part.get("type") == "refusal" else "text") for part in parts]
    text = "".join(text for text in texts if isinstance(text, str))
    return or_empty(text)

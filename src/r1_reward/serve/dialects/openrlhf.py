"""A remote reward model for OpenRLHF and its forks (``--reward.remote_url``).

A request is ``{"query": [...], "prompts": [...], "labels": [...]}``: every query is a prompt and its response in one
text, decoded with all special tokens, and the trainer expects ``{"rewards": [...]}``. A pairwise judge cannot score a
single response, so the responses to one prompt are judged against each other::

    [Asked(question="Which digit?", images=[], responses=["A three.", "An eight."], places=[0, 1])]

The judge is shown an empty response as "(empty response)".

A prompt is plain text, text in a chat template, or chat messages as JSON, which may contain pictures (LMM-R1 and other
multimodal forks). In a chat, the last user message is the question, preceded by a transcript of the earlier turns.
OpenRLHF does not send pictures, but the row's label may name them (:mod:`r1_reward.serve.labels`). A prompt with places
for pictures that were not sent is refused. With pictures, prefer :mod:`r1_reward.serve.dialects.openrlhf_agent`, which
sends the pictures the policy saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from r1_reward.judge.groups import Group
from r1_reward.judge.schedules import count_comparisons
from r1_reward.records.content import Content, map_media, text_of
from r1_reward.serve.chats import PromptError, WrongPictures
from r1_reward.serve.cohorts import Prompt as Cohort
from r1_reward.serve.cohorts import Sample
from r1_reward.serve.errors import Refusal
from r1_reward.serve.grouping import GroupOptions, group_options, score_each
from r1_reward.serve.judge_client import Scored, or_empty
from r1_reward.serve.labels import SILENT, Label, LabelError, read_label
from r1_reward.serve.metrics import Waits
from r1_reward.serve.outcomes import as_probability
from r1_reward.serve.pictures import Named
from r1_reward.serve.routes import GROUPED, Call, Route
from r1_reward.serve.schemas import Base64Image, ImageInput, PathImage, UrlImage
from r1_reward.serve.service import Opened, Service, Unopened, pairs_of
from r1_reward.serve.settings import ServerSettings
from r1_reward.serve.templates import Prompt, ask, clean, leading, messages_in, read_turns, turn_starts

_T = TypeVar("_T")
_IMAGE: TypeAdapter[ImageInput] = TypeAdapter(ImageInput)
_WHERE = (
    "trainers do not send pictures to a URL: use OpenRLHF's --train.agent_func_path or slime's --custom-rm-path, or "
    "send them in the prompt's messages, in the label, or under the key images, a list for each query"
)


class RemoteRewardRequest(BaseModel):
    """OpenRLHF's request to a remote reward model; other keys are ignored."""

    model_config = ConfigDict(strict=True)

    query: list[str] = Field(description="Prompt and response in one text, with special tokens.")
    prompts: list[str] = Field(description="The prompt of each query: its text, or chat messages as JSON.")
    labels: list[Any] | None = Field(
        default=None,
        description="For each query, an object, or the JSON of one, with question, images, group, group_size (all "
        "optional); anything else is ignored.",
    )
    images: list[list[str] | str | None] | None = Field(
        default=None, description="The pictures of each query: base64 or URLs. Sent by forks of OpenRLHF only."
    )


class RemoteRewardResponse(BaseModel):
    """One reward per query, and values that OpenRLHF can log and filter by."""

    rewards: list[float | None]
    scores: list[float | None] = Field(description="The reward as a probability of winning, in [0, 1].")
    extra_logs: dict[str, list[float]]


def routes(settings: ServerSettings) -> tuple[Route, ...]:
    """Return the route that OpenRLHF calls."""
    options = group_options(settings)
    return (
        Route(
            "/get_reward",
            RemoteRewardRequest,
            RemoteRewardResponse,
            get_reward,
            options=options,
            errors=GROUPED,
            patient=True,
        ),
    )


# The answer.


async def get_reward(service: Service, call: Call[RemoteRewardRequest, GroupOptions]) -> RemoteRewardResponse:
    """Judge the responses to each of OpenRLHF's prompts against each other.

    If a label makes a response part of a group, it is judged with the rest of the group, which other requests send.
    """
    asked = await service.read(call.budget, partial(read_prompts, call.body))
    _refuse_groups_of_unknown_size(asked)
    rewards: list[float | None] = [None] * len(call.body.query)
    sizes = [0.0] * len(rewards)
    places = [(one.places, float(one.group_size or len(one.places))) for one in asked]
    scoring, kind = score(service, call, asked), call.options.kind
    del call, asked  # frees their pictures: the request may wait for others
    for (own, size), of_one in zip(places, await scoring, strict=True):
        for place, reward in zip(own, of_one, strict=True):
            rewards[place], sizes[place] = reward, size
    filled = [service.settings.unscored_reward if reward is None else reward for reward in rewards]
    return RemoteRewardResponse(
        rewards=filled,
        scores=[None if reward is None else as_probability(reward, kind) for reward in filled],
        extra_logs={"scored": [float(reward is not None) for reward in rewards], "responses_to_prompt": sizes},
    )


def _refuse_groups_of_unknown_size(asked: Sequence[Asked]) -> None:
    """Refuse a lone response whose label names a group without its size: others may or may not follow."""
    for one in asked:
        if one.group is not None and one.group_size is None and len(one.responses) == 1:
            reason = f"the group {one.group!r} has one response in this request; send its total size as group_size"
            raise Refusal(422, reason, f"labels[{one.places[0]}].group_size")


async def score(service: Service, call: Call[Any, GroupOptions], asked: list[Asked]) -> list[list[float | None]]:
    """Return the rewards of the responses to each prompt, None for a response that is too long.

    Raises:
        Refusal: the request exceeds its budget, a picture is invalid, or a judge or a group failed.
    """
    options, call = call.options, replace(call, body=None)
    # Check the votes even without a prompt.
    call.budget.judgments(0, votes=options.votes, both_orders=options.both_orders, field="query")
    too_long = [_spend(one, call) for one in asked]
    rewards: list[list[float | None]] = [[None] * len(one.responses) for one in asked]
    try:
        async with asyncio.TaskGroup() as tasks:  # if one fails, the others stop waiting
            opened = await service.open([one.unopened for one in asked], call.budget)
            asked = [one._replace(question="", images=[]) for one in asked]
            whole = []
            waits = Waits(service.state)
            for one, long, own in zip(asked, too_long, rewards, strict=True):
                part = opened.pop(0)  # a request that waits for a group must not hold pictures
                if one.is_part:
                    tasks.create_task(_fill(own, _in_cohort(service, call, one, long, part, waits)))
                elif not all(long):
                    whole.append((own, one, long, part))
                del part
            if whole:
                tasks.create_task(_judge(service, call, whole))
            del whole
    except* Refusal as refusals:
        raise refusals.exceptions[0] from None
    return rewards


def _in_cohort(
    service: Service,
    call: Call[Any, GroupOptions],
    one: Asked,
    long: list[str | None],
    opened: Opened,
    waits: Waits,
) -> Awaitable[list[Scored]]:
    """Return an awaitable of the rewards of part of a group; it ends when the rest has arrived and is judged."""
    samples = [Sample.of(None, response, why) for response, why in zip(one.responses, long, strict=True)]
    cohort = Cohort(opened.contents[0], opened.images, call.options.model_dump())
    name, size = one.group or "", one.group_size or 0
    return service.cohorts.rewards(name, size, cohort, samples, gone=call.gone, replay=False, waits=waits)


async def _fill(own: list[float | None], scored: Awaitable[list[Scored]]) -> None:
    own[:] = [reward for reward, _ in await scored]


async def _judge(
    service: Service,
    call: Call[Any, GroupOptions],
    whole: list[tuple[list[float | None], Asked, list[str | None], Opened]],
) -> None:
    """Judge the complete groups, without the responses that are too long."""
    groups = [Group(opened.contents[0], opened.images, _without(one.responses, long)) for _, one, long, opened in whole]
    scored = await service.in_rounds(call.budget, lambda model: score_each(model, groups, call.options.model_dump()))
    for (own, _, long, _), group in zip(whole, scored, strict=True):
        for number, reward in zip(_without(range(len(own)), long), group.rewards, strict=True):
            own[number] = reward


def _spend(asked: Asked, call: Call[Any, GroupOptions]) -> list[str | None]:
    """Count a prompt against the request's budget; return why each response cannot be shown, or None if it can."""
    budget, options = call.budget, call.options
    budget.text(text_of(asked.question), asked.field)
    size = asked.group_size if asked.is_part and asked.group_size else len(asked.responses)
    budget.responses(size, asked.field)
    too_long = [budget.too_long(response) for response in asked.responses]
    if asked.is_part:
        pairs = count_comparisons(options.schedule, size, options.comparisons)
    else:
        pairs = pairs_of(_without(asked.responses, too_long), options.schedule, options.comparisons)
    budget.judgments(pairs, votes=options.votes, both_orders=options.both_orders, field=asked.field)
    return too_long


def _without(items: Sequence[_T], too_long: Sequence[str | None]) -> list[_T]:
    return [item for item, why in zip(items, too_long, strict=True) if why is None]


# The request.


class Asked(NamedTuple):
    """The responses to one prompt, and their places in the request."""

    field: str
    """The prompt's field, named in messages."""
    question: Content
    """Text, or texts and pictures in order."""
    images: list[ImageInput]
    """Pictures in front of the question."""
    responses: list[str]
    places: list[int]
    group: str | None = None
    """The group named in the label, for samples that arrive one by one."""
    group_size: int | None = None

    @property
    def is_part(self) -> bool:
        """Whether other requests send more responses to the prompt."""
        return self.group_size is not None and len(self.responses) < self.group_size

    @property
    def unopened(self) -> Unopened:
        """The question and its pictures; messages number the pictures from the first one in front."""
        field = f"{self.field}.images"
        number = count(len(self.images))  # pictures at their places are numbered after those in front
        question = map_media(self.question, lambda place: Named(place.source, f"{field}[{next(number)}]"))
        return Unopened({field: question}, self.images, field)


def read_prompts(request: RemoteRewardRequest) -> list[Asked]:
    """Return the queries by prompt and pictures, in order of first occurrence.

    Raises:
        Refusal: the lists differ in length, a query does not begin with its prompt, a prompt's pictures were not sent,
            a label cannot be read, or two prompts have the same group.
    """
    queries = len(request.query)
    if len(request.prompts) != queries:
        raise Refusal(422, f"has {len(request.prompts)} prompts for {queries} queries; send one per query", "prompts")
    if request.images is not None and len(request.images) != queries:
        raise Refusal(422, f"has {len(request.images)} entries for {queries} queries; send one per query", "images")
    if request.labels is not None and len(request.labels) != queries:
        raise Refusal(422, f"has {len(request.labels)} labels for {queries} queries; send one per query", "labels")
    groups: dict[Any, tuple[Asked, list[dict[str, Any]] | None]] = {}
    prompt_of: dict[str, Any] = {}
    for place, (query, prompt) in enumerate(zip(request.query, request.prompts, strict=True)):
        label = _label(request, place)
        sent = request.images[place] if request.images is not None else None
        beside: list[Any] = [sent] if isinstance(sent, str) else list(sent or label.images)
        asked_for = (prompt, repr(label.question), repr(beside), label.group_size)
        if label.group is not None and prompt_of.setdefault(label.group, asked_for) != asked_for:
            reason = f"the group {label.group!r} has a different prompt, question, pictures or size in this request"
            raise Refusal(422, reason, f"labels[{place}]")
        key = (*asked_for, label.group)
        if key not in groups:
            messages, field = messages_in(prompt), f"prompts[{place}]"
            question = read_question(prompt if messages is None else messages, label, beside, field)
            groups[key] = Asked(field, *question, [], [], label.group, label.group_size), messages
        group, messages = groups[key]
        response = _response(query, prompt, messages, place)
        group.responses.append(or_empty(response))
        group.places.append(place)
    for group, _ in groups.values():
        if group.group_size is not None and len(group.responses) > group.group_size:
            reason = f"is {group.group_size}, but the group has {len(group.responses)} responses in this request"
            raise Refusal(422, reason, f"labels[{group.places[0]}].group_size")
    return [group for group, _ in groups.values()]


def _label(request: RemoteRewardRequest, place: int) -> Label:
    try:
        return read_label(request.labels[place]) if request.labels is not None else SILENT
    except LabelError as error:
        raise Refusal(422, str(error), f"labels[{place}].{error.key}") from error


def read_question(prompt: str | list[dict[str, Any]], label: Label, beside: list[Any], field: str) -> Prompt:
    """Return the question of a prompt after a transcript of earlier turns, and the pictures in front of it.

    Raises:
        Refusal: the prompt has no question, its pictures were not sent, or one is not given as text.
    """
    try:
        asked = ask(read_turns(prompt), beside, label.question)
    except PromptError as error:
        advice = f"; {_WHERE}" if isinstance(error, WrongPictures) else ""
        raise Refusal(422, f"{error}{advice}", field) from error
    return Prompt(
        map_media(asked.question, lambda place: _image(place.source, field)),
        [_image(picture, field) for picture in asked.images],
    )


def _image(picture: Any, field: str) -> ImageInput:
    """Return a picture in the form of the server's own routes; raises Refusal if its source is missing."""
    if isinstance(picture, dict):
        with suppress(ValidationError):
            return _IMAGE.validate_python(picture)
    if not isinstance(picture, str):
        raise Refusal(422, "has an image part without a picture; give it as text: a URL, a path or base64", field)
    return _named_image(picture)


def _named_image(named: str) -> ImageInput:
    """Distinguish URLs, paths (starting with ``file://``, / or ., or ending with a file extension) and base64."""
    if named[:5].lower() in ("http:", "https", "data:"):
        return UrlImage(url=named)
    if named.startswith("file://"):
        return PathImage(path=named.removeprefix("file://"))
    # Base64 has no dots, and only the base64 of a JPEG begins with a slash.
    if named.startswith((".", "/")) and not named.startswith("/9j/") or "." in named[-6:]:
        return PathImage(path=named)
    return Base64Image(base64=named)


def _response(query: str, prompt: str, messages: list[dict[str, Any]] | None, place: int) -> str:
    """Return the text of a query after its prompt, without surrounding special tokens."""
    bare, begin = query[leading(query) :], prompt[leading(prompt) :]
    if query.startswith(prompt):
        return clean(query[len(prompt) :])
    if begin and bare.startswith(begin):  # the tokenizer put its first token before the query, not before the prompt
        return clean(bare[len(begin) :])
    end = _end_of_prompt(query, prompt, messages)
    if end is None:
        reason = "does not begin with its prompt, so the response cannot be located"
        raise Refusal(422, reason, f"query[{place}]")
    return clean(query[end:])


def _end_of_prompt(query: str, prompt: str, messages: list[dict[str, Any]] | None) -> int | None:
    """Return where the response begins in a query whose prompt was sent in a different form.

    Messages are sent as JSON, and pictures are many tokens in the query, so assistant turns are counted instead: the
    response follows as many as the prompt has. They are counted from the front, so that a response cannot move its
    start by writing another turn.
    """
    if messages is not None:
        spoken = sum(message["role"] == "assistant" for message in messages)
    else:
        spoken = sum(turn.role == "assistant" for turn in turn_starts(prompt)) - 1
    starts = [turn.start for turn in turn_starts(query) if turn.role == "assistant"]
    return starts[spoken] if 0 <= spoken < len(starts) else None

"""OpenRLHF and its forks: what they send to a remote reward model (``--remote_rm_url``), and what they get.

A request is ``{"query": [...], "prompts": [...], "labels": [...]}``: every query is a prompt and its response in one
text, decoded with all special tokens, and the trainer wants ``{"rewards": [...]}`` back. A pairwise judge has no reward
for a response alone, so the responses to one prompt are judged against each other::

    [Asked(question="Which digit?", images=[], responses=["A three.", "An eight."], places=[0, 1])]

An empty response is shown to the judge as "(empty response)".

A prompt is plain text, text in a chat template, or chat messages as JSON, which may hold pictures (LMM-R1 and other
multimodal forks). Of a chat the last user message is the question; earlier turns are put before it as a transcript.
Where a prompt has places for pictures that did not come, as always from OpenRLHF itself, the request is refused.
"""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from r1_reward.judge.groups import Group
from r1_reward.records.content import Content, Piece, map_media, places_of, read_parts, text_of
from r1_reward.records.placeholders import find_placeholders
from r1_reward.records.texts import is_blank
from r1_reward.serve.chats import PromptError, Turn, WrongPictures, in_front, joined, read_turn, said, show, sources_of
from r1_reward.serve.errors import Refusal
from r1_reward.serve.grouping import GroupOptions, as_probability, group_options, score_each
from r1_reward.serve.pictures import Named
from r1_reward.serve.routes import Call, Route
from r1_reward.serve.schemas import Base64Image, ImageInput, PathImage, UrlImage
from r1_reward.serve.service import Service, Unopened, pairs_of
from r1_reward.serve.settings import ServerSettings

# Start of a turn with its role, in ChatML (Qwen, InternVL) and Llama 3's template.
_TURN = re.compile(r"<\|im_start\|>(\w+)\n|<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n")
_TURN_END = re.compile(r"<\|(?:im_end|eot_id)\|>")
_TOKEN = r"(?:<[|｜][^\s<>|｜]{1,64}[|｜]>|</?s>|<pad>|<bos>|<eos>)"
_LEADING, _LAST = re.compile(rf"(?:\s|{_TOKEN})*"), re.compile(rf"{_TOKEN}\Z")
_LONGEST_TOKEN = 66
_NO_RESPONSE = "(empty response)"
_WHERE = (
    "OpenRLHF sends none: they must come with the request, in the messages of the prompt or, a list for each query, "
    "under the key images"
)


class RemoteRewardRequest(BaseModel):
    """What OpenRLHF sends to a remote reward model; more keys than these are ignored."""

    model_config = ConfigDict(strict=True)

    query: list[str] = Field(min_length=1, description="Prompt and response, one text each, special tokens included.")
    prompts: list[str] = Field(
        min_length=1, description="The prompt of each query: its text, or chat messages as JSON."
    )
    images: list[list[str] | str | None] | None = Field(
        default=None, description="The pictures of each query: base64 or URLs. Not sent by OpenRLHF, by forks of it."
    )


class RemoteRewardResponse(BaseModel):
    """One reward for each query, and what OpenRLHF may log and filter by."""

    rewards: list[float | None]
    scores: list[float | None] = Field(description="The reward as a probability of winning, in [0, 1].")
    extra_logs: dict[str, list[float]]


def routes(settings: ServerSettings) -> tuple[Route, ...]:
    """Return the route OpenRLHF asks."""
    options = group_options(settings)
    return (Route("/get_reward", RemoteRewardRequest, RemoteRewardResponse, get_reward, options=options),)


# The answer.


async def get_reward(service: Service, call: Call[RemoteRewardRequest, GroupOptions]) -> RemoteRewardResponse:
    """Answer OpenRLHF: the responses to each prompt are judged against each other."""
    asked = await service.read(call.budget, lambda: read_prompts(call.body))
    shown = [_spend(one, call, service.settings.max_chars) for one in asked]
    opened = await service.open([one.unopened for one in asked], call.budget)
    rewards: list[float | None] = [None] * len(call.body.query)
    sizes = [0.0] * len(rewards)
    groups, places = [], []
    for one, numbers, (images, (question,)) in zip(asked, shown, opened, strict=True):
        for place in one.places:
            sizes[place] = float(len(one.places))
        if numbers:
            groups.append(Group(question, images, [one.responses[number] for number in numbers]))
            places.append([one.places[number] for number in numbers])
    scored = await service.in_rounds(call.budget, lambda model: score_each(model, groups, call.options))
    for own, of_group in zip(places, scored, strict=True):
        for place, reward in zip(own, of_group.rewards, strict=True):
            rewards[place] = reward
    filled = [service.settings.unscored_reward if reward is None else reward for reward in rewards]
    return RemoteRewardResponse(
        rewards=filled,
        scores=[None if reward is None else as_probability(reward, call.options.kind) for reward in filled],
        extra_logs={"scored": [float(reward is not None) for reward in rewards], "responses_to_prompt": sizes},
    )


def _spend(asked: Asked, call: Call[RemoteRewardRequest, GroupOptions], max_chars: int) -> list[int]:
    """Draw a prompt from the request's budget; return the responses that can be shown: one too long has no reward."""
    budget, options = call.budget, call.options
    budget.text(text_of(asked.question), asked.field)
    budget.responses(len(asked.responses), asked.field)
    shown = [number for number, response in enumerate(asked.responses) if len(response) <= max_chars]
    pairs = pairs_of([asked.responses[number] for number in shown], options.schedule, options.comparisons)
    budget.judgments(pairs, votes=options.votes, both_orders=options.both_orders, field=asked.field)
    return shown


# The request.


class Asked(NamedTuple):
    """The responses to one prompt, and where they stand in the request."""

    question: Content
    """Text, or texts and pictures in their order."""
    images: list[ImageInput]
    """In front of it."""
    responses: list[str]
    places: list[int]

    @property
    def field(self) -> str:
        """What messages call the prompt."""
        return f"prompts[{self.places[0]}]"

    @property
    def unopened(self) -> Unopened:
        """The question and its pictures, which messages count from the first in front of it."""
        field = f"{self.field}.images"
        number = count(len(self.images))  # those at their places come behind those in front
        question = map_media(self.question, lambda place: Named(place.source, f"{field}[{next(number)}]"))
        return Unopened({field: question}, self.images, field)


def read_prompts(request: RemoteRewardRequest) -> list[Asked]:
    """Return the queries by prompt and pictures, in order of first occurrence.

    Raises:
        Refusal: the lists differ in length, a query does not hold its prompt, or a prompt's pictures did not come.
    """
    queries = len(request.query)
    if len(request.prompts) != queries:
        raise Refusal(422, f"{len(request.prompts)} prompts for {queries} queries", "prompts")
    if request.images is not None and len(request.images) != queries:
        raise Refusal(422, f"pictures for {len(request.images)} of {queries} queries", "images")
    groups: dict[Any, tuple[Asked, list[dict[str, Any]] | None]] = {}
    for place, (query, prompt) in enumerate(zip(request.query, request.prompts, strict=True)):
        sent = request.images[place] if request.images is not None else None
        sent = [sent] if isinstance(sent, str) else sent or []
        key = (prompt, *sent)
        if key not in groups:
            messages = _messages(prompt)
            groups[key] = Asked(*_question(prompt, messages, sent, place), [], []), messages
        group, messages = groups[key]
        response = _response(query, prompt, messages, place)
        group.responses.append(_NO_RESPONSE if is_blank(response) else response)
        group.places.append(place)
    return [group for group, _ in groups.values()]


def _messages(prompt: str) -> list[dict[str, Any]] | None:
    """Return the chat a prompt holds as JSON, None if it is text."""
    if not prompt.lstrip().startswith("["):
        return None
    try:
        messages = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    is_chat = isinstance(messages, list) and messages
    if not is_chat or not all(isinstance(one, dict) and "role" in one and "content" in one for one in messages):
        return None
    return messages


def _question(
    prompt: str, messages: list[dict[str, Any]] | None, sent: list[str], place: int
) -> tuple[Content, list[ImageInput]]:
    """Return the question of a prompt, with the transcript before it, and the pictures in front of it."""
    field = f"prompts[{place}]"
    try:
        if messages is None:
            asked = _template_turns(prompt)
        else:
            asked = [read_turn(str(message["role"]), message["content"]) for message in messages]
        shown = show(asked, sent)
    except PromptError as error:
        advice = f"; {_WHERE}" if isinstance(error, WrongPictures) else ""
        raise Refusal(422, f"{error}{advice}", field) from error
    if not all(isinstance(picture, str) for picture in shown.everything):
        raise Refusal(422, "has an image part that does not name its picture as text: a URL, a path or base64", field)
    turns = [(turn.role, content) for turn, content in zip(asked, shown.contents, strict=True)]
    last = max((i for i, (role, content) in enumerate(turns) if role == "user" and said(content)), default=None)
    if last is None:
        raise Refusal(422, "holds no question: no text of a user", field)
    if in_front(turns):
        turns = [(role, said(content)) for role, content in turns]
        return _transcript(turns[: last + 1]), [_named_image(picture) for picture in shown.everything]
    behind = sources_of(*(content for _, content in turns[last + 1 :]))
    question = map_media(_transcript(turns[: last + 1]), lambda place: _named_image(place.source))
    return question, [_named_image(picture) for picture in [*behind, *shown.pictures]]


def _transcript(turns: list[tuple[str, Content]]) -> Content:
    """Return the last turn as it is, behind those before it with their roles; a turn that shows nothing is left out."""
    pieces: list[Piece] = []
    for role, content in turns[:-1]:
        if said(content) or places_of(content):
            pieces += [f"{role}: ", *read_parts(joined(read_parts(content))), "\n\n"]
    return joined([*pieces, *read_parts(joined(read_parts(turns[-1][1])))])


def _template_turns(prompt: str) -> list[Turn]:
    """Return the turns of a text in a known chat template; any other text is one turn of the user's."""
    starts = list(_TURN.finditer(prompt))
    if not starts:
        return [Turn("user", [_without_ends(prompt)])]
    ends = [*(start.start() for start in starts[1:]), len(prompt)]
    return [
        Turn(start[1] or start[2], [_TURN_END.split(prompt[start.end() : end], maxsplit=1)[0]])
        for start, end in zip(starts, ends, strict=True)
    ]


def _without_ends(prompt: str) -> str:
    """Return a prompt without white space and special tokens at its ends, but with those of pictures."""
    places = find_placeholders(prompt)
    if not places:
        return _clean(prompt)
    first, last = places[0].start, places[-1].end
    return prompt[min(_leading(prompt), first) : last] + _clean("." + prompt[last:])[1:]


def _named_image(named: str) -> ImageInput:
    """Tell apart URLs, paths (``file://``, beginning with / or ., or ending like a file's name) and base64."""
    if named[:5].lower() in ("http:", "https", "data:"):
        return UrlImage(url=named)
    if named.startswith("file://"):
        return PathImage(path=named.removeprefix("file://"))
    # Base64 has no dots, and only that of a JPEG begins with a slash.
    if named.startswith((".", "/")) and not named.startswith("/9j/") or "." in named[-6:]:
        return PathImage(path=named)
    return Base64Image(base64=named)


def _response(query: str, prompt: str, messages: list[dict[str, Any]] | None, place: int) -> str:
    """Return what a query says behind its prompt, without special tokens around it."""
    bare, begin = query[_leading(query) :], prompt[_leading(prompt) :]
    if query.startswith(prompt):
        return _clean(query[len(prompt) :])
    if begin and bare.startswith(begin):  # the tokenizer put its first token before the query, not before the prompt
        return _clean(bare[len(begin) :])
    end = _end_of_prompt(query, prompt, messages)
    if end is None:
        reason = "does not begin with its prompt, so nobody can tell where the response begins"
        raise Refusal(422, reason, f"query[{place}]")
    return _clean(query[end:])


def _end_of_prompt(query: str, prompt: str, messages: list[dict[str, Any]] | None) -> int | None:
    """Return where the response begins in a query whose prompt was sent in another form than it holds.

    Messages come as JSON, and pictures are many tokens in the query: what can be counted are the assistant's turns.
    The one behind as many as the prompt has is the response; counted from the front, so that a response cannot begin
    later by writing a turn of its own.
    """
    if messages is not None:
        spoken = sum(message["role"] == "assistant" for message in messages)
    else:
        spoken = sum("assistant" in turn.groups() for turn in _TURN.finditer(prompt)) - 1
    starts = [turn.end() for turn in _TURN.finditer(query) if "assistant" in turn.groups()]
    return starts[spoken] if 0 <= spoken < len(starts) else None


def _leading(text: str) -> int:
    """Return how many characters of white space and special tokens a text begins with."""
    match = _LEADING.match(text)
    return match.end() if match else 0


def _clean(text: str) -> str:
    """Return a text without white space and special tokens at its ends, in time linear in its length."""
    start, end = _leading(text), len(text)
    while end > start:
        if text[end - 1].isspace():
            end -= 1
        elif last := _LAST.search(text, max(start, end - _LONGEST_TOKEN), end):
            end = last.start()
        else:
            break
    return text[start:end]

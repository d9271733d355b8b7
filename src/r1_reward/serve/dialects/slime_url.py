"""slime's remote reward model (``--rm-type remote_rm --rm-url http://judge:8000/remote_rm``).

slime posts ``{"prompt", "response", "label"}`` for one sample at a time and expects the reward as JSON. A pairwise
judge cannot score a single sample, so the row's label must say which samples belong together
(:mod:`r1_reward.serve.labels`)::

    {"group": "row-7", "group_size": 8, "images": ["data/7.png"]}

The request then waits for its siblings; without a group it is refused. A repeated request cannot be distinguished from
another sample, and slime sends no pictures here: prefer :mod:`r1_reward.serve.dialects.slime`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from r1_reward.serve.dialects.openrlhf import Asked, read_question, score
from r1_reward.serve.errors import Refusal
from r1_reward.serve.grouping import GroupOptions, group_options
from r1_reward.serve.judge_client import or_empty
from r1_reward.serve.labels import LabelError, read_label
from r1_reward.serve.outcomes import worst_of
from r1_reward.serve.routes import GROUPED, Call, Route
from r1_reward.serve.service import Service
from r1_reward.serve.settings import ServerSettings
from r1_reward.serve.templates import clean, messages_in


class RemoteRmRequest(BaseModel):
    """One sample; other keys are ignored."""

    model_config = ConfigDict(strict=True)

    prompt: str | list[dict[str, Any]] = Field(description="Text, with or without a chat template, or messages.")
    response: str
    label: Any = Field(description="An object, or the JSON of one, with group, group_size, question?, images?.")


class Reward(RootModel[float]):
    """The reward."""


def routes(settings: ServerSettings) -> tuple[Route, ...]:
    """Return the route that slime calls."""
    options = group_options(settings)
    return (Route("/remote_rm", RemoteRmRequest, Reward, remote_rm, options=options, errors=GROUPED, patient=True),)


async def remote_rm(service: Service, call: Call[RemoteRmRequest, GroupOptions]) -> Reward:
    """Judge one of slime's samples with the rest of its group, which other requests send.

    One that cannot be judged gets the server's ``--unscored-reward``, by default the lowest win rate.
    """
    try:
        worst = worst_of(call.options.kind, service.settings.unscored_reward, "--unscored-reward")
    except ValueError as error:
        raise Refusal(422, str(error), "kind") from error
    scoring = score(service, call, [await service.read(call.budget, partial(_read, call.body))])
    del call  # a request that waits for its siblings must not hold pictures
    ((reward,),) = await scoring
    return Reward(worst if reward is None else reward)


def _read(request: RemoteRmRequest) -> Asked:
    """Return the sample; raises Refusal if it has no group or cannot be shown."""
    try:
        label = read_label(request.label)
    except LabelError as error:
        raise Refusal(422, str(error), f"label.{error.key}") from error
    if label.group_size is None:
        raise Refusal(
            422,
            "a single response has nothing to be compared with; use --group-rm with --custom-rm-path "
            "r1_reward.serve.dialects.slime.rewards, or put group and group_size into the label",
            "label",
        )
    prompt = request.prompt
    shown = (messages_in(prompt) or prompt) if isinstance(prompt, str) else prompt
    question = read_question(shown, label, list(label.images), "prompt")
    response = clean(request.response)
    return Asked("prompt", *question, [or_empty(response)], [0], label.group, label.group_size)

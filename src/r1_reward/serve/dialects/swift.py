"""Rewards for ms-swift: an ORM that calls an external judge, and a reward model plug-in that judges in the trainer.

    echo "import r1_reward.serve.dialects.swift" > judge.py
    R1_REWARD_SERVER=http://127.0.0.1:8000 swift rlhf --rlhf_type grpo --external_plugins judge.py \
        --reward_funcs r1_reward ...
    R1_REWARD_GROUP_SIZE=8 swift rlhf --rlhf_type grpo --external_plugins judge.py \
        --reward_model yifanzhang114/R1-Reward --reward_model_plugin r1_reward ...

Environment variables select the judge of the ORM: ``R1_REWARD_SERVER`` (with ``R1_REWARD_API_KEY``) is the URL of an
``r1-reward serve``; ``R1_REWARD_MODEL`` is a checkpoint, which runs in this process or, with ``R1_REWARD_BASE_URL``, on
an OpenAI-compatible server. The plug-in uses the model that swift has loaded. ``R1_REWARD_OPTIONS`` is a JSON object
such as ``{"votes": 3, "schedule": "circular"}``.

The completions of one prompt with the same pictures are judged against each other; swift's ``prompt_id`` alone would
mix equal questions about different pictures. swift turns None into NaN and sums it as 0, the mean of win rates. So a
completion that the judge cannot read, or that is too long for it, gets the worst reward of its group. None is used only
for groups that were not judged at all, which then contribute no gradient.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# swift puts a plug-in's folder first in sys.path, where our openai.py would shadow the package openai.
sys.path[:] = [folder for folder in sys.path if not folder or Path(folder).absolute() != Path(__file__).parent]

from swift.rewards import AsyncORM, orms, rm_plugins  # noqa: E402  the line above makes it importable

from r1_reward.records.content import Content, map_media  # noqa: E402
from r1_reward.records.errors import UserError  # noqa: E402
from r1_reward.serve.chats import PromptError, pictures_in, read_turn  # noqa: E402
from r1_reward.serve.judge_client import JudgeFailed, JudgeServer, Scored, or_empty  # noqa: E402
from r1_reward.serve.outcomes import filled, worst_of  # noqa: E402
from r1_reward.serve.templates import Prompt, ask  # noqa: E402

if TYPE_CHECKING:
    from r1_reward.judge.reward_model import RewardModel

_LOG = logging.getLogger(__name__)
_NAME = "r1_reward"
_GROUPING = ("kind", "schedule", "comparisons")
_VOTING = ("votes", "both_orders", "temperature", "stop")
_UNSEEN = ("videos", "audios", "objects")
_NO_JUDGE = (
    "no judge: set R1_REWARD_SERVER to the URL of an r1-reward serve, or R1_REWARD_MODEL to a checkpoint "
    "(and R1_REWARD_BASE_URL, if it runs on an OpenAI-compatible server)."
)


class _Group(NamedTuple):
    """Completions to judge against each other, and their places among the rows."""

    name: str
    question: Content
    images: list[Any]
    texts: list[str]
    places: list[int]
    samples: list[str]
    size: int | None
    """How many there are in all processes, if other processes hold some of them."""


Judged = list[Scored] | JudgeFailed


class R1Reward(AsyncORM):
    """``--reward_funcs r1_reward``: a reward for each completion of the batch, by comparisons within its group."""

    def __init__(self, args: Any = None, **options: Any) -> None:
        """Take swift's arguments; ``options`` override those in ``R1_REWARD_OPTIONS``.

        Raises:
            UserError: no judge is configured, a group has only one completion, or an option is invalid or missing.
        """
        super().__init__(args)
        options = {**_options_of_environment(), **options}
        kind, worst = options.get("kind", "win_rate"), options.pop("worst", None)
        self._groups = _Groups(_sizes(args), _batch(args))
        self._judge: _Asked | _Here = _judge(options)
        split = self._groups.several and isinstance(self._judge, _Asked)
        self._worst = _worst(kind, worst, split=split)

    async def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Return one reward per completion, None in groups that were not judged.

        Raises:
            UserError: a row lacks its pictures or has no question.
            JudgeFailed: no group could be judged.
        """
        count = len(completions)
        own = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == count}
        rows = [{name: values[place] for name, values in own.items()} for place in range(count)]
        groups = self._groups.of(rows, elsewhere=isinstance(self._judge, _Asked))
        return _spread(groups, await self._judge.ask(groups), _owners(rows), self._worst)


class R1RewardPlugin:
    """``--reward_model_plugin r1_reward``: the same, with swift's ``--reward_model`` in the trainer's process.

    swift does not pass the trainer's arguments to such a plug-in, so set ``R1_REWARD_GROUP_SIZE`` to its
    ``num_generations``. Otherwise all completions of a prompt in the batch are one group.
    """

    def __init__(self, model: Any, template: Any) -> None:
        """Take the judge and the template that swift has loaded."""
        from r1_reward.engines.in_process import TransformersEngine
        from r1_reward.engines.pointwise import comparing
        from r1_reward.judge.reward_model import RewardModel
        from r1_reward.records.dialects import AUTO
        from r1_reward.store.model_names import chosen_dialect

        options = _options_of_environment()
        engine, own = _taken(options, ("batch_size", "dialect")), _taken(options, ("max_new_tokens", "seed"))
        self._worst = _worst(options.get("kind", "win_rate"), options.pop("worst", None), split=False)
        engine["dialect"] = chosen_dialect(engine.get("dialect", AUTO), model.name_or_path)
        judge = RewardModel(comparing(TransformersEngine(model, template.processor, **engine)), **own)
        self._groups = _Groups(_sizes(None))
        self._judge = _Here(judge, options)

    def __call__(self, inputs: Sequence[Mapping[str, Any]], **_: Any) -> list[float | None]:
        """Return one reward per row, None in groups that were not judged; a row's last message is the completion."""
        groups = self._groups.of(inputs, elsewhere=False)
        return _spread(groups, self._judge.ask_now(groups), _owners(inputs), self._worst)


# The judge.


class _Asked:
    """A judge behind ``r1-reward serve``, which reunites groups that are split across processes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._server = JudgeServer(**options)

    async def ask(self, groups: Sequence[_Group]) -> list[Judged]:
        found = await asyncio.gather(*map(self._one, groups), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, JudgeFailed):
                raise one
        return found  # type: ignore[return-value]  # nothing else is left

    async def _one(self, group: _Group) -> list[Scored]:
        question, images = _sent(group.question, group.images)
        if group.size is None:
            return await self._server.rewards(question, group.texts, images)
        return await self._server.rewards(
            question, group.texts, images, group=group.name, group_size=group.size, samples=group.samples
        )


class _Here:
    """A judge that this process runs or calls directly, with the comparisons of all groups in one stream."""

    def __init__(self, model: RewardModel, options: dict[str, Any]) -> None:
        from r1_reward.judge.groups import score_groups

        self._model = model
        self._grouping, voting = _taken(options, _GROUPING), _taken(options, _VOTING)
        if options:
            raise UserError(f"R1_REWARD_OPTIONS: unknown {', '.join(sorted(options))}.")
        # Find invalid options now rather than in the middle of training.
        self._compare = partial(model.compare_many, **voting)
        list(score_groups((), self._compare, **self._grouping))

    async def ask(self, groups: Sequence[_Group]) -> list[Judged]:
        return await asyncio.to_thread(self.ask_now, groups)

    def ask_now(self, groups: Sequence[_Group]) -> list[Judged]:
        from r1_reward.judge.groups import Group, score_groups
        from r1_reward.records.checks import MAX_RESPONSE_CHARS

        most = MAX_RESPONSE_CHARS
        shown = [[place for place, text in enumerate(group.texts) if len(text) <= most] for group in groups]
        asked = [
            Group(group.question, group.images, [group.texts[place] for place in places])
            for group, places in zip(groups, shown, strict=True)
            if places
        ]
        found = score_groups(asked, self._compare, **self._grouping, seed=self._model.seed)
        return [
            _read(next(found) if places else None, len(group.texts), places)
            for group, places in zip(groups, shown, strict=True)
        ]


def _read(found: Any, count: int, places: Sequence[int]) -> Judged:
    """Return the result of each response in a scored group; those that were not shown are too long."""
    from r1_reward.engines.engine import EngineError
    from r1_reward.judge.prepare import InvalidPair

    if isinstance(found, InvalidPair):
        raise UserError(str(found))
    errors = [found] if isinstance(found, EngineError) else found.failures if places else []
    if errors:
        return JudgeFailed(str(errors[0]))
    scored = [Scored(None, "too long to be judged")] * count
    for place, reward in zip(places, found.rewards if places else [], strict=True):
        scored[place] = Scored(reward, "no comparison could be read" if reward is None else None)
    return scored


def _judge(options: dict[str, Any]) -> _Asked | _Here:
    """Return the judge selected by the environment variables."""
    if os.environ.get("R1_REWARD_SERVER") or "url" in options:
        return _Asked(options)
    name, url = os.environ.get("R1_REWARD_MODEL"), os.environ.get("R1_REWARD_BASE_URL")
    if not name:
        raise UserError(_NO_JUDGE)
    from r1_reward.judge.reward_model import RewardModel

    make: Callable[..., RewardModel] = RewardModel.from_server if url else RewardModel.from_pretrained
    where: dict[str, Any] = {"base_url": url, "model": name} if url else {"path_or_hub_id": name}
    own = _taken(options, [name for name in inspect.signature(make).parameters if name not in where])
    return _Here(make(**where, **own), options)


def _options_of_environment() -> dict[str, Any]:
    text = os.environ.get("R1_REWARD_OPTIONS", "{}")
    try:
        options = json.loads(text)
    except ValueError as error:
        raise UserError(f"R1_REWARD_OPTIONS: must be a JSON object, not {text[:60]!r}: {error}.") from error
    if not isinstance(options, dict):
        raise UserError(f'R1_REWARD_OPTIONS: must be a JSON object such as {{"votes": 3}}, not {text[:60]!r}.')
    return options


def _taken(options: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Remove the options of these names and return them."""
    return {name: options.pop(name) for name in names if name in options}


# The groups.


class _Groups:
    """Finds the groups among swift's rows."""

    def __init__(self, sizes: Sequence[int], batch: int | None = None) -> None:
        """Take the completions per prompt: in training, and in evaluation if that differs.

        ``batch`` is how many completions of a training batch this process has, if known.
        """
        self._sizes, self._batch = sizes, batch
        self.several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        """Whether several processes may split a group."""
        if self.several and not sizes:
            raise UserError(
                "R1_REWARD_GROUP_SIZE: is not set, but several processes may split a prompt's completions; "
                "set it to swift's num_generations."
            )
        self._run = _same_everywhere() if self.several else ""
        self._calls = 0
        self._warned = False

    def of(self, rows: Sequence[Mapping[str, Any]], *, elsewhere: bool) -> list[_Group]:
        """Return the groups that can be judged; ``elsewhere`` says whether a server reunites split groups."""
        self._calls += 1
        prompts: dict[str, list[int]] = {}
        owners = sorted(set(_owners(rows)))
        for place in owners:
            prompts.setdefault(_key(rows[place], place), []).append(place)
        # Half a training group may be as large as an evaluation group.
        sizes = self._sizes[:1] if len(owners) == self._batch else self._sizes
        return [
            self._group(key, [rows[place] for place in part], part, size)
            for key, places in prompts.items()
            for part, size in self._whole(places, sizes, elsewhere)
        ]

    def _whole(
        self, places: list[int], sizes: Sequence[int], elsewhere: bool
    ) -> Iterator[tuple[list[int], int | None]]:
        """Yield groups, each with its size if another process has part of it."""
        sizes = sizes or [len(places)]
        whole = next((size for size in sizes if size > 1 and len(places) % size == 0), None)
        if whole is None and elsewhere and self.several:
            # If a prompt is in the batch several times, only its last group can be split.
            cut = len(places) - len(places) % sizes[0]
            yield places[cut:], sizes[0]
            places, whole = places[:cut], sizes[0]
        if whole is not None:
            for start in range(0, len(places), whole):
                yield places[start : start + whole], None
        elif not self._warned:
            self._warned = True
            _LOG.warning(
                "got %d completions of one prompt, not %s or a multiple of it: the group is incomplete, so it gets no "
                "reward. Make the batch of each process (per_device_train_batch_size * steps_per_generation) a "
                "multiple of num_generations, or use an r1-reward serve (R1_REWARD_SERVER), which reunites split "
                "groups.",
                len(places),
                " or ".join(map(str, self._sizes)) or "2",
            )

    def _group(self, key: str, rows: list[Mapping[str, Any]], places: list[int], size: int | None) -> _Group:
        question, images = _question(rows, places[0])
        texts = [_said(row, place) for row, place in zip(rows, places, strict=True)]
        rank = os.environ.get("RANK", "0")
        samples = [str(row.get("request_id") or f"{rank}:{place}") for row, place in zip(rows, places, strict=True)]
        return _Group(f"{self._run}:{self._calls}:{key}", question, images, texts, places, samples, size)


def _owners(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return for each row the row that represents it: the last one of its request, as in swift's own sums."""
    last = {row.get("request_id") or place: place for place, row in enumerate(rows)}
    return [last[row.get("request_id") or place] for place, row in enumerate(rows)]


def _key(row: Mapping[str, Any], place: int) -> str:
    """Return a key that all completions of a group share, the same in every process.

    The policy's own turns before its last one are not part of the prompt; ``prompt_id`` takes this into account.
    """
    prompt = row.get("prompt_id") or json.dumps(_messages(row, place)[:-1], sort_keys=True, default=str)
    seen = hashlib.sha256(json.dumps([prompt, row.get("question")], default=str).encode())
    for picture in pictures_in(row):
        data = picture["bytes"] if isinstance(picture, Mapping) and picture.get("bytes") else picture
        if hasattr(data, "tobytes"):  # an open picture
            seen.update(f"{data.size}{data.mode}".encode())
            data = data.tobytes()
        seen.update(hashlib.sha256(bytes(data) if isinstance(data, bytes | bytearray) else str(data).encode()).digest())
    return seen.hexdigest()


def _question(rows: Sequence[Mapping[str, Any]], place: int) -> Prompt:
    """Return the question of a group, and the pictures in front of it."""
    first, name = rows[0], f"row {place + 1} of the batch"
    for column in _UNSEEN:
        if first.get(column):
            raise UserError(f"{name} has {column}, but the judge supports only text and images.")
    side_by_side = zip(*(_messages(row, place)[:-1] for row in rows), strict=False)
    shared = [turns[0] for turns in takewhile(lambda turns: all(turn == turns[0] for turn in turns), side_by_side)]
    try:
        turns = [read_turn(str(turn["role"]), turn.get("content")) for turn in shared]
        return ask(turns, pictures_in(first), first.get("question"))
    except PromptError as error:
        raise UserError(
            f"{name} {error}; a row must have one <image> tag for each of its images, in order, or no tags at all."
        ) from error


def _messages(row: Mapping[str, Any], place: int) -> list[Mapping[str, Any]]:
    messages = row.get("messages")
    if not messages or messages[-1].get("role") != "assistant":
        raise UserError(f"row {place + 1} of the batch: its messages must end with a completion (role assistant).")
    return list(messages)


def _said(row: Mapping[str, Any], place: int) -> str:
    text = _messages(row, place)[-1].get("content")
    if not isinstance(text, str):
        raise UserError(f"row {place + 1} of the batch: its completion must be text, not {type(text).__name__}.")
    return or_empty(text.strip())


def _sent(question: Content, images: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Return a question and its pictures for the server; local files are sent with the request."""
    return map_media(question, lambda place: _picture(place.source)), [_picture(image) for image in images]


def _picture(image: Any) -> Any:
    """Return a picture; if a row gives it as a mapping with a path, return the local path."""
    is_path = isinstance(image, Mapping) and image.get("bytes") is None and image.get("path")
    return image["path"] if is_path else image


# The rewards.


def _spread(
    groups: Sequence[_Group], judged: Sequence[Judged], owners: Sequence[int], worst: float | None
) -> list[float | None]:
    """Return the reward of each row, which is that of the row that represents it; for ``worst`` see :func:`_worst`."""
    failed = [one for one in judged if isinstance(one, JudgeFailed)]
    if failed and len(failed) == len(judged):
        raise failed[0]
    if failed:
        _LOG.warning("%d of %d groups were not judged; the first error: %s", len(failed), len(judged), failed[0])
    rewards: dict[int, float | None] = {}
    for group, scored in zip(groups, judged, strict=True):
        if isinstance(scored, JudgeFailed):
            continue
        own = [one.reward for one in scored]
        # If another process has part of the group, its samples may have rewards even if none of these has.
        if group.size is not None or any(reward is not None for reward in own):
            rewards |= zip(group.places, filled(own, worst), strict=True)
    return [rewards.get(owner) for owner in owners]


def _worst(kind: str, worst: Any, *, split: bool) -> float | None:
    """Return the reward of a completion that cannot be judged, unless another of its group earned less.

    Raises:
        UserError: ``worst`` is not a number, or is not set although rewards have no lower bound and groups are
            ``split`` across processes, which know only their own rewards.
    """
    try:
        return worst_of(kind, worst) if split or worst is not None else None
    except ValueError as error:
        why = ", since several processes may split a prompt's completions" if worst is None else ""
        raise UserError(f"R1_REWARD_OPTIONS: {error}{why}.") from error


def _sizes(args: Any) -> list[int]:
    """Return the completions per prompt from the environment, or else from swift's arguments."""
    given = os.environ.get("R1_REWARD_GROUP_SIZE")
    if given is not None and not given.isdigit():
        raise UserError(f"R1_REWARD_GROUP_SIZE: must be an integer, swift's num_generations, not {given!r}.")
    named = [getattr(args, name, None) for name in ("num_generations", "num_generations_eval")]
    sizes = [int(given)] if given else [int(size) for size in named if size]
    if any(size < 2 for size in sizes[:1]):
        raise UserError(
            f"num_generations: must be 2 or more, not {sizes[0]}: a single completion has nothing to be compared with."
        )
    return list(dict.fromkeys(sizes))


def _batch(args: Any) -> int | None:
    """Return how many completions of a training batch each process has, or None if swift does not say."""
    count = getattr(args, "generation_batch_size", None)
    return count // int(os.environ.get("WORLD_SIZE", "1")) if count else None


def _same_everywhere() -> str:
    """Return an id of this run that all its processes share."""
    from accelerate.utils import broadcast_object_list

    ids = [os.urandom(16).hex()]
    broadcast_object_list(ids)
    return ids[0]


orms[_NAME] = R1Reward
rm_plugins[_NAME] = R1RewardPlugin

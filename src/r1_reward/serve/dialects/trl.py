"""Reward functions for TRL and compatible trainers: judge the completions of each prompt against each other.

A pairwise judge cannot score a single completion, but GRPO samples N of them for every prompt::

    from trl import GRPOTrainer

    judge = RewardModel.from_pretrained("yifanzhang114/R1-Reward")
    trainer = GRPOTrainer(policy, GroupReward(judge, group_size=8), args=args, train_dataset=dataset)

With a judge behind a server, :class:`AsyncGroupReward` lets TRL call it while other reward functions run::

    reward = AsyncGroupReward.from_server("http://localhost:8000/v1", "R1-Reward", group_size=8, votes=3)

Prompts may be chats or plain text. The question is the dataset's column ``question`` if it has one. Otherwise it is the
last user message with text, preceded by a transcript of the earlier turns, with pictures at their places. The pictures
are those in the column ``images`` or ``image``, or else in the messages. A prompt with a place for a missing picture
ends the training, since it would be judged blind. Completions are text, which is all that TRL's policies write. A
completion that cannot be judged gets None, which TRL leaves out of the baseline.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.engines.engine import EngineError
from r1_reward.judge.groups import Group, RewardKind, ScoredGroup, require_kind, score_groups
from r1_reward.judge.prepare import OpenedImages, open_images
from r1_reward.judge.reward_model import RewardModel, VoteOptions
from r1_reward.judge.settings import GroupSettings, ScheduleName
from r1_reward.records.checks import MAX_RESPONSE_CHARS
from r1_reward.records.content import ContentError, Shown, key_of, places_of, text_of
from r1_reward.records.errors import UserError
from r1_reward.serve.chats import PromptError, Turn, WrongPictures, pictures_in, read_turn
from r1_reward.serve.judge_client import or_empty
from r1_reward.serve.templates import ask
from r1_reward.store.contents import open_content

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Unpack

_LOG = logging.getLogger(__name__)
_WHERE = (
    "put its pictures into the column images, one for each place and in that order, or each into its image part; "
    "if no picture is meant, write the token with a space (< image>)"
)
_NO_COMPLETIONS = (
    "{name}: got one list and no completions. Trainers that pass the completions first, such as ms-swift, have their "
    "own plug-ins: for ms-swift, --external_plugins with r1_reward.serve.dialects.swift (docs/trainers.md)."
)


class _Prompt(NamedTuple):
    """What the completions of a group share."""

    question: Shown
    text: str
    """The whole chat."""
    images: OpenedImages
    """Pictures in front of the question."""


class _Group(NamedTuple):
    """Completions to judge against each other, and their places in the batch."""

    prompt: _Prompt
    texts: list[str]
    places: list[int]


class _GroupRewards:
    """The base of the two reward functions: grouping, judging, and logging."""

    def __init__(
        self,
        model: RewardModel,
        *,
        kind: RewardKind = "win_rate",
        schedule: ScheduleName = "round-robin",
        comparisons: int | None = None,
        group_size: int | None = None,
        name: str | None = None,
        **options: Unpack[VoteOptions],
    ) -> None:
        """Take a judge and its options.

        All pairs of different completions of a prompt are compared, N (N - 1) / 2 comparisons for N completions, unless
        the ``schedule`` takes fewer. All prompts of a batch are judged together. Equal completions are judged once and
        share their reward; if all are equal, it is 0.

        Args:
            model: The judge.
            kind: ``win_rate``, the mean of 2 P(win) - 1 over the other completions, in [-1, 1]; or ``bradley_terry``,
                scores in logits with mean 0 over the different completions.
            schedule: Which completions are compared: ``round-robin`` all pairs, ``circular`` each with the next in a
                circle (N comparisons), ``bracket`` a knockout (N - 1), ``adaptive`` the most uncertain pairs.
            comparisons: Maximum comparisons per prompt of ``adaptive``; default 2 N.
            group_size: The trainer's ``num_generations``. Consecutive completions of one prompt form a group, and
                groups that are split across processes are recognized by their size. Without it, every run of equal
                prompts is a group, which is correct in a single process if no prompt follows itself.
            name: The reward's name in TRL's logs; default r1_reward_KIND.
            options: ``votes``, ``both_orders``, ``temperature``, ``stop``, as in :meth:`RewardModel.compare`.

        Raises:
            UserError: an option is out of range, or there are several processes but no group size.
        """
        require_kind(kind)
        grouping = GroupSettings(schedule=schedule, comparisons=comparisons)
        if group_size is not None and group_size < 2:
            raise UserError(
                f"group_size: must be 2 or more, not {group_size}: a single completion has nothing to be compared with."
            )
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if group_size is None and processes > 1:
            raise UserError(
                f"group_size: is not set, but {processes} processes may split a prompt's completions; "
                "set it to the trainer's num_generations, so that split groups are recognized."
            )
        model.compare_many((), **options)  # finds invalid options now, not in the middle of training
        self.model, self.kind, self.group_size, self.options = model, kind, group_size, options
        self.schedule, self.comparisons = grouping.schedule, grouping.comparisons
        self.__name__ = name or f"r1_reward_{kind}"
        self._warned: set[str] = set()

    @classmethod
    def from_server(
        cls,
        base_url: str | Sequence[str],
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int | None = None,
        batch_votes: bool = False,
        timeout: float = 120.0,
        max_new_tokens: int = 1024,
        seed: int = 0,
        kind: RewardKind = "win_rate",
        schedule: ScheduleName = "round-robin",
        comparisons: int | None = None,
        group_size: int | None = None,
        name: str | None = None,
        **options: Unpack[VoteOptions],
    ) -> Self:
        """Use a judge behind OpenAI-compatible servers; see :meth:`RewardModel.from_server`."""
        judge = RewardModel.from_server(
            base_url,
            model,
            api_key=api_key,
            concurrency=concurrency,
            batch_votes=batch_votes,
            timeout=timeout,
            max_new_tokens=max_new_tokens,
            seed=seed,
        )
        return cls(
            judge,
            kind=kind,
            schedule=schedule,
            comparisons=comparisons,
            group_size=group_size,
            name=name,
            **options,
        )

    def _rewards(self, prompts: Sequence[Any], completions: Sequence[Any] | None, columns: Mapping[str, Any]) -> Any:
        """Return one reward per completion, None if it has none."""
        if completions is None:
            raise UserError(_NO_COMPLETIONS.format(name=type(self).__name__))
        groups = self._groups(prompts, completions, columns)
        by_group, unreadable = self._judge(groups)
        rewards: list[float | None] = [None] * len(completions)
        for group, own in zip(groups, by_group, strict=True):
            for place, reward in zip(group.places, own, strict=True):
                rewards[place] = reward
        log = columns.get("log_metric")
        if log is not None and completions:
            log(f"{self.__name__}/unscored", sum(reward is None for reward in rewards) / len(rewards))
            if unreadable is not None:
                log(f"{self.__name__}/unreadable", unreadable)
        return rewards

    def _groups(self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]) -> list[_Group]:
        """Return the groups that can be judged."""
        asked = [_read_prompt(prompt, columns, place) for place, prompt in enumerate(prompts)]
        keys = [(key_of(prompt.question), prompt.text, prompt.images.digest) for prompt in asked]
        groups = []
        for _, run in groupby(range(len(keys)), key=keys.__getitem__):
            for places in self._whole(list(run)):
                texts = {place: _shown(completions[place], place) for place in places}
                shown = [place for place in places if len(texts[place]) <= MAX_RESPONSE_CHARS]
                if len(shown) < len(places):
                    self._warn_once(f"a completion has more than {MAX_RESPONSE_CHARS:,} characters; its reward is None")
                if shown:
                    groups.append(_Group(asked[places[0]], [texts[place] for place in shown], shown))
        return groups

    def _whole(self, run: list[int]) -> list[list[int]]:
        """Split consecutive completions of one prompt into complete groups; return none if one is incomplete."""
        size = self.group_size or len(run)
        if len(run) > 1 and len(run) % size == 0:
            return [run[start : start + size] for start in range(0, len(run), size)]
        expected = f", not {size} or a multiple of it" if self.group_size else ""
        self._warn_once(
            f"got {len(run)} consecutive completion{'s' * (len(run) > 1)} of one prompt{expected}: the group is "
            "incomplete, so its rewards are None. Make the batch of each process "
            "(per_device_train_batch_size * steps_per_generation) a multiple of num_generations."
        )
        return []

    def _judge(self, groups: Sequence[_Group]) -> tuple[list[list[float | None]], float | None]:
        """Return the rewards of each group, and the share of unreadable comparisons.

        Raises:
            EngineError: all comparisons failed, and not only because they are too long for the judge.
        """
        wanted = (Group(group.prompt.question, group.prompt.images, group.texts) for group in groups)
        scored: list[ScoredGroup] = []
        compare = partial(self.model.compare_many, **self.options)
        judged = score_groups(
            wanted,
            compare,
            kind=self.kind,
            schedule=self.schedule,
            comparisons=self.comparisons,
            seed=self.model.seed,
        )
        for one in judged:
            if isinstance(one, EngineError):
                raise one
            scored.append(one)
        asked = sum(len(one.comparisons) for one in scored)
        errors = [error for one in scored for error in one.errors]
        failures = [error for one in scored for error in one.failures]
        if failures and len(errors) == asked:
            raise failures[0]
        if errors:
            _LOG.warning("%d of %d comparisons failed; the first error: %s", len(errors), asked, errors[0])
        unreadable = sum(one.unreadable for one in scored)
        return [one.rewards for one in scored], unreadable / asked if asked else None

    def _warn_once(self, message: str) -> None:
        # Ignore the numbers in a message, or every batch would log another warning.
        kind = "".join(character for character in message if not character.isdigit())[:60]
        if kind not in self._warned:
            self._warned.add(kind)
            _LOG.warning("%s: %s", self.__name__, message)


class GroupReward(_GroupRewards):
    """A reward function for TRL's GRPOTrainer that judges the completions of each prompt against each other.

    >>> GroupReward(judge)(prompts=["Which digit?"] * 2, completions=["A three.", "An eight."])  # doctest: +SKIP
    [0.93, -0.93]
    """

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """Return one reward per completion, None if it has none; ``columns`` are the dataset's.

        Raises:
            UserError: a question is blank, a picture is invalid, the judge is unavailable, or there are no completions.
        """
        return self._rewards(prompts, completions, columns)


class AsyncGroupReward(_GroupRewards):
    """The same as a coroutine, which TRL runs concurrently with other asynchronous reward functions."""

    async def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        """Return what :class:`GroupReward` does; the judge is called in a thread."""
        return await asyncio.to_thread(self._rewards, prompts, completions, columns)


def _read_prompt(prompt: Any, columns: Mapping[str, Any], place: int) -> _Prompt:
    """Return the question, the whole text and the pictures of one prompt of the batch."""
    name = f"prompt {place + 1} of the batch"
    cells = _cells(columns, place)
    try:
        if isinstance(prompt, str):
            turns = [Turn("user", [prompt])]
        else:
            turns = [read_turn(str(turn["role"]), turn.get("content")) for turn in prompt]
        # The trainer also puts the column's pictures into the parts.
        turns = [turn.without_sources() for turn in turns] if cells else turns
        question, pictures = ask(turns, cells, _column(columns, "question", place))
    except PromptError as error:
        advice = f"; {_WHERE}" if isinstance(error, WrongPictures) else ""
        raise UserError(f"{name} {error}{advice}.") from error
    text = "\n".join(f"{turn.role}: {text_of(turn.pieces)}" for turn in turns)
    try:
        return _Prompt(open_content(question, "question"), text, open_images(pictures))
    except UserError as error:
        raise UserError(f"{name}, {error}") from error


def _column(columns: Mapping[str, Any], name: str, place: int) -> Any:
    values = columns.get(name)
    return None if values is None else values[place]


def _cells(columns: Mapping[str, Any], place: int) -> list[Any]:
    """Return the pictures of a prompt in the dataset's columns, or none if there are no such columns."""
    return pictures_in({name: _column(columns, name, place) for name in ("images", "image")})


def _shown(completion: Any, place: int) -> str:
    """Return a completion as the judge is shown it.

    Raises:
        UserError: the completion is not text.
    """
    try:
        text = _completion_text(completion).strip()
    except ContentError as error:
        raise UserError(f"completion {place + 1} of the batch {error}.") from error
    return or_empty(text)


def _completion_text(completion: Any) -> str:
    """Return the text of a completion, or the last text of a chat, which tool calls may precede."""
    if isinstance(completion, str):
        return completion
    spoken = [turn.get("content") or "" for turn in completion if turn["role"] == "assistant"]
    texts = [text for content in spoken if (text := text_of(content))]
    if any(map(places_of, spoken)):
        raise ContentError("has a picture, but must be text; to compare pictures, use RewardModel.rewards")
    return texts[-1] if texts else ""

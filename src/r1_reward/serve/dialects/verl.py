"""verl: rewards from a judge behind ``r1-reward serve``.

verl asks for the reward of one sample at a time. :class:`R1RewardManager` sends each with the ``uid`` of its prompt,
and the server judges the ``rollout.n`` samples of a prompt against each other::

    reward.reward_manager.source=importlib
    reward.reward_manager.module.path=pkg://r1_reward.serve.dialects.verl
    reward.reward_manager.name=R1RewardManager
    +reward.reward_kwargs.url=http://judge:8000
    +reward.reward_kwargs.votes=2

:func:`compute_score` compares each sample with the reference answer of its row instead::

    reward.custom_reward_function.path=pkg://r1_reward.serve.dialects.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.url=http://judge:8000

The judge is shown ``extra_info.question`` if a row has it, else the prompt; and the pictures of the prompt. A sample
that silences the judge, or is too long for it, earns ``worst`` (-1). Whatever else goes wrong raises: verl's trainer
leaves such samples out of the step, and ends the run if there are no others.

In verl's processes this needs httpx and what ``pip install --no-deps r1-reward`` brings.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from r1_reward.serve.chats import PromptError, WrongPictures, pictures_in, read_turn
from r1_reward.serve.plugs import against, earned, judge_of, reference_of, shown
from r1_reward.serve.templates import Prompt, ask, read_turns

try:
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
except ModuleNotFoundError as error:  # without verl, compute_score and the reading of rows are still there
    if error.name != "verl":
        raise
    RewardManagerBase = object

_WHERE = "the judge needs all the policy saw, as images of the row (verl's column images, or extra_info.images)"
_ALONE = (
    "a prompt has one sample, and its row has no reference answer (reward_model.ground_truth) to compare it with: add "
    "one, or set rollout.n (rollout.val_kwargs.n in validation) to 2 at least"
)
_OF_VERL = ("reward_router_address", "reward_model_tokenizer")


async def compute_score(
    data_source: str,  # noqa: ARG001  verl passes these by name
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return ``score``, 2 P(the solution is better than the reference answer) - 1, with ``scored`` and ``why``.

    Args:
        data_source: Not used.
        solution_str: What the policy wrote.
        ground_truth: The reference answer.
        extra_info: Holds the ``question`` and, under ``images``, its pictures: paths, URLs, data URIs, bytes.
        options: ``url``, ``votes``, ``worst``, ...: ``custom_reward_function.reward_kwargs``, see
            :func:`r1_reward.serve.plugs.judge_of`.

    Raises:
        ValueError: the row has no question or no reference answer, or its pictures are not those of the question.
        JudgeFailed: the judge gave no answer.
    """
    judge, worst = judge_of({name: value for name, value in options.items() if name not in _OF_VERL})
    info = extra_info or {}
    question = _question(info)
    if question is None:
        raise ValueError(
            "extra_info of every row must hold the question, since verl passes on nothing else of the prompt"
        )
    reference = reference_of(ground_truth)
    if reference is None:
        raise ValueError("reward_model.ground_truth of every row must hold the reference answer to compare with")
    prompt = _ask([], question, pictures_in(info))
    return earned(await against(judge, prompt, solution_str, reference), worst)


class R1RewardManager(RewardManagerBase):
    """Rewards of samples that the server judges against the others of their prompt."""

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,  # noqa: ARG002  of verl's own reward models
        reward_model_tokenizer: Any = None,  # noqa: ARG002
    ) -> None:
        """Read the settings.

        Raises:
            ValueError: the settings cannot be used.
            JudgeFailed: no server is named.
        """
        super().__init__(config, tokenizer, compute_score)
        self._judge, self._worst = judge_of(config.reward.get("reward_kwargs") or {})
        self._sizes = Sizes.of(config)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Return the reward of one sample, once those of its prompt are all there and judged.

        Raises:
            ValueError: the row does not say what is needed, or cannot be shown to the judge.
            JudgeFailed: the judge gave no answer, or the rest of the group did not come.
        """
        item = data[-1]  # where an agent has several outputs, the last is judged
        columns = item.non_tensor_batch
        prompt, size = read_prompt(columns), self._sizes.of_row(_mapping(columns.get("extra_info")))
        response = await self.loop.run_in_executor(None, self._decode, item.batch)
        if size == 1:
            reference = reference_of(_mapping(columns.get("reward_model")).get("ground_truth"))
            if reference is None:
                raise ValueError(_ALONE)
            scored = await against(self._judge, prompt, response, reference)
        else:
            question, images = shown(prompt)
            group, sample = read_ids(columns)
            (scored,) = await self._judge.rewards(
                question, [response], images, group=group, group_size=size, samples=[sample]
            )
        extra = earned(scored, self._worst)
        return {"reward_score": extra["score"], "reward_extra_info": extra}

    def _decode(self, batch: Any) -> str:
        """Return what the policy wrote, as verl's own managers read it."""
        tokens = batch["responses"]
        length = int(batch["attention_mask"][-tokens.shape[-1] :].sum())
        return str(self.tokenizer.decode(tokens[:length], skip_special_tokens=True))


class Sizes(NamedTuple):
    """How many samples a prompt has."""

    training: int
    validation: int | None
    """None where the run does not validate."""

    @classmethod
    def of(cls, config: Any) -> Sizes:
        """Return what verl's settings say."""
        rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
        often = trainer.get("test_freq", -1)
        validates = trainer.get("val_before_train", True) or trainer.get("val_only", False) or often > 0
        return cls(int(rollout.n), int(rollout.val_kwargs.n) if validates else None)

    def of_row(self, extra_info: Mapping[str, Any]) -> int:
        """Return the size of a row's group; raises ValueError where nobody can tell."""
        if self.validation in (None, self.training):
            return self.training
        split = extra_info.get("split")
        if not isinstance(split, str) or not split.strip():
            raise ValueError(
                f"a prompt has {self.training} samples in training and {self.validation} in validation "
                "(rollout.n, rollout.val_kwargs.n), and verl does not say which a sample is from: put 'train' or "
                "'test' into extra_info.split of every row, make the two numbers equal, or switch validation off "
                "(trainer.val_before_train=False trainer.test_freq=-1)"
            )
        return self.training if split.strip().lower().startswith("train") else int(self.validation or 0)


def read_prompt(columns: Mapping[str, Any]) -> Prompt:
    """Return what a sample's row asks, with its pictures.

    Args:
        columns: ``raw_prompt`` holds the messages, ``extra_info`` may hold another ``question`` for the judge, and the
            pictures under ``images`` where neither the messages nor ``multi_modal_data`` do.

    Raises:
        ValueError: there is no prompt, or its pictures are not those it has places for.
    """
    messages = columns.get("raw_prompt")
    if messages is None:
        raise ValueError("a sample has no raw_prompt, so nobody knows what was asked")
    info = _mapping(columns.get("extra_info"))
    turns = read_turns(list(messages))
    held = any(not isinstance(piece, str) and piece.source is not None for turn in turns for piece in turn.pieces)
    media = _mapping(columns.get("multi_modal_data"))
    unseen = [name for name, given in media.items() if name not in ("images", "image") and given is not None]
    unseen = [name for name in unseen if len(media[name])]
    if unseen:
        raise PromptError(f"a prompt has {', '.join(unseen)}, which the judge would not be shown: it sees images")
    beside = [] if held else pictures_in(media) or pictures_in(info)
    return _ask(turns, _question(info), beside)


def read_ids(columns: Mapping[str, Any]) -> tuple[str, str]:
    """Return the ids of a sample's group and of the sample in it.

    verl 0.9 numbers the samples of a prompt (``session_id``), so one that is sent again is known. Its older trainer
    does not, and an id drawn here tells the sample from its siblings only.
    """
    group, session = columns.get("uid"), columns.get("session_id")
    if group is None:
        raise ValueError("a sample has no uid, so nobody knows which samples belong to one prompt")
    return str(group), uuid.uuid4().hex if session is None else str(session)


def _ask(turns: list[Any], question: Any, pictures: list[Any]) -> Prompt:
    try:
        return ask(turns or [read_turn("user", question)], pictures, question if turns else None)
    except PromptError as error:
        advice = f"; {_WHERE}" if isinstance(error, WrongPictures) else ""
        raise type(error)(f"a prompt {error}{advice}") from error


def _question(info: Mapping[str, Any]) -> Any:
    """Return what a row has the judge asked: text, or parts (an array, as parquet files are read); None for nothing."""
    question: Any = info.get("question")
    parts = list(question) if hasattr(question, "tolist") else question
    return None if parts is None or len(parts) == 0 else parts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

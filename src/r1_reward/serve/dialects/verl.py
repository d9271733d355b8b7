"""verl: rewards from a judge behind ``r1-reward serve``.

verl requests the reward of one sample at a time. :class:`R1RewardManager` sends each sample with the ``uid`` of its
prompt, and the server judges the ``rollout.n`` samples of a prompt against each other::

    reward.reward_manager.source=importlib
    reward.reward_manager.module.path=pkg://r1_reward.serve.dialects.verl
    reward.reward_manager.name=R1RewardManager
    +reward.reward_kwargs.url=http://judge:8000
    +reward.reward_kwargs.votes=2

:func:`compute_score` compares each sample with the reference answer of its row instead::

    reward.custom_reward_function.path=pkg://r1_reward.serve.dialects.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.url=http://judge:8000

The judge is shown ``extra_info.question`` if a row has it, or else the prompt, with the pictures of the prompt. A
sample that silences the judge, or is too long for it, earns ``worst`` (-1). All other failures raise: verl's trainer
leaves such samples out of the step, and ends the run if there are no others.

verl's processes need httpx and ``pip install --no-deps r1-reward``.
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
except ModuleNotFoundError as error:  # compute_score and the row readers work without verl
    if error.name != "verl":
        raise
    RewardManagerBase = object

_WHERE = "the judge needs all pictures that the policy saw, in the row (verl's column images, or extra_info.images)"
_ALONE = (
    "a prompt has only one sample, and its row has no reference answer (reward_model.ground_truth) to compare it with: "
    "add one, or set rollout.n (rollout.val_kwargs.n in validation) to at least 2"
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
        solution_str: The policy's response.
        ground_truth: The reference answer.
        extra_info: Has the ``question`` and, as ``images``, its pictures: paths, URLs, data URIs, bytes.
        options: ``url``, ``votes``, ``worst``, ...: ``custom_reward_function.reward_kwargs``, see
            :func:`r1_reward.serve.plugs.judge_of`.

    Raises:
        ValueError: the row has no question or no reference answer, or its pictures do not match the question.
        JudgeFailed: the judge failed to answer.
    """
    judge, worst = judge_of({name: value for name, value in options.items() if name not in _OF_VERL})
    info = extra_info or {}
    question = _question(info)
    if question is None:
        raise ValueError(
            "extra_info of every row must have the question, since verl passes on nothing else of the prompt"
        )
    reference = reference_of(ground_truth)
    if reference is None:
        raise ValueError("reward_model.ground_truth of every row must be the reference answer to compare with")
    prompt = _ask([], question, pictures_in(info))
    return earned(await against(judge, prompt, solution_str, reference), worst)


class R1RewardManager(RewardManagerBase):
    """Rewards each sample by having the server judge it against the others of its prompt."""

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
            ValueError: a setting is invalid.
            JudgeFailed: no server URL is given.
        """
        super().__init__(config, tokenizer, compute_score)
        self._judge, self._worst = judge_of(config.reward.get("reward_kwargs") or {})
        self._sizes = Sizes.of(config)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Return the reward of one sample, once all samples of its prompt have arrived and are judged.

        Raises:
            ValueError: the row lacks something, or cannot be shown to the judge.
            JudgeFailed: the judge failed to answer, or the rest of the group did not arrive.
        """
        item = data[-1]  # if an agent has several outputs, judge the last
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
        """Return the policy's response, decoded as in verl's own managers."""
        tokens = batch["responses"]
        length = int(batch["attention_mask"][-tokens.shape[-1] :].sum())
        return str(self.tokenizer.decode(tokens[:length], skip_special_tokens=True))


class Sizes(NamedTuple):
    """How many samples a prompt has."""

    training: int
    validation: int | None
    """None if the run does not validate."""

    @classmethod
    def of(cls, config: Any) -> Sizes:
        """Return the sizes in verl's settings."""
        rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
        often = trainer.get("test_freq", -1)
        validates = trainer.get("val_before_train", True) or trainer.get("val_only", False) or often > 0
        return cls(int(rollout.n), int(rollout.val_kwargs.n) if validates else None)

    def of_row(self, extra_info: Mapping[str, Any]) -> int:
        """Return the size of a row's group; raises ValueError if it cannot be determined."""
        if self.validation in (None, self.training):
            return self.training
        split = extra_info.get("split")
        if not isinstance(split, str) or not split.strip():
            raise ValueError(
                f"a prompt has {self.training} samples in training and {self.validation} in validation "
                "(rollout.n, rollout.val_kwargs.n), and verl does not say which one a sample is from: put 'train' or "
                "'test' into extra_info.split of every row, make the two numbers equal, or disable validation "
                "(trainer.val_before_train=False trainer.test_freq=-1)"
            )
        return self.training if split.strip().lower().startswith("train") else int(self.validation or 0)


def read_prompt(columns: Mapping[str, Any]) -> Prompt:
    """Return the question in a sample's row, with its pictures.

    Args:
        columns: ``raw_prompt`` has the messages. ``extra_info`` may have another ``question`` for the judge, and the
            pictures as ``images`` if neither the messages nor ``multi_modal_data`` have them.

    Raises:
        ValueError: there is no prompt, or its pictures do not match its places.
    """
    messages = columns.get("raw_prompt")
    if messages is None:
        raise ValueError("a sample has no raw_prompt, so its question is unknown")
    info = _mapping(columns.get("extra_info"))
    turns = read_turns(list(messages))
    held = any(not isinstance(piece, str) and piece.source is not None for turn in turns for piece in turn.pieces)
    media = _mapping(columns.get("multi_modal_data"))
    unseen = [name for name, given in media.items() if name not in ("images", "image") and given is not None]
    unseen = [name for name in unseen if len(media[name])]
    if unseen:
        raise PromptError(f"a prompt has {', '.join(unseen)}, but the judge supports only text and images")
    beside = [] if held else pictures_in(media) or pictures_in(info)
    return _ask(turns, _question(info), beside)


def read_ids(columns: Mapping[str, Any]) -> tuple[str, str]:
    """Return the ids of a sample's group and of the sample in it.

    verl 0.9 numbers the samples of a prompt (``session_id``), so a sample sent again is recognized. Older trainers do
    not; the random id drawn here only distinguishes the sample from its siblings.
    """
    group, session = columns.get("uid"), columns.get("session_id")
    if group is None:
        raise ValueError("a sample has no uid, so its group is unknown")
    return str(group), uuid.uuid4().hex if session is None else str(session)


def _ask(turns: list[Any], question: Any, pictures: list[Any]) -> Prompt:
    try:
        return ask(turns or [read_turn("user", question)], pictures, question if turns else None)
    except PromptError as error:
        advice = f"; {_WHERE}" if isinstance(error, WrongPictures) else ""
        raise type(error)(f"a prompt {error}{advice}") from error


def _question(info: Mapping[str, Any]) -> Any:
    """Return a row's question for the judge: text, or parts (an array in parquet files); None if there is none."""
    question: Any = info.get("question")
    parts = list(question) if hasattr(question, "tolist") else question
    return None if parts is None or len(parts) == 0 else parts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

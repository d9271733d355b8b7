"""verl itself: its settings, its loading of our classes, its workers on Ray and its agent loop's path to the reward."""

from __future__ import annotations

import asyncio
import inspect
import io
from types import SimpleNamespace

import pytest

pytest.importorskip("verl", reason="verl is not installed: make plugs ARGS=verl")

import numpy as np
import ray
import torch
from datasets import Dataset, Features, Image, List, Value
from hydra import compose, initialize_config_module
from PIL import Image as Pillow
from served import ScriptedJudge, Served
from tensordict import NonTensorData, NonTensorStack, TensorDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, AgentLoopWorker
from verl.experimental.reward_loop import RewardLoopManager, migrate_legacy_reward_impl
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo.reward import load_reward_manager, resolve_reward_manager_cls
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils import hf_processor, hf_tokenizer
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

from r1_reward.records.schema import Completion
from r1_reward.serve.chats import WrongPictures
from r1_reward.serve.dialects.verl import R1RewardManager
from r1_reward.serve.judge_client import JudgeFailed

PLUG = "pkg://r1_reward.serve.dialects.verl"
GROUPS = (
    "reward.reward_manager.source=importlib",
    f"reward.reward_manager.module.path={PLUG}",
    "reward.reward_manager.name=R1RewardManager",
)
ONE_BY_ONE = (
    f"reward.custom_reward_function.path={PLUG}",
    "reward.custom_reward_function.name=compute_score",
)
NO_VALIDATION = ("trainer.val_before_train=False", "trainer.test_freq=-1")
QUESTION = "<image>Which number?"
KEYS = {"score", "scored", "why"}


class Silenced(ScriptedJudge):
    """A judge that gives no verdict if one of the answers is spam."""

    def judge(self, question, first, second, seed, temperature):
        if "spam" in first + second:
            return Completion(text="I would not say.", tokens=4)
        return super().judge(question, first, second, seed, temperature)


@pytest.fixture
def server():
    with Served(Silenced(), group_wait=20) as served:
        yield served


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    """A byte tokenizer, so that a response can be any text."""
    vocabulary = {sign: number for number, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytes_of_text = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_of_text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_of_text.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("tokenizer")
    signs = {"eos_token": "<eos>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=bytes_of_text, **signs).save_pretrained(folder)
    return folder


@pytest.fixture
def settings(checkpoint, tokenizer_folder, server):
    """A function that takes overrides and returns verl's own configuration with them and the judge's server."""

    def configure(*overrides, ways=GROUPS, url=f"http://127.0.0.1:{server.port}"):
        where = "reward.reward_kwargs" if ways is GROUPS else "reward.custom_reward_function.reward_kwargs"
        given = [
            *ways,
            f"+{where}.url={url}",
            f"+{where}.timeout=60",
            "reward.num_workers=2",
            f"actor_rollout_ref.model.path={checkpoint}",
            f"actor_rollout_ref.model.tokenizer_path={tokenizer_folder}",
            *overrides,
        ]
        with initialize_config_module("verl.trainer.config", version_base=None):
            return migrate_legacy_reward_impl(compose("ppo_trainer", overrides=given))

    return configure


@pytest.fixture
def manager(settings, tokenizer_folder):
    """A function that takes overrides and returns our manager as verl loads it."""
    return lambda *overrides, **keywords: load_reward_manager(
        settings(*overrides, **keywords), hf_tokenizer(str(tokenizer_folder))
    )


@pytest.fixture(scope="module")
def workers():
    """Ray on this machine; a function that takes a configuration and starts verl's manager of reward workers."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    started = []

    def start(config):
        while started:
            for worker in started.pop().reward_loop_workers:
                ray.kill(worker)
        started.append(RewardLoopManager(config))
        return started[-1]

    yield start
    ray.shutdown()


def png(width):
    file = io.BytesIO()
    Pillow.new("RGB", (width, 56), "white").save(file, "PNG")
    return file.getvalue()


def row(width=None, *, question=QUESTION, answer="2", **extra):
    """Return a row as verl's scripts write it, with a picture of a given width."""
    return {
        "data_source": "numbers",
        "prompt": [{"role": "user", "content": question}],
        "images": [] if width is None else [{"bytes": png(width), "path": None}],
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"index": 0, "split": "train", **extra},
    }


def prompts(rows, config, folder):
    """Return an agent-loop worker's inputs: rows read by verl's data set and split as its trainer and worker do."""
    features = Features(
        {
            "data_source": Value("string"),
            "prompt": List({"role": Value("string"), "content": Value("string")}),
            "images": List(Image(decode=False)),
            "reward_model": {"style": Value("string"), "ground_truth": Value("string")},
            "extra_info": {name: Value("int64" if name == "index" else "string") for name in rows[0]["extra_info"]},
        }
    )
    file = folder / "rows.parquet"
    Dataset.from_list(rows, features=features).to_parquet(file)
    model = config.actor_rollout_ref.model
    config.data.filter_overlong_prompts = False
    read = RLHFDataset([str(file)], hf_tokenizer(model.tokenizer_path), config.data, hf_processor(model.path))
    batch = collate_fn([read[place] for place in range(len(rows))])
    batch["uid"] = np.array([f"uid-{place}-{folder.name}" for place in range(len(rows))], dtype=object)
    table = tu.get_tensordict(batch)
    tu.assign_non_tensor_data(table, "global_steps", 1)
    return [
        {name: _element(column, place) for name, column in chunk.items()}
        for chunk in table.chunk(len(rows))
        for place in range(len(chunk))
    ]


def _element(column, place):
    if isinstance(column, NonTensorData):
        return column.data
    return column[place].data if isinstance(column, NonTensorStack) else column[place]


class Loop(agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """verl's agent-loop worker with a scripted policy."""

    def __init__(self, config, reward_workers, policy):
        self.config, self.reward_loop_worker_handles, self._policy = config, reward_workers, policy
        self._tokenizer = hf_tokenizer(config.actor_rollout_ref.model.tokenizer_path)
        self.answers, self.statuses = {}, {}

    async def _run_agent_loop(self, sampling_params, trajectory, *, trace=True, **columns):
        await asyncio.sleep(0.05 * columns["session_id"])  # samples do not finish together
        tokens = self._tokenizer.encode(self._policy(columns["uid"], columns["session_id"]))
        output = AgentLoopOutput(
            prompt_ids=[1, 2, 3],
            response_ids=tokens,
            response_mask=[1] * len(tokens),
            metrics=AgentLoopMetrics(),
            num_turns=2,
        )
        await self._compute_score([output], kwargs=columns)
        self.answers[columns["uid"], columns["session_id"]] = output

    def _compute_multi_modal_inputs(self, output, input_ids):
        return {}

    def _compute_position_ids(self, input_ids, attention_mask, *_):
        return torch.arange(input_ids.shape[1])[None]

    def _get_mm_processor_kwargs(self, audios=None):
        return {}


def roll_out(config, reward_workers, rows, policy, monkeypatch, *, validate=False):
    """Run the samples of prompts through verl's worker; return it and the rewards."""
    loop = Loop(config, reward_workers, policy)

    async def put(key, partition_id, tag):
        loop.statuses[key] = tag["status"]

    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_put", put)

    async def run():
        await asyncio.gather(*(loop._run_prompt(dict(one), {}, {"validate": validate}) for one in rows))

    asyncio.run(run())
    return loop


def proto(*samples):
    """Return samples, each a dict of columns and its ``response``, in the form verl's trainer passes on."""
    length = max(len(sample["response"]) for sample in samples)
    masks = [[1] * 3 + [1] * len(one["response"]) + [0] * (length - len(one["response"])) for one in samples]
    responses = [[*one["response"], *[0] * (length - len(one["response"]))] for one in samples]
    tensors = {
        "prompts": torch.ones(len(samples), 3, dtype=torch.int64),
        "responses": torch.tensor(responses),
        "attention_mask": torch.tensor(masks),
    }
    columns = {name for sample in samples for name in sample} - {"response"}
    others = {name: np.empty(len(samples), dtype=object) for name in columns}
    for name, column in others.items():
        column[:] = [sample.get(name) for sample in samples]
    return DataProto(batch=TensorDict(tensors, batch_size=len(samples)), non_tensor_batch=others)


def test_what_we_rely_on_is_still_there(settings):
    assert list(inspect.signature(RewardManagerBase.__init__).parameters) == [
        "self", "config", "tokenizer", "compute_score",
    ]  # fmt: skip
    ours, theirs = (inspect.signature(one.__init__).parameters for one in (R1RewardManager, NaiveRewardManager))
    assert list(ours) == list(theirs)
    assert inspect.iscoroutinefunction(RewardManagerBase.run_single)
    assert list(inspect.signature(RewardManagerBase.run_single).parameters) == ["self", "data"]
    parameters = list(inspect.signature(AgentLoopWorker._compute_score).parameters)
    assert parameters[:3] == ["self", "outputs", "kwargs"]  # Ray adds one
    config = settings()
    assert resolve_reward_manager_cls(config) is R1RewardManager
    assert (config.actor_rollout_ref.rollout.n, config.actor_rollout_ref.rollout.val_kwargs.n) == (1, 1)
    assert {"val_before_train", "test_freq", "val_only"} <= set(config.trainer)
    assert config.reward.num_workers == 2
    assert config.trainer.use_v1


def test_groups_on_ray_keep_questions_about_different_pictures_apart(server, settings, workers, tmp_path, monkeypatch):
    config = settings("actor_rollout_ref.rollout.n=4", *NO_VALIDATION)
    rows = prompts([row(56), row(84)], config, tmp_path)
    first, second = (one["uid"] for one in rows)

    def policy(uid, session):
        return f"{'first' if uid == first else 'second'} says {session if uid == first else 3 - session}"

    loop = roll_out(config, workers(config).reward_loop_worker_handles, rows, policy, monkeypatch)
    assert loop.statuses == {first: "finished", second: "finished"}
    earned = [[loop.answers[uid, place].reward_score for place in range(4)] for uid in (first, second)]
    assert earned[0] == pytest.approx([-0.8, -0.8 / 3, 0.8 / 3, 0.8])
    assert earned[1] == pytest.approx(earned[0][::-1])
    assert all(set(one.extra_fields["reward_extra_info"]) == KEYS for one in loop.answers.values())
    for (question, one, other), images in zip(server.judge.seen, server.judge.images, strict=True):
        assert question == "Which number?"
        assert (one.split()[0], other.split()[0], images) in [
            ("first", "first", [(56, 56)]),
            ("second", "second", [(84, 56)]),
        ]


def test_spam_and_too_long_answers_earn_the_worst_and_their_siblings_are_judged(
    settings, workers, tmp_path, monkeypatch
):
    config = settings("actor_rollout_ref.rollout.n=5", *NO_VALIDATION)
    rows = prompts([row(56)], config, tmp_path)
    texts = ["says 1", "spam spam spam", "x" * 51_000, "", "says 2"]
    loop = roll_out(config, workers(config).reward_loop_worker_handles, rows, lambda _, i: texts[i], monkeypatch)
    (uid,) = loop.statuses
    assert loop.statuses[uid] == "finished"
    told = [loop.answers[uid, place].extra_fields["reward_extra_info"] for place in range(5)]
    assert [set(one) for one in told] == [KEYS] * 5
    assert [one["scored"] for one in told] == [1, 0, 0, 1, 1]
    assert [loop.answers[uid, place].reward_score for place in range(5)] == pytest.approx([0, -1, -1, -0.8, 0.8])
    assert "51,000" in told[2]["why"] or "51000" in told[2]["why"]


@pytest.mark.parametrize("question", ["<image>Whose judge fails?", "<image>" + "far too long " * 10_000])
def test_a_judge_that_fails_or_refuses_masks_only_that_prompt(settings, workers, tmp_path, monkeypatch, question):
    config = settings("actor_rollout_ref.rollout.n=2", *NO_VALIDATION)
    rows = prompts([row(56), row(56, question=question)], config, tmp_path)
    handles = workers(config).reward_loop_worker_handles
    loop = roll_out(config, handles, rows, lambda _, session: f"says {session}", monkeypatch)
    assert list(loop.statuses.values()) == ["finished", "failure"]
    assert {uid for uid, _ in loop.answers} == {rows[0]["uid"]}


def test_one_sample_in_validation_is_compared_with_the_reference(server, settings, workers, tmp_path, monkeypatch):
    config = settings("actor_rollout_ref.rollout.n=4")
    rows = prompts([row(56, split="test"), row(84, split="test", answer="7")], config, tmp_path)
    handles = workers(config).reward_loop_worker_handles
    loop = roll_out(config, handles, rows, lambda *_: "says 3", monkeypatch, validate=True)
    assert [loop.answers[one["uid"], 0].reward_score for one in rows] == pytest.approx([0.8, -0.8])
    assert {size for images in server.judge.images for size in images} == {(56, 56), (84, 56)}


def test_compute_score_on_ray(server, settings, workers):
    config = settings("+reward.custom_reward_function.reward_kwargs.both_orders=false", ways=ONE_BY_ONE)
    texts = [b"says 1", b"says 2", b"says 3", b"spam " * 40, b"x" * 51_000]
    picture = {"bytes": png(56)}
    samples = [
        {
            "response": list_of_bytes(text, config),
            "data_source": "numbers",
            "reward_model": {"ground_truth": "says 2"},
            "extra_info": {"question": QUESTION, "images": [picture]},
        }
        for text in texts
    ]
    answer = workers(config).compute_rm_score(proto(*samples))
    assert answer.batch["rm_scores"].sum(-1).tolist() == pytest.approx([-0.8, 0, 0.8, -1, -1])
    assert set(answer.meta_info["reward_extra_keys"]) == KEYS
    assert answer.non_tensor_batch["scored"].tolist() == [1, 1, 1, 0, 0]
    # Two that can be compared, the first one twice, since verl pads the batch for its two workers, and the spam.
    assert server.judge.images == [[(56, 56)]] * 4


def list_of_bytes(text, config):
    return hf_tokenizer(config.actor_rollout_ref.model.tokenizer_path).encode(text.decode())


def single(manager, response="says 3", **columns):
    """Return the reward of one sample without Ray; verl's manager runs in its own loop."""
    given = {
        "response": manager.tokenizer.encode(response),
        "uid": "uid-alone",
        "session_id": 0,
        "data_source": "numbers",
        "raw_prompt": [{"role": "user", "content": "Which number?"}],
        "reward_model": {"ground_truth": "says 2"},
        "extra_info": {"split": "train"},
        **columns,
    }
    return manager.loop.run_until_complete(manager.run_single(proto(given)))


def test_incomplete_rows_raise_and_say_what_to_set(manager):
    lone = manager(*NO_VALIDATION)  # rollout.n is 1
    assert single(lone)["reward_score"] == pytest.approx(0.8)
    for nothing in (None, "", "  "):
        with pytest.raises(ValueError, match=r"rollout\.n"):
            single(lone, reward_model={"ground_truth": nothing})
    mixed = manager("actor_rollout_ref.rollout.n=4")
    assert single(mixed, extra_info={"split": "test"})["reward_score"] == pytest.approx(0.8)
    for info in ({}, None, {"split": ""}):
        with pytest.raises(ValueError, match=r"extra_info\.split.*test_freq"):
            single(mixed, extra_info=info)
    with pytest.raises(ValueError, match="uid"):
        single(manager("actor_rollout_ref.rollout.n=4", *NO_VALIDATION), uid=None)


def test_a_prompt_without_its_picture_is_refused(server, manager):
    lone = manager(*NO_VALIDATION)
    for content in ("<image>Which?", [{"type": "image"}, {"type": "text", "text": "Which?"}]):
        with pytest.raises(WrongPictures, match="none came"):
            single(lone, raw_prompt=[{"role": "user", "content": content}])
    assert not server.judge.seen


def test_a_server_that_cannot_be_reached_raises(manager, server):
    server.stop()
    lone = manager(*NO_VALIDATION, url="http://127.0.0.1:9")
    with pytest.raises(JudgeFailed, match=r"127\.0\.0\.1:9"):
        single(lone)


def test_a_repeated_sample_earns_the_same(server, manager):
    two = manager("actor_rollout_ref.rollout.n=2", *NO_VALIDATION)

    async def run(*samples):
        ready = [proto({**sample, "response": two.tokenizer.encode(sample["response"])}) for sample in samples]
        return await asyncio.gather(*(two.run_single(one) for one in ready))

    sample = {"uid": "again", "raw_prompt": [{"role": "user", "content": "Which number?"}], "extra_info": {}}
    samples = [{**sample, "session_id": place, "response": f"says {place}"} for place in range(2)]
    first = two.loop.run_until_complete(run(*samples, samples[0]))
    assert [one["reward_score"] for one in first] == pytest.approx([-0.8, 0.8, -0.8])
    judged = len(server.judge.seen)
    assert two.loop.run_until_complete(run(samples[1]))[0]["reward_score"] == pytest.approx(0.8)
    assert len(server.judge.seen) == judged


def test_a_group_that_stays_incomplete_raises(settings, tokenizer_folder):
    with Served(ScriptedJudge(), group_wait=0.3) as server:
        config = settings("actor_rollout_ref.rollout.n=3", *NO_VALIDATION, url=f"http://127.0.0.1:{server.port}")
        three = load_reward_manager(config, hf_tokenizer(str(tokenizer_folder)))
        with pytest.raises(JudgeFailed, match="1 of 3 responses"):
            single(three)


def test_scores_without_a_lower_bound_need_worst(manager):
    logits = "+reward.reward_kwargs.kind=bradley_terry"
    with pytest.raises(ValueError, match="worst"):
        manager(logits, *NO_VALIDATION)
    lone = manager(logits, "+reward.reward_kwargs.worst=-6", *NO_VALIDATION)
    assert single(lone, "spam")["reward_score"] == -6
    assert SimpleNamespace(**single(lone)["reward_extra_info"]).scored == 1

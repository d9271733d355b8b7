"""The ms-swift plug-in without ms-swift: its rewards for swift's rows, with real servers behind it."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import json
import logging
import subprocess
import sys
import threading
import types
import uuid
from pathlib import Path

import pytest
from served import Served
from swift_rows import BLACK, WHITE, Witness, columns_of, completions_of, row

from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.serve.judge_client import JudgeFailed


class Args:
    """The fields of swift's GRPOConfig that the plug-in reads."""

    num_generations, num_generations_eval = 2, None


@pytest.fixture
def swift(monkeypatch):
    """The plug-in, loaded with stand-ins for what it imports from ms-swift: a base class and two tables."""
    rewards = types.ModuleType("swift.rewards")
    rewards.AsyncORM = type("AsyncORM", (), {"__init__": lambda self, args=None, **_: setattr(self, "args", args)})
    rewards.orms, rewards.rm_plugins = {}, {}
    monkeypatch.setitem(sys.modules, "swift", types.ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    monkeypatch.delitem(sys.modules, "r1_reward.serve.dialects.swift", raising=False)
    for name in ("SERVER", "MODEL", "BASE_URL", "OPTIONS", "GROUP_SIZE", "API_KEY"):
        monkeypatch.delenv(f"R1_REWARD_{name}", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    yield importlib.import_module("r1_reward.serve.dialects.swift")
    sys.modules.pop("r1_reward.serve.dialects.swift", None)


@pytest.fixture(scope="module")
def served():
    with Served(Witness()) as server:
        yield server


@pytest.fixture
def judge(served, monkeypatch):
    monkeypatch.setenv("R1_REWARD_SERVER", f"http://127.0.0.1:{served.port}")
    served.judge.asked.clear()
    return served.judge


def ask(orm, rows):
    return asyncio.run(orm(completions_of(rows), **columns_of(rows), trainer_state=object()))


def test_it_registers_both_plug_ins(swift):
    rewards = sys.modules["swift.rewards"]
    assert rewards.orms == {"r1_reward": swift.R1Reward}
    assert rewards.rm_plugins == {"r1_reward": swift.R1RewardPlugin}


def test_completions_of_a_prompt_are_judged_against_each_other(swift, judge):
    rows = [row("Q?", text, prompt_id="prompt_0") for text in ("a", "aa")]
    rows += [row("R?", text, prompt_id="prompt_1") for text in ("bbb", "b")]
    assert ask(swift.R1Reward(args=Args()), rows) == pytest.approx([-0.8, 0.8, 0.8, -0.8])
    assert {(question, first[0], second[0]) for question, first, second, _ in judge.asked} == {
        ("Q?", "a", "a"),
        ("R?", "b", "b"),
    }


def saved(picture, folder):
    path = folder / f"{picture.getpixel((0, 0))[0]}.png"
    picture.save(path)
    return str(path)


def encoded(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


FORMS = [
    lambda picture, folder: {"bytes": None, "path": saved(picture, folder)},
    lambda picture, folder: {"bytes": encoded(picture), "path": None},
    lambda picture, folder: {"bytes": encoded(picture), "path": "gone.png"},
    lambda picture, folder: saved(picture, folder),
    lambda picture, folder: picture,
    lambda picture, folder: "data:image/png;base64," + base64.b64encode(encoded(picture)).decode(),
    lambda picture, folder: base64.b64encode(encoded(picture)).decode(),
]


@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("order", ["one after the other", "interleaved"])
def test_equal_questions_about_different_pictures_are_different_groups(swift, judge, tmp_path, form, order):
    # swift derives prompt_id from the messages alone, so these four share it.
    light, dark = (FORMS[form](picture, tmp_path) for picture in (WHITE, BLACK))
    rows = [row("<image>Which?", text, images=[picture]) for picture in (light, dark) for text in ("a", "aa")]
    wanted = [-0.8, 0.8, 0.8, -0.8]
    places = [0, 1, 2, 3] if order == "one after the other" else [0, 2, 1, 3]
    rewards = ask(swift.R1Reward(args=Args()), [rows[place] for place in places])
    assert rewards == pytest.approx([wanted[place] for place in places])
    assert {(question, *seen) for question, _, _, seen in judge.asked} == {("Which?", 255), ("Which?", 0)}


@pytest.mark.parametrize(
    ("question", "pictures", "asked"),
    [
        ("<image>Which?", [WHITE], "Which?"),
        ("<image>\nWhich?", [WHITE], "Which?"),
        ("Which?", [WHITE], "Which?"),
        ("Which? <image>", [WHITE], "Which? [image]"),
        ("<image><image>Which?", [WHITE, BLACK], "Which?"),
        ("Is <image> older than <image>?", [WHITE, BLACK], "Is [image] older than [image]?"),
        ("<|vision_start|><|image_pad|><|vision_end|>Which?", [WHITE], "Which?"),
        ([{"type": "image"}, {"type": "text", "text": "Which?"}], [WHITE], "Which?"),
        ([{"type": "text", "text": "<image>Which?"}], [WHITE], "Which?"),
    ],
)
def test_tags_never_reach_the_question_and_pictures_do(swift, judge, question, pictures, asked):
    rows = [row(question, text, images=pictures) for text in ("a", "aa")]
    rewards = ask(swift.R1Reward(args=Args()), rows)
    assert None not in rewards
    assert {(seen, *light) for seen, _, _, light in judge.asked} == {
        (asked, *(picture.getpixel((0, 0))[0] for picture in pictures))
    }


BEFORE = [{"role": "user", "content": "<image>What is this?"}, {"role": "assistant", "content": "A three."}]


def test_earlier_turns_precede_the_question_with_their_pictures(swift, judge):
    rows = [row("And <image>?", text, images=[WHITE, BLACK], before=BEFORE) for text in ("a", "aa")]
    ask(swift.R1Reward(args=Args()), rows)
    assert {(asked, *light) for asked, _, _, light in judge.asked} == {
        ("user: [image]What is this?\n\nassistant: A three.\n\nAnd [image]?", 255, 0)
    }


def test_the_column_question_is_the_question(swift, judge):
    rows = [row("<image>Which? Answer in a word.", text, images=[WHITE]) for text in ("a", "aa")]
    rows = [{**one, "question": "Which?"} for one in rows]
    ask(swift.R1Reward(args=Args()), rows)
    assert {(asked, *light) for asked, _, _, light in judge.asked} == {("Which?", 255)}


@pytest.mark.parametrize(
    "columns",
    [
        {"question": "<image>Which?"},
        {"question": "<image>Which?<image>", "images": [WHITE]},
        {"question": "<image>Which?", "images": [WHITE, BLACK]},
        {"question": "<|image_pad|>Which?"},
        {"question": [{"type": "image"}, {"type": "text", "text": "Which?"}]},
        {"question": "What does the tag <image> mean?"},
        {"question": "<video>Which?"},
        {"question": "<video>Which?", "videos": ["film.mp4"]},
        {"question": "Which?", "videos": ["film.mp4"]},
        {"question": "Which word is said?", "audios": ["talk.wav"]},
        {"question": "Which is in <bbox>?", "objects": {"bbox": [[1, 2, 3, 4]]}},
        {"question": "And now?", "before": BEFORE},
        {"question": "", "images": [WHITE]},
    ],
)
def test_nothing_is_judged_blind(swift, judge, columns):
    rows = [row(completion=text, **columns) for text in ("a", "aa")]
    with pytest.raises(UserError, match="row 1 of the batch"):
        ask(swift.R1Reward(args=Args()), rows)
    assert judge.asked == []


@pytest.mark.parametrize("spoiled", ["gibberish", "gibberish " * 20, "x" * 60_000, "x" * 1_000_000])
@pytest.mark.parametrize("kind", ["win_rate", "bradley_terry"])
def test_an_answer_that_silences_the_judge_has_the_worst_reward(swift, judge, spoiled, kind):
    Four = type("Four", (), {"num_generations": 4})
    rows = [row("Q?", text) for text in ("a", spoiled, "aa", "aaa")]
    low, silent, middle, high = ask(swift.R1Reward(args=Four(), kind=kind), rows)
    assert low < middle < high
    assert silent == (-1.0 if kind == "win_rate" else low)


def test_a_group_without_a_single_reward_has_none(swift, judge):
    rows = [row("Q?", text) for text in ("gibberish 1", "gibberish 2")]
    rows += [row("R?", text, prompt_id="prompt_1") for text in ("a", "aa")]
    assert ask(swift.R1Reward(args=Args()), rows) == [None, None, pytest.approx(-0.8), pytest.approx(0.8)]


def test_an_empty_answer_is_judged(swift, judge):
    rows = [row("Q?", text) for text in (" \n", "a much longer answer than none")]
    assert ask(swift.R1Reward(args=Args()), rows) == pytest.approx([-0.8, 0.8])
    assert {"(empty response)"} < {text for _, first, second, _ in judge.asked for text in (first, second)}


def test_a_failed_judge_masks_its_group_and_a_wholly_failed_batch_raises(swift, judge, caplog):
    failing = [row("down?", text) for text in ("a", "aa")]
    good = [row("Q?", text, prompt_id="prompt_1") for text in ("a", "aa")]
    with caplog.at_level(logging.WARNING):
        rewards = ask(swift.R1Reward(args=Args()), failing + good)
    assert rewards == [None, None, pytest.approx(-0.8), pytest.approx(0.8)]
    assert "1 of 2 groups were not judged" in caplog.text
    with pytest.raises(JudgeFailed):
        ask(swift.R1Reward(args=Args()), failing)


def test_rows_of_one_request_share_its_reward(swift, judge):
    # Multi-turn rollouts may give one request several rows; swift refuses different rewards within a request.
    rows = [row("Q?", text, request_id=name) for name, text in [("x", "aaaa"), ("y", "aa"), ("x", "a")]]
    assert ask(swift.R1Reward(args=Args()), rows) == pytest.approx([-0.8, 0.8, -0.8])
    assert {text for _, first, second, _ in judge.asked for text in (first, second)} == {"a", "aa"}


def test_turns_that_the_policy_wrote_are_not_part_of_the_prompt(swift, judge):
    def played(first, answer):
        own = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": first}]
        return row("The tool says 4.", answer, before=own)

    assert ask(swift.R1Reward(args=Args()), [played("I ask.", "a"), played("Ask it.", "aa")]) == pytest.approx(
        [-0.8, 0.8]
    )
    assert {question for question, *_ in judge.asked} == {"Q?"}


def test_repeated_prompts_are_split_at_num_generations(swift, judge):
    rows = [row("Q?", text) for text in ("a", "aa", "aaa", "aaaa")]
    assert ask(swift.R1Reward(args=Args()), rows) == pytest.approx([-0.8, 0.8, -0.8, 0.8])


def test_evaluation_may_have_groups_of_another_size(swift, judge):
    args = type("Both", (), {"num_generations": 4, "num_generations_eval": 3})()
    rewards = ask(swift.R1Reward(args=args), [row("Q?", text) for text in ("a", "aaa", "aa")])
    assert rewards == pytest.approx([-0.8, 0.8, 0.0], abs=1e-9)


def test_a_split_group_has_no_reward_and_one_warning(swift, judge, caplog):
    orm = swift.R1Reward(args=Args())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert ask(orm, [row("Q?", text) for text in ("a", "aa", "aaa")]) == [None] * 3
    assert caplog.text.count("3 completions of one prompt, not 2 or a multiple of it") == 1
    assert judge.asked == []


def together(orms, *prompts):
    """Return each process's rewards for its part of some prompts' completions."""
    found = [None] * len(orms)

    def one(place):
        rows = [row("Q?", text, prompt_id=str(n)) for n, parts in enumerate(prompts) for text in parts[place]]
        found[place] = ask(orms[place], rows)

    threads = [threading.Thread(target=one, args=(place,)) for place in range(len(orms))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def processes(swift, monkeypatch, count, **given):
    """Return the ORMs of several processes that share the id of their run."""
    utils = importlib.import_module("accelerate.utils")
    run = uuid.uuid4().hex  # tests share a server
    monkeypatch.setattr(utils, "broadcast_object_list", lambda ids: ids.__setitem__(0, run))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    return [swift.R1Reward(args=type("Some", (), {"num_generations": 4, **given})()) for _ in range(count)]


def test_a_split_group_is_reunited_on_the_server(swift, judge, monkeypatch):
    orms = processes(swift, monkeypatch, 2)
    for step in range(2):  # prompt ids start again in every step
        texts = ["a", "aaa", "aa", "aaaa"] if step == 0 else ["aaaa", "a", "aaa", "aa"]
        parts = [[row("<image>Q?", text, images=[WHITE]) for text in texts[:2]]]
        parts += [[row("<image>Q?", text, images=[WHITE]) for text in texts[2:]]]
        found = [None, None]

        def one(place, orms=orms, parts=parts, found=found):
            found[place] = ask(orms[place], parts[place])

        threads = [threading.Thread(target=one, args=(place,)) for place in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        by_length = {1: -0.8, 2: -0.8 / 3, 3: 0.8 / 3, 4: 0.8}
        assert [*found[0], *found[1]] == pytest.approx([by_length[len(text)] for text in texts])


@pytest.mark.parametrize("options", [{}, {"kind": "bradley_terry", "worst": -5}])
def test_spam_alone_in_its_process_has_the_worst_reward_and_no_zero(swift, judge, monkeypatch, options):
    monkeypatch.setenv("R1_REWARD_OPTIONS", json.dumps(options))
    found = together(processes(swift, monkeypatch, 2), [["gibberish"], ["a", "aa", "aaa"]])
    assert found[0] == [options.get("worst", -1.0)]
    assert None not in found[1] and found[1] == sorted(found[1])


def test_split_groups_of_rewards_without_a_lower_bound_need_worst(swift, judge, monkeypatch):
    monkeypatch.setenv("R1_REWARD_OPTIONS", '{"kind": "bradley_terry"}')
    with pytest.raises(UserError, match="R1_REWARD_OPTIONS: .*no lower bound; set worst .*several processes"):
        processes(swift, monkeypatch, 2)


@pytest.mark.parametrize("counts", [(6, 2), (5, 3), (1, 7), (4, 4), (8, 4), (6, 6)])
def test_a_prompt_that_is_in_the_batch_several_times_is_split_only_once(swift, judge, monkeypatch, counts):
    parts = [["a" * (1 + place) for place in range(count)] for count in counts]
    found = together(processes(swift, monkeypatch, 2), parts)
    assert all(None not in rewards for rewards in found)


@pytest.mark.parametrize("evaluation", [2, 3, 1])
def test_half_a_training_group_is_not_an_evaluation_group(swift, judge, monkeypatch, evaluation):
    given = {"num_generations": 6, "num_generations_eval": evaluation, "generation_batch_size": 12}
    orms = processes(swift, monkeypatch, 2, **given)
    rows = [["aaaaaa", "aaaaa", "aaaa"], ["aaa", "aa", "a"]]
    other = [[f"{text}!" for text in part] for part in rows]
    found = together(orms, rows, other)
    assert found[0] == pytest.approx([0.8, 0.48, 0.16] * 2)
    assert found[1] == pytest.approx([-0.16, -0.48, -0.8] * 2)


def test_several_processes_need_a_size(swift, judge, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="R1_REWARD_GROUP_SIZE"):
        swift.R1Reward()


URL = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no judge: set R1_REWARD_SERVER"),
        ({"R1_REWARD_SERVER": URL, "R1_REWARD_OPTIONS": "votes=3"}, "must be a JSON object"),
        ({"R1_REWARD_SERVER": URL, "R1_REWARD_OPTIONS": "[3]"}, 'such as {"votes": 3}'),
        ({"R1_REWARD_MODEL": "m", "R1_REWARD_BASE_URL": URL, "R1_REWARD_OPTIONS": '{"vote": 3}'}, "unknown vote"),
        ({"R1_REWARD_MODEL": "m", "R1_REWARD_BASE_URL": URL, "R1_REWARD_OPTIONS": '{"kind": "rank"}'}, "kind"),
        ({"R1_REWARD_MODEL": "m", "R1_REWARD_BASE_URL": URL, "R1_REWARD_OPTIONS": '{"votes": 0}'}, "votes"),
        ({"R1_REWARD_SERVER": URL, "R1_REWARD_GROUP_SIZE": "four"}, "R1_REWARD_GROUP_SIZE"),
        ({"R1_REWARD_SERVER": URL, "R1_REWARD_GROUP_SIZE": "1"}, "must be 2 or more"),
        ({"R1_REWARD_SERVER": URL, "R1_REWARD_OPTIONS": '{"worst": "low"}'}, "worst must be a number"),
    ],
)
def test_invalid_settings_are_refused_at_the_start(swift, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        swift.R1Reward(args=Args())


def test_a_judge_behind_an_openai_server(swift, server, monkeypatch):
    monkeypatch.setenv("R1_REWARD_MODEL", "judge")
    monkeypatch.setenv("R1_REWARD_BASE_URL", server.url)
    monkeypatch.setenv("R1_REWARD_OPTIONS", json.dumps({"votes": 1, "both_orders": False, "concurrency": 2}))
    rows = [row("<image>Which?", text, images=[WHITE]) for text in ("a", "b")]
    rewards = ask(swift.R1Reward(args=Args()), rows)
    assert sorted(rewards) == [-0.5, 0.5], "one vote of one, counted"
    (request,) = server.bodies
    parts = request["messages"][-1]["content"]
    assert "<image>" not in json.dumps(request) and sum(part["type"] == "image_url" for part in parts) == 1


@pytest.mark.parametrize("spoiled", ["gibberish", "x" * 60_000, "endless"])
def test_a_judge_in_this_process_gives_the_same_rewards_as_one_behind_a_server(swift, monkeypatch, spoiled):
    rows = [row("<image>Which?", text, images=[WHITE]) for text in ("a", spoiled, "aa", "aaa")]
    rows += [row("R?", "x" * 60_000, prompt_id="prompt_1") for _ in range(4)]
    rows += [row("down?", text, prompt_id="prompt_2") for text in "abcd"]
    Four, model = type("Four", (), {"num_generations": 4}), RewardModel(Witness())
    monkeypatch.setenv("R1_REWARD_MODEL", "somewhere")
    monkeypatch.setattr(RewardModel, "from_pretrained", lambda path_or_hub_id: model)
    rewards = ask(swift.R1Reward(args=Four()), rows)
    assert rewards[:4] == [pytest.approx(-0.8), -1.0, pytest.approx(0), pytest.approx(0.8)]
    assert rewards[4:] == [None] * 8
    with pytest.raises(JudgeFailed, match="the judge stumbles"):
        ask(swift.R1Reward(args=Four()), rows[8:])


def test_the_plug_in_judges_with_the_model_that_swift_has_loaded(swift, tiny, monkeypatch):
    model, processor = tiny
    monkeypatch.setenv("R1_REWARD_OPTIONS", '{"max_new_tokens": 3}')
    seen = []
    engine = importlib.import_module("r1_reward.engines.in_process").TransformersEngine
    answer = engine._answer_all
    monkeypatch.setattr(engine, "_answer_all", lambda self, window: seen.extend(window) or answer(self, window))
    plug = swift.R1RewardPlugin(model=model, template=types.SimpleNamespace(processor=processor))
    rows = [row("<image>Which?", text, images=[picture]) for picture in (WHITE, BLACK) for text in ("a", "aa")]
    assert plug(inputs=rows, **columns_of(rows)) == [None] * 4, "an untrained model says nothing that can be read"
    assert len(seen) == 2 * 2, "two groups of two, in both orders"
    assert all(len(request.images) == 1 and "<image>" not in str(request.messages) for request in seen)


def test_its_folder_shadows_no_package(swift, monkeypatch):
    # swift puts the folder of an external plug-in first in sys.path, and this one's folder has an openai.py.
    folder = str(Path(swift.__file__).parent)
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    importlib.reload(swift)
    assert folder not in sys.path


def test_a_trainers_process_needs_only_httpx():
    program = """
import sys, types
for name in ("pydantic", "torch", "transformers", "datasets", "fastapi", "typer", "rich", "numpy"):
    sys.modules[name] = None
rewards = types.ModuleType("swift.rewards")
rewards.AsyncORM, rewards.orms, rewards.rm_plugins = object, {}, {}
sys.modules["swift"], sys.modules["swift.rewards"] = types.ModuleType("swift"), rewards
import r1_reward.serve.dialects.swift
print(*rewards.orms, *rewards.rm_plugins)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.split() == ["r1_reward", "r1_reward"], found.stderr

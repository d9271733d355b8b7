"""How the verl plug-in reads rows and answers; tests/plugs/test_verl.py runs verl itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from served import Served, ShortJudge, png

from r1_reward.records.schema import Completion
from r1_reward.serve.chats import PromptError, WrongPictures
from r1_reward.serve.dialects.verl import Sizes, compute_score, read_ids, read_prompt
from r1_reward.serve.judge_client import JudgeFailed, Scored
from r1_reward.serve.plugs import earned, judge_of, reference_of, shown

RED, BLUE = Image.new("RGB", (8, 4), "red"), Image.new("RGB", (4, 8), "blue")


class Silenced(ShortJudge):
    def judge(self, question, first, second, seed, temperature):
        if "eight eight" in first + second:
            return Completion(text="I would not say.", tokens=4)
        return super().judge(question, first, second, seed, temperature)


@pytest.fixture
def server():
    with Served(Silenced()) as served:
        yield served


@pytest.fixture
def score(server):
    """A function that returns verl's score of a solution against the reference "is 5"."""

    def ask(solution="is 7", reference="is 5", info=None, **options):
        info = {"question": "Which number?"} if info is None else info
        return asyncio.run(
            compute_score(
                data_source="numbers",
                solution_str=solution,
                ground_truth=reference,
                extra_info=info,
                **{"url": f"http://127.0.0.1:{server.port}", "timeout": 30, **options},
            )
        )

    return ask


def user(content):
    return {"raw_prompt": [{"role": "user", "content": content}]}


def image(source):
    return {"type": "image", "image": source}


def text(value):
    return {"type": "text", "text": value}


def test_pictures_of_the_prompt_are_found_in_every_form_of_verl():
    for source in (RED, "scenes/7.png", "https://example.org/7.png", "data:image/png;base64,AAAA"):
        assert shown(read_prompt(user([image(source), text("Which?")]))) == ("Which?", [source])
    opened = {"type": "image", "bytes": b"...", "path": None, "image": RED}  # verl opens the bytes in rows
    assert shown(read_prompt(user([opened, text("Which?")])))[1] == [RED]


def test_pictures_between_texts_stay_there():
    question, images = shown(read_prompt(user([text("Is "), image(RED), text(" older than "), image(BLUE), text("?")])))
    assert [part["type"] for part in question] == ["text", "image", "text", "image", "text"]
    assert images == [RED, BLUE]


def test_the_question_of_the_row_replaces_the_prompt_but_keeps_its_pictures():
    columns = {
        **user([image(RED), text("Which digit? Think step by step.")]),
        "extra_info": {"question": "<image>Which digit?"},
    }
    assert shown(read_prompt(columns)) == ("Which digit?", [RED])
    columns["extra_info"]["question"] = "Which digit?"
    assert shown(read_prompt(columns)) == ("Which digit?", [RED])
    columns["extra_info"]["question"] = "<image><image>Which digit?"
    with pytest.raises(WrongPictures):
        read_prompt(columns)


@pytest.mark.parametrize("beside", [{"multi_modal_data": {"images": [RED]}}, {"multi_modal_data": {"image": [RED]}}])
def test_pictures_beside_the_prompt(beside):
    info = {"extra_info": {"images": [BLUE]}}
    assert shown(read_prompt({**user("<image>Which?"), **beside, **info})) == ("Which?", [RED])
    assert shown(read_prompt({**user("<image>Which?"), **info})) == ("Which?", [BLUE])
    assert shown(read_prompt({**user([image(RED), text("Which?")]), **info})) == ("Which?", [RED])


@pytest.mark.parametrize(
    "content",
    [
        "<image>Which?",
        "<|vision_start|><|image_pad|><|vision_end|>Which?",
        [{"type": "image"}, text("Which?")],
        [image(RED), {"type": "image"}, text("Which?")],
        [image({"bytes": None, "path": None}), text("Which?")],
    ],
)
def test_a_prompt_without_its_pictures_is_refused_whatever_the_question_says(content):
    for info in ({}, {"question": "Which digit?"}, None):
        with pytest.raises(WrongPictures, match="all pictures that the policy saw, in the row"):
            read_prompt({**user(content), "extra_info": info})


@pytest.mark.parametrize(
    "content", [[{"type": "video", "video": "a.mp4"}, text("Which?")], [{"type": "audio", "audio": "a.wav"}], "  "]
)
def test_content_that_a_judge_cannot_be_shown_is_refused(content):
    with pytest.raises(PromptError):
        read_prompt(user(content))
    with pytest.raises(ValueError, match="raw_prompt"):
        read_prompt({"extra_info": {"question": "Which?"}})


@pytest.mark.parametrize(
    "media",
    [{"videos": [object()]}, {"images": [RED], "videos": [object()]}, {"audios": ["a.wav"]}, {"video": "a.mp4"}],
)
def test_media_beside_the_prompt_that_cannot_be_shown_are_refused(media):
    with pytest.raises(PromptError, match="video|audio"):
        read_prompt({**user("Which?"), "multi_modal_data": media})
    nothing = {name: None if name == "images" else [] for name in media}
    assert read_prompt({**user("Which?"), "multi_modal_data": nothing}).question == "Which?"


ROWS = [
    {"images": None, "image": "7.png"},
    {"images": [], "image": ["7.png"]},
    {"images": "", "image": "7.png"},
    {"images": np.array(["7.png"], dtype=object), "image": None},
    {"images": np.array(["7.png"])},
    {"images": ("7.png",)},
]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("question", ["Which?", "<image>Which?"])
def test_pictures_of_a_row_that_has_both_columns_or_arrays(row, question):
    assert shown(read_prompt({**user(question), "extra_info": row})) == ("Which?", ["7.png"])
    assert shown(read_prompt({**user(question), "multi_modal_data": row})) == ("Which?", ["7.png"])


@pytest.mark.parametrize("cell", [{"bytes": b"...", "path": None}, b"...", RED, np.zeros((4, 4, 3), "uint8")])
def test_one_picture_is_one_picture(cell):
    prompt = read_prompt({**user("<image>Which?"), "extra_info": {"images": cell}})
    assert len(prompt.images) == 1 and prompt.images[0] is cell


@pytest.mark.parametrize("kind", [list, lambda parts: np.array(parts, dtype=object)])
def test_a_question_in_parts(kind):
    parts = [text("Is "), {"type": "image"}, text(" old?")]
    columns = {**user([image(RED), text("Go.")]), "extra_info": {"question": kind(parts)}}
    assert [part["type"] for part in shown(read_prompt(columns))[0]] == ["text", "image", "text"]
    columns["extra_info"]["question"] = kind([])
    assert shown(read_prompt(columns)) == ("Go.", [RED])


def test_earlier_turns_precede_the_question():
    turns = [("system", "Be brief."), ("user", "Hello."), ("assistant", "Hi."), ("user", "Which?")]
    prompt = read_prompt({"raw_prompt": [{"role": role, "content": content} for role, content in turns]})
    assert prompt.question == "system: Be brief.\n\nuser: Hello.\n\nassistant: Hi.\n\nWhich?"


def test_ids_of_a_sample():
    assert read_ids({"uid": "a", "session_id": 0}) == read_ids({"uid": "a", "session_id": 0}) == ("a", "0")
    old = [read_ids({"uid": "a"}) for _ in range(2)]
    assert old[0][0] == old[1][0] == "a"
    assert old[0][1] != old[1][1], "siblings with the same text are two samples"
    with pytest.raises(ValueError, match="uid"):
        read_ids({"session_id": 0})


def settings(n, val_n, **trainer):
    rollout = SimpleNamespace(n=n, val_kwargs=SimpleNamespace(n=val_n))
    return SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout), trainer=trainer)


@pytest.mark.parametrize(
    ("config", "split", "size"),
    [
        (settings(8, 1), "train", 8),
        (settings(8, 1), "Train_2k", 8),
        (settings(8, 1), "test", 1),
        (settings(8, 4), "val", 4),
        (settings(8, 8), None, 8),
        (settings(8, 1, val_before_train=False, test_freq=-1), None, 8),
    ],
)
def test_how_many_samples_a_prompt_has(config, split, size):
    assert Sizes.of(config).of_row({} if split is None else {"split": split}) == size


@pytest.mark.parametrize(
    "trainer", [{}, {"test_freq": 5, "val_before_train": False}, {"val_only": True, "val_before_train": False}]
)
@pytest.mark.parametrize("split", [None, "", " ", 3])
def test_a_run_that_cannot_tell_training_from_validation_says_what_to_set(trainer, split):
    with pytest.raises(ValueError, match=r"8 samples in training and 1 in validation.*extra_info\.split"):
        Sizes.of(settings(8, 1, **trainer)).of_row({"split": split})


def test_scores_against_the_reference(server, score):
    assert [score(solution)["score"] for solution in ("is 7", "is 5", "is 4")] == pytest.approx([0.8, 0.0, -0.8])
    assert score("")["score"] == pytest.approx(-0.8)
    assert {frozenset(score(solution)) for solution in ("is 7", "eight eight")} == {
        frozenset({"score", "scored", "why"})
    }


@pytest.mark.parametrize("times", [2, 20, 200, 2_000])
def test_silencing_the_judge_earns_the_worst(score, times):
    assert score("eight " * times) == {
        "score": -1.0,
        "scored": 0.0,
        "why": "no comparison with a different response could be read",
    }


@pytest.mark.parametrize("length", [50_001, 51_000, 300_000])
def test_an_answer_over_the_limit_earns_the_worst_and_the_run_continues(score, length):
    answer = score("x" * length)
    assert (answer["score"], answer["scored"]) == (-1.0, 0.0)
    assert "characters" in answer["why"]


def test_a_reference_that_is_too_long_does_not_penalize_the_answer(score):
    with pytest.raises(ValueError, match="reference"):
        score("is 7", reference="x" * 51_000)


def test_a_reference_over_the_judges_context_does_not_penalize_the_answer(score):
    with pytest.raises(ValueError, match=r"the reference answer cannot be judged.*9,000 tokens"):
        score("is 7", reference="endless, but is 5")


def test_an_answer_over_the_judges_context_earns_the_worst(score):
    answer = score("endless, but is 7")
    assert (answer["score"], answer["scored"]) == (-1.0, 0.0) and "9,000 tokens" in answer["why"]


def test_an_answer_that_silences_the_judge_earns_the_worst_whatever_the_length_of_the_reference(score):
    assert score("eight eight", reference="A much longer reference, which is 5")["score"] == -1.0


@pytest.mark.parametrize("reference", [None, "", " \n", "\u200b"])
def test_a_row_without_a_reference_raises(score, reference):
    with pytest.raises(ValueError, match=r"ground_truth"):
        score(reference=reference)


@pytest.mark.parametrize("info", [{}, {"question": ""}, {"images": ["a.png"]}])
def test_a_row_without_a_question_raises(score, info):
    with pytest.raises(ValueError, match="question"):
        score(info=info)


def test_compute_score_shows_the_pictures_and_refuses_to_judge_without(server, score, tmp_path):
    (tmp_path / "7.png").write_bytes(png(5, 4))
    for pictures in (
        [str(tmp_path / "7.png")],
        [{"bytes": png(5, 4)}],
        str(tmp_path / "7.png"),
        [f"file://{tmp_path}/7.png"],
    ):
        assert score(info={"question": "<image>Which?", "images": pictures})["scored"] == 1
    assert server.judge.images == [[(5, 4)]] * 8  # both orders
    for pictures in (None, [], [png(5, 4), png(6, 4)]):
        with pytest.raises(WrongPictures):
            score(info={"question": "<image>Which?", "images": pictures})
    assert len(server.judge.images) == 8


def test_options_are_passed_on_and_those_of_verls_own_reward_models_are_not(server, score):
    score(votes=2, both_orders=False, reward_router_address="x", reward_model_tokenizer=None)
    assert server.judge.temperatures == [1.0]
    with pytest.raises(JudgeFailed, match="vote"):
        score(vote=2)


def test_failures_are_errors(server, score):
    with pytest.raises(JudgeFailed):
        score(info={"question": "it fails"})
    with pytest.raises(JudgeFailed, match="R1_REWARD_SERVER"):
        score(url="")


def test_a_missing_reward_is_the_configured_worst():
    assert judge_of({"url": "http://x"})[1] == -1.0
    assert judge_of({"url": "http://x", "kind": "bradley_terry", "worst": -5})[1] == -5.0
    for options in ({"kind": "bradley_terry"}, {"worst": "low"}, {"worst": True}, {"worst": float("nan")}):
        with pytest.raises(ValueError, match="worst"):
            judge_of({"url": "http://x", **options})
    assert earned(Scored(0.25, None), -5.0) == {"score": 0.25, "scored": 1.0, "why": ""}
    assert earned(Scored(None, "is long"), -5.0) == {"score": -5.0, "scored": 0.0, "why": "is long"}


@pytest.mark.parametrize("value", [5, ["five"], {"answer": "five"}])
def test_a_reference_must_be_text(value):
    with pytest.raises(ValueError, match="must be text"):
        reference_of(value)


def test_the_plug_ins_need_nothing_that_a_trainer_may_lack():
    names = "{'torch', 'numpy', 'PIL', 'transformers', 'pydantic', 'fastapi', 'pyarrow'}"
    lines = [
        "import sys, r1_reward.serve.dialects.verl, r1_reward.serve.dialects.easyr1",
        f"print({names} & set(sys.modules))",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

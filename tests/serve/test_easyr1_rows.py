"""EasyR1's batch function: reading the ground truth, grouping samples, rewards."""

from __future__ import annotations

import asyncio
import json

import pytest
from served import ScriptedJudge, Served, png

from r1_reward.records.schema import Completion
from r1_reward.serve.dialects import easyr1
from r1_reward.serve.dialects.easyr1 import compute_score, read_groups
from r1_reward.serve.judge_client import JudgeFailed


class Silenced(ScriptedJudge):
    def judge(self, question, first, second, seed, temperature):
        if "spam" in first + second:
            return Completion(text="I would not say.", tokens=4)
        return super().judge(question, first, second, seed, temperature)


@pytest.fixture
def server():
    with Served(Silenced()) as served:
        yield served


@pytest.fixture
def scores(server):
    def ask(*samples, **options):
        return compute_score(samples, **{"url": f"http://127.0.0.1:{server.port}", "timeout": 30, **options})

    return ask


def sample(response, **said):
    ground_truth = json.dumps({"question": "Which number?", **said})
    return {"response": response, "response_length": len(response), "ground_truth": ground_truth}


def overall(scored):
    return [one["overall"] for one in scored]


def test_easyr1_finds_the_function_and_its_kind():
    assert (easyr1.REWARD_TYPE, easyr1.REWARD_NAME) == ("batch", "r1_reward")


def test_samples_of_one_prompt_are_judged_together_wherever_they_are(scores):
    batch = [sample("4"), sample("9", question="Other?"), sample("7"), sample("1", question="Other?"), sample("5")]
    assert overall(scores(*batch)) == pytest.approx([-0.8, 0.8, 0.8, -0.8, 0])


def test_equal_questions_about_different_pictures_stay_apart(server, scores, tmp_path):
    for width in (5, 6):
        (tmp_path / f"{width}.png").write_bytes(png(width, 4))
    batch = [sample(f"{width} says {place}", images=[f"{width}.png"]) for place in (3, 4) for width in (5, 6)]
    assert overall(scores(*batch, image_dir=str(tmp_path))) == pytest.approx([-0.8, -0.8, 0.8, 0.8])
    for (_, first, second), sizes in zip(server.judge.seen, server.judge.images, strict=True):
        assert [(int(first[0]), 4)] == [(int(second[0]), 4)] == sizes


@pytest.mark.parametrize("source", ["path", "absolute", "file", "data", "base64", "bare", "image"])
def test_pictures_in_every_form(server, scores, tmp_path, source):
    import base64

    (tmp_path / "7.png").write_bytes(png(5, 4))
    encoded = base64.b64encode(png(5, 4)).decode()
    images = {
        "path": ["7.png"],
        "absolute": [str(tmp_path / "7.png")],
        "file": [f"file://{tmp_path}/7.png"],
        "data": [f"data:image/png;base64,{encoded}"],
        "base64": [{"base64": encoded}],
        "bare": [encoded],
        "image": "7.png",
    }[source]
    said = {"question": "<image>Which?", ("image" if source == "image" else "images"): images}
    folder = str(tmp_path) if source in ("path", "image", "bare") else "/nowhere"
    assert overall(scores(sample("4", **said), sample("7", **said), image_dir=folder)) == pytest.approx([-0.8, 0.8])
    assert server.judge.images == [[(5, 4)]] * 2  # both orders


@pytest.mark.parametrize("empty", [None, [], ""])
@pytest.mark.parametrize("question", ["Which?", "<image>Which?"])
def test_a_row_with_both_columns_shows_the_picture_of_the_one_that_has_it(server, scores, tmp_path, empty, question):
    (tmp_path / "7.png").write_bytes(png(5, 4))
    said = {"question": question, "images": empty, "image": "7.png"}
    assert overall(scores(sample("4", **said), sample("7", **said), image_dir=str(tmp_path))) == pytest.approx(
        [-0.8, 0.8]
    )
    assert server.judge.images == [[(5, 4)]] * 2


def test_keys_in_another_order_are_the_same_group():
    truths = ['{"question": "Q?", "answer": "5"}', '{ "answer":"5", "question":"Q?" }']
    (group,) = read_groups([{"response": "4", "ground_truth": truth} for truth in truths])
    assert (group.places, group.answer) == ([0, 1], "5")


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ("eight", "must be the JSON"),
        ("8", "must be the JSON"),
        ('["Which?"]', "must be the JSON"),
        ('{"answer": "8"}', "must be the JSON"),
        ("{" * 5_000, "must be the JSON"),
        (8, "must be the JSON"),
        (None, "must be the JSON"),
        ('{"question": null}', "question"),
        ('{"question": "  "}', "blank"),
        ('{"question": "Which?", "answer": 8}', "must be text"),
        ('{"question": "Which?", "images": [7]}', "images"),
        ('{"question": "<image>Which?"}', "none came"),
        ('{"question": "<image>Which?", "images": []}', "none came"),
        ('{"question": "<image>Which?", "images": ["a.png", "b.png"]}', "2"),
    ],
)
def test_the_error_of_a_ground_truth_without_a_question_names_its_sample(server, scores, truth, reason):
    with pytest.raises(ValueError, match=f"(?s)sample 1 .*{reason}"):
        scores(sample("4"), {"response": "7", "response_length": 1, "ground_truth": truth})
    assert not server.judge.seen


def test_spam_and_too_long_answers_earn_the_worst(scores):
    batch = [sample("4"), sample("spam spam"), sample("x" * 51_000), sample(""), sample("7")]
    answer = scores(*batch)
    assert overall(answer) == pytest.approx([0, -1, -1, -0.8, 0.8])
    assert [one["scored"] for one in answer] == [1, 0, 0, 1, 1]
    assert {frozenset(one) for one in answer} == {frozenset({"overall", "scored"})}
    assert all(isinstance(value, float) for one in answer for value in one.values())


def test_one_sample_is_compared_with_the_answer(scores):
    batch = [sample("4", answer="5"), sample("4", answer="3"), sample("spam", answer="1")]
    assert overall(scores(*batch)) == pytest.approx([-0.8, 0.8, -1])
    for nothing in ({}, {"answer": ""}, {"answer": None}):
        with pytest.raises(ValueError, match=r"rollout\.n.*answer"):
            scores(sample("4", **nothing))


def test_failures_are_errors(scores, tmp_path):
    with pytest.raises(JudgeFailed):
        scores(*[sample(text, question="it fails") for text in "47"])
    with pytest.raises(JudgeFailed, match="picture"):
        scores(*[sample(text, images=["none.png"]) for text in "47"], image_dir=str(tmp_path))


def test_many_groups_and_a_running_event_loop(server, scores):
    batch = [sample(f"is {place % 2}", question=f"Number {place // 2}?") for place in range(300)]

    async def inside():
        return scores(*batch)

    assert overall(asyncio.run(inside())) == pytest.approx([-0.8, 0.8] * 150)
    assert scores() == []

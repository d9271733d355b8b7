"""Pictures in questions and answers, from the caller's input to the model's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from r1_reward.engines.in_process import TransformersEngine
from r1_reward.judge.groups import Group, score_groups
from r1_reward.judge.prepare import PairToJudge, prepare
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.votes import Plan
from r1_reward.judge.voting import majority
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Judgment
from r1_reward.store.contents import open_content
from r1_reward.store.images import ImageError
from r1_reward.store.video import Video


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((56, 56, 3), value, dtype=np.uint8))


@pytest.fixture
def files(tmp_path):
    for name, value in (("a", 10), ("b", 200), ("c", 90)):
        picture(value).save(tmp_path / f"{name}.png")
    clip = tmp_path / "clip"
    clip.mkdir()
    for number in range(5):
        picture(number * 40).save(clip / f"{number}.png")
    return tmp_path


def test_every_way_of_giving_a_picture_shows_the_same(files):
    path = files / "a.png"
    given = [
        ["Here: ", path],
        ["Here: ", Image.open(path)],
        ["Here: ", path.read_bytes()],
        [{"type": "text", "text": "Here: "}, {"type": "image", "image": str(path)}],
        [{"type": "text", "text": "Here: "}, {"type": "image", "image": {"bytes": path.read_bytes(), "path": None}}],
        [{"type": "text", "text": "Here: "}, {"type": "image_url", "image_url": {"url": path.as_uri()}}],
    ]
    opened = [open_content(content, "response_1") for content in given]
    assert len({one.key for one in opened}) == 1
    assert all(one.pieces[0] == "Here: " and one.pieces[1].size == (56, 56) for one in opened)
    assert open_content(["Here: ", files / "b.png"], "x").key != opened[0].key
    assert open_content([files / "a.png", "Here: "], "x").key != opened[0].key
    assert open_content([{"type": "text", "text": "a"}], "x") == "a"


def test_a_video_is_its_frames(files):
    content = open_content([Video(files / "clip"), "?"], "question", video_frames=3)
    assert [getattr(piece, "size", piece) for piece in content.pieces] == [(56, 56)] * 3 + ["?"]
    named = open_content([{"type": "video", "video": str(files / "clip")}, "?"], "question", video_frames=3)
    assert named.key == content.key
    assert len(open_content([Video(files / "clip", frames=2)], "q").pictures) == 2


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        ([{"type": "image"}], UserError, "images: 1 image part names no picture, and no image comes beside"),
        ([{"type": "image", "image": "gone.png"}], ImageError, "gone.png"),
        (["a", b"no picture"], ImageError, "response_1, part 2"),
        ([{"type": "audio"}], UserError, "response_1: has a part of type audio"),
        ([], UserError, "response_1: is blank"),
        ([" ", {"type": "text", "text": "\u200b"}], UserError, "response_1: is blank"),
        (["x" * 30_000, picture(1), "x" * 30_000], UserError, "response_1: has 60,000 characters"),
    ],
)
def test_what_cannot_be_shown_is_named(content, error, reason):
    with pytest.raises(error, match=reason):
        prepare(PairToJudge("q", [], content, "b"))


def test_separate_images_go_to_their_places_or_to_the_front(files):
    a, b, c = (str(files / f"{name}.png") for name in "abc")
    place = {"type": "image"}
    pair = prepare(PairToJudge("Which?", [a, b], [place], ["so: ", place]))
    assert not pair.images.pictures and len(pair.responses[0].pictures) == len(pair.responses[1].pictures) == 1
    pair = prepare(PairToJudge("Which?", [a], [c], "b"))
    assert len(pair.images.pictures) == 1 and pair.responses[1] == "b"
    with pytest.raises(UserError, match="images: 2 image parts name no picture, and 1 image comes beside the text"):
        prepare(PairToJudge("Which?", [a], [place], [place]))
    with pytest.raises(UserError, match="has a place for a picture in its text"):
        prepare(PairToJudge(["<image> or ", picture(1), "?"], [], "a", "b"))


def test_a_row_of_a_file_is_prepared_with_its_parts_and_criteria(files):
    row = {
        "question": [{"type": "text", "text": "Like ", "image": None}, {"type": "image", "text": None, "image": None}],
        "images": [{"bytes": None, "path": str(files / "a.png")}],
        "response_1": [{"type": "image", "image": {"bytes": (files / "b.png").read_bytes(), "path": None}}],
        "response_2": "none",
        "preferred": 0,
        "criteria": "likeness",
    }
    pair = prepare(row)
    assert pair.preferred == 0 and [getattr(piece, "size", piece) for piece in pair.question.pieces][:2] == [
        "Like ",
        (56, 56),
    ]
    assert pair.question.pieces[2].endswith("alone: likeness")


@pytest.fixture
def model(tiny):
    return RewardModel(TransformersEngine(*tiny, batch_size=4), max_new_tokens=6)


def test_a_model_is_shown_each_answers_pictures_at_its_place(model, files):
    a, b = [files / "a.png"], ["so: ", files / "b.png"]
    request = model.engine.compare("q", [picture(3)], open_content(a, "a"), open_content(b, "b"))
    assert [shown.getpixel((0, 0))[0] for shown in request.images] == [3, 10, 200]
    parts = request.messages[0]["content"]
    assert sum(part["type"] == "image" for part in parts) == 3
    turned = model.engine.compare("q", [picture(3)], open_content(b, "b"), open_content(a, "a"))
    assert [shown.getpixel((0, 0))[0] for shown in turned.images] == [3, 200, 10]


def test_a_swapped_pair_of_pictures_gets_the_swapped_verdict(model, files):
    question, a, b = ["Like ", files / "c.png", "?"], [files / "a.png"], ["so: ", files / "b.png"]
    there, back = model.compare(question, [], a, b), model.compare(question, [], b, a)
    assert [vote.text for vote in there.votes] == [vote.text for vote in back.votes]
    assert (there.for_1, there.for_2) == (back.for_2, back.for_1)
    assert model.compare(question, [], a, [files / "a.png", " "]).votes != there.votes


def test_pictures_decide_order_and_seed_as_texts_do(files):
    a, b = [str(files / "a.png")], [str(files / "b.png")]
    a, b = ([{"type": "image", "image": one[0]}] for one in (a, b))
    plan = Plan(votes=3, orders="both", temperature=1.0)
    one, two = prepare(PairToJudge("q", [], a, b)), prepare(PairToJudge("q", [], b, a))
    assert [slot.seed for slot in plan.slots(one)] == [slot.seed for slot in plan.slots(two)]
    assert [slot.swapped for slot in plan.slots(one)] == [not slot.swapped for slot in plan.slots(two)]


def test_equal_pictures_in_a_group_are_judged_once(model, files):
    responses = [[files / "a.png"], ["so ", files / "b.png"], [(files / "a.png").read_bytes()], "none"]
    (scored,) = score_groups([Group("q", [], responses)], model.compare_many)
    assert len(scored.comparisons) == 3 and scored.rewards[0] == scored.rewards[2]


def vote(answer):
    return Judgment(answer=answer, swapped=False, text="", well_formed=True, tokens=1)


@pytest.mark.parametrize(
    ("answers", "preferred", "ties", "says_tie", "right_for"),
    [
        ([0], None, 1, True, {0: 1.0, 1: 0.0, 2: 0.0}),
        ([0, 0, 1], None, 2, True, {0: 1.0, 1: 0.0}),
        ([0, 1, 1], 1, 1, False, {0: 0.0, 1: 1.0, 2: 0.0}),
        ([0, 1], 1, 1, False, {0: 0.0, 1: 1.0}),
        ([1, 2], None, 0, False, {0: 0.0, 1: 0.5, 2: 0.5}),
        ([None, 0], None, 1, True, {0: 1.0}),
        ([None], None, 0, False, {0: 0.0, 1: 0.0}),
    ],
)
def test_votes_that_say_tie(answers, preferred, ties, says_tie, right_for):
    verdict = majority([vote(answer) for answer in answers])
    assert (verdict.preferred, verdict.ties, verdict.says_tie) == (preferred, ties, says_tie)
    assert verdict.unreadable == answers.count(None)
    assert {label: verdict.correctness(label) for label in right_for} == right_for


def test_a_vote_that_says_tie_counts_half_for_each():
    assert majority([vote(0)]).probability == 0.5
    assert majority([vote(1), vote(0)]).probability == pytest.approx(2 / 3)

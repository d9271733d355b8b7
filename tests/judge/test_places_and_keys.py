"""Image parts filled from the separate pictures, wherever they are; and keys that identify contents."""

from __future__ import annotations

import pytest
from fakes import FakeEngine, shown
from part_rows import grey

from r1_reward.judge.candidates import Candidates
from r1_reward.judge.groups import Group, score_groups
from r1_reward.judge.prepare import InvalidPair, OpenedImages, PairToJudge, open_images, prepare
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.votes import Plan
from r1_reward.records.content import key_of, same_content, seen
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion
from r1_reward.store.contents import open_content

PLACE = {"type": "image"}


class Looking(FakeEngine):
    """Prefers the response whose first picture is brighter; records what it is shown."""

    def __init__(self):
        self.asked = []

    def answer(self, requests):
        for request in requests:
            greys = [picture.getpixel((0, 0))[0] for picture in request.images]
            self.asked.append((shown(request), greys))
            answer = 1 if greys[-2:] == sorted(greys[-2:], reverse=True) else 2
            yield [Completion(text=f"<think></think><answer>{answer}</answer>", tokens=3) for _ in request.seeds]


def scored(group):
    if isinstance(group, InvalidPair):
        raise UserError(str(group))
    return group.rewards


METHODS = {
    "rank": lambda model, *asked: model.rank(*asked).order,
    "best_of_n": lambda model, *asked: model.best_of_n(*asked).index,
    "rewards": lambda model, *asked: model.rewards(*asked),
    "bradley_terry": lambda model, *asked: model.rewards(*asked, kind="bradley_terry"),
    "circular": lambda model, *asked: model.rewards(*asked, schedule="circular"),
    "score": lambda model, question, images, responses: model.score(
        question, images, responses[0], against=responses[1:]
    ),
    "score_groups": lambda model, *asked: scored(next(score_groups([Group(*asked)], model.compare_many))),
}


@pytest.mark.parametrize("images", [list, tuple, open_images])
@pytest.mark.parametrize("method", METHODS)
def test_separate_pictures_of_a_group_go_to_its_places(method, images):
    one, two, three = grey(10), grey(90), grey(200)
    asked = {
        "in the question": (
            (["Like ", PLACE, "?"], [one], [[two], [three]]),
            (["Like ", one, "?"], [], [[two], [three]]),
        ),
        "in responses": (("Which?", [two, one], [[PLACE], ["so ", PLACE]]), ("Which?", [], [[two], ["so ", one]])),
        "everywhere": (([PLACE, "?"], [one, two, three], [[PLACE], [PLACE]]), ([one, "?"], [], [[two], [three]])),
    }
    for beside, placed in asked.values():
        engines = Looking(), Looking()
        question, pictures, responses = beside
        got = METHODS[method](RewardModel(engines[0]), question, images(pictures), responses)
        assert got == METHODS[method](RewardModel(engines[1]), *placed)
        assert engines[0].asked == engines[1].asked and engines[0].asked


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("question", "count", "responses", "reason"),
    [
        (["Like ", PLACE], 2, ["a", "b"], "images: 1 image part names no picture, and 2 images come"),
        (["Like ", PLACE], 0, ["a", "b"], "images: 1 image part names no picture, and no image comes"),
        ("q", 1, [[PLACE], [PLACE]], "images: 2 image parts name no picture, and 1 image comes"),
        ("q", 0, ["a", ["b", 5]], "(responses|against).*: has a part that is neither"),
        ("q", 0, ["a", ("b", ("c",))], "(responses|against).*neither text nor an object, but a list"),
        ("q", 0, ["a", grey(1)], "(responses|against).*: must be text or a list of parts, not Image"),
    ],
)
def test_groups_whose_places_and_pictures_do_not_match_are_refused(method, question, count, responses, reason):
    engine = Looking()
    with pytest.raises(UserError, match=reason):
        METHODS[method](RewardModel(engine), question, [grey(1)] * count, responses)
    assert not engine.asked


def test_opened_pictures_go_to_places_of_a_pair():
    opened = open_images([grey(10), grey(90)])
    assert isinstance(opened, OpenedImages)
    pair = prepare(PairToJudge([PLACE, "?"], opened, [PLACE], "b"))
    assert not pair.images.pictures
    assert [one.pictures[0].getpixel((0, 0))[0] for one in (pair.question, pair.responses[0])] == [10, 90]
    assert prepare(PairToJudge("?", opened, [grey(3)], "b")).images is opened


@pytest.mark.parametrize("item", [("q", [], "a", "b"), ["q", [], "a", "b"], "q", None, 3])
def test_an_invalid_pair_does_not_affect_the_others(item):
    good = PairToJudge("q", [], "a", "b")
    first, wrong, last = RewardModel(Looking()).compare_many([good, item, good])
    assert first == last and "must be a PairToJudge or a row" in str(wrong)


@pytest.mark.parametrize("parts", [[grey(7)], ["Here: ", grey(7)], [grey(7), grey(8), " x"]])
def test_a_text_that_reads_like_the_key_of_parts_is_another_response(parts):
    key = open_content(parts, "response_1").key
    for text in (key, f"text:{key}", f"text:text:{key}", f" {key}"):
        assert Candidates.of([parts, text]).places == [0, 1]
        assert Candidates.of([text, f"text:{text.strip()}", parts]).places == [0, 1, 2]
        there, back = prepare(PairToJudge("q", [], parts, text)), prepare(PairToJudge("q", [], text, parts))
        plan = Plan(votes=4, temperature=1.0)
        assert [slot.swapped for slot in plan.slots(there)] == [not slot.swapped for slot in plan.slots(back)]
        assert len({slot.seed for slot in plan.slots(there)}) == 8


@pytest.mark.parametrize(
    "text", ["parts:", "parts: a list", "text:parts", "parts:" + "g" * 64, "Text:parts:" + "0" * 64]
)
def test_the_key_of_another_text_is_the_text(text):
    assert key_of(text) == text


@pytest.mark.parametrize("parts", [[{"type": "image", "image": "a.png"}], ["x ", {"type": "video", "video": "b"}, "y"]])
def test_a_text_that_reads_like_parts_does_not_look_the_same(parts):
    for text in (seen(parts), seen(parts).strip(), f"\n{seen(parts).strip()}"):
        assert not same_content(text, parts) and not same_content(parts, text)
    assert same_content(parts, list(parts))

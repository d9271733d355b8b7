"""Pictures between texts, through every engine: their places, their order, and what else is in the batch."""

from __future__ import annotations

import base64
import io
import logging

import pytest
import torch
from families import FAMILIES
from more_families import ALL_FAMILIES
from part_rows import FRAMES, PICTURES, dataset_of, grey, image, part_rows, row_of, text
from PIL import Image
from scripted_server import reply, status

from r1_reward.engines.chat_protocol import chat_messages
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.length import PromptTooLong
from r1_reward.engines.scalar import ScalarEngine
from r1_reward.engines.server import ServerEngine
from r1_reward.judge.prepare import PairToJudge, prepare
from r1_reward.judge.reward_model import RewardModel
from r1_reward.models.chats import placed
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.models.scalar import ScalarRewardModel
from r1_reward.store.contents import open_content
from r1_reward.train.pictures_once import open_pictures
from r1_reward.train.rows import rl_rows, sft_rows

every_family = pytest.mark.parametrize("family", ALL_FAMILIES, indirect=True, scope="module")
core_families = pytest.mark.parametrize("family", FAMILIES, indirect=True, scope="module")
PICTURES_FIRST = ("llava",)
"""Families whose template shows a turn's pictures before its texts."""

MIXED = PairToJudge(
    [text("Like "), image(20), text(" or\nunlike"), image(30), text("?")],
    [grey(10)],
    [text("so: "), image(40)],
    [image(50), image(60), text("those")],
)


@pytest.fixture(scope="module")
def family(request):
    return ALL_FAMILIES[request.param]


@pytest.fixture(scope="module")
def loaded(saved):
    return load_model_and_processor(str(saved), dtype="float32")


@pytest.fixture(scope="module")
def first(family):
    return family in [ALL_FAMILIES[name] for name in PICTURES_FIRST]


def ask(engine, pair, swapped=False, **options):
    ready = prepare(pair, video_frames=FRAMES)
    return engine.compare(ready.question, ready.images.pictures, *ready.shown(swapped), **options)


def greys(pictures):
    return [picture.getpixel((0, 0))[0] for picture in pictures]


# ---- in this process


@every_family
def test_a_template_shows_each_picture_at_its_place_or_names_it(family, loaded, first):
    processor = loaded[1]
    request = ask(TransformersEngine(*loaded), MIXED)
    chat = TransformersEngine(*loaded)._chat(request)
    assert greys(request.images) == [10, 20, 30, 40, 50, 60]
    assert chat.count(processor.image_token) == 6
    marks = ["Like", "unlike", "so:", "those"]  # Gemma 3 trims texts
    places = [chat.index(mark) for mark in marks]
    assert places == sorted(places)
    before = [chat[:place].count(processor.image_token) for place in places]
    if first:
        assert before == [6] * 4
        assert "Like image 2 or\nunlike image 3?" in chat and "so: image 4" in chat and "image 5 image 6 those" in chat
    else:
        assert before == [1, 2, 3, 6]
        assert "image 2" not in chat and "image 5" not in chat


@every_family
def test_a_chat_without_pictures_between_texts_is_the_templates_own(family, loaded):
    plain = PairToJudge("Is <image> older than <image>?", [grey(1), grey(2)], "a", "b")
    messages = ask(TransformersEngine(*loaded), plain).messages
    assert placed(loaded[1], messages) is messages


@every_family
def test_exchanging_two_pictures_exchanges_what_is_seen(family, loaded):
    engine = TransformersEngine(*loaded)
    pair = PairToJudge("Which?", [], [image(10)], [image(240)])
    there, back = (
        engine._encode([(engine._chat(one), one.images)])
        for one in (ask(engine, pair), ask(engine, pair, swapped=True))
    )
    assert torch.equal(there["input_ids"], back["input_ids"])
    assert not torch.equal(there["pixel_values"], back["pixel_values"])
    half = len(there["pixel_values"]) // 2
    if half:  # one after another, whatever the rows
        assert torch.equal(there["pixel_values"][:half], back["pixel_values"][half:])


@every_family
def test_rows_with_other_numbers_of_pictures_do_not_matter(family, loaded):
    answers = [image(20), [text("so "), image(200), image(30)], "none", [image(9), text("last")]]
    pairs = [
        PairToJudge("Which?", [], [answers[0]], answers[1]),
        PairToJudge("Which digit?", [], "three", "eight"),
        PairToJudge("Which?", [grey(3)], answers[2], "eight"),
        PairToJudge([text("Like "), image(7)], [grey(3)], answers[1], answers[3]),
    ]
    options = {"seeds": (1, 2), "temperature": 1.0, "max_new_tokens": 5}
    requests = [ask(TransformersEngine(*loaded), pair, **options) for pair in pairs]
    alone = [next(TransformersEngine(*loaded).generate([request])) for request in requests]
    together = list(TransformersEngine(*loaded, batch_size=8).generate(requests))
    assert [[one.text for one in row] for row in together] == [[one.text for one in row] for row in alone]
    assert len({one.text for row in alone for one in row}) > 1


@core_families
def test_training_renders_what_judging_renders(family, loaded, tmp_path):
    model, processor = loaded
    engine, rows = TransformersEngine(model, processor), part_rows(tmp_path)
    rollout = open_pictures([*rl_rows(dataset_of(rows))], processor, FRAMES)
    imitated = sft_rows(dataset_of(rows), processor, video_frames=FRAMES)
    for row, sampled, learned, count in zip(rows, rollout, imitated, PICTURES, strict=True):
        judged = engine._chat(ask(engine, row))
        for one in (sampled, learned):
            trained = processor.apply_chat_template(one["prompt"], tokenize=False, add_generation_prompt=True)
            assert trained == judged and len(one["images"]) == count


@pytest.fixture
def engine(tiny):
    return TransformersEngine(*tiny, batch_size=4)


def many(count, size=(224, 224)):
    return [part for number in range(count) for part in (text(f"{number}: "), image(number, size))]


def test_forty_pictures_in_an_answer_are_judged_where_there_is_room(engine):
    model = RewardModel(engine, max_new_tokens=4)
    pair = PairToJudge("Which?", [], many(40), "none")
    alone = model.compare(*pair)
    short = PairToJudge("Which?", [grey(1)], "three", [image(2)])
    verdicts = list(model.compare_many([short, pair, short]))
    assert verdicts[1] == alone and verdicts[0] == verdicts[2] == model.compare(*short)


@pytest.mark.parametrize("count", [70, 100])
def test_the_error_for_too_many_pictures_counts_tokens_and_pictures(tiny, engine, count):
    pair = PairToJudge("Which?", [grey(3)], many(count), "none")
    short = PairToJudge("Which?", [grey(1)], "three", [image(2)])
    for judge, least in (
        (RewardModel(engine, max_new_tokens=4), count + 1),
        (RewardModel(ScalarEngine(ScalarRewardModel(tiny[0]), tiny[1])), count + 1),
    ):
        results = list(judge.compare_many([short, pair, short]))
        assert isinstance(results[1], PromptTooLong) and results[0] == results[2]
        assert f"{64 * count + 4:,} of them from {least} pictures)" in str(results[1])
        assert results[1].tokens > 4096 == results[1].limit


# ---- over the wire


def pictures_of(content):
    """A server's input: texts unchanged, pictures by their gray level."""
    read = []
    for part in content:
        if part["type"] == "image_url":
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/png;base64"
            read.append(Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0))[0])
        else:
            read.append(part["text"])
    return read


@pytest.mark.parametrize("swapped", [False, True])
def test_a_server_is_sent_each_picture_at_its_place(swapped):
    (message,) = chat_messages(ask(ServerEngine("judge", "http://127.0.0.1:9/v1"), MIXED, swapped))
    read = pictures_of(message["content"])
    marked = [one if isinstance(one, int) else "text" for one in read]
    if swapped:
        assert marked == [10, "text", 20, "text", 30, "text", 50, 60, "text", 40, "text"]
        assert read[5].endswith("[Response 1]:\n") and read[8].startswith("those")
    else:
        assert marked == [10, "text", 20, "text", 30, "text", 40, "text", 50, 60, "text"]
        assert read[5].endswith("[Response 1]:\nso: ") and read[7].endswith("[Response 2]:\n")
    assert read[1].endswith("Like ") and read[3] == " or\nunlike" and read[5].startswith("?")


@pytest.mark.usefixtures("no_waits")
def test_a_loopback_server_judges_pictures_in_answers(server, caplog):
    """It prefers the darker answer and accepts no seed: leaving it out does not move a picture."""

    def darker(asked):
        if "seed" in asked:
            return status(400, "Unrecognized request argument supplied: seed")()
        read = pictures_of(asked["messages"][0]["content"])
        first = next(place for place, one in enumerate(read) if isinstance(one, str) and "[Response 1]:" in one)
        one, two = [value for value in read[first:] if isinstance(value, int)]
        return reply(f"<think>{one} and {two}.</think><answer>{1 if one < two else 2}</answer>")

    server.default = [darker]
    engine = ServerEngine("judge", server.url, concurrency=4)
    model = RewardModel(engine)
    shades = [(10, 200), (200, 10), (90, 80), (1, 2)]
    pairs = [
        PairToJudge([image(5), text("Which is darker?")], [], [image(a)], [text("or "), image(b)]) for a, b in shades
    ]
    with caplog.at_level(logging.WARNING):
        verdicts = list(model.compare_many(pairs))
    assert [verdict.preferred for verdict in verdicts] == [1 if a < b else 2 for a, b in shades]
    assert all({vote.swapped for vote in verdict.votes} == {False, True} for verdict in verdicts)
    assert "refuses seed" in caplog.text
    engine.close()


# ---- scalar models


@pytest.fixture
def scalar(tiny):
    torch.manual_seed(0)
    return ScalarEngine(ScalarRewardModel(tiny[0]).eval(), tiny[1], batch_size=3)


def shown(*parts):
    return open_content(list(parts), "response")


def test_a_scalar_model_scores_pictures_in_answers(scalar):
    answers = [shown(image(10)), shown(image(240)), shown(text("so "), image(10)), shown(image(10), text("so ")), "so "]
    rewards = scalar.rewards([("Which?", [grey(3)], answer) for answer in answers])
    assert len({round(reward, 5) for reward in rewards}) == 5
    alone = [scalar.rewards([("Which?", [grey(3)], answer)])[0] for answer in answers]
    assert alone == pytest.approx(rewards, abs=1e-4)
    asked = [shown(text("Like "), image(value)) for value in (10, 240)]
    by_question = scalar.rewards([(question, [], answers[0]) for question in asked])
    assert by_question[0] != pytest.approx(by_question[1], abs=1e-6)


def test_a_scores_key_includes_its_pictures_and_their_places(scalar):
    scored = []
    score = scalar.score
    scalar.score = lambda candidates, **options: scored.append(len(candidates)) or score(candidates, **options)
    model = RewardModel(scalar)
    a, b = [image(10)], [text("so "), image(240)]
    first = model.compare("Which?", [], a, b)
    assert model.compare("Which?", [], b, a).preferred == 3 - first.preferred
    assert model.compare("Which?", [], [grey(10)], b).votes == first.votes  # the same pixels
    assert scored == [2]
    model.compare("Which?", [], a, [image(240), text("so ")])
    model.compare("Which?", [], a, [text("so "), image(239)])
    model.compare([text("Which?"), image(1)], [], a, b)
    assert scored == [2, 1, 1, 2]


def test_a_text_never_passes_for_a_picture(scalar):
    picture = shown(image(10))
    verdict = RewardModel(scalar).compare("Which?", [], picture, picture.key)
    assert verdict.preferred in (1, 2), "their rewards differ"


def test_a_critique_is_written_after_the_pictures(tiny):
    engine = ScalarEngine(ScalarRewardModel(tiny[0], critique=True), tiny[1], batch_size=4)
    scores = engine.score([("Which?", [], shown(image(10))), ("Which?", [grey(1)], "so ")], max_new_tokens=6)
    assert all(score.tokens and score.reward == score.reward for score in scores)


def test_criteria_are_read_by_scalar_models_too(scalar):
    row = row_of(0, response_1=[image(10)], response_2=[image(200)])
    model = RewardModel(scalar)
    plain, by_likeness = list(model.compare_many([row, {**row, "criteria": "likeness"}]))
    assert plain.votes != by_likeness.votes

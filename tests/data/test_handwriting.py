"""The handwriting world: nothing leaks between splits, text alone says nothing, the teacher fails as it is told to."""

from __future__ import annotations

import re

import numpy as np
import pytest

from r1_reward.data.handwriting import CONFUSABLE, Teacher, build_world, draw_scene, load_scans
from r1_reward.judge.referee import RuleReferee
from r1_reward.models.tiny_words import CORNERS, DIGITS, EASY_KINDS, GRID_KINDS, HARD_KINDS, KINDS, TENS
from r1_reward.records.parsing import parse_judgment


@pytest.fixture(scope="module")
def large():
    return build_world(seed=5, train_pairs=4000, test_pairs=400, captions=200)


def test_splits_share_no_scan_and_no_scene(large):
    assert len(large.train_scans) == 1400
    assert len(large.test_scans) == 397
    assert not large.train_scans & large.test_scans
    scenes = {"train": [], "test": []}
    for name, scene in large.scenes.items():
        split = "train" if "train-" in name else "test"
        scenes[split].append(scene)
        assert set(scene.scans) <= (large.train_scans if split == "train" else large.test_scans)
    assert len(set(scenes["train"])) == len(scenes["train"]) == 4200
    assert not set(scenes["train"]) & set(scenes["test"])


def test_same_seed_same_world_other_seed_other_world():
    first, again, other = (build_world(seed=s, train_pairs=20, test_pairs=4) for s in (1, 1, 2))
    assert first.train == again.train
    assert first.train != other.train
    name = first.train[0].images[0]
    assert first.images[name].tobytes() == again.images[name].tobytes()


def solve(pair, digits):
    """An independent reading of the question text: the right answer in words."""
    question = pair.question.lower()
    if pair.kind == "position":
        corner = next(i for i, name in enumerate(CORNERS) if name in question)
        return DIGITS[digits[corner]]
    if pair.kind == "number":
        return f"{DIGITS[digits[0]]} {DIGITS[digits[1]]}"
    if pair.kind == "sum":
        return DIGITS[digits[0] + digits[1]]
    if pair.kind == "largest":
        return DIGITS[sorted(digits)[-1]]
    if pair.kind == "even":
        return DIGITS[len([d for d in digits if d in (0, 2, 4, 6, 8)])]
    bound = next(10 * i for i, word in enumerate(TENS) if i and question.rstrip("?").endswith(word))
    return "yes" if 10 * digits[0] + digits[1] > bound else "no"


def test_the_preferred_response_is_right_and_the_other_is_wrong(large):
    for pair in large.train + large.test:
        digits = large.scenes[pair.images[0]].digits
        assert len(digits) == (4 if pair.kind in GRID_KINDS else 2)
        right = solve(pair, digits)
        said = [bool(re.search(rf"\b{right}\b", text.lower())) for text in (pair.response_1, pair.response_2)]
        assert said[pair.preferred - 1], pair
        if pair.kind != "position":  # a corner's name holds no digit, but any digit word may occur once only
            assert not said[2 - pair.preferred], pair


def test_labels_and_lengths_carry_no_signal(large):
    labels = np.array([pair.preferred for pair in large.train])
    assert (labels == 1).sum() == (labels == 2).sum() == 2000
    longer = [
        (len(p.response_1) > len(p.response_2)) == (p.preferred == 1)
        for p in large.train
        if len(p.response_1) != len(p.response_2)
    ]
    assert abs(np.mean(longer) - 0.5) < 3 * 0.5 / np.sqrt(len(longer))


def test_a_reader_of_the_text_alone_is_at_chance(large):
    """Words of question and responses, with their crosses, predict nothing about held-out labels."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = [
        " ".join([f"{p.kind}_a_{w}" for w in p.response_1.lower().strip(".").split()]
                 + [f"{p.kind}_b_{w}" for w in p.response_2.lower().strip(".").split()]
                 + [f"q_{w}" for w in p.question.lower().split()])
        for p in large.train
    ]  # fmt: skip
    labels = [p.preferred for p in large.train]
    words = CountVectorizer(token_pattern=r"\S+").fit_transform(texts)
    model = LogisticRegression(C=0.1, max_iter=500).fit(words[:3000], labels[:3000])
    assert abs(model.score(words[3000:], labels[3000:]) - 0.5) < 3 * 0.5 / np.sqrt(1000)


def test_the_teacher_fails_mostly_on_hard_pairs(large):
    def share(kinds):
        return np.mean([p.reasoning is not None for p in large.train if p.kind in kinds])

    assert share(EASY_KINDS) == pytest.approx(Teacher().easy_success, abs=0.02)
    assert share(HARD_KINDS) == pytest.approx(Teacher().hard_success, abs=0.03)
    assert all(p.reasoning is None and p.attempts is None for p in large.test)
    assert {p.attempts for p in large.train} == {None, 1, 2, 3}


def test_every_text_of_the_teacher_answers_right_and_few_contradict_themselves(large):
    taught = [p for p in large.train if p.reasoning is not None]
    parsed = [parse_judgment(p.reasoning) for p in taught]
    assert all(j.well_formed and j.answer == p.preferred for j, p in zip(parsed, taught, strict=True))
    consistent = RuleReferee().judge([j.reasoning for j in parsed], [j.answer for j in parsed])
    assert 1 - np.mean(consistent) == pytest.approx(Teacher().inconsistent, abs=0.015)


def test_confusable_digits_are_confusable_both_ways():
    for digit, others in CONFUSABLE.items():
        assert digit not in others
        assert all(digit in CONFUSABLE[other] for other in others)


def test_captions_say_what_the_picture_shows(large):
    for picture, request, caption in large.captions:
        digits = large.scenes[picture].digits
        assert caption.startswith(f"I see {' '.join(DIGITS[d] for d in digits)}.")
        assert request
    assert {caption.split()[-1] for _, _, caption in large.captions} >= {"match", "wrong"}


def test_pictures_are_grids_of_cells():
    from r1_reward.data.handwriting import Scene

    cells, target = load_scans()
    assert cells.shape == (1797, 28, 28)
    assert cells.min() == 0
    assert cells.max() == 255
    grid = draw_scene(Scene((0, 1, 2, 3), (0, 1, 2, 3)), cells)
    assert grid.size == (56, 56)
    assert np.array_equal(np.asarray(grid)[28:, :28, 0], cells[2])  # reading order: third scan is bottom left
    assert draw_scene(Scene((4, 5), (4, 5)), cells).size == (56, 28)
    assert set(KINDS) == set(EASY_KINDS) | set(HARD_KINDS)
    assert target[0] == 0

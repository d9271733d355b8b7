"""The handwriting world: nothing leaks between splits, text alone is uninformative, the teacher fails as configured."""

from __future__ import annotations

import re

import numpy as np
import pytest

from r1_reward.data.handwriting import CONFUSABLE, Teacher, build_world, draw_scene, load_scans
from r1_reward.judge.referee import RuleReferee
from r1_reward.models.tiny_words import (
    CORNERS,
    DIGITS,
    GRID_KINDS,
    GROUPS,
    HOUSE_WORDS,
    KINDS,
    SIDES,
    TAUGHT_KINDS,
    TENS,
)
from r1_reward.records.parsing import parse_judgment
from r1_reward.studies.demo.text_alone import text_alone


@pytest.fixture(scope="module")
def large():
    return build_world(seed=5, train_pairs=4000, test_pairs=400, captions=300)


def test_splits_share_no_scan_and_no_scene(large):
    assert len(large.train_scans) == 1400
    assert len(large.test_scans) == 397
    assert not large.train_scans & large.test_scans
    scenes = {"train": [], "test": []}
    for name, scene in large.scenes.items():
        split = "train" if "train-" in name else "test"
        scenes[split].append(scene)
        assert set(scene.scans) <= (large.train_scans if split == "train" else large.test_scans)
    assert len(set(scenes["train"])) == len(scenes["train"]) == 4300
    assert not set(scenes["train"]) & set(scenes["test"])


def test_same_seed_same_world_other_seed_other_world():
    first, again, other = (build_world(seed=s, train_pairs=20, test_pairs=4) for s in (1, 1, 2))
    assert first.train == again.train
    assert first.train != other.train
    name = first.train[0].images[0]
    assert first.images[name].tobytes() == again.images[name].tobytes()


def solve(pair, digits, meanings):
    """An independent reading of the question text: the right answer in words."""
    question = pair.question.lower()
    if pair.kind in HOUSE_WORDS:
        (word,) = [word for word in HOUSE_WORDS if f" {word} " in question]
        return DIGITS[digits[meanings[word]]]
    if pair.kind == "position":
        corner = next(i for i, name in enumerate(CORNERS) if name in question)
        return DIGITS[digits[corner]]
    if pair.kind == "side":
        return DIGITS[digits[next(i for i, name in enumerate(SIDES) if name in question)]]
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
        right = solve(pair, digits, large.meanings)
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


def test_a_text_only_reader_is_at_chance(large):
    """Words of question and responses, crossed with the kind, predict nothing about held-out labels."""
    found = text_alone(large.train[:3000], large.train[3000:])
    assert set(found) == {"all", *GROUPS}
    assert found["all"]["n"] == sum(found[name]["n"] for name in GROUPS) == 1000
    for cell in found.values():
        assert abs(cell["mean"] - 0.5) < 3 * 0.5 / np.sqrt(cell["n"])
        assert cell["low"] <= cell["mean"] <= cell["high"]


def test_the_text_only_reader_finds_a_planted_signal(large):
    def telling(pair):
        words = ("Surely. ", "") if pair.preferred == 1 else ("", "Surely. ")
        return pair.model_copy(
            update={"response_1": words[0] + pair.response_1, "response_2": words[1] + pair.response_2}
        )

    pairs = [telling(pair) for pair in large.train]
    assert text_alone(pairs[:3000], pairs[3000:])["all"]["mean"] > 0.95


def test_the_teacher_explains_nothing_that_only_labels_know(large):
    def share(kinds):
        return np.mean([p.reasoning is not None for p in large.train if p.kind in kinds])

    assert share(TAUGHT_KINDS) == pytest.approx(Teacher().success, abs=0.02)
    assert share(HOUSE_WORDS) == 0
    assert all(p.reasoning is None and p.attempts is None for p in large.test)
    assert {p.attempts for p in large.train} == {None, 1, 2, 3}


def test_house_words_mean_either_digit_equally_often_and_are_assigned_anew():
    worlds = [build_world(seed=seed, train_pairs=0, test_pairs=0) for seed in range(12)]
    assert all(sorted(world.meanings.values()) == [0, 0, 1, 1] for world in worlds)
    assert all(set(world.meanings) == set(HOUSE_WORDS) for world in worlds)
    assert all({world.meanings[word] for world in worlds} == {0, 1} for word in HOUSE_WORDS)


def test_both_answers_to_a_house_word_are_in_the_picture(large):
    for pair in large.train + large.test:
        if pair.kind in HOUSE_WORDS:
            shown = {DIGITS[digit] for digit in large.scenes[pair.images[0]].digits}
            said = [set(text.lower().strip(".").split()) & set(DIGITS) for text in (pair.response_1, pair.response_2)]
            assert said[0] | said[1] == shown, pair
            assert len(shown) == 2


def test_captions_use_house_words_for_either_digit(large):
    sides = set()
    for picture, request, caption in large.captions:
        if " key " in request:
            left, right = (DIGITS[digit] for digit in large.scenes[picture].digits)
            (named,) = (name for name in (left, right) if f" key is {name}." in caption)
            sides.add("left" if named == left else "right")
    assert sides == set(SIDES)


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
    assert set(KINDS) == set(TAUGHT_KINDS) | set(HOUSE_WORDS)
    assert target[0] == 0

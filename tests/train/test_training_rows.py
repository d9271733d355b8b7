"""From pairs to training rows: what belongs to a pair stays with it."""

from __future__ import annotations

import logging

import pytest

from r1_reward.records.errors import UserError
from r1_reward.train.pictures_once import open_pictures
from r1_reward.train.rows import imitated, rl_rows, sft_rows
from r1_reward.train.sft import ColdStartConfig, sft_trainer

UNFIT = {
    "the other answer": (lambda label: f"<think>x</think><answer>{3 - label}</answer>", "prefers response"),
    "no verdict": (lambda label: f"Response {label} is better.", "has no readable verdict"),
    "two verdicts": (lambda label: f"<answer>{label}</answer><answer>{3 - label}</answer>", "has no readable verdict"),
    "an unfinished thought": (lambda label: f"<think>So <answer>{label}</answer>, but", "has no readable verdict"),
    "empty": (lambda _: "", "is blank"),
    "unseen": (lambda _: "\u200b\n", "is blank"),
}


def with_reasoning(pairs, texts):
    """The first pairs with these texts, each made from the pair's label; None for no reasoning."""
    rows = [
        {**pairs[n], "id": f"id{n}", "reasoning": text and text(pairs[n]["preferred"])} for n, text in enumerate(texts)
    ]
    return type(pairs).from_list(rows, features=pairs.features)


def fit(label):
    return f"<think>Response {label} is right.</think><answer>{label}</answer>"


@pytest.mark.parametrize("name", UNFIT)
def test_a_reasoning_against_its_label_is_left_out_and_counted(tiny, pairs, name):
    text, reason = UNFIT[name]
    rows = with_reasoning(pairs, [fit, text, None, fit, text])
    chosen = imitated(rows)
    assert chosen.pairs["id"][:] == ["id0", "id3"]
    assert chosen.without == 1
    assert sorted(id for ids in chosen.refused.values() for id in ids) == ["id1", "id4"]
    assert all(one.startswith(reason) for one in chosen.refused)
    assert len(sft_rows(rows, tiny[1])) == 2


def arguments(folder):
    return ColdStartConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none")


def test_what_is_left_out_of_imitation_is_said(tiny, pairs, tmp_path, caplog):
    rows = with_reasoning(pairs, [fit, UNFIT["empty"][0], None, UNFIT["no verdict"][0], UNFIT["empty"][0]])
    with caplog.at_level(logging.WARNING):
        trainer = sft_trainer(tiny[0], arguments(tmp_path), train_dataset=rows, processing_class=tiny[1])
    assert len(trainer.train_dataset) == 1
    said = next(record.message for record in caplog.records if "left out" in record.message)
    assert said.startswith("Training on 1 of 5 pairs; left out: 1 without reasoning; 2 whose reasoning is blank")
    assert "1 whose reasoning has no readable verdict" in said and "(e.g. id id3)" in said


@pytest.mark.parametrize(("texts", "said"), [([fit, fit], []), ([fit, None], ["1 of 2 pairs; left out: 1 without"])])
def test_pairs_without_reasoning_are_counted_and_nothing_is_said_where_there_are_none(
    tiny, pairs, tmp_path, caplog, texts, said
):
    with caplog.at_level(logging.WARNING):
        sft_trainer(tiny[0], arguments(tmp_path), train_dataset=with_reasoning(pairs, texts), processing_class=tiny[1])
    found = [record.message for record in caplog.records if "left out" in record.message]
    assert len(found) == len(said) and all(text in message for text, message in zip(said, found, strict=True))


@pytest.mark.parametrize("name", UNFIT)
def test_imitation_without_a_fit_reasoning_is_refused(tiny, pairs, tmp_path, name):
    rows = with_reasoning(pairs, [UNFIT[name][0]] * 3)
    with pytest.raises(UserError, match=r"nothing to imitate.*annotate") as refused:
        sft_trainer(tiny[0], arguments(tmp_path), train_dataset=rows, processing_class=tiny[1])
    assert f"whose reasoning {UNFIT[name][1]}" in str(refused.value)


def test_rows_of_equal_questions_keep_their_own_labels(tiny, pairs):
    first, second = pairs[0], {**pairs[0], "preferred": 3 - pairs[0]["preferred"]}
    twice = type(pairs).from_list([first, second], features=pairs.features)
    rows = rl_rows(twice)
    one, other = open_pictures([*rows], tiny[1])
    assert one["prompt"] == other["prompt"], "nothing in the text tells these two apart"
    assert [row["preferred"] for row in rows] == [first["preferred"], second["preferred"]]
    assert rows[[1, 0]]["preferred"] == [second["preferred"], first["preferred"]]

"""A rollout opens and processes its pictures once, whatever TRL asks for."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tiny_trainer import JUDGMENTS, trainer_for

from r1_reward.data.subsets import both_orders, without_reasoning
from r1_reward.judge.prepare import prepare
from r1_reward.records.errors import UserError
from r1_reward.train import pictures_once
from r1_reward.train.pictures_once import open_pictures, processed_once
from r1_reward.train.rows import rl_rows


def test_a_rollout_opens_and_processes_each_picture_once(tiny, pairs, tmp_path, monkeypatch):
    processed, opened = [], []
    image_processor = tiny[1].image_processor
    real = type(image_processor).preprocess
    monkeypatch.setattr(
        type(image_processor), "preprocess",
        lambda self, *args, **options: processed.append(1) or real(self, *args, **options),
    )  # fmt: skip
    monkeypatch.setattr(
        pictures_once, "prepare", lambda pair, **options: opened.append(pair["id"]) or prepare(pair, **options)
    )
    trainer = trainer_for(tiny, pairs, tmp_path, max_steps=4, per_device_train_batch_size=4, steps_per_generation=2)
    trainer.train()  # 4 updates, 2 rollouts of 8 rows; TRL reads the rows of a rollout at each update
    assert len(processed) == 2
    assert len(opened) == 16


def test_the_pictures_of_a_group_are_opened_once(tiny, pairs, tmp_path):
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, algorithm="grpo", num_generations=4)
    row = trainer.train_dataset[0]
    one, other, third = open_pictures([row, dict(row), trainer.train_dataset[1]], tiny[1])
    assert one["images"] is other["images"]
    assert one["images"] is not third["images"]
    assert one["prompt"] == other["prompt"] != third["prompt"]


def test_only_equal_pictures_with_equal_options_are_remembered(tiny):
    processor = tiny[1]
    black, white = Image.new("RGB", (56, 56)), Image.new("RGB", (56, 56), "white")
    before = processor.image_processor.preprocess
    with processed_once(processor):
        first = processor.image_processor([[black]])
        again = processor.image_processor([[black]], return_tensors="pt")
        assert again["pixel_values"] is first["pixel_values"]
        other = processor.image_processor([[white]], return_tensors="pt")
        assert not torch.equal(other["pixel_values"], first["pixel_values"])
        rescaled = processor.image_processor([[black]], return_tensors="pt", do_normalize=False)
        assert not torch.equal(rescaled["pixel_values"], first["pixel_values"])
        again["pixel_values"] = None  # the caller's own dictionary
        assert processor.image_processor([[black]])["pixel_values"] is not None
    assert processor.image_processor.preprocess == before


def test_the_two_orders_of_a_pair_share_what_is_opened(tiny, pairs):
    both = both_orders(without_reasoning(pairs.select(range(2))), seed=0)
    opened = open_pictures([*rl_rows(both)], tiny[1])
    for there, back in (opened[:2], opened[2:]):
        assert there["pair"]["response_1"] == back["pair"]["response_2"]
        assert there["images"][0] is back["images"][0]
        prompts = [row["prompt"][0]["content"][-1]["text"] for row in (there, back)]
        places = [
            text.index("[Response 1]:\n" + row["pair"]["response_1"])
            for text, row in zip(prompts, (there, back), strict=True)
        ]
        assert prompts[0] != prompts[1] and all(places)
    assert opened[0]["images"][0] is not opened[2]["images"][0]


def test_a_picture_that_is_gone_says_which(tiny, pairs, tmp_path):
    pair = {**pairs[0], "images": [{"path": str(tmp_path / "gone.png"), "bytes": None}]}
    with pytest.raises(UserError, match=r"gone\.png"):
        open_pictures([{"pair": pair, "preferred": 1}], tiny[1])

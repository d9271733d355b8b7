"""Training on rows that have no room in the model is refused before the first step, with the rows and the numbers."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from PIL import Image
from test_launch import run
from transformers.image_utils import SizeDict

from r1_reward.judge.prepare import prepare
from r1_reward.models.checkpoint import limit_pixels
from r1_reward.records.errors import UserError
from r1_reward.store.pairs import load_pairs
from r1_reward.train import lengths
from r1_reward.train.lengths import Lengths, require_room


@pytest.fixture
def edited(pair_file, tmp_path):
    """A function that writes the pair file with fields of a row with reasoning edited, and returns its path."""

    def write(**fields):
        rows = [json.loads(line) for line in pair_file.read_text().splitlines()][:8]
        for row in rows:
            row["images"] = [str(pair_file.parent / name) for name in row["images"]]
        place = next(n for n, row in enumerate(rows) if n and row.get("reasoning") is not None)
        rows[place] = {**rows[place], "id": "third", **fields}
        path = tmp_path / "edited.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def words(count):
    return " three" * count


def asked(stage, path, tiny, **more):
    model, processor = tiny
    require_room(Lengths(processor, model.config, frames=8), **{stage: load_pairs(path, check_images=False)}, **more)


LONG = {"question": words(4200)}, {"response_1": words(4200)}, {"response_1": words(8000), "response_2": "no"}


@pytest.mark.parametrize("stage", ["sft", "rl", "scalar", "judged"])
@pytest.mark.parametrize("fields", LONG)
def test_a_row_without_room_is_named_with_its_tokens(stage, fields, edited, tiny):
    with pytest.raises(
        UserError, match=r"1 (held-out )?pair has .* \(id third: [48],\d{3}\), .* 4,096 positions"
    ) as error:
        asked(stage, edited(**fields), tiny)
    assert ("held-out" in str(error.value)) == (stage == "judged")


def test_pictures_count(edited, tiny, tmp_path):
    Image.new("RGB", (280, 280), "red").save(tmp_path / "large.png")  # 64 tokens
    asked("rl", edited(images=[str(tmp_path / "large.png")] * 30), tiny)
    with pytest.raises(UserError, match=r"id third: 4,[5-9]\d\d"):
        asked("rl", edited(images=[str(tmp_path / "large.png")] * 70), tiny)


def test_pictures_of_many_megapixels_count_in_full(edited, tiny, tmp_path):
    model, processor = tiny
    limit_pixels(processor, 12_845_056)  # as Qwen2.5-VL's checkpoints have it
    Image.new("RGB", (2800, 2800), "red").save(tmp_path / "photo.png")  # 10,000 tokens
    config = type(model.config)(text_config={"max_position_embeddings": 9_500})
    rows = load_pairs(edited(images=[str(tmp_path / "photo.png")]), check_images=False)
    with pytest.raises(UserError, match=r"id third: 10,\d{3}\), .* 9,500 positions"):
        require_room(Lengths(processor, config, frames=8), rl=rows)


@pytest.mark.parametrize("budget", [28 * 28, 64 * 28 * 28, 640 * 28 * 28])
def test_no_shape_of_a_picture_takes_more_tokens_than_are_certain(budget, tiny):
    model, processor = tiny
    images = processor.image_processor
    images.size = SizeDict(shortest_edge=budget, longest_edge=budget)  # the smallest pictures are enlarged to it
    certain = Lengths(processor, model.config, frames=8)._most_per_picture()
    shapes = [(side, side * ratio) for side in (1, 5, 28, 90, 300) for ratio in (1, 3, 17, 60, 200)]
    most = max(images.get_number_of_image_patches(*shape) // images.merge_size**2 for shape in shapes)
    assert most <= certain


def test_what_is_learned_counts_where_it_is_learned(edited, tiny):
    path = edited(reasoning=f"<think>{words(4200)}</think><answer>1</answer>", preferred=1)
    with pytest.raises(UserError, match="id third"):
        asked("sft", path, tiny)
    with pytest.raises(UserError, match="id third"):
        asked("scalar", path, tiny, critique=True)
    asked("rl", path, tiny, new_tokens=8)
    asked("scalar", path, tiny)
    asked("sft", edited(response_1=words(4200), reasoning=None), tiny)  # which is not imitated
    of_one_answer = f"<think>Response 1 counts{words(4200)}</think><answer>1</answer>"
    asked("scalar", edited(reasoning=of_one_answer, preferred=1), tiny, critique=True)  # both critiques are empty


@pytest.mark.parametrize("stage", ["sft", "rl", "scalar", "judged"])
def test_rows_with_room_pass(stage, pair_file, tiny):
    asked(stage, pair_file, tiny)


def test_a_prompt_that_leaves_too_little_room_for_a_rollout_is_said(edited, tiny, caplog):
    path = edited(response_1=words(3000))
    with caplog.at_level(logging.WARNING):
        asked("rl", path, tiny, new_tokens=64)
        assert caplog.text == ""
        asked("rl", path, tiny, new_tokens=2048)
    assert "id third" in caplog.text and "room for 2048 new tokens" in caplog.text


def test_short_rows_are_not_encoded(pair_file, tiny, monkeypatch):
    model, processor = tiny
    config = type(model.config)(text_config={"max_position_embeddings": 100_000})

    def blank(row, **options):
        assert all(isinstance(picture, Image.Image) for picture in row["images"]), "a picture was opened"
        return prepare(row, **options)

    monkeypatch.setattr(lengths, "prepare", blank)
    require_room(Lengths(processor, config, frames=8), rl=load_pairs(pair_file), new_tokens=1024)


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_the_command_is_refused_before_it_writes_anything(stage, edited, tmp_path):
    with pytest.raises(UserError, match="id third"):
        run(stage, edited(response_2=words(4200)), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_held_out_pairs_are_looked_at_too(edited, pair_file, tmp_path):
    held_out = str(edited(response_2=words(4200)))
    with pytest.raises(UserError, match="held-out pair has"):
        run("rl", pair_file, tmp_path / "run", "--held_out", held_out, "--held_out_every", "1")
    assert Path(tmp_path / "run").is_dir()

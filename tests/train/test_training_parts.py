"""Training on pictures at their places: shown as judging shows them, in SFT, RL and scalar models."""

from __future__ import annotations

import pytest
import torch
from part_rows import FRAMES, PICTURES, cell, dataset_of, grey, image, part_rows, row_of, text
from tiny_trainer import JUDGMENTS, trainer_for

from r1_reward.data.subsets import balance, both_orders, without_reasoning
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.scalar import ScalarEngine
from r1_reward.judge.prepare import prepare
from r1_reward.models.scalar import ScalarRewardModel
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import build_messages, special_tokens_of
from r1_reward.store.video import row_pictures
from r1_reward.train.checked_pairs import fingerprint
from r1_reward.train.held_out import HeldOutAccuracy
from r1_reward.train.lengths import Lengths, require_room
from r1_reward.train.pictures_once import open_pictures
from r1_reward.train.rows import rl_rows, sft_rows, shows_video
from r1_reward.train.scalar import PairCollator, ScalarConfig, scalar_trainer
from r1_reward.train.sft import ColdStartConfig, sft_trainer

KINDS = range(len(PICTURES))


@pytest.fixture
def rows(tmp_path):
    return part_rows(tmp_path)


def pixels(pictures):
    return [(picture.size, picture.tobytes()) for picture in pictures]


# ---- shown as a judge is shown it


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_trained_on_as_it_is_judged(tiny, rows, kind):
    engine, row = TransformersEngine(*tiny), rows[kind]
    pair = prepare(row, video_frames=FRAMES)
    judged = engine.compare(pair.question, pair.images.pictures, *pair.shown(False))
    turned = engine.compare(pair.question, pair.images.pictures, *pair.shown(True))
    assert len(judged.images) == PICTURES[kind]
    exchanged = {**row, "response_1": pair.responses[1], "response_2": pair.responses[0]}
    if kind != 6:  # whose pictures come beside the text, in the order of the places
        exchanged = {**row, "response_1": row["response_2"], "response_2": row["response_1"]}
        again = prepare(exchanged, video_frames=FRAMES)
        request = engine.compare(again.question, again.images.pictures, *again.shown(False))
        assert request.messages == turned.messages and pixels(request.images) == pixels(turned.images)

    pairs = dataset_of([row])
    (rollout,) = open_pictures([*rl_rows(pairs)], tiny[1], FRAMES)
    (imitated,) = sft_rows(pairs, tiny[1], video_frames=FRAMES)
    for shown in (rollout, imitated):
        assert shown["prompt"] == judged.messages
        assert pixels(shown["images"]) == pixels(judged.images)
    assert rollout["preferred"] == 1
    assert imitated["completion"][0]["content"].startswith(row["reasoning"])


@pytest.mark.parametrize("kind", [1, 2, 3, 5])
def test_both_orders_of_a_pair_show_its_pictures_in_theirs(tiny, rows, kind):
    engine, pair = TransformersEngine(*tiny), prepare(rows[kind], video_frames=FRAMES)
    both = both_orders(without_reasoning(dataset_of([rows[kind]])), seed=0)
    shown = open_pictures([*rl_rows(both)], tiny[1], FRAMES)
    for one, swapped in zip(shown, (False, True), strict=True):
        request = engine.compare(pair.question, pair.images.pictures, *pair.shown(swapped))
        assert one["prompt"] == request.messages and pixels(one["images"]) == pixels(request.images)
        assert one["preferred"] == 1 + swapped


def test_pictures_stand_between_the_texts_they_belong_to(tiny, rows):
    (shown,) = sft_rows(dataset_of([rows[2]]), tiny[1])
    words = ["[image]" if part["type"] == "image" else part["text"] for part in shown["prompt"][0]["content"]]
    prompt = "".join(words)
    assert prompt.startswith("[image]") and "Like [image]?" in prompt and "[Response 1]:\nso: [image]" in prompt
    assert [picture.getpixel((0, 0))[0] for picture in shown["images"]] == [10, 20, 30]


def test_plain_rows_are_shown_as_ever(tiny, rows, pairs):
    tokens = special_tokens_of(tiny[1])
    imitated = [row for row in pairs if row["reasoning"] is not None][:3]
    shown = sft_rows(type(pairs).from_list(imitated, features=pairs.features), tiny[1])
    for row, one in zip(imitated, shown, strict=True):
        texts = [row[name] for name in ("question", "response_1", "response_2")]
        assert one["prompt"] == build_messages(*texts, images=len(row["images"]), special_tokens=tokens)
        assert [part["type"] for part in one["prompt"][0]["content"]] == ["image"] * len(row["images"]) + ["text"]
        assert pixels(one["images"]) == pixels(row_pictures(row))


# ---- steps


def test_sft_takes_two_steps_on_pairs_of_pictures(tiny, rows, tmp_path):
    model, processor = tiny
    args = ColdStartConfig(
        output_dir=str(tmp_path / "run"), per_device_train_batch_size=8, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, max_steps=2, disable_tqdm=True, save_strategy="no", learning_rate=1e-3,
    )  # fmt: skip
    trainer = sft_trainer(model, args, train_dataset=dataset_of(rows), processing_class=processor, video_frames=FRAMES)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in KINDS])
    assert len(batch["image_grid_thw"]) == sum(PICTURES)
    before = [weight.detach().clone() for weight in model.model.visual.parameters()]
    trainer.train()
    assert trainer.state.global_step == 2 and trainer.state.log_history[-1]["train_loss"] > 0
    assert any(not old.equal(new) for old, new in zip(before, model.model.visual.parameters(), strict=True))


def test_a_picture_in_an_answer_moves_the_loss(tiny, tmp_path):
    model, processor = tiny

    def loss(first, second):
        row = row_of(0, response_1=[image(first)], response_2=[image(second)])
        args = ColdStartConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
        trainer = sft_trainer(model, args, train_dataset=dataset_of([row]), processing_class=processor)
        with torch.no_grad():
            return model(**trainer.data_collator([trainer.train_dataset[0]])).loss.item()

    losses = [loss(10, 240), loss(240, 10), loss(10, 10), loss(10, 239)]
    assert len({round(value, 5) for value in losses[:3]}) == 3
    assert loss(10, 240) == losses[0]


def test_rl_takes_a_step_on_pairs_of_pictures(tiny, rows, tmp_path):
    trainer = trainer_for(
        tiny, dataset_of(rows), tmp_path, per_device_train_batch_size=8, steps_per_generation=1, video_frames=FRAMES,
        shuffle_dataset=False,
    )  # fmt: skip
    trainer.train()  # the model samples
    assert trainer.state.global_step == 1
    trainer = trainer_for(tiny, dataset_of(rows), tmp_path, JUDGMENTS, video_frames=FRAMES)
    before = [weight.detach().clone() for weight in trainer.model.model.visual.parameters()]
    trainer.train()
    after = trainer.model.model.visual.parameters()
    assert any(not old.equal(new) for old, new in zip(before, after, strict=True))


def test_what_a_rollout_samples_is_what_the_judge_says(tiny, rows, tmp_path):
    trainer = trainer_for(
        tiny, dataset_of(rows), tmp_path, temperature=1e-4, video_frames=FRAMES, max_completion_length=6,
        gradient_accumulation_steps=1,
    )  # fmt: skip
    rollout = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in KINDS])
    assert rollout["num_images"] == PICTURES
    engine = TransformersEngine(*tiny)
    pairs = [prepare(row, video_frames=FRAMES) for row in rows]
    requests = [
        engine.compare(pair.question, pair.images.pictures, *pair.responses, max_new_tokens=6) for pair in pairs
    ]
    said = tiny[1].batch_decode(rollout["completion_ids"], skip_special_tokens=True)
    judged = [completions[0].text for completions in engine.generate(requests)]
    assert said == judged and len(set(judged)) > 1


def test_whoever_samples_is_given_the_pictures_in_the_order_of_the_prompt(tiny, rows, tmp_path):
    """As TRL gives them to vLLM, which wants None for a prompt without any."""
    pairs = dataset_of([*rows, row_of(8)])
    trainer, given = trainer_for(tiny, pairs, tmp_path, JUDGMENTS, video_frames=FRAMES), []
    sample = trainer._generate_single_turn

    def spy(prompt_ids, images, *args, **kwargs):
        given.extend(images)
        return sample(prompt_ids, images, *args, **kwargs)

    trainer._generate_single_turn = spy
    trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(9)])
    engine = TransformersEngine(*tiny)
    for row, pictures in zip([*rows, row_of(8)], given, strict=True):
        pair = prepare(row, video_frames=FRAMES)
        request = engine.compare(pair.question, pair.images.pictures, *pair.responses)
        assert pixels(pictures or []) == pixels(request.images)
    assert given[-1] is None


def test_log_probabilities_do_not_depend_on_the_pictures_of_the_rows_beside(tiny, rows, tmp_path):
    plain = row_of(8)  # no picture at all
    pairs = dataset_of([*rows[1:4], plain])
    trainer = trainer_for(tiny, pairs, tmp_path, JUDGMENTS[:1], video_frames=FRAMES, gradient_accumulation_steps=1)
    inputs = [trainer.train_dataset[i] for i in range(4)]

    def logps(batch):
        seen = trainer._generate_and_score_completions(batch)
        return trainer._logps_and_entropies(trainer.model, seen, entropy=False)[0].detach()

    together = logps(inputs)
    for i, row in enumerate(inputs):
        torch.testing.assert_close(logps([row])[0], together[i], atol=2e-5, rtol=1e-4)


# ---- what must not be learned from


@pytest.mark.parametrize("label", [0, None])
@pytest.mark.parametrize("way", ["sft", "rl", "scalar", "collator", "balance", "both orders", "held out", "sft rows"])
def test_a_pair_without_a_winner_is_refused_before_the_first_step(tiny, rows, tmp_path, way, label):
    pairs = dataset_of([row_of(0), row_of(1, id="drawn", preferred=label, reasoning=None), rows[1]])
    args = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    given = {"train_dataset": pairs, "processing_class": tiny[1]}
    ways = {
        "sft": lambda: sft_trainer(tiny[0], ColdStartConfig(**args), **given),
        "sft rows": lambda: sft_rows(pairs, tiny[1]),
        "rl": lambda: trainer_for(tiny, pairs, tmp_path),
        "scalar": lambda: scalar_trainer(tiny[0], ScalarConfig(**args), **given),
        "collator": lambda: PairCollator(tiny[1], critique=False)([*pairs]),
        "balance": lambda: balance(pairs, seed=0),
        "both orders": lambda: both_orders(without_reasoning(pairs), seed=0),
        "held out": lambda: HeldOutAccuracy(None, [*pairs], every=1, max_new_tokens=4),
    }
    with pytest.raises(UserError, match=r"1 pair has no winner \(id drawn\).*`r1-reward data mix`"):
        ways[way]()


def test_many_pairs_without_a_winner_are_counted(tiny):
    pairs = dataset_of([row_of(number, preferred=0) for number in range(8)])
    with pytest.raises(UserError, match=r"8 pairs have no winner \(id row0, row1, row2, row3, row4, \.\.\.\)"):
        rl_rows(pairs)


# ---- room


def encoded(processor, messages, pictures):
    chat = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return len(processor(text=[chat], images=[pictures], add_special_tokens=False)["input_ids"][0])


@pytest.mark.parametrize("kind", [1, 3, 4, 5, 6])
def test_a_row_of_parts_is_measured_as_it_is_shown(tiny, rows, kind):
    model, processor = tiny
    (shown,) = open_pictures([*rl_rows(dataset_of([rows[kind]]))], processor, FRAMES)
    tokens = encoded(processor, shown["prompt"], shown["images"])

    def measured(limit):
        config = type(model.config)(text_config={"max_position_embeddings": limit})
        require_room(Lengths(processor, config, frames=FRAMES), judged=dataset_of([rows[kind]]))

    measured(tokens + 1)
    with pytest.raises(UserError, match=rf"id row{kind}: {tokens:,}\)"):
        measured(tokens)


@pytest.mark.parametrize("stage", ["sft", "rl", "scalar", "judged"])
@pytest.mark.parametrize("count", [40, 120])
def test_many_pictures_in_an_answer_are_measured(tiny, stage, count):
    model, processor = tiny
    many = [part for number in range(count) for part in (text(f"{number}: "), image(number, (224, 224)))]
    pairs = dataset_of([row_of(0, response_2=many), row_of(1, images=[cell(3)])])
    lengths = Lengths(processor, model.config, frames=FRAMES)  # 64 tokens a picture and 4,096 positions
    if count == 40:
        require_room(lengths, **{stage: pairs})
    else:
        with pytest.raises(UserError, match=r"1 (held-out )?pair has .* \(id row0: [78],\d{3}\)"):
            require_room(lengths, **{stage: pairs})


def test_fewer_frames_than_a_video_may_show_are_counted_as_they_are(tiny, rows):
    model, processor = tiny
    config = type(model.config)(text_config={"max_position_embeddings": 400})
    require_room(Lengths(processor, config, frames=1000), rl=dataset_of(rows[4:6]))  # the clip has five


def test_a_row_that_no_judge_is_shown_is_named(tiny):
    model, processor = tiny
    pairs = dataset_of([row_of(0), row_of(1, question="word " * 20_000)])
    with pytest.raises(UserError, match=r"id row1: question: has 100,000 characters"):
        require_room(Lengths(processor, model.config, frames=FRAMES), rl=pairs)


def test_a_plan_counts_pictures_within_answers(rows, monkeypatch, tmp_path):
    from r1_reward.train.plan import plan_run

    monkeypatch.setattr("r1_reward.store.pairs.load_pairs", lambda *_, **__: dataset_of([rows[1]]))
    (tmp_path / "pairs.jsonl").touch()
    options = ["--model", "tiny", "--data", str(tmp_path / "pairs.jsonl"), "--output_dir", str(tmp_path / "o")]
    plan = plan_run(None, options, stage="sft")
    assert plan.lengths.visual == 2 * 4  # 56 x 56 each


# ---- pictures are looked at once


def test_what_was_checked_depends_on_pictures_and_films_within(rows, tmp_path):
    seen = {fingerprint(dataset_of([row]), FRAMES) for row in rows}
    assert len(seen) == len(rows)
    one = fingerprint(dataset_of([rows[1]]), FRAMES)
    assert fingerprint(dataset_of([{**rows[1], "response_2": [image(41)]}]), FRAMES) != one
    film = fingerprint(dataset_of([rows[4]]), FRAMES)
    grey(77).save(tmp_path / "clip" / "9.png")
    assert fingerprint(dataset_of([rows[4]]), FRAMES) != film


def test_a_video_within_a_text_is_a_video(rows):
    assert [shows_video(dataset_of([row])) for row in rows] == [kind in (4, 5) for kind in KINDS]


# ---- scalar models


@pytest.fixture
def scalar(tiny):
    torch.manual_seed(0)
    return ScalarRewardModel(tiny[0]).eval()


def test_a_batch_for_a_scalar_model_holds_the_preferred_answers_first(tiny, rows, scalar):
    collate = PairCollator(tiny[1], critique=False, video_frames=FRAMES)
    chosen = [{**row, "preferred": 1 + number % 2} for number, row in enumerate(rows)]
    with torch.no_grad():
        rewards = scalar(**collate([*dataset_of(chosen)])).rewards.tolist()
    pairs = [prepare(row, video_frames=FRAMES) for row in chosen]
    candidates = [
        (pair.question, list(pair.images.pictures), pair.responses[label - 1])
        for turn in (False, True)
        for pair, row in zip(pairs, chosen, strict=True)
        for label in [3 - row["preferred"] if turn else row["preferred"]]
    ]
    judged = ScalarEngine(scalar, tiny[1]).rewards(candidates)
    assert rewards == pytest.approx(judged, abs=1e-4)
    assert len({round(reward, 5) for reward in judged}) > len(rows)


def test_a_scalar_model_learns_from_pictures_in_answers(tiny, tmp_path):
    light, dark = [image(240)], [text("Here: "), image(10)]
    pairs = dataset_of(
        [row_of(0, response_1=light, response_2=dark), row_of(1, response_1=dark, response_2=light, preferred=2)]
    )
    args = ScalarConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=2,
        max_steps=8, learning_rate=1e-3, save_strategy="no", logging_steps=1, disable_tqdm=True,
        lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = scalar_trainer(tiny[0], args, train_dataset=pairs, processing_class=tiny[1], base_model="tiny")
    trainer.train()
    losses = [row["bradley_terry"] for row in trainer.state.log_history if "bradley_terry" in row]
    assert losses[-1] < 0.5 * losses[0]

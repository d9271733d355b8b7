"""A StableReinforceTrainer around the tiny model, with scripted texts in the place of samples."""

from __future__ import annotations

from r1_reward.train.rl import StableReinforceConfig, StableReinforceTrainer


def config(folder, *, config_class=StableReinforceConfig, **options):
    defaults = {
        "per_device_train_batch_size": 8, "max_completion_length": 12, "max_steps": 1, "learning_rate": 1e-3,
        "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "disable_tqdm": True, "gradient_checkpointing": False, "seed": 0,
    }  # fmt: skip
    return config_class(output_dir=str(folder), **{**defaults, **options})


def trainer_for(
    tiny, pairs, tmp_path, texts=None, *, peft_config=None, video_frames=8, trainer_class=StableReinforceTrainer,
    eval_dataset=None, **options,
):  # fmt: skip
    model, processor = tiny
    trainer = trainer_class(
        model,
        config(tmp_path, **options),
        train_dataset=pairs,
        processing_class=processor,
        peft_config=peft_config,
        eval_dataset=eval_dataset,
        video_frames=video_frames,
    )
    trainer.model.train()
    if texts is not None:
        # Stand in for sampling: an untrained model never writes a judgment, and rewards must differ to be standardised.
        ids = [processor.tokenizer(text)["input_ids"] + [processor.tokenizer.eos_token_id] for text in texts]

        def generate(prompt_ids, *args, **kwargs):
            return [list(ids[i % len(ids)]) for i in range(len(prompt_ids))], None

        trainer._generate_single_turn = generate
    return trainer


JUDGMENTS = [
    "<think>I see one two. Response 1 is better.</think><answer>1</answer>",
    "<think>I see one two. Response 2 is better.</think><answer>2</answer>",
    "no tags at all 1",
]


def batch(trainer, size=8):
    return [trainer.train_dataset[i] for i in range(size)]

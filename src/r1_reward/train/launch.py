"""Train a checkpoint from a configuration: the single entry point of all stages."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from r1_reward.data.subsets import balance
from r1_reward.models.checkpoint import (
    keep_video_frames,
    limit_pixels,
    load_model_and_processor,
    video_frames_of_checkpoint,
)
from r1_reward.records.errors import UserError
from r1_reward.store.video import FRAMES
from r1_reward.train.checked_pairs import checked_pairs
from r1_reward.train.checkpoints import checkpoint_to_resume, clear_staging, saving
from r1_reward.train.config import LoadedConfig, RunConfig, load_config, save_config
from r1_reward.train.lengths import Lengths, require_room
from r1_reward.train.precision import require_room_for_updates
from r1_reward.train.processes import once
from r1_reward.train.restore import restore_weights, train_from
from r1_reward.train.rows import shows_video

logger = logging.getLogger(__name__)


def config_class(stage: str) -> type:
    """Return the trainer configuration of ``sft``, ``rl`` or ``scalar``."""
    if stage == "sft":
        from r1_reward.train.sft import ColdStartConfig

        return ColdStartConfig
    if stage == "scalar":
        from r1_reward.train.scalar import ScalarConfig

        return ScalarConfig
    from r1_reward.train.rl import StableReinforceConfig

    return StableReinforceConfig


def train(stage: str, path: str | Path | None, overrides: Sequence[str], *, resume: bool = False) -> Path:
    """Run ``sft``, ``rl`` or ``scalar`` as configured and return the folder with the trained model and processor.

    Raises:
        UserError: The configuration, the pairs, the checkpoint or the output folder is invalid, or the run collapsed
            and was stopped.
    """
    config: LoadedConfig[Any] = load_config(path, overrides, config_class(stage))
    if getattr(config.trainer, "use_vllm", False) and find_spec("vllm") is None:
        raise UserError("use_vllm needs vLLM: pip install 'r1-reward[vllm]'")
    if stage == "rl" and config.run.lora_rank == 0:
        from r1_reward.train.rl_base import require_reference

        require_reference(config.run.model, config.trainer)
    folder = Path(config.trainer.output_dir)
    checkpoint = once(lambda: check_output_folder(folder, resume=resume))
    frames = config.run.video_frames or video_frames_of_checkpoint(config.run.model) or FRAMES
    config.run = config.run.model_copy(update={"video_frames": frames})
    pairs = checked_pairs(
        config.run.data, split=config.run.split, video_frames=frames, check_images=config.run.check_images
    )
    if stage == "scalar" and config.run.held_out is not None:
        raise UserError(
            "held_out: scalar models are judged after training (`r1-reward bench run pairs`); remove this key."
        )
    held_out = _held_out(config.run)
    if stage == "rl":
        _require_a_rollout(len(pairs), config)
        pairs = balance(pairs, seed=config.trainer.seed, keep_order=not config.trainer.shuffle_dataset)
    model, processor = load_model_and_processor(
        config.run.model, dtype=config.run.dtype, attn_implementation=config.run.attn_implementation
    )
    if config.run.max_pixels is not None:
        limit_pixels(processor, config.run.max_pixels)
    if shows_video(pairs):
        keep_video_frames(processor, frames)
    lengths = Lengths(processor, model.config, frames=frames)
    new_tokens = getattr(config.trainer, "max_completion_length", None) or 0
    shown = {} if getattr(config.trainer, "max_length", None) else {stage: pairs}  # truncated sequences fit
    critique = getattr(config.trainer, "critique", False)
    once(lambda: require_room(lengths, **shown, judged=held_out, critique=critique, new_tokens=new_tokens))
    once(lambda: _save_config(config, folder))
    trainer = _trainer(stage, config, model, processor, pairs)
    if not (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
        require_room_for_updates(trainer.model, config.trainer.learning_rate)
    if held_out is not None:
        _judge_held_out(trainer, held_out, config.run)
    _train(stage, config.run, trainer, checkpoint)
    with saving("the trained model", folder):
        trainer.save_model(str(folder))
        once(lambda: processor.save_pretrained(folder))
        trainer.save_state()  # the whole log, with the last row, which no checkpoint has
    trainer.accelerator.wait_for_everyone()  # a process that exited now would break the connections of the others
    return folder


def check_output_folder(folder: Path, *, resume: bool) -> str | None:
    """Return the checkpoint to resume from, or None for a fresh run; warn if ``resume`` finds none.

    Raises:
        UserError: The folder holds a run and ``resume`` is False, it cannot be written, or none of its checkpoints
            can be resumed.
    """
    require_free_folder(folder, resume=resume)
    if not resume:
        return None
    checkpoint = checkpoint_to_resume(folder)
    if checkpoint is None:
        logger.warning("%s: no checkpoint found, so --resume starts from the beginning.", folder)
    return None if checkpoint is None else str(checkpoint)


def require_free_folder(folder: Path, *, resume: bool, option: str = "--output_dir") -> None:
    """Create the folder of a run; raises UserError if it holds one and ``resume`` is False, or cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a directory.")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: already holds a run; choose another {option}, or use --resume to continue it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_staging(folder)
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not reveal a read-only disk
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write to it: {error.strerror}.") from error


def _require_a_rollout(pairs: int, config: LoadedConfig[Any]) -> None:
    """Raise UserError if the pairs do not fill a rollout: TRL leaves out the rest, so nothing would be trained on."""
    needed = config.trainer.generation_batch_size // config.trainer.num_generations
    if pairs < needed:
        raise UserError(
            f"{config.run.data}: {pairs:,} pairs, but one rollout takes {needed:,} (per_device_train_batch_size * "
            "steps_per_generation * processes / num_generations). Add pairs, or lower steps_per_generation."
        )


def _save_config(config: LoadedConfig[Any], folder: Path) -> None:
    with saving("config.yaml", folder):
        save_config(config, folder)


def _trainer(stage: str, config: LoadedConfig[Any], model: Any, processor: Any, pairs: Any) -> Any:
    options: dict[str, Any] = {
        "train_dataset": pairs,
        "processing_class": processor,
        "peft_config": _lora(config.run),
        "video_frames": config.run.video_frames,
    }
    if stage == "sft":
        from r1_reward.train.sft import sft_trainer

        return sft_trainer(model, config.trainer, **options)
    if stage == "scalar":
        from r1_reward.train.scalar import scalar_trainer

        return scalar_trainer(model, config.trainer, base_model=config.run.model, **options)
    from r1_reward.train.rl import StableReinforceTrainer

    return StableReinforceTrainer(model, config.trainer, **options)


def _train(stage: str, run: RunConfig, trainer: Any, checkpoint: str | None) -> None:
    if stage != "rl" or run.on_collapse == "ignore":
        train_from(trainer, checkpoint)
        return
    if checkpoint is not None and not trainer.is_deepspeed_enabled:
        restore_weights(trainer, checkpoint)
    from r1_reward.train.monitor import StabilityMonitor

    monitor = StabilityMonitor(
        trainer,
        on_collapse="rollback" if run.on_collapse == "rollback" else "stop",
        keep_good_every=run.keep_good_every,
        rollback_lr_factor=run.rollback_lr_factor,
        max_rollbacks=run.max_rollbacks,
    )
    monitor.train(checkpoint)


def _held_out(run: RunConfig) -> Any:
    """Return the pairs to judge during training, the same for every seed of the run; None if none are configured."""
    if run.held_out is None:
        return None
    pairs = checked_pairs(
        run.held_out,
        split=run.held_out_split,
        video_frames=run.video_frames or FRAMES,
        check_images=run.check_images,
    )
    return pairs.shuffle(seed=0).select(range(min(run.held_out_pairs, len(pairs))))


def _judge_held_out(trainer: Any, pairs: Any, run: RunConfig) -> None:
    from r1_reward.train.held_out import HeldOutAccuracy

    args = trainer.args
    trainer.add_callback(
        HeldOutAccuracy(
            trainer,
            pairs,
            every=run.held_out_every,
            max_new_tokens=getattr(args, "max_completion_length", None) or 1024,
            # A rollout generates this many sequences at once, so they fit.
            batch_size=args.per_device_train_batch_size * (getattr(args, "steps_per_generation", None) or 1),
            video_frames=run.video_frames or FRAMES,
        )
    )


def _lora(run: RunConfig) -> Any:
    if run.lora_rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(r=run.lora_rank, lora_alpha=run.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")

"""Train a reward model on real handwriting from random weights and evaluate it, in one resumable run.

The phases, in order; each writes its result to the run folder and is skipped if that already exists:

    world      pairs about scanned digits, captions, disjoint held-out scans          data/*.parquet
    ground     the tiny Qwen2.5-VL learns to read pictures from captions              ground/
    sft        cold start on the teacher's reasoning until accuracy stops improving   sft/
    attempts   up to 3 samples per pair at temperature 1: which pairs are hard        attempts.jsonl
    rl         StableReinforce on the hard pairs, mixed with some others              rl/
    control    SFT continued for the wall-clock time RL took                          control/
    evaluate   base, sft, control and rl on held-out pairs: greedy in both orders, and 15 votes   predictions/
    report     metrics.json, report.html
"""

from __future__ import annotations

import json
import random
import shlex
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1_reward.data.handwriting import World, build_world
from r1_reward.models.tiny_words import SIDES, TAUGHT_KINDS, vocabulary
from r1_reward.store.digests import file_digest
from r1_reward.store.files import read_json, write_json, write_text
from r1_reward.store.identity import weights_identity
from r1_reward.store.run_folder import LOCK, locked, require_same
from r1_reward.store.tables import parquet_dataset
from r1_reward.studies.demo.config import MODELS, VOTING_MODELS, DemoConfig
from r1_reward.studies.demo.files import write_data_card, write_predictions, write_predictions_card
from r1_reward.studies.demo.text_alone import text_alone

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image

    from r1_reward.studies.demo.progress import DemoProgress


class Demo:
    """One run folder and the phases that fill it."""

    def __init__(self, folder: Path, config: DemoConfig, progress: DemoProgress, *, resume: bool = False) -> None:
        """Open or create the run folder.

        Raises:
            UserError: The folder holds a run and ``resume`` is off, the run has another configuration, or the result
                of a finished phase has changed.
        """
        from r1_reward.train.launch import require_free_folder

        require_free_folder(folder, resume=resume, option="--out")
        self.folder, self.config, self.progress = folder, config, progress
        folder.mkdir(parents=True, exist_ok=True)
        self._state_file = folder / "state.json"
        self.seconds: dict[str, float] = {}
        self._spent: dict[str, float] = {}  # seconds of the phase in progress, up to its newest checkpoint
        self._started = 0.0
        self.resumed = False
        self._pairs: dict[str, Dataset] = {}  # reading and checking 14,000 rows takes seconds
        if self._state_file.is_file():
            state = read_json(self._state_file)
            require_same(folder, state["config"], config.model_dump())
            self.seconds, self._spent = state["seconds"], state.get("spent", {})
            self.resumed = state.get("resumed", False) or bool(self._spent)
            if "contents" in state:  # missing in runs of 0.1.0
                require_same(folder, state["contents"], self._contents(), "Remove the folder, or choose another --out.")
        self._save_state()

    def run(self) -> Path:
        """Run every phase that is not finished and return the report's path."""
        self.run_until("report")
        return self.folder / "report.html"

    def run_until(self, last: str) -> None:
        """Run the unfinished phases up to ``last``; raises UserError if another process is running them."""
        with locked(self.folder / LOCK, self.folder):
            self._run_until(last)

    def _run_until(self, last: str) -> None:
        phases: tuple[tuple[str, Callable[[], None]], ...] = (
            ("world", self.make_world),
            ("ground", self.ground),
            ("sft", self.cold_start),
            ("attempts", self.measure_difficulty),
            ("rl", self.reinforce),
            ("control", self.continue_sft),
            *((f"evaluate {name}", lambda name=name: self.evaluate(name)) for name in MODELS),
            ("report", self.report),
        )
        for name, phase in phases:
            if name in self.seconds and name != "report":
                self.progress.skipped(name)
                if name == last:
                    return
                continue
            self._spent = {name: self._spent.get(name, 0.0)}
            self._started = time.monotonic() - self._spent[name]
            self._save_state()
            phase()
            self.seconds[name], self._spent = time.monotonic() - self._started, {}
            self._save_state()
            self.progress.finished(name, self.seconds[name])
            if name == last:
                return

    def _save_state(self) -> None:
        state = {"config": self.config.model_dump(), "seconds": self.seconds, "resumed": self.resumed}
        write_json(self._state_file, {**state, "spent": self._spent, "contents": self._contents()})

    def _keep_time(self) -> None:
        """Save the time spent so far on the phase in progress: the length of the control depends on it."""
        self._spent = dict.fromkeys(self._spent, time.monotonic() - self._started)
        self._save_state()

    def _contents(self) -> dict[str, str | None]:
        """Return the identity of the models and pairs of finished phases, from which later phases start."""
        models = {"world": "base", **{name: name for name in ("ground", "sft", "rl", "control")}}
        folders = [folder for phase, folder in models.items() if phase in self.seconds]
        found: dict[str, str | None] = {
            name: weights_identity(self.folder / name) if (self.folder / name).is_dir() else None for name in folders
        }
        if "world" in self.seconds:
            files = sorted((self.folder / "data").glob("*.parquet"))
            found |= {f"data/{file.name}": file_digest(file) for file in files}
        return found

    # ---- data

    def make_world(self) -> None:
        """Write the pairs, the captions and the untrained model."""
        from r1_reward.models.tiny import build_tiny
        from r1_reward.store.pairs import save_pairs

        config = self.config
        world = build_world(
            seed=config.seed,
            train_pairs=config.train_pairs,
            test_pairs=config.test_pairs,
            captions=config.captions,
            house_share=config.house_share,
            teacher=config.teacher(),
        )
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        for name, pairs in (("train", world.train), ("test", world.test)):
            save_pairs(_with_pictures(pairs, world.images), data / f"{name}.parquet")
        _captions(world).to_parquet(str(data / "captions.parquet"))
        write_json(data / "world.json", _count_world(world))
        write_data_card(data)
        model, processor = build_tiny(vocabulary(), seed=config.seed)
        self._save_model("base", model, processor)

    def pairs(self, name: str) -> Dataset:
        """Return the train or test pairs."""
        from r1_reward.store.pairs import load_pairs

        if name not in self._pairs:
            self._pairs[name] = load_pairs(self.folder / "data" / f"{name}.parquet", check_images=False)
        return self._pairs[name]

    def training_pairs(self) -> Dataset:
        """Return the train pairs without the development pairs, which decide when the cold start ends."""
        pairs = self.pairs("train")
        return pairs.select(range(self.config.dev_pairs, len(pairs)))

    def development_pairs(self) -> list[dict[str, Any]]:
        """Return the pairs that decide when the cold start ends: of kinds that the teacher explains, if any."""
        pairs = list(self.pairs("train").select(range(self.config.dev_pairs)))
        return [pair for pair in pairs if pair["kind"] in TAUGHT_KINDS] or pairs

    # ---- models

    def _save_model(self, name: str, model: Any, processor: Any) -> None:
        model.save_pretrained(self.folder / name)
        processor.save_pretrained(self.folder / name)

    def load(self, name: str) -> tuple[Any, Any]:
        """Return the model and processor that a phase saved."""
        from r1_reward.models.checkpoint import load_model_and_processor
        from r1_reward.models.placing import placed

        return placed(lambda: load_model_and_processor(str(self.folder / name), dtype="float32"))

    def _trainer_options(self, name: str, steps: int, learning_rate: float) -> dict[str, Any]:
        import torch

        return {
            "output_dir": str(self.folder / f"{name}-checkpoints"),
            "max_steps": steps,
            "learning_rate": learning_rate,
            "lr_scheduler_type": "linear",
            "adam_beta2": 0.98,
            "max_grad_norm": 1.0,
            "seed": self.config.seed,
            "data_seed": self.config.seed,
            "bf16": False,
            "use_cpu": not torch.cuda.is_available(),
            "gradient_checkpointing": False,
            "report_to": "none",
            "logging_steps": 1,
            "disable_tqdm": True,
            "dataloader_num_workers": 0,  # a worker process would compete for two busy cores
            "save_steps": 50,
            "save_total_limit": 1,
        }

    def _train(self, name: str, trainer: Any) -> None:
        """Train with a progress bar, from the newest checkpoint if there is one; save the log and the model."""
        import shutil

        from transformers import PrinterCallback

        from r1_reward.train.checkpoints import checkpoint_to_resume
        from r1_reward.train.restore import train_from

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self.progress.callback(name, trainer.args.max_steps, saved=self._keep_time))
        checkpoints = Path(trainer.args.output_dir)
        checkpoint = checkpoint_to_resume(checkpoints)
        train_from(trainer, None if checkpoint is None else str(checkpoint))
        write_json(self.folder / f"{name}-log.json", trainer.state.log_history)
        self._save_model(name, trainer.model, trainer.processing_class)
        if checkpoints.exists():  # rename atomically, so that a kill cannot leave a partial one to resume from
            gone = checkpoints.with_name(f"{checkpoints.name}.gone")
            shutil.rmtree(gone, ignore_errors=True)
            checkpoints.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _fine_tune(
        self, name: str, start: str, rows: Dataset, *, steps: int, learning_rate: float, stop_early: bool = False
    ) -> None:
        from r1_reward.studies.demo.early_stop import StopAtPlateau
        from r1_reward.train.sft import ColdStartConfig, ColdStartTrainer

        model, processor = self.load(start)
        args = ColdStartConfig(
            **self._trainer_options(name, steps, learning_rate),
            per_device_train_batch_size=self.config.sft_batch,
            warmup_steps=min(30, steps // 5),
        )
        trainer = ColdStartTrainer(model, args=args, train_dataset=rows, processing_class=processor)
        if stop_early:
            stop = StopAtPlateau(
                trainer.model,
                processor,
                self.development_pairs(),
                patience=self.config.sft_patience,
                every=self.config.dev_every,
                max_new_tokens=self.config.max_new_tokens,
                report=lambda accuracy: self.progress.note(name, f"development accuracy {accuracy:.2f}"),
            )
            trainer.add_callback(stop)
        self._train(name, trainer)

    def ground(self) -> None:
        """Teach the untrained model to read pictures."""
        captions = _chat(parquet_dataset([self.folder / "data" / "captions.parquet"]))
        steps, rate = self.config.ground_steps, self.config.sft_learning_rate
        self._fine_tune("ground", "base", captions, steps=steps, learning_rate=rate)

    def cold_start(self) -> None:
        """Imitate the teacher, with captions mixed in to prevent forgetting, until accuracy stops improving."""
        steps, rate = self.config.sft_max_steps, self.config.sft_learning_rate
        self._fine_tune("sft", "ground", self._imitation(), steps=steps, learning_rate=rate, stop_early=True)

    def continue_sft(self, name: str = "control", more: Dataset | None = None) -> None:
        """Continue SFT for as long as RL took, to show what the same time gives without RL.

        A study may also imitate ``more`` pairs, whose ``reasoning`` is not the teacher's, and save the model under
        another ``name``.
        """
        log = read_json(self.folder / "sft-log.json")
        training = self.seconds["sft"] - sum(row.get("dev_seconds", 0.0) for row in log)
        step = training / max(row["step"] for row in log)
        steps = max(1, round(self.seconds["rl"] / step))
        rate = self.config.sft_learning_rate / 2
        self._fine_tune(name, "sft", self._imitation(more), steps=steps, learning_rate=rate)

    def _imitation(self, more: Dataset | None = None) -> Dataset:
        """Return the teacher's texts and captions as one dataset of chats; captions alone if there are no texts."""
        from datasets import concatenate_datasets

        from r1_reward.records.prompt import build_prompt

        taught = self.training_pairs().filter(lambda text: text is not None, input_columns="reasoning")
        if more is not None:
            taught = concatenate_datasets([taught, more])
        if not len(taught):
            return _chat(parquet_dataset([self.folder / "data" / "captions.parquet"]))
        prompts = [
            build_prompt(row["question"], row["response_1"], row["response_2"]) for row in _without_images(taught)
        ]
        judging = (
            taught.select_columns(["images"])
            .add_column("prompt", prompts)
            .add_column("completion", taught["reasoning"])
        )
        captions = parquet_dataset([self.folder / "data" / "captions.parquet"], features=judging.features)
        share = self.config.caption_share
        wanted = round(len(judging) * share / (1 - share))
        chosen = random.Random(self.config.seed).choices(range(len(captions)), k=wanted)
        return _chat(concatenate_datasets([judging, captions.select(chosen)]))

    # ---- reinforcement

    def measure_difficulty(self) -> None:
        """Sample up to three judgments of some taught pairs until one is right, and count the attempts."""
        from r1_reward.engines.in_process import TransformersEngine
        from r1_reward.judge.votes import Plan, judge_pairs

        pairs = self.training_pairs()
        taught = [i for i, text in enumerate(pairs["reasoning"]) if text is not None]
        sampled = sorted(random.Random(self.config.seed).sample(taught, min(self.config.attempt_pairs, len(taught))))
        engine = TransformersEngine(*self.load("sft"), batch_size=512)
        attempts: dict[int, int | None] = dict.fromkeys(sampled)
        left = sampled
        for attempt in (1, 2, 3):
            rows = [pairs[i] for i in left]
            judged = judge_pairs(
                engine,
                rows,
                Plan(1, "stored", 1.0, None, self.config.max_new_tokens, self.config.seed + attempt),
                progress=self.progress.counter("attempts", len(left), f"try {attempt}"),
            )
            for i, row, votes in zip(left, rows, judged, strict=True):
                if votes[0].answer == row["preferred"]:
                    attempts[i] = attempt
            left = [i for i in left if attempts[i] is None]
        lines = [
            json.dumps({"id": pairs[i]["id"], "kind": pairs[i]["kind"], "attempts": n}) for i, n in attempts.items()
        ]
        write_text(self.folder / "attempts.jsonl", "".join(f"{line}\n" for line in lines))

    def hard_pairs(self) -> Dataset:
        """Return the hard pairs: the teacher failed, or the SFT model needed at least two attempts."""
        lines = (self.folder / "attempts.jsonl").read_text(encoding="utf-8").splitlines()
        attempts = {row["id"]: row["attempts"] for row in map(json.loads, lines)}
        return self.training_pairs().filter(
            lambda id_, reasoning: reasoning is None or (id_ in attempts and attempts[id_] != 1),
            input_columns=["id", "reasoning"],
        )

    def rl_pairs(self) -> Dataset:
        """Return the hard pairs and, to prevent forgetting, a share of the pairs not known to be hard."""
        pairs, hard = self.training_pairs(), set(self.hard_pairs()["id"])
        others = [id_ for id_ in pairs["id"] if id_ not in hard]
        share = self.config.rl_taught_share
        count = min(len(others), round(len(hard) * share / (1 - share)))
        chosen = hard | set(random.Random(self.config.seed).sample(others, count))
        return pairs.filter(lambda id_: id_ in chosen, input_columns="id")

    def reinforce(self, name: str = "rl", **changes: Any) -> None:
        """Run StableReinforce on the hard pairs, mixed with some others.

        A study may train other models from the same start: ``name`` is the folder of the model, ``changes`` are options
        of `StableReinforceConfig`.
        """
        from r1_reward.data.subsets import both_orders, without_reasoning
        from r1_reward.train.rl import StableReinforceConfig, StableReinforceTrainer

        config = self.config
        model, processor = self.load("sft")
        updates = config.rl_updates_per_rollout
        args = StableReinforceConfig(
            **self._trainer_options(name, config.rl_steps * updates, config.rl_learning_rate),
            per_device_train_batch_size=config.rl_batch // updates,
            steps_per_generation=updates,
            max_completion_length=config.max_new_tokens,
            warmup_steps=5,
            shuffle_dataset=False,  # keep the two orders of a pair in one batch
            **changes,
        )
        pairs = both_orders(without_reasoning(self.rl_pairs()), seed=config.seed)
        self._train(name, StableReinforceTrainer(model, args, train_dataset=pairs, processing_class=processor))

    # ---- evaluation

    def evaluate(self, name: str) -> None:
        """Judge every held-out pair: greedy in both orders and, for some models, sample votes at temperature 1."""
        from r1_reward.engines.in_process import TransformersEngine
        from r1_reward.judge.votes import Plan, judge_pairs

        pairs = list(self.pairs("test"))
        engine = TransformersEngine(*self.load(name), batch_size=600)
        limit, seed = self.config.max_new_tokens, self.config.seed
        plans = {"greedy": Plan(max_new_tokens=limit, seed=seed)}
        if name in VOTING_MODELS:
            plans["votes"] = Plan(self.config.votes, "random", 1.0, None, limit, seed)
        for kind, plan in plans.items():
            chosen = pairs if kind == "greedy" else pairs[: self.config.voting_pairs]
            judged = judge_pairs(
                engine,
                chosen,
                plan,
                progress=self.progress.counter(f"evaluate {name}", len(chosen), kind),
            )
            write_predictions(self.folder / "predictions" / f"{name}-{kind}.jsonl", chosen, judged)

    def report(self) -> None:
        """Compute metrics.json from the predictions and draw the report."""
        from r1_reward.studies.demo.metrics import demo_metrics
        from r1_reward.studies.demo.report import write_report

        command = f"r1-reward demo --seed {self.config.seed} --out {shlex.quote(self.folder.name)}"
        metrics = demo_metrics(self.folder, self.config, self.seconds, command)
        write_json(self.folder / "metrics.json", {**metrics, "resumed": self.resumed})
        write_report(self.folder)
        write_predictions_card(self.folder / "predictions")


def _with_pictures(pairs: Iterable[Any], images: dict[str, Image.Image]) -> Iterable[dict[str, Any]]:
    for pair in pairs:
        yield {**pair.model_dump(), "images": [{"bytes": _png(images[name]), "path": None} for name in pair.images]}


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # 23,000 small images: the default level takes seconds longer
    return buffer.getvalue()


def _captions(world: World) -> Dataset:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature
    from datasets import List as ListFeature

    rows = [
        {"images": [{"bytes": _png(world.images[name]), "path": None}], "prompt": request, "completion": caption}
        for name, request, caption in world.captions
    ]
    columns = {
        "images": ListFeature(ImageFeature(decode=False)),
        "prompt": Value("string"),
        "completion": Value("string"),
    }
    return Dataset.from_list(rows, features=Features(columns))


def _count_world(world: World) -> dict[str, Any]:
    """Return the report's numbers about the data: sizes, overlap of the splits, and pairs explained by the teacher."""
    scenes = {"train": set(), "test": set()}  # type: dict[str, set[Any]]
    for name, scene in world.scenes.items():
        scenes["train" if name.startswith("images/train") else "test"].add(scene)
    taught = [pair for pair in world.train if pair.reasoning is not None]
    return {
        "train_pairs": len(world.train),
        "test_pairs": len(world.test),
        "captions": len(world.captions),
        "train_scans": len(world.train_scans),
        "test_scans": len(world.test_scans),
        "shared_scans": len(world.train_scans & world.test_scans),
        "shared_scenes": len(scenes["train"] & scenes["test"]),
        "taught": len(taught),
        "house_words": {word: SIDES[meant] for word, meant in world.meanings.items()},
        "text_alone": text_alone(world.train, world.test),
    }


def _chat(rows: Dataset) -> Dataset:
    """Return rows of prompt and completion texts as chats for TRL, with pictures decoded on access."""
    from r1_reward.store.images import decode_images

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [decode_images({"images": cells}) for cells in batch["images"]]
        return {
            "images": images,
            "prompt": [
                [{"role": "user", "content": [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]}]
                for text, pictures in zip(batch["prompt"], images, strict=True)
            ],
            "completion": [[{"role": "assistant", "content": text}] for text in batch["completion"]],
        }

    return rows.with_transform(transform)


def _without_images(pairs: Dataset) -> Dataset:
    return pairs.remove_columns("images")

"""Teach the new vision tower to read scanned digits, the pretrained language model left as it is.

Two ways, in this order. *Words*: tower and projector alone learn to turn each quarter of a picture into the language
model's own embedding of the word for its digit, " three". The language model does not run, so a step takes
milliseconds, and afterwards a picture reads like a short text. *Captions*: the usual way, the loss of a caption through
the whole frozen model; a step costs far more.

Pictures and pairs are those of the demo's handwriting world without its house words, in its own words: a real
tokenizer has one token for each of them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1_reward.data.handwriting import World
from r1_reward.models.tiny_words import DIGITS
from r1_reward.store.pairs import save_pairs

if TYPE_CHECKING:
    from torch import Tensor

SIZES = {"train_pairs": 2000, "test_pairs": 200, "captions": 4000}
RATE = 1e-3  # peak of the tower alone


def write_pairs(world: World, folder: Path) -> None:
    """Write the pictures, train.jsonl and test.jsonl."""
    for name, picture in world.images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
    save_pairs(world.train, folder / "train.jsonl")
    save_pairs(world.test, folder / "test.jsonl")


def scenes(world: World, processor: Any, split: str) -> tuple[Tensor, Tensor]:
    """Return pictures (N, 3, 56, 56) of a split and the digit of each token of theirs (N, 4), in reading order."""
    import torch

    names = [name for name in world.scenes if name.startswith(f"images/{split}-")]
    pictures = processor.image_processor(images=[world.images[name] for name in names], return_tensors="pt")
    # A number of two digits is squeezed from 56x28, so that each of its digits fills a column.
    digits = [(world.scenes[name].digits * 2)[:4] for name in names]
    return pictures["pixel_values"], torch.tensor(digits)


def word_table(model: Any, processor: Any) -> Tensor:
    """Return the language model's embeddings (10, H) of the words for the digits."""
    tokens = [processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in DIGITS]
    assert all(len(one) == 1 for one in tokens)
    table: Tensor = model.get_input_embeddings().weight.detach()[[one[0] for one in tokens]]
    return table


def seen(model: Any, pictures: Tensor) -> Tensor:
    """Return what the language model is given for pictures: (N, 4, H)."""
    import torch

    return torch.stack(list(model.get_image_features(pixel_values=pictures).pooler_output))


def learn_words(
    model: Any, processor: Any, pictures: Tensor, digits: Tensor, *, steps: int, seed: int = 0, batch: int = 64
) -> list[float]:
    """Train tower and projector until a token is the embedding of its digit's word; return the loss of each step.

    The loss is the squared distance in units of what the ten words differ by: 1 is a tower that knows nothing.
    """
    import torch

    table = word_table(model, processor)
    unit = (table - table.mean(0)).square().mean()
    eyes = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    optimizer = torch.optim.AdamW(eyes, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(steps, 2), pct_start=0.1)
    drawn = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(pictures), (batch,), generator=drawn)
        loss = (seen(model, pictures[chosen]) - table[digits[chosen]]).square().mean() / unit
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def words_read(model: Any, processor: Any, pictures: Tensor, digits: Tensor) -> float:
    """Return the share of tokens that are nearer to their own digit's word than to any other digit's."""
    import torch

    with torch.no_grad():
        nearest = torch.cdist(seen(model, pictures), word_table(model, processor)).argmin(-1)
    return (nearest == digits).double().mean().item()


def learn_captions(model: Any, processor: Any, world: World, *, steps: int, seed: int = 0, batch: int = 16) -> Any:
    """Train tower and projector on captions through the frozen language model; return the trainer, for its log."""
    import torch

    from r1_reward.train.sft import ColdStartConfig, ColdStartTrainer

    model.model.language_model.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        args = ColdStartConfig(
            folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=2e-4,
            warmup_steps=min(10, steps // 5),
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = ColdStartTrainer(model, args=args, train_dataset=caption_rows(world), processing_class=processor)
        trainer.train()
    model.requires_grad_(True)
    return trainer


def caption_rows(world: World) -> Any:
    """Return the captions as the chats that TRL's SFTTrainer reads."""
    from datasets import Dataset

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {
            "images": [[world.images[name]] for name in batch["picture"]],
            "prompt": [
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": request}]}]
                for request in batch["request"]
            ],
            "completion": [[{"role": "assistant", "content": caption}] for caption in batch["caption"]],
        }

    columns = dict(zip(("picture", "request", "caption"), zip(*world.captions, strict=True), strict=True))
    return Dataset.from_dict({name: list(values) for name, values in columns.items()}).with_transform(transform)

"""The paper's scalar baselines: a vision-language model with a two-layer MLP that scores one answer.

`ScalarRewardModel` leaves the checkpoint unchanged and reads the hidden state of the last token of [images, question,
response] (Bradley-Terry) or [images, question, response, critique] (critique-then-score). A folder written by `save` is
a checkpoint with two more files, ``scalar_head.safetensors`` and ``scalar.json``::

    model = ScalarRewardModel(backbone, critique=False)
    inputs = encode(processor, [(question, [picture], response), ...])
    model(**inputs).rewards                      # (B,)
    model.save(folder)
    model, processor = load_scalar(folder)

Shapes and units:
    B          answers
    T          tokens of the longest input, prompt (padded on the left) and critique (padded on the right)
    C          tokens of the longest critique, including its end-of-turn token
    H          hidden size
    rewards    (B,)    in logits: at a difference of 1, the first answer is preferred with probability 0.731
    labels     (B, C)  tokens of the critiques, -100 elsewhere
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from r1_reward.models.chats import render
from r1_reward.models.checkpoint import load_model_and_processor
from r1_reward.records.content import Shown
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import neutralize, special_tokens_of
from r1_reward.records.scalar_prompt import show_answer, template_version
from r1_reward.store.files import read_json, write_json
from r1_reward.store.hub import checkpoint_file, checkpoint_folder

if TYPE_CHECKING:
    from PIL import Image
    from transformers import ProcessorMixin


Candidate: TypeAlias = "tuple[Shown, list[Image.Image], Shown]"
"""A question, the images before it, and one response."""

HEAD, MANIFEST, ADAPTER = "scalar_head.safetensors", "scalar.json", "adapter_config.json"
IGNORED = -100
_FORMAT = 1
_FIELDS = {"format": int, "critique": bool, "hidden_size": int, "template": str, "dtype": str}


class ScalarOutput(NamedTuple):
    """The output of the model for a batch."""

    rewards: Tensor
    """(B,) float."""
    critique_loss: Tensor | None
    """(B,) mean -log p of a critique's tokens, in nats, 0 without a critique; None without labels."""


class ScalarRewardModel(nn.Module):
    """A vision-language model, optionally with LoRA adapters, and a head that scores its last token."""

    accepts_loss_kwargs = False  # transformers.Trainer: the loss is the mean of a micro-batch

    def __init__(self, backbone: Any, *, critique: bool = False, base_model: str | None = None) -> None:
        """Add a head with random weights to ``backbone``.

        Args:
            backbone: A model from ``AutoModelForImageTextToText``, or a ``PeftModel`` around it.
            critique: Whether the head also reads a critique.
            base_model: Name of the LoRA adapters' base model; stored in ``scalar.json``.
        """
        super().__init__()
        self.backbone, self.critique, self.base_model = backbone, critique, base_model
        self.config = self.base.config  # the trainer and DeepSpeed read the hidden size
        if self.base.base_model is self.base:
            name = type(self.base).__name__
            raise UserError(f"{name}: this family does not expose its hidden states, so it cannot have a scalar head.")
        self.hidden_size = int(self.config.get_text_config().hidden_size)
        # Always float32: bfloat16 would give many pairs of answers the same reward.
        self.head = nn.Sequential(
            nn.Linear(self.hidden_size, self.hidden_size), nn.SiLU(), nn.Linear(self.hidden_size, 1)
        ).to(self.base.device)

    @property
    def base(self) -> Any:
        """The vision-language model itself; LoRA adapters are inside it."""
        return self.backbone.get_base_model() if _has_adapters(self.backbone) else self.backbone

    def forward(self, labels: Tensor | None = None, **inputs: Any) -> ScalarOutput:
        """Return the rewards for inputs from :func:`encode` and, with ``labels``, the loss of the critiques."""
        if labels is None:
            hidden = self.base.base_model(**inputs, use_cache=False).last_hidden_state
            return ScalarOutput(self.score_last(hidden, inputs["attention_mask"]), None)
        length = labels.size(1)
        output = self.base(**inputs, use_cache=False, output_hidden_states=True, logits_to_keep=length + 1)
        logits = output.logits[:, -(length + 1) : -1]  # position t predicts token t + 1
        return ScalarOutput(
            self.score_last(output.hidden_states[-1], inputs["attention_mask"]), critique_nll(logits, labels)
        )

    def score_last(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (B,) rewards from (B, T, H) hidden states at the last token in the (B, T) ``mask``."""
        positions = torch.arange(1, mask.size(1) + 1, device=mask.device)
        last = (mask.long() * positions).argmax(dim=1)
        rows = hidden[torch.arange(hidden.size(0), device=hidden.device), last]
        with torch.autocast(hidden.device.type, enabled=False):
            weight = next(self.head.parameters())
            return self.head(rows.to(weight.dtype)).squeeze(-1).float()

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute the backbone's activations in the backward pass."""
        self.base.activation_checkpointing_enable(**options)

    def save(self, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write the backbone (or its adapters), the head and ``scalar.json``.

        If the parameters are sharded, ``state`` has the gathered weights of this module.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        parts = {} if state is None else {"state_dict": _part(state, "backbone.")}
        self.backbone.save_pretrained(folder, **parts)
        head = self.head.state_dict() if state is None else _part(state, "head.")
        save_file({name: weight.detach().cpu().contiguous() for name, weight in head.items()}, folder / HEAD)
        write_json(
            folder / MANIFEST,
            {
                "format": _FORMAT,
                "critique": self.critique,
                "hidden_size": self.hidden_size,
                "template": template_version(),
                "dtype": str(self.base.dtype).removeprefix("torch."),
                "base_model": self.base_model,
            },
        )

    def restore(self, folder: str | Path) -> None:
        """Load the weights written by :meth:`save`, to resume training.

        Raises:
            UserError: If the folder does not contain a scalar reward model of this kind.
        """
        manifest = read_manifest(folder)
        if manifest["critique"] != self.critique:
            raise UserError(
                f"{folder}: was trained with critique: {str(manifest['critique']).lower()}; keep that setting."
            )
        if _has_adapters(self.backbone):
            self.backbone.load_adapter(str(folder), self.backbone.active_adapter, is_trainable=True)
        else:
            # Not load_state_dict on the files: save_pretrained may use the weight names of older releases.
            saved, _ = load_model_and_processor(str(folder), dtype=manifest["dtype"])
            self.base.load_state_dict(saved.state_dict())
        load_head(self, folder)


def critique_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) the mean of -log p over the tokens of each critique, 0 for a row without one.

    Args:
        logits: (B, C, V), aligned with ``labels``: position t predicts label t.
        labels: (B, C), ``IGNORED`` at positions without loss.
    """
    losses = nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1) / (labels != IGNORED).sum(dim=1).clamp(min=1)


def encode(
    processor: ProcessorMixin, candidates: Sequence[Candidate], critiques: Sequence[str | None] | None = None
) -> dict[str, Tensor]:
    """Return the inputs of `ScalarRewardModel` for a batch of answers.

    With ``critiques``, each text and an end-of-turn token follow the prompt and are in ``labels``; None is an empty
    critique without loss. Question, response and critique are neutralized.
    """
    special = special_tokens_of(processor)
    shown = [show_answer(*candidate, special_tokens=special) for candidate in candidates]
    texts = [render(processor, messages) for messages, _ in shown]
    images = [pictures for _, pictures in shown]
    encoded: dict[str, Tensor] = dict(
        processor(
            text=texts,
            images=images if any(images) else None,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
    )
    return encoded if critiques is None else _with_critiques(encoded, processor, critiques, special)


def _with_critiques(
    encoded: dict[str, Tensor], processor: Any, critiques: Sequence[str | None], special: tuple[str, ...]
) -> dict[str, Tensor]:
    texts = [critique_text(processor, critique, special) for critique in critiques]
    written = processor.tokenizer(
        texts, padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt"
    )
    tokens, mask = written["input_ids"], written["attention_mask"]
    learned = torch.tensor([[critique is not None] for critique in critiques])
    shape = encoded["input_ids"].shape
    for name, value in encoded.items():
        if name.endswith("token_type_ids") and value.shape == shape:  # 0 is text
            encoded[name] = torch.cat([value, torch.zeros_like(tokens, dtype=value.dtype)], dim=1)
    encoded["input_ids"] = torch.cat([encoded["input_ids"], tokens], dim=1)
    encoded["attention_mask"] = torch.cat([encoded["attention_mask"], mask], dim=1)
    encoded["labels"] = tokens.masked_fill((mask == 0) | ~learned, IGNORED)
    return encoded


def critique_text(processor: Any, critique: str | None, special_tokens: Iterable[str]) -> str:
    """Return what follows the prompt: the critique, neutralized, empty if None, and an end-of-turn token."""
    text: str = neutralize(critique or "", special_tokens) + processor.tokenizer.eos_token
    return text


def is_scalar(path: str | Path) -> bool:
    """Return whether a folder or Hub id contains a scalar reward model."""
    return checkpoint_file(path, MANIFEST) is not None or (Path(path) / HEAD).is_file()


def load_scalar(path: str | Path) -> tuple[ScalarRewardModel, ProcessorMixin]:
    """Load a scalar reward model and its processor from the folder, or Hub id, that both were saved to.

    Raises:
        UserError: If a file is missing or damaged, or the head was trained on another prompt.
    """
    path = checkpoint_folder(path)
    manifest = read_manifest(path)
    model: ScalarRewardModel
    if (Path(path) / ADAPTER).is_file():
        backbone, processor = _load_adapters(Path(path), manifest)
    else:
        backbone, processor = load_model_and_processor(str(path), dtype=manifest["dtype"])
    model = ScalarRewardModel(backbone, critique=manifest["critique"], base_model=manifest.get("base_model"))
    load_head(model, path)
    model.eval()
    return model, processor


def _load_adapters(path: Path, manifest: dict[str, Any]) -> tuple[Any, Any]:
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoProcessor

    name = manifest.get("base_model")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path / MANIFEST}: base_model is missing, so the base model of the adapters is unknown.")
    base, _ = load_model_and_processor(name, dtype=manifest["dtype"])
    try:
        return PeftModel.from_pretrained(base, str(path)), AutoProcessor.from_pretrained(str(path))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: cannot apply these LoRA adapters to {name}: {error}") from error


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Return the validated content of ``scalar.json``.

    Raises:
        UserError: If it is missing, damaged, from a later release, or was written for another prompt.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise UserError(f"{path}: not a scalar reward model ({MANIFEST} is missing).")
    manifest = read_json(file)
    if not isinstance(manifest, dict):
        raise UserError(f"{file}: is not a valid {MANIFEST} of a scalar reward model.")
    for name, kind in _FIELDS.items():
        if type(manifest.get(name)) is not kind:
            raise UserError(f"{file}: {name} must be of type {kind.__name__}, not {manifest.get(name)!r}.")
    if manifest["format"] != _FORMAT:
        raise UserError(f"{file}: has format {manifest['format']}, but this release reads format {_FORMAT}.")
    if manifest["dtype"] not in ("float32", "bfloat16", "float16"):
        raise UserError(f"{file}: dtype must be float32, bfloat16 or float16, not {manifest['dtype']!r}.")
    if manifest["template"] != template_version():
        raise UserError(
            f"{file}: was trained with the scoring prompt {manifest['template']}, but this release has "
            f"{template_version()}, so its rewards would be meaningless. Train again, or use the release that wrote it."
        )
    return manifest


def load_head(model: ScalarRewardModel, path: str | Path) -> None:
    """Load the head's weights; raises UserError if they are missing, damaged or of the wrong shape."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(path) / HEAD
    if not file.is_file():
        raise UserError(f"{path}: the head's weights are missing ({HEAD}).")
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read ({error}).") from error
    wanted = {name: tuple(weight.shape) for name, weight in model.head.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if wanted != found:
        raise UserError(f"{file}: has weights {found}, but the head of this model has {wanted}.")
    model.head.load_state_dict(weights)


def absolute_name(model: str) -> str:
    """Return the absolute path of a folder and any other name unchanged, so that adapters always find their model."""
    return os.path.abspath(model) if os.path.isdir(model) else model


def _has_adapters(backbone: Any) -> bool:
    return hasattr(backbone, "peft_config") and hasattr(backbone, "get_base_model")


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}

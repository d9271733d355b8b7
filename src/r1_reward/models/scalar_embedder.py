"""Export a scalar reward model for vLLM, with its head as two dense layers after the last token.

    save_as_embedder("runs/scalar", Path("runs/scalar-vllm"))
    # vllm serve runs/scalar-vllm --runner pooling --convert embed --dtype float32
    # LLM("runs/scalar-vllm", runner="pooling", convert="embed").embed(prompts)[0].outputs.embedding     # [reward]

A ``...ForSequenceClassification`` model has a single linear map from the last token's hidden state to the reward. The
head of :class:`~r1_reward.models.scalar.ScalarRewardModel` is a two-layer MLP with SiLU, so it does not fit (and
``Qwen2ForRewardModel`` has ReLU). But vLLM applies the dense layers of a folder in sentence-transformers format, to
models with and without a vision tower, so an "embedding" of one number is the reward. It is not normalized, because the
folder has no normalization module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1_reward.models.scalar import load_scalar
from r1_reward.records.errors import UserError
from r1_reward.store.files import write_json

if TYPE_CHECKING:
    from torch import nn

MODULES = "modules.json"
_KIND = "sentence_transformers.models."
_ACTIVATIONS = {"2_Dense": "torch.nn.modules.activation.SiLU", "3_Dense": "torch.nn.modules.linear.Identity"}


def save_as_embedder(path: str | Path, out: Path) -> None:
    """Write a trained scalar model, with adapters merged, to the empty or new folder ``out``.

    The prompt is that of :func:`r1_reward.records.scalar_prompt.show_answer`, rendered by the processor saved with it.

    Raises:
        UserError: If there is no scalar model, it writes a critique before it scores, or the folder is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty; choose another folder.")
    model, processor = load_scalar(path)
    if model.critique:
        raise UserError(f"{path}: writes a critique before it scores, which an embedding server cannot do.")
    base = model.backbone.merge_and_unload() if hasattr(model.backbone, "merge_and_unload") else model.backbone
    base.save_pretrained(out)
    processor.save_pretrained(out)
    layers: Any = model.head
    folders = {"1_Pooling": "Pooling", **dict.fromkeys(_ACTIVATIONS, "Dense")}
    listed = [{"idx": 0, "name": "0", "path": "", "type": f"{_KIND}Transformer"}]
    listed += [
        {"idx": number, "name": str(number), "path": folder, "type": _KIND + kind}
        for number, (folder, kind) in enumerate(folders.items(), 1)
    ]
    for folder in folders:
        (out / folder).mkdir()
    pooling = {"word_embedding_dimension": model.hidden_size, "pooling_mode_lasttoken": True}
    write_json(out / "1_Pooling" / "config.json", pooling)
    for layer, (folder, activation) in zip((layers[0], layers[2]), _ACTIVATIONS.items(), strict=True):
        _save_dense(layer, out / folder, activation)
    write_json(out / MODULES, listed)


def _save_dense(layer: nn.Linear, folder: Path, activation: str) -> None:
    from safetensors.torch import save_file

    sizes = {"in_features": layer.in_features, "out_features": layer.out_features, "bias": True}
    write_json(folder / "config.json", {**sizes, "activation_function": activation})
    weights = {"linear.weight": layer.weight, "linear.bias": layer.bias}
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in weights.items()}, folder / "model.safetensors"
    )

"""Generate judgments: one chat request in, n completions out.

``TransformersBackend`` runs a checkpoint in this process. Servers come behind the same method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.schema import Completion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image
    from transformers import PreTrainedModel, ProcessorMixin


class Request(NamedTuple):
    """Chat messages, with an ``{"type": "image"}`` part for every picture, and the pictures in that order."""

    messages: list[dict[str, Any]]
    images: list[Image.Image]


class TransformersBackend:
    """A model and its processor in this process, generating in batches."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, *, batch_size: int = 64) -> None:
        """Take a loaded model; ``batch_size`` counts sequences generated at once (requests times n)."""
        self.model, self.processor, self.batch_size = model, processor, batch_size

    def generate(
        self,
        requests: Sequence[Request],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int = 1024,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        """Return n completions of each request, in order.

        Temperature 0 is greedy decoding. A seed gives the same completions for the same batch size. ``progress`` is
        called with the number of requests finished since the last call.
        """
        import torch

        completions: list[list[Completion]] = []
        step = max(1, self.batch_size // n)
        with _evaluating(self.model), torch.random.fork_rng(), torch.inference_mode():
            for start in range(0, len(requests), step):
                torch.manual_seed(seed * 1_000_003 + start)
                batch = requests[start : start + step]
                completions.extend(self._generate_batch(batch, n, temperature, max_new_tokens))
                if progress is not None:
                    progress(len(batch))
        return completions

    def _generate_batch(
        self, batch: Sequence[Request], n: int, temperature: float, max_new_tokens: int
    ) -> list[list[Completion]]:
        texts = [
            self.processor.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
            for request in batch
        ]
        images = [request.images for request in batch]
        inputs = self.processor(
            text=texts,
            images=images if any(images) else None,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        ).to(self.model.device)
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
        generate: Any = self.model.generate
        output = generate(
            **inputs,
            **sampling,
            num_return_sequences=n,
            max_new_tokens=max_new_tokens,
            use_cache=True,
            suppress_tokens=self._image_tokens(),
        )
        generated = output[:, inputs["input_ids"].size(1) :]
        tokenizer = self.processor.tokenizer
        ends = self._end_tokens()
        results = []
        for row in generated.tolist():
            stop = next((i for i, token in enumerate(row) if token in ends), None)
            kept = row if stop is None else row[:stop]
            text = tokenizer.decode(kept, skip_special_tokens=True)
            results.append(Completion(text=text, tokens=len(kept) + (stop is not None), truncated=stop is None))
        return [results[i : i + n] for i in range(0, len(results), n)]

    def _end_tokens(self) -> set[int]:
        end = self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        return {token for token in (*ends, self.processor.tokenizer.eos_token_id) if token is not None}

    def _image_tokens(self) -> list[int] | None:
        """A sampled image placeholder would crash the next forward pass, so generation never emits one."""
        names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
        tokens = [getattr(self.model.config, name, None) for name in names]
        return [token for token in tokens if token is not None] or None


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off, and put the mode back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)

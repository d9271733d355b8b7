"""A checkpoint in this process that generates judgments in batches.

    engine = TransformersEngine(model, processor)
    for completions in engine.generate(requests):
        ...

The answer depends only on the request, not on the other requests in the batch. The prompt and its pictures are encoded
once per request, however many completions it asks for. A prompt with more tokens than the model has positions gets a
:class:`~r1_reward.engines.length.PromptTooLong` as its answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from r1_reward.engines.engine import Answered, BatchSession, EngineError, Generative, ReadsTextOnly, Request
from r1_reward.engines.length import (
    PromptTooLong,
    ShortRoom,
    count_pictures,
    new_tokens,
    picture_tokens,
    position_limit,
)
from r1_reward.engines.tokens import TokenReader, end_tokens, verdict_tokens
from r1_reward.models.chats import render
from r1_reward.models.text_only import TextProcessor
from r1_reward.records.dialect import Dialect
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import special_tokens_of
from r1_reward.records.schema import Completion

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import PreTrainedModel, ProcessorMixin

_WINDOW = 4  # batches sorted by length together: less padding, in bounded memory


class _Row(NamedTuple):
    """One request in the form the processor takes."""

    text: str
    images: list[Image.Image]
    seeds: tuple[int, ...]


class TransformersEngine(Generative):
    """A model and its processor in this process, generating in batches."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        *,
        batch_size: int = 64,
        dialect: Dialect | None = None,
    ) -> None:
        """Take a loaded model; ``batch_size`` counts sequences generated at once, all completions of all requests.

        ``dialect`` sets its prompt and answer format; None is the default one.
        """
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.dialect = dialect or self.dialect
        self.special_tokens = special_tokens_of(processor)
        self._verdicts = verdict_tokens(processor, self.dialect)
        self._limit = position_limit(model.config)
        self._text_only = isinstance(processor, TextProcessor)
        self._notice = ShortRoom(self._limit)

    def open(self) -> BatchSession:
        """Start a session that answers requests a few batches at a time.

        Raises:
            UserError: (when collecting) the accelerator has too little memory for ``batch_size`` sequences.
        """
        return BatchSession(_WINDOW * self.batch_size, self._answer)

    def _answer(self, window: list[Request]) -> list[Answered]:
        if not self._text_only:
            return self._answer_all(window)
        answers = iter(self._answer_all([request for request in window if not request.images]))
        name = str(self.model.name_or_path)
        return [
            ReadsTextOnly(name, len(request.images)) if request.images else next(answers) for request in window
        ]  # fmt: skip

    def _answer_all(self, window: list[Request]) -> list[Answered]:
        texts = [self._chat(request) for request in window]
        results: list[Answered] = [[] for _ in window]
        kinds = {(request.temperature, request.max_new_tokens): None for request in window}
        for kind in kinds:  # usually one
            own = [i for i, request in enumerate(window) if (request.temperature, request.max_new_tokens) == kind]
            own.sort(key=lambda i: len(texts[i]))
            for batch in _batches(own, [len(request.seeds) for request in window], self.batch_size):
                rows = [_Row(texts[i], window[i].images, window[i].seeds[part]) for i, part in batch]
                for (i, _), answer in zip(batch, self._fitting(rows, *kind), strict=True):
                    if isinstance(answer, EngineError):
                        results[i] = answer
                    elif isinstance(known := results[i], list):
                        known += answer
        return results

    def _chat(self, request: Request) -> str:
        return render(self.processor, request.messages)

    def _fitting(self, rows: list[_Row], temperature: float, max_new_tokens: int) -> list[Answered]:
        """Return the answer to each row; a row too long for the model gets an error and does not affect the others."""
        with _evaluating(self.model):
            inputs = self._encode(rows)
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            rooms = [new_tokens(length, self._limit, max_new_tokens) for length in lengths]
            if min(rooms) == max_new_tokens:
                return list(self._generate_batch(rows, inputs, temperature, max_new_tokens))
            answers: dict[int, Answered] = {}
            for i, room in enumerate(rooms):
                if room < 1:
                    pictures = count_pictures(inputs["input_ids"][i], self.model.config)
                    answers[i] = PromptTooLong.counted(
                        lengths[i], self._limit or 0, max_new_tokens, pictures=pictures, shown=len(rows[i].images)
                    )
            for room in sorted({room for room in rooms if room > 0}):  # rows in a batch share a limit
                self._notice.of(room, max_new_tokens)
                own = [i for i, one in enumerate(rooms) if one == room]
                part = [rows[i] for i in own]
                answers.update(zip(own, self._generate_batch(part, self._encode(part), temperature, room), strict=True))
        return [answers[i] for i in range(len(rows))]

    def _generate_batch(
        self, rows: Sequence[_Row], inputs: Any, temperature: float, max_new_tokens: int
    ) -> list[list[Completion]]:
        import torch

        counts = [len(row.seeds) for row in rows]
        shown = inputs["attention_mask"].sum(dim=1).tolist()  # without padding
        try:
            with torch.inference_mode():
                if max(counts) > 1:
                    inputs = self._shared_prefix(inputs, counts) or self._encode(
                        [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
                    )
                length, seeds = inputs["input_ids"].size(1), [seed for row in rows for seed in row.seeds]
                sampler = _sampler(seeds, length, max_new_tokens, temperature, self._verdicts)
                output = self._call_generate(inputs, max_new_tokens, logits_processor=[sampler])
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of memory with {sum(counts)} sequences at once; use a smaller batch size (now {self.batch_size})"
            ) from error
        prompts = [row.text for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        completions = self._read(output[:, length:].tolist(), sampler.verdict_margins(), prompts)
        each = iter(completions)
        return [
            [next(each).model_copy(update={"prompt_tokens": length}) for _ in range(count)]
            for length, count in zip(shown, counts, strict=True)
        ]

    def _encode(self, rows: Sequence[tuple[Any, ...]]) -> Any:
        """Return the processor's output for rows that begin with a text and its pictures."""
        images = [row[1] for row in rows]
        return self.processor(
            text=[row[0] for row in rows],
            images=images if any(images) else None,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        ).to(self.model.device)

    def _call_generate(self, inputs: Any, max_new_tokens: int, **options: Any) -> Any:
        generate: Any = self.model.generate
        return generate(
            **inputs,
            do_sample=False,  # the logits processor samples: its token has the maximum
            repetition_penalty=1.0,
            max_new_tokens=max_new_tokens,
            use_cache=True,
            suppress_tokens=self._image_tokens(),
            **options,
        )

    def _shared_prefix(self, inputs: Any, counts: Sequence[int]) -> dict[str, Any] | None:
        """Encode prompts and pictures once and repeat the result; None if the model's cache does not allow it."""
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer

        encoded = self._call_generate(inputs, 1, return_dict_in_generate=True)
        name = "cache" if "cache" in encoded else "past_key_values"  # its name before transformers 5.24
        cache = encoded.get(name)
        if not isinstance(cache, DynamicCache) or any(type(layer) is not DynamicLayer for layer in cache.layers):
            return None
        each = torch.repeat_interleave(torch.tensor(counts, device=self.model.device))
        cache.crop(-1)  # generate() needs at least one token that is not in the cache
        cache.batch_select_indices(each)
        for module in self.model.modules():  # Qwen-VL keeps the offset of its 3D positions here between calls
            offsets = getattr(module, "rope_deltas", None)
            if isinstance(offsets, torch.Tensor):
                setattr(module, "rope_deltas", offsets[each])  # noqa: B010
        return {
            "input_ids": inputs["input_ids"][each],
            "attention_mask": inputs["attention_mask"][each],
            name: cache,
        }

    def _read(self, rows: list[list[int]], margins: torch.Tensor | None, prompts: Sequence[str]) -> list[Completion]:
        reader = TokenReader(self.processor.tokenizer, self.dialect, self._verdicts, self._end_tokens())
        completions = []
        for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            margin = None if margins is None else margins[:, number].tolist().__getitem__
            completions.append(reader.read(row, margin, prompt))
        return completions

    def _end_tokens(self) -> set[int]:
        return end_tokens(self.model.generation_config.eos_token_id, self.processor.tokenizer)

    def _image_tokens(self) -> list[int] | None:
        """Return the tokens that must never be generated: a sampled image placeholder crashes the next forward pass."""
        return picture_tokens(self.model.config) or None


def _batches(order: Sequence[int], counts: Sequence[int], size: int) -> Iterator[list[tuple[int, slice]]]:
    """Yield batches of (request, which of its seeds) with at most ``size`` sequences each."""
    batch: list[tuple[int, slice]] = []
    room = size
    for i in order:
        for start in range(0, counts[i], size):
            part = slice(start, min(start + size, counts[i]))
            if part.stop - part.start > room:
                yield batch
                batch, room = [], size
            batch.append((i, part))
            room -= part.stop - part.start
    if batch:
        yield batch


def _sampler(
    seeds: Sequence[int], prompt_length: int, steps: int, temperature: float, verdicts: tuple[int, int] | None
) -> Any:
    """Return a logits processor that samples each sequence with its own seed and records the verdict margins."""
    import torch
    from transformers import LogitsProcessor

    class SeededSampling(LogitsProcessor):
        """Inverse-CDF sampling with one uniform number per sequence and step, independent of the rest of the batch."""

        def __init__(self) -> None:
            self._margins: list[torch.Tensor] = []
            # 62 bits: torch seeds are signed 64-bit integers.
            generators = [torch.Generator().manual_seed(seed % 2**62) for seed in seeds]
            draws = [torch.rand(steps, generator=generator, dtype=torch.float64) for generator in generators]
            self._uniform = torch.stack(draws) if temperature > 0 else None

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if verdicts is not None:
                self._margins.append(scores[:, verdicts[0]].float() - scores[:, verdicts[1]].float())
            if self._uniform is None:
                return scores
            step = input_ids.size(1) - prompt_length
            cdf = torch.softmax(scores / temperature, dim=-1).cumsum(dim=-1, dtype=torch.float64)
            target = self._uniform[:, step].to(cdf.device)[:, None] * cdf[:, -1:]
            drawn = torch.searchsorted(cdf, target, right=True).clamp(max=scores.size(1) - 1)
            return scores.scatter(1, drawn, math.inf)  # the maximum, which generate() takes

        def verdict_margins(self) -> torch.Tensor | None:
            """Return the (steps, sequences) logits of the first verdict minus those of the second."""
            return torch.stack(self._margins).cpu() if self._margins else None

    return SeededSampling()


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off, and restore the model's mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)

"""A checkpoint that vLLM runs in this process, with continuous batching.

    engine = VllmEngine("yifanzhang114/R1-Reward", engine_args={"gpu_memory_utilization": 0.5})
    for completions in engine.generate(requests):
        ...

It has the contract of :class:`~r1_reward.engines.in_process.TransformersEngine`: prompts have the same tokens, every
seed samples its own completion whatever else is in the batch, a prompt that is too long or shows pictures to a
text-only model gets an error as its answer, and P is the ratio of the two verdicts' probabilities before any
temperature. Greedy verdicts are equal up to rounding; sampled votes differ, since vLLM's sampler draws them.

vLLM runs in its own thread, shared by all sessions, until :meth:`VllmEngine.close` or until the engine is garbage
collected. This module works around behavior of vLLM 0.32 that a caller would not expect:

- It halves the precision of a float32 checkpoint by default; here ``dtype`` is that of the checkpoint.
- On a CPU, a sampled request with a seed crashes the engine if its prompt is prefilled in chunks (``CPU Generator does
  not use offset``), so there is no chunked prefill there, and ``max_num_batched_tokens`` is at least the model length.
- It caches processed pictures twice, where requests are prepared and where they are answered. The two caches disagree
  once a prepared request is not sent (its prompt is too long) or is sent out of order, and every later request with
  that picture is refused. So the cache is off here.
- It reseeds the process and blocks ``torch.set_num_threads`` from then on; both are undone.
"""

from __future__ import annotations

import difflib
import gc
import os
import queue
import random
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from r1_reward.engines.engine import Answered, EngineError, Generative, ReadsTextOnly, Request
from r1_reward.engines.length import PromptTooLong, ShortRoom, new_tokens, picture_tokens
from r1_reward.engines.tokens import TokenReader, end_tokens, verdict_tokens
from r1_reward.engines.vllm_checkpoint import Readable, readable
from r1_reward.models.chats import render
from r1_reward.models.text_only import TextProcessor
from r1_reward.records.dialect import Dialect
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import special_tokens_of
from r1_reward.records.schema import Completion

MISSING = "the engine vllm needs vLLM: pip install 'r1-reward[vllm]'"
_CLOSED = "this engine is closed; load the model again"
_SEEDS = 2**31  # as for servers, so that a seed means the same there
_AHEAD = 2  # sequences waiting for each one that is generated
_NEVER = -100.0  # the lowest bias that vLLM accepts
_PATIENCE = 10.0  # seconds to wait for the thread to end
_CPU_CACHE = 4 * 2**30  # bytes for the KV cache on a CPU; vLLM would take most of the memory
_REQUEST_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, OSError)

_OURS = ("model", "tokenizer", "runner", "convert", "logprobs_mode", "mm_processor_cache_gb")  # not the caller's

_IN_USE = [0]
"""The number of open engines in this process."""


class VllmEngine(Generative):
    """A checkpoint that vLLM runs in this process."""

    def __init__(
        self,
        model: str,
        *,
        batch_size: int = 64,
        max_pixels: int | None = None,
        dtype: str = "auto",
        dialect: Dialect | None = None,
        engine_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Start vLLM on a folder, a Hub id, LoRA adapters (merged) or ``tiny``.

        ``batch_size`` counts sequences generated at once, ``max_pixels`` scales larger pictures down, ``dtype`` is
        ``auto`` (the checkpoint's), ``float32``, ``bfloat16`` or ``float16``. ``engine_args`` are vLLM's own
        (``EngineArgs``) and override the choices made here, except those that the engine's contract needs.

        Raises:
            UserError: vLLM is not installed, has no such argument or cannot start, or the checkpoint cannot be read or
                generates no text.
        """
        _require_vllm()
        self._checkpoint = readable(model, max_pixels=max_pixels, dtype=dtype)
        self.model, self.batch_size, self.processor = model, batch_size, self._checkpoint.processor
        self.dialect = dialect or self.dialect
        self.special_tokens = special_tokens_of(self.processor)
        self._verdicts = verdict_tokens(self.processor, self.dialect)
        self._text_only = isinstance(self.processor, TextProcessor)
        llm = _start(self._checkpoint, batch_size, engine_args or {})
        self._llm: Any = llm
        self.config = llm.model_config.hf_config
        self._limit: int = llm.model_config.max_model_len
        self._notice = ShortRoom(self._limit)
        configured = (llm.model_config.try_get_generation_config() or {}).get("eos_token_id")
        self._reader = TokenReader(
            self.processor.tokenizer, self.dialect, self._verdicts, end_tokens(configured, self.processor.tokenizer)
        )
        self._rendering = threading.Lock()
        self._loop = _Loop(llm)
        _IN_USE[0] += 1
        self._finalizer = weakref.finalize(self, _end, self._loop, llm, self._checkpoint)

    def open(self) -> _Session:
        """Start a session; leaving it cancels the requests in flight.

        Raises:
            UserError: this engine is closed, or (when collecting) vLLM stopped.
        """
        if self._llm is None:
            raise UserError(_CLOSED)
        return _Session(self, self._loop)

    def close(self) -> None:
        """Stop vLLM and free its memory; the engine cannot be used afterwards."""
        self._finalizer()
        self._llm = None
        gc.collect()

    def prepare(self, request: Request) -> tuple[Any, list[Any], str] | EngineError:
        """Return vLLM's input (prompt, parameters of each completion) and the chat as text, or the error instead."""
        if self._text_only and request.images:
            return ReadsTextOnly(self.model, len(request.images))
        text = render(self.processor, request.messages)
        try:
            prompt = self._encoded(text, request)
        except _REQUEST_ERRORS as error:
            return EngineError(f"vLLM cannot read this prompt: {_first_line(_root(error))}")
        length = len(prompt["prompt_token_ids"])
        room = new_tokens(length, self._limit, request.max_new_tokens)
        if room < 1:
            shown = [place for places in prompt.get("mm_placeholders", {}).values() for place in places]
            pictures = sum(place.length for place in shown)
            return PromptTooLong.counted(
                length, self._limit, request.max_new_tokens, pictures=pictures, shown=len(request.images)
            )
        self._notice.of(room, request.max_new_tokens)
        return prompt, self._parameters(request, room), text

    def read(self, output: Any, prompt: str, length: int) -> Completion:
        """Return one of vLLM's outputs as a completion; ``length`` is that of the prompt, in tokens."""
        places = output.logprobs
        verdicts = self._verdicts

        def margin(step: int) -> float:
            assert verdicts is not None
            one, two = (places[step][token].logprob for token in verdicts)
            return float(one - two)

        completion = self._reader.read(output.token_ids, margin if places and verdicts else None, prompt)
        return completion.model_copy(update={"prompt_tokens": length})

    def _encoded(self, text: str, request: Request) -> Any:
        from vllm.renderers import TokenizeParams

        shown: dict[str, Any] = {"prompt": text}
        if request.images:
            shown["multi_modal_data"] = {"image": list(request.images)}
        # Without vLLM's own limit: the length is checked here, with a more specific error.
        how = TokenizeParams(max_total_tokens=None, add_special_tokens=False)
        with self._rendering:  # tokenizers are not thread-safe
            (prompt,) = self._llm.renderer.render_cmpl([shown], how)
        return prompt

    def _parameters(self, request: Request, room: int) -> list[Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        greedy = request.temperature == 0
        # A sampled picture placeholder would be read as a picture.
        never = None if self._text_only else dict.fromkeys(picture_tokens(self.config), _NEVER) or None
        return [
            SamplingParams(
                temperature=request.temperature,
                seed=None if greedy else seed % _SEEDS,
                max_tokens=room,
                stop_token_ids=sorted(self._reader.ends),
                logprob_token_ids=list(self._verdicts) if self._verdicts else None,
                logit_bias=never,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for seed in (request.seeds[:1] if greedy else request.seeds)  # greedy ones are all the same
        ]


def _require_vllm() -> None:
    # Read when vLLM is imported: no child process, whose start would run the caller's script again, and no notices.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        raise UserError(f"{MISSING} ({_first_line(error)})" if error.name != "vllm" else MISSING) from error


def _check_arguments(given: Mapping[str, Any], known: Collection[str]) -> None:
    for name in given:
        if name in _OURS:
            raise UserError(f"engine_args: {name} is set by the engine, since verdicts depend on it; leave it out.")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " `vllm serve --help=all` lists all of them."
            raise UserError(f"engine_args: vLLM has no argument {name!r}.{hint}")


def _start(checkpoint: Readable, batch_size: int, given: Mapping[str, Any]) -> Any:
    import torch
    from vllm import EngineArgs, LLMEngine
    from vllm.platforms import current_platform

    _check_arguments(given, [field.name for field in fields(EngineArgs)])
    chosen: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "dtype": checkpoint.dtype,
        "max_num_seqs": batch_size,
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "mm_processor_cache_gb": 0,
    }
    if current_platform.is_cpu():
        chosen |= {"enable_chunked_prefill": False, "enforce_eager": True}  # compiling takes minutes
        if not os.environ.get("VLLM_CPU_KVCACHE_SPACE") and "gpu_memory_utilization" not in given:
            chosen["kv_cache_memory_bytes"] = _CPU_CACHE
    try:
        with _unchanged():
            return LLMEngine.from_engine_args(EngineArgs(**{**chosen, **given}))
    except (*_REQUEST_ERRORS, ImportError, AssertionError, torch.OutOfMemoryError) as error:
        raise UserError(
            f"{checkpoint.name}: vLLM cannot start: {_why(error)}\nPass its own arguments with --engine-args, such as "
            "gpu_memory_utilization=0.5 (in Python: engine_args); set VLLM_LOGGING_LEVEL=INFO for details."
        ) from error


@contextmanager
def _unchanged() -> Iterator[None]:
    """Restore the process's random states and the torch function that vLLM replaces."""
    import numpy
    import torch

    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    threads = torch.set_num_threads
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads = threads


def _end(loop: _Loop, llm: Any, checkpoint: Readable) -> None:
    loop.close()
    checkpoint.drop()
    _IN_USE[0] -= 1
    with suppress(*_REQUEST_ERRORS):
        if not _IN_USE[0]:
            llm.engine_core.shutdown()
            return
        # vLLM's own shutdown, also when collected, destroys the process groups of all its engines.
        llm.engine_core._finalizer.detach()
        llm.engine_core.engine_core.model_executor.shutdown()
        gc.unfreeze()  # vLLM hides weights and KV cache from the collector


def _root(error: BaseException) -> BaseException:
    """Return the root cause of an error; vLLM wraps a processor's error in one that prints its whole input."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _why(error: BaseException) -> str:
    """Return why vLLM did not start; the first line of a pydantic error is only a count."""
    if not isinstance(error, ValidationError):
        return _first_line(error)
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}".removeprefix(": ").replace("Value error, ", "").splitlines()[0]


class _Job:
    """A request in progress: the completions it wants, and the callback for when all are ready."""

    def __init__(self, prompt: Any, parameters: Sequence[Any], done: Callable[[list[Any] | UserError], None]) -> None:
        self.prompt, self.parameters, self.done = prompt, parameters, done
        self.outputs: dict[int, Any] = {}
        self.names: list[str] = []

    def add(self, number: int, output: Any) -> None:
        self.outputs[number] = output
        if len(self.outputs) == len(self.parameters):
            self.done([self.outputs[i] for i in range(len(self.parameters))])


class _Loop:
    """vLLM at work in its own thread."""

    def __init__(self, llm: Any) -> None:
        self._llm: Any = llm
        self._inbox: queue.SimpleQueue[tuple[str, list[_Job]]] = queue.SimpleQueue()
        self._jobs: dict[str, tuple[_Job, int]] = {}
        self._asked = 0
        self._lock = threading.Lock()
        self._over: UserError | None = None
        self._thread = threading.Thread(target=self._run, name="vllm-engine", daemon=True)
        self._thread.start()

    def submit(self, job: _Job) -> None:
        with self._lock:
            if self._over is None:
                self._inbox.put(("add", [job]))
                return
        job.done(self._over)

    def cancel(self, jobs: list[_Job]) -> None:
        self._inbox.put(("cancel", jobs))

    def close(self) -> None:
        self._inbox.put(("end", []))
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)
        self._llm = None

    def _run(self) -> None:
        why = UserError(_CLOSED)
        try:
            while self._obeys():
                for output in self._llm.step() if self._jobs else ():
                    if output.finished:
                        job, number = self._jobs.pop(output.request_id)
                        job.add(number, output)
        except Exception as error:  # noqa: BLE001  whatever it is, no caller may be left waiting
            why = UserError(f"vLLM stopped: {_first_line(error)}; finished answers are kept. {_advice(error)}")
            why.__cause__ = error
        with self._lock:
            self._over = why
        while not self._inbox.empty():
            what, jobs = self._inbox.get()
            for job in jobs if what == "add" else ():
                job.done(why)
        for job in {id(job): job for job, _ in self._jobs.values()}.values():
            job.done(why)

    def _obeys(self) -> bool:
        """Process the inbox, waiting for it if there is nothing else to do; return whether to continue."""
        while not self._jobs or not self._inbox.empty():
            what, jobs = self._inbox.get()
            if what == "end":
                return False
            for job in jobs:
                (self._add if what == "add" else self._drop)(job)
        return True

    def _add(self, job: _Job) -> None:
        for number, parameters in enumerate(job.parameters):
            self._asked += 1
            name = str(self._asked)
            try:
                self._llm.add_request(name, job.prompt, parameters)
            except _REQUEST_ERRORS as error:
                self._drop(job)
                job.done(EngineError(f"vLLM refuses this request: {_first_line(error)}"))
                return
            job.names.append(name)
            self._jobs[name] = (job, number)

    def _drop(self, job: _Job) -> None:
        names = [name for name in job.names if self._jobs.pop(name, None) is not None]
        if names:
            self._llm.abort_request(names)


def _advice(error: Exception) -> str:
    if "does not use offset" in str(error):
        return (
            "On a CPU vLLM cannot sample with a seed after a chunked prefill: set enable_chunked_prefill=False, or a "
            "max_num_batched_tokens that holds all prompts (for a server: --max-num-batched-tokens 16384)."
        )
    if "out of memory" in str(error).lower():
        return "Use a smaller batch size, or a smaller max_model_len."
    return "Set VLLM_LOGGING_LEVEL=INFO for details."


class _Session:
    """One caller's requests in flight; sessions run side by side without taking turns."""

    def __init__(self, engine: VllmEngine, loop: _Loop) -> None:
        self._engine, self._loop = engine, loop
        self._answered: queue.SimpleQueue[tuple[Any, Request, list[Any] | UserError, str]] = queue.SimpleQueue()
        self._jobs: dict[int, _Job] = {}
        self._under_way = self._sequences = 0

    def __enter__(self) -> _Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.cancel(list(self._jobs.values()))

    def room(self) -> int:
        return _AHEAD * self._engine.batch_size - self._sequences

    def submit(self, ticket: Any, request: Request) -> None:
        self._under_way += 1
        self._sequences += len(request.seeds)
        prepared = self._engine.prepare(request)
        if isinstance(prepared, EngineError):
            self._answered.put((ticket, request, prepared, ""))
            return
        prompt, parameters, text = prepared
        answered, jobs = self._answered, self._jobs

        def done(outputs: list[Any] | UserError) -> None:
            jobs.pop(id(job), None)
            answered.put((ticket, request, outputs, text))

        job = _Job(prompt, parameters, done)
        jobs[id(job)] = job
        self._loop.submit(job)

    def collect(self) -> list[tuple[Any, Answered]]:
        """Return what is ready; an error that ends the run is raised after all answers before it are returned."""
        ready: list[tuple[Any, Answered]] = []
        while self._under_way and not (ready and self._answered.empty()):
            ticket, request, outputs, text = self._answered.get()
            if isinstance(outputs, UserError) and not isinstance(outputs, EngineError) and ready:
                self._answered.put((ticket, request, outputs, text))  # return the answers first
                return ready
            self._under_way -= 1
            self._sequences -= len(request.seeds)
            if isinstance(outputs, UserError) and not isinstance(outputs, EngineError):
                raise outputs
            ready.append((ticket, outputs if isinstance(outputs, EngineError) else self._read(request, outputs, text)))
        return ready

    def _read(self, request: Request, outputs: list[Any], text: str) -> list[Completion]:
        completions = [self._engine.read(output.outputs[0], text, len(output.prompt_token_ids)) for output in outputs]
        return completions if len(completions) == len(request.seeds) else completions * len(request.seeds)

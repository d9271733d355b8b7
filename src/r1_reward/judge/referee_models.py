"""Referees that are language models: behind a server that speaks the OpenAI chat protocol, or in this process.

Both see the end of the reasoning and the answer (:func:`r1_reward.judge.referee.referee_prompt`) and say yes or no.
Whatever else comes back, or does not come, is *unknown*: None, counted, never a verdict::

    referee = ServerReferee("Qwen/Qwen2.5-VL-7B-Instruct", "http://localhost:8000/v1", cache=Path("verdicts.jsonl"))
    referee.judge(["... so Response 2 is better."], [2])  # [1.0]
    referee.counters.unknown, referee.counters.cost(0.15, 0.60)
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from r1_reward.engines.chat_protocol import Dialect, Failure, excerpt, read_reply, retry_after
from r1_reward.engines.engine import EngineError, Request
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.server import ServerEngine
from r1_reward.judge.referee import WINDOW, read_verdict, referee_prompt, referee_template
from r1_reward.judge.referee_cache import VerdictCache
from r1_reward.records.errors import UserError
from r1_reward.records.schema import Completion

_CONNECT_TIMEOUT = 10.0
_SILENT_ROUNDS = 2  # failures in a row, as a multiple of the requests under way, after which a server counts as gone


def _nothing_to_ask(reasoning: str, answer: int) -> bool:
    """Without a reasoning or an answer nothing supports anything: 0.0, as the rule referee says."""
    return not reasoning.strip() or answer not in (1, 2)


@dataclass
class Counters:
    """What a referee did since it was made."""

    calls: int = 0
    """Requests sent, every try counted; of a local referee, prompts answered."""
    cache_hits: int = 0
    """Samples that needed no request of their own."""
    failures: int = 0
    """Tries that brought no whole reply."""
    unknown: int = 0
    """Samples without a verdict."""
    seconds: float = 0.0
    """Time spent in ``judge``."""
    request_seconds: float = 0.0
    """Sum of the times that requests took; divided by ``calls``, the latency."""
    prompt_tokens: int = 0
    """As the server counts them, 0 if it does not."""
    completion_tokens: int = 0
    unknown_reasons: Counter[str] = field(default_factory=Counter)
    """Why samples are unknown: "unreadable", "timeout", "no connection", "server gone", "bad reply", "HTTP 500"."""
    last_failure: str = ""
    """The latest try that failed, in words, for a message to a person."""

    def cost(self, price_per_million_in: float, price_per_million_out: float) -> float:
        """Return what the tokens cost, in the currency of the prices per million tokens."""
        return (self.prompt_tokens * price_per_million_in + self.completion_tokens * price_per_million_out) / 1e6


class _Failed(Exception):
    """A try without a whole reply; ``heard`` is False if nobody answered at all."""

    def __init__(self, kind: str, detail: str, *, again: bool = True, delay: float = 0.0, heard: bool = True) -> None:
        super().__init__(detail)
        self.kind, self.again, self.delay, self.heard = kind, again, delay, heard


class _ServerGone(Exception):
    """Too many tries in a row were not heard."""


class _Run:
    """What the requests of one call of ``judge`` share."""

    def __init__(self, client: openai.AsyncOpenAI, concurrency: int, patience: int) -> None:
        self.client, self.patience = client, patience
        self.slots = asyncio.Semaphore(concurrency)
        self._unheard = 0

    def note(self, *, heard: bool) -> None:
        """Note whether a try reached anybody; raises when too many in a row did not."""
        self._unheard = 0 if heard else self._unheard + 1
        self.stop_if_gone()

    def stop_if_gone(self) -> None:
        """Raise when too many tries in a row did not reach anybody."""
        if self._unheard >= self.patience:
            raise _ServerGone


class ServerReferee:
    """Asks a chat model behind an OpenAI-compatible server about many samples at a time."""

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str | None = None,
        concurrency: int = 64,
        timeout: float = 60.0,
        retries: int = 4,
        cache: Path | None = None,
        backoff: float = 1.0,
        tail: int = WINDOW,
        max_new_tokens: int = 64,
    ) -> None:
        """Name the model as the server does, and the URL before ``/chat/completions``.

        ``api_key`` defaults to ``OPENAI_API_KEY``; a server of one's own needs none. ``timeout`` is the seconds a
        sample may take with all its tries and pauses, once it is its turn; one try is cut at half of it. A failed try
        is repeated ``retries`` times, ``backoff`` seconds later at first and twice as long each time, or when
        ``Retry-After`` says. ``cache`` is a JSONL file that processes may share; without it verdicts are remembered
        while the referee lives. A thinking model needs more ``max_new_tokens``.

        Raises:
            UserError: the URL is none, a number is out of range, or the cache is another kind of file.
        """
        # For its checks, which are the same.
        ServerEngine(model, base_url, api_key=api_key, concurrency=concurrency, timeout=timeout, retries=retries)
        if not base_url or min(tail, max_new_tokens) < 1 or not backoff >= 0:
            raise UserError(
                f"base URL {base_url!r}, tail {tail}, max_new_tokens {max_new_tokens}, backoff {backoff}: "
                "a referee needs a server, at least 1 character and 1 token, and no negative pause"
            )
        self.model, self.base_url, self.tail, self.max_new_tokens = model, base_url, tail, max_new_tokens
        self.concurrency, self.timeout, self.retries, self.backoff = concurrency, timeout, retries, backoff
        self.counters = Counters()
        self._key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        self._dialect = Dialect(logprobs=False, top_p=False)
        self._cache = VerdictCache(cache)
        self._reasons: dict[str, str] = {}

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return 1.0, 0.0 or None (unknown) for each reasoning and its answer.

        Samples with the same end and answer are asked about once. A sample that fails is unknown; a server that has
        gone makes the rest of this call unknown. A blank reasoning, or an answer other than 1 and 2, is 0.0 unasked.

        Raises:
            UserError: the server refuses the key or does not know the model, or the cache cannot be written.
            ValueError: the lengths differ.
        """
        start = time.perf_counter()
        samples = list(zip(reasonings, answers, strict=True))
        keys = [None if _nothing_to_ask(*sample) else self._cache_key(*sample) for sample in samples]
        self._cache.refresh()
        new = {
            key: sample
            for key, sample in zip(keys, samples, strict=True)
            if key is not None and self._cache.get(key) is None
        }
        self._reasons = {}
        if new:
            _run_apart(self._ask_all(new))
        verdicts = [0.0 if key is None else self._cache.get(key) for key in keys]
        unknown = [key for key, verdict in zip(keys, verdicts, strict=True) if key is not None and verdict is None]
        counters = self.counters
        counters.cache_hits += sum(key is not None for key in keys) - len(new)
        counters.unknown += len(unknown)
        counters.unknown_reasons.update(self._reasons.get(key, "server gone") for key in unknown)
        counters.seconds += time.perf_counter() - start
        return verdicts

    def _cache_key(self, reasoning: str, answer: int) -> str:
        content = json.dumps([referee_template(), self.model, reasoning[-self.tail :], answer])
        return hashlib.sha256(content.encode()).hexdigest()

    async def _ask_all(self, samples: dict[str, tuple[str, int]]) -> None:
        patience = max(_SILENT_ROUNDS * min(self.concurrency, len(samples)), self.retries + 1)
        async with openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.base_url,
            timeout=openai.Timeout(self.timeout, connect=min(self.timeout, _CONNECT_TIMEOUT)),
            max_retries=0,  # the library would not retry half a JSON
        ) as client:
            run = _Run(client, self.concurrency, patience)
            tasks = [asyncio.create_task(self._ask(run, key, *sample)) for key, sample in samples.items()]
            try:
                await asyncio.gather(*tasks)
            except _ServerGone:
                pass
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, run: _Run, key: str, reasoning: str, answer: int) -> None:
        """Get one verdict into the cache, or the reason why there is none."""
        prompt = referee_prompt(reasoning, answer, tail=self.tail)
        async with run.slots:
            try:
                completion = await self._with_retries(run, prompt)
            except _Failed as failed:
                self._reasons[key] = failed.kind
                return
        verdict = read_verdict(completion.text)
        if verdict is None:
            # Not cached: the next epoch may be luckier, and it costs little.
            self._reasons[key] = "unreadable"
        else:
            self._cache.put(key, verdict)

    async def _with_retries(self, run: _Run, prompt: str) -> Completion:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.timeout
        for retry in itertools.count():
            run.stop_if_gone()  # another task's last try may end the run before this task is cancelled
            start = clock()
            try:
                return await self._try(run, prompt, min(self.timeout / 2, deadline - start))
            except _Failed as failed:
                self.counters.failures += 1
                self.counters.last_failure = str(failed)
                run.note(heard=failed.heard)
                pause = max(failed.delay, self.backoff * 2.0 ** min(retry, 30) * random.uniform(0.75, 1.25))
                if not failed.again or retry == self.retries or clock() + pause >= deadline:
                    raise
            finally:
                self.counters.request_seconds += clock() - start
            await asyncio.sleep(pause)
        raise AssertionError

    async def _try(self, run: _Run, prompt: str, limit: float) -> Completion:
        dialect = self._dialect
        create: Any = run.client.chat.completions.with_raw_response.create
        call = create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            **dialect.options(0, 0.0, self.max_new_tokens),
        )
        self.counters.calls += 1
        try:
            # The client's own limit is on silence, and a byte now and then would keep it waiting for ever.
            reply = await asyncio.wait_for(call, limit)
        except openai.APIStatusError as error:
            other = dialect.without(error.response.text)
            if error.status_code < 500 and other != dialect:
                self._dialect = other
                return await self._try(run, prompt, limit)
            raise self._status_failure(error) from error
        except (openai.APITimeoutError, asyncio.TimeoutError) as error:
            raise _Failed("timeout", f"no complete answer within {limit:.3g} seconds", heard=False) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            detail = f"{self._server} cannot be reached or broke off ({excerpt(f'{type(cause).__name__}: {cause}')})"
            raise _Failed("no connection", detail, heard=False) from error
        run.note(heard=True)
        try:
            completion = read_reply(reply.content, reply.headers.get("content-type", "application/json"))
        except Failure as failure:
            raise _Failed("bad reply", str(failure)) from failure
        self.counters.prompt_tokens += _prompt_tokens(reply.content)
        self.counters.completion_tokens += completion.tokens
        return completion

    @property
    def _server(self) -> str:
        parts = urlsplit(self.base_url)  # without the name and password that may stand in it
        return f"the referee at {parts.hostname}{f':{parts.port}' if parts.port else ''}"

    def _status_failure(self, error: openai.APIStatusError) -> Exception:
        status, body = error.status_code, error.response.text
        if len(self._key) >= 8:  # some servers quote it
            body = body.replace(self._key, "[the key]")
        said = f"{status}: {excerpt(body)}" if body.strip() else str(status)
        if status in (401, 403):
            return UserError(
                f"{self._server} refuses the API key for {self.model!r} ({said}); set OPENAI_API_KEY to the right one"
            )
        if status == 404:
            return UserError(
                f"{self._server} has no model {self.model!r}, or nothing at this address ({said}); check the name, and "
                "that the URL ends where /chat/completions begins, most often in /v1"
            )
        return _Failed(
            f"HTTP {status}",
            f"{self._server} answers {said}",
            again=status >= 500 or status in (408, 409, 429),
            delay=retry_after(error.response.headers.get("retry-after")),
        )


def _prompt_tokens(body: bytes) -> int:
    usage = json.loads(body).get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def _run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a thread of its own, since the caller may be inside an event loop; an interrupt cancels it."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        await work

    with ThreadPoolExecutor(1, thread_name_prefix="referee") as pool:
        done = pool.submit(asyncio.run, main())
        try:
            done.result()
        except BaseException:
            if not done.done():
                loop, task = started.result()
                with suppress(RuntimeError):  # it has just ended
                    loop.call_soon_threadsafe(task.cancel)
            raise


class LocalReferee:
    """Asks a checkpoint in this process, text or image-text, greedily and in batches."""

    def __init__(self, path: str | Path, batch_size: int = 32, *, tail: int = WINDOW, max_new_tokens: int = 16) -> None:
        """Load the checkpoint, a folder or a Hub id; a thinking model needs more ``max_new_tokens``.

        Raises:
            UserError: the checkpoint cannot be loaded or has no chat template, or a number is out of range.
        """
        if min(batch_size, tail, max_new_tokens) < 1:
            raise UserError(
                f"batch size {batch_size}, tail {tail}, max_new_tokens {max_new_tokens}: "
                "a referee needs at least 1 of each"
            )
        from r1_reward.models.placing import placed

        self.tail, self.max_new_tokens = tail, max_new_tokens
        self.counters = Counters()
        self._engine = TransformersEngine(*placed(lambda: _load_checkpoint(str(path))), batch_size=batch_size)

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return 1.0, 0.0 or None (unreadable) for each reasoning and its answer.

        A blank reasoning, or an answer other than 1 and 2, is 0.0 unasked.

        Raises:
            UserError: the accelerator has too little memory for the batch size.
            ValueError: the lengths differ.
        """
        start = time.perf_counter()
        samples = list(zip(reasonings, answers, strict=True))
        verdicts: list[float | None] = [0.0] * len(samples)
        asked = [i for i, sample in enumerate(samples) if not _nothing_to_ask(*sample)]
        requests = [self._request(*samples[i]) for i in asked]
        results = self._engine.generate(requests)
        for i, result in zip(asked, results, strict=True):
            if isinstance(result, EngineError):
                raise result
            verdicts[i] = read_verdict(result[0].text)
            self.counters.completion_tokens += result[0].tokens
        unreadable = verdicts.count(None)
        self.counters.calls += len(asked)
        self.counters.unknown += unreadable
        self.counters.unknown_reasons.update({"unreadable": unreadable} if unreadable else {})
        self.counters.seconds += time.perf_counter() - start
        return verdicts

    def _request(self, reasoning: str, answer: int) -> Request:
        tokens = self._engine.special_tokens
        prompt = referee_prompt(reasoning, answer, tail=self.tail, special_tokens=tokens)
        messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        return Request(messages, [], max_new_tokens=self.max_new_tokens)


class _TextProcessor:
    """A tokenizer where an engine wants a processor."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.tokenizer, self.chat_template = tokenizer, tokenizer.chat_template

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        plain = [{**message, "content": "".join(part["text"] for part in message["content"])} for message in messages]
        return self.tokenizer.apply_chat_template(plain, **options)

    def __call__(self, text: list[str], images: None, **options: Any) -> Any:  # noqa: ARG002
        return self.tokenizer(text, **options)


def _load_checkpoint(path: str) -> tuple[Any, Any]:
    """Return a model and what encodes its chats."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from r1_reward.models.checkpoint import load_model_and_processor

    config: Any = None
    with suppress(OSError, ValueError):  # the loader of image-text checkpoints says what is wrong
        config = type(AutoConfig.from_pretrained(path))
    text_only = (
        config in AutoModelForCausalLM._model_mapping and config not in AutoModelForImageTextToText._model_mapping
    )
    model, processor = _load_text_checkpoint(path) if text_only else load_model_and_processor(path)
    if processor.chat_template is None:
        raise UserError(f"{path}: this checkpoint has no chat template; take one that was tuned to follow instructions")
    return model, processor


def _load_text_checkpoint(path: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
        processor = _TextProcessor(AutoTokenizer.from_pretrained(path))
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise UserError(f"{path}: cannot load this checkpoint: {excerpt(str(error))}") from error
    return model, processor

"""Referees that are language models, behind a server with the OpenAI chat protocol or in this process.

Both see the end of the reasoning and the answer (:func:`r1_reward.judge.referee_prompt.referee_prompt`) and say yes or
no. Any other reply, or none, is *unknown*: None, which is counted and is never a verdict::

    referee = ServerReferee("Qwen/Qwen2.5-VL-7B-Instruct", "http://localhost:8000/v1", cache=Path("verdicts.jsonl"))
    referee.judge(["... so Response 2 is better."], [2])  # [1.0]
    referee.counters.unknown, referee.counters.cost(0.15, 0.60)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from r1_reward.engines.client import ServerError, ServerGone
from r1_reward.engines.engine import Answered, EngineError, Generative, Request
from r1_reward.engines.in_process import TransformersEngine
from r1_reward.engines.server import ServerEngine
from r1_reward.engines.server_pool import MOST
from r1_reward.engines.usage import Usage
from r1_reward.judge.referee_cache import VerdictCache
from r1_reward.judge.referee_prompt import read_verdict, referee_prompt, referee_template
from r1_reward.judge.rule_referee import WINDOW
from r1_reward.judge.votes import work_off
from r1_reward.records.errors import UserError

_SILENT = ("timeout", "no connection")


@dataclass
class Counters(Usage):
    """Counts of a referee's work since its creation; a local referee's ``calls`` are the prompts answered."""

    cache_hits: int = 0
    """Samples that needed no request."""
    unknown: int = 0
    """Samples without a verdict."""
    seconds: float = 0.0
    """Time spent in ``judge``."""
    unknown_reasons: Counter[str] = field(default_factory=Counter)
    """Why samples are unknown: "unreadable", "refused", "timeout", "no connection", "server gone", "HTTP 500", ..."""


class ModelReferee:
    """Asks the model of an engine, greedily, and caches its verdicts."""

    def __init__(
        self,
        engine: Generative,
        model: str,
        *,
        cache: Path | None = None,
        tail: int = WINDOW,
        max_new_tokens: int = 64,
        counters: Counters | None = None,
        patience: int | None = None,
    ) -> None:
        """Take an engine and the name of its model, which is part of the cache key.

        ``cache`` is a JSONL file that processes may share; without it verdicts are cached in memory. ``counters`` are
        the engine's, if it counts. After ``patience`` consecutive samples without any reply, the server counts as gone.

        Raises:
            UserError: a number is out of range, or the cache is another kind of file.
        """
        if min(tail, max_new_tokens) < 1:
            raise UserError(f"tail {tail}, max_new_tokens {max_new_tokens}: a referee needs at least 1 of each")
        self.model, self.tail, self.max_new_tokens = model, tail, max_new_tokens
        self.counters = counters or Counters()
        self._engine, self._engine_counts, self._patience = engine, counters is not None, patience
        self._cache = VerdictCache(cache)

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return 1.0, 0.0 or None (unknown) for each reasoning and its answer.

        Samples with the same end and answer share one request. A sample that fails is unknown; if the server is gone,
        so is the rest of this call. A blank reasoning, or an answer other than 1 and 2, is 0.0 without a request.

        Raises:
            UserError: the server refuses the key or does not know the model, the accelerator has too little memory, or
                the cache cannot be written.
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
        reasons = self._ask(new)
        verdicts = [0.0 if key is None else self._cache.get(key) for key in keys]
        unknown = [key for key, verdict in zip(keys, verdicts, strict=True) if key is not None and verdict is None]
        counters = self.counters
        counters.cache_hits += sum(key is not None for key in keys) - len(new)
        counters.unknown += len(unknown)
        counters.unknown_reasons.update(reasons.get(key, "server gone") for key in unknown)
        counters.seconds += time.perf_counter() - start
        return verdicts

    def _ask(self, samples: dict[str, tuple[str, int]]) -> dict[str, str]:
        """Cache verdicts; return by key why samples are unknown, except those left when the server was gone."""
        reasons: dict[str, str] = {}
        silent = 0
        questions = (_Question(key, self._request(*sample)) for key, sample in samples.items())
        with suppress(ServerGone), closing(work_off(self._engine, questions, in_order=False)) as answered:
            for question in answered:
                verdict, reason = self._read(question.answer)
                if verdict is None:
                    reasons[question.key] = reason  # not cached: the next epoch may succeed, and it costs little
                else:
                    self._cache.put(question.key, verdict)
                silent = silent + 1 if reason in _SILENT else 0
                if self._patience is not None and silent >= min(self._patience, len(samples)) > 1:
                    break
        return reasons

    def _read(self, answer: Answered) -> tuple[float | None, str]:
        if isinstance(answer, EngineError):
            return None, answer.kind if isinstance(answer, ServerError) else "no reply"
        [completion] = answer
        if not self._engine_counts:
            self.counters.calls += 1
            self.counters.completion_tokens += completion.tokens
        if completion.refused:  # "No, I cannot ..." is not a verdict
            return None, "refused"
        verdict = read_verdict(completion.text, cut=completion.cut)
        return verdict, "unreadable" if verdict is None else ""

    def _request(self, reasoning: str, answer: int) -> Request:
        tokens = self._engine.special_tokens
        prompt = referee_prompt(reasoning, answer, tail=self.tail, special_tokens=tokens)
        messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        return Request(messages, [], max_new_tokens=self.max_new_tokens)

    def _cache_key(self, reasoning: str, answer: int) -> str:
        content = json.dumps([referee_template(), self.model, reasoning[-self.tail :], answer])
        return hashlib.sha256(content.encode()).hexdigest()


class _Question:
    """One sample in the vote loop."""

    answer: Answered

    def __init__(self, key: str, request: Request) -> None:
        self.key, self._due = key, [request]

    def requests(self) -> list[Request]:
        """Return the request, once."""
        due, self._due = self._due, []
        return due

    def take(self, answers: Sequence[Answered]) -> None:
        """Keep the answer."""
        [self.answer] = answers


def _nothing_to_ask(reasoning: str, answer: int) -> bool:
    """Return whether the reasoning or answer is missing; the verdict is then 0.0, as for the rule referee."""
    return not reasoning.strip() or answer not in (1, 2)


class ServerReferee(ModelReferee):
    """Asks a chat model behind an OpenAI-compatible server about many samples at a time."""

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str | None = None,
        concurrency: int = MOST,
        timeout: float = 60.0,
        retries: int = 4,
        cache: Path | None = None,
        tail: int = WINDOW,
        max_new_tokens: int = 64,
    ) -> None:
        """Take the model's name on the server, and the URL before ``/chat/completions``.

        ``api_key`` defaults to ``OPENAI_API_KEY``; your own server usually needs none. ``timeout`` is the seconds a
        sample may take with all tries and pauses, without its time in the queue; one try may take half of it. A failed
        try is retried up to ``retries`` times, as in :class:`~r1_reward.engines.server.ServerEngine`. ``cache`` is as
        in :class:`ModelReferee`. A thinking model needs more ``max_new_tokens``.

        Raises:
            UserError: the URL is invalid, a number is out of range, or the cache is another kind of file.
        """
        if not base_url:
            raise UserError("base URL '': a referee needs a server, such as http://localhost:8000/v1")
        counters = Counters()
        engine = ServerEngine(
            model,
            base_url,
            api_key=api_key,
            concurrency=concurrency,
            timeout=timeout / 2,
            limit=timeout,
            retries=retries,
            logprobs=False,
            usage=counters,
        )
        super().__init__(
            engine,
            model,
            cache=cache,
            tail=tail,
            max_new_tokens=max_new_tokens,
            counters=counters,
            patience=concurrency,
        )
        self.base_url = base_url


class LocalReferee(ModelReferee):
    """Asks a checkpoint in this process, text or image-text, in batches."""

    def __init__(self, path: str | Path, batch_size: int = 32, *, tail: int = WINDOW, max_new_tokens: int = 16) -> None:
        """Load the checkpoint, a folder or a Hub id; a thinking model needs more ``max_new_tokens``.

        Raises:
            UserError: the checkpoint cannot be loaded or has no chat template, or a number is out of range.
        """
        from r1_reward.models.placing import placed
        from r1_reward.models.text_only import load_judge

        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: must be at least 1")
        engine = TransformersEngine(*placed(lambda: load_judge(str(path))), batch_size=batch_size)
        super().__init__(engine, str(path), tail=tail, max_new_tokens=max_new_tokens)

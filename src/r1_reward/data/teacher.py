"""The teacher of an annotation: naming and loading it, and reading its replies.

    engine = parse_teacher("server:Qwen2.5-VL-72B@http://localhost:8000/v1").load()
    for [completion] in engine.generate(requests):
        answer, problem = read_reply(completion)

A reply is matched to its request by the connection alone. A server that mixes up replies cannot be detected, because
nothing in a judgment identifies the pair it judges.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from r1_reward.engines.client import OPENAI
from r1_reward.engines.engine import Generative
from r1_reward.engines.pointwise import comparing
from r1_reward.engines.server_pool import server_name
from r1_reward.judge.unreadable import OURS
from r1_reward.records.dialect import Dialect
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import parse_judgment, spoken_from, tidy
from r1_reward.records.prompt import neutralize
from r1_reward.records.schema import Answer, Completion
from r1_reward.records.texts import is_blank
from r1_reward.rewards import format_reward


class TeacherSpec(NamedTuple):
    """The teacher's model: on a server, or a checkpoint in this process if there is no URL."""

    model: str
    url: str | None = None

    @property
    def name(self) -> str:
        """Return the teacher's name for files, without the server's address, which may change."""
        return self.model if self.url is None else f"{'openai' if self.url == OPENAI else 'server'}:{self.model}"

    def load(
        self,
        *,
        batch_size: int = 64,
        concurrency: int | None = None,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        dialect: Dialect | None = None,
    ) -> Generative:
        """Return an engine that generates with the model; raises UserError if it cannot be loaded.

        ``batch_size`` is for a checkpoint in this process, the other numbers are for servers. ``dialect`` sets the
        prompt and answer format (default: R1-Reward's).
        """
        if self.url is not None:
            from r1_reward.engines.server import ServerEngine

            engine = ServerEngine(
                self.model,
                self.url,
                concurrency=concurrency,
                requests_per_minute=requests_per_minute,
                timeout=timeout,
                retries=retries,
                logprobs=False,
                dialect=dialect,
            )
            return comparing(engine)
        from r1_reward.engines.in_process import TransformersEngine
        from r1_reward.models.placing import placed
        from r1_reward.models.text_only import load_judge

        loaded = placed(lambda: load_judge(self.model))
        return comparing(TransformersEngine(*loaded, batch_size=batch_size, dialect=dialect))


def parse_teacher(text: str) -> TeacherSpec:
    """Parse ``openai:MODEL``, ``server:MODEL@URL`` or a checkpoint; raises UserError if a part is missing."""
    kind, _, rest = text.partition(":")
    if kind == "openai":
        if not rest:
            raise UserError("--teacher openai: has no model name; write openai:MODEL, such as openai:gpt-4o.")
        return TeacherSpec(rest, OPENAI)
    if kind == "server":
        match = re.fullmatch(r"(.+?)@(https?://.+)", rest)
        form = "write server:MODEL@URL, such as server:Qwen2.5-VL-72B@http://localhost:8000/v1."
        if match is None:
            raise UserError(f"--teacher {text}: {form}")
        try:
            server_name(match[2])
        except UserError as error:
            raise UserError(f"--teacher server:{match[1]}@...: {error}; {form}") from error
        return TeacherSpec(match[1], match[2])
    if not text:
        raise UserError("--teacher is empty; write openai:MODEL, server:MODEL@URL, or the path of a checkpoint.")
    return TeacherSpec(text)


def read_reply(
    completion: Completion, *, special_tokens: tuple[str, ...] = (), dialect: Dialect = OURS
) -> tuple[Answer | None, str]:
    """Return the verdict in the order shown, and the problem with the reply, if any.

    Without a verdict the problem is one of ``refused``, ``truncated``, ``empty``, ``unfinished thought``,
    ``no answer tag``, ``several answers``, ``no verdict`` and ``tie``. With a verdict it says why the text, converted
    to the default dialect, is unusable for training: ``malformed``, ``no reasoning`` or ``control token`` (one that
    would end the turn or add an image in training); it is empty if the text is usable. A special token with white space
    inside is text that a small tokenizer keeps whole, as the demo's keeps ``[Response 1]:``, and may be in the
    reasoning. A reply that reached the token limit has no verdict, because its continuation is unknown.
    """
    if completion.cut:
        return None, "refused" if completion.refused else "truncated"
    if is_blank(completion.text):
        return None, "empty"
    text = tidy(completion.text)
    answer = dialect.parse(text).answer
    if not answer:
        return None, "tie" if answer == 0 else _unread(text, dialect)
    ours = dialect.as_ours(text)
    if not format_reward(ours, "whitespace"):
        return answer, "malformed"
    reasoning = parse_judgment(ours).reasoning
    if not reasoning:
        return answer, "no reasoning"
    control = tuple(token for token in special_tokens if len(token.split()) == 1)
    return answer, "control token" if neutralize(reasoning, control) != reasoning else ""


def _unread(text: str, dialect: Dialect) -> str:
    """Return why a reply has no verdict."""
    start = spoken_from(text)
    if start is None:
        return "unfinished thought"
    said = text[start:]
    if dialect is OURS and "<answer>" not in said:
        return "no answer tag"
    several = max(said.count("<answer>"), said.count("</answer>"), len(dialect.read(said).spans)) > 1
    return "several answers" if several else "no verdict"

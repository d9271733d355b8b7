"""The wire format of the OpenAI chat protocol, for requests and replies; no network access.

:mod:`r1_reward.engines.client` sends the requests that this module writes, and gets the replies that it reads. A reply
is a complete completion or a :class:`Failure`: invalid JSON, no choice, null instead of text and an aborted generation
are failures; a refusal and an empty text are the model's answer.
"""

from __future__ import annotations

import base64
import io
import math
import re
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import DEFAULT, find_dialect
from r1_reward.records.schema import Completion

if TYPE_CHECKING:
    from PIL import Image

    from r1_reward.engines.engine import Request

LATER = "see the server's log and run again"
JUDGES = find_dialect(DEFAULT)
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
# Finish reasons of many servers, in lower case; any other is a normal stop.
_UNSAID = ("", "null", "none", "unknown", "unspecified", "finish_reason_unspecified")
_FILTERED = re.compile(r"filter|safety|refus|recitation|blocklist|prohibited|spii|toxic|sensitive|guardrail|moderation")
_CUT = re.compile(r"length|max[\w ]*tokens|token[_ ]limit|error_limit|context_window|truncat|repetition")
_BROKEN = re.compile(r"abort|error|cancel|time_?out|interrupt|insufficient|fail")


class Failure(Exception):
    """One try got no complete reply: the reason, what to do about it, and its kind in a word or two.

    ``again`` says whether another try may succeed, ``delay`` how many seconds the server asks to wait, ``connected`` is
    False if the server could not be reached.
    """

    def __init__(
        self,
        reason: str,
        advice: str,
        kind: str = "bad reply",
        *,
        again: bool = True,
        delay: float = 0.0,
        connected: bool = True,
    ) -> None:
        super().__init__(reason)
        self.advice, self.kind, self.again, self.delay, self.connected = advice, kind, again, delay, connected


def chat_messages(request: Request) -> list[dict[str, Any]]:
    """Return the messages with each image part holding its picture as a PNG data URL.

    Content that is a single text becomes a plain string, since some servers of text models accept nothing else. Raises
    ValueError if the numbers of images and image parts differ.
    """
    images, messages, count = iter(request.images), [], 0
    for message in request.messages:
        content = message["content"]
        if not isinstance(content, str):
            parts = []
            for part in content:
                if part.get("type") == "image":
                    count += 1
                    image = next(images, None)
                    part = {"type": "image_url", "image_url": {"url": _data_url(image) if image else ""}}
                parts.append(part)
            content = parts[0]["text"] if len(parts) == 1 and parts[0].get("type") == "text" else parts
        messages.append({**message, "content": content})
    if count != len(request.images):
        raise ValueError(f"{len(request.images)} images for {count} image parts")
    return messages


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    # The fastest compression: the caller waits for it, and the bytes are sent only once per completion.
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class _Message(BaseModel):
    content: Any = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: Any = None
    logprobs: Any = None


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Token(BaseModel):
    token: str
    logprob: float


class _Place(_Token):
    top_logprobs: list[_Token] | None = None


def read_replies(body: bytes, content_type: str, verdicts: Dialect = JUDGES) -> list[Completion]:
    """Return the completions, at least one, in the body of a 200 response with this content type.

    ``verdicts`` is the judge's dialect, which locates the verdict in the text, for its probability.

    ``tokens`` is the server's count, else the number of log-probabilities, else 0. A server counts the tokens of all
    completions together: with several, ``tokens`` is the number of each one's log-probabilities, else an equal share of
    the count. Raises :class:`Failure` if there is no completion, or any of them is incomplete.
    """
    shown = excerpt(body[:2000].decode(errors="replace")) or "nothing"
    content_type = content_type.partition(";")[0].strip()
    if not content_type.endswith("json"):
        raise Failure(f"it answers with {excerpt(content_type)} instead of JSON: {shown}", "check the base URL")
    try:
        reply = _Reply.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"field {where}: {first['msg']}" if where else "not one complete JSON object"
        raise Failure(f"its answer is not a chat completion ({problem}): {shown}", LATER) from error
    usage = reply.usage or _Usage()
    counted = usage.completion_tokens
    each, rest = divmod(counted or 0, len(reply.choices))  # the remainder goes to the first ones
    completions = []
    for number, choice in enumerate(reply.choices):
        said, finish = _said(choice.message), _finish(choice.finish_reason)
        filtered = bool(_FILTERED.search(finish))
        cut = not filtered and bool(_CUT.search(finish))
        text = said.whole()
        broken = not (filtered or cut) and bool(_BROKEN.search(finish))
        if broken or (text is None and not filtered):
            why = f", content of {', '.join(said.unread)}" if said.unread else ""
            raise Failure(f"it returned no text or stopped early (finish_reason {finish or None}{why}): {shown}", LATER)
        places = _places(choice.logprobs)
        own = len(places) if counted is None or (places and len(reply.choices) > 1) else each + (number < rest)
        completions.append(
            Completion(
                text=text or "",
                tokens=own,
                truncated=cut,
                probability=answer_probability(places, verdicts),
                prompt_tokens=usage.prompt_tokens,
                refused=filtered or (said.text is None and said.refusal is not None),
                finish=finish,
            )
        )
    return completions


def _finish(reason: Any) -> str:
    """Return the server's finish reason in lower case; empty if it gives none."""
    if isinstance(reason, dict):  # SGLang's own form
        reason = reason.get("type")
    word = reason.strip().lower() if isinstance(reason, str) else ""
    return "" if word in _UNSAID else word


class _Said(NamedTuple):
    """A message's text, the reasoning that the server split off, and a refusal; None if there is none."""

    text: str | None
    thought: str
    refusal: str | None
    unread: tuple[str, ...] = ()
    """Kinds of parts that are none of these."""

    def whole(self) -> str | None:
        """Return the text with its reasoning put back.

        The thought is closed even if the limit cut it: an answer that was only considered must not count as given.
        """
        content = self.refusal if self.text is None else self.text
        if not self.thought or (content and "<think>" in content):
            return content
        return f"<think>{self.thought}</think>{content or ''}"


# Kinds of parts that are thoughts, and kinds whose text, if any, is not the model's answer.
_THOUGHTS = re.compile(r"think|reason|thought|analysis|commentary|\bcot\b")
_NOT_SAID = re.compile(
    r"tool|function|image|audio|video|file|redact|encrypt|signature|citation|reference|search|code|execut|error"
)


def _said(message: _Message) -> _Said:
    """Read a message whose content is a text, or a list of parts: texts, thoughts and others."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals = [refusal] if (refusal := _inner_text(message.refusal)) else []
    unread: list[str] = []
    for kind, text in _parts(message.content):
        if text is None or _NOT_SAID.search(kind):
            unread.append(excerpt(kind))
        elif _THOUGHTS.search(kind):
            thoughts.append(text)
        else:
            (refusals if "refusal" in kind else texts).append(text)
    outside = (message.reasoning_content, message.reasoning, message.reasoning_details)
    thought = next((text for text in map(_inner_text, outside) if text), None) or "\n".join(thoughts)
    thought = thought.strip().removeprefix("<think>").removesuffix("</think>") if "<think>" in thought else thought
    text = "".join(texts) if texts or message.content == [] else None
    refusal = "".join(refusals) if refusals else None
    if refusal and not (text or "").strip():
        text = None
    return _Said(text, thought, refusal, tuple(dict.fromkeys(unread)))


def _parts(content: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the kind and text of each part of a message's content, including nested lists."""
    if isinstance(content, str):
        yield "text", content
    elif isinstance(content, list):
        for part in content:
            yield from _parts(part)
    elif isinstance(content, dict):
        kind = str(content.get("type") or " ".join(key for key in content if content[key] is not None)).lower()
        kind = "thought" if content.get("thought") is True else kind
        inner = next((content[key] for key in ("parts", "content") if isinstance(content.get(key), list)), None)
        if inner is not None and not _THOUGHTS.search(kind) and not _NOT_SAID.search(kind):
            yield from _parts(inner)
        else:
            yield kind, _inner_text(content)
    elif content is not None:
        yield type(content).__name__, None


_TEXT_KEYS = (
    "text",
    "thinking",
    "reasoning",
    "refusal",
    "summary",
    "content",
    "value",
    "reasoningContent",
    "reasoningText",
)


def _inner_text(value: Any) -> str | None:
    """Return the text of a part at any depth: a string, a list of parts, or an object with one of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [text for text in map(_inner_text, value) if text is not None]
        return "".join(texts) if texts else None
    if isinstance(value, dict):
        return next((text for key in _TEXT_KEYS if (text := _inner_text(value.get(key))) is not None), None)
    return None


def _places(logprobs: Any) -> list[tuple[str, dict[str, float]]]:
    """Return the generated tokens, each with the alternatives at its place; empty if the server returned none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    try:
        places = [_Place.model_validate(place) for place in content or []]
    except (ValidationError, TypeError):  # a nonstandard format: the text is still good
        return []
    # The token alone, without alternatives, would make every answer certain.
    return [(p.token, {t.token: t.logprob for t in (*p.top_logprobs, p)} if p.top_logprobs else {}) for p in places]


def answer_probability(tokens: Sequence[tuple[str, Mapping[str, float]]], verdicts: Dialect = JUDGES) -> float | None:
    """Return P("1") at the answer's token, renormalized over "1" and "2" (or the dialect's verdicts), in [0, 1].

    ``tokens``: each generated token with the log-probabilities (natural, at most 0) of the most likely tokens at its
    place; an answer that is not among them counts as 0. A token may include characters around the digit: ``>1``,
    ``" 1"``, ``1</``. None if the text has no place for a single answer outside its thought, if neither 1 nor 2 is
    there, or if that place has no log-probabilities.

    >>> tokens = [("<answer>", {}), ("1", {"1": -0.1, "2": -2.3}), ("</answer>", {})]
    >>> round(answer_probability(tokens), 2)
    0.9
    """
    at = None if verdicts.verdicts is None else verdicts.place("".join(token for token, _ in tokens))
    ends = list(accumulate(len(token) for token, _ in tokens))
    if at is None or verdicts.verdicts is None or at >= ends[-1]:
        return None
    place = bisect_right(ends, at)
    token, alternatives = tokens[place]
    before = token[: at - (ends[place] - len(token))].rstrip()
    behind = verdicts.form.partition("{}")[2][:1]
    weights = dict.fromkeys(verdicts.verdicts, 0.0)
    if _answer(token, before, behind) not in weights:
        return None
    for alternative, logprob in alternatives.items():
        if (answer := _answer(alternative, before, behind)) in weights:
            weights[answer] += math.exp(min(logprob, 0.0))
    total = sum(weights.values())
    return weights[verdicts.verdicts[0]] / total if total > 0 else None


def _answer(token: str, before: str, behind: str) -> str:
    """Return the answer in a token that begins with the characters ``before`` it and may end with those ``behind``."""
    if not token.startswith(before):
        return ""
    core = token[len(before) :].strip()
    return core.partition(behind)[0].strip() if behind.strip() else core.split()[0] if core else ""


def retry_after(header: str | None) -> float:
    """Return the seconds that a ``Retry-After`` header (a number or a date) asks for; 0 if it is missing or invalid."""
    try:
        seconds = float(header or 0)
    except ValueError:
        date = parsedate_tz(header)
        seconds = mktime_tz(date) - time.time() if date else 0.0
    return 0.0 if math.isnan(seconds) else max(0.0, seconds)


def excerpt(text: str) -> str:
    """Return the start of an untrusted text, on one line and safe for a terminal."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= 200 else f"{line[:200]}..."

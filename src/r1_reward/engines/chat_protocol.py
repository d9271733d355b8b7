"""What goes over the wire to a server of the OpenAI chat protocol, and what comes back; no network here.

:mod:`r1_reward.engines.client` asks; this module writes the requests and reads the replies. A reply is a whole
completion or a :class:`Failure`: half a JSON, no choice, null where the text should be, a generation that was broken
off are failures, while a refusal and an empty text are what the model said.
"""

from __future__ import annotations

import base64
import io
import math
import re
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from email.utils import mktime_tz, parsedate_tz
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from r1_reward.records.parsing import spoken_from
from r1_reward.records.schema import Completion

if TYPE_CHECKING:
    from PIL import Image

    from r1_reward.engines.engine import Request

LATER = "see the server's log and run again"
_ALTERNATIVES = 5  # asked for at each token; only 1 and 2 at the answer matter, and they are far ahead there
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_LIMIT = ("length", "max_tokens", "model_length")  # the protocol's word, and what gateways and Mistral say for it
_SEEDS = 2**31  # the smallest range of seeds among the servers
_NAMES_N = re.compile(r"(?<!\\)\bn\b|one completion")  # the parameter n, but not a line feed in JSON


class Failure(Exception):
    """One try brought no whole reply: why, what a person can do, and the kind of it in a word or two.

    ``again`` says whether another try may do better, ``delay`` how many seconds the server wants to be left alone,
    ``connected`` is False if there was no server.
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


class Dialect(NamedTuple):
    """What a server takes. It starts with everything and gives up what is refused."""

    logprobs: bool = True
    top_p: bool = True
    limit: str = "max_tokens"
    several: bool = True
    """Whether one request may ask for several completions (``n``)."""

    def without(self, refusal: str, completions: int = 1) -> Dialect:
        """Return what a refusal of so many completions leaves; the same dialect if it is about something else."""
        if "max_completion_tokens" in refusal and self.limit == "max_tokens":
            return self._replace(limit="max_completion_tokens")  # all that OpenAI's newer models know
        if "logprobs" in refusal and self.logprobs:
            return self._replace(logprobs=False)
        if "top_p" in refusal and self.top_p:
            return self._replace(top_p=False)
        return self._replace(several=False) if completions > 1 and _NAMES_N.search(refusal) else self

    def options(self, seed: int, temperature: float, max_new_tokens: int, completions: int = 1) -> dict[str, Any]:
        """Return the parameters of a request for so many completions; ``seed`` may be any integer."""
        options: dict[str, Any] = {"seed": seed % _SEEDS, "temperature": temperature, self.limit: max_new_tokens}
        if completions > 1:
            options["n"] = completions
        if self.logprobs:
            options |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        if self.top_p and temperature > 0:
            options["top_p"] = 1.0  # else vLLM takes the checkpoint's, 0.001 for Qwen2-VL: every vote the same
        return options


def chat_messages(request: Request) -> list[dict[str, Any]]:
    """Return the messages with each image part holding its picture, as a PNG data URL.

    Content of one text alone becomes a plain string, since some servers of text models accept nothing else. Raises
    ValueError if the request has not as many images as image parts.
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
    # The fastest compression: the caller waits for it, and the bytes travel only once per completion.
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
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


def read_replies(body: bytes, content_type: str) -> list[Completion]:
    """Turn the body of a 200 and its content type into the completions it holds, at least one.

    ``tokens`` is what the server counts, else the number of log-probabilities, else 0. A server counts the tokens of
    all its completions together: with several, ``tokens`` is the number of each one's log-probabilities, else its
    equal share of the count. Raises :class:`Failure` if there is no completion, or any of them is not whole.
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
    each, rest = divmod(counted or 0, len(reply.choices))  # the rest goes to the first ones
    completions = []
    for number, choice in enumerate(reply.choices):
        text = _text(choice.message)
        if text is None or choice.finish_reason in (None, "abort", "error"):
            raise Failure(f"it gives no text or broke off (finish_reason {choice.finish_reason}): {shown}", LATER)
        places = _places(choice.logprobs)
        own = len(places) if counted is None or (places and len(reply.choices) > 1) else each + (number < rest)
        completions.append(
            Completion(
                text=text,
                tokens=own,
                truncated=choice.finish_reason in _LIMIT,
                probability=answer_probability(places),
                prompt_tokens=usage.prompt_tokens,
                refused=choice.finish_reason == "content_filter" or _declined(choice.message),
            )
        )
    return completions


def _declined(message: _Message) -> bool:
    return message.content is None and bool(message.refusal)


def _text(message: _Message) -> str | None:
    """Put back the reasoning that a server's parser took out.

    It is closed even where the limit cut it: an answer that was only thought about must not be read as given.
    """
    content = message.refusal if message.content is None else message.content
    reasoning = message.reasoning_content or message.reasoning
    if not reasoning or (content and "<think>" in content):
        return content
    return f"<think>{reasoning}</think>{content or ''}"


def _places(logprobs: Any) -> list[tuple[str, dict[str, float]]]:
    """Return the generated tokens, each with the alternatives at its place; none if the server tells none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    try:
        places = [_Place.model_validate(place) for place in content or []]
    except (ValidationError, TypeError):  # a format of its own: the text is as good without
        return []
    # The token alone, without alternatives, would make every answer certain.
    return [(p.token, {t.token: t.logprob for t in (*p.top_logprobs, p)} if p.top_logprobs else {}) for p in places]


def answer_probability(tokens: Sequence[tuple[str, Mapping[str, float]]]) -> float | None:
    """Return P("1") at the answer's token, renormalised over "1" and "2", in [0, 1].

    ``tokens``: each generated token with the log-probabilities (natural, at most 0) of the likeliest tokens at its
    place; an answer that is not among them counts as 0. A token may carry what stands around the digit: ``>1``,
    ``" 1"``, ``1</``. None if the text has no single ``<answer>`` outside its thought, if neither 1 nor 2 follows, or
    without log-probabilities there.

    >>> tokens = [("<answer>", {}), ("1", {"1": -0.1, "2": -2.3}), ("</answer>", {})]
    >>> round(answer_probability(tokens), 2)
    0.9
    """
    text = "".join(token for token, _ in tokens)
    spoken = spoken_from(text)
    if spoken is None or text.count("<answer>", spoken) != 1:
        return None
    tag_end = text.index("<answer>", spoken) + len("<answer>")
    digit = len(text) - len(text[tag_end:].lstrip())
    ends = list(accumulate(len(token) for token, _ in tokens))
    place = bisect_right(ends, digit)
    if place == len(tokens):
        return None
    token, alternatives = tokens[place]
    tag = token[: max(0, tag_end - (ends[place] - len(token)))]
    weights = {"1": 0.0, "2": 0.0}
    if _answer(token, tag) not in weights:
        return None
    for alternative, logprob in alternatives.items():
        if (answer := _answer(alternative, tag)) in weights:
            weights[answer] += math.exp(min(logprob, 0.0))
    total = sum(weights.values())
    return weights["1"] / total if total > 0 else None


def _answer(token: str, tag: str) -> str:
    """Return what a token puts into the answer, if it begins with the ``tag`` characters that end the opening tag."""
    return token[len(tag) :].partition("<")[0].strip() if token.startswith(tag) else ""


def retry_after(header: str | None) -> float:
    """Return the seconds a ``Retry-After`` header asks for, as a number or a date; 0 for none or nonsense."""
    try:
        seconds = float(header or 0)
    except ValueError:
        date = parsedate_tz(header)
        seconds = mktime_tz(date) - time.time() if date else 0.0
    return 0.0 if math.isnan(seconds) else max(0.0, seconds)


def excerpt(text: str) -> str:
    """Return the start of a stranger's text, on one line and fit for a terminal."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= 200 else f"{line[:200]}..."

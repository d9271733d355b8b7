"""A client of ``r1-reward serve`` for trainer processes; all trainer plug-ins build on it.

    judge = JudgeServer("http://judge:8000", votes=2, schedule="circular")
    scored = await judge.rewards("Which digit?", ["A three.", "An eight."], [picture])
    [one.reward for one in scored]                                   # [0.93, -0.93]

If a trainer's workers see one sample at a time, each sends its sample with the id of the group, and the server judges
the group together::

    (scored,) = await judge.rewards(question, [response], [picture], group=uid, group_size=8)

Of the package's dependencies it needs only httpx, and Pillow for open pictures.
"""

from __future__ import annotations

import asyncio
import base64
import io
import math
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import httpx

from r1_reward.records.content import Content, ContentError, blank
from r1_reward.store.encoded import decode_bare, kind_of_source

SERVER, KEY = "R1_REWARD_SERVER", "R1_REWARD_API_KEY"
"""Environment variables for the server's URL and its API key."""
NO_RESPONSE = "(empty response)"
"""What the judge is shown in place of a blank response."""
UNREADABLE = "no comparison with a different response could be read"
"""Why a response has no reward if nothing is too long; the whole reason, without details."""
_Response = TypeVar("_Response", bound=Content)
_LOST = 4  # failed connections after which the server counts as down
_PAUSE = 1.0
_MODES_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")


def or_empty(response: _Response) -> _Response | str:
    """Return a response as the judge is shown it; refusing a blank one would end the trainer's run.

    Raises:
        ContentError: it is neither text nor parts.
    """
    return NO_RESPONSE if blank(response) else response


class JudgeFailed(Exception):
    """The server or its judge failed to answer; the message says why."""


class Scored(NamedTuple):
    """The reward of one response."""

    reward: float | None
    """None if the response is too long, or no comparison with it could be read."""
    why: str | None
    """Why there is no reward."""


class JudgeServer:
    """A judge behind ``r1-reward serve``."""

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout: float = 600.0, **options: Any
    ) -> None:
        """Store the server's URL, API key and options.

        Args:
            url: The server's URL, such as ``http://judge:8000``; by default that in R1_REWARD_SERVER.
            api_key: By default the key in R1_REWARD_API_KEY.
            timeout: Seconds for one call, in which the samples of its group must arrive and be judged.
            options: Options of ``POST /v1/reward``: ``votes``, ``both_orders``, ``stop``, ``kind``, ``schedule``,
                ``comparisons``, ``criteria``.

        Raises:
            JudgeFailed: no URL is given.
        """
        url = url or os.environ.get(SERVER, "")
        if not url.startswith(("http://", "https://")):
            raise JudgeFailed(f"{url!r} is not the URL of a judge server; pass url=http://HOST:PORT, or set {SERVER}")
        self.url, self.timeout, self.options = url.rstrip("/"), timeout, options
        key = api_key or os.environ.get(KEY)
        self._headers = {"Prefer": "wait"} | ({"Authorization": f"Bearer {key}"} if key else {})

    async def rewards(
        self,
        question: str | Sequence[Any],
        responses: Sequence[str | Sequence[Any]],
        images: Sequence[Any] = (),
        *,
        group: str | None = None,
        group_size: int | None = None,
        samples: Sequence[str] | None = None,
    ) -> list[Scored]:
        """Return the reward of each response, measured against the others of its group.

        Without ``group``, these responses are the whole group. Otherwise the call waits for the rest of the
        ``group_size`` responses, which other calls send with the same question, images and options.

        Args:
            question: Text, or a list of parts as in ``POST /v1/reward``.
            responses: The same; a blank one is shown as "(empty response)".
            images: In front of the question, or at its parts without a picture: paths, bytes, base64, URLs, Pillow
                images, cells of a data set (``{"bytes": ..., "path": ...}``, ``{"image": ...}``), or
                ``{"base64" | "url" | "path": ...}`` for the server to read.
            group: The id of the group; it must differ for every prompt and step.
            group_size: How many responses the group has.
            samples: An id for each of these responses; a sample sent again under its id gets the same answer.

        Raises:
            JudgeFailed: the server cannot be reached or refuses, the group stayed incomplete, or the judge failed.
        """
        if not responses:
            return []
        if group is None and len(responses) > 1:  # in a group, a response that is too long does not fail the others
            group, group_size = uuid.uuid4().hex, len(responses)
        body = {
            **self.options,
            "question": _content(question),
            "responses": [_content(_response(response)) for response in responses],
            "images": [_picture(image) for image in images],
        }
        if group is not None:
            own = samples or [uuid.uuid4().hex for _ in responses]
            body |= {"group": group, "group_size": group_size, "samples": list(own)}
        return await self._ask(body)

    def rewards_now(
        self,
        question: str | Sequence[Any],
        responses: Sequence[str | Sequence[Any]],
        images: Sequence[Any] = (),
        *,
        group: str | None = None,
        group_size: int | None = None,
        samples: Sequence[str] | None = None,
    ) -> list[Scored]:
        """Return what :meth:`rewards` does, but block; this also works inside a running event loop."""
        asked = self.rewards(question, responses, images, group=group, group_size=group_size, samples=samples)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, asked).result()

    async def _ask(self, body: dict[str, Any]) -> list[Scored]:
        """Return the server's answer; retry while the server is full and after lost connections."""
        ends, lost = time.monotonic() + self.timeout, 0
        # One client per call: trainers call from several event loops, and a client belongs to one loop.
        async with httpx.AsyncClient(verify=_certificates(), trust_env=False, headers=self._headers) as client:
            while True:
                left = ends - time.monotonic()
                if left <= 0:
                    raise JudgeFailed(f"{self.url}: no answer within {self.timeout:g} seconds")
                pause = _PAUSE
                try:
                    answer = await client.post(f"{self.url}/v1/reward", json=body, timeout=left)
                except httpx.TimeoutException:
                    continue  # of the whole time
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    lost += 1
                    if lost == _LOST or not isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
                        raise JudgeFailed(f"{self.url}: {type(error).__name__}: {error}") from error
                else:
                    again = answer.headers.get("retry-after")
                    # A 503 without Retry-After is final: the rest of the group did not arrive.
                    if answer.status_code != 429 and not (answer.status_code == 503 and again):
                        return self._read(answer, len(body["responses"]))
                    pause = float(again) if again and again.isdecimal() else _PAUSE  # it may be a date
                await asyncio.sleep(max(0.0, min(pause, ends - time.monotonic())))

    def _read(self, answer: httpx.Response, count: int) -> list[Scored]:
        try:
            value = answer.json()
            if answer.status_code == 200:
                return _scored(value, count)
            error = value["error"]
            reason = ": ".join(filter(None, [error["field"], error["message"]]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"not an answer of r1-reward serve; check the URL: {answer.text[:100]!r}"
            raise JudgeFailed(f"{self.url}: {answer.status_code}: {reason}") from error
        raise JudgeFailed(f"{self.url}: {answer.status_code}: {reason}")


def _scored(value: Any, count: int) -> list[Scored]:
    """Return the rewards in an answer about ``count`` responses; raises various errors if it is malformed."""
    rewards, why = value["rewards"], value.get("message")
    reasons = value.get("reasons") or [why if reward is None else None for reward in rewards]
    scored = [Scored(reward, reason) for reward, reason in zip(rewards, reasons, strict=True)]
    if len(scored) != count or not all(one.reward is None or _is_number(one.reward) for one in scored):
        raise ValueError("the answer must have a number or null for each response")
    return scored


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@cache
def _certificates() -> Any:
    """Return the TLS context; cached, since loading the certificates takes longer than a call."""
    return httpx.create_ssl_context()


def _response(response: Content) -> Any:
    try:
        return or_empty(response)
    except ContentError as error:
        raise JudgeFailed(f"a response {error}") from error


def _content(content: str | Sequence[Any]) -> Any:
    """Return a question or a response in the server's form, with its open pictures encoded."""
    if isinstance(content, str):
        return _encodable(content)
    parts = [part if isinstance(part, Mapping) else {"type": "text", "text": part} for part in content]
    return [_part(part) for part in parts]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if part.get("image") is not None:
        return {**part, "image": _picture(part["image"])}
    return {**part, "text": _encodable(part["text"])} if isinstance(part.get("text"), str) else part


def _encodable(text: str) -> str:
    """Return a text with U+FFFD for lone surrogates, which JSON in UTF-8 cannot represent."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _picture(image: Any) -> dict[str, str]:
    """Return a picture in the server's form; open pictures and local files are sent with the request."""
    if isinstance(image, Mapping):
        if image.get("image") is not None:
            return _picture(image["image"])
        if image.get("bytes") is not None:
            return _picture(image["bytes"])
        if "bytes" in image and image.get("path") is not None:  # a cell of a data set that refers to a local file
            return _picture(image["path"])
        for key in ("base64", "url", "path"):
            if image.get(key) is not None:
                return {key: str(image[key])}
    elif isinstance(image, bytes | bytearray | memoryview):
        return _encoded(bytes(image))
    elif isinstance(image, str) and kind_of_source(image) in ("url", "data"):
        return {"url": image}
    elif isinstance(image, str | os.PathLike):
        return _encoded(_in_file(os.fspath(image)))
    elif hasattr(image, "save"):
        return _encoded(_png(image))
    raise JudgeFailed(
        f"a picture is a {type(image).__name__}; pass a path, bytes, a Pillow image, or a base64, url or path mapping"
    )


def _png(image: Any) -> bytes:
    """Return an open picture as a PNG file, converted to RGB if PNG does not support its mode, such as CMYK."""
    file = io.BytesIO()
    try:
        fits = image if image.mode in _MODES_OF_PNG else image.convert("RGB")
        fits.save(file, "PNG", compress_level=1)  # much faster, and only a little larger
    except (OSError, ValueError, SyntaxError) as error:  # Pillow decodes lazily
        raise JudgeFailed(f"a picture cannot be read: {error}") from error
    return file.getvalue()


def _in_file(name: str) -> bytes:
    """Return the bytes of a picture given as a path, a ``file://`` URL, or base64."""
    path = name
    if name[:7].lower() == "file://" and not os.path.exists(path := name[7:]):
        path = url2pathname(urlsplit(name).path)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL
        data = decode_bare(name)
        if data is not None:
            return data
        raise JudgeFailed(f"a picture cannot be read: {str(error)[:200]}") from error


def _encoded(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}

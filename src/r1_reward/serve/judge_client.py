"""Ask a judge behind ``r1-reward serve`` from a trainer's process: what every plug builds on.

    judge = JudgeServer("http://judge:8000", votes=2, schedule="circular")
    scored = await judge.rewards("Which digit?", ["A three.", "An eight."], [picture])
    [one.reward for one in scored]                                   # [0.93, -0.93]

A trainer whose workers see one sample at a time sends each with the id of its group; the server judges them together::

    (scored,) = await judge.rewards(question, [response], [picture], group=uid, group_size=8)

It needs httpx, Pillow for pictures that are open, and nothing else of what the package depends on.
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
"""The environment's names of the server's URL and of its key."""
NO_RESPONSE = "(empty response)"
"""What the judge is shown in place of a response that says nothing."""
_Response = TypeVar("_Response", bound=Content)
_LOST = 4  # times that a connection may fail before the server counts as out
_PAUSE = 1.0
_MODES_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")


def or_empty(response: _Response) -> _Response | str:
    """Return a response as the judge is shown it; to refuse one that says nothing would end its trainer's run.

    Raises:
        ContentError: it is neither text nor parts.
    """
    return NO_RESPONSE if blank(response) else response


class JudgeFailed(Exception):
    """The server or its judge gave no answer; the message says why."""


class Scored(NamedTuple):
    """What one response has earned."""

    reward: float | None
    """None where there is none: it is too long, or no comparison with it could be read."""
    why: str | None
    """Why there is none."""


class JudgeServer:
    """A judge behind ``r1-reward serve``."""

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout: float = 600.0, **options: Any
    ) -> None:
        """Take the server's address, by default the environment's R1_REWARD_SERVER.

        Args:
            url: Like ``http://judge:8000``.
            api_key: By default the environment's R1_REWARD_API_KEY.
            timeout: Seconds for one call, in which the samples of its group must arrive and be judged.
            options: What ``POST /v1/reward`` takes: ``votes``, ``both_orders``, ``stop``, ``kind``, ``schedule``,
                ``comparisons``, ``criteria``.

        Raises:
            JudgeFailed: there is no address.
        """
        url = url or os.environ.get(SERVER, "")
        if not url.startswith(("http://", "https://")):
            raise JudgeFailed(f"{url!r} is not the URL of a judge's server; name one, as url or in {SERVER}")
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
        """Return what each response has earned, measured against the others of its group.

        Without ``group`` these responses are the whole group. Otherwise the call waits for the rest of the
        ``group_size`` responses, which come by calls of their own with the same question, images and options.

        Args:
            question: Text, or a list of parts as of ``POST /v1/reward``.
            responses: The same; one that says nothing is shown as "(empty response)".
            images: In front of the question, or at its parts without a picture: paths, bytes, base64, URLs, Pillow
                images, cells of a data set (``{"bytes": ..., "path": ...}``, ``{"image": ...}``), or
                ``{"base64" | "url" | "path": ...}`` as the server is to read it.
            group: The id of the group, of its own for every prompt and step.
            group_size: How many responses the group has.
            samples: An id for each of these responses: a sample that is sent again under its id gets the same answer.

        Raises:
            JudgeFailed: the server cannot be reached or refuses, the group stayed incomplete, or the judge failed.
        """
        if not responses:
            return []
        if group is None and len(responses) > 1:  # as a group, so that one response that is too long costs no other
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
        """Return what :meth:`rewards` does, blocking; it may be called inside a running event loop."""
        asked = self.rewards(question, responses, images, group=group, group_size=group_size, samples=samples)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, asked).result()

    async def _ask(self, body: dict[str, Any]) -> list[Scored]:
        """Return what the server answers; come again while it has no room, and where the connection is lost."""
        ends, lost = time.monotonic() + self.timeout, 0
        # A client for each call: trainers call from several event loops, and a client belongs to one.
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
                    # A 503 that does not say when to come again is final: the rest of a group did not come.
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
            reason = f"this is not what r1-reward serve answers: {answer.text[:100]!r}"
            raise JudgeFailed(f"{self.url}: {answer.status_code}: {reason}") from error
        raise JudgeFailed(f"{self.url}: {answer.status_code}: {reason}")


def _scored(value: Any, count: int) -> list[Scored]:
    """Return what an answer says of so many responses; raises one of several errors if it does not say that."""
    rewards, why = value["rewards"], value.get("message")
    reasons = value.get("reasons") or [why if reward is None else None for reward in rewards]
    scored = [Scored(reward, reason) for reward, reason in zip(rewards, reasons, strict=True)]
    if len(scored) != count or not all(one.reward is None or _is_number(one.reward) for one in scored):
        raise ValueError("there must be a number or null for each response")
    return scored


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@cache
def _certificates() -> Any:
    """Return what checks the certificates of servers; to read them takes longer than a call."""
    return httpx.create_ssl_context()


def _response(response: Content) -> Any:
    try:
        return or_empty(response)
    except ContentError as error:
        raise JudgeFailed(f"a response {error}") from error


def _content(content: str | Sequence[Any]) -> Any:
    """Return a question or a response as the server takes it, with its open pictures encoded."""
    if isinstance(content, str):
        return _encodable(content)
    parts = [part if isinstance(part, Mapping) else {"type": "text", "text": part} for part in content]
    return [_part(part) for part in parts]


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if part.get("image") is not None:
        return {**part, "image": _picture(part["image"])}
    return {**part, "text": _encodable(part["text"])} if isinstance(part.get("text"), str) else part


def _encodable(text: str) -> str:
    """Return a text with U+FFFD for lone surrogates, which no JSON in UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _picture(image: Any) -> dict[str, str]:
    """Return a picture as the server takes it; what is open or in a file of this machine travels with the request."""
    if isinstance(image, Mapping):
        if image.get("image") is not None:
            return _picture(image["image"])
        if image.get("bytes") is not None:
            return _picture(image["bytes"])
        if "bytes" in image and image.get("path") is not None:  # a cell of a data set, whose file is here
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
        f"a picture is a {type(image).__name__}; give a path, bytes, a Pillow image or a base64, url or path"
    )


def _png(image: Any) -> bytes:
    """Return an open picture as a file; a photograph in the colours of printers, say, has no form in PNG."""
    file = io.BytesIO()
    try:
        fits = image if image.mode in _MODES_OF_PNG else image.convert("RGB")
        fits.save(file, "PNG", compress_level=1)  # much faster, and little larger
    except (OSError, ValueError, SyntaxError) as error:  # pictures are read when they are needed
        raise JudgeFailed(f"a picture cannot be read: {error}") from error
    return file.getvalue()


def _in_file(name: str) -> bytes:
    """Return the bytes that a text names, which is a path, a ``file://`` URL, or base64."""
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

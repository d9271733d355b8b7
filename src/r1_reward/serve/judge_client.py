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
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx

from r1_reward.records.content import Content, ContentError, blank
from r1_reward.store.encoded import kind_of_source

SERVER, KEY = "R1_REWARD_SERVER", "R1_REWARD_API_KEY"
"""The environment's names of the server's URL and of its key."""
NO_RESPONSE = "(empty response)"
"""What the judge is shown in place of a response that says nothing."""
_Response = TypeVar("_Response", bound=Content)
_LOST = 4  # times that a connection may fail before the server counts as out
_PAUSE = 1.0


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
            images: In front of the question, or at its parts without a picture: paths, bytes, Pillow images, rows with
                ``bytes``, or ``{"base64" | "url" | "path": ...}`` as the server is to read it.
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
        answer = await self._ask(body)
        rewards, why = answer["rewards"], answer.get("message")
        reasons = answer.get("reasons") or [why if reward is None else None for reward in rewards]
        return [Scored(reward, reason) for reward, reason in zip(rewards, reasons, strict=True)]

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
        """Return what :meth:`rewards` does, blocking; a running event loop is no hindrance."""
        asked = self.rewards(question, responses, images, group=group, group_size=group_size, samples=samples)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, asked).result()

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the server's answer; come again while it has no room, and where the connection is lost."""
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
                    again = answer.headers.get("retry-after", "")
                    if answer.status_code not in (429, 503) or not again.isdigit():
                        return self._read(answer)
                    pause = float(again)
                await asyncio.sleep(max(0.0, min(pause, ends - time.monotonic())))

    def _read(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            value = answer.json()
            if answer.status_code == 200:
                return dict(value)
            error = value["error"]
            reason = ": ".join(filter(None, [error["field"], error["message"]]))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"this is not what r1-reward serve answers: {answer.text[:100]!r}"
            raise JudgeFailed(f"{self.url}: {answer.status_code}: {reason}") from error
        raise JudgeFailed(f"{self.url}: {answer.status_code}: {reason}")


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
        return content
    parts = [part if isinstance(part, Mapping) else {"type": "text", "text": part} for part in content]
    return [{**part, "image": _picture(part["image"])} if part.get("image") is not None else part for part in parts]


def _picture(image: Any) -> dict[str, str]:
    """Return a picture as the server takes it; what is open or in a file travels with the request."""
    if isinstance(image, Mapping):
        if isinstance(image.get("bytes"), bytes):  # a row of datasets
            return _encoded(image["bytes"])
        for key in ("base64", "url", "path"):
            if image.get(key) is not None:
                return {key: str(image[key])}
    elif isinstance(image, bytes | bytearray):
        return _encoded(bytes(image))
    elif isinstance(image, str) and kind_of_source(image) in ("url", "data"):
        return {"url": image}
    elif isinstance(image, str | Path):
        try:
            return _encoded(Path(image).read_bytes())
        except OSError as error:
            raise JudgeFailed(f"a picture cannot be read: {error}") from error
    elif hasattr(image, "save"):
        file = io.BytesIO()
        image.save(file, "PNG")
        return _encoded(file.getvalue())
    raise JudgeFailed(
        f"a picture is a {type(image).__name__}; give a path, bytes, a Pillow image or a base64, url or path"
    )


def _encoded(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}

"""Read a request: its body (JSON, or a form with files) and its URL options, validated by the route's models."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Message

from r1_reward.records.settings import unknown
from r1_reward.serve.budget import Budget
from r1_reward.serve.encodings import ENCODINGS, as_utf8, unpack
from r1_reward.serve.errors import Refusal
from r1_reward.serve.routes import Call, Route
from r1_reward.store.encoded import kind_of_source

_M = TypeVar("_M", bound=BaseModel)
_MOST_NAMED, _LONGEST_NAME = 5, 100  # unknown fields named in one message, and characters of each
_MOST_FILES = 1000  # in a form; fewer than this are counted by the budget, whose message is clearer than the parser's


async def read_call(request: Request, route: Route, budget: Budget) -> Call[Any, Any]:
    """Return the request as its route takes it.

    Raises:
        Refusal: the Content-Type is wrong, the body does not arrive in time, or a field is invalid.
    """
    model = route.request
    assert model is not None, f"{route.path} takes no body"
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data" and route.form
    if kind != "application/json" and not is_form:
        kinds = "application/json" + (" or multipart/form-data" if route.form else "")
        raise Refusal(415, f"the Content-Type must be {kinds}")
    try:
        options = None if route.options is None else _options(route.options, dict(request.query_params))
        reading = _read(request, budget, is_form=is_form)
        body, uploads = await asyncio.wait_for(reading, budget.left())
        # In a thread: parsing millions of parts takes seconds, which must not block other requests.
        asked = await asyncio.to_thread(lambda: model.model_validate_json(as_utf8(body)))
        return Call(asked, uploads, options, budget, partial(hung_up, request))
    except ClientDisconnect as error:
        raise Refusal(400, "the connection closed before the whole body arrived") from error
    except TimeoutError as error:
        raise Refusal(408, "the body did not arrive in time", headers={"Connection": "close"}) from error
    except ValidationError as error:
        raise _first_problem(error.errors(), model) from error


def _options(model: type[_M], given: dict[str, str]) -> _M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _first_problem(error.errors(), model, "option in the URL") from error


async def hung_up(request: Request) -> None:
    """Wait until the client has closed its connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request, budget: Budget, *, is_form: bool) -> tuple[bytes, list[bytes]]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower() or "identity"
    if encoding != "identity":
        if encoding not in ENCODINGS:
            taken = ", ".join(sorted(ENCODINGS))
            reason = f"unsupported Content-Encoding {encoding[:40]}; send the body uncompressed, or as {taken}"
            raise Refusal(415, reason, headers={"Accept-Encoding": taken})
        body = await asyncio.to_thread(unpack, await _whole(request), encoding, budget.settings)
        request = _again(request, body)
    return await _read_form(request, budget) if is_form else (await _whole(request), [])


async def _whole(request: Request) -> bytes:
    """Return the body without keeping it in the request, which may wait for a long time."""
    return b"".join([chunk async for chunk in request.stream()])


def _again(request: Request, body: bytes) -> Request:
    """Return a request with another body."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


async def _read_form(request: Request, budget: Budget) -> tuple[bytes, list[bytes]]:
    body: bytes | None = None
    uploads = []
    settings = budget.settings
    most = max(_MOST_FILES, settings.max_images + 1)
    async with request.form(max_files=most, max_fields=1, max_part_size=settings.max_body) as parts:
        for name, part in parts.multi_items():
            content = part.encode() if isinstance(part, str) else await part.read()
            if name == "request" and body is None:
                body = content
            elif name == "images" and not isinstance(part, str):
                uploads.append(content)
            else:
                raise Refusal(422, "a form must have one part named request and only files named images", name[:100])
    if body is None:
        raise Refusal(422, "the form has no part named request; send the JSON in it", "request")
    return body, uploads


def _first_problem(errors: Any, model: type[BaseModel], what: str = "field") -> Refusal:
    """Return the first of pydantic's errors as a refusal that names the field."""
    first = errors[0]
    kind, given, message = first["type"], first["input"], str(first["msg"]).removeprefix("Value error, ")
    field = _place(first["loc"])
    if kind == "picture":
        message += _said_alone(given)
    elif kind == "part":
        message += _said_of_kind(given)
    elif kind == "blank":
        message = f"{field.replace('_', ' ')} is blank"
    elif kind == "extra_forbidden":
        message = unknown(field[:_LONGEST_NAME], model.model_fields if len(first["loc"]) == 1 else (), what)
    elif kind == "missing":
        strange = [_place(one["loc"])[:_LONGEST_NAME] for one in errors if one["type"] == "extra_forbidden"]
        message = "is missing" + (f"; unknown fields: {', '.join(map(repr, strange[:_MOST_NAMED]))}" if strange else "")
    elif kind == "too_long":
        message = f"has too many parts; this server takes at most {first['ctx']['max_length']} (--max-parts)"
    return Refusal(422, message, field or None)


def _place(location: Any) -> str:
    """Return a location such as ``response_1[2].image``, without pydantic's type names and our union tags."""
    place, inside = "", True
    for part in location:
        if isinstance(part, int):
            place, inside = f"{place}[{part}]", False
        elif part.startswith("("):
            inside = True  # a tag; field names follow again
        elif inside:
            place += f".{part}" if place else part
        else:
            break
    return place


def _said_of_kind(part: Any) -> str:
    """Return advice about a part of an unsupported type."""
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and "video" in kind:
        return "; videos are not supported: send frames as pictures"
    return "; send a text in a list of parts as a text part" if isinstance(part, str) else ""


def _said_alone(picture: Any) -> str:
    """Return advice about a picture that was sent as plain text."""
    if not isinstance(picture, str):
        return ""
    named = {"url": '; send this URL as {"url": ...}', "data": '; send this data URI as {"base64": ...}'}
    return named.get(kind_of_source(picture), "; plain text does not say which of these it is")

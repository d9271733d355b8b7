"""Read a request: its body (JSON, or a form with files) and the options in its URL, checked by the route's models."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Message

from r1_reward.serve.budget import Budget
from r1_reward.serve.encodings import ENCODINGS, as_utf8, unpack
from r1_reward.serve.errors import Refusal
from r1_reward.serve.routes import Call, Route
from r1_reward.serve.schemas import Base64Image
from r1_reward.store.encoded import kind_of_source

_IMAGE_SHAPE = 'must be {"base64": ...}, {"url": ...} or {"path": ...}'
_MOST_FILES = 1000  # of a form, before they are counted; the budget's refusal is clearer than the parser's


async def read_call(request: Request, route: Route, budget: Budget) -> Call[Any, Any]:
    """Return the request as its route takes it.

    Raises:
        Refusal: the body is of another kind, does not arrive in time, or a field is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data" and route.form
    if kind != "application/json" and not is_form:
        kinds = "application/json" + (" or multipart/form-data" if route.form else "")
        raise Refusal(415, f"the Content-Type must be {kinds}")
    try:
        options = None if route.options is None else route.options.model_validate(dict(request.query_params))
        reading = _read(request, budget, is_form=is_form)
        body, uploads = await asyncio.wait_for(reading, budget.left())
        return Call(route.request.model_validate_json(as_utf8(body)), uploads, options, budget)
    except ClientDisconnect as error:
        raise Refusal(400, "the body broke off") from error
    except TimeoutError as error:
        raise Refusal(408, "the body did not arrive in time", headers={"Connection": "close"}) from error
    except ValidationError as error:
        raise _first_problem(error.errors()) from error


async def _read(request: Request, budget: Budget, *, is_form: bool) -> tuple[bytes, list[bytes]]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower() or "identity"
    if encoding != "identity":
        if encoding not in ENCODINGS:
            taken = ", ".join(sorted(ENCODINGS))
            reason = f"the Content-Encoding {encoding[:40]} is not read here; send the body as it is, or as {taken}"
            raise Refusal(415, reason, headers={"Accept-Encoding": taken})
        body = await asyncio.to_thread(unpack, await request.body(), encoding, budget.settings)
        request = _again(request, body)
    return await _read_form(request, budget) if is_form else (await request.body(), [])


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
                raise Refusal(422, "a form has one part named request and files named images", name[:100])
    if body is None:
        raise Refusal(422, "the form has no part named request with the JSON", "request")
    return body, uploads


def _first_problem(errors: Any) -> Refusal:
    """Return the first of pydantic's errors as a refusal that names the field."""
    first = errors[0]
    field, message = "", str(first["msg"]).removeprefix("Value error, ")
    for part in first["loc"]:
        if isinstance(part, int):
            field += f"[{part}]"
            break  # behind it stand names of types
        field += part if not field else f".{part}"
    if Base64Image.__name__ in first["loc"]:
        message = _IMAGE_SHAPE + _said_alone(first["input"])
    elif first["type"] == "blank":
        message = f"{field.replace('_', ' ')} is blank"
    return Refusal(422, message, field or None)


def _said_alone(picture: Any) -> str:
    """Return what a picture is that came as a text of its own."""
    if not isinstance(picture, str):
        return ""
    named = {"url": '; this is a URL: {"url": ...}', "data": '; this is a data URI: {"base64": ...}'}
    return named.get(kind_of_source(picture), "; this is a text alone, of which nobody says whether it is a path")

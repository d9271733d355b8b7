"""Declare the routes of a protocol: :mod:`r1_reward.serve.v1` has ours, :mod:`r1_reward.serve.dialects` the others.

    async def shout(service: Service, call: Call[ShoutRequest, None]) -> ShoutResponse:
        "Return the text in capitals."
        call.budget.text(call.body.text, "text")
        return ShoutResponse(text=call.body.text.upper())

    Route("/shout", ShoutRequest, ShoutResponse, shout)

The server reads and validates the body, gives the request its budget, answers errors, applies the gate's limits, and
documents the route with these models and the docstring of ``answer``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from r1_reward.serve.budget import Budget
from r1_reward.serve.errors import Refusal
from r1_reward.serve.schemas import ErrorResponse

if TYPE_CHECKING:
    from r1_reward.serve.service import Service

Body = TypeVar("Body", bound=BaseModel)
Options = TypeVar("Options")


@dataclass(frozen=True)
class Call(Generic[Body, Options]):
    """One request to a route."""

    body: Body
    uploads: list[bytes]
    """The files of a form, unopened."""
    options: Options
    """The URL's query parameters, as the route's ``options`` model."""
    budget: Budget
    gone: Callable[[], Awaitable[None]]
    """Returns when the client has disconnected."""


@dataclass(frozen=True)
class ErrorForm:
    """The form of a protocol's error responses."""

    model: type[BaseModel] = ErrorResponse
    body: Callable[[Refusal], Any] = Refusal.body
    statuses: Mapping[int, int] = field(default_factory=dict)
    """The protocol's status for each of our statuses that it replaces."""
    more: Mapping[int, str] = field(default_factory=dict)
    """Statuses that only this protocol has, with their descriptions."""

    def response(self, refusal: Refusal) -> JSONResponse:
        """Return the HTTP response for a refusal."""
        return JSONResponse(self.body(refusal), self.status(refusal.status), refusal.headers)

    def status(self, ours: int) -> int:
        """Return the protocol's status for one of ours."""
        return self.statuses.get(ours, ours)


OURS = ErrorForm()
GROUPED = ErrorForm(more={409: "The request does not fit its group, or a sample arrived before with other content."})
"""For routes whose requests may be parts of a group."""


@dataclass(frozen=True)
class Route:
    """One path for POST requests or, if ``request`` is None, for GET requests."""

    path: str
    request: type[BaseModel] | None
    """The body, with this server's limits in its schema."""
    response: type[BaseModel] | UnionType
    answer: Callable[[Service, Call[Any, Any]], Awaitable[BaseModel | Response]]
    form: bool = False
    """Also accept a multipart form with the JSON as ``request`` and files as ``images``."""
    options: type[BaseModel] | None = None
    """Model of the query parameters."""
    errors: ErrorForm = OURS
    patient: bool = False
    """When the server is full, requests wait instead of being refused: their clients do not retry."""
    streams: bool = False
    """The response may also be a stream of server-sent events."""

"""How a protocol declares its routes: :mod:`r1_reward.serve.v1` has ours, :mod:`r1_reward.serve.dialects` the others.

    async def shout(service: Service, call: Call[ShoutRequest, None]) -> ShoutResponse:
        "Say it louder."
        call.budget.text(call.body.text, "text")
        return ShoutResponse(text=call.body.text.upper())

    Route("/shout", ShoutRequest, ShoutResponse, shout)

The server reads and checks the body, gives the request its budget, answers errors, documents the route by these models
and by the docstring of ``answer``, and lets it through the gate with all others.
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
    """What the URL says behind its question mark, as the route's ``options``."""
    budget: Budget
    gone: Callable[[], Awaitable[None]]
    """Ends when the client has hung up."""


@dataclass(frozen=True)
class ErrorForm:
    """How the clients of a protocol want to be told what was wrong."""

    model: type[BaseModel] = ErrorResponse
    body: Callable[[Refusal], Any] = Refusal.body
    statuses: Mapping[int, int] = field(default_factory=dict)
    """What the protocol says in place of a status of ours."""
    more: Mapping[int, str] = field(default_factory=dict)
    """Statuses that only this protocol has, and when."""

    def response(self, refusal: Refusal) -> JSONResponse:
        """Return a refusal as it is sent."""
        return JSONResponse(self.body(refusal), self.status(refusal.status), refusal.headers)

    def status(self, ours: int) -> int:
        """Return the protocol's status."""
        return self.statuses.get(ours, ours)


OURS = ErrorForm()
GROUPED = ErrorForm(more={409: "It does not fit the group it names, or a sample came before with another content."})
"""Of routes whose requests may be parts of a group."""


@dataclass(frozen=True)
class Route:
    """One path that is posted to, or, where it takes no ``request``, asked with GET."""

    path: str
    request: type[BaseModel] | None
    """The body, with this server's limits in its schema."""
    response: type[BaseModel] | UnionType
    answer: Callable[[Service, Call[Any, Any]], Awaitable[BaseModel | Response]]
    form: bool = False
    """Take a multipart form with the JSON as ``request`` and files as ``images``, too."""
    options: type[BaseModel] | None = None
    """What may stand in the URL."""
    errors: ErrorForm = OURS
    patient: bool = False
    """Requests that find no room wait for it instead of being refused: their clients do not ask again."""
    streams: bool = False
    """The answer may also come as server-sent events."""

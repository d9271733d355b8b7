"""The HTTP routes, and the server that answers on them until it is told to stop.

    serve(RewardModel.from_pretrained("yifanzhang114/R1-Reward"), ServerSettings(model_name="R1-Reward", port=8000))

Stopping (SIGTERM, SIGINT) finishes what was taken: meanwhile new requests get 503 and ``/health`` says not ready.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from r1_reward import __version__
from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.errors import UserError
from r1_reward.serve import schemas
from r1_reward.serve.batching import Sampling
from r1_reward.serve.errors import Refusal
from r1_reward.serve.limits import Gate
from r1_reward.serve.openapi import describe, documented
from r1_reward.serve.service import Service
from r1_reward.serve.settings import ServerSettings

_Model = TypeVar("_Model", bound=BaseModel)
_IMAGE_SHAPE = 'must be {"base64": ...}, {"url": ...} or {"path": ...}'


def create_app(model: RewardModel, settings: ServerSettings) -> FastAPI:
    """Return the ASGI application around a model; its :class:`Service` is ``app.state.service``."""
    service = Service(model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="r1-reward",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    _add_errors(app)
    models = schemas.RequestModels(settings)
    _add_judging(app, service, models)
    _add_openrlhf(app, service)
    _add_monitoring(app, service)
    describe(app, models, settings)
    app.add_middleware(Gate, settings=settings, state=service.state, metrics=service.metrics)
    return app


def _add_judging(app: FastAPI, service: Service, models: schemas.RequestModels) -> None:
    """Add the package's own routes."""

    @app.post("/v1/compare", **documented("CompareRequest", multipart=True))
    async def compare(request: Request) -> schemas.CompareResponse:
        """Say which of two responses is better, with every vote."""
        deadline = service.deadline()
        return await service.compare(*await _read(request, models.compare, service.settings), deadline)

    @app.post("/v1/rank", **documented("RankRequest", multipart=True))
    async def rank(request: Request) -> schemas.RankResponse:
        """Order responses from best to worst, with scores."""
        deadline = service.deadline()
        return await service.rank(*await _read(request, models.rank, service.settings), deadline)

    @app.post("/v1/reward", **documented("RewardRequest", multipart=True))
    async def reward(request: Request) -> schemas.RewardResponse:
        """Give each response a reward, measured against the others."""
        deadline = service.deadline()
        return await service.reward(*await _read(request, models.reward, service.settings), deadline)


def _add_openrlhf(app: FastAPI, service: Service) -> None:
    most = service.settings.max_votes

    @app.post("/get_reward", **documented("RemoteRewardRequest"))
    async def get_reward(
        request: Request,
        kind: schemas.Kind = "win_rate",
        votes: int = Query(1, ge=1, le=most),
        both_orders: bool = True,
        stop: schemas.StopRule | None = None,
    ) -> schemas.RemoteRewardResponse:
        """Answer OpenRLHF: the responses to each prompt are judged against each other."""
        deadline = service.deadline()
        asked, _ = await _read(request, schemas.RemoteRewardRequest, service.settings)
        return await service.remote_reward(asked, kind, Sampling(votes, both_orders, None, stop), deadline)


def _add_monitoring(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses={503: {"model": schemas.Health, "description": "Shutting down."}})
    async def health() -> JSONResponse:
        """Say whether requests are taken."""
        state = service.state
        report = schemas.Health(
            model=service.settings.model_name,
            ready=not state.closing,
            queue=len(service.batcher),
            in_flight=state.in_flight,
        )
        return JSONResponse(report.model_dump(), 503 if state.closing else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Return the counts for Prometheus."""
        return PlainTextResponse(service.metrics.text())


def _add_errors(app: FastAPI) -> None:
    """Answer every error in the same form, without what only the log should hold."""

    def answer(refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body(), refusal.status, refusal.headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(_first_problem(error.errors(), skip=1))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return answer(Refusal(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> JSONResponse:
        return answer(Refusal(500, "something went wrong here; the server's log says what"))


async def _read(request: Request, model: type[_Model], settings: ServerSettings) -> tuple[_Model, list[bytes]]:
    """Read and check the body, JSON or a form with the JSON as ``request`` and files as ``images``.

    Raises:
        Refusal: the body is neither, does not arrive in time, or a field is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data" and model is not schemas.RemoteRewardRequest
    if kind != "application/json" and not is_form:
        kinds = "application/json" + ("" if model is schemas.RemoteRewardRequest else " or multipart/form-data")
        raise Refusal(415, f"the Content-Type must be {kinds}")
    try:
        reading = _read_form(request, settings) if is_form else _read_body(request)
        body, uploads = await asyncio.wait_for(reading, settings.timeout)
    except ClientDisconnect as error:
        raise Refusal(400, "the body broke off") from error
    except asyncio.TimeoutError as error:
        raise Refusal(408, "the body did not arrive in time", headers={"Connection": "close"}) from error
    try:
        return model.model_validate_json(body), uploads
    except ValidationError as error:
        raise _first_problem(error.errors()) from error


async def _read_body(request: Request) -> tuple[bytes, list[bytes]]:
    return await request.body(), []


async def _read_form(request: Request, settings: ServerSettings) -> tuple[bytes, list[bytes]]:
    body: bytes | None = None
    uploads = []
    form = request.form(max_files=settings.max_images + 1, max_fields=1, max_part_size=settings.max_body)
    async with form as parts:
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


def _first_problem(errors: Any, skip: int = 0) -> Refusal:
    """Return the first of pydantic's errors as a refusal that names the field; ``skip`` parts lead to the body."""
    first = errors[0]
    field, message = "", str(first["msg"])
    for part in first["loc"][skip:]:
        if isinstance(part, int):
            field += f"[{part}]"
            break  # behind it stand names of types
        field += part if not field else f".{part}"
    if schemas.Base64Image.__name__ in first["loc"]:
        message = _IMAGE_SHAPE
    return Refusal(422, message, field or None)


class DrainingServer(uvicorn.Server):
    """Goes on listening until all requests are answered, so that late ones get 503 instead of no connection."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        """Take uvicorn's configuration and the service that knows what is under way."""
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was taken, then stop listening."""
        self._service.state.closing = True
        while self._service.state.in_flight and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def serve(model: RewardModel, settings: ServerSettings, ready: Callable[[str], None] | None = None) -> None:
    """Answer requests until a signal ends it; ``ready`` is told the address.

    Raises:
        UserError: the address cannot be listened at.
    """
    listener = listen(settings)
    app = create_app(model, settings)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    server = DrainingServer(config, app.state.service)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if ready is not None:
        ready(f"http://{host}:{listener.getsockname()[1]}")
    with _signals_that_end():
        server.run(sockets=[listener])


@contextmanager
def _signals_that_end() -> Iterator[None]:
    """Make an orderly end of the signals that uvicorn raises again once it has shut down."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(settings: ServerSettings) -> socket.socket:
    """Return a socket at the configured address; raises UserError if there can be none."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot listen at {settings.host}, port {settings.port}: {error}.") from error

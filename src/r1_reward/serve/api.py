"""The HTTP application: the routes of every protocol around one model, health, metrics, and error responses.

    app = create_app(RewardModel.from_pretrained("yifanzhang114/R1-Reward"), ServerSettings(model_name="R1-Reward"))

:mod:`r1_reward.serve.server` runs it. To add a protocol, add a file to ``dialects`` and a line to ``_PROTOCOLS``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from r1_reward import __version__
from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve import schemas, v1
from r1_reward.serve.bodies import hung_up, read_call
from r1_reward.serve.budget import Clock
from r1_reward.serve.dialects import nemo_gym, openai, openrlhf, pooling, rerank, slime_url
from r1_reward.serve.errors import Refusal
from r1_reward.serve.limits import Gate
from r1_reward.serve.openapi import describe, documented
from r1_reward.serve.routes import OURS, Call, ErrorForm, Route
from r1_reward.serve.service import Service
from r1_reward.serve.settings import ServerSettings

_PROTOCOLS = (
    v1.routes,
    nemo_gym.routes,
    openai.routes,
    openrlhf.routes,
    slime_url.routes,
    rerank.routes,
    pooling.routes,
)


def create_app(model: RewardModel, settings: ServerSettings, *, clock: Clock = time.monotonic) -> FastAPI:
    """Return the ASGI application for a model; its :class:`Service` is ``app.state.service``.

    ``clock`` returns seconds and measures request timeouts.
    """
    service = Service(model, settings, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="r1-reward",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the page would load scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    routes = [route for protocol in _PROTOCOLS for route in protocol(settings)]
    forms = {route.path: route.errors for route in routes}
    _add_errors(app, forms)
    for route in routes:
        _mount(app, service, route)
    _add_monitoring(app, service)
    describe(app, routes, settings)
    patient = {route.path for route in routes if route.patient}
    app.add_middleware(
        Gate, settings=settings, state=service.state, metrics=service.metrics, judging=forms, patient=patient
    )
    return app


def _mount(app: FastAPI, service: Service, route: Route) -> None:
    """Register a route; each request gets a time budget when it arrives."""
    method = "GET" if route.request is None else "POST"

    @app.api_route(route.path, methods=[method], **documented(route))
    async def answer(request: Request) -> Any:
        budget = service.budget()
        if route.request is None:
            return await route.answer(service, Call[Any, Any](None, [], None, budget, partial(hung_up, request)))
        return await route.answer(service, await read_call(request, route, budget))


def _add_monitoring(app: FastAPI, service: Service) -> None:
    @app.get("/health", responses={503: {"model": schemas.Health, "description": "Shutting down."}})
    async def health() -> JSONResponse:
        """Say whether the server accepts requests."""
        state = service.state
        report = schemas.Health(
            model=service.settings.model_name,
            ready=not state.closing,
            queue=len(service.batcher),
            in_flight=state.in_flight,
            waiting=state.waiting,
        )
        return JSONResponse(report.model_dump(), 503 if state.closing else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Return the metrics in the text format of Prometheus."""
        return PlainTextResponse(service.metrics.text())


def _add_errors(app: FastAPI, forms: Mapping[str, ErrorForm]) -> None:
    """Answer every error in its route's form, without details that belong only in the log."""

    def answer(request: Request, refusal: Refusal) -> JSONResponse:
        return forms.get(request.scope["path"], OURS).response(refusal)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return answer(request, error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return answer(request, Refusal(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> JSONResponse:
        return answer(request, Refusal(500, "internal server error; see the server's log"))

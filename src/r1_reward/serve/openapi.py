"""The OpenAPI document. Our own code reads the bodies, so their schemas are added here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from r1_reward.serve.routes import OURS, ErrorForm, Route
from r1_reward.serve.settings import ServerSettings

_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    400: "Malformed HTTP request.",
    403: "The server may not read a picture from that location.",
    408: "The body did not arrive in time.",
    413: "The body is too large, or a prompt exceeds the model's context length.",
    415: "Unsupported content type or encoding.",
    422: "A field is invalid.",
    429: "Too many requests are in progress.",
    500: "Internal server error.",
    502: "The model could not judge this request.",
    503: "The model is unavailable, or the server is shutting down.",
    504: "Not finished in time.",
}


def documented(route: Route) -> dict[str, Any]:
    """Return the arguments of a route's registration that document its body, options and responses."""
    extra: dict[str, Any] = {} if route.request is None else {"requestBody": _body(route, route.request)}
    if route.options is not None:
        known = route.options.model_json_schema()["properties"]
        extra["parameters"] = [{"name": name, "in": "query", "schema": schema} for name, schema in known.items()]
    form = route.errors
    errors = {form.status(status): text for status, text in sorted(_ERRORS.items(), reverse=True)} | dict(form.more)
    responses: dict[int, Any] = {s: {"model": form.model, "description": text} for s, text in errors.items()}
    if route.streams:
        responses[200] = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
    return {
        "response_model": route.response,
        "name": route.answer.__name__,
        "description": route.answer.__doc__,
        "responses": responses,
        "openapi_extra": extra,
    }


def _body(route: Route, model: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(model=model.__name__)}
    content: dict[str, Any] = {"application/json": {"schema": reference}}
    if route.form:
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        form = {
            "type": "object",
            "properties": {"request": reference, "images": files},
            "required": ["request"],
            "additionalProperties": False,
        }
        encoding = {"request": {"contentType": "application/json"}, "images": {"contentType": "image/*"}}
        content["multipart/form-data"] = {"schema": form, "encoding": encoding}
    return {"required": True, "content": content}


def describe(app: FastAPI, routes: Sequence[Route], settings: ServerSettings) -> None:
    """Make ``app.openapi()`` return the complete document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            bodies = [(route.request, "validation") for route in routes if route.request is not None]
            _, definitions = models_json_schema(bodies, ref_template=_REFERENCE)  # type: ignore[arg-type]
            document["components"]["schemas"].update(definitions["$defs"])
            if settings.api_key is not None:
                _require_key(document, {"/metrics": OURS} | {route.path: route.errors for route in routes})
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _require_key(document: dict[str, Any], forms: Mapping[str, ErrorForm]) -> None:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, form in forms.items():
        refused = {"$ref": _REFERENCE.format(model=form.model.__name__)}
        for operation in document["paths"][path].values():
            operation["security"] = [{"key": []}]
            operation["responses"]["401"] = {
                "description": "The API key is missing or wrong.",
                "content": {"application/json": {"schema": refused}},
            }

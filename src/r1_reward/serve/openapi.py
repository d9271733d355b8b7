"""The OpenAPI document: bodies are read by our own code, so their schemas are put in here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from r1_reward.serve import schemas
from r1_reward.serve.limits import JUDGING
from r1_reward.serve.settings import ServerSettings

_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    400: "The request is no HTTP.",
    403: "A picture may not be named like that.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "A field is wrong.",
    429: "Too many requests are under way.",
    500: "A mistake of the server's.",
    502: "The model could not judge this.",
    503: "Nothing can be judged at the moment, or the server is shutting down.",
    504: "Not finished in time.",
}


def documented(model: str, *, multipart: bool = False) -> dict[str, Any]:
    """Return the arguments of a route whose body is ``model`` as JSON, or as a form with files beside it."""
    reference = {"$ref": _REFERENCE.format(model=model)}
    content: dict[str, Any] = {"application/json": {"schema": reference}}
    if multipart:
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        form = {
            "type": "object",
            "properties": {"request": reference, "images": files},
            "required": ["request"],
            "additionalProperties": False,
        }
        encoding = {"request": {"contentType": "application/json"}, "images": {"contentType": "image/*"}}
        content["multipart/form-data"] = {"schema": form, "encoding": encoding}
    responses = {status: {"model": schemas.ErrorResponse, "description": text} for status, text in _ERRORS.items()}
    return {"responses": responses, "openapi_extra": {"requestBody": {"required": True, "content": content}}}


def describe(app: FastAPI, models: schemas.RequestModels, settings: ServerSettings) -> None:
    """Make ``app.openapi()`` return the whole document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, routes=app.routes)
            bodies: list[type[BaseModel]] = [models.compare, models.rank, models.reward, models.remote]
            _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
            document["components"]["schemas"].update(definitions["$defs"])
            if settings.api_key is not None:
                _require_key(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _require_key(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    refused = {"$ref": _REFERENCE.format(model="ErrorResponse")}
    for path in (*JUDGING, "/metrics"):
        for operation in document["paths"][path].values():
            operation["security"] = [{"key": []}]
            operation["responses"]["401"] = {
                "description": "The API key is missing or wrong.",
                "content": {"application/json": {"schema": refused}},
            }

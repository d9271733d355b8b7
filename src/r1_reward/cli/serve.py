"""``r1-reward serve``: serve the reward model over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from r1_reward.cli.judging import OneProcess, load_judge
from r1_reward.cli.options import Fields, Partial, with_settings
from r1_reward.judge.settings import JudgeSettings
from r1_reward.records.errors import UserError
from r1_reward.serve.settings import ServerSettings

_EXTRA = ("fastapi", "prometheus_client", "python_multipart", "multipart", "starlette", "uvicorn")
_LIMITS = Fields(
    names={"allow_folders": "--allow-folder DIR", "allow_hosts": "--allow-host HOST"},
    without=("model_name", "api_key"),
)


@with_settings
def serve(
    judge: Annotated[JudgeSettings, Fields(names={"max_pixels": "--model-pixels"})],
    limits: Annotated[Partial[ServerSettings], _LIMITS],
    engine: OneProcess,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the required API key.")
    ] = None,
) -> None:
    """Serve comparisons, rankings and rewards over HTTP; SIGTERM finishes accepted requests first."""
    try:
        from r1_reward.serve.server import serve as run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UserError(f"serving needs {error.name}: pip install 'r1-reward[serve]'") from error
    settings = limits(model_name=Path(judge.model).name, api_key=_key(api_key_env))
    model = load_judge(judge, engine, pixels="--model-pixels")
    run(model, settings, ready=lambda url: typer.echo(f"serving {settings.model_name} at {url}"))


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable} (--api-key-env) is not set or empty.")
    return key

"""``r1-reward ui``: the web page, in addition to the HTTP routes of ``r1-reward serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1_reward.cli.judging import OneProcess, load_judge
from r1_reward.cli.options import Fields, Partial, with_settings
from r1_reward.judge.settings import JudgeSettings
from r1_reward.records.errors import UserError
from r1_reward.serve.settings import PageSettings

_EXTRA = ("fastapi", "gradio", "prometheus_client", "python_multipart", "multipart", "starlette", "uvicorn")


@with_settings
def ui(
    judge: JudgeSettings,
    page: Annotated[Partial[PageSettings], Fields(only=("host", "port", "insecure"))],
    engine: OneProcess,
) -> None:
    """Open a web page to upload pictures, compare answers and watch the votes come in."""
    try:
        from r1_reward.serve.server import serve_page
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UserError(f"the web page needs {error.name}: pip install 'r1-reward[ui]'") from error
    settings = page(model_name="/".join(Path(judge.model).parts[-2:]))
    serve_page(load_judge(judge, engine), settings, ready=lambda url: typer.echo(f"open {url}"))

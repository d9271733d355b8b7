"""``r1-reward ui``: the web page, beside the HTTP routes of ``r1-reward serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r1_reward.cli.bench import BatchSize, Concurrency, MaxNewTokens, MaxPixels, Model, Seed
from r1_reward.cli.compare import BaseUrls
from r1_reward.models.quiet import quiet_libraries
from r1_reward.records.errors import UserError

_EXTRA = ("fastapi", "gradio", "prometheus_client", "python_multipart", "multipart", "starlette", "uvicorn")


def ui(
    model: Model,
    base_url: BaseUrls = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than loopback need --insecure.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes any free one.")] = 7860,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen at an address others can reach: anybody may judge.")
    ] = False,
    max_new_tokens: MaxNewTokens = 1024,
    seed: Seed = 0,
    max_pixels: MaxPixels = None,
    batch_size: BatchSize = 64,
    concurrency: Concurrency = 16,
) -> None:
    """Open a web page to drop pictures, compare answers and watch the votes come in."""
    try:
        from r1_reward.serve.server import serve_page
        from r1_reward.serve.settings import ServerSettings
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UserError(f"the web page needs {error.name}: pip install 'r1-reward[ui]'") from error
    from r1_reward.judge.reward_model import RewardModel

    settings = ServerSettings(model_name="/".join(Path(model).parts[-2:]), host=host, port=port, insecure=insecure)
    if base_url:
        if max_pixels is not None:
            raise UserError("--max-pixels: is the server's to decide; leave it out with --base-url.")
        judge = RewardModel.from_server(
            base_url, model, concurrency=concurrency, max_new_tokens=max_new_tokens, seed=seed
        )
    else:
        quiet_libraries()
        judge = RewardModel.from_pretrained(
            model, batch_size=batch_size, max_pixels=max_pixels, max_new_tokens=max_new_tokens, seed=seed
        )
    serve_page(judge, settings, ready=lambda url: typer.echo(f"open {url}"))

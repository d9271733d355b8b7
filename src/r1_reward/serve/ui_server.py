"""The server of ``r1-reward ui``: the HTTP routes and the page, around one model."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn

from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve.api import DrainingServer, create_app, listen
from r1_reward.serve.page import PATH, mount_page
from r1_reward.serve.settings import ServerSettings

_LAST_SECONDS = 3  # an open page holds its connection for ever


def run(model: RewardModel, settings: ServerSettings, ready: Callable[[str], None]) -> None:
    """Serve the page until a signal ends it; ``ready`` is told its address.

    Raises:
        UserError: the address cannot be listened at, or gradio is missing.
    """
    listener = listen(settings)
    shared = model.shared()
    app = mount_page(create_app(shared, settings), shared, name=settings.model_name)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_LAST_SECONDS
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    ready(f"http://{host}:{listener.getsockname()[1]}{PATH}")
    DrainingServer(config, app.state.service).run(sockets=[listener])

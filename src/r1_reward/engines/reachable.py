"""Whether a server that speaks the OpenAI protocol answers, and which models it has; asked once, without a retry.

reach("http://localhost:8000/v1").models        # ("R1-Reward",)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from r1_reward.engines.chat_protocol import excerpt
from r1_reward.engines.proxies import client_options, proxy_advice
from r1_reward.engines.server_pool import server_name

PATIENCE = 10.0  # seconds for all of an answer
_KEY = "set OPENAI_API_KEY to the key of this server"
_NO_LIST = (404, 405, 501)


@dataclass(frozen=True)
class Reached:
    """A server: the models it lists, None if it lists none; ``problem`` says what is wrong, None if nothing is.

    ``certain`` is False if it may still answer: some servers judge without listing models.
    """

    url: str
    models: tuple[str, ...] | None = None
    problem: str | None = None
    advice: str = ""
    certain: bool = True


def reach_all(urls: Sequence[str]) -> tuple[Reached, ...]:
    """Ask several servers at once; raises UserError if one of the URLs is not one."""
    names = [server_name(url) for url in urls]
    if not names:
        return ()
    with ThreadPoolExecutor(len(names)) as pool:
        return tuple(pool.map(reach, urls))


def reach(url: str) -> Reached:
    """Ask the server before ``/models`` of ``url``, with the key in ``OPENAI_API_KEY`` if there is one.

    Raises:
        UserError: the URL is not one.
    """
    import openai

    http: Any = import_module(openai.DefaultHttpxClient.__bases__[0].__module__.partition(".")[0])
    name, key = server_name(url).removeprefix("server "), os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        return Reached(name, problem="was not asked: the API key contains invalid characters", advice=_KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with http.Client(timeout=PATIENCE, follow_redirects=True, **client_options(url)) as client:
            response = client.get(f"{url.rstrip('/')}/models", headers=headers)
    except (http.HTTPError, http.InvalidURL, ImportError, ValueError) as error:
        proxied = proxy_advice(url).removeprefix("; ")
        reason = excerpt(f"{type(error).__name__}: {error}".rstrip(": "))
        return Reached(name, problem=f"cannot be reached ({reason})", advice=proxied or "start it or check the URL")
    return _read(name, response)


def _read(name: str, response: Any) -> Reached:
    status = response.status_code
    if status in (401, 403):
        return Reached(name, problem=f"refuses the API key (HTTP {status})", advice=_KEY)
    if status in _NO_LIST:
        return Reached(
            name,
            problem=f"answers, but has nothing at {response.url} (HTTP {status})",
            advice="check that the URL ends where /chat/completions begins, most often in /v1",
            certain=False,
        )
    if not response.is_success:
        return Reached(name, problem=f"answers HTTP {status}", advice="see the server's log")
    try:
        return Reached(name, models=tuple(excerpt(str(model["id"])) for model in response.json()["data"]))
    except (ValueError, KeyError, TypeError):
        return Reached(
            name,
            problem=f"answers at {response.url} with something other than a list of models",
            advice="check that the URL is that of an OpenAI-compatible server, most often ending in /v1",
        )

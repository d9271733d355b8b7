"""Between OpenRLHF and ``r1-reward serve``: collect the samples of each prompt and send them as one request.

    r1-reward serve --model yifanzhang114/R1-Reward --unscored-reward 0
    python examples/trainers/openrlhf_relay.py --target http://127.0.0.1:8000/get_reward --group-size 8
    ... openrlhf.cli.train_ppo_ray --remote_rm_url http://127.0.0.1:5000/get_reward --n_samples_per_prompt 8

Versions of OpenRLHF that send many samples in one request need no relay. Later ones ask for one sample at a time, and
a pairwise judge has nothing to compare a lone sample with. The relay lets each request wait for the others with the
same prompt; after ``--wait`` seconds (OpenRLHF gives up after 180) what has come is judged as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


def create_app(target: str, group_size: int, wait: float = 90.0, key: str | None = None) -> FastAPI:
    """Return the application that answers ``/get_reward``; ``key`` is the target's."""
    app = FastAPI()
    waiting: dict[str, list[tuple[str, asyncio.Future[dict[str, Any]]]]] = {}
    tasks: set[asyncio.Task[None]] = set()

    async def send(prompt: str, group: list[tuple[str, asyncio.Future[dict[str, Any]]]]) -> None:
        body = {"query": [query for query, _ in group], "prompts": [prompt] * len(group), "labels": [""] * len(group)}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with httpx.AsyncClient(timeout=600, trust_env=False) as client:
                answer = await client.post(target, json=body, headers=headers)
                answer.raise_for_status()
            found = answer.json()
            for place, (_, future) in enumerate(group):
                logs = {name: values[place] for name, values in found["extra_logs"].items()}
                reward = {"reward": found["rewards"][place], "score": found["scores"][place], "logs": logs}
                _settle(future, reward)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            for _, future in group:
                _settle(future, error)

    def start(prompt: str) -> None:
        group = waiting.pop(prompt, [])
        if group:
            task = asyncio.ensure_future(send(prompt, group))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def ask(query: str, prompt: str) -> dict[str, Any]:
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        group = waiting.setdefault(prompt, [])
        group.append((query, future))
        if len(group) == group_size:
            start(prompt)
        elif len(group) == 1:

            def late() -> None:
                if waiting.get(prompt) is group:
                    start(prompt)

            asyncio.get_running_loop().call_later(wait, late)
        return await future

    @app.post("/get_reward")
    async def get_reward(request: Request) -> JSONResponse:
        body = json.loads(await request.body())
        asked = [ask(query, prompt) for query, prompt in zip(body["query"], body["prompts"], strict=True)]
        try:
            found = await asyncio.gather(*asked)
        except (httpx.HTTPError, KeyError, ValueError) as error:
            return JSONResponse({"error": f"{target}: {error}"}, 502)
        names = found[0]["logs"] if found else {}
        return JSONResponse(
            {
                "rewards": [one["reward"] for one in found],
                "scores": [one["score"] for one in found],
                "extra_logs": {name: [one["logs"][name] for one in found] for name in names},
            }
        )

    return app


def _settle(future: asyncio.Future[dict[str, Any]], result: dict[str, Any] | Exception) -> None:
    if future.done():  # whoever asked has gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="http://127.0.0.1:8000/get_reward")
    parser.add_argument("--group-size", type=int, required=True)
    parser.add_argument("--wait", type=float, default=90.0)
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args()
    uvicorn.run(create_app(given.target, given.group_size, given.wait), host="127.0.0.1", port=given.port)

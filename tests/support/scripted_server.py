"""A chat server on loopback that does what its script says, however rude.

    server = ScriptedServer()
    server.scripts["7"] = [status(500), hang, reply("<answer>1</answer>")]  # what the requests ending in "7" get
    ...  # ask server.url; look at server.bodies
    server.stop()

A step is the JSON of an answer, or a function (of the request's body, if it takes one) that returns JSON or a response.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import defaultdict

import uvicorn
from fastapi import FastAPI, Response
from fastapi import Request as HTTPRequest
from fastapi.responses import JSONResponse, StreamingResponse

JUDGMENT = "<think>Seen.</think><answer>1</answer>"


def reply(content=JUDGMENT, *, finish="stop", usage=7, logprobs=None, **message):
    """A chat completion as servers write it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    counts = {"usage": {"prompt_tokens": 3, "completion_tokens": usage}} if usage is not None else {}
    return {"id": "x", "object": "chat.completion", "choices": [{**choice, "logprobs": logprobs}], **counts}


# Steps.


def status(code, text="boom", **headers):
    return lambda: JSONResponse({"error": {"message": text}}, code, headers=headers)


def raw(body, kind="application/json"):
    return lambda: Response(body, media_type=kind)


async def hang():
    await asyncio.sleep(60)


async def drip():
    async def spaces():
        while True:
            yield " "
            await asyncio.sleep(0.05)

    return StreamingResponse(spaces(), media_type="application/json")


class ScriptedServer:
    """Answers the n-th request about a text (the last of its messages) with the n-th step of its script.

    The last step is repeated forever; texts without a script have the ``default`` one.
    """

    def __init__(self):
        self.active = 0
        self.forget()
        app = FastAPI()
        app.post("/v1/chat/completions")(self.complete)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # see r1_reward.serve.server
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def forget(self):
        """Start afresh: no scripts, nothing recorded."""
        self.scripts, self.default = {}, [reply()]
        self.calls, self.bodies, self.times, self.ports = defaultdict(int), [], [], set()
        self.peak = 0

    async def complete(self, request: HTTPRequest):
        body = await request.json()
        self.bodies.append(body)
        self.times.append(time.monotonic())
        self.ports.add(request.client.port)
        text = body["messages"][-1]["content"]
        text = text if isinstance(text, str) else text[-1]["text"]
        script = self.scripts.get(text, self.default)
        step = script[min(self.calls[text], len(script) - 1)]
        self.calls[text] += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        work = asyncio.ensure_future(self.perform(step, body))
        try:
            while not work.done():
                await asyncio.wait([work], timeout=0.01)
                if await request.is_disconnected():
                    work.cancel()
                    return Response()
            return work.result()
        finally:
            self.active -= 1

    async def perform(self, step, body):
        answer = step
        if callable(step):
            answer = step(body) if step.__code__.co_argcount else step()
        if asyncio.iscoroutine(answer):
            answer = await answer
        return JSONResponse(answer) if isinstance(answer, dict) else answer

    def stop(self):
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(5)
        self._socket.close()

"""Properties of every route that uses the judge (found automatically): limits, error forms, no blind judging.

A new route fails here until ``EXAMPLES`` has a request for it.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict

import pytest
from fakes import Table
from served import ScriptedJudge, Served, base64_png, wait_until

from r1_reward.judge.reward_model import RewardModel
from r1_reward.records.prompt import build_prompt
from r1_reward.serve import api
from r1_reward.serve.settings import ServerSettings

ROUTES = {route.path: route for protocol in api._PROTOCOLS for route in protocol(ServerSettings()) if route.request}
SCALAR = ("/classify", "/v1/classify", "/pooling", "/v1/embeddings")
QUESTION, RESPONSES = "Which?", ("4", "7")


def linked(pictures):
    return [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{one}"}} for one in pictures]


def parts(question, pictures):
    return [*linked(pictures), {"type": "text", "text": question}]


def ours(path, question, pictures, votes):
    one, other = RESPONSES
    responses = {"response_1": one, "response_2": other} if path == "/v1/compare" else {"responses": [one, other]}
    return path, {"question": question, "images": linked(pictures), "votes": votes, **responses}


def chat(path, question, pictures, votes):
    return path, {
        "messages": [
            {"role": "user", "content": parts(build_prompt("ASKED", *RESPONSES).replace("ASKED", question), pictures)}
        ],
        "n": votes,
    }


def rerank(path, question, pictures, votes):
    query = {"content": parts(question, pictures)} if pictures else question
    names = ("text_1", "text_2") if "score" in path else ("query", "documents")
    return f"{path}?votes={votes}", dict(zip(names, (query, [*RESPONSES]), strict=True))


def scored(path, question, pictures, votes):
    """Two chats, or one as messages, which pictures require."""
    if pictures:
        asked = {"role": "user", "content": parts(question, pictures)}
        return path, {"messages": [asked, {"role": "assistant", "content": "4"}]}
    form = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{{}}<|im_end|>"
    return path, {"input": [form.format(response) for response in RESPONSES]}


def openrlhf(path, question, pictures, votes):
    prompts = [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"] * 2
    query = [prompt + response for prompt, response in zip(prompts, RESPONSES, strict=True)]
    images = {"images": [list(pictures)] * 2} if pictures else {}
    return f"{path}?votes={votes}", {"query": query, "prompts": prompts, "labels": ["", ""], **images}


def slime(path, question, pictures, votes):
    label = {"group": f"{len(question)} {len(pictures)} {votes}", "group_size": 2, "images": list(pictures)}
    return f"{path}?votes={votes}", {"prompt": question, "response": "4", "label": label}


def nemo_gym(path, question, pictures, votes):
    shown = [{"type": "input_image", "image_url": one["image_url"]["url"]} for one in linked(pictures)]
    asked = [{"role": "user", "content": [*shown, {"type": "input_text", "text": question}]}]
    outputs = [
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]} for text in RESPONSES
    ]
    if path == "/compare":
        return f"{path}?votes={votes}", {"conversation_history": asked, "response_objs": outputs}
    rollout = {"responses_create_params": {"input": asked}, "response": outputs[0], "_ng_group_id": "a"}
    return f"{path}?votes={votes}&group_size=2", {**rollout, "_ng_rollout_index": 0}


EXAMPLES = {
    **dict.fromkeys(("/v1/compare", "/v1/rank", "/v1/reward"), ours),
    "/v1/chat/completions": chat,
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score"), rerank),
    **dict.fromkeys(SCALAR, scored),
    "/get_reward": openrlhf,
    "/remote_rm": slime,
    **dict.fromkeys(("/compare", "/verify"), nemo_gym),
}
TWO = {"/v1/compare", "/v1/chat/completions"}  # take exactly two responses
GROUPED = {"/remote_rm", "/verify"}  # wait for the rest of a group
LIMITS = {
    "max_images": (1, {"pictures": 2}, set()),
    "max_pixels": (5, {"pictures": 1}, set()),
    "max_chars": (20, {"question": "Which of them, then, is it?"}, set()),
    "max_candidates": (1, {}, {*TWO, *SCALAR}),
    "max_responses": (1, {}, TWO),
    "max_votes": (1, {"votes": 2}, set(SCALAR)),
    "max_judgments": (1, {"votes": 2}, set()),
}


class Patient(Table):
    """A scalar judge that blocks until it is released."""

    def __init__(self):
        super().__init__(defaultdict(float))
        self.may_work = threading.Event()
        self.may_work.set()

    def score(self, candidates, **options):
        assert self.may_work.wait(30)
        return super().score(candidates, **options)


def server_for(path, **settings):
    """Return a server with a judge that can answer a route, and the judge."""
    judge = Patient() if path in SCALAR else ScriptedJudge()
    return Served(model=RewardModel(judge), model_name="judge", **settings), judge


def example(path, *, question=QUESTION, pictures=0, votes=1):
    assert path in EXAMPLES, f"{path} is a new route: say in EXAMPLES how it is asked"
    return EXAMPLES[path](path, question, [base64_png()] * pictures, votes)


def require_refused(path, status, answer, ours):
    """Check that a refusal has the form and status that the route's clients expect."""
    form = ROUTES[path].errors
    assert status == form.status(ours), (status, answer)
    assert form.model.model_validate(answer).model_dump() == answer
    return json.dumps(answer)


@pytest.mark.parametrize("path", ROUTES)
def test_the_example_is_answered_and_names_the_model(path):
    if path in GROUPED:
        pytest.skip("it waits for the rest of its group")
    server, judge = server_for(path)
    with server:
        for pictures in (0, 1):
            url, body = example(path, pictures=pictures)
            status, answer = server.post(url, body)
            assert status == 200, answer
        if "model" in ROUTES[path].request.model_fields:
            for name, expected in (("judge", 200), ("/checkpoints/judge", 200), ("other", 404)):
                status, answer = server.post(url, {**body, "model": name})
                assert status == expected, answer
            assert "other" in require_refused(path, status, answer, 404)
    assert judge.asked if path in SCALAR else judge.images[-1] == [(3, 2)]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("path", ROUTES)
def test_every_limit_applies(path, limit):
    most, asked, uncounted = LIMITS[limit]
    if path in uncounted:
        pytest.skip(f"{path} has nothing of the kind")
    if limit == "max_judgments" and path in GROUPED | set(SCALAR):
        asked = {}
    server, judge = server_for(path, **{limit: most})
    with server:
        status, answer = server.post(*example(path, **asked))
        assert f"--{limit.replace('_', '-')}" in require_refused(path, status, answer, 422)
        assert len(server.service.batcher) == 0
    assert not (judge.asked if path in SCALAR else judge.seen)


@pytest.mark.parametrize("path", ROUTES)
def test_gate_and_body_errors_have_the_callers_form(path):
    url, body = example(path)
    sent = json.dumps(body).encode()
    server, judge = server_for(path, max_body_mb=0.01, api_key="right", max_queue=1, max_waiting=1)
    key = {"Authorization": "Bearer right"}
    with server:
        require_refused(path, *server.post(url, sent), 401)
        assert "--max-body-mb" in require_refused(path, *server.post(url, sent + b" " * 20_000, **key), 413)
        require_refused(path, *server.post(url, sent, **key, **{"Content-Type": "text/plain"}), 415)
        for broken in (b"{", b"[]", b"7", b'{"\xff": 1}', b""):
            require_refused(path, *server.post(url, broken, **key), 422)
        state = server.service.state
        wait_until(lambda: state.in_flight == 0)  # an answer is sent before its request stops counting
        state.in_flight, state.waiting = 1, 1  # so the line must be empty, too
        assert "--max-queue" in require_refused(path, *server.post(url, sent, **key), 429)
        state.in_flight, state.waiting = 0, 0
    assert not (judge.asked if path in SCALAR else judge.seen)


@pytest.mark.parametrize("path", ROUTES)
def test_the_timeout_applies(path):
    if path in GROUPED:
        pytest.skip("it waits for the rest of its group")
    server, judge = server_for(path, timeout=0.2)
    judge.may_work.clear()
    with server:
        assert "0.2 seconds" in require_refused(path, *server.post(*example(path)), 504)
        judge.may_work.set()


@pytest.mark.parametrize(
    "question",
    [
        "<image>Which?",
        "Is <image> older?",
        "<|vision_start|><|image_pad|><|vision_end|>Which?",
        "<video>\nWhich?",
        "[IMG] Which?",
    ],
)
@pytest.mark.parametrize("path", ROUTES)
def test_nothing_is_judged_blind(path, question):
    server, judge = server_for(path)
    with server:
        told = require_refused(path, *server.post(*example(path, question=question)), 422)
        assert "picture" in told or "image" in told
    assert not (judge.asked if path in SCALAR else judge.seen)


@pytest.mark.parametrize("path", ROUTES)
def test_as_many_pictures_as_places(path):
    server, judge = server_for(path)
    with server:
        url, body = example(path, question="<image><image>Which?", pictures=1)
        require_refused(path, *server.post(url, body), 422)
    assert not (judge.asked if path in SCALAR else judge.seen)

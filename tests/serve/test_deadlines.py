"""Requests that time out get 504 and are dropped, wherever the time went; the test controls the clock."""

from __future__ import annotations

import threading

import pytest
from served import Clock, ScriptedJudge, Served, base64_png, pair, wait_until

from r1_reward.serve import pictures

PATHS = ("/v1/compare", "/v1/rank", "/v1/reward", "/get_reward")


def asked(path, question, image=None):
    """Return a request for a path."""
    images = [] if image is None else [{"base64": image}]
    if path == "/get_reward":
        sent = {} if image is None else {"images": [image] * 4}
        prompts = [question, question, f"{question} too:", f"{question} too:"]
        return {"query": [f"{prompt}{n % 2}" for n, prompt in enumerate(prompts)], "prompts": prompts, **sent}
    if path == "/v1/compare":
        return pair(question=question, images=images)
    return {"question": question, "responses": ["1", "2", "3"], "images": images}


@pytest.fixture
def clock():
    return Clock()


class Stumbling(ScriptedJudge):
    """Blocks again after it has failed."""

    def answer(self, requests):
        yield from super().answer(requests)
        if "fails" in "".join(self.calls[-1]):
            self.may_work.clear()


@pytest.fixture
def held(clock):
    """A server whose judge is busy with a first request."""
    judge = Stumbling()
    judge.may_work.clear()
    with Served(judge, clock=clock, batch_wait_ms=0) as server:
        first = threading.Thread(target=server.post, args=("/v1/compare", pair(question="first?")))
        first.start()
        assert judge.busy.wait(20)
        yield server
        judge.may_work.set()
        first.join(20)


@pytest.mark.parametrize("path", PATHS)
def test_expiry_in_the_queue_while_the_event_loop_is_late(held, clock, path):
    answers = []
    late = threading.Thread(target=lambda: answers.append(held.post(path, asked(path, "late?"))))
    late.start()
    waiting = {"/v1/compare": 1, "/v1/rank": 3, "/v1/reward": 3, "/get_reward": 2}[path]
    wait_until(lambda: len(held.service.batcher) == waiting)
    clock.now += held.settings.timeout + 1  # the loop's own timer has not run out: the queue is the first to notice
    held.judge.may_work.set()
    late.join(20)
    ((status, answer),) = answers
    assert status == 504 and "30 seconds" in answer["error"]["message"]
    assert held.post("/v1/compare", pair(question="next?"))[0] == 200
    assert not any("late" in question for call in held.judge.calls for question in call)


@pytest.mark.parametrize("path", PATHS)
def test_a_request_that_the_event_loop_gives_up_is_dropped_from_the_queue(path):
    judge = ScriptedJudge()
    judge.may_work.clear()
    with Served(judge, timeout=0.2, batch_wait_ms=0) as server:
        first = threading.Thread(target=server.post, args=("/v1/compare", pair(question="first?")))
        first.start()
        assert judge.busy.wait(20)
        assert server.post(path, asked(path, "late?"))[0] == 504
        judge.may_work.set()
        first.join(20)
        wait_until(lambda: len(server.service.batcher) == 0)
        assert server.post("/v1/compare", pair(question="next?"))[0] == 200
    assert not any("late" in question for call in judge.calls for question in call)


@pytest.mark.parametrize("path", PATHS)
def test_pictures_that_take_too_long_to_open(monkeypatch, clock, path):
    opened = []

    def slow(data, **options):
        opened.append(1)
        clock.now += 31
        return pictures_open(data, **options)

    pictures_open = pictures.open_image
    monkeypatch.setattr(pictures, "open_image", slow)
    with Served(clock=clock, batch_wait_ms=0) as server:
        status, _ = server.post(path, asked(path, "?", base64_png()))
        assert status == 504 and len(opened) == 1 and not server.judge.calls


@pytest.mark.parametrize("path", ["/v1/rank", "/v1/reward", "/get_reward"])
def test_time_that_runs_out_between_rounds(clock, path):
    class Slow(ScriptedJudge):
        def answer(self, requests):
            clock.now += 31
            yield from super().answer(requests)

    body = asked(path, "?")
    if path != "/get_reward":
        body |= {"responses": [str(n) for n in range(12)]} | ({"kind": "bradley_terry"} if path == "/v1/reward" else {})
    with Served(Slow(), clock=clock, batch_wait_ms=0, max_batch=1) as server:
        status, answer = server.post(path, body)
        assert status == 504 and "30 seconds" in answer["error"]["message"]
        wait_until(lambda: len(server.service.batcher) == 0)
        assert len(server.judge.calls) <= 2


def test_a_request_that_fails_drops_the_rest_of_its_comparisons(held):
    prompts = ["fails?", "fails?", *(f"long {n}:" for n in range(20) for _ in range(2))]
    query = [f"{prompt}{n % 2}" for n, prompt in enumerate(prompts)]
    answers = []
    ask = threading.Thread(
        target=lambda: answers.append(held.post("/get_reward", {"query": query, "prompts": prompts}))
    )
    ask.start()
    wait_until(lambda: len(held.service.batcher) == 21)
    held.service.batcher.max_batch = 1
    held.judge.may_work.set()
    ask.join(20)
    assert answers[0][0] == 502
    wait_until(lambda: len(held.service.batcher) == 0)  # although the model is held again

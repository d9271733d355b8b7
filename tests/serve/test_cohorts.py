"""Samples of one prompt that arrive one by one, from many real clients on loopback at once."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from pathlib import Path

import pytest
from served import Clock, ScriptedJudge, Served, base64_png, together, wait_until

from r1_reward.serve import cohorts
from r1_reward.serve.judge_client import JudgeFailed, JudgeServer

QUESTION = "Which is larger?"
PICTURES = [{"base64": base64_png(5, 4, "red")}, {"base64": base64_png(5, 4, "blue")}]


def sample(text, group="g", size=3, **more):
    return {"question": QUESTION, "responses": [text], "group": group, "group_size": size, **more}


def request(body, path="/v1/reward", more=""):
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}{more}Connection: close\r\n\r\n".encode() + data


async def http(port, body, path="/v1/reward", more=""):
    """Post over a new connection; return status, headers and JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(body, path, more))
        answer = await reader.read()
    finally:
        writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, json.loads(rest)


def at_once(server, *bodies):
    """Post bodies, each over its own connection; return status and JSON of each."""

    async def run():
        return await asyncio.gather(*(http(server.port, body) for body in bodies))

    return [(status, answer) for status, _, answer in asyncio.run(run())]


class Waiting:
    """Requests in progress while a test does something else."""

    def __init__(self, server, *bodies, path="/v1/reward"):
        self._before = server.service.state.waiting
        self.answers = [None] * len(bodies)

        def ask(place, body):
            self.answers[place] = server.post(path, body)

        self._threads = [threading.Thread(target=ask, args=one) for one in enumerate(bodies)]
        for thread in self._threads:
            thread.start()
        wait_until(lambda: server.service.state.waiting == self._before + len(bodies))

    def join(self):
        for thread in self._threads:
            thread.join(30)
        return self.answers


@pytest.fixture(scope="module")
def server():
    with Served(max_chars=200, group_wait=20, allow_folders=()) as server:
        yield server


@pytest.fixture
def name(request):
    """A group id that no other test uses."""
    return request.node.name


# Valid groups.


@pytest.mark.parametrize("options", [{}, {"schedule": "circular"}, {"votes": 3, "kind": "bradley_terry"},
                                     {"schedule": "bracket"}, {"criteria": "By size.", "stop": "exact"}])  # fmt: skip
@pytest.mark.parametrize("cut", [[1] * 6, [2, 4], [3, 1, 2], [6]])
def test_rewards_are_those_of_one_request_with_all_responses(server, name, options, cut):
    texts = ["7", "2", "9", "4", "4", "5"]
    status, plain = server.post("/v1/reward", {"question": QUESTION, "responses": texts, "images": PICTURES, **options})
    assert status == 200
    bodies, begin = [], 0
    for count in cut:
        part = texts[begin : begin + count]
        ids = [str(begin + n) for n in range(count)]
        bodies.append(sample("", name, 6, images=PICTURES, samples=ids, **options) | {"responses": part})
        begin += count
    order = random.Random(name).sample(range(len(bodies)), len(bodies))
    answers = dict(zip(order, at_once(server, *(bodies[i] for i in order)), strict=True))
    assert {status for status, _ in answers.values()} == {200}
    rewards = [reward for i in range(len(bodies)) for reward in answers[i][1]["rewards"]]
    assert rewards == pytest.approx(plain["rewards"])
    assert all(answer["message"] is None and set(answer["reasons"]) == {None} for _, answer in answers.values())


def test_schedules_compare_the_pairs_they_promise(server, name):
    for schedule, comparisons in (("round-robin", 15), ("circular", 6), ("bracket", 5)):
        before = server.metric("votes_total", outcome="readable")
        at_once(server, *(sample(str(n), f"{name} {schedule}", 6, schedule=schedule) for n in range(6)))
        assert server.metric("votes_total", outcome="readable") - before == 2 * comparisons


def test_groups_do_not_mix_even_with_the_same_prompt(server, name):
    bodies = [sample(str(10 * group + n), f"{name} {group}", 4) for n in range(4) for group in range(5)]
    for place, (status, answer) in enumerate(at_once(server, *bodies)):
        assert status == 200 and answer["rewards"] == pytest.approx([[-0.8, -0.8 / 3, 0.8 / 3, 0.8][place // 5]])


def test_equal_responses_share_their_reward(server, name):
    assert [answer["rewards"] for _, answer in at_once(server, *(sample("3", name) for _ in range(3)))] == [[0.0]] * 3


def test_a_form_can_contain_pictures(server, name):
    from served import form, png

    def ask(text):
        body, kind = form(sample(text, name, 2), png(5, 4))
        return json.loads(server.ask("POST", "/v1/reward", body, {"Content-Type": kind})[2])["rewards"]

    assert together(lambda: ask("4"), lambda: ask("7")) == [[-0.8], [0.8]]


def test_counts_and_health(server, name):
    before = server.metric("groups_total", outcome="completed")
    waiting = Waiting(server, sample("1", name), sample("2", name))
    health = json.loads(server.ask("GET", "/health")[2])
    assert (health["waiting"], health["in_flight"]) == (2, 0)
    assert (server.metric("groups_waiting"), server.metric("requests_waiting")) == (1, 2)
    assert server.post("/v1/reward", sample("3", name))[0] == 200
    assert [status for status, _ in waiting.join()] == [200, 200]
    assert server.metric("groups_total", outcome="completed") == before + 1
    assert (server.metric("groups_waiting"), server.service.state.waiting) == (0, 0)
    text = server.ask("GET", "/metrics")[2].decode()
    assert "r1_reward_groups_waiting 0.0" in text and "r1_reward_requests_waiting 0.0" in text


# Samples that cannot be judged.


@pytest.mark.parametrize(
    "long",
    [
        "5" * 201,
        [{"type": "text", "text": "5" * 150}, {"type": "text", "text": "6" * 150}],
        [{"type": "text", "text": "5" * 100}, {"type": "text", "text": "6" * 100}],  # the judge is shown a line break
    ],
)
def test_a_response_that_is_too_long_has_no_reward_and_the_others_are_judged(server, name, long):
    (_, one), (_, two), (status, bad) = at_once(server, *(sample(text, name) for text in ("4", "7", long)))
    assert status == 200 and bad["rewards"] == [None] and "--max-chars" in bad["reasons"][0] == bad["message"]
    assert one["rewards"] == [-0.8] and two["rewards"] == [0.8]
    assert server.post("/v1/reward", sample(long, None) | {"group": None, "group_size": None})[0] == 422  # as ever


def test_groups_without_a_readable_comparison(server, name):
    answers = at_once(server, *(sample("5" * 201, name) for _ in range(2)), sample("4", name))
    assert [answer["rewards"] for _, answer in answers] == [[None]] * 3
    assert "no other response" in answers[2][1]["message"]
    assert [a["rewards"] for _, a in at_once(server, *(sample("5" * 201, f"{name} long") for _ in range(3)))] == [
        [None]
    ] * 3
    unreadable = [sample(str(n), f"{name} mute") | {"question": "unreadable?"} for n in range(3)]
    for status, answer in at_once(server, *unreadable):
        assert status == 200 and answer["rewards"] == [None] and "could be read" in answer["reasons"][0]


# Inconsistent requests.


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group_size": 1}, "group_size"),
        ({"group_size": 0}, "group_size"),
        ({"group_size": -3}, "group_size"),
        ({"group_size": 65}, "group_size"),
        ({"group_size": 10**30}, "group_size"),
        ({"group_size": None}, "group_size"),
        ({"group_size": "3"}, "group_size"),
        ({"group": ""}, "group"),
        ({"group": "x" * 257}, "group"),
        ({"group": 7}, "group"),
        ({"group": None}, "group_size"),
        ({"group": None, "group_size": None, "samples": ["a"]}, "samples"),
        ({"samples": []}, "samples"),
        ({"samples": ["a", "b"]}, "samples"),
        ({"samples": [7]}, "samples"),
        ({"samples": ["a", "a"], "responses": ["1", "2"]}, "samples"),
        ({"responses": list("1234")}, "responses"),
        ({"votes": 17}, "votes"),
        ({"question": "<image> Which?"}, "question"),
        ({"question": "<|vision_start|><|image_pad|><|vision_end|>Which?"}, "question"),
        ({"question": "<image> Which?", "images": PICTURES}, "question"),
        ({"images": [{"base64": "no picture"}]}, "images[0]"),
        ({"responses": [" "]}, "responses[0]"),
    ],
)
def test_inconsistent_requests_are_refused_at_once_and_leave_nothing(server, name, change, field):
    status, answer = server.post("/v1/reward", sample("1", name) | change)
    assert status in (422, 413) and (answer["error"]["field"] or "").startswith(field), answer
    assert len(server.service.cohorts) == 0 and server.service.state.waiting == 0


def test_judgments_are_counted_for_the_whole_group_before_any_of_it_waits():
    with Served(max_judgments=20, group_wait=20) as server:
        status, answer = server.post("/v1/reward", sample("1", size=5, votes=2))
        assert status == 422 and "40 judgments" in answer["error"]["message"] and "--max-judgments" in str(answer)
        assert len(server.service.cohorts) == 0
        answers = at_once(server, *(sample(str(n), size=5, votes=2, schedule="circular") for n in range(5)))
        assert [status for status, _ in answers] == [200] * 5


OTHERS = [
    ({"question": "Which is smaller?"}, "question"),
    ({"images": PICTURES[1:]}, "images"),
    ({"images": []}, "images"),
    ({"images": PICTURES}, "images"),
    ({"question": [{"type": "image"}, {"type": "text", "text": QUESTION}]}, "question"),
    ({"votes": 2}, "votes"),
    ({"both_orders": False}, "both_orders"),
    ({"stop": "exact"}, "stop"),
    ({"schedule": "circular"}, "schedule"),
    ({"kind": "bradley_terry"}, "kind"),
    ({"criteria": "By colour."}, "criteria"),
    ({"group_size": 4}, "group_size"),
    ({"group_size": 2}, "group_size"),
]


@pytest.mark.parametrize(("change", "field"), OTHERS)
def test_another_prompt_or_other_options_under_one_id_are_refused_and_the_first_group_is_unharmed(
    server, name, change, field
):
    first = Waiting(server, sample("1", name, images=PICTURES[:1]), sample("2", name, images=PICTURES[:1]))
    status, answer = server.post("/v1/reward", sample("9", name, images=PICTURES[:1]) | change)
    assert status == 409 and answer["error"]["field"] == field and "group" in answer["error"]["message"], answer
    status, answer = server.post("/v1/reward", sample("3", name, images=PICTURES[:1]))
    assert status == 200 and answer["rewards"] == [0.8]
    assert [answer["rewards"] for _, answer in first.join()] == [[-0.8], [0.0]]
    status, answer = server.post("/v1/reward", sample("3", name, images=PICTURES[:1]) | change)  # even when it is done
    assert status == 409 and answer["error"]["field"] == field


def test_a_surplus_sample_is_refused(server, name):
    first = Waiting(server, sample("1", name, samples=["a"]), sample("2", name, samples=["b"]))
    two = sample("", name, samples=["c", "d"]) | {"responses": ["3", "4"]}
    status, answer = server.post("/v1/reward", two)
    assert status == 409 and "3 responses, and 2 have arrived" in answer["error"]["message"]
    assert server.post("/v1/reward", sample("3", name, samples=["c"]))[1]["rewards"] == [0.8]
    assert [answer["rewards"] for _, answer in first.join()] == [[-0.8], [0.0]]
    for late in (sample("4", name), sample("4", name, samples=["d"]), two):
        assert server.post("/v1/reward", late)[0] == 409


# Repeated samples.


def test_a_repeated_sample_gets_the_same_answer_before_during_and_after_judging(server, name):
    bodies = [sample(text, name, samples=[text]) for text in "379"]
    before = len(server.judge.seen)
    first = Waiting(server, bodies[0], bodies[0], bodies[1], bodies[0])
    last = server.post("/v1/reward", bodies[2])
    answers = first.join()
    assert [answer["rewards"] for _, answer in answers] == [[-0.8], [-0.8], [0.0], [-0.8]]
    judged = len(server.judge.seen) - before
    assert judged == 6
    for body, answer in zip(bodies, (answers[0], answers[2], last), strict=True):
        assert server.post("/v1/reward", body) == answer
    both = sample("", name, samples=["9", "3"]) | {"responses": ["9", "3"]}
    assert server.post("/v1/reward", both)[1]["rewards"] == [0.8, -0.8]
    assert len(server.judge.seen) - before == judged


@pytest.mark.parametrize("changed", ["4", "3 ", [{"type": "text", "text": "33"}], "5" * 300])
def test_a_repeated_sample_with_other_content_is_refused(server, name, changed):
    first = Waiting(server, sample("3", name, samples=["a"]), sample("7", name, samples=["b"]))
    status, answer = server.post("/v1/reward", sample(changed, name, samples=["a"]))
    assert (
        status == 409 and answer["error"]["field"] == "samples" and "with other content" in answer["error"]["message"]
    )
    assert server.post("/v1/reward", sample("9", name, samples=["c"]))[0] == 200
    assert [answer["rewards"] for _, answer in first.join()] == [[-0.8], [0.0]]
    assert server.post("/v1/reward", sample(changed, name, samples=["a"]))[0] == 409
    assert server.post("/v1/reward", sample("3", name, samples=["a"]))[1]["rewards"] == [-0.8]


def test_answers_are_kept_for_a_while_but_not_forever(monkeypatch):
    clock = Clock()
    with Served(clock=clock, group_wait=20, batch_wait_ms=0) as server:
        group = [sample(text, samples=[text], size=2) for text in "37"]
        at_once(server, *group)
        clock.now += cohorts.KEPT_SECONDS - 1
        assert server.post("/v1/reward", group[0])[1]["rewards"] == [-0.8]
        clock.now += 2
        assert [answer["rewards"] for _, answer in at_once(server, *group)] == [[-0.8], [0.8]]  # judged again
        assert len(server.judge.calls) == 2
        monkeypatch.setattr(cohorts, "KEPT_SAMPLES", 10)
        for number in range(30):
            at_once(server, *(sample(text, f"group {number}", 2, samples=[text]) for text in "37"))
        assert len(server.service.cohorts._groups) <= 7
        assert server.post("/v1/reward", sample("3", "group 29", 2, samples=["3"]))[1]["rewards"] == [-0.8]


# Failures.


@pytest.mark.parametrize(("question", "status"), [("it fails", 502), ("down", 503), ("it explodes", 500)])
def test_a_failed_judge_is_an_error_for_the_whole_group_and_not_for_the_next(server, name, question, status):
    before = server.metric("groups_total", outcome="failed")
    answers = at_once(server, *(sample(text, name) | {"question": question} for text in "379"))
    assert [found for found, _ in answers] == [status] * 3
    assert all("rewards" not in answer and "secret" not in answer["error"]["message"] for _, answer in answers)
    assert server.metric("groups_total", outcome="failed") == before + 1
    assert {found for found, _ in at_once(server, *(sample(text, name) for text in "379"))} == {200}


def test_a_group_whose_judge_failed_is_judged_again_when_a_sample_is_repeated():
    class Recovering(ScriptedJudge):
        down = True

        def answer(self, requests):
            if not self.down:
                return super().answer(requests)
            from r1_reward.records.errors import UserError

            raise UserError("server http://judge: cannot be reached")

    judge = Recovering()
    with Served(judge, group_wait=5) as server:
        group = [sample(text, samples=[text]) for text in "379"]
        assert [status for status, _ in at_once(server, *group)] == [503] * 3
        assert server.post("/v1/reward", group[0])[0] == 503
        judge.down = False
        assert server.post("/v1/reward", group[1])[1]["rewards"] == [0.0]  # one sample suffices: the others are known
        assert [answer["rewards"] for _, answer in at_once(server, *group)] == [[-0.8], [0.0], [0.8]]


@pytest.mark.parametrize("came", [1, 2, 7])
def test_a_group_that_stays_incomplete_is_dropped_unjudged(came):
    with Served(group_wait=0.4) as server:
        begun = time.monotonic()
        answers = at_once(server, *(sample(str(n), size=8, samples=[str(n)]) for n in range(came)))
        assert 0.3 < time.monotonic() - begun < 30
        for status, answer in answers:
            assert status == 503 and f"{came} of 8 responses" in answer["error"]["message"]
            assert "--group-wait" in answer["error"]["message"]
        assert server.judge.calls == [] and len(server.service.cohorts) == 0
        assert server.metric("groups_total", outcome="expired") == 1
        answers = at_once(server, *(sample(str(n), size=8, samples=[str(n)]) for n in range(8)))  # all of them again
        assert {status for status, _ in answers} == {200}


def test_waiting_does_not_use_up_the_time_for_judging():
    with Served(timeout=1.0, group_wait=20) as server:
        first = Waiting(server, sample("1"), sample("2"))
        time.sleep(1.3)
        assert server.post("/v1/reward", sample("3"))[1]["rewards"] == [0.8]
        assert [answer["rewards"] for _, answer in first.join()] == [[-0.8], [0.0]]


def test_a_judge_that_takes_too_long_is_an_error_for_all_samples():
    judge = ScriptedJudge()
    judge.may_work.clear()
    with Served(judge, timeout=0.4, group_wait=20) as server:
        answers = at_once(server, *(sample(text) for text in "123"))
        assert [status for status, _ in answers] == [504] * 3
        judge.may_work.set()


# Clients that disconnect, servers that shut down.


async def hang_up(port, body, waiting):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(body))
    await asyncio.to_thread(wait_until, waiting)
    writer.close()
    await writer.wait_closed()


def test_a_sample_with_an_id_stays_when_its_client_disconnects(server, name):
    state = server.service.state
    body = sample("7", name, samples=["a"])
    asyncio.run(hang_up(server.port, body, lambda: state.waiting == 1))
    wait_until(lambda: state.waiting == 0)
    assert len(server.service.cohorts) == 1
    answers = at_once(server, sample("3", name, samples=["b"]), sample("9", name, samples=["c"]))
    assert [answer["rewards"] for _, answer in answers] == [[-0.8], [0.8]]
    assert server.post("/v1/reward", body)[1]["rewards"] == [0.0]


def test_a_sample_without_an_id_is_removed_when_its_client_disconnects(server, name):
    state = server.service.state
    asyncio.run(hang_up(server.port, sample("7", name), lambda: state.waiting == 1))
    wait_until(lambda: len(server.service.cohorts) == 0)
    first = Waiting(server, sample("8", name))
    asyncio.run(hang_up(server.port, sample("7", name), lambda: state.waiting == 2))
    wait_until(lambda: state.waiting == 1)
    answers = at_once(server, sample("3", name), sample("9", name))
    assert [answer["rewards"] for _, answer in (*answers, *first.join())] == [[-0.8], [0.8], [0.0]]


def test_shutting_down_refuses_waiting_requests_at_once_and_finishes_judging():
    judge = ScriptedJudge()
    judge.may_work.clear()
    with Served(judge, group_wait=60) as server:
        judged = Waiting(server, *(sample(text, "full") for text in "123"))
        assert judge.busy.wait(20)
        waiting = Waiting(server, sample("1"), sample("2"))
        begun = time.monotonic()
        server.stop()
        for status, answer in waiting.join():
            assert status == 503 and "shutting down" in answer["error"]["message"]
        assert time.monotonic() - begun < 40
        judge.may_work.set()
        assert [status for status, _ in judged.join()] == [200] * 3
    assert all("1" not in seen or "full" for seen in judge.seen)


# Many at once.


def test_waiting_groups_leave_room_for_their_siblings():
    with Served(max_queue=2, group_wait=20) as server:
        bodies = [sample(str(n), f"group {g}", 8) for g in range(4) for n in range(7)]
        waiting = [Waiting(server, body) for body in bodies]
        assert server.service.state.waiting == 28 and server.service.state.in_flight == 0
        assert server.post("/v1/compare", {"question": "?", "response_1": "1", "response_2": "2"})[0] == 200
        for g in range(4):
            assert server.post("/v1/reward", sample("7", f"group {g}", 8))[1]["rewards"] == pytest.approx([0.8])
        assert {one.join()[0][0] for one in waiting} == {200}


def test_too_many_waiting_requests_get_429_and_siblings_still_enter():
    with Served(max_waiting=3, group_wait=20) as server:
        first = Waiting(server, *(sample(str(n), f"group {n}", 2) for n in range(3)))

        async def one_more():
            return await http(server.port, sample("9", "group 9", 2))

        status, headers, answer = asyncio.run(one_more())
        assert status == 429 and int(headers["retry-after"]) >= 1 and "--max-waiting" in answer["error"]["message"]
        assert server.post("/v1/reward", sample("9", "group 0", 2))[0] == 200  # a sibling is always let in
        server.service.cohorts.close()
        assert sorted(status for status, _ in first.join()) == [200, 503, 503]


def test_a_waiting_request_does_not_keep_its_body():
    """A request of a megabyte waits with little more than its response."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    body = {"images": [{"base64": base64_noise(600)}]}  # about a megabyte
    size = len(request(sample("1", **body)))
    with Served(group_wait=60) as server:

        def begin(group):
            connection = socket.create_connection(("127.0.0.1", server.port))
            before = server.service.state.waiting
            connection.sendall(request(sample("1", group, 2, **body)))
            wait_until(lambda: server.service.state.waiting == before + 1)
            return connection

        connections = [begin("first")]
        before = resident()
        connections += [begin(f"group {number}") for number in range(60)]
        held = resident() - before
        server.service.cohorts.close()
        for connection in connections:
            connection.close()
    assert held < 60 * size / 3, f"{held:,} bytes for {60 * size:,}"


def base64_noise(side):
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


async def until_answered(port, body, more=""):
    """Retry like a patient trainer while the server is full."""
    while True:
        try:
            status, headers, answer = await http(port, body, more=more)
        except OSError:  # the listener's backlog is full
            await asyncio.sleep(0.5)
            continue
        if status != 429:
            return status, answer
        await asyncio.sleep(int(headers["retry-after"]) * random.uniform(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "more"), [(1000, "Prefer: wait\r\n"), (100, "")])
def test_many_groups_at_once_are_all_answered(groups, more):
    """Groups of 8 samples, each over its own connection, in random order, through a gate for 128."""
    samples = [(group, number) for group in range(groups) for number in range(8)]
    random.Random(0).shuffle(samples)

    def body(group, number):
        return sample(str(number), f"group {group}", 8, schedule="circular", samples=[str(number)])

    with Served(group_wait=200, timeout=300) as server:

        async def run():
            return await asyncio.gather(*(until_answered(server.port, body(*one), more) for one in samples))

        answers = asyncio.run(run())
        assert {status for status, _ in answers} == {200}
        assert server.metric("groups_total", outcome="completed") == groups
        assert server.service.state.open == 0 and len(server.service.cohorts) == 0
        asked = {"question": QUESTION, "responses": list("01234567"), "schedule": "circular"}
        alike = server.post("/v1/reward", asked)[1]["rewards"]
    for (_, number), (_, answer) in zip(samples, answers, strict=True):
        assert answer["rewards"] == pytest.approx([alike[number]])


def test_the_client_retries_until_there_is_room():
    """More samples at once than the gate admits and than may wait, through the trainers' client."""
    with Served(max_queue=4, max_waiting=40, group_wait=60) as server:
        judge = JudgeServer(f"http://127.0.0.1:{server.port}", timeout=60)

        async def run():
            asked = (judge.rewards(QUESTION, [str(n)], group=f"{g}", group_size=8) for n in range(8) for g in range(8))
            return await asyncio.gather(*asked)

        rewards = [one.reward for (one,) in asyncio.run(run())]
        assert rewards[:8] == pytest.approx([-0.8] * 8) and rewards[-8:] == pytest.approx([0.8] * 8)


def test_an_incomplete_group_raises_in_the_client_before_its_timeout():
    with Served(group_wait=0.3) as server:
        judge = JudgeServer(f"http://127.0.0.1:{server.port}", timeout=60)
        begun = time.monotonic()
        with pytest.raises(JudgeFailed, match="503.*1 of 8 responses"):
            judge.rewards_now(QUESTION, ["1"], group="g", group_size=8)
        assert time.monotonic() - begun < 20

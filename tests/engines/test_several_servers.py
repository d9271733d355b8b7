"""Several servers of one model, and several votes in one request: nothing lost, nothing doubled, whoever dies."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import socket
import time

import pytest
from scripted_server import JUDGMENT, ScriptedServer, reply, status
from transformers_server import transformers_server

from r1_reward.engines.engine import EngineError, Request
from r1_reward.engines.server import ServerEngine
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import build_messages
from r1_reward.store.images import decode_images

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_waits")]


@pytest.fixture(scope="module")
def running():
    servers = [ScriptedServer(), ScriptedServer()]
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def servers(running):
    for server in running:
        server.forget()
    return running


def engine_of(servers, **options):
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return ServerEngine("judge", urls, **{"retries": 2, "timeout": 30.0, **options})


def ask(text, seeds=(0,), temperature=0.0):
    return Request([{"role": "user", "content": text}], [], tuple(seeds), temperature)


def texts(results):
    return [result if isinstance(result, EngineError) else [c.text for c in result] for result in results]


def echo(body):
    return reply(f"{body['messages'][0]['content']}/{body['seed']}")


async def slow_echo(body):
    await asyncio.sleep(0.02)
    return echo(body)


def free_url():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


# Several servers.


def test_servers_share_the_work_and_answers_stay_in_order(servers):
    for server in servers:
        server.default = [slow_echo]
    results = texts(engine_of(servers, concurrency=3).generate(ask(str(i), (i, i + 1)) for i in range(30)))
    assert results == [[f"{i}/{i}", f"{i}/{i + 1}"] for i in range(30)]
    counts = [len(server.bodies) for server in servers]
    assert sum(counts) == 60
    assert min(counts) >= 15
    assert all(2 <= server.peak <= 3 for server in servers)


def test_the_less_busy_server_gets_more(servers):
    async def slowly(body):
        await asyncio.sleep(0.2)
        return echo(body)

    servers[0].default, servers[1].default = [slowly], [slow_echo]
    results = texts(engine_of(servers, concurrency=2).generate(ask(str(i)) for i in range(40)))
    assert results == [[f"{i}/0"] for i in range(40)]
    assert len(servers[1].bodies) > 2 * len(servers[0].bodies) > 0


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_server_that_is_killed_halfway_costs_nothing(servers, concurrency):
    """Not even without retries: requests in flight there go to the other server."""
    survivor, victim = servers[0], ScriptedServer()
    for server in (survivor, victim):
        server.default = [slow_echo]
    engine = engine_of([survivor, victim], concurrency=concurrency, retries=0)
    results = engine.generate(ask(str(i), (0, 7)) for i in range(30))
    answered = list(itertools.islice(results, 8))
    assert victim.bodies
    victim.stop()
    answered += results
    assert texts(answered) == [[f"{i}/0", f"{i}/7"] for i in range(30)]
    repeated = len(survivor.bodies) + len(victim.bodies) - 60
    assert 0 <= repeated <= concurrency  # at most those in flight at the killed server


def test_a_failing_server_rests_and_comes_back(servers, monkeypatch):
    monkeypatch.setattr("r1_reward.engines.server_pool.FIRST_REST", 0.2)
    healthy, troubled = servers
    down = [True]
    healthy.default = [slow_echo]
    troubled.default = [lambda body: status(503)() if down[0] else echo(body)]
    engine = engine_of(servers, concurrency=2)
    results = engine.generate(ask(str(i)) for i in itertools.count())
    first = list(itertools.islice(results, 40))
    assert len(troubled.bodies) <= 10  # two at the start; then one at a time, after longer and longer rests
    down[0] = False
    asked, deadline, second = len(troubled.bodies), time.monotonic() + 30, []
    while len(troubled.bodies) < asked + 10 and time.monotonic() < deadline:
        second.append(next(results))
    results.close()
    assert len(troubled.bodies) >= asked + 10
    assert texts(first + second) == [[f"{i}/0"] for i in range(40 + len(second))]


def test_the_run_continues_without_a_server_that_was_never_reached(servers):
    async def slowly(body):
        await asyncio.sleep(0.1 if len(servers[0].bodies) < 3 else 0)
        return echo(body)

    servers[0].default = [slowly]
    engine = engine_of([free_url(), servers[0]], concurrency=2, retries=0)
    assert texts(engine.generate(ask(str(i)) for i in range(20))) == [[f"{i}/0"] for i in range(20)]


def test_the_run_ends_only_when_every_server_is_gone():
    servers = [ScriptedServer(), ScriptedServer()]
    for server in servers:
        server.default = [slow_echo]
    results = engine_of(servers, concurrency=2).generate(ask(str(i)) for i in itertools.count())
    answered = list(itertools.islice(results, 10))
    servers[0].stop()
    answered += itertools.islice(results, 20)
    servers[1].stop()
    with pytest.raises(UserError, match="no server is left") as caught:
        for result in results:
            answered.append(result)
    assert not isinstance(caught.value, EngineError)
    assert all(server.url in str(caught.value) for server in servers)
    assert texts(answered) == [[f"{i}/0"] for i in range(len(answered))]
    assert len(answered) >= 30


def test_no_server_at_all_ends_the_run_at_once():
    urls = [free_url(), free_url()]
    with pytest.raises(UserError, match=r"no server is left: .*cannot be reached.*base URL"):
        list(engine_of(urls, retries=10**6).generate(map(ask, "abc")))


def test_a_request_that_no_server_can_answer_costs_only_its_own_row(servers):
    for server in servers:
        server.default = [slow_echo]
        server.scripts["poison"] = [status(500)]
    requests = [ask("a"), ask("poison"), *(ask(str(i)) for i in range(20))]
    [first, error, *others] = engine_of(servers, concurrency=3, retries=1).generate(requests)
    assert isinstance(error, EngineError)
    assert "in 3 tries (it answers 500" in str(error)
    assert texts([first, *others]) == [["a/0"], *([f"{i}/0"] for i in range(20))]
    assert [server.calls["poison"] > 0 for server in servers] == [True, True]


def test_an_invalid_request_goes_to_one_server_only(servers):
    for server in servers:
        server.scripts["x"] = [status(400, "longer than the context")]
    [error] = engine_of(servers).generate([ask("x")])
    assert "in 1 try" in str(error)
    assert sum(server.calls["x"] for server in servers) == 1


def test_a_server_that_asks_for_an_hour_of_rest_gets_it(servers):
    servers[0].default = [status(429, **{"retry-after": "3600"})]
    servers[1].default = [slow_echo]
    engine = engine_of(servers, concurrency=1, retries=0)
    assert texts(engine.generate(ask(str(i)) for i in range(20))) == [[f"{i}/0"] for i in range(20)]
    assert len(servers[0].bodies) == 1


def test_accepted_parameters_are_learned_per_server(servers):
    servers[0].default = [lambda body: status(400, "logprobs are not supported")() if "logprobs" in body else reply()]
    engine = engine_of(servers, concurrency=1, retries=0)
    assert texts(engine.generate(ask(str(i)) for i in range(10))) == [[JUDGMENT]] * 10
    assert ["logprobs" in body for body in servers[0].bodies] == [True] + [False] * (len(servers[0].bodies) - 1)
    assert all("logprobs" in body for body in servers[1].bodies)
    assert len(servers[0].bodies) > 2 and servers[1].bodies


def test_a_key_that_one_server_rejects_ends_the_run_and_names_it(servers):
    servers[1].default = [status(401)]
    with pytest.raises(UserError, match="rejects the API key") as caught:
        list(engine_of(servers).generate(ask(str(i)) for i in range(20)))
    assert servers[1].url in str(caught.value)
    assert servers[0].url not in str(caught.value)


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (["http://localhost:1/v1", "http://me:hush@localhost:2/v1", "http://me:hush@localhost:2/v1"], "given twice"),
        (["http://localhost:1/v1", "localhost:2"], "must look like http"),
        ([], "OPENAI_API_KEY"),
    ],
)
def test_invalid_lists_of_servers(urls, reason):
    with pytest.raises(UserError, match=reason) as caught:
        ServerEngine("judge", urls)
    assert "hush" not in str(caught.value)


# Several votes in one request.


def choices_of(body, count):
    own = [reply(f"{body['messages'][0]['content']}/{body['seed']}+{i}")["choices"][0] for i in range(count)]
    return {"choices": [{**choice, "index": i} for i, choice in enumerate(own)], "usage": {"completion_tokens": 11}}


def several(body):
    return choices_of(body, body.get("n", 1))


def voting(servers, **options):
    return engine_of(servers, batch_votes=True, **options)


def test_one_request_gives_all_votes_from_the_first_seed(servers):
    servers[0].default = [several]
    [three, one, two] = voting(servers[:1], concurrency=1).generate(
        [ask("a", (5, 6, 7), 1.0), ask("b", (8,), 1.0), ask("c", (9, 10), 1.0)]
    )
    assert [c.text for c in three] == ["a/5+0", "a/5+1", "a/5+2"]
    assert [c.text for c in one + two] == ["b/8+0", "c/9+0", "c/9+1"]
    assert [c.tokens for c in three] == [4, 4, 3]
    assert [body.get("n") for body in servers[0].bodies] == [3, None, 2]


def test_votes_are_separate_requests_by_default(servers):
    servers[0].default = [several]
    list(engine_of(servers[:1]).generate([ask("a", (1, 2, 3), 1.0)]))
    list(voting(servers[:1]).generate([ask("a", (1, 2, 3))]))
    assert [body.get("n") for body in servers[0].bodies] == [None] * 6
    assert [sorted(b["seed"] for b in servers[0].bodies[i : i + 3]) for i in (0, 3)] == [[1, 2, 3]] * 2


@pytest.mark.parametrize("given", [1, 2])
def test_a_server_that_gives_fewer_is_asked_one_by_one_from_then_on(servers, given):
    servers[0].default = [lambda body: choices_of(body, min(given, body.get("n", 1)))]
    engine = voting(servers[:1], concurrency=1)
    requests = [ask("a", (1, 2, 3), 1.0), ask("b", (4, 5, 6), 1.0)]
    first, second = texts(engine.generate(requests))
    assert first == [*[f"a/1+{i}" for i in range(given)], *[f"a/{seed}+0" for seed in (1, 2, 3)[given:]]]
    asked = [body.get("n") for body in servers[0].bodies]
    assert asked[0] == 3
    assert second in (
        ["b/4+0", "b/5+0", "b/6+0"],
        [*[f"b/4+{i}" for i in range(given)], *["b/5+0", "b/6+0"][given - 1 :]],
    )
    before = len(servers[0].bodies)
    assert texts(engine.generate([ask("c", (7, 8), 1.0)])) == [["c/7+0", "c/8+0"]]
    assert [body.get("n") for body in servers[0].bodies[before:]] == [None, None]


@pytest.mark.parametrize("refusal", ["n must be 1 when using greedy sampling, got 3", "Only one completion is allowed"])
def test_a_server_that_refuses_several_is_asked_one_by_one(servers, refusal):
    servers[0].default = [lambda body: status(400, refusal)() if "n" in body else echo(body)]
    engine = voting(servers[:1], retries=0)
    assert texts(engine.generate([ask("a", (1, 2, 3), 1.0)])) == [["a/1", "a/2", "a/3"]]
    assert texts(engine.generate([ask("b", (4, 5), 1.0)])) == [["b/4", "b/5"]]
    assert ["n" in body for body in servers[0].bodies] == [True] + [False] * 5


def test_incomplete_votes_are_requested_again(servers):
    broken = {"choices": [reply()["choices"][0], reply(None)["choices"][0]]}
    servers[0].scripts["x"] = [broken, several]
    assert texts(voting(servers[:1]).generate([ask("x", (1, 2), 1.0)])) == [["x/1+0", "x/1+1"]]
    assert servers[0].calls["x"] == 2


def test_servers_with_and_without_several_completions(servers):
    servers[0].default, servers[1].default = [several], [lambda body: choices_of(body, 1)]
    results = list(voting(servers, concurrency=2).generate(ask(str(i), (i, i + 100), 1.0) for i in range(30)))
    for i, (first, second) in enumerate(texts(results)):
        assert (first, second) in [(f"{i}/{i}+0", f"{i}/{i}+1"), (f"{i}/{i}+0", f"{i}/{i + 100}+0")]


# A server that is not ours.


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_transformers_serve_judges_a_pair_with_two_votes(checkpoint, pairs, tmp_path):
    """It ignores ``n`` and gives no log-probabilities; votes come one by one, each from its own seed."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    defaults = json.loads((folder / "generation_config.json").read_text())
    # It samples only from checkpoints that ask for it, whatever the temperature.
    (folder / "generation_config.json").write_text(json.dumps({**defaults, "do_sample": True, "top_k": 0}))
    row = pairs[0]
    messages = build_messages(row["question"], row["response_1"], row["response_2"], images=1)
    request = Request(messages, decode_images(row), (3, 4), 1.0, 16)
    with transformers_server(folder, tmp_path / "serve.log") as url:
        options = {"concurrency": 1, "timeout": 300}  # it samples from one random state
        plain = ServerEngine(str(folder), url, **options)
        [votes] = plain.generate([request])
        assert not isinstance(votes, EngineError), votes
        [again] = plain.generate([request])
        together = ServerEngine(str(folder), url, batch_votes=True, **options)
        [fallen_back] = together.generate([request])
        assert not together.client.pool.servers[0].dialect.several
    assert [vote.text for vote in votes] == [vote.text for vote in again] == [vote.text for vote in fallen_back]
    assert votes[0].text != votes[1].text
    assert all(1 <= vote.tokens <= 16 for vote in votes)

"""The number of concurrent requests to a server: as many as it keeps up with, unless it is set."""

from __future__ import annotations

import asyncio
import time

import pytest
from scripted_server import JUDGMENT, ScriptedServer, reply, status

from r1_reward.cli.judging import OneProcess
from r1_reward.engines.dialect import Dialect
from r1_reward.engines.engine import EngineError, Request
from r1_reward.engines.options import EngineOptions
from r1_reward.engines.server import ServerEngine
from r1_reward.engines.server_pool import MOST, Pool, Server
from r1_reward.judge.reward_model import RewardModel

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("no_waits")]


def engine_of(*servers, **options):
    return ServerEngine("judge", [server.url for server in servers], **{"retries": 5, "timeout": 30.0, **options})


def ask(count):
    return [Request([{"role": "user", "content": str(number)}], []) for number in range(count)]


def answered(engine, count):
    results = list(engine.generate(ask(count)))
    assert not [result for result in results if isinstance(result, EngineError)]
    assert [completion.text for (completion,) in results] == [JUDGMENT] * count


def pool_of(concurrency=None, servers=1):
    return Pool([Server(f"http://localhost:{8000 + number}/v1", Dialect()) for number in range(servers)], concurrency)


@pytest.mark.parametrize("latency", [0.02, 0.1])
def test_a_server_that_keeps_up_gets_many_and_no_more_than_64(server, latency):
    async def soon():
        await asyncio.sleep(latency)
        return reply()

    server.default = [soon]
    engine = engine_of(server)
    answered(engine, 400)
    (only,) = engine.client.pool.servers
    assert only.window == MOST == 64
    assert 16 < server.peak <= 64


@pytest.mark.parametrize("number", [1, 3, 20, 90])
def test_a_given_number_applies_from_the_first_request(server, number):
    async def soon():
        await asyncio.sleep(0.2)
        return reply()

    server.default = [soon]
    answered(engine_of(server, concurrency=number), number + 5 if number > 1 else 3)
    assert server.peak == number


@pytest.mark.parametrize(("each", "timeout", "most"), [(0.05, 2.0, 30), (0.02, 2.0, 60), (0.1, 4.0, 30)])
def test_no_request_waits_in_the_queue_of_a_slow_server_past_the_timeout(server, each, timeout, most):
    """It handles one at a time; with 64 requests the last one would wait 64 times as long as one takes."""
    turn = asyncio.Semaphore(1)

    async def one_by_one():
        async with turn:
            await asyncio.sleep(each)
        return reply()

    server.default = [one_by_one]
    engine = engine_of(server, timeout=timeout)
    answered(engine, 80)
    assert engine.usage.failures == 0
    assert 16 <= server.peak <= most


def test_with_as_many_as_a_fast_server_gets_a_slow_one_would_fail(server):
    """This is why the number is found by trial; it checks the test before."""
    turn = asyncio.Semaphore(1)

    async def one_by_one():
        async with turn:
            await asyncio.sleep(0.05)
        return reply()

    server.default = [one_by_one]
    engine = engine_of(server, timeout=1.5, concurrency=64)
    list(engine.generate(ask(64)))
    assert engine.usage.failures > 10


@pytest.mark.parametrize("code", [429, 503, 529])
def test_a_server_that_says_too_many_gets_fewer(server, code):
    async def at_most_twenty():
        if server.active > 20:
            return status(code)()
        await asyncio.sleep(0.02)
        return reply()

    server.default = [at_most_twenty]
    engine = engine_of(server, retries=20)
    answered(engine, 300)
    refused = engine.usage.failures
    answered(engine, 300)
    assert engine.usage.failures - refused <= 60, "it repeatedly gets too many requests"
    assert server.peak < 64


@pytest.mark.parametrize("code", [429, 503, 529])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_server_with_few_places_loses_nothing(server, code, most):
    """16 requests start, and most of them run out of tries before a place is free."""

    async def few_places():
        if server.active > most:
            return status(code)()
        await asyncio.sleep(0.1)
        return reply()

    server.default = [few_places]
    engine = engine_of(server, retries=7)  # tries for as long as several answers take
    answered(engine, 40)
    (only,) = engine.client.pool.servers
    assert only.window < 8  # 16 at first


def test_a_request_that_always_gets_429_ends(server):
    """One request gets 429 whatever else is answered: it has too many tokens for a minute."""
    server.scripts["3"] = [status(429)]

    async def soon():
        await asyncio.sleep(0.02)
        return reply()

    server.default = [soon]
    results = list(engine_of(server, retries=2).generate(ask(60)))
    failed = [number for number, result in enumerate(results) if isinstance(result, EngineError)]
    assert failed == [3]
    assert "HTTP 429" in results[3].kind


def test_a_server_that_slows_down_gets_fewer_and_nothing_is_lost(server):
    turn, slow = asyncio.Semaphore(1), []

    async def fast_then_slow():
        if len(server.bodies) < 150:
            await asyncio.sleep(0.01)
        else:
            slow.append(server.active)
            async with turn:
                await asyncio.sleep(0.05)
        return reply()

    server.default = [fast_then_slow]
    engine = engine_of(server, timeout=1.0, retries=10)
    answered(engine, 250)
    (only,) = engine.client.pool.servers
    assert only.window < 32


def test_each_of_several_servers_gets_what_it_keeps_up_with():
    async def soon():
        await asyncio.sleep(0.02)
        return reply()

    turn = asyncio.Semaphore(1)

    async def one_by_one():
        async with turn:
            await asyncio.sleep(0.1)
        return reply()

    servers = [ScriptedServer(), ScriptedServer()]
    servers[0].default, servers[1].default = [soon], [one_by_one]
    try:
        engine = engine_of(*servers, timeout=4.0)
        answered(engine, 600)
        assert engine.usage.failures == 0
        fast, slow = (server.window for server in engine.client.pool.servers)
        assert fast == 64
        assert slow < 30
    finally:
        for server in servers:
            server.stop()


@pytest.mark.parametrize(
    ("tries", "window"),
    [
        ([(1.0, 200)] * 3, 19),
        ([(1.0, 200)] * 500, 64),
        ([(16.0, 200)] * 500, 16),  # answered, but late: no growth
        ([(1.0, 400)] * 3, 19),  # a refusal is an answer
        ([(1.0, None)] * 9, 16),  # a lost connection says nothing about the number
        ([(0.0, 429)], 8),
        ([(30.0, 408)] * 20, 8),  # all were in flight together
        ([(0.0, 503), (0.0, 503), (0.0, 503)], 2),
        ([(0.0, 429)] * 9, 1),  # any server gets at least one at a time
        ([*[(0.0, 529)] * 9, (1.0, 200)], 2),
        ([(0.0, 429), *[(1.0, 200)] * 8], 8),  # grows slowly now
        ([(0.0, 429), *[(1.0, 200)] * 10], 9),
    ],
)
def test_how_a_try_changes_the_number(monkeypatch, tries, window):
    now = [1000.0]
    monkeypatch.setattr("r1_reward.engines.server_pool.time.monotonic", lambda: now[0])
    pool = pool_of()
    (server,) = pool.servers
    for seconds, said in tries:
        now[0] += 0.5
        pool.took(server, seconds, 30.0, said, place=int(server.window))
    assert int(server.window) == window


@pytest.mark.parametrize(
    ("place", "seconds", "window"),
    [(1, 0.9, 17), (1, 1.0, 16), (8, 7.0, 17), (8, 8.0, 16), (16, 14.0, 17), (16, 16.0, 16)],
)
def test_the_wait_behind_few_predicts_the_wait_behind_many(place, seconds, window):
    """The 16th of 16 would wait 16 times as long as the first; half of the timeout is 15 s."""
    pool = pool_of()
    (server,) = pool.servers
    pool.took(server, seconds, 30.0, 200, place=place)
    assert server.window == window


@pytest.mark.parametrize("said", [200, 429, 408, None])
def test_a_given_number_stays(said):
    pool = pool_of(concurrency=5)
    (server,) = pool.servers
    for _ in range(9):
        pool.took(server, 0.0, 30.0, said, place=5)
        time.sleep(0.001)
    assert server.window == 5


def test_the_default_is_defined_once():
    """One default, one home."""
    assert EngineOptions().concurrency is None
    assert OneProcess.__origin__().concurrency is None
    model = RewardModel.from_server("http://localhost:1/v1", "judge")
    assert model.engine.concurrency is None

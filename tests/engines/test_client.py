"""The client's clocks: no minute has more requests than allowed, and no time limit is lost."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_reward.engines.client import Pace, _within


@given(st.floats(0.5, 600), st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_no_minute_has_more_requests_than_allowed(per_minute, pauses):
    pace, now, sent = Pace(per_minute), 0.0, []
    for pause in pauses:
        now += pause
        delay = pace.delay(now)
        assert delay >= 0
        sent.append(now + delay)
    assert sent == sorted(sent)
    for start in sent:
        assert sum(start <= time < start + 59.999 for time in sent) <= per_minute + 1


def test_without_a_rate_limit_no_request_waits():
    assert [Pace(None).delay(now) for now in (0.0, 5.0)] == [0.0, 0.0]


@pytest.mark.parametrize("ticks", range(5))
@pytest.mark.parametrize("fails", [False, True])
def test_a_limit_holds_when_a_try_ends_at_the_same_moment(ticks, fails):
    async def ended_and_cancelled():
        trying = asyncio.get_running_loop().create_future()

        async def one_try():
            return await trying

        async def tries():
            with contextlib.suppress(OSError):
                await _within(30, one_try())
            await asyncio.sleep(30)

        task = asyncio.ensure_future(tries())
        await asyncio.sleep(0.01)
        trying.set_exception(OSError()) if fails else trying.set_result(None)
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2)
        return bool(done) and task.cancelled()

    assert asyncio.run(ended_and_cancelled())

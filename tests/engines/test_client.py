"""The pace of the client: no minute has more requests than allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from r1_reward.engines.client import Pace


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


def test_without_a_pace_nobody_waits():
    assert [Pace(None).delay(now) for now in (0.0, 5.0)] == [0.0, 0.0]

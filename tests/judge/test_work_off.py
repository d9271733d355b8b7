"""The loop that keeps an engine busy: what an admission gate lets through, and what an error leaves behind."""

from __future__ import annotations

from contextlib import closing

import pytest

from r1_reward.judge.votes import work_off
from r1_reward.records.errors import UserError


class Session:
    """Answers the oldest request first, one at a time; records the most that were in flight."""

    def __init__(self):
        self.waiting, self.most = [], 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.waiting.clear()

    def open(self):
        return self

    def room(self):
        return 4 - len(self.waiting)

    def submit(self, ticket, request):
        self.waiting.append((ticket, request))
        self.most = max(self.most, len(self.waiting))

    def collect(self):
        if not self.waiting:
            return []
        ticket, request = self.waiting.pop(0)
        if request == "bad":
            raise UserError("refused")
        return [(ticket, request)]


class Asking:
    """Sends its requests one after another."""

    def __init__(self, *requests):
        self.due, self.heard = list(requests), []

    def requests(self):
        return [self.due.pop(0)] if self.due else []

    def take(self, answers):
        self.heard += answers


@pytest.mark.parametrize("in_order", [True, False])
def test_tasks_ask_again_until_they_are_done(in_order):
    tasks = [Asking(*range(n % 4)) for n in range(20)]
    done = list(work_off(Session(), iter(tasks), in_order=in_order))
    assert (done if in_order else sorted(done, key=tasks.index)) == tasks
    assert [task.heard for task in tasks] == [list(range(n % 4)) for n in range(20)]


def test_only_admitted_tasks_are_asked_and_the_rest_stay_undone():
    budget = [3]

    def admit():
        budget[0] -= 1
        return budget[0] >= 0

    tasks = [Asking("a", "b"), Asking(), Asking("c"), Asking("d"), Asking("e")]
    done = list(work_off(Session(), iter(tasks), in_order=False, admit=admit))
    assert done == [tasks[1], tasks[2], tasks[3]]
    assert [task.heard for task in tasks] == [["a"], [], ["c"], ["d"], []]


def test_not_now_means_later_while_requests_are_in_flight():
    session = Session()
    tasks = [Asking(*"ab") for _ in range(6)]
    done = list(work_off(session, iter(tasks), in_order=False, admit=lambda: not session.waiting))
    assert done == tasks
    assert session.most == 1


def test_the_gate_is_not_called_when_nothing_is_left_to_ask():
    asked = []
    assert len(list(work_off(Session(), [Asking("a")], admit=lambda: asked.append(1) or True))) == 1
    assert len(asked) == 1


@pytest.mark.parametrize("counted", [True, False])
def test_an_error_waits_for_requests_in_flight_if_the_caller_counts_the_cost(counted):
    tasks = [Asking("a"), Asking("bad"), Asking("b", "never"), Asking("c")]
    with pytest.raises(UserError, match="refused"):
        list(work_off(Session(), tasks, admit=(lambda: True) if counted else None))
    assert [task.heard for task in tasks] == [["a"], [], ["b"] if counted else [], ["c"] if counted else []]


def test_a_task_that_ends_the_run_does_not_cost_the_others_their_answers():
    class Last(Asking):
        def take(self, answers):
            raise UserError("too many rows without a reply")

    tasks = [Last("a"), Last("b"), Asking("c")]
    with pytest.raises(UserError, match="too many rows"):
        list(work_off(Session(), tasks, admit=lambda: True))
    assert tasks[2].heard == ["c"]


def test_closing_leaves_the_session():
    session = Session()
    with closing(work_off(session, (Asking("a") for _ in range(99)), in_order=False)) as done:
        next(done)
        assert session.waiting
    assert not session.waiting

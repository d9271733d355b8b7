"""The queue in front of the model: which comparisons share a batch, and that no answer depends on it."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from contextlib import contextmanager

import pytest
from served import Clock, ScriptedJudge, Served, pair, together, wait_until

from r1_reward.judge.prepare import PairToJudge, open_images
from r1_reward.judge.reward_model import RewardModel
from r1_reward.serve.batching import Batcher, Expired, QueuedModel, Sampling, Unavailable
from r1_reward.serve.budget import Budget
from r1_reward.serve.metrics import Metrics
from r1_reward.serve.settings import ServerSettings


@pytest.fixture
def judge():
    return ScriptedJudge()


@pytest.fixture
def batcher(judge):
    made = Batcher(RewardModel(judge), max_batch=4, wait=0.2, metrics=Metrics())
    yield made
    judge.may_work.set()
    made.close()


def ask(number, question="?"):
    return PairToJudge(question, open_images([]), str(number), "5")


def held(batcher, judge):
    """Keep the model busy with one comparison."""
    judge.may_work.clear()
    judge.busy.clear()
    (future,) = batcher.submit([ask(1, "hold")], Sampling())
    assert judge.busy.wait(20)
    return future


def test_waiting_comparisons_are_judged_together_up_to_the_limit(batcher, judge):
    held(batcher, judge)
    futures = [batcher.submit([ask(number)], Sampling())[0] for number in range(10)]
    assert len(batcher) == 10
    judge.may_work.set()
    assert [future.result(20).preferred for future in futures] == [2] * 5 + [None] + [1] * 4
    # Both orders are shown: two requests for each comparison.
    assert [len(call) // 2 for call in judge.calls] == [1, 4, 4, 2]
    assert len(batcher) == 0


def test_a_comparison_waits_briefly_for_others(judge):
    clock = Clock()
    batcher = Batcher(RewardModel(judge), max_batch=4, wait=10, metrics=Metrics(), clock=clock)
    futures = batcher.submit([ask(1)], Sampling())
    clock.now += 9
    futures += batcher.submit([ask(2)], Sampling())
    assert not judge.calls
    clock.now += 2
    futures += batcher.submit([ask(3)], Sampling())
    wait(futures, 20)
    batcher.close()
    assert [len(call) for call in judge.calls] == [6]


def test_a_full_batch_waits_for_nothing(judge):
    batcher = Batcher(RewardModel(judge), max_batch=2, wait=1000, metrics=Metrics())
    assert len(wait(batcher.submit([ask(1), ask(2)], Sampling()), 20).done) == 2
    late = batcher.submit([ask(3)], Sampling())
    batcher.close()  # does not wait for others either
    assert late[0].done()


def test_different_options_do_not_share_a_batch(batcher, judge):
    held(batcher, judge)
    samplings = [Sampling(), Sampling(votes=3), Sampling(both_orders=False), Sampling(votes=3, stop="exact")]
    futures = [batcher.submit([ask(number)], sampling)[0] for number in (1, 2) for sampling in samplings]
    judge.may_work.set()
    drawn = [len(future.result(20).votes) for future in futures]
    assert drawn[:3] == drawn[4:7] == [2, 6, 1]
    assert 4 <= drawn[3] <= 6 and 4 <= drawn[7] <= 6  # the exact rule draws at least four
    assert [len(call) for call in judge.calls[:5]] == [2, 4, 4, 2, 4]


def test_a_verdict_does_not_depend_on_its_batch(judge):
    alone = RewardModel(ScriptedJudge())
    with Served(judge, max_batch=64, batch_wait_ms=50) as server:
        answers = together(
            *(lambda n=n: server.post("/v1/compare", pair(str(n), "5", votes=1 + n % 3)) for n in range(40)),
            *(
                lambda n=n: server.post("/v1/rank", {"question": "?", "responses": list("951738"), "votes": 2})
                for n in range(4)
            ),
        )
    assert max(map(len, judge.calls)) > 8
    for n in range(40):
        expected = alone.compare("Which is larger?", [], str(n), "5", votes=1 + n % 3)
        status, answer = answers[n]
        assert status == 200
        assert [vote["answer"] for vote in answer["votes"]] == [vote.answer for vote in expected.votes]
        assert answer["probability"] == expected.probability
    ranked = alone.rank("?", [], list("951738"), votes=2)
    assert all(answer["scores"] == list(ranked.scores) for _, answer in answers[40:])


def test_clients_that_rank_share_batches(judge):
    judge.may_work.clear()
    asked = {"question": "?", "responses": list("123")}
    with Served(judge, max_batch=64) as server:
        first = threading.Thread(target=server.post, args=("/v1/compare", pair(question="hold")))
        first.start()
        assert judge.busy.wait(20)
        others = [threading.Thread(target=server.post, args=("/v1/rank", asked)) for _ in range(5)]
        for thread in others:
            thread.start()
        wait_until(lambda: len(server.service.batcher) == 15)
        judge.may_work.set()
        for thread in (first, *others):
            thread.join(20)
    assert [len(call) for call in judge.calls] == [2, 30]


def test_a_pair_that_breaks_the_model_breaks_no_other(batcher, judge):
    held(batcher, judge)
    futures = batcher.submit([ask(1), ask(9), ask(3, "explodes"), ask(9)], Sampling())
    judge.may_work.set()
    wait(futures, 20)
    assert [future.result().preferred for future in (futures[0], futures[1], futures[3])] == [2, 1, 1]
    with pytest.raises(RuntimeError, match="secret detail"):
        futures[2].result()


def test_a_judge_that_is_down_fails_all_of_a_batch_and_not_the_next(batcher, judge):
    held(batcher, judge)
    futures = batcher.submit([ask(1, "down"), ask(2)], Sampling())
    judge.may_work.set()
    for future in futures:
        with pytest.raises(Unavailable, match="cannot be reached"):
            future.result(20)
    assert batcher.submit([ask(9)], Sampling())[0].result(20).preferred == 1


def test_canceled_comparisons_are_never_judged(batcher, judge):
    under_way = held(batcher, judge)
    futures = batcher.submit([ask(number, f"number {number}") for number in range(6)], Sampling())
    assert futures[1].cancel() and futures[2].cancel() and not under_way.cancel()
    judge.may_work.set()
    wait(futures, 20)
    # The next comparisons take their places in the batch.
    assert [call[0] for call in judge.calls] == ["hold", "number 0", "number 5"] or len(judge.calls) == 2
    assert {question for call in judge.calls for question in call} == {"hold", *(f"number {n}" for n in (0, 3, 4, 5))}


def test_an_expired_comparison_raises_and_is_not_canceled(judge):
    clock = Clock()
    batcher = Batcher(RewardModel(judge), max_batch=4, wait=0, metrics=Metrics(), clock=clock)
    held(batcher, judge)
    late, early = (batcher.submit([ask(1, "late")], Sampling(), deadline=clock() + seconds)[0] for seconds in (1, 3))
    clock.now += 2
    judge.may_work.set()
    with pytest.raises(Expired):
        late.result(20)
    assert early.result(20).preferred == 2
    batcher.close()


class Odd(ScriptedJudge):
    """A judge whose session raises an error after its last answer."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    @contextmanager
    def open(self):
        with super().open() as session:
            yield session
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("late"), SystemExit(1), KeyboardInterrupt()])
def test_no_error_of_a_model_leaves_a_comparison_pending(error):
    judge = Odd(error)
    batcher = Batcher(RewardModel(judge), max_batch=4, wait=0, metrics=Metrics())
    for count in (1, 3, 1):
        futures = batcher.submit([ask(number) for number in range(count)], Sampling())
        assert not wait(futures, 20).not_done
        assert all(isinstance(future.exception(), Exception | None) for future in futures)
    batcher.close()


def test_a_queued_model_refuses_options_before_it_queues(batcher, judge):
    from r1_reward.records.errors import UserError

    model = QueuedModel(batcher, Budget(ServerSettings()))
    with pytest.raises(UserError, match="votes"):
        model.compare("?", [], "1", "2", votes=0)
    assert model.compare("?", [], "1", "2").preferred == 2
    assert model.best_of_n("?", [], ["1", "9", "3"]).index == 1
    assert len(judge.calls) >= 2
    model.give_up()
    with pytest.raises(Expired):
        model.compare("?", [], "1", "2")


def test_a_queued_model_has_the_settings_of_its_model():
    from r1_reward.judge.calibration import Calibration

    calibration = Calibration(temperature=2.0, n=10, ece_before=0, ece_after=0, brier_before=0, brier_after=0)
    model = RewardModel(ScriptedJudge(), calibration=calibration, max_new_tokens=7, seed=3, video_frames=5)
    with Served(model=model) as server:
        queued = QueuedModel(server.service.batcher, server.service.budget())
        for name in ("engine", "calibration", "max_new_tokens", "seed", "video_frames"):
            assert getattr(queued, name) == getattr(model, name), name


def test_the_judge_keeps_the_calibration():
    from r1_reward.judge.calibration import Calibration

    calibration = Calibration(temperature=2.0, n=10, ece_before=0, ece_after=0, brier_before=0, brier_after=0)
    model = RewardModel(ScriptedJudge(), calibration=calibration)
    with Served(model=model) as server:
        _, answer = server.post("/v1/compare", pair("9", "1", both_orders=False))
        assert answer["probability"] == pytest.approx(0.75)
        _, answer = server.post("/v1/reward", {"question": "?", "responses": ["9", "1"]})
        assert answer["rewards"] == pytest.approx([0.5, -0.5])


def test_a_closed_batcher_accepts_nothing(judge):
    batcher = Batcher(RewardModel(judge), max_batch=4, wait=0, metrics=Metrics())
    futures = batcher.submit([ask(number) for number in range(9)], Sampling())
    batcher.close()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([ask(1)], Sampling())

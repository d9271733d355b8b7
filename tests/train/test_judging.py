"""From texts to rewards: who is asked about what, what missing or reversed verdicts do, and when a run is stopped."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from r1_reward.judge.unreadable import UnreadableJudge
from r1_reward.records.errors import UserError
from r1_reward.train.judging import PolicyWatch, RefereeWatch, score_judgments

RIGHT = "<think>Response 1 is better.</think><answer>1</answer>"
WRONG = "<think>Response 2 is better.</think><answer>2</answer>"
INFORMAL = "I go with it. <answer>1</answer>"
UNREADABLE = "Response 1"
TEXTS = [RIGHT, WRONG, INFORMAL, UNREADABLE]


class Scripted:
    """A referee that gives these verdicts in turn and remembers what it was asked."""

    def __init__(self, *verdicts):
        self.verdicts, self.asked = verdicts, []

    def judge(self, reasonings, answers):
        self.asked += list(zip(reasonings, answers, strict=True))
        return list(self.verdicts[: len(answers)])


def settings(**changes):
    paper = {
        "consistency_mode": "multiply", "consistency_values": "binary", "consistency_weight": 0.5,
        "format": "strict", "format_mode": "add", "format_weight": 0.5,
    }  # fmt: skip
    return SimpleNamespace(**{**paper, **changes})


def score(referee, texts=TEXTS, cut=None, **changes):
    return score_judgments(texts, [1] * len(texts), referee, settings(**changes), cut=cut)


def test_multiply_asks_about_right_answers_only():
    referee = Scripted(1.0, 0.0)
    scores = score(referee)
    assert referee.asked == [("Response 1 is better.", 1), ("I go with it.", 1)]
    # 1 * 1.5 + 0.5;  0 + 0.5;  1 * 1 + 0;  0
    assert scores.rewards == [2.0, 0.5, 1.0, 0.0]
    assert scores.metrics == {
        "accuracy": 0.5, "parse_rate": 0.75, "unscorable": 0.0, "reward/result": 0.5, "reward/format": 0.5,
        "reward/consistency": 0.5, "referee_unknown": 0.0,
    }  # fmt: skip
    assert (scores.asked, scores.unknown) == (2, 0)


def test_add_asks_about_every_readable_answer():
    referee = Scripted(0.0, 1.0, 1.0)
    scores = score(referee, consistency_mode="add")
    assert [answer for _, answer in referee.asked] == [1, 2, 1]
    # 1 + 0 + 0.5;  0 + 0.5 + 0.5;  1 + 0.5 + 0;  0
    assert scores.rewards == [1.5, 1.0, 1.5, 0.0]


def test_ternary_punishes_and_unknown_is_no_verdict():
    scores = score(Scripted(0.0, None), consistency_values="ternary")
    # 1 * 0.5 + 0.5;  0.5;  none;  0
    assert scores.rewards == [1.0, 0.5, None, 0.0]
    assert scores.metrics["reward/consistency"] == -1.0  # of the one known
    assert scores.metrics["referee_unknown"] == 0.5
    assert (scores.asked, scores.unknown) == (2, 1)


def test_a_missing_verdict_makes_its_sample_unscorable_and_no_other():
    scores = score(Scripted(None, None))
    assert scores.rewards == [None, 0.5, None, 0.0]
    assert scores.metrics["unscorable"] == 0.5
    assert scores.metrics["accuracy"] == 0.5  # the results are known all the same
    assert math.isnan(scores.metrics["reward/consistency"])
    # with add the wrong answer needs one, too; the unreadable one has nothing to be consistent with
    assert score(Scripted(None, None, 1.0), consistency_mode="add").rewards == [None, None, 1.5, 0.0]
    assert score(Scripted(None, None), consistency_weight=0.0).rewards == [1.5, 0.5, 1.0, 0.0]


def test_format_required():
    assert score(Scripted(1.0, 1.0), format_mode="require").rewards == [1.5, 0.0, 0.0, 0.0]


DRAFTS = ["<think>Perhaps <answer>1</answer>? But", RIGHT + "<think>Or <answer>1</answer>", INFORMAL, RIGHT + " And"]


@pytest.mark.parametrize(("cut", "rewards"), [
    (None, [0.0, 0.0, 1.5, 1.5]),
    ([True] * 4, [0.0, 0.0, 0.0, 1.5]),
    ([True, True, False, True], [0.0, 0.0, 1.5, 1.5]),
])  # fmt: skip
def test_a_draft_in_an_unfinished_thought_earns_nothing(cut, rewards):
    referee = Scripted(*[1.0] * 4)
    scores = score(referee, DRAFTS, cut)
    assert scores.rewards == rewards
    assert scores.metrics["parse_rate"] == scores.metrics["accuracy"] == sum(map(bool, rewards)) / 4
    assert len(referee.asked) == sum(map(bool, rewards))  # nobody is asked about a draft


def test_the_format_is_the_configs():
    apart = [RIGHT.replace("<answer>", "\n<answer>"), RIGHT, INFORMAL]
    assert score(Scripted(1.0, 1.0, 1.0), apart).rewards == [1.5, 2.0, 1.5]
    loose = score(Scripted(1.0, 1.0, 1.0), apart, format="whitespace")
    assert loose.rewards == [2.0, 2.0, 1.5]
    assert loose.metrics["reward/format"] == pytest.approx(2 / 3)
    required = score(Scripted(1.0, 1.0, 1.0), apart, format="whitespace", format_mode="require")
    assert required.rewards == [1.5, 1.5, 0.0]


def test_nothing_asked_has_no_share_of_unknown():
    scores = score(Scripted(), [WRONG, UNREADABLE])
    assert "referee_unknown" not in scores.metrics
    assert (scores.asked, scores.unknown) == (0, 0)


def test_a_referee_that_drops_an_answer_is_no_score():
    with pytest.raises(ValueError):
        score(Scripted(1.0))


# ---------------------------------------------------------------- when to stop


def test_watch_stops_above_the_share():
    watch = RefereeWatch(0.5, "server:judge")
    watch.add(16, 8)  # half is not more than half
    with pytest.raises(UserError, match=r"server:judge.* 17 of 32 .*last 2 rollouts \(53%; max_referee_unknown is 50%"):
        watch.add(16, 9)


def test_watch_waits_for_sixteen():
    watch = RefereeWatch(0.5, "rule")
    for _ in range(3):
        watch.add(5, 5)
    with pytest.raises(UserError, match="20 of 20 judgments in the last 4 rollouts"):
        watch.add(5, 5)
    healthy = RefereeWatch(0.1, "rule")
    for number in range(40):
        healthy.add(5, int(number % 4 == 3))  # one of 20, though it is one of five in its rollout


def test_watch_forgets_after_three_rollouts():
    watch = RefereeWatch(0.5, "rule")
    for unknown in (30, 0, 0):
        watch.add(60, unknown)
    watch.add(60, 60)  # 60 of 180
    with pytest.raises(UserError, match="120 of 180"):
        watch.add(60, 60)  # 0 + 60 + 60


def test_a_limit_of_one_never_stops_and_zero_takes_none():
    RefereeWatch(1.0, "rule").add(100, 100)
    with pytest.raises(UserError, match="1 of 100"):
        RefereeWatch(0.0, "rule").add(100, 1)


MUTE = {
    "another form": ("<think>a</think><answer>Answer 1 is better</answer>", False, "not 1 or 2 alone"),
    "cut": ("<think>Let me see, <answer>1</answer>", True, r"raise max_completion_length \(now 64\)"),
    "brackets": ("[[A]]", False, r"\[\[A\]\]"),
}


@pytest.mark.parametrize("kind", MUTE)
def test_a_policy_that_cannot_be_read_is_named_after_fifty_judgements(kind, caplog):
    text, cut, cause = MUTE[kind]
    readings = score(Scripted(), [text] * 25, cut=[cut] * 25).readings
    stops = PolicyWatch("stop", 64, speaks=True)
    stops.add(readings, 25, 0)
    with pytest.raises(UnreadableJudge, match=f"not one of the first 50 answers can be read.*(?s:.)*{cause}"):
        stops.add(readings, 25, 0)
    warns = PolicyWatch("warn", 64, speaks=True)
    for _ in range(4):
        warns.add(readings, 25, 0)
    assert caplog.text.count("the policy: not one of the first 50") == 1
    assert text in caplog.text


def test_a_verdict_in_another_process_is_one_of_the_policys():
    readings = score(Scripted(), ["?"] * 25).readings
    watch = PolicyWatch("stop", 64, speaks=True)
    for _ in range(4):
        watch.add(readings, 50, 1)
    with pytest.raises(UnreadableJudge):
        PolicyWatch("stop", 64, speaks=True).add(readings, 50, 0)


def test_what_can_be_read_is_among_the_readings():
    readings = score(Scripted(1.0, 1.0)).readings
    assert [bool(reading.reason) for reading in readings] == [False, False, False, True]

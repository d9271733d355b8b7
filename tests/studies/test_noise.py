"""A referee that errs on purpose: how often, always alike, and what is counted."""

from __future__ import annotations

import hashlib

from r1_reward.studies.noise import ErringReferee, flip_verdict


def test_noise_flips_about_its_share_and_always_the_same():
    texts = [f"judgment {i}" for i in range(4000)]
    flipped = [flip_verdict(1.0, text, noise=0.2, seed=7) == 0.0 for text in texts]
    assert abs(sum(flipped) / 4000 - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    assert flipped == [flip_verdict(0.0, text, noise=0.2, seed=7) == 1.0 for text in texts]
    other = [flip_verdict(1.0, text, noise=0.2, seed=8) == 0.0 for text in texts]
    # independent of the first seed's: both in about 0.04 of the texts
    assert abs(sum(a and b for a, b in zip(flipped, other, strict=True)) / 4000 - 0.04) < 0.015
    # what is flipped at 0.2 is flipped at 0.3 too, so a grid over the noise is nested
    assert all(flip_verdict(1.0, text, noise=0.3, seed=7) == 0.0 for text, f in zip(texts, flipped, strict=True) if f)


def test_noise_by_hand():
    draw = int(hashlib.sha256(b"3\ntext").hexdigest()[:16], 16) / 2**64
    assert flip_verdict(1.0, "text", noise=draw * 1.001, seed=3) == 0.0
    assert flip_verdict(1.0, "text", noise=draw * 0.999, seed=3) == 1.0
    assert [flip_verdict(v, "\ud800", noise=1.0, seed=0) for v in (1.0, 0.0, None)] == [0.0, 1.0, None]
    assert [flip_verdict(v, "text", noise=0.0, seed=0) for v in (1.0, 0.0, None)] == [1.0, 0.0, None]


class Scripted:
    def judge(self, reasonings, answers):
        return [(1.0, 0.0, None, 1.0)[i % 4] for i in range(len(answers))]


def test_the_referee_errs_by_reasoning_and_answer_and_counts():
    reasonings, answers = [f"Sign {i}." for i in range(200)], [1 + i % 2 for i in range(200)]
    referee = ErringReferee(Scripted(), noise=0.3, seed=5)
    heard, true = referee.judge(reasonings, answers), Scripted().judge(reasonings, answers)
    assert [verdict is None for verdict in heard] == [verdict is None for verdict in true]  # noise hides nothing
    flips = sum(a != b for a, b in zip(heard, true, strict=True))
    assert 0.15 < flips / 150 < 0.45
    assert referee.take_counts() == (flips, 150)
    assert referee.take_counts() == (0, 0)
    assert ErringReferee(Scripted(), noise=0.3, seed=5).judge(reasonings, answers) == heard
    assert ErringReferee(Scripted(), noise=0.3, seed=6).judge(reasonings, answers) != heard

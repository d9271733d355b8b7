"""Measure how much a pair's text reveals without its picture; if little, an accurate judge must look at the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from r1_reward.judge.metrics import mean_interval
from r1_reward.models.tiny_words import GROUPS
from r1_reward.records.content import text_of
from r1_reward.records.schema import PreferencePair


def text_alone(train: Sequence[PreferencePair], test: Sequence[PreferencePair]) -> dict[str, dict[str, Any]]:
    """Return the accuracy on ``test`` of a logistic regression on the words of ``train``, over all pairs and by group.

    Its features are the kind of question, its words, and the words of each response; chance is 0.5. Each entry has
    ``mean``, ``low`` and ``high`` (95 %, over pairs) in [0, 1], and ``n``.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer(token_pattern=r"\S+", lowercase=False)
    known = words.fit_transform(map(_features, train))
    model = LogisticRegression(C=0.1, max_iter=500).fit(known, [pair.preferred for pair in train])
    said = model.predict(words.transform(map(_features, test)))
    right = (said == np.array([pair.preferred for pair in test])).astype(float)
    kinds = np.array([pair.kind for pair in test])
    groups = {"all": np.full(len(test), True)} | {name: np.isin(kinds, own) for name, own in GROUPS.items()}
    return {
        name: {**mean_interval(right[chosen])._asdict(), "n": int(chosen.sum())}
        for name, chosen in groups.items()
        if chosen.any()
    }


def _features(pair: PreferencePair) -> str:
    """Return words tagged with their place: those of the question, and of each response crossed with the kind."""
    question, *responses = (
        text_of(content).lower().rstrip(".?").split() for content in (pair.question, pair.response_1, pair.response_2)
    )
    crossed = [f"{pair.kind}_{place}_{word}" for place, own in enumerate(responses, 1) for word in own]
    return " ".join([*(f"question_{word}" for word in question), *crossed])

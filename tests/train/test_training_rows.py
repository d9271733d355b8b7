"""From pairs to training rows: what belongs to a pair stays with it."""

from __future__ import annotations

from r1_reward.train.rows import rl_rows


def test_rows_of_equal_questions_keep_their_own_labels(tiny, pairs):
    first, second = pairs[0], {**pairs[0], "preferred": 3 - pairs[0]["preferred"]}
    twice = type(pairs).from_list([first, second], features=pairs.features)
    rows = rl_rows(twice, tiny[1])
    assert rows[0]["prompt"] == rows[1]["prompt"], "nothing in the text tells these two apart"
    assert [row["preferred"] for row in rows] == [first["preferred"], second["preferred"]]
    assert rows[[1, 0]]["preferred"] == [second["preferred"], first["preferred"]]

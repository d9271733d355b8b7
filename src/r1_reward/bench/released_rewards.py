"""A row as the released R1-Reward scripts write it, on any benchmark: ``id``, ``rewards`` and the judge's ``critic``.

The rewards are ``[1, 0]`` where the scripts read a vote for the preferred response out of the text, else ``[0, 1]``.
Where the text is there, it is read again, which tells unreadable from wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from r1_reward.bench.benchmark import Benchmark, Judged, PredictionFormat
from r1_reward.bench.fields import Fields, short
from r1_reward.bench.rows import Vote
from r1_reward.records.parsing import parse_judgment, spoken_from


def _read_rewards(row: Fields, benchmark: Benchmark) -> Judged:
    """Return id, the one vote, and the fields that describe the row, which are the row's own."""
    names = (benchmark.id_field, "id")
    id = row.text(next((name for name in names if name in row.data), names[0]))
    rewards, critic = row.data["rewards"], row.data.get("critic")
    if not (isinstance(rewards, list) and len(rewards) == 2 and all(map(_is_number, rewards))):
        row.problems.append(("rewards", f"must be two finite numbers, not {short(rewards)}"))
        return Judged(id, (), row)
    text = critic if isinstance(critic, str) else None
    # The released scripts score the first answer tag, even a draft in a thought that the token limit cut.
    correct = None if text is not None and spoken_from(text) is None else rewards[0] > rewards[1]
    vote = Vote(correct, preferred_first=True, characters=None if text is None else len(text))
    # Other rewards than 1 and 0 are a scalar model's: it read no verdict out of a text.
    if text is None or sorted(rewards) != [0, 1]:
        return Judged(id, (vote,), row)
    answer = parse_judgment(text).answer
    said = vote._replace(correct=None if answer is None else answer == 1)
    remarks = ["text"]
    if bool(correct) != bool(said.correct):
        remarks.append("guessed" if said.correct is None else "contrary")
    return Judged(id, (vote,), row, by_text=(said,), remarks=tuple(remarks))


def _about_rewards(counts: Mapping[str, int]) -> list[str]:
    """Say what the rewards of a file that holds texts go by, and where these say something else."""
    n, guessed, contrary = counts["text"], counts["guessed"], counts["contrary"]
    if not n:
        return []
    differ = "The two agree on all of them."
    if guessed or contrary:
        differ = (
            f"The two disagree on {guessed + contrary:,}: in {guessed:,} the rewards are right where the text has no "
            f"verdict, in {contrary:,} the text names the other response."
        )
    return [
        f"{n:,} rows hold the judge's text (critic). Under the rule wrong the file's own rewards are scored: the "
        "released scripts take the first answer tag, else the last 1 or 2 anywhere in the text, and write everything "
        f"else down as wrong. Parse rate and the rules drop and coin go by the texts as we read them. {differ}"
    ]


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


R1_REWARD_FILES = PredictionFormat(
    name="r1_reward",
    fields="rewards",
    marked=lambda data: "rewards" in data,
    read=_read_rewards,
    orders="preferred-first",
    tells_unreadable=False,
    notes=(
        "In this file the preferred response is first in every row: a judge that always says 1 would score 100 %. "
        "(Rewards that a model gave to each response alone know no order.)",
    ),
    blind_note="The file does not tell unreadable verdicts from wrong ones: the released scripts write both down as "
    "wrong, and texts of the judge (critic) are not in every row, or none of them can be read. So the parse rate is "
    "unknown and the rules drop and coin cannot be applied.",
    remarks=_about_rewards,
    missing_rows_hint=" The released scripts write one file for each chunk, and when they are resumed they skip rows "
    "whose id they have already: join all chunks in order, and do not resume.",
)
"""``id`` and ``rewards`` of the preferred and the other response, with or without the other fields."""

"""Read predictions of the released R1-Reward scripts, on any benchmark: ``id``, ``rewards`` and the judge's ``critic``.

The rewards are ``[1, 0]`` if the scripts parsed a vote for the preferred response, else ``[0, 1]``. If a row has the
text, it is parsed again, to distinguish unreadable from wrong verdicts.
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
    """Parse the id and the one vote; the row's own fields describe it."""
    names = (benchmark.id_field, "id")
    id = row.text(next((name for name in names if name in row.data), names[0]))
    rewards, critic = row.data["rewards"], row.data.get("critic")
    if not (isinstance(rewards, list) and len(rewards) == 2 and all(map(_is_number, rewards))):
        row.problems.append(("rewards", f"must be two finite numbers, not {short(rewards)}"))
        return Judged(id, (), row)
    text = critic if isinstance(critic, str) else None
    # The released scripts score the first answer tag, even in a thought that was cut by the token limit.
    correct = None if text is not None and spoken_from(text) is None else rewards[0] > rewards[1]
    vote = Vote(correct, preferred_first=True, characters=None if text is None else len(text))
    # Rewards other than 1 and 0 are from a scalar model, which has no verdict in a text.
    if text is None or sorted(rewards) != [0, 1]:
        return Judged(id, (vote,), row)
    answer = parse_judgment(text).answer
    said = vote._replace(correct=None if answer is None else answer == 1)
    remarks = ["text"]
    if bool(correct) != bool(said.correct):
        remarks.append("guessed" if said.correct is None else "contrary")
    return Judged(id, (vote,), row, by_text=(said,), remarks=tuple(remarks))


def _about_rewards(counts: Mapping[str, int]) -> list[str]:
    """Return a note on how the rewards of a file with texts were made, and how often the texts disagree."""
    n, guessed, contrary = counts["text"], counts["guessed"], counts["contrary"]
    if not n:
        return []
    differ = "The two agree on all of them."
    if guessed or contrary:
        differ = (
            f"The two disagree on {guessed + contrary:,}: in {guessed:,} the rewards are right although the text has "
            f"no verdict, in {contrary:,} the text prefers the other response."
        )
    return [
        f"{n:,} rows have the judge's text (critic). The rule wrong scores the file's own rewards: the released "
        "scripts take the first answer tag, or else the last 1 or 2 anywhere in the text, and count everything else as "
        f"wrong. Parse rate and the rules drop and coin use the texts as parsed here. {differ}"
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
        "(This does not apply to rewards of a model that scores each response separately.)",
    ),
    blind_note="The file does not distinguish unreadable verdicts from wrong ones: the released scripts count both as "
    "wrong, and the judge's text (critic) is missing in some rows or unreadable in all. So the parse rate is unknown, "
    "and the rules drop and coin cannot be applied.",
    remarks=_about_rewards,
    missing_rows_hint=" The released scripts write one file per chunk and, when resumed, skip rows whose id they "
    "already have: join all chunks in order, and do not resume.",
)
"""``id`` and the ``rewards`` of the preferred and the other response; all other fields are optional."""

"""Read lmms-eval samples of pairwise tasks (``--log_samples``: ``*_samples_TASK.jsonl``).

A line has the prompt (``input``), the judge's text (``filtered_resps``), the row's number (``doc_id``) and, under the
name of the task's metric, ``question_id``, ``category`` and ``score``. For an unreadable text the score is a guess,
without any mark, so the text is parsed again::

    sample = read_sample(row, "vlreward_score")
    sample.id, sample.text, sample.right        # "RLHF-V-7", "Overall Judgment: Answer 1 is better.", True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from r1_reward.bench.fields import Fields, short
from r1_reward.records.checks import kind_of


class Sample(NamedTuple):
    """One line; invalid fields are blank or None, and recorded as problems of the row."""

    id: str = ""
    category: str = ""
    right: bool = False
    """The score of lmms-eval."""
    text: str = ""
    """The judge's response; the first one if there are several, like in lmms-eval's score."""
    several: bool = False
    """Whether there are several."""
    index: int | None = None  # type: ignore[assignment]
    """The row's number in the benchmark."""


def is_sample(data: Mapping[str, Any], metric: str) -> bool:
    """Return whether a line is a sample of the task with this metric."""
    return isinstance(data.get(metric), Mapping)


def read_sample(row: Fields, metric: str) -> Sample:
    """Parse a line; invalid values are recorded as its problems."""
    scored = Fields(row.data[metric])
    id, category, score = scored.text("question_id"), scored.text("category"), scored.data.get("score")
    if type(score) not in (int, float) or score not in (0, 1):
        scored.problems.append(("score", f"must be 1 or 0, not {short(score)}"))
    row.problems += [(f"{metric}.{field}", reason) for field, reason in scored.problems]
    said = row.data.get("filtered_resps")
    given = said if isinstance(said, list) else [said]
    texts = [text for text in given if isinstance(text, str)]
    if not texts or len(texts) < len(given):
        reason = "is missing" if said is None else f"must be text, or a list of texts, not {short(said)}"
        row.problems.append(("filtered_resps", reason))
        texts = [""]
    index = row.data.get("doc_id")
    if index is not None and (type(index) is not int or index < 0):
        row.problems.append(("doc_id", f"must be a non-negative integer, not {short(index)}"))
        index = None
    return Sample(id, category, score == 1, texts[0], len(texts) > 1, index)


def prompt_of(row: Fields) -> str:
    """Return the prompt, empty if there is none; an invalid value is recorded as a problem."""
    given = row.data.get("input")
    if given is not None and not isinstance(given, str):
        row.problems.append(("input", f"must be text, not {kind_of(given)}"))
    return given if isinstance(given, str) else ""


def own_score(sample: Sample, category: str | None) -> tuple[str, ...]:
    """Return the remarks of a row, which are counted for the two functions below."""
    return (f"all {category}",) + (f"right {category}",) * sample.right + ("several",) * sample.several


def own_scores(counts: Mapping[str, int]) -> tuple[float, float]:
    """Return overall and macro accuracy as lmms-eval scores the rows, guesses included, in [0, 1]."""
    all_ = {name[4:]: count for name, count in counts.items() if name.startswith("all ")}
    right = {name: counts.get(f"right {name}", 0) for name in all_}
    shares = [right[name] / all_[name] for name in all_]
    return sum(right.values()) / sum(all_.values()), sum(shares) / len(shares)


def general_remarks(counts: Mapping[str, int]) -> list[str]:
    """Return the notes for any lmms-eval file."""
    if several := counts.get("several", 0):
        return [f"{several:,} rows have several responses of the judge; the first is scored, as in lmms-eval."]
    return []

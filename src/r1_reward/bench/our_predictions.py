"""Parse a line of predictions.jsonl, as written by :mod:`r1_reward.bench.run`, into an :class:`Outcome`."""

from __future__ import annotations

import re
from typing import Any

from r1_reward.bench.benchmark import Benchmark
from r1_reward.bench.fields import Fields, short
from r1_reward.bench.rows import Outcome, Vote
from r1_reward.records.errors import kind_of
from r1_reward.records.parsing import spoken_from
from r1_reward.records.schema import Label

_LABELS: tuple[tuple[int, Label], ...] = ((1, 1), (2, 2), (0, 0))
_KEY = re.compile(r"(\d+)-([0-9a-f]{16})")


def our_outcome(suite: Benchmark, row: Fields) -> Outcome:
    """Parse a line of predictions.jsonl; invalid values are recorded as problems of the row."""
    data = row.data
    index, key, longer = data.get("index"), data.get("key"), data.get("longer")
    match = _KEY.fullmatch(key) if isinstance(key, str) else None
    _require(row, "index", _is_count(index), "a non-negative integer")
    _require(row, "key", match is not None and match[1] == str(index), "the index, a hyphen and 16 hex digits")
    _require(row, "id", isinstance(data.get("id"), str), "text")
    for name in ("category", "paper_category", "issue"):
        _require(row, name, isinstance(data.get(name), str | None), "text or null")
    _require(row, "longer", longer is None or (type(longer) is int and abs(longer) <= 1), "1, 0, -1 or null")
    category = data.get("category")
    if suite.categories is not None and isinstance(category, str) and category not in suite.categories:
        row.problems.append(("category", f"{category!r} is not a category of {suite.title}"))
    preferred = row.label("preferred", _LABELS)
    members = data.get("members", [])
    _require(row, "members", isinstance(members, list) and all(map(_is_count, members)), "a list of integers")
    passes = data["passes"]
    _require(row, "passes", _are_passes(passes), "one or two lists of votes")
    if row.problems:
        return Outcome(0, "", ())
    votes = tuple(
        tuple(_our_vote(row, f"passes[{p}][{v}]", vote, preferred) for v, vote in enumerate(votes))
        for p, votes in enumerate(passes)
    )
    return Outcome(
        data["index"],
        data["id"],
        votes,
        category,
        data.get("paper_category"),
        data.get("issue"),
        longer,
        preferred,
        tuple(members),
    )


def _our_vote(row: Fields, place: str, value: Any, preferred: Label) -> Vote:
    if not isinstance(value, dict):
        row.problems.append((place, f"must be an object, not {kind_of(value)}"))
        return Vote(None)
    vote = Fields(value)
    unreadable = "answer" in value and value["answer"] is None
    answer = None if unreadable else vote.label("answer", _LABELS)
    swapped, tokens, text = value.get("swapped"), value.get("tokens"), value.get("text")
    # Files of version 0.1.0 have answers from unfinished thoughts.
    if isinstance(text, str) and spoken_from(text, cut=value.get("truncated") is True) is None:
        answer = None
    _require(vote, "swapped", isinstance(swapped, bool), "true or false")
    _require(vote, "tokens", tokens is None or _is_count(tokens), "a non-negative integer")
    _require(vote, "text", isinstance(text, str | None), "text")
    truncated = value.get("truncated")
    _require(vote, "truncated", isinstance(truncated, bool | None), "true or false")
    row.problems += [(f"{place}.{field}", reason) for field, reason in vote.problems]
    return Vote(
        correct=None if answer is None else answer == preferred,
        preferred_first=(preferred == 1) != swapped if preferred else None,
        tokens=tokens,
        characters=len(text) if isinstance(text, str) else None,
        truncated=truncated if isinstance(truncated, bool) else None,
        third=answer == (0 if preferred else 2),
    )


def _require(row: Fields, name: str, right: bool, wanted: str) -> None:
    if not right:
        given = row.data.get(name)
        row.problems.append((name, f"must be {wanted}, not {short(given)}" if name in row.data else "is missing"))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _are_passes(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (1, 2) and all(isinstance(one, list) and one for one in value)

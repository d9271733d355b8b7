"""Ranked groups: a question, several responses and their ranking; any two responses of different rank form a pair.

A row has ``question``, ``responses`` and ``ranking`` (1 is best, equal numbers tie), and optionally ``images``,
``video``, ``criteria``, ``kind`` and ``id``; contents are texts or parts. The training rows of MR2 models are supported
with their names ``prompt``, ``rankings`` and ``image``. Ties are dropped, and so are rows whose ranking is missing or
does not match the responses. The id of a pair ends in the numbers of its responses, ``:1-3``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from r1_reward.data.sources.common import Candidate, Drop, Row, a_content, a_text, an_image, with_pictures
from r1_reward.records.content import places_of
from r1_reward.records.groups import ResponseGroup, pairs_of


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield a pair for every two responses of different rank, and a Drop for those of equal rank."""
    asked = _given(row, "question", "prompt")
    question = a_content(row.value(asked), asked)
    responses = [a_content(value, f"responses[{number}]") for number, value in enumerate(row.list("responses"))]
    ranks = _ranks(row, len(responses))
    video = None if row.data.get("video") in (None, "") else a_text(row.data["video"], "video")
    question, responses, images = with_pictures(
        question, responses, _images(row), asked, video=video is not None, own=True
    )
    if not images and video is None and not any(map(places_of, (question, *responses))):
        raise Drop("no image", "the row has no image or video")
    # The pairs depend on the ranks alone, so the responses are identified by their positions.
    places = [str(place) for place in range(len(responses))]
    for pair in pairs_of(
        ResponseGroup(id=row.label("id", "idx"), question="-", responses=list(places), ranking=ranks), ties=True
    ):
        first, second = int(str(pair.response_1)), int(str(pair.response_2))
        if pair.preferred == 0:
            yield Drop("tie", f"responses {first + 1} and {second + 1} both have rank {ranks[first]}")
            continue
        better, other = (first, second) if pair.preferred == 1 else (second, first)
        yield Candidate(
            pair.id,
            question,
            responses[better],
            responses[other],
            images,
            video,
            row.label("kind"),
            kept=row.criteria(),
        )


def _given(row: Row, *names: str) -> str:
    """Return the first of the fields that is present; raises Drop if none is."""
    for name in names:
        if row.data.get(name) is not None:
            return name
    raise Drop("missing field", " or ".join(names))


def _ranks(row: Row, responses: int) -> list[int]:
    name = _given(row, "ranking", "rankings")
    ranks = row.list(name)
    if responses < 2:
        raise Drop("unreadable label", f"{responses} response{'s' * (responses != 1)}, but a pair needs two")
    if len(ranks) != responses:
        raise Drop("unreadable label", f"{name} has {len(ranks)} ranks for {responses} responses")
    return [_rank(rank, f"{name}[{number}]") for number, rank in enumerate(ranks)]


def _rank(value: Any, name: str) -> int:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or value < 1:
        raise Drop("unreadable label", f"{name} {str(value)[:40]!r} is not a rank (1 is best, then 2)")
    return int(value)


def _images(row: Row) -> list[Mapping[str, Any]]:
    value = row.data.get("images") if row.data.get("images") is not None else row.data.get("image")
    listed = value if isinstance(value, list) else [value] if value not in (None, "") else []
    cells = [an_image(one, f"images[{number}]") for number, one in enumerate(listed)]
    if None in cells:
        raise Drop("no image", f"images[{cells.index(None)}]")
    return [cell for cell in cells if cell is not None]

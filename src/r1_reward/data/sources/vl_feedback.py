"""VLFeedback: four models answered each prompt, and GPT-4V rated every answer on three aspects.

Every two answers of a row form a pair. As in the authors' own training, the answer with the higher mean of helpfulness,
ethics and visual faithfulness is preferred. Pairs with equal means (ties) are dropped, and so are pairs in which a
rating of either answer is not a number ("N/A"). ``completions`` is a list of objects (in the JSONL file) or an object
of lists (as loaded by ``datasets``). The id of a pair ends in the two positions of its answers, ``-0-2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from r1_reward.data.sources.common import Candidate, Drop, Row, a_text, without_image_tags
from r1_reward.records.errors import kind_of

ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


def read(row: Row) -> Iterator[Candidate | Drop]:
    """Yield a pair, or a Drop, for every two answers of a row."""
    question = without_image_tags(row.text("prompt"), "prompt", 1)
    completions = _as_list(row.value("completions"))
    image, name = row.image("image", "img_path"), row.label("id")
    if len(completions) < 2:
        raise Drop("unreadable label", f"{len(completions)} completions, but a pair needs two")
    for first, second in combinations(range(len(completions)), 2):
        try:
            totals = [_total(completions[index], index) for index in (first, second)]
            texts = [_response(completions[index], index) for index in (first, second)]
            if totals[0] == totals[1]:
                raise Drop("tie", f"completions {first} and {second} both have the mean {totals[0] / len(ASPECTS):.3g}")
        except Drop as drop:
            yield drop
            continue
        chosen, rejected = texts if totals[0] > totals[1] else reversed(texts)
        yield Candidate(
            id=f"{name}-{first}-{second}" if name else "",
            question=question,
            chosen=chosen,
            rejected=rejected,
            images=(image,),
        )


def _as_list(completions: Any) -> list[Any]:
    """Return the completions as a list of objects, from either layout."""
    if isinstance(completions, list):
        return completions
    if not isinstance(completions, Mapping):
        raise Drop("wrong type", f"completions is {kind_of(completions)}, not a list or an object of lists")
    columns = {name: column for name, column in completions.items() if isinstance(column, list)}
    lengths = {len(column) for column in columns.values()}
    if not {"annotations", "response"} <= set(columns) or len(lengths) > 1:
        raise Drop("wrong type", "completions needs lists annotations and response of equal length")
    return [{name: column[index] for name, column in columns.items()} for index in range(len(completions["response"]))]


def _response(completion: Any, index: int) -> str:
    if completion.get("response") is None:
        raise Drop("missing field", f"completions[{index}].response")
    return a_text(completion["response"], f"completions[{index}].response")


def _total(completion: Any, index: int) -> float:
    """Return the sum of the three ratings; raises Drop if one of them is not a finite number."""
    annotations = completion.get("annotations") if isinstance(completion, Mapping) else None
    if not isinstance(annotations, Mapping):
        raise Drop("wrong type", f"completions[{index}].annotations is {kind_of(annotations)}, not an object")
    ratings = []
    for aspect in ASPECTS:
        annotation = annotations.get(aspect)
        rating = annotation.get("Rating") if isinstance(annotation, Mapping) else None
        try:
            number = float("nan") if isinstance(rating, bool) else float(rating)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = float("nan")
        if not math.isfinite(number):
            raise Drop("unreadable label", f"completions[{index}] {aspect}: {str(rating)[:60]!r} is not a rating")
        ratings.append(number)
    return math.fsum(ratings)  # exact, so that equal ratings in another order are a tie

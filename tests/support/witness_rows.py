"""Generated predictions of official size, on which the benchmarks' own scripts were run once and ours run in the tests.

Everything is drawn by :class:`Draw` from a seed, the same under every version of Python and numpy. What a judge said is
kept as its meaning (right, wrong, unreadable, missing); most of the texts and files that the scripts read are made of
it in ``tests/bench/witnesses/run_scripts.py``, which writes down the numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from official_rows import MM_RLHF_IDS, MULTIMODAL_SOURCES, VL_SOURCES

T = TypeVar("T")
Row = dict[str, Any]


class Draw:
    """Random choices that depend on nothing but ``random.Random.random``, whose stream Python promises to keep."""

    def __init__(self, *seed: object) -> None:
        self._stream = random.Random("/".join(map(str, seed)))

    def below(self, n: int) -> int:
        return int(self._stream.random() * n)

    def chance(self, p: float) -> bool:
        return self._stream.random() < p

    def one(self, values: Sequence[T], weights: Sequence[float] | None = None) -> T:
        if weights is None:
            return values[self.below(len(values))]
        left = self._stream.random() * sum(weights)
        for value, weight in zip(values, weights, strict=True):
            left -= weight
            if left < 0:
                return value
        return values[-1]

    def number(self) -> float:
        """A score between -4 and 4 in steps of 1/8, so that equal ones are common and exact."""
        return self.below(65) / 8 - 4


# ---- VL-RewardBench

VL_VOTES = 10
VL_UNREADABLE = {0: 0.1, 1: 0.4, 2: 0.02}
"""Seeds, and the share of votes in which no verdict can be read."""


class VLItem(NamedTuple):
    id: str
    question: str
    preferred: int
    """1 or 2, the place of the preferred response in the file."""
    votes: tuple[tuple[bool | None, bool], ...]
    """Whether each vote names the preferred response (None: unreadable), and whether the responses were turned."""


def vl_items(seed: int) -> list[VLItem]:
    """1,250 rows; one in a hundred was never judged, one in fifty has lost some of its ten votes."""
    draw = Draw("vl", seed)
    items = []
    for id in (f"{prefix}{number}" for prefix, count in VL_SOURCES for number in range(count)):
        right, count = draw.one([0.15, 0.5, 0.85]), VL_VOTES
        if draw.chance(0.03):
            count = draw.one([0, 0, 1, 2, 4, 6])
        votes = tuple(
            (None if draw.chance(VL_UNREADABLE[seed]) else draw.chance(right), draw.chance(0.5)) for _ in range(count)
        )
        items.append(VLItem(id, f"Question {len(items)}?", 1 if draw.chance(0.95) else 2, votes))
    return items


def vl_lines(items: Sequence[VLItem]) -> list[tuple[int, int]]:
    """(item, vote) of each line of the result file: one run over all rows after the other."""
    return [(i, v) for v in range(VL_VOTES) for i, item in enumerate(items) if v < len(item.votes)]


VL_SAID = [
    "Overall Judgment: Answer {} is better.",
    "**Overall Judgment**: Answer {} is slightly better.",
    "Answer {other} is better at first.\n\nOverall Judgment:\n- Answer {} is the better one.",
    "Therefore, Answer {other} is better in style.\n**Overall Judgment:** **Answer {} is better**",
]
VL_UNREADABLE_TEXTS = ["", "Both are fine.", "Overall Judgment: tie.", "Answer 1 is better.", "Therefore: Answer one."]


def vl_result_rows(items: Sequence[VLItem]) -> list[Row]:
    """The lines of the result file, as the benchmark publishes its judges' outputs."""
    rows = []
    for i, v in vl_lines(items):
        item, (right, turned) = items[i], items[i].votes[v]
        shown = (item.preferred == 2) ^ turned ^ (right is False)  # whether the second response shown is named
        text = VL_UNREADABLE_TEXTS[(i + v) % len(VL_UNREADABLE_TEXTS)]
        if right is not None:
            text = VL_SAID[(i + v) % len(VL_SAID)].format(1 + shown, other=2 - shown)
        rows.append(
            {
                "id": item.id,
                "query": item.question,
                "response": [f"One {i}.", f"Two {i}."],
                "ranking": [0, 1] if item.preferred == 1 else [1, 0],
                "meta": {"random_number": int(turned), "filter_choice": text, "flag_status": ""},
            }
        )
    return rows


def vl_official_draws(items: Sequence[VLItem]) -> Iterator[tuple[int, dict[int, list[int]]]]:
    """For K of 1, 3, 5, 7, 9: which votes of each item ``cal.py`` uses, the first K after its shuffle.

    Its generator is seeded once with 1234; each line in turn changes places with one drawn from all.
    """
    stream = random.Random(1234)
    for k in (1, 3, 5, 7, 9):
        lines = vl_lines(items)
        for i in range(len(lines)):
            j = stream.randint(0, len(lines) - 1)
            lines[i], lines[j] = lines[j], lines[i]
        chosen: dict[int, list[int]] = {}
        for item, vote in lines:
            votes = chosen.setdefault(item, [])
            if len(votes) < k:
                votes.append(vote)
        yield k, chosen


# ---- Multimodal RewardBench

MRB_TEXTS = {
    "A": ["So: [[A]]", "[[A]]", "first [[B]], no, [[A]]", "[[A]] and [[B]]"],
    "B": ["So: [[B]]", "[[B]]\n", "[A], no: [[B]]"],
    "": ["", " ", "[[C]]", "both are fine", "A", "[A]", "[[a]]", "None", "ＡＡ [[Ｂ]]"],
}


def mrb_rows(seed: int) -> list[Row]:
    """Rows as the benchmark's judge writes them; of 5,211 with seed 0, of the released 4,711 with others."""
    draw = Draw("mrb", seed)
    sources = [*MULTIMODAL_SOURCES, ("safety", "hateful_memes_", 500)][: None if seed == 0 else -1]
    rows = []
    for category, prefix, count in sources:
        for number in range(count):
            said = draw.one(["A", "B", ""], [4, 4, [1, 5, 0.2][seed]])
            row = {
                "ID": f"{prefix}{number}", "Label": draw.one("AB"), "output": draw.one(MRB_TEXTS[said]),
                "Meta": {"Category": category},
            }  # fmt: skip
            if seed == 0 or not draw.chance(0.01):  # answers that are missing
                rows.append(row)
    return rows


# ---- rewards of the chosen and the rejected response: r1_reward, MM-RLHF


def _rewards(draw: Draw, right: float) -> list[float]:
    kind = draw.one(["verdict", "scores", "tie"], [6, 3, 1])
    if kind == "verdict":
        return [1, 0] if draw.chance(right) else [0, 1]
    first = draw.number()
    return [first, first] if kind == "tie" else [first, draw.number()]


def vl_rewards(seed: int) -> list[Row]:
    """1,250 rows with the rewards that the released R1-Reward script writes, some of them scores and ties."""
    draw = Draw("vl rewards", seed)
    ids = [f"{prefix}{number}" for prefix, count in VL_SOURCES for number in range(count)]
    return [{"id": id, "rewards": _rewards(draw, 0.7)} for id in ids]


def mrb_rewards(seed: int) -> list[Row]:
    draw = Draw("mrb rewards", seed)
    return [
        {"ID": f"{prefix}{number}", "Category": category, "rewards": _rewards(draw, 0.8)}
        for category, prefix, count in MULTIMODAL_SOURCES
        for number in range(count)
    ]


def mm_rewards(seed: int) -> list[Row]:
    """170 pairs of 46 ids, in mixed order."""
    draw = Draw("mm rewards", seed)
    rows = []
    for category, counts in MM_RLHF_IDS.items():
        for number, count in enumerate(counts):
            media = {"video": f"video/{number}"} if category == "video" else {"image": f"{category}/{number}.png"}
            rows += [{"id": f"{category}/{number}", **media, "rewards": _rewards(draw, 0.95)} for _ in range(count)]
    for i in range(len(rows)):
        j = draw.below(len(rows))
        rows[i], rows[j] = rows[j], rows[i]
    return rows


# ---- MMRB2

MMRB2_TASKS = ("t2i", "edit", "interleaved", "reasoning")


def mmrb2_task(seed: int, task: str) -> tuple[dict[str, str], Row]:
    """Return the labels of 1,000 pairs by id, and predictions in the official form.

    Pairs and directions are missing, judgements are missing, empty or something else, and a direction may have been
    judged up to three times.
    """
    draw = Draw("mmrb2", seed, task)
    chosen = {f"{task}-{number:04}": draw.one("AB") for number in range(1000)}
    predictions: Row = {}
    for id, letter in chosen.items():
        if draw.chance(0.02):
            continue
        directions = {}
        for direction in ("forward", "reverse"):
            right = letter if direction == "forward" else "BA"["AB".index(letter)]
            entries = []
            for _ in range(draw.one([1, 2, 3, 0], [10, 1, 1, 0.5])):
                said = draw.one([right, "BA"["AB".index(right)], None, "", "tie", "a", "A ", "C"],
                                [10, 5, 0.5, 0.5, 0.3, 0.2, 0.2, 0.2])  # fmt: skip
                entries.append({"judgement": said, "evaluator": "e", "metadata": {}})
                if draw.chance(0.01):
                    del entries[-1]["judgement"]
            if not draw.chance(0.02):
                directions[direction] = entries
        predictions[id] = directions
    return chosen, predictions


# ---- Omni-RewardBench

OMNI_TASKS = {
    "text_to_text": 417, "text_image_to_text": 528, "text_video_to_text": 443, "text_to_image": 509,
    "text_to_video": 529, "text_to_3D": 302, "text_image_to_image": 229,
}  # fmt: skip
"""The tasks of ``run_exp.py`` and their rows; the two audio tasks have scripts of their own, with the same score."""
OMNI_ATTEMPTS = 5


class OmniRow(NamedTuple):
    preferred: int
    """1, 2, or 0 for a tie."""
    attempts: tuple[int | None, ...]
    """What each of five attempts says: 1, 2, 0 for a tie, None where nothing can be read."""

    @property
    def answer(self) -> int | None:
        """The first attempt that can be read."""
        return next((said for said in self.attempts if said is not None), None)


def omni_rows(seed: int, task: str) -> list[OmniRow]:
    draw = Draw("omni", seed, task)
    rows = []
    for _ in range(OMNI_TASKS[task]):
        preferred, silent = draw.one([1, 2, 0], [4, 4, 1]), draw.one([0.05, 0.9], [9, 1])
        attempts = tuple(
            None if draw.chance(silent) else preferred if draw.chance(0.6) else draw.one([1, 2, 0])
            for _ in range(OMNI_ATTEMPTS)
        )
        rows.append(OmniRow(preferred, attempts))
    return rows


# ---- EditReward-Bench

EDIT_GROUPS = {2: 186, 3: 150, 4: 148}
UNREADABLE, MISSING, FAILED = "unreadable", "missing", "failed"


class EditRow(NamedTuple):
    id: str
    candidates: int
    first: str
    """Letter of the candidate shown on the left."""
    second: str
    preferred: int
    """1, 2, or 0 for a tie, which only pairs of two candidates have."""
    said: int | str
    """1, 2, 0, or UNREADABLE; MISSING (the judge returned nothing) and FAILED (it broke) leave no record."""


def edit_rows(seed: int, candidates: int) -> list[EditRow]:
    """All comparisons of all groups of so many candidates, the groups' rows mixed."""
    draw = Draw("edit", seed, candidates)
    rows = []
    for group in range(EDIT_GROUPS[candidates]):
        letters, sure = "ABCD"[:candidates], draw.one([0.6, 0.97])
        places = [(a, b) for i, a in enumerate(letters) for b in letters[i + 1 :]]
        rank = {letter: draw.number() for letter in letters}
        for first, second in places:
            preferred = 1 if rank[first] > rank[second] else 2
            if candidates == 2 and draw.chance(0.2):
                preferred = 0
            said: int | str = preferred if draw.chance(sure) else draw.one([1, 2, 0])
            if draw.chance(0.03):
                said = draw.one([UNREADABLE, UNREADABLE, MISSING, FAILED])
            if candidates > 2 and said == 0:
                said = UNREADABLE  # the scripts for three and four read no ties
            rows.append(EditRow(f"g{group:03}_{first}vs{second}", candidates, first, second, preferred, said))
    for i in range(len(rows)):
        j = draw.below(len(rows))
        rows[i], rows[j] = rows[j], rows[i]
    return rows


def edit_scores(seed: int, candidates: int) -> list[tuple[str, list[float]]]:
    """Rankings such as ``C>A>B``, and a scalar model's scores of the candidates, no two alike."""
    draw = Draw("edit scores", seed, candidates)
    items = []
    for _ in range(EDIT_GROUPS[candidates]):
        letters = list("ABCD"[:candidates])
        scores = {letter: place + draw.number() / 16 for place, letter in enumerate(letters)}
        for i in range(candidates):
            j = draw.below(candidates)
            letters[i], letters[j] = letters[j], letters[i]
        if draw.chance(0.5):  # a model that is right
            scores = {letter: -float(place) for place, letter in enumerate(letters)}
        items.append((">".join(letters), [scores[letter] for letter in sorted(letters)]))
    return items


# ---- RewardBench 2

RB2_SUBSETS = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495}
RB2_TIES = 51
"""Prompts with one right answer, and as many with several."""


def rb2_verdicts(seed: int, subset: str) -> list[bool | None]:
    """Whether the judge of four answers names the right one; None where nothing can be read."""
    draw = Draw("rb2", seed, subset)
    return [draw.one([True, False, None], [6, 3, 0.5]) for _ in range(RB2_SUBSETS[subset])]


def rb2_ratings(seed: int, subset: str) -> list[list[int | None]]:
    """Ratings from 1 to 10 of four answers, the right one first; None where nothing can be read."""
    draw = Draw("rb2 ratings", seed, subset)
    return [_ratings(draw, 1, 4) for _ in range(RB2_SUBSETS[subset])]


def rb2_ties(seed: int) -> list[tuple[str, int, list[int | None]]]:
    """(id, number of right answers, ratings with the right answers first); two prompts are missing."""
    draw = Draw("rb2 ties", seed)
    rows: list[tuple[str, int, list[int | None]]] = []
    for prompt in range(RB2_TIES):
        many = 2 + draw.below(20)
        rows.append((f"ref:{prompt}", 1, _ratings(draw, 1, 4 + draw.below(4))))
        rows.append((f"tied:{prompt}", many, _ratings(draw, many, many + 1 + draw.below(8))))
    del rows[6 * 2], rows[30 * 2 + 1]
    return rows


def _ratings(draw: Draw, right: int, answers: int) -> list[int | None]:
    silent, careful = draw.one([0.0, 0.2, 1.0], [9, 1, 0.3]), draw.chance(0.6)
    ratings: list[int | None] = []
    for place in range(answers):
        least, spread = (8, 3) if place < right and careful else (1, 8)
        ratings.append(None if draw.chance(silent) else least + draw.below(spread))
    return ratings

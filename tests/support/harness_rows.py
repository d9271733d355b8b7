"""Made-up files of VL-RewardBench's script, of VLMEvalKit and of lmms-eval, and what these scripts make of them."""

import random
import re
from typing import Any

from official_rows import MULTIMODAL_SOURCES, VL_SOURCES, Row

VL_GROUPS = {"general": ("svit", "wildvision"), "hallucination": ("RL", "hallucination"), "reasoning": ("m",)}
SAID = (
    "Overall Judgment: Answer {} is better.",
    "**Overall Judgment:**\n\nAnswer {} is the slightly better one.",
    "Answer 9 is better? Therefore - Answer {}is better",
    "overall judgment\n Answer 1 is better, no: Answer {} is the better",
)
NOT_SAID = ("Both are fine.", "Answer {} is better.", "Overall judgment: Answer {} wins", "", "Better, therefore.")


def says(text: str) -> int | None:
    """The number in the last "Answer N is better" behind the first mark, walked to from the left."""
    flat = text.replace("\n", "").replace("*", "").lower()
    marks = [at for mark in ("overall judgment", "therefore") if (at := flat.find(mark)) >= 0]
    found = None
    for at in range(min(marks, default=len(flat)), len(flat)):
        if match := re.match(r"answer *(\d+) *is *(?:the *)?(?:slightly *)?better", flat[at:]):
            found = int(match[1])
    return found


def vl_ids() -> list[str]:
    return [f"{prefix}{number}" for prefix, count in VL_SOURCES for number in range(count)]


def vl_group(id: str) -> str:
    return next(name for name, starts in VL_GROUPS.items() if id.startswith(starts))


def judged_text(draw: random.Random, unread: float, third: float = 0.0) -> str:
    number = 3 if draw.random() < third else draw.choice((1, 2))
    return draw.choice(NOT_SAID if draw.random() < unread else SAID).format(number)


def official_vote(
    id: str = "RLHF-V-1", text: Any = "", ranking: Any = (0, 1), turned: Any = 0, status: Any = None, **changes: Any
) -> Row:
    meta = {"random_number": turned, "filter_choice": text, "flag_status": status, "filtering model": "m"}
    row = {
        "id": id, "query": f"<image>\nWhat of {id}?", "response": ["first", "the second"], "ranking": list(ranking),
        "models": ["m", "n"], "judge": "human", "rationale": "", "query_source": "",
        "meta": {name: value for name, value in meta.items() if value is not None},
    }  # fmt: skip
    return {**row, **changes}


def official_votes(k: int, seed: int = 5, unread: float = 0.1, third: float = 0.0) -> list[Row]:
    """A file of official size, ``k`` votes an item; the recorded status is what the text says."""
    draw = random.Random(seed)
    rows = []
    for id in vl_ids():
        ranking = draw.choice(((0, 1), (0, 1), (1, 0)))
        for _ in range(k):
            turned, text = draw.randrange(2), judged_text(draw, unread, third)
            rows.append(official_vote(id, text, ranking, turned, official_status(text, ranking, turned)))
    return rows


def official_status(text: str, ranking: Any, turned: int) -> str:
    number = says(text)
    rejected = list(ranking).index(1 if turned == 0 else 0) + 1
    return "doesntMatch" if number is None else "reject" if number == rejected else "agree"


def script_cal(rows: list[Any], ks: tuple[int, ...] = (1, 3, 5, 7, 9)) -> dict[int, dict[str, list[int]]]:
    """For each K: [agree, reject, doesntMatch] of each item, by the item's id; cal.py, with one stream of draws."""
    draw = random.Random(1234)
    found = {}
    for k in ks:
        order = list(range(len(rows)))
        for here in range(len(order)):
            there = draw.randint(0, len(order) - 1)
            order[here], order[there] = order[there], order[here]
        counts: dict[str, list[int]] = {}
        for row in (rows[number] for number in order):
            if row is None:
                continue
            status = official_status(row["meta"]["filter_choice"], row["ranking"], row["meta"]["random_number"])
            item = counts.setdefault(row["id"] + row["query"] + "\t".join(sorted(row["response"])), [0, 0, 0])
            if sum(item) < k:
                item[("agree", "reject", "doesntMatch").index(status)] += 1
        found[k] = counts
    return found


# ---- VLMEvalKit and lmms-eval


def two_responses(draw: random.Random) -> list[str]:
    return ["a'\n" * draw.randrange(1, 9), 'b"é' * draw.randrange(1, 9)]


def shown_first(responses: list[str], ranking: list[int]) -> bool:
    """Whether the preferred response comes first: both harnesses turn them where the lengths' sum is odd."""
    order = responses if (len(responses[0]) + len(responses[1])) % 2 == 0 else responses[::-1]
    return order[0] == responses[ranking.index(0)]


def vlmevalkit_rows(seed: int = 5, score: bool = True, as_text: bool = True) -> list[Row]:
    """A table of official size; a text of words alone is one that only VLMEvalKit's language model can read."""
    draw = random.Random(seed)
    rows = []
    for index, id in enumerate(vl_ids()):
        responses, ranking = two_responses(draw), draw.choice(([0, 1], [1, 0]))
        number = draw.choice((1, 2))
        text, model_says = draw.choice((
            (f"Overall Judgment: Answer {number} is better.", number),
            (f"I prefer the answer with the number {number}", number),
            ("Failed to obtain answer via API.", None),
        ))  # fmt: skip
        gold = 1 if shown_first(responses, ranking) else 2
        row = {"index": index, "question": "Which?\nSay", "response": responses, "answer": ranking,
               "category": vl_group(id), "prediction": text}  # fmt: skip
        if score:
            row |= {"human_ranking": ranking, "score": float(model_says == gold)}
        if as_text:
            row |= {name: str(row[name]) for name in ("response", "answer", "human_ranking") if name in row}
        rows.append(row)
    return rows


def lmms_vl_sample(
    index: int, id: str, responses: list[str], ranking: list[int], text: Any, guess: int = 1, **changes: Any
) -> Row:
    shown = responses if sum(map(len, responses)) % 2 == 0 else responses[::-1]
    gold = 1 if shown_first(responses, ranking) else 2
    number = says(text) if isinstance(text, str) else None
    prompt = (
        f" Judge.\n\nQuestion: Which?\n\nAnswer 1: {shown[0]}\n\nAnswer 2: {shown[1]}\n\n"
        "Please evaluate both answers based on the following criteria:\n1. Accuracy"
    )
    score = float((guess if number is None else number) == gold)
    return {
        "doc_id": index, "target": str(ranking), "filtered_resps": text, "doc_hash": "x", "input": prompt,
        "vlreward_score": {"question_id": id, "category": vl_group(id), "score": score}, **changes,
    }  # fmt: skip


def lmms_vl_samples(seed: int = 5, unread: float = 0.2) -> list[Row]:
    draw = random.Random(seed)
    rows = [
        lmms_vl_sample(
            index, id, two_responses(draw), draw.choice(([0, 1], [1, 0])), judged_text(draw, unread),
            draw.choice((1, 2)),
        )
        for index, id in enumerate(vl_ids())
    ]  # fmt: skip
    draw.shuffle(rows)  # several processes write in no order
    return rows


def lmms_mrb_sample(index: int, category: str, id: str, text: Any, better: str = "Output1", **changes: Any) -> Row:
    said = "A" if "[[A]]" in str(text) else "B" if "[[B]]" in str(text) else "A"
    prompt = "".join(
        f"\n[The Start of Assistant {name}'s Answer]\n{answer}\n[The End of Assistant {name}'s Answer]\n"
        for name, answer in (("A", "long one"), ("B", "short"))
    )
    score = int((said == "A") == (better == "Output1"))
    return {
        "doc_id": index, "target": better, "filtered_resps": text, "input": prompt,
        "multimodal_rewardbench_accuracy": {"question_id": id, "category": category, "score": score}, **changes,
    }  # fmt: skip


def lmms_mrb_samples(seed: int = 5) -> list[Row]:
    draw = random.Random(seed)
    ids = [(category, f"{prefix}{i}") for category, prefix, count in MULTIMODAL_SOURCES for i in range(count)]
    texts = ("So: [[A]]", "So: [[B]]", "both [[B]] and [[A]]", "neither")
    return [
        lmms_mrb_sample(index, category, id, draw.choice(texts), draw.choice(("Output1", "Output2")))
        for index, (category, id) in enumerate(ids)
    ]

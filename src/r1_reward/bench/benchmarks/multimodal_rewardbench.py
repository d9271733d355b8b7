"""Multimodal RewardBench (arXiv 2502.14191): 4,711 released pairs on seven abilities; reads its scripts' predictions.

multimodal_category("reasoning", "mathvista-7")      # "reasoning/math"
"""

from __future__ import annotations

from collections.abc import Mapping

from r1_reward.bench.benchmark import (
    NOT_STATED,
    OVERALL,
    PAPER,
    R1_REWARD,
    About,
    Benchmark,
    Column,
    IssueRules,
    Judged,
    Listed,
    PredictionFormat,
    Protocol,
    PublishedRow,
    Size,
    about_row,
    published_row,
)
from r1_reward.bench.fields import Draft, Fields, short
from r1_reward.bench.lmms_eval import general_remarks, is_sample, own_score, own_scores, prompt_of, read_sample
from r1_reward.bench.rows import Vote, compare_lengths
from r1_reward.bench.six_benchmarks import six_benchmarks
from r1_reward.records.errors import UserError, kind_of
from r1_reward.records.parsing import spoken_from
from r1_reward.records.schema import Answer

CATEGORIES = (
    "open_generation/correctness_task", "open_generation/preference_task", "knowledge", "reasoning/math",
    "reasoning/coding", "safety/bias", "safety/toxicity", "vqa",
)  # fmt: skip
_HEADINGS = {
    "correctness": "open_generation/correctness_task", "preference": "open_generation/preference_task",
    "knowledge": "knowledge", "math": "reasoning/math", "coding": "reasoning/coding", "safety": "safety/bias",
    "vqa": "vqa",
}  # fmt: skip
COLUMNS = (OVERALL, *(Column(heading, "category", name) for heading, name in _HEADINGS.items()))

# ---- rows

_NO_TEXT = (
    "is missing: all_data_release.json omits the texts of other datasets; run 0_download_data.py of "
    "multimodal_rewardbench and use the all_data.json that it writes"
)
_LETTERS: list[tuple[str, Answer]] = [("A", 1), ("B", 2)]
_BETTER: list[tuple[str, Answer]] = [("Output1", 1), ("Output2", 2)]


def parse(row: Fields) -> Draft:
    """Parse a row of ``all_data.json``, of the same rows as JSONL, or of parquet with embedded images."""
    id, given = row.text("ID"), row.text("Category")
    question, first, second = row.text("Text", missing=_NO_TEXT), row.text("Output1"), row.text("Output2")
    preferred = row.label("Better", _BETTER)
    category = row.category("Category", multimodal_category, given, id)
    return Draft(id, question, first, second, preferred, category, images=row.image("Image"), image_field="Image")


def multimodal_category(category: str, id: str) -> str:
    """Return the scored category: safety and reasoning are split by id.

    Raises UserError for an unknown category.
    """
    if category == "safety":
        return "safety/bias" if id.lower().startswith("pairs") else "safety/toxicity"
    if category == "reasoning":
        return "reasoning/math" if id.lower().startswith("math") else "reasoning/coding"
    if category in CATEGORIES:
        return category
    raise UserError(f"{category!r} is not a category of Multimodal RewardBench ({', '.join(CATEGORIES)}).")


# ---- predictions


def about(row: Fields, id: str) -> About:
    """Return the information in a prediction row, from the benchmark's own fields or from chosen and rejected."""
    known = about_row(row, id)
    if row.has("Category"):
        known = known._replace(category=row.category("Category", multimodal_category, row.text("Category"), id))
    if row.has("Output1") and row.has("Output2") and row.has("Better"):
        first, second = row.data["Output1"], row.data["Output2"]
        preferred, other = (first, second) if row.label("Better", _BETTER) == 1 else (second, first)
        texts = isinstance(first, str) and isinstance(second, str)
        known = known._replace(longer=compare_lengths(preferred, other) if texts else None)
    return known


def _read_outputs(row: Fields, _benchmark: Benchmark) -> Judged:
    """Parse the id, one vote per output, and the fields that describe the row."""
    id, label = row.text("ID"), row.label("Label", _LETTERS)
    name = "output" if "output" in row.data else "outputs"
    outputs = [row.data["output"]] if name == "output" else row.data["outputs"]
    if "output" in row.data and "outputs" in row.data:
        row.problems.append(("outputs", "is present in addition to output; a row must have only one of them"))
    elif not isinstance(outputs, list) or not outputs or not all(isinstance(text, str) for text in outputs):
        wanted = "text" if name == "output" else "a list of one or more texts"
        row.problems.append((name, f"must be {wanted}, not {short(row.data[name])}"))
        outputs = []
    meta = row.data.get("Meta")
    if not isinstance(meta, dict | None):
        row.problems.append(("Meta", f"must be an object, not {kind_of(meta)}"))
        meta = None
    verdicts = [_verdict(text) for text in outputs]
    votes = tuple(
        Vote(None if verdict is None else verdict == label, preferred_first=label == 1, characters=len(text))
        for verdict, text in zip(verdicts, outputs, strict=True)
    )
    return Judged(id, votes, Fields(meta or {}), "Meta.")


def _verdict(output: str) -> Answer | None:
    """Parse a verdict like the official script: ``[[A]]`` anywhere in the text takes precedence over ``[[B]]``.

    The script was written for judges without tags. An unclosed ``<think>`` is only a draft and has no verdict.
    """
    if spoken_from(output) is None:
        return None
    return 1 if "[[A]]" in output else 2 if "[[B]]" in output else None


_METRIC = "multimodal_rewardbench_accuracy"


def _read_sample(row: Fields, _benchmark: Benchmark) -> Judged:
    """Parse a sample of lmms-eval; the verdict is read from its text by the official rule."""
    sample = read_sample(row, _METRIC)
    label = row.label("target", _BETTER)
    verdict = _verdict(sample.text)
    about = About()
    if sample.id and sample.category:
        about = About(row.category(f"{_METRIC}.category", multimodal_category, sample.category, sample.id))
    if (lengths := _lengths(prompt_of(row))) is not None:
        preferred, other = lengths if label == 1 else lengths[::-1]
        about = about._replace(longer=(preferred > other) - (preferred < other))
    remarks = own_score(sample, about.category) + ("guess",) * (verdict is None)
    vote = Vote(None if verdict is None else verdict == label, label == 1, characters=len(sample.text))
    return Judged(sample.id, (vote,), row, about=about, index=sample.index, remarks=remarks)


def _lengths(prompt: str) -> tuple[int, int] | None:
    """Return the lengths of the two answers in a prompt, None if an answer contains the markers around them."""
    found = []
    for name in "AB":
        start, end = (f"[The {edge} of Assistant {name}'s Answer]" for edge in ("Start", "End"))
        if prompt.count(start) != 1 or prompt.count(end) != 1:
            return None
        found.append(len(prompt.partition(f"{start}\n")[2].partition(f"\n{end}")[0]))
    return found[0], found[1]


def _about_samples(counts: Mapping[str, int]) -> list[str]:
    overall, _ = own_scores(counts)
    return [
        f"{counts.get('guess', 0):,} texts have no verdict and count as unreadable. lmms-eval reseeds its random "
        f"guess before each row, so it scores all of them as [[A]]; its own score with these: {100 * overall:.2f} %.",
        *general_remarks(counts),
    ]


# ---- known issues

_VISIT = "VisIT rows: question and responses may not belong together (multimodal_rewardbench issue 8)"

# ---- published rows

_CODING = (
    "coding's 582 rows are not confirmed: the benchmark's paper gives 1,098 for math and coding together, "
    "so 584 for coding, and 501 of 584 is 85.8 %"
)


def _result(model: str, values: str, **more: str | int | None) -> PublishedRow:
    return published_row(COLUMNS, model, values, f"{PAPER}, results on multimodal-rewardbench", **more)


PUBLISHED = (
    _result("GPT-4o", "70.8 62.6 69.0 72.0 67.6 62.1 74.8 87.2", grouping=NOT_STATED),
    _result("R1-Reward", "82.2 77.5 74.0 74.9 83.1 79.6 99.6 86.5", **R1_REWARD, votes=1),
    _result("R1-Reward, voting@15", "83.3 78.0 77.2 74.6 81.3 85.8 99.4 87.0", **R1_REWARD, votes=15, note=_CODING),
    *six_benchmarks(
        {"Multimodal RewardBench": "overall"},
        {"R1-Reward": "the number in the R1-Reward paper, from a run with the preferred response first"},
    ),
)

_ROWS = {
    "open_generation/correctness_task": 623, "open_generation/preference_task": 654, "knowledge": 630,
    "reasoning/math": 514, "reasoning/coding": 582, "safety/bias": 508, "vqa": 1200,
}  # fmt: skip

BENCHMARK = Benchmark(
    name="multimodal-rewardbench",
    title="Multimodal RewardBench",
    parse=parse,
    marks=("Text", "Output1", "Output2", "Better"),
    hub_id="syhuggingface/multimodal_rewardbench",
    sizes=(
        Size("release (4,711 rows)", 4711, _ROWS),
        Size("paper, with Hateful Memes (5,211 rows)", 5211, {**_ROWS, "safety/toxicity": 500}),
    ),
    categories=CATEGORIES,
    # The 500 safety rows on toxicity were not released.
    other_groupings={
        "with toxicity": {
            "correctness": 623, "preference": 654, "knowledge": 630, "math": 514, "coding": 582, "safety": 1008,
            "vqa": 1200,
        }
    },
    columns=COLUMNS,
    protocol=Protocol(orders="stored", rule="coin"),
    issues=IssueRules(
        group=lambda row: (row.id, row.category, row.question),
        listed=lambda row: Listed(_VISIT) if row.id.lower().startswith("visitbench") else None,
    ),
    published=PUBLISHED,
    notes=(
        "Each published overall also equals the unweighted mean of its seven columns; the overall of a run is over all "
        "pairs, as the benchmark defines it.",
        "Safety covers the 508 released bias pairs; the benchmark's own paper also counts 500 toxicity pairs.",
    ),
    id_field="ID",
    about=about,
    prediction_formats=(
        PredictionFormat(
            name="official",
            fields="Label and output",
            marked=lambda data: "Label" in data and ("output" in data or "outputs" in data),
            read=_read_outputs,
            orders="stored",
        ),
        PredictionFormat(
            name="lmms-eval-multimodal_rewardbench",
            fields=_METRIC,
            marked=lambda data: is_sample(data, _METRIC),
            read=_read_sample,
            orders="stored",
            writer="lmms-eval",
            remarks=_about_samples,
        ),
    ),
)  # fmt: skip

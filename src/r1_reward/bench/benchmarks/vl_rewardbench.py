"""VL-RewardBench (arXiv 2411.17451): 1,250 pairs on general questions, hallucination and reasoning.

vl_category("RLAIF-V-14")                            # "hallucination"
vl_paper_category("RLAIF-V-14")                      # "general": the released script looks for lowercase "rlaif"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from r1_reward.bench.benchmark import (
    MACRO,
    NONE,
    NOT_STATED,
    OVERALL,
    PAPER,
    R1_REWARD,
    SCALAR,
    About,
    Benchmark,
    IssueRules,
    Listed,
    Protocol,
    PublishedRow,
    Size,
    about_row,
    category_columns,
    published_row,
)
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.rows import BenchmarkRow
from r1_reward.bench.six_benchmarks import six_benchmarks
from r1_reward.bench.vl_predictions import LMMS_EVAL, OFFICIAL_VOTES, RANKINGS, VLMEVALKIT, VLMEVALKIT_SCORES
from r1_reward.records.errors import UserError

CATEGORIES = ("general", "hallucination", "reasoning")
COLUMNS = (*category_columns(CATEGORIES), OVERALL, MACRO)

# ---- rows


def parse(row: Fields) -> Draft:
    """Parse the Hub's columns (also in UnifiedReward's JSON), or r1_reward's chosen and rejected."""
    id = row.text("id")
    if row.has("response", "human_ranking") or not row.has("chosen", "rejected"):
        question, (first, second) = row.text("query"), row.texts("response")
        preferred = row.label("human_ranking", RANKINGS)
    else:
        question, first, second, preferred = row.text("prompt"), row.text("chosen"), row.text("rejected"), 1
    return Draft(
        id, question.removeprefix("<image>\n"), first, second, preferred, row.category("id", vl_category, id),
        images=row.image("image"), paper_category=row.category("id", vl_paper_category, id),
    )  # fmt: skip


def about(row: Fields, id: str) -> About:
    """Return the information in a row of another project's predictions; the id determines both categories."""
    return about_row(row, id)._replace(category=vl_category(id), paper_category=vl_paper_category(id))


# ---- categories

_SOURCES = {
    "RLAIF": "hallucination", "RLHF": "hallucination", "hallucination": "hallucination",
    "mathverse": "reasoning", "mmmu": "reasoning",
}  # fmt: skip


_GENERAL = ("wildvision", "VLFeedback", "jailbreak", "LRVInstruction", "politics", "svit")


def is_own(row: Mapping[str, Any]) -> bool:
    """Return whether a row has a ranking, or an id that begins with one of the benchmark's sources."""
    return "human_ranking" in row or _source(str(row.get("id"))) in (*_SOURCES, *_GENERAL)


def _source(id: str) -> str:
    return re.split("[_-]", id, maxsplit=1)[0]


def vl_category(id: str) -> str:
    """Return the official category, from the part of the id before the first ``_`` or ``-``.

    Unknown prefixes are general (WildVision, VLFeedback). Raises UserError for a blank id.
    """
    _require(id)
    return _SOURCES.get(_source(id), "general")


def vl_paper_category(id: str) -> str:
    """Return the category by the rule of the released R1-Reward script, which the paper's columns follow.

    RLAIF-V and RLHF-V are uppercase in the ids but the rule looks for lowercase, so their 301 rows are general. Raises
    UserError for a blank id.
    """
    _require(id)
    if "mmmu" in id or "mathverse" in id:
        return "reasoning"
    return "hallucination" if any(part in id for part in ("hallucination", "rlhf", "rlaif")) else "general"


def _require(id: str) -> None:
    if not id.strip():
        raise UserError("The id is blank, but it determines the category of a VL-RewardBench row.")


# ---- known issues

_ISSUE = "(VL_RewardBench issue 7)"
_QUESTIONED = ("mathverse_3489", "mathverse_3749", "mmmu_pro_test_Marketing_150")


def _base_id(id: str) -> str:
    """Return the id of a MathVerse or MMMU-Pro row without the suffix ``-1`` or ``-2`` added to repeated ids."""
    return re.sub("-[12]$", "", id) if id.startswith(("mathverse", "mmmu")) else id


def _listed(row: BenchmarkRow) -> Listed | None:
    # Two rows have this id; in uncorrected copies, the one at 503 prefers the first stored response.
    if row.id == "mathverse_1063" and row.index == 503 and row.preferred == 1:
        return Listed(f"label is wrong {_ISSUE}", rows=1250)
    if _base_id(row.id) in _QUESTIONED:
        return Listed(f"label questioned by the maintainers {_ISSUE}")
    return None


# ---- published rows


def _result(model: str, values: str, **more: str | int | None) -> PublishedRow:
    return published_row(COLUMNS, model, values, f"{PAPER}, results on vl-rewardbench", **more)


def _ablation(model: str, overall: str, **more: str) -> PublishedRow:
    return published_row([OVERALL], model, overall, f"{PAPER}, ablation on vl-rewardbench", grouping=NONE, **more)


def _omni(model: str, values: str, place: str = "Table 4", **more: str) -> PublishedRow:
    return published_row(
        COLUMNS[: len(values.split())], model, values, f"Omni-Reward paper (arXiv 2510.23451), {place}", **more
    )


_CRITIC = "cannot be right: its categories in arXiv 2510.23451 (54.6, 38.3, 59.1) give a macro of 50.67"
_OTHERS_MACRO = "the macro from another paper, with a different grouping, orders and rule"
_OFFICIAL_SCRIPT = {"orders": "random, each run", "rule": "drop"}
_BY_ARITHMETIC = {"note": "grouping inferred: the categories are whole counts only under this one"}

PUBLISHED = (
    _result("IXC-2.5-Reward", "84.70 62.50 62.90 65.80 70.00", **SCALAR, **_BY_ARITHMETIC),
    _result("GPT-4o", "49.10 67.60 70.50 65.80 62.40", **_OFFICIAL_SCRIPT),
    _result("Claude-3.7-Sonnet", "68.08 70.70 60.81 66.31 66.53", grouping=NOT_STATED),
    _result("Gemini-1.5-Pro", "50.80 72.50 64.20 67.20 62.50", **_OFFICIAL_SCRIPT),
    _result("MM-RLHF-Reward", "45.04 50.45 57.55 50.15 51.01", grouping="paper", **SCALAR, **_BY_ARITHMETIC),
    _result("R1-Reward", "63.84 85.71 64.78 71.92 71.44", grouping="paper", **R1_REWARD, votes=1),
    _result("R1-Reward, voting@15", "66.32 89.06 73.70 76.46 76.36", grouping="paper", **R1_REWARD, votes=15),
    _ablation("R1-Reward data, Bradley-Terry head", "56.41", **SCALAR),
    _ablation("R1-Reward data, critique-then-score", "60.80"),
    _ablation("R1-Reward, SFT only", "64.80"),
    _ablation("R1-Reward without Pre-CLIP", "67.36"),
    _ablation("R1-Reward without advantage filter", "68.96"),
    _omni("Omni-RewardModel-BT", "81.5 94.2 60.4 76.3 78.7"),
    _omni(
        "Omni-RewardModel-BT, corrected",
        "50.8 89.3 60.4 76.3",
        "OmniReward issue 3 (January 2026)",
        note="corrected by the author: the split into categories was wrong",
    ),
    _omni("Omni-RewardModel-BT, a user's run", "51.4 81.4 61.5 72.0 64.8", "OmniReward issue 3 (January 2026)"),
    _omni("Omni-RewardModel-R1", "71.9 90.2 59.0 69.6"),
    _omni("UnifiedReward", "60.6 78.4 60.5 66.1"),
    _omni("LLaVA-Critic-8B", "54.6 38.3 59.1 41.2 44.0"),
    published_row(
        [*COLUMNS[:3], MACRO],
        "UnifiedReward-Think",
        "78.1 72.7 66.0 72.3",
        "UnifiedReward issue 79 (January 2026)",
        note="the published overall does not follow from these (UnifiedReward issue 79); they give 71.79",
    ),
    *six_benchmarks(
        {"VL-RewardBench": "macro"},
        {
            "LLaVA-Critic-7B": _CRITIC,
            "R1-Reward": "71.44 in the R1-Reward paper: grouped as 484/448/318, with the preferred response first",
            "MM-RLHF-Reward": "51.01 in the R1-Reward paper: grouped as 484/448/318",
            **dict.fromkeys(("IXC-2.5-Reward", "Skywork-VL-Reward"), _OTHERS_MACRO),
        },
    ),
)

BENCHMARK = Benchmark(
    name="vl-rewardbench",
    title="VL-RewardBench",
    parse=parse,
    own=is_own,
    marks=("query", "response", "prompt", "chosen"),
    hub_id="MMInstruction/VL-RewardBench",
    sizes=(
        Size("release of 2024 (1,250 rows)", 1250, {"general": 183, "hallucination": 749, "reasoning": 318}),
        Size(
            "Hub since May 2025 (1,247 rows)",
            1247,
            repeats_note="The Hub's version since May 2025 has 1,247 rows and reportedly no repeated ids, but here "
            "{repeated} repeat, as in the release of 1,250 rows. Three of its rows may be missing: check with --data.",
        ),
    ),
    categories=CATEGORIES,
    # The groupings of the R1-Reward paper and of the official script before April 28, 2025.
    other_groupings={
        "paper": {"general": 484, "hallucination": 448, "reasoning": 318},
        "early script": {"general": 631, "hallucination": 301, "reasoning": 318},
    },
    columns=COLUMNS,
    headline=("overall", "macro"),
    protocol=Protocol(orders="random, each vote", rule="drop", votes=10),
    issues=IssueRules(
        group=lambda row: (_base_id(row.id), row.question), right_or_wrong=True, repeats=True, listed=_listed
    ),
    published=PUBLISHED,
    max_missing=60,
    notes=(
        "Sections are different groupings of the same rows: general, hallucination and macro are comparable only "
        "within a section; reasoning and overall cover the same rows in every known grouping.",
        "arXiv 2604.10966 does not state which number it reports; those that also appear elsewhere are macro.",
    ),
    about=about,
    prediction_formats=(OFFICIAL_VOTES, VLMEVALKIT, VLMEVALKIT_SCORES, LMMS_EVAL),
)

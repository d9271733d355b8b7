"""The category rules, including those behind published numbers, with all their pitfalls."""

import pytest

from r1_reward.bench.benchmarks.mm_rlhf_rewardbench import mm_rlhf_category
from r1_reward.bench.benchmarks.multimodal_rewardbench import multimodal_category
from r1_reward.bench.benchmarks.vl_rewardbench import vl_category, vl_paper_category
from r1_reward.records.errors import UserError


@pytest.mark.parametrize(
    ("id", "official", "paper"),
    [
        ("hallucination_pair-1003", "hallucination", "hallucination"),
        ("RLAIF-V-14", "hallucination", "general"),
        ("RLHF-V-31", "hallucination", "general"),
        ("rlaif-v-14", "general", "hallucination"),
        ("mathverse_1294", "reasoning", "reasoning"),
        ("mathverse_1063-1", "reasoning", "reasoning"),
        ("mmmu_pro_test_Electronics_6", "reasoning", "reasoning"),
        ("wildvision-battle-13", "general", "general"),
        ("svit-complex_reasoning-876", "general", "general"),
        ("x-mmmu", "general", "reasoning"),
        ("Mathverse_1", "general", "general"),
        ("hallucinations", "general", "hallucination"),
    ],
)
def test_vl_categories(id: str, official: str, paper: str) -> None:
    assert (vl_category(id), vl_paper_category(id)) == (official, paper)


@pytest.mark.parametrize(
    ("category", "id", "expected"),
    [
        ("safety", "PAIRS_1", "safety/bias"),
        ("safety", "pairs-1", "safety/bias"),
        ("safety", "hateful_memes_1", "safety/toxicity"),
        ("reasoning", "MathVista-1", "reasoning/math"),
        ("reasoning", "EMMA-Coding_1", "reasoning/coding"),
        ("reasoning", "image2struct-math", "reasoning/coding"),
        ("knowledge", "mathvista", "knowledge"),
        ("vqa", "pairs", "vqa"),
        ("open_generation/preference_task", "nocaps_1", "open_generation/preference_task"),
    ],
)
def test_multimodal_categories(category: str, id: str, expected: str) -> None:
    assert multimodal_category(category, id) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("mcq/1.png", "mcq"),
        ("short/long.png", "long"),  # the first keyword of the list, not of the path
        ("video/-77dfCjTbSc", "video"),
        ("images/safety/1.png", "safety"),
    ],
)
def test_mm_rlhf_categories(path: str, expected: str) -> None:
    assert mm_rlhf_category(path) == expected


def test_unknown_categories() -> None:
    for call, words in [
        (lambda: vl_category(" "), "The id is blank"),
        (lambda: vl_paper_category(""), "The id is blank"),
        (lambda: multimodal_category("Safety", "pairs"), "'Safety' is not a category.*safety/bias"),
        (lambda: mm_rlhf_category("img/1.png"), "'img/1.png' contains no category.*mcq"),
        (lambda: mm_rlhf_category("/home/long/mcq/1.png"), "is absolute"),
        (lambda: mm_rlhf_category("C:\\long\\1.png"), "is absolute"),
    ]:
        with pytest.raises(UserError, match=words):
            call()

"""To which category a row of a benchmark belongs: the official rules, and the one behind the R1-Reward paper's numbers.

vl_category("RLAIF-V-14")                            # "hallucination"
vl_paper_category("RLAIF-V-14")                      # "general": the released script looks for lower-case "rlaif"
multimodal_category("reasoning", "mathvista-7")      # "reasoning/math"
mm_rlhf_category("long/31567.png")                   # "long"
"""

from __future__ import annotations

import re

from r1_reward.records.errors import UserError

VL_CATEGORIES = ("general", "hallucination", "reasoning")
MULTIMODAL_CATEGORIES = (
    "open_generation/correctness_task", "open_generation/preference_task", "knowledge", "reasoning/math",
    "reasoning/coding", "safety/bias", "safety/toxicity", "vqa",
)  # fmt: skip
MM_RLHF_CATEGORIES = ("mcq", "long", "short", "safety", "video")

_VL_SOURCES = {
    "RLAIF": "hallucination", "RLHF": "hallucination", "hallucination": "hallucination",
    "mathverse": "reasoning", "mmmu": "reasoning",
}  # fmt: skip


def vl_category(id: str) -> str:
    """Return the official VL-RewardBench category: by what stands before the first ``_`` or ``-`` of the id.

    Every other beginning is general (WildVision, VLFeedback). Raises UserError for a blank id.
    """
    _require(id, "VL-RewardBench")
    return _VL_SOURCES.get(re.split("[_-]", id, maxsplit=1)[0], "general")


def vl_paper_category(id: str) -> str:
    """Return the category by the rule of the released R1-Reward script, which the paper's columns follow.

    Ids name RLAIF-V and RLHF-V in capitals and the rule looks for small letters, so their 301 rows are general.
    Raises UserError for a blank id.
    """
    _require(id, "VL-RewardBench")
    if "mmmu" in id or "mathverse" in id:
        return "reasoning"
    return "hallucination" if any(part in id for part in ("hallucination", "rlhf", "rlaif")) else "general"


def multimodal_category(category: str, id: str) -> str:
    """Return the scored category of a Multimodal RewardBench row: safety and reasoning are split by the id.

    Raises UserError for a category the benchmark does not have.
    """
    if category == "safety":
        return "safety/bias" if id.lower().startswith("pairs") else "safety/toxicity"
    if category == "reasoning":
        return "reasoning/math" if id.lower().startswith("math") else "reasoning/coding"
    if category in MULTIMODAL_CATEGORIES:
        return category
    raise UserError(f"{category!r} is no category of Multimodal RewardBench ({', '.join(MULTIMODAL_CATEGORIES)}).")


def mm_rlhf_category(path: str) -> str:
    """Return the MM-RLHF-RewardBench category: the first of mcq, long, short, safety, video found in the path.

    ``path`` is that of the image or of the folder of frames, relative as released. Raises UserError if none is in it,
    or if it is absolute: a folder such as ``/home/long/`` would decide the category.
    """
    if re.match(r"[\\/]|[A-Za-z]:", path):
        raise UserError(
            f"{path!r} is absolute; the category is read from the path, so it must be relative as released."
        )
    for name in MM_RLHF_CATEGORIES:
        if name in path:
            return name
    raise UserError(f"{path!r} names no category of MM-RLHF-RewardBench ({', '.join(MM_RLHF_CATEGORIES)}).")


def _require(id: str, title: str) -> None:
    if not id.strip():
        raise UserError(f"The category of a {title} row is read from its id, which is blank.")

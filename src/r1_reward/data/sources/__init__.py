"""The public sources of preference pairs: for each, one function from its rows to pairs or to reasons why not.

A source's module says in its docstring what it prefers and what it drops. :mod:`r1_reward.data.importing` reads the
files, resolves images and writes pair folders; a new source is a module here and a line in ``SOURCES``::

    for item in SOURCES["rlaif-v"].read(Row({"question": ..., "chosen": ..., "rejected": ..., "image": ...})):
        ...                                   # Candidate(...) or Drop("blank text", "chosen")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from r1_reward.data.sources import groups, mm_rlhf, povid, r1_reward_rl, rlaif_v, trl, vl_feedback, wildvision
from r1_reward.data.sources.common import Candidate, Drop, Row
from r1_reward.records.errors import UserError


class Source(NamedTuple):
    """How to read one public source."""

    read: Callable[[Row], Iterator[Candidate | Drop]]
    """From a row to its pairs; raises Drop where the whole row is of no use."""
    hub: str
    """Where it is published on the Hub."""
    title: str = ""
    """What people call it, if that is not its name."""
    split: str = "train"
    """Split on the Hub or in a folder of ``train-*.parquet``."""
    file: str | None = None
    """The file to read in a folder that holds several."""
    own: Callable[[Mapping[str, Any]], bool] = lambda _: True
    """Whether a row that can be read bears a mark of this source, where its fields are those of many another."""
    by_name: bool = False
    """Whether an image may lie anywhere below the root under its bare name: its rows name folders of their authors."""


SOURCES = {
    "mm-rlhf": Source(mm_rlhf.read, "yifanzhang114/MM-RLHF", "MM-RLHF", file="dpo_pairs.jsonl", own=mm_rlhf.is_own),
    "rlaif-v": Source(rlaif_v.read, "openbmb/RLAIF-V-Dataset", "RLAIF-V", own=rlaif_v.is_own, by_name=True),
    "vl-feedback": Source(vl_feedback.read, "MMInstruction/VLFeedback", "VLFeedback", by_name=True),
    "povid": Source(povid.read, "YiyangAiLab/POVID_preference_data_for_VLLMs", "POVID", by_name=True),
    "wildvision-battle": Source(wildvision.read, "WildVision/wildvision-battle", "WildVision-Battle", split="test"),
    "r1-reward-rl": Source(r1_reward_rl.read, "yifanzhang114/R1-Reward-RL", "R1-Reward-RL", by_name=True),
    "trl": Source(trl.read, "trl-lib/rlaif-v", "TRL preference"),
    "groups": Source(groups.read, "yinuoy/MR2Bench", "ranked group"),
}


def find_source(name: str) -> Source:
    """Return a source by name; raises UserError with the names there are."""
    import difflib

    if name in SOURCES:
        return SOURCES[name]
    near = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"{name}: not a source of pairs. There are {', '.join(SOURCES)}.{hint}")

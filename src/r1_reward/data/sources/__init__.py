"""The public sources of preference pairs: each has a function that turns a row into pairs or drops it with a reason.

The docstring of a source's module says which answer it prefers and what it drops. :mod:`r1_reward.data.importing` reads
the files, resolves images and writes pair folders. To add a source, add a module here and an entry in ``SOURCES``::

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
    """Turns a row into its pairs; raises Drop if the whole row is unusable."""
    hub: str
    """Its dataset id on the Hub."""
    title: str = ""
    """Its usual name, if different from the key in ``SOURCES``."""
    split: str = "train"
    """Split on the Hub or in a folder of ``train-*.parquet``."""
    file: str | None = None
    """The file to read in a folder with several files."""
    own: Callable[[Mapping[str, Any]], bool] = lambda _: True
    """Whether a readable row is recognizably from this source, for sources with common field names."""
    by_name: bool = False
    """Whether images are also looked up by bare file name below the root, because paths refer to the authors' disks."""


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
    """Return a source by name; raises UserError that lists the known names."""
    import difflib

    if name in SOURCES:
        return SOURCES[name]
    near = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"{name}: unknown source. The sources are {', '.join(SOURCES)}.{hint}")

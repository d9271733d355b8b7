"""RM-R1, the models distilled from DeepSeek-R1: no system message, their own thought, the same verdict."""

from __future__ import annotations

from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects.rm_r1 import BRACKETS, HEADINGS, TAGS, read

DIALECT = Dialect(
    name="rm-r1-reasoning",
    title="RM-R1, DeepSeek-Distilled models (text)",
    form="<answer>[[{}]]</answer>",
    read=read,
    template="rm_r1_reasoning.txt",
    source="github.com/RM-R1-UIUC/RM-R1 at d4c2542, demo/demo.ipynb: the authors' wording, Apache-2.0",
    verdicts=("A", "B"),
    hostile=(BRACKETS, HEADINGS, TAGS),
    models=(r"(?<![a-z])rm[-_]r1.*deepseek",),
    labels=("Chatbot A", "Chatbot B"),
)

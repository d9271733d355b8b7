"""RM-R1, the instruct models: a text judge that classifies the task, writes a rubric or a solution, and compares.

The official reader (rewardbench/generative.py in its repository) accepts ``[[A]]`` or ``[[B]]`` anywhere in the text,
and neither if both occur. Ours does the same after the thought: a draft inside a thought is ignored.
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import Dialect, Found, marked

_VERDICT = re.compile(r"(?:<answer>\s*)?\[\[([AB])\]\](?:\s*</answer>)?")

BRACKETS = r"\[\[\s*(?i:[abc]|tie)\s*\]\]"
HEADINGS = r"\[(?i:client question|the (?:start|end) of (?:the conversation|chatbot)\b)"
TAGS = r"</?(?i:type|rubric|justify|solution|eval|(?:quote|summary)_[ab])\s*>"


def read(spoken: str) -> Found:
    """Find ``[[A]]`` or ``[[B]]``, inside answer tags or not; both together are no verdict."""
    return marked(_VERDICT, {"A": 1, "B": 2}, spoken)


DIALECT = Dialect(
    name="rm-r1",
    title="RM-R1, instruct models (text)",
    form="<answer>[[{}]]</answer>",
    read=read,
    system="rm_r1_system.txt",
    template="rm_r1.txt",
    source="github.com/RM-R1-UIUC/RM-R1 at d4c2542, demo/demo.ipynb: the authors' wording, Apache-2.0",
    verdicts=("A", "B"),
    hostile=(BRACKETS, HEADINGS, TAGS),
    models=(r"(?<![a-z])rm[-_]r1(?!.*deepseek)",),
    labels=("Chatbot A", "Chatbot B"),
)

"""The judge prompt of MT-bench, which most text judges and many benchmarks use: [[A]], [[B]], or [[C]] for a tie.

The official reader (fastchat/llm_judge/common.py) looks for ``[[A]]`` first, then ``[[B]]``, then ``[[C]]``, so a text
with several of them may count for A. In ours, contradictory verdicts count as none.
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import Dialect, Found, marked

_VERDICT = re.compile(r"\[\[([ABC])\]\]")


def read(spoken: str) -> Found:
    """Find ``[[A]]``, ``[[B]]`` or ``[[C]]``; different ones are no verdict."""
    return marked(_VERDICT, {"A": 1, "B": 2, "C": 0}, spoken)


DIALECT = Dialect(
    name="llm-as-judge",
    title="LLM-as-a-judge, the prompt of MT-bench; Skywork-Critic",
    form="[[{}]]",
    read=read,
    system="llm_as_judge_system.txt",
    template="llm_as_judge.txt",
    source="github.com/lm-sys/FastChat at 0e6d3e4, llm_judge/data/judge_prompts.jsonl, pair-v2: the authors' wording, "
    "Apache-2.0",
    verdicts=("A", "B"),
    ties=True,
    hostile=(
        r"\[\[\s*(?i:[abc]|tie)\s*\]\]",
        r"\[(?i:user question|the (?:start|end) of (?:reference answer|assistant [ab]))",
    ),
    models=(r"skywork[-_]critic",),
    labels=("Assistant A", "Assistant B"),
)

"""A JSON object with the key "better_response", the answer form of MMRB2's judges.

The official reader (api_pairwise_evaluator.py) strips code fences, repairs the JSON and counts any value but "A" and
"B" as wrong. Ours searches for the key and its value, which works in valid, fenced and damaged JSON alike; a key quoted
in a string of the JSON is escaped there, and so does not match. Contradictory values count as none, and so does an echo
of the prompt ('"A" or "B"').
"""

from __future__ import annotations

import re

from r1_reward.records.dialect import Dialect, Found, marked

_VERDICT = re.compile(r"(?<!\\)[\"']better_response[\"']\s*:\s*[\"']?\s*([AB])\s*[\"']?\s*(?=[,}\n`]|\Z)")


def read(spoken: str) -> Found:
    """Find the value of the ``better_response`` key."""
    return marked(_VERDICT, {"A": 1, "B": 2}, spoken)


DIALECT = Dialect(
    name="json",
    title='judges that answer in JSON, "better_response" (MMRB2)',
    form='"better_response": "{}"',
    read=read,
    template="json.txt",
    source="github.com/facebookresearch/MMRB2 at 7ff0552, evaluate/generate_judgements/evaluator_apis/llm_judges; CC "
    "BY-NC 4.0, so the wording is ours and asks for the same keys",
    verdicts=("A", "B"),
    hostile=(
        r"[\"']better_response[\"']",
        r"\[(?i:original prompt to model|response [ab]|input image from prompt)\b",
    ),
    labels=("Response A", "Response B"),
)

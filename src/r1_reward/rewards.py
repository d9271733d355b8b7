"""The reward of one judgement: right, in the right form, and honest about its reasons (method section 3).

``R = result * (1 + 0.5 * consistency) + 0.5 * format``. Consistency multiplies the result, so reasoning that supports
a wrong answer earns nothing. What cannot be scored is None, never a number.

>>> text = "<think>Response 1 miscounts, so Response 2 is better.</think><answer>2</answer>"
>>> combine_rewards(result_reward(text, preferred=2), consistency=1.0, format=format_reward(text))
2.0
"""

from __future__ import annotations

from r1_reward.parsing import parse_judgment
from r1_reward.schema import Answer


def format_reward(text: str) -> float:
    """Return 1.0 if the text follows the answer format of method section 1 to the letter, else 0.0."""
    return float(parse_judgment(text).well_formed)


def result_reward(text: str, preferred: Answer) -> float:
    """Return 1.0 if the text's answer is the preferred response, else 0.0: an unreadable answer is wrong."""
    return float(parse_judgment(text).answer == preferred)


def combine_rewards(
    result: float | None,
    consistency: float | None,
    format: float,
    *,
    consistency_weight: float = 0.5,
    format_weight: float = 0.5,
) -> float | None:
    """Return ``R = result * (1 + consistency_weight * consistency) + format_weight * format``.

    Args:
        result: In {0, 1}, or None when the sample has no usable label; then R is None too.
        consistency: In {0, 1} as in the paper or {-1, 0, 1} as in its released code; None (the referee does not know)
            earns no bonus.
        format: In {0, 1}.
        consistency_weight: Largest share by which consistency raises the result.
        format_weight: What the format alone earns.

    Returns:
        R, in [0, 2] with the default weights, or None.
    """
    if result is None:
        return None
    bonus = 0.0 if consistency is None else consistency_weight * consistency
    return result * (1.0 + bonus) + format_weight * format

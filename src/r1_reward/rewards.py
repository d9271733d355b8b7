"""The reward of one judgment: correct, well formed, and consistent with its own reasoning (method section 3).

``R = result * (1 + 0.5 * consistency) + 0.5 * format``. Consistency multiplies the result, so reasoning that supports
a wrong answer earns nothing. Anything unscorable is None, never a number: if a verdict is needed and missing, the whole
sample is unscorable. The other ways to combine the parts are options for comparison.

>>> text = "<think>Response 1 miscounts, so Response 2 is better.</think><answer>2</answer>"
>>> combine_rewards(result_reward(text, preferred=2), consistency=1.0, format=format_reward(text))
2.0
"""

from __future__ import annotations

from r1_reward.records.parsing import is_well_formed, parse_judgment


def format_reward(text: str, format: str = "strict") -> float:
    r"""Return 1.0 if the text follows the answer format of method section 1, else 0.0.

    >>> on_two_lines = "<think>Response 1 miscounts.</think>\n<answer>2</answer>"
    >>> format_reward(on_two_lines), format_reward(on_two_lines, "whitespace")
    (0.0, 1.0)

    Args:
        text: The judgment.
        format: ``strict`` is the paper's ``^<think>.*?</think><answer>.*?</answer>$``, each tag once. ``whitespace``
            allows white space between ``</think>`` and ``<answer>``, where most models put a line break.

    Raises:
        ValueError: If ``format`` is neither.
    """
    return float(is_well_formed(text, format))


def result_reward(text: str, preferred: int, *, cut: bool = False) -> float:
    """Return 1.0 if the text's answer is the preferred response (1 or 2), else 0.0; an unreadable answer is wrong.

    ``cut``: the token limit ended the text; then an answer counts only after a closed thought.
    """
    return float(parse_judgment(text, cut=cut).answer == preferred)


def consistency_value(verdict: float | None, values: str = "binary") -> float | None:
    """Return the value of a referee's verdict in the reward; an unknown verdict (None) stays None.

    Args:
        verdict: 1 (the reasoning supports the answer), 0 (it does not) or None (the referee gave no verdict).
        values: ``binary`` keeps 1 and 0, as in the paper. ``ternary`` maps them to 1 and -1, the scale of the released
            code.

    Raises:
        ValueError: If ``values`` is neither.
    """
    if values not in ("binary", "ternary"):
        raise ValueError(f"consistency values must be 'binary' or 'ternary', got {values!r}")
    return 2.0 * verdict - 1.0 if verdict is not None and values == "ternary" else verdict


def combine_rewards(
    result: float | None,
    consistency: float | None,
    format: float,
    *,
    consistency_weight: float = 0.5,
    format_weight: float = 0.5,
    consistency_mode: str = "multiply",
    format_mode: str = "add",
) -> float | None:
    """Return R, by default the paper's ``result * (1 + consistency_weight * consistency) + format_weight * format``.

    >>> combine_rewards(1.0, None, 1.0) is None  # a right answer whose verdict is missing
    True
    >>> combine_rewards(0.0, None, 1.0)  # a wrong one earns no bonus whatever the verdict
    0.5

    Args:
        result: In {0, 1}, or None if the sample has no usable label; then R is None too.
        consistency: In {0, 1} as in the paper or {-1, 0, 1} as in its released code; 0 if there is no readable answer
            to support. None means that there is no verdict; then R is None wherever a verdict could change it.
        format: In {0, 1}.
        consistency_weight: Largest share by which consistency raises the result.
        format_weight: Reward for the format alone.
        consistency_mode: ``multiply``: a wrong answer earns no bonus. ``add``: the first part is
            ``result + consistency_weight * consistency``, so a consistent wrong answer earns the bonus.
        format_mode: ``add``: the format is a bonus. ``require``: it is a gate and earns nothing itself; R is the first
            part if the text is well formed, else 0.

    Returns:
        R, in [0, 2] with the default weights and modes, or None for an unscorable sample.

    Raises:
        ValueError: If a mode is unknown.
    """
    if consistency_mode not in ("multiply", "add") or format_mode not in ("add", "require"):
        raise ValueError(f"unknown modes: consistency_mode {consistency_mode!r}, format_mode {format_mode!r}")
    if result is None:
        return None
    bonus = 0.0
    earns_bonus = (consistency_mode == "add" or result > 0) and (format_mode == "add" or format > 0)
    if consistency_weight != 0 and earns_bonus:
        if consistency is None:
            return None
        bonus = consistency_weight * consistency
    first = result * (1.0 + bonus) if consistency_mode == "multiply" else result + bonus
    return first * format if format_mode == "require" else first + format_weight * format

"""Kinds of sentences: conclusions, ties, remarks on one aspect, conditions; see :mod:`.verdict_grammar`.

>>> concludes("therefore, ① is better.")
True
>>> without_condition("① would win if it had counted right , so ② wins".split())
['②', 'wins']
"""

from __future__ import annotations

import re

from r1_reward.judge import verdict_words as w

_NEAR = 12
"""How many words before a word can belong to it."""
SCOPE = re.compile(
    r"\bin (?:terms|regard|this regard|this respect|this aspect|these aspects|those)\b|\bwhen it comes to\b"
    r"|\bwith (?:regard|respect)\b|\b(?:regarding|concerning)\b"
)
_CONCLUDES = re.compile(
    r"\b(?:overall|therefore|thus|hence|in (?:conclusion|summary|short|sum)|to (?:conclude|summari[sz]e|sum up)"
    r"|ultimately|consequently|all in all|on balance|final (?:verdict|judge?ment|decision)|conclusion"
    r"|(?:given|considering|based on|taking) (?:this|these|all|the above|everything))\b"
)
TIE = re.compile(
    r"\b(?:tie|tied|equally|equal|equivalent|comparable|on par|evenly matched|(?:similar|same) (?:in )?quality"
    r"|neither .{0,40}\b(?:better|superior|preferable|wins)"
    r"|no (?:clear |significant )?(?:winner|difference|preference))\b"
)
IN_NO_WAY = re.compile(r"\b(?:in|under|at|see) no (?:way|respect|sense|circumstances|point|reason)\b")


def concludes(marked: str) -> bool:
    """Return whether a sentence announces a conclusion: overall, therefore, in summary, given all this."""
    return bool(_CONCLUDES.search(marked))


def without_condition(tokens: list[str]) -> list[str]:
    """Return the words of a sentence that are asserted: those after "so" or "but" that follows a condition, or [].

    Conditions are "if detail counts, X is better", "had X counted right, ...", "X would win if ...", "X is better only
    if ..."; "if I had to choose, ..." and "even if" are not.
    """
    if tokens[0] in ("if", "unless"):
        holds = "i" in tokens[:4] or "forced" in tokens[:_NEAR]
        return tokens if holds else []
    if tokens[0] in ("had", "were") or tokens[:2] == ["but", "for"]:
        return []
    for place, token in enumerate(tokens[1:], 1):
        before, following = tokens[max(place - _NEAR, 0) : place], "".join(tokens[place + 1 : place + 2])
        opens = token == "if" and before[-1] not in ("even", "as", "and") and following != "i"
        if (opens or (token in ("were", "had") and following == "it")) and {"would", "only"} & set(before):
            main = next((at for at in range(place, len(tokens)) if tokens[at] in _MAIN), len(tokens))
            return tokens[main + 1 :]
    return tokens


_MAIN = w.TURNS | {"so", "therefore", "thus", "hence"}

"""A referee without a model: it reads the conclusion out of the end of the reasoning with a table of phrases.

>>> reasoning = "Response 1 is longer. However, it miscounts the cups, so Response 2 is better."
>>> RuleReferee().judge([reasoning, reasoning, "Hard to say."], [2, 1, 1])
[1.0, 0.0, 0.0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1_reward.records.schema import Answer

WINDOW = 600
"""How many characters at the end of a reasoning every referee reads: that is where the conclusion is."""


class RuleReferee:
    """Supports an answer where the last sentence with a preference names it; never unknown.

    A reasoning that states no conclusion does not support its answer: 0.0.
    """

    def judge(self, reasonings: Sequence[str], answers: Sequence[int]) -> list[float | None]:
        """Return 1.0 or 0.0 for each pair of reasoning and answer. Raises ValueError if the lengths differ."""
        return [float(conclusion(reasoning) == answer) for reasoning, answer in zip(reasonings, answers, strict=True)]


def conclusion(reasoning: str) -> Answer | None:
    """Return the response that the last sentence with a preference prefers, None if there is no such sentence.

    Only the last :data:`WINDOW` characters are read. Questions, conditions and concessions ("although Response 1 ...")
    state no preference.
    """
    sentences = _SENTENCE_END.split(reasoning[-WINDOW:])
    if len(reasoning) > WINDOW and len(sentences) > 1:
        del sentences[0]  # cut off at its start, it may have lost its "not"
    for sentence in reversed(sentences):
        preferred = _preference(sentence)
        if preferred is not None:
            return preferred
    return None


_SENTENCE_END = re.compile(r"(?<=[.!?])[\s*\"')\]]+|\n+")

# Applied in this order to a lower-case sentence; what is left is nearly free of variants.
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[*_#`\[\]\"“”]", " "),
        (r"’", "'"),
        (r"\bcannot\b|\bcan't\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"n't\b", " not"),
        (r"\b(?:the )?(?:first|1st) (?:response|answer|candidate|option|one)\b", "response 1"),
        (r"\b(?:the )?(?:second|2nd) (?:response|answer|candidate|option|one)\b", "response 2"),
        (r"\b(?:response|answer|candidate|option)[\s#:]+(?:number |no\. )?(1|one)\b", "response 1"),
        (r"\b(?:response|answer|candidate|option)[\s#:]+(?:number |no\. )?(2|two)\b", "response 2"),
        (r"\bresponse ([12])'s(?: \w+){1,2}?(?= (?:is|was|seems|appears|wins)\b)", r"response \1"),
        (r"\bnot (?:quite |nearly |at all )?(?:as|so) (\w+) as\b", r"less \1 than"),
        (r"\b(?:although|though|even though|even if|if|unless|whether|while|whereas|despite|neither)\b[^,;]*", " "),
        (r",\s*(?:however|overall|therefore|thus|too|in my view|in my opinion|on balance)\s*,", " "),
        (r"\s+", " "),
    )
]

_R = r"\bresponse (?P<r>[12])\b"
_NOT_THAT = r"(?P<doubt>\bnot (?:think|believe|say|agree|consider|find|feel|claim|true|clear|the case) (?:that )?)?"
_ADVERB = r"(?:\w+ly|also|still|thus|hence|therefore|overall|indeed|just|far|much|even|in fact|by far)"
_COPULA = r"(?:is|was|being|as|seems|appears|remains|looks|proves|would|will|should|must|can|does|did|has|to|be|been)"
_SUBJECT = rf"{_NOT_THAT}{_R},? (?P<link>(?:(?:{_ADVERB}|{_COPULA}|not|never|no|the|a|an|considered|slightly),? )*)"
_BETTER = r"(?:better|best|superior|preferred|preferable|stronger|winning)"
_WORSE = r"(?:worse|worst|inferior|weaker|losing)"
_CHOICE = r"(?:response|answer|choice|option|one|candidate)"
_OBJECT = rf"(?P<link>(?:\b(?:not|never|rarely) (?:{_ADVERB} )?)?)"
_NAMED = (
    rf"(?P<link>:|(?: {_ADVERB})? (?:is|was|would be|must be|remains|goes to)(?: not| {_ADVERB})*:?) (?:response )?"
)

_STRONG, _WEAK = 1, 0
_PATTERNS: list[tuple[int, bool, re.Pattern[str]]] = [  # (strength, does it praise the response it names?, phrase)
    (strength, praises, re.compile(phrase))
    for strength, praises, phrase in (
        # "Response 1 is (clearly not) better": the verdicts themselves
        (_STRONG, True, rf"{_SUBJECT}(?:better|best|superior|prefer(?:red|able)|stronger|chosen|(?:\w+ )?winner)\b"),
        (_STRONG, False, rf"{_SUBJECT}(?:worse|worst|inferior|weaker|poorer|loser)\b"),
        (
            _STRONG,
            True,
            rf"{_SUBJECT}(?:wins?|outperforms?|beats?|surpass(?:es)?|prevails?|edges out|comes out ahead)\b",
        ),
        (_STRONG, False, rf"{_SUBJECT}(?:loses?|falls short|underperforms?)\b"),
        # "I (would not) choose Response 1"
        (
            _STRONG,
            True,
            rf"{_OBJECT}\b(?:choos(?:e|ing)|chose|pick(?:ed)?|select(?:ed)?|recommend|opt for|vote for) {_R}",
        ),
        (_STRONG, True, rf"{_OBJECT}\b(?:prefer|favou?r|go with|going with|lean towards?|in favou?r of) {_R}"),
        (_STRONG, True, rf"{_OBJECT}\b(?:preference|advantage|verdict) (?:for|to|goes to|is for) {_R}"),
        # "the better response is 2", "verdict: 2"; "final answer: 2" has become "final response 2" above
        (_STRONG, True, rf"\b{_BETTER} {_CHOICE}{_NAMED}(?P<r>[12])\b"),
        (_STRONG, True, rf"\b(?:{_BETTER}|final) {_R}"),
        (_STRONG, False, rf"\b{_WORSE} {_CHOICE}{_NAMED}(?P<r>[12])\b"),
        (_STRONG, True, rf"\b(?:winner|verdict|my choice|final choice|preference){_NAMED}(?P<r>[12])\b"),
        (_STRONG, True, rf"\b(?:final answer|conclusion|judge?ment){_NAMED}(?P<r>[12])\s*\W*$"),
        # "Response 1 is more accurate": grounds that stand for a verdict where no verdict is given
        (_WEAK, True, rf"{_SUBJECT}(?:more \w+|correct|accurate|right|closer|clearer|safer)\b"),
        (_WEAK, False, rf"{_SUBJECT}(?:less \w+|incorrect|inaccurate|wrong|mistaken|flawed)\b"),
        (_WEAK, True, rf"\b(?:correct|right|accurate) {_CHOICE}{_NAMED}(?<=response )(?P<r>[12])\b"),
    )
]
_NEGATION = re.compile(r"\b(?:not|never|no|rarely)\b")


def _preference(sentence: str) -> Answer | None:
    """Return the response one sentence prefers: by its last verdict, or by its last ground if it has no verdict."""
    if sentence.rstrip().endswith("?"):
        return None
    text = sentence.lower()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    found = [
        (strength, match.start("r"), _named_or_other(match, praises))
        for strength, praises, phrase in _PATTERNS
        for match in phrase.finditer(text)
    ]
    return max(found)[2] if found else None


def _named_or_other(match: re.Match[str], praises: bool) -> Answer:
    groups = match.groupdict("")
    negations = len(_NEGATION.findall(groups.get("link", ""))) + bool(groups.get("doubt"))
    prefers_named = praises == (negations % 2 == 0)
    return 1 if prefers_named == (match["r"] == "1") else 2

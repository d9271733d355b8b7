"""Names of the two responses in a text: "Response 1", "Assistant B", "Output (a)", "the second answer", "the latter".

>>> mark_names("**Response 2** names the color; the first answer doesn't.")
' ② names the color; ① does not.'
"""

from __future__ import annotations

import re

from r1_reward.judge.verdict_words import words
from r1_reward.records.schema import Answer

FIRST, SECOND, BOTH = "①", "②", "③"
ANSWERS: dict[str, Answer] = {FIRST: 1, SECOND: 2}
NUMERALS = {"1": FIRST, "one": FIRST, "a": FIRST, "2": SECOND, "two": SECOND, "b": SECOND}
_KIND = r"(?i:response|assistant|model|output|system|candidate|reply|completion|answer|option|choice|solution)"
_NUMBERED = re.compile(
    rf"\b(?i:the )?(?i:ai )?(?P<kind>{_KIND})[ \t#:]{{1,3}}(?i:number |no\. )?[\"'(]{{0,2}}"
    r"(?:(?P<digit>[12]|(?i:one|two))(?!\.?\d)|(?P<letter>[AB])|(?<=\()(?P<bracketed>[ab])(?=\)))\b[\")]{0,2}"
)
_ORDINAL = re.compile(rf"\b(?i:the )?(?i:(?P<first>first|1st)|second|2nd) (?:{_KIND}|one)\b")
_SHARED = words("answer option choice solution")
"""Kinds that may belong to a multiple-choice question ("option 2"): names only in a text without other names."""
_MARKUP = re.compile(r"[*_#`\[\]①②③]+")
_BLANKS = re.compile(r"[ \t]+")
_BRACKETED = re.compile(r"\[\[([AB12])\]\]")
_QUOTED = re.compile(r"(?i:(verdict|judge?ment|conclusion)\W{0,5})?(?<=\S) [\"“][^\"“”\n]*[\"”]")
_COUPLED = re.compile(rf"([{FIRST}{SECOND}])(?: 's)?(?:,? (?:and|or|nor)|,? &|/) ?[{FIRST}{SECOND}](?: 's)?")
# Phrases whose "not", "but" or "no" does not negate, or that hide a negation.
_PHRASES = (
    (
        re.compile(rf", (?:and |but )?not (?:with |for |to )?[{FIRST}{SECOND}] ?(?=[,.;:)\n]|$)"),
        ",",
    ),  # "X, not Y, is better"
    (re.compile(r"\b(?:anything but|far from)\b"), "not"),
    (re.compile(r"\bwithout (?:a |any )?(?:question|doubt)\b|\bno doubt(?=,)"), "clearly"),
    (re.compile(r"\b(?:no[- ]one|nobody|(?:very )?few(?= (?:would|will|people|users|readers)))\b"), "never"),
)
_FORMER = re.compile(rf"[{FIRST}{SECOND}]|\bthe (?P<place>former|latter)\b")


def mark_names(text: str) -> str:
    """Return a text in lower case with one sign for each response: ① and ②, or ③ for both together.

    "Response 1", "Assistant B", "Output (a)", "Model 2", "the second answer", "[Response 1]" are names. Longer
    quotations are removed: they are the candidates' words, not the judge's.
    """
    text = _BLANKS.sub(" ", _MARKUP.sub(" ", _BRACKETED.sub(r" response \1 ", text)))
    text = _QUOTED.sub(lambda match: match[0] if match[1] or match[0].count(" ") < 3 else " ", text)
    own = any(
        match["kind"].lower() not in _SHARED and (match["digit"] or match["letter"] or match["bracketed"])
        for match in _NUMBERED.finditer(text)
    )

    def sign(match: re.Match[str]) -> str:
        if own and match["kind"].lower() in (_SHARED if match["letter"] else _SHARED - {"answer"}):
            return match[0]
        return f" {NUMERALS[(match['digit'] or match['letter'] or match['bracketed']).lower()]} "

    text = _NUMBERED.sub(sign, text)
    text = _ORDINAL.sub(lambda match: f" {FIRST if match['first'] else SECOND} ", text).lower()
    text = _name_the_former(text)
    text = text.replace("’", "'").replace("cannot", "can not").replace("can't", "can not").replace("won't", "will not")
    text = _BLANKS.sub(" ", text.replace("n't", " not").replace("'s", " 's"))
    for form, plain in _PHRASES:
        text = form.sub(plain, text)
    return _COUPLED.sub(BOTH, text)


def _name_the_former(text: str) -> str:
    """Replace "the former" and "the latter" after two names with the sign of the response."""
    names = ["", ""]

    def name(match: re.Match[str]) -> str:
        if match["place"] and names[0] and names[0] != names[1]:
            return names[match["place"] == "latter"]
        if not match["place"]:
            names[:] = [names[1], match[0]]
        return match[0]

    return _FORMER.sub(name, text)

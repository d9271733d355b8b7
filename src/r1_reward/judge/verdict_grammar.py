"""The grammar of comparative judgements: which of two responses does a sentence speak for, and how strongly?

A sentence is cut into segments at commas and joining words. A segment has a *subject* (the response that stands before
the verb, or the one of the segment before) and *heads* (words that praise or blame). A response behind "than",
"compared to", "over", "by" or "of" is an object, never a subject, and what its noun phrase says of it
("Response 2's incorrect statement") is not read.

>>> remarks("Response 1 is longer, but its proof is worse than that of Response 2.")
[Remark(rank=3, prefers=2)]
>>> remarks("Although Response 1 is better written, Response 2 counts more accurately.")
[]

Everything here is a single pass over the words: no pattern can backtrack, however hostile the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from r1_reward.records.schema import Answer

VERDICT, GROUND, TRAIT, MENTION = 3, 2, 1, 0
"""A verdict ("is better"), a comparison ("is more accurate"), a trait ("is correct"), a subject of which nothing is read."""


class Remark(NamedTuple):
    """What one sentence says for a response; ``prefers`` is None where it weighs neither above the other."""

    rank: int
    prefers: Answer | None
    about: Answer | None = None
    """The response that is praised or blamed, None where only its rival is named."""


# --- words -----------------------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BETTER = _words(
    "better best superior preferable preferred stronger strongest winner chosen favored favoured victorious"
)
_WORSE = _words("worse worst inferior weaker weakest poorer loser")
_WINS = _words(
    "wins win won outperforms outperform outperformed beats beat surpasses surpass surpassed prevails prevail excels"
    " outshines outshine outshone exceeds edges edging outperforming surpassing beating"
)
_BEATEN = _words("outperformed surpassed beaten outshone")  # "is outperformed by Response 2"
_LOSES = _words("loses lose lost underperforms underperform underperformed")
_GOOD = _words(
    "accurate correct comprehensive detailed helpful relevant informative complete concise thorough precise clear"
    " coherent specific appropriate useful reliable engaging insightful nuanced readable suitable logical organized"
    " structured faithful consistent effective in-depth practical actionable valuable robust rigorous efficient direct"
    " aligned convincing compelling persuasive natural well-structured well-organized understandable polished"
    " professional diverse vivid original varied transparent suited tailored factual grounded truthful credible safe creative satisfactory sound balanced cohesive accurately"
    " correctly clearly thoroughly effectively precisely directly closely comprehensively faithfully"
)
_EVEN = _words("good strong well")
_BAD = _words(
    "vague generic misleading confusing limited superficial verbose repetitive inaccurate incorrect flawed"
    " wrong ambiguous convoluted shallow irrelevant unclear simplistic basic high-level redundant problematic erroneous"
)
_GRADED = _words(
    "clearer closer safer deeper richer fuller sounder wiser tighter higher greater broader smoother neater stronger"
)
_CORRECT = _words("correct accurate right")
_INCORRECT = _words(
    "incorrect inaccurate wrong mistaken flawed incomplete irrelevant misleading erroneous unhelpful nonsensical"
)
_FAILS = _words("lacks lacked fails failed misses missed omits omitted ignores ignored misinterprets misunderstands")
_BE = _words(
    "is was are were be been being seems seem seemed appears appear appeared remains remained looks proves proved"
    " becomes would will should must can does did do has have had to as considered deemed judged rated regarded"
    " performs performed perform makes making made does"
)
_GIVES = _words(
    "provides provided provide offers offered offer gives gave give demonstrates demonstrated presents presented"
    " contains contained includes included has have had shows showed delivers delivered receives received receive gets"
    " earns earned earning deserves deserved deserve scores scored achieves achieved goes takes displays exhibits"
    " maintains uses resulting warranting receiving providing offering giving having scoring demonstrating presenting achieving"
)
_LIGHT = _words(
    "a an the also still thus hence therefore overall indeed just far much even slight bit little fact by slightly"
    " clear so only now ultimately somewhat it its that this both very more-or-less marginally again then own"
    " considerable significant noticeable most likely rather quite"
)
_MAYBE = _words("could might may cannot")
_NOT = _words("not never no rarely hardly barely scarcely neither nor without")
_BARELY = _words("rarely hardly barely scarcely")
_VAGUE_NOT = _words("necessarily significantly much substantially strictly always entirely particularly notably only means")
_NOUNS = _words("response answer choice option one candidate output assistant model solution explanation reply of two")
_REPORTS = _words("claims claimed says said states stated asserts argues argued suggests mentions thinks believes")
_DOUBTS = _words("think believe agree consider find feel")
_PICKS = _words(
    "choose chose choosing pick picked picking select selected selecting prefer recommend favor favour favors favours"
    " prefers endorse"
)
_PICKS_WITH = {
    ("go", "with"), ("going", "with"), ("opt", "for"), ("vote", "for"), ("lean", "towards"), ("lean", "toward"),
    ("favor", "of"), ("favour", "of"), ("preference", "for"), ("preference", "to"), ("edge", "to"), ("nod", "to"),
    ("advantage", "to"), ("leaning", "towards"), ("leaning", "toward"), ("side", "with"), ("settle", "on"),
}  # fmt: skip
_NAMES_IT = _words("winner verdict choice preference decision pick edge advantage judgment judgement")
_EDGE = _words("edge advantage")
_OBJECT = _words(
    "than over to with by of in from unlike against versus vs for like on at about between compared beyond above"
    " outperforms outperform beats beat surpasses surpass exceeds outperformed surpassed"
)
_CONCEDES = _words("although though albeit despite notwithstanding if unless whether except")
_CONTRASTS = _words("while whereas")
_JOINS = _words("but however yet and so therefore because since which thus hence when where making resulting earning")
_TURNS = _words("but however yet")
_SCOPE = re.compile(
    r"\bin (?:terms|regard|this regard|this respect|this aspect|these aspects|those)\b|\bwhen it comes to\b"
    r"|\bwith (?:regard|respect)\b|\b(?:regarding|concerning)\b"
)
_CONCLUDES = re.compile(
    r"\b(?:overall|therefore|thus|hence|in (?:conclusion|summary|short|sum)|to (?:conclude|summari[sz]e|sum up)"
    r"|ultimately|consequently|all in all|on balance|final (?:verdict|judge?ment|decision)|conclusion"
    r"|(?:given|considering|based on|taking) (?:this|these|all|the above|everything))\b"
)
_TIE = re.compile(
    r"\b(?:tie|tied|equally|equal|equivalent|comparable|on par|evenly matched"
    r"|neither .{0,40}\b(?:better|superior|preferable|wins)|(?:similar|same) (?:in )?quality|no (?:clear |significant |meaningful )?(?:winner|difference|preference))\b"
)

# --- names -----------------------------------------------------------------------------------------------------------

_FIRST, _SECOND, _BOTH = "①", "②", "③"
SIGNS = (_FIRST, _SECOND)
_WHICH = {"1": _FIRST, "one": _FIRST, "a": _FIRST, "2": _SECOND, "two": _SECOND, "b": _SECOND}
_KIND = r"(?i:response|assistant|model|output|system|candidate|reply|completion|answer|option|choice|solution)"
_NUMBERED = re.compile(
    rf"\b(?i:the )?(?i:ai )?(?P<kind>{_KIND})[ \t#:]{{1,3}}(?i:number |no\. )?[\"'(]{{0,2}}"
    r"(?:(?P<digit>[12]|(?i:one|two))(?!\.?\d)|(?P<letter>[AB])|(?<=\()(?P<bracketed>[ab])(?=\)))\b[\")]{0,2}"
)
_ORDINAL = re.compile(rf"\b(?i:the )?(?i:(?P<first>first|1st)|second|2nd) (?:{_KIND}|one)\b")
_SHARED = _words("answer option choice solution")
"""Kinds whose letters may be those of a multiple-choice question: names only in a text without other names."""
_MARKUP = re.compile(r"[*_#`\[\]①②③]+")
_BRACKETED = re.compile(r"\[\[([AB12])\]\]")
_QUOTED = re.compile(r"(?i:(verdict|judge?ment|conclusion)\W{0,5})?(?<=\S)[ \t]+[\"“][^\"“”\n]*[\"”]")
_COUPLED = re.compile(rf"([{_FIRST}{_SECOND}])(?: 's)?(?:,? (?:and|or|nor)|,? &|/) ?[{_FIRST}{_SECOND}](?: 's)?")
_FORMER = re.compile(rf"[{_FIRST}{_SECOND}]|\bthe (?P<place>former|latter)\b")
_TOKEN = re.compile(r"[①②③]|'s\b|[a-z]+(?:[-'][a-z]+)*|\d+(?:\.\d+)?|[,;:()/—–?]")


def mark_names(text: str) -> str:
    """Return a text in lower case in which every response is one sign: ① and ②, or ③ for both together.

    "Response 1", "Assistant B", "Output (a)", "Model 2", "the second answer", "[Response 1]" are names. Longer
    quotations are cut out: they are the candidates' words, not the judge's.
    """
    text = _BRACKETED.sub(lambda match: f" response {match[1]} ", text)
    text = _QUOTED.sub(lambda match: match[0] if match[1] or match[0].count(" ") < 3 else " ", _MARKUP.sub(" ", text))
    own = any(
        match["kind"].lower() not in _SHARED and (match["digit"] or match["letter"] or match["bracketed"])
        for match in _NUMBERED.finditer(text)
    )

    def sign(match: re.Match[str]) -> str:
        if match["letter"] and own and match["kind"].lower() in _SHARED:
            return match[0]
        return f" {_WHICH[(match['digit'] or match['letter'] or match['bracketed']).lower()]} "

    text = _NUMBERED.sub(sign, text)
    text = _ORDINAL.sub(lambda match: f" {_FIRST if match['first'] else _SECOND} ", text).lower()
    text = _name_the_former(text)
    text = text.replace("’", "'").replace("cannot", "can not").replace("can't", "can not").replace("won't", "will not")
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"[ \t]+", " ", text)
    return _COUPLED.sub(_BOTH, text.replace(" 's", "'s").replace("'s", " 's"))


def _name_the_former(text: str) -> str:
    """Put the sign of a response for "the former" and "the latter" behind two names."""
    names = ["", ""]

    def name(match: re.Match[str]) -> str:
        if match["place"] and names[0] and names[0] != names[1]:
            return names[match["place"] == "latter"]
        if not match["place"]:
            names[:] = [names[1], match[0]]
        return match[0]

    return _FORMER.sub(name, text)


# --- sentences -------------------------------------------------------------------------------------------------------


class _Segment(NamedTuple):
    join: str
    tokens: list[str]


def _segments(tokens: list[str]) -> list[_Segment]:
    found, join, current = [], "", []
    for place, token in enumerate(tokens):
        if token in (",", "and", "or") and _lists(tokens, place):
            continue
        if token in ",;:()—–" or token in _JOINS or token in _CONCEDES or token in _CONTRASTS:
            if current:
                found.append(_Segment(join, current))
                join, current = "", []
            # ", although": the word says more than the comma before it
            join = token if token.isalpha() or not join else join
            if token == "making" or token in _GIVES:
                current = [token]
        else:
            current.append(token)
    if current:
        found.append(_Segment(join, current))
    return found


def _lists(tokens: list[str], place: int) -> bool:
    """Say whether a comma or "and" only joins two adjectives: "more helpful, relevant, and accurate"."""
    behind = (t for t in tokens[place + 1 : place + 5] if t not in ("and", "or", "more", "most", "less") and t[-2:] != "ly")
    return next(behind, "") in _GOOD | _BAD


def concludes(sentence: str) -> bool:
    """Say whether a sentence announces a conclusion: overall, therefore, in summary, given all this."""
    return bool(_CONCLUDES.search(sentence))


def scores(marked: str) -> dict[Answer, float]:
    """Return the last score a sentence gives each response: "Response 1 gets 8/10", "earning it a score of 6"."""
    tokens = _TOKEN.findall(marked)
    holder: Answer | None = None
    found: dict[Answer, float] = {}
    for place, token in enumerate(tokens):
        if token in _ANSWER and not _is_object(tokens, place):
            holder = _ANSWER[token]
        elif holder is not None and token[0].isdigit():
            behind = tokens[place + 1 : place + 4]
            scored = behind[:1] == ["/"] or behind[:2] == ["out", "of"]
            before = [word for word in tokens[max(place - 3, 0) : place] if word not in ("of", ":", "is", "a")]
            if scored or before[-1:] in (["score"], ["rating"], ["gets"], ["receives"], ["an"]):
                found[holder] = float(token)
    return found


def remarks(sentence: str) -> list[Remark]:
    """Return what a sentence says for one response or the other, in its order; [] for questions and for no names."""
    return read(mark_names(sentence))


def read(marked: str) -> list[Remark]:
    """Return the remarks of one sentence whose names are marked, see :func:`mark_names`."""
    tokens = _TOKEN.findall(marked)
    if not tokens or tokens[-1] == "?":
        return []
    if tokens[0] in ("if", "unless") and "i" not in tokens[:4] and "forced" not in tokens:
        return []  # "if detail is what counts, Response 1 is better"
    found = list(_named_outright(tokens))
    if any(token in _WHICH.values() for token in tokens):
        found += _spoken_of(tokens)
    if _SCOPE.search(marked) and not concludes(marked):
        found = [one._replace(rank=min(one.rank, GROUND)) for one in found]
    if all(one.rank == MENTION for one in found) and _TIE.search(marked):
        return [Remark(VERDICT, None)]
    if not found and {_BOTH, "both", "neither"} & set(tokens):
        return [Remark(GROUND, None)]
    return found


_ANSWER: dict[str, Answer] = {_FIRST: 1, _SECOND: 2}
_VERBS = _BE | _GIVES | _WINS | _LOSES | _FAILS | _MAYBE | {"falls", "fell"}
_OPENS = _VERBS | _BETTER | _WORSE | _GRADED | {"more", "less", "most", "fewer", "lower", "it"}
_COMPARED = _words("better worse higher lower superior inferior")
_LINKS = _words("is was are would be being must should seems remains goes : has been lies")
_ON_THE_WAY = _NOUNS | _LIGHT | _words("from provided given by for me overall")


def _light(token: str) -> bool:
    return token in _LIGHT or token.endswith("ly")


def _named_outright(tokens: list[str]) -> Iterator[Remark]:
    """Yield verdicts that name their response last: "I choose X", "in favor of X", "the better answer is X"."""
    for place, token in enumerate(tokens):
        before = tokens[max(place - 4, 0) : place]
        pair = (tokens[place - 1], token) if place else ("", token)
        sign = True
        if token in _PICKS or pair in _PICKS_WITH:
            if _MAYBE & set(before) or {"may", "might"} & set(before):
                continue
            named = _name_after(tokens, place + 1, _LIGHT | {"answer", "response", "option", "assistant", "for", "from"})
            sign = not _NOT & set(before)
        elif token in _BETTER | _WORSE | _NAMES_IT:
            end = place + 1
            while end < min(len(tokens), place + 7) and (tokens[end] in _ON_THE_WAY or _light(tokens[end])):
                end += 1
            linked = end < len(tokens) and tokens[end] in _LINKS
            if not linked and not (end == place + 1 and token in _BETTER | _WORSE):
                continue
            start = end
            while linked and end < len(tokens) and (tokens[end] in _LINKS | _NOT | _ON_THE_WAY | {"to"} or _light(tokens[end])):
                end += 1
            named = _name_after(tokens, end, frozenset())
            sign = (token not in _WORSE) == (not _NOT & set(tokens[start:end])) and not _NOT & set(before)
        elif token in _CORRECT and len(tokens) > place + 3 and tokens[place + 1] in _NOUNS:
            named = _name_after(tokens, place + 3, _LIGHT | {"from"}) if tokens[place + 2] in _LINKS else None
            if named is not None:
                yield Remark(TRAIT, named, named)
            continue
        elif token == "final" and place == 0 and len(tokens) == 2:
            named = _name_after(tokens, 1, frozenset())
        else:
            continue
        if named is not None:
            yield Remark(VERDICT, named if sign else _other(named))


def _name_after(tokens: list[str], place: int, passed: frozenset[str]) -> Answer | None:
    """Return the response named at a place, behind words that may be passed over; None if it is a new subject."""
    while place < len(tokens) and tokens[place] in passed:
        place += 1
    if place >= len(tokens):
        return None
    named = _ANSWER.get(_WHICH.get(tokens[place], tokens[place]) if tokens[place] in "12" else tokens[place])
    following = tokens[place + 1] if place + 1 < len(tokens) else ""
    return None if following in _VERBS - {"as", "to"} else named


def _other(answer: Answer) -> Answer:
    return 2 if answer == 1 else 1


def _spoken_of(tokens: list[str]) -> list[Remark]:
    """Return what the clauses of a sentence say of their subjects."""
    found: list[Remark] = []
    subject: Answer | None = None
    conceding = contrasting = seen = False
    last_name: str = ""
    for join, segment in _segments(tokens):
        if join in _CONCEDES or (join in _CONTRASTS and not seen):
            conceding = True
        elif join in _CONTRASTS:
            conceding, contrasting = False, True
        elif conceding and join not in ("and", "which", "because", "since", "when", "where", "("):
            conceding = not _starts_clause(segment, seen)
        elif join in ("but", "so", "therefore", "thus", "hence", "however", ";"):
            contrasting = False
        if conceding:
            continue
        if join == "which" and "it" not in segment:
            subject = _ANSWER.get(last_name)
        subject, said = _read_segment(segment, subject)
        seen = seen or any(token in _ANSWER or token == _BOTH for token in segment)
        last_name = segment[-1]
        weighty = [one.rank for _, one in said if one.rank > MENTION]
        if join in _TURNS and weighty:  # "accurate, but lacks detail": what stands behind "but" is what is meant
            found = [one for one in found if one.rank > weighty[0]]
        for against, remark in said:
            settled = any(one.rank == VERDICT for one in found)
            if contrasting and against:  # "..., while X lacks detail": blame by contrast is a comparison
                remark = remark._replace(rank=max(remark.rank, GROUND))
            rivals = any(one.rank == remark.rank and one.prefers != remark.prefers for one in found)
            if not contrasting or against or rivals or (remark.rank == VERDICT and not settled):
                found.append(remark)
    return found


def _starts_clause(segment: list[str], seen: bool) -> bool:
    """Say whether the segment behind a concession's comma is the main clause and not a part of the concession."""
    opener = next((token for token in segment if not _light(token) or token in ("it", "this", "the", "both")), "")
    return (
        opener in _ANSWER
        or opener in (_BOTH, "i", "it", "this", "the", "both", "there", "neither", "we", "my")
        or (seen and opener in _VERBS)
    )


def _read_segment(
    tokens: list[str], inherited: Answer | None
) -> tuple[Answer | None, list[tuple[bool, Remark]]]:
    """Return the subject that holds after a segment, and its remarks, each with whether it blames its subject."""
    opener = next((token for token in tokens if not _light(token) and token not in _NOT), "it")
    if opener in ("making", "makes", "with", "as", "why") and tokens[1:2] == ["it"]:
        opener = "it"
    holder = inherited if opener in _OPENS else None
    subject, said, start = inherited, [], 0
    for place, token in enumerate([*tokens, _FIRST]):
        if token not in (_FIRST, _SECOND, _BOTH) or (place < len(tokens) and _is_object(tokens, place)):
            continue
        belief = _belief(tokens[: max(start - 1, 0)])
        read_here = _read_clause(holder, tokens[start:place], not belief) if belief is not None else []
        said += read_here or ([(False, Remark(MENTION, None, holder))] if holder is not None and start else [])
        holder, start = _ANSWER.get(token), place + 1
        if place < len(tokens):
            subject = holder
        if token == _BOTH:
            break
    if "that" in tokens or any(token in _REPORTS for token in tokens):
        subject = None  # what follows may be about what the response says
    return subject, said


def _is_object(tokens: list[str], place: int) -> bool:
    before = place - 1
    while before >= 0 and tokens[before] in ("the", "that", "what", "those", "only", "how"):
        before -= 1
    if before < 0:
        return False
    if tokens[before] == "as" and tokens[before - 1] in _GOOD | _EVEN:  # "not as good as X"
        return True
    if tokens[before] not in _OBJECT:
        return False
    following = next((token for token in tokens[place + 1 :] if not _light(token)), "")
    earlier = set(tokens[:place])
    noun_phrase = tokens[before] in ("by", "from", "of", "in") and bool(_NOUNS & earlier) and not earlier & set(_ANSWER)
    compared = any(token in ("than", "compared", "unlike", "over") for token in tokens[:before])
    return not (following in _VERBS and ((noun_phrase and not compared) or (following in _VERBS and following.endswith("ing"))))


def _belief(before: list[str]) -> bool | None:
    """Say whether the words before a subject affirm what follows; None if they leave it open ("not clear that")."""
    words = [token for token in before if token != "that" and not _light(token)][-3:]
    if "doubt" in words or (_NOT & set(words) and _DOUBTS & set(words)):
        return "no" in words
    return None if _NOT & set(words) and before[-1:] == ["that"] or _REPORTS & set(words) - _DOUBTS else True


def _read_clause(subject: Answer | None, tokens: list[str], doubted: bool) -> list[tuple[bool, Remark]]:
    """Return the first remark of the words behind a subject (None: of words that have none, so an object must be)."""
    place, negated, gives, slack = 0, doubted, False, 0
    trait: list[tuple[bool, Remark]] = []
    if tokens[:1] == ["'s"]:
        while place < len(tokens) and tokens[place] not in _VERBS:
            if tokens[place - 1] in _NOUNS and tokens[place] in _COMPARED:  # "rate X's answer higher than ..."
                break
            place += 1
    while place < len(tokens):
        token = tokens[place]
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        head = _head(tokens, place, gives, negated)
        if head is not None:
            rank, praises = head
            if slack and token in _WINS | _LOSES | _EDGE | {"winner", "loser"}:
                return trait  # "covers the award winner": of something else
            rival = _rival(tokens, place)
            named = _other(rival) if rival is not None else subject
            if named is None or rival == subject or (rank == TRAIT and subject is None):
                return []
            prefers = named if praises != negated else _other(named)
            read_here = [(prefers != named, Remark(rank, prefers, subject))]
            if rank > TRAIT:
                return read_here
            trait = trait or read_here
        if token in _NOT:
            if (following in _VAGUE_NOT and following != "only") or token in _BARELY:
                return trait
            negated ^= following != "only"
        elif token in _MAYBE or (token in ("would", "should") and following == "have") or token in _REPORTS:
            return trait
        elif token in _GIVES:
            gives = True
        elif head is None and not (token in _BE or token in _NOUNS or _light(token) or subject is None):
            slack += 1
            opens = slack == 1 and not gives and (negated or token.endswith(("s", "ed")))
            opens = opens and token not in _WANTS
            if not (gives or opens) or slack > 3:
                return trait
            gives = True
        place += 1
    return trait


_WANTS = _words("needs needed requires required tries tried aims attempts attempted wants wanted seeks claims")
_SCORES = _words("score scores rating ratings grade mark marks rank overall")
_LEVELS = _words("level degree quality accuracy clarity detail depth relevance standard amount understanding")
_MERITS = _words(
    "detail details depth information context examples insight insights specifics accuracy clarity explanation"
)
_ERRORS = _words("errors mistakes inaccuracies hallucinations issues problems flaws error mistake")


def _head(tokens: list[str], place: int, gives: bool, negated: bool) -> tuple[int, bool] | None:
    """Return rank and sign of the praise or blame that stands at a place, None if none does."""
    token = tokens[place]
    rest = [word for word in tokens[place + 1 : place + 5] if not (word.endswith("ly") and word not in _GOOD)]
    following = rest[0] if rest else ""
    if token in ("as", "so") and following in _GOOD | _EVEN and "as" in rest[1:3]:
        return (VERDICT if following in _EVEN else GROUND, True) if negated else None
    if token == "better":
        plain = not rest or following in _ANSWER or following in _AFTER_BETTER
        return (VERDICT if plain else GROUND, True)
    if token in _BETTER:
        return None if token == "best" and place and tokens[place - 1] in ("at", "its") else (VERDICT, True)
    if token in _WORSE:
        return VERDICT, False
    if (token in ("edges", "edging") and following == "out") or token in _EDGE:
        return VERDICT, True
    if token in _WINS:
        if token.startswith(("exceed", "surpass", "beat")) and _rival(tokens, place) is None:
            return None
        return (VERDICT, not (token in _BEATEN and following == "by"))
    if token in _LOSES:
        return VERDICT, False
    if token in ("falls", "fell") and following == "short":
        return GROUND, False
    if token in ("more", "most", "less", "fewer", "lower") or token in _GRADED:
        return _graded(token, rest)
    if token in _CORRECT | _INCORRECT:
        return TRAIT, token in _CORRECT
    if token in _FAILS:
        return TRAIT, False
    return None


_AFTER_BETTER = _NOUNS | _words(
    "than as because at in for due with given on when to overall and or quality one since here based"
)


def _graded(token: str, rest: list[str]) -> tuple[int, bool] | None:
    praised = next((word for word in rest[:2] if word in _GOOD | _BAD | _MERITS | _ERRORS | _SCORES | _LEVELS), None)
    up = token not in ("less", "fewer", "lower")
    if token in ("higher", "lower"):
        if praised in _SCORES or not rest or rest[0] in ("than", "in", "due", "for", "because", "overall"):
            return VERDICT, up
        return (GROUND, up) if praised is not None else None
    if token in _GRADED:
        return GROUND, True
    if praised is None or praised in _SCORES or (praised != rest[0] and rest[0] not in _GOOD):
        return None
    return GROUND, up == (praised in _GOOD or praised in _MERITS or praised in _LEVELS)


def _rival(tokens: list[str], place: int) -> Answer | None:
    """Return the response that a head at a place is measured against: "better than that of X", "outperforms X"."""
    for ahead in range(place + 1, min(place + 12, len(tokens))):
        if tokens[ahead] in _ANSWER and (ahead == place + 1 or _is_object(tokens, ahead)):
            between = set(tokens[place:ahead])
            measured = {"than", "over", "compared", "beyond", "by", "as"} & between
            measured = measured or ("to" in between and tokens[place] not in _EDGE)
            return _ANSWER[tokens[ahead]] if measured or tokens[place] in _WINS else None
    return None

"""The grammar of comparative judgments: which of two responses does a sentence favor, and how strongly?

A sentence is split into segments at commas and joining words. A segment has a *subject* (the response before its verb,
or the subject of the previous segment) and a *head* (the word that praises or blames it). A response after "than",
"compared to", "over", "by" or "of" is not a subject but the rival in a comparison, and its noun phrase ("Response 2's
incorrect statement") is not read. Concessions ("although ...", "while X is longer, ...") are ignored.

>>> remarks("Response 1 is longer, but its proof is worse than that of Response 2.")
[Remark(rank=3, prefers=2, about=None)]
>>> remarks("Although Response 1 is better written, Response 2 counts the cups.")
[Remark(rank=0, prefers=None, about=2)]

It is one pass over the words that looks only a few words back and ahead, so no hostile text can make it slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from r1_reward.judge import verdict_words as w
from r1_reward.judge.verdict_names import ANSWERS, BOTH, FIRST, NUMERALS, mark_names
from r1_reward.judge.verdict_sentences import IN_NO_WAY, SCOPE, TIE, concludes, without_condition
from r1_reward.records.schema import Answer

VERDICT, GROUND, TRAIT, MENTION = 3, 2, 1, 0
"""Ranks: a verdict ("is better"), a comparison ("is more accurate"), a trait ("is correct"), only a subject."""

_TOKEN = re.compile(r"[①②③]|'s\b|[a-z]+(?:[-'][a-z]+)*|\d+(?:\.\d+)?|[,;:()/—–?]")
_NEAR = 12
"""How many words before or after a word can belong to it."""


class Remark(NamedTuple):
    """A statement in favor of a response; ``prefers`` is None if it favors neither."""

    rank: int
    prefers: Answer | None
    about: Answer | None = None
    """The response that is praised or blamed, None if only its rival is named."""

    @property
    def blames(self) -> bool:
        """Whether it is against the response that it is about."""
        return self.about is not None and self.prefers not in (None, self.about)


def remarks(sentence: str) -> list[Remark]:
    """Return a sentence's remarks on either response, in order; [] for a question."""
    return read(mark_names(sentence))


def read(marked: str) -> list[Remark]:
    """Return the remarks of one sentence whose names are marked, see :func:`.verdict_names.mark_names`."""
    tokens = _TOKEN.findall(marked)
    if not tokens or tokens[-1] == "?":
        return []
    tokens = without_condition(tokens)
    if not tokens or IN_NO_WAY.search(marked):
        return []
    found = [*_named_last(tokens), *_said_of_subjects(tokens)]
    if SCOPE.search(marked) and not concludes(marked):
        found = [one._replace(rank=min(one.rank, GROUND)) for one in found]
    if all(one.rank == MENTION for one in found) and TIE.search(marked):
        return [Remark(VERDICT, None)]
    if not found and {BOTH, "both", "neither"} & set(tokens):
        return [Remark(GROUND, None)]
    return found


def scores(marked: str) -> dict[Answer, float]:
    """Return the last score a sentence gives each response: "Response 1 gets 8/10", "earning it a score of 6"."""
    tokens = _TOKEN.findall(marked)
    holder: Answer | None = None
    found: dict[Answer, float] = {}
    for place, token in enumerate(tokens):
        if token in ANSWERS and (tokens[max(place - 2, 0) : place] in _SCORE_OF or not _is_object(tokens, place)):
            holder = ANSWERS[token]
        elif holder is not None and token[0].isdecimal():  # isdigit() is true of the names, too: "②"
            behind = tokens[place + 1 : place + 3]
            before = [word for word in tokens[max(place - 3, 0) : place] if word not in ("of", ":", "is", "a")]
            if _counts_errors(tokens, place):
                continue
            if behind[:1] == ["/"] or behind == ["out", "of"] or before[-1:] in _SCORED:
                found[holder] = float(token)
    return found


def _counts_errors(tokens: list[str], place: int) -> bool:
    """Return whether the number at a place counts errors: "an error rate of 2/10", "3/10 facts wrong"."""
    behind: list[str] = []
    for token in tokens[place + 1 : place + 7]:
        if token in ANSWERS or token in (",", "and", "for", "due", "because", "as"):
            break
        behind.append(token)
    return bool((w.ERRORS | {"wrong", "incorrect"}) & {*tokens[max(place - 4, 0) : place], *behind})


_SCORED = (["score"], ["rating"], ["gets"], ["receives"], ["an"])
_SCORE_OF = (["score", "of"], ["rating", "of"])


# --- verdicts that name their response last --------------------------------------------------------------------------


def _named_last(tokens: list[str]) -> Iterator[Remark]:
    """Yield the verdicts of "I choose X", "in favor of X", "the better answer is X", "winner: X"."""
    for place, token in enumerate(tokens):
        before = set(tokens[max(place - 4, 0) : place])
        named, denied = None, bool(w.NOT & before)
        if token in w.PICKS or (tokens[place - 1] if place else "", token) in w.PICKS_WITH:
            to = tokens[place - 1 : place] == ["to"]
            denied ^= to and "little" in before  # "there is little to recommend X"
            # "some might prefer X", "why anyone would prefer X", "it would be a mistake to choose X"
            if not (w.MAYBE | {"anyone", "anybody"}) & before and not (to and w.WRONG & before):
                named = _name_behind(tokens, place + 1, w.LIGHT | w.NOUNS | {"for", "from"})
        elif token in w.BETTER | w.WORSE | w.NAMES_IT:
            named, reversed_ = _linked(tokens, place)
            denied = (denied or reversed_) != (token in w.WORSE)
        elif token in _ADJECTIVES and tokens[place + 1 : place + 2] and tokens[place + 1] in w.NOUNS:
            yield from _superlative(tokens, place)
        elif token == "final" and place == 0 and len(tokens) == 2:  # "final answer: 2" is "final ②" by now
            named = _name_behind(tokens, 1)
        if named is not None:
            yield Remark(VERDICT, _other(named) if denied else named)


def _superlative(tokens: list[str], place: int) -> Iterator[Remark]:
    """Yield the remark of "the correct answer is X", "the less accurate of the two is X"."""
    named, denied = _linked(tokens, place)
    degree = "".join(tokens[place - 1 : place])
    if named is None or denied:
        return
    if degree in ("more", "most", "less", "least"):
        praises = (tokens[place] not in w.BAD) == (degree in ("more", "most"))
        yield Remark(GROUND, named if praises else _other(named), named)
    elif tokens[place] in w.CORRECT:
        yield Remark(TRAIT, named, named)


_ADJECTIVES = w.GOOD | w.BAD | w.CORRECT


def _linked(tokens: list[str], place: int) -> tuple[Answer | None, bool]:
    """Return the response named after "the better answer is", and whether there is a negation between them."""
    end = place + 1
    while end < min(len(tokens), place + 7) and (tokens[end] in w.ON_THE_WAY or _light(tokens[end])):
        end += 1
    if end >= len(tokens) or (tokens[end] not in w.LINKS and (end > place + 1 or tokens[place] in w.NAMES_IT)):
        return None, False
    start, linked = end, tokens[end] in w.LINKS
    while linked and end < len(tokens) and (tokens[end] in _AFTER_LINK or _light(tokens[end])):
        end += 1
    return _name_behind(tokens, end), bool(w.NOT & set(tokens[start:end]))


_AFTER_LINK = w.LINKS | w.NOT | w.ON_THE_WAY | {"to"}


def _name_behind(tokens: list[str], place: int, passed: frozenset[str] = frozenset()) -> Answer | None:
    """Return the response named after words to skip, None if it is the subject of a new clause."""
    while place < len(tokens) and tokens[place] in passed:
        place += 1
    if place >= len(tokens) or (place + 1 < len(tokens) and tokens[place + 1] in w.VERBS - {"as", "to"}):
        return None
    if tokens[place] in ("1", "2") and "".join(tokens[place + 1 : place + 2]) in _BEHIND_NUMERAL:  # not "2 cups"
        return ANSWERS[NUMERALS[tokens[place]]]
    return ANSWERS.get(tokens[place])


_BEHIND_NUMERAL = w.words("as because since over due for , : ) ; — –") | {""}


def _other(answer: Answer) -> Answer:
    return 2 if answer == 1 else 1


def _light(token: str) -> bool:
    return token in w.LIGHT or token.endswith("ly")


# --- what clauses say about their subjects ---------------------------------------------------------------------------


def _segments(tokens: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the segments of a sentence, each with the comma or word that joins it to the previous one."""
    join = ""
    current: list[str] = []
    for place, token in enumerate(tokens):
        if token in (",", "and", "or") and _lists(tokens, place):
            continue
        if token in ",;:()—–" or token in w.JOINS or token in w.CONCEDES or token in w.CONTRASTS:
            if current:
                yield join, current
                join, current = "", []
            join = token if token.isalpha() or not join else join  # ", although": the word outranks the comma
            if token == "making" or token in w.GIVES:
                current = [token]
        else:
            current.append(token)
    if current:
        yield join, current


def _lists(tokens: list[str], place: int) -> bool:
    """Return whether a comma or "and" only joins two adjectives: "more helpful, relevant, and accurate"."""
    between = ("and", "or", "more", "most", "less")
    behind = (token for token in tokens[place + 1 : place + 5] if token not in between and token[-2:] != "ly")
    return next(behind, "") in w.GOOD | w.BAD


def _said_of_subjects(tokens: list[str]) -> list[Remark]:
    found: list[Remark] = []
    subject: Answer | None = None
    conceding = contrasting = seen = at_first = False
    last = ""
    for join, segment in _segments(tokens):
        at_first = join not in w.TURNS and (at_first or (not seen and _is_at_first(segment)))
        if at_first or join in w.CONCEDES or (join in w.CONTRASTS and not seen):
            conceding = True
        elif join in w.CONTRASTS:
            conceding, contrasting = False, True
        elif conceding and join not in ("and", "which", "because", "since", "when", "where", "("):
            conceding = not _opens_main_clause(segment, seen)
        elif join in ("but", "so", "therefore", "thus", "hence", "however", ";"):
            contrasting = False
        if conceding:
            continue
        if join in w.TURNS and _takes_back(segment):  # "..., but it is not"
            found = [one for one in found if one.rank == MENTION]
            continue
        if join == "which" and "it" not in segment:
            subject = ANSWERS.get(last)
        subject, said = _read_segment(segment, subject)
        seen = seen or any(token in ANSWERS or token == BOTH for token in segment)
        last = segment[-1]
        ranks = [one.rank for one in said if one.rank > MENTION]
        if join in w.TURNS and ranks:  # "accurate, but lacks detail": the part after "but" counts
            found = [one for one in found if one.rank > ranks[0]]
        found += _by_contrast(found, said) if contrasting else said
    return found


def _is_at_first(segment: list[str]) -> bool:
    """Return whether a segment concedes: "admittedly, ...", "at first sight ...", "X seems better at first"."""
    return segment[0] in w.AT_FIRST or any(one == "first" and before == "at" for before, one in pairwise(segment))


def _takes_back(segment: list[str]) -> bool:
    words = [token for token in segment if not _light(token)]
    return bool(words) and words[-1] == "not" and set(words[:-1]) <= w.BE


def _by_contrast(found: list[Remark], said: list[Remark]) -> Iterator[Remark]:
    """Yield the remarks of "..., while Y ..." that count: blame of Y, a verdict, and praise that disputes ``found``."""
    for remark in said:
        disputes = any(one.rank == remark.rank and one.prefers != remark.prefers for one in found)
        settles = remark.rank == VERDICT and all(one.rank < VERDICT for one in found)
        if remark.blames:
            yield remark._replace(rank=max(remark.rank, GROUND))
        elif disputes or settles:
            yield remark


def _opens_main_clause(segment: list[str], seen: bool) -> bool:
    """Return whether the segment after a concession's comma is the main clause, not part of the concession."""
    starts = ("it", "this", "the", "both")
    opener = next((token for token in segment if token in starts or not _light(token)), "")
    return (
        opener in ANSWERS
        or opener in (*starts, BOTH, "i", "there", "neither", "we", "my")
        or (seen and opener in w.VERBS)  # "X, despite its length, is better"
    )


def _read_segment(tokens: list[str], inherited: Answer | None) -> tuple[Answer | None, list[Remark]]:
    """Return the subject in force after a segment, and the segment's remarks."""
    opener = next((token for token in tokens if not _light(token) and token not in w.NOT), "it")
    if opener in ("making", "makes", "with", "as", "why") and tokens[1:2] == ["it"]:
        opener = "it"
    holder = inherited if opener in w.OPENS else None
    subject, said, start = inherited, [], 0
    for place, token in enumerate([*tokens, FIRST]):  # the last one closes the last clause
        if (token not in ANSWERS and token != BOTH) or (place < len(tokens) and _is_object(tokens, place)):
            continue
        belief = _belief(tokens[max(start - _NEAR, 0) : max(start - 1, 0)])
        clause = _read_clause(holder, tokens[start:place], denied=not belief) if belief is not None else []
        said += clause or ([Remark(MENTION, None, holder)] if holder is not None and start else [])
        holder, start = ANSWERS.get(token), place + 1
        subject = holder if place < len(tokens) else subject
        if token == BOTH:
            break
    if "that" in tokens or any(token in w.REPORTS for token in tokens):
        subject = None  # what follows may be about what the response says
    return subject, said


def _is_object(tokens: list[str], place: int) -> bool:
    """Return whether the response at a place is not a subject: "than X", "that of X"; but "the answer by X is ..."."""
    before = place - 1
    while before >= 0 and tokens[before] in ("the", "that", "what", "those", "only", "how"):
        before -= 1
    if before < 0:
        return False
    if tokens[place - 1] in ("everything", "what", "all") and tokens[place + 1 : place + 2] == ["does"]:
        return True  # "Y does everything X does, and better"
    if before > 0 and tokens[before] == "as" and tokens[before - 1] in w.GOOD | w.EVEN:  # "not as good as X"
        return True
    if tokens[before] not in w.OBJECT:
        return _is_direct_object(tokens, place)
    following = next((token for token in tokens[place + 1 : place + 4] if not _light(token)), "")
    if following not in w.VERBS:
        return True
    earlier = set(tokens[max(place - _NEAR, 0) : place])
    measured = earlier & {*ANSWERS, "than", "compared", "unlike"} or tokens[before] == "over"
    part = tokens[before] in ("by", "from", "of", "in") and w.NOUNS & earlier and not measured
    return not (part or following.endswith("ing"))


def _is_direct_object(tokens: list[str], place: int) -> bool:
    """Return whether the response at a place is the object of another's verb: "X corrects Y's mistake"."""
    verb = tokens[place - 1]
    behind = tokens[place + 1 : place + 1 + _NEAR]
    return (
        verb.endswith(("s", "es"))
        and verb not in w.VERBS | w.REPORTS | {"'s", "is", "this", "as"}
        and any(token in ANSWERS for token in tokens[max(place - 4, 0) : place - 1])
        and (not behind or behind[0] in ("'s", "in", "on", "for", "at", "by"))
        and not w.VERBS & set(behind)
    )


_SAYING = (["calling"], ["to", "call"], ["to", "say"], ["saying"])


def _belief(before: list[str]) -> bool | None:
    """Return whether the words before a subject affirm what follows; None if they leave it open ("not clear that")."""
    words = [token for token in before if token != "that" and not _light(token)]
    said = set(words[-3:])
    if w.ONCE & said or (w.MAYBE & said and (w.DOUBTS | w.REPORTS) & said) or words in _SAYING:
        return None
    if {"that", "to"} & set(before[-3:]) and (w.WRONG & set(words[-4:]) or (before[-1] == "that" and w.CLAIMS & said)):
        return None  # "it is wrong to call X", "the claim that X"
    if "see" in words and (w.NOT | {"fail"}) & set(words):
        return None  # "I fail to see how X ..."
    if w.NOT & set(words[-4:]) and words[-1] in ("make", "makes", "made", "say", "call"):
        return None  # "that does not make X better"
    if "doubt" in said or (w.NOT & said and w.DOUBTS & said):
        return "no" in said
    if (w.NOT & said and before[-1:] == ["that"]) or w.REPORTS & said - w.DOUBTS:
        return None
    return True


def _read_clause(subject: Answer | None, tokens: list[str], *, denied: bool) -> list[Remark]:
    """Return the remarks of the words after a subject; without a subject, only comparisons with a rival."""
    place, negated, gives, slack = _verb(tokens), denied, False, 0
    trait: list[Remark] = []
    while place < len(tokens):
        token, following = tokens[place], "".join(tokens[place + 1 : place + 2])
        head = _head(tokens, place, negated)
        if head is not None:
            rank, praises = head
            rival = _rival(tokens, place)
            named = _other(rival) if rival is not None else subject
            if slack and token in w.WINS | w.LOSES | w.EDGE | {"winner", "loser"}:
                return trait  # "covers the award winner": about something else
            if slack and token in _ATTRIBUTES and following and following not in w.AFTER_BETTER | {"answer"}:
                return trait  # "names the superior officer"
            if any(one == "than" and other in w.NO_RIVALS for one, other in pairwise(tokens[place + 1 : place + 5])):
                return trait  # "better than nothing", "more convincing than it is"
            if token in w.EDGE and following == "of":
                return trait  # "the advantage of brevity"
            if named is None or rival == subject or (rank == TRAIT and subject is None):
                return []
            remark = Remark(rank, named if praises != negated else _other(named), subject)
            if rank > TRAIT:
                return [remark]
            trait = trait or [remark]
            negated ^= token in ("fails", "failed") and following == "to"
        elif token in w.NOT:
            if following in w.LEAVES_OPEN or token in w.BARELY:
                return trait
            negated ^= following != "only"
        elif (
            token in w.MAYBE or token in w.REPORTS or (token, following) in _NOT_NOW or token in _NEARLY and not negated
        ):
            return trait
        elif token in w.GIVES:
            gives = True
        elif not (token in w.BE or token in w.NOUNS or _light(token) or subject is None):
            slack += 1
            verb = slack == 1 and (negated or token.endswith(("s", "ed"))) and token not in w.WANTS
            if slack > 3 or not (gives or verb):
                return trait
            gives = True
        place += 1
    return trait


_NEARLY = w.words("nearly almost")
_NOT_NOW = {("would", "have"), ("should", "have"), ("used", "to")}
_ATTRIBUTES = (w.BETTER | w.WORSE) - w.COMPARED | {"superior", "inferior"}


def _verb(tokens: list[str]) -> int:
    """Return where the verb of a subject begins: after "'s" and its noun phrase, which is ignored."""
    if tokens[:1] != ["'s"]:
        return 0
    for place, token in enumerate(tokens):
        if token == "that" and w.CLAIMS & set(tokens[:place]):
            return len(tokens)  # "X's claim that it is better ..."
        if token in w.VERBS or (token in w.COMPARED and tokens[place - 1] in w.NOUNS):  # "rate X's answer higher"
            return place
    return len(tokens)


def _head(tokens: list[str], place: int, negated: bool) -> tuple[int, bool] | None:
    """Return the rank and sign (whether it praises) of the head at a place, None if there is none."""
    token = tokens[place]
    rest = [word for word in tokens[place + 1 : place + 5] if word in w.GOOD or not word.endswith("ly")]
    following = rest[0] if rest else ""
    if token in ("as", "so") and following in w.GOOD | w.EVEN and "as" in rest[1:3]:
        return (VERDICT if following in w.EVEN else GROUND, True) if negated else None
    if token == "better":
        return (VERDICT if not rest or following in w.AFTER_BETTER or following in ANSWERS else GROUND), True
    if token == "best" and place and tokens[place - 1] in ("at", "its"):
        return None
    if token in ("edges", "edging") and following != "out":
        return None
    if token in ("exceeds", "surpasses", "beats", "beat") and _rival(tokens, place) is None:
        return None
    if token in w.BETTER | w.WINS | w.EDGE:
        return VERDICT, not (token in w.BEATEN and following == "by")
    if token in w.WORSE | w.LOSES:
        return VERDICT, False
    if token in ("more", "most", "less", "fewer", "lower") or token in w.GRADED:
        return _graded(token, rest)
    if token in w.CORRECT | w.INCORRECT | w.FAILS:
        return TRAIT, token in w.CORRECT
    return (GROUND, False) if token in ("falls", "fell") and following == "short" else None


_RIGHT = w.GOOD | w.MERITS | w.LEVELS | w.CORRECT
_GRADABLE = _RIGHT | w.INCORRECT | w.BAD | w.ERRORS | w.SCORES


def _graded(token: str, rest: list[str]) -> tuple[int, bool] | None:
    """Return the rank and sign of "more accurate", "less detail", "fewer errors", "a higher score", "clearer"."""
    thing = next((word for word in rest[:2] if word in _GRADABLE), None)
    up = token not in ("less", "fewer", "lower")
    if token in ("higher", "lower"):
        if thing in w.SCORES or not rest or rest[0] in ("than", "in", "due", "for", "because", "overall"):
            return VERDICT, up
        return (GROUND, up) if thing is not None else None
    if token in w.GRADED:
        return GROUND, True
    if thing is None or thing in w.SCORES or (thing != rest[0] and rest[0] not in w.GOOD):
        return None
    return GROUND, up == (thing in _RIGHT)


def _rival(tokens: list[str], place: int) -> Answer | None:
    """Return the rival in a head's comparison: "better than that of X", "outperforms X"."""
    for ahead in range(place + 1, min(place + _NEAR, len(tokens))):
        if tokens[ahead] in ANSWERS and (ahead == place + 1 or _is_object(tokens, ahead)):
            between = set(tokens[place:ahead])
            by_to = "to" in between and tokens[place] not in w.EDGE  # "superior to X"; but "the edge goes to X"
            measured = by_to or tokens[place] in w.WINS or between & _MEASURES
            return ANSWERS[tokens[ahead]] if measured else None
    return None


_MEASURES = w.words("than over compared beyond as")

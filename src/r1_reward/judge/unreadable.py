"""Report early that a judge's answers cannot be read, with an example and the likely cause.

All code that asks a judge for many verdicts passes each answer to a :class:`Watch`::

    watch = Watch("runs/rl", "stop", limit="--max-new-tokens (now 1024)")
    for votes in draw_votes(engine, pairs, plan):
        if not watch.add(map(reading_of, votes)):   # none of the first 50 answers can be read
            break
    watch.check(left)                               # raises UnreadableJudge if that is why rows are left

The cause is derived from facts: what the engine reports of a text (cut by the limit, refused) and what the text has
instead of a verdict. It is reported, never acted on: another form of verdict is named but is still not a vote.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from r1_reward.judge.settings import OnUnreadable
from r1_reward.records.dialect import Dialect
from r1_reward.records.dialects import DEFAULT, dialect_names, find_dialect
from r1_reward.records.errors import UserError
from r1_reward.records.parsing import spoken_from
from r1_reward.records.schema import Completion, Judgment

_LOG = logging.getLogger(__name__)

OURS = find_dialect(DEFAULT)
FIRST = 50
"""The number of first answers after which a judge counts as unreadable if none of them can be read."""

FEW = 0.1
"""With a smaller share of readable answers, a report begins with a warning."""

CUT = "cut by the token limit"
REFUSED = "refused, or stopped by a filter"
EMPTY = "empty"
ONLY_THOUGHT = "a thought with no answer behind it"
IN_THOUGHT = "the verdict inside the thought, with nothing behind it"
UNENDED = "a thought that never ends"
SEVERAL = "several answers"
UNCLOSED = "an <answer> tag that is not closed, or was not opened"
BRACKETS = "another form of verdict: [[A]]"
BOXED = "another form of verdict: \\boxed{1}"
JSON = "another form of verdict: JSON"
IN_WORDS = "an <answer> that is not 1 or 2 alone"
OTHER_TAG = "another form of verdict: a tag that is not <answer>"
SENTENCE = "another form of verdict: plain words"
NOTHING = "no verdict in any known form"

_LOOKED_AT = 4000  # characters at the end, where the verdict is

_OURS = "only {form} is read: check the model, and that it gets the prompt unchanged"
_ADVICE = {
    CUT: "raise {limit}",
    REFUSED: "the model or a filter declines to judge: read the example, or use another model",
    EMPTY: "check the server's log, its chat template and its stop words",
    ONLY_THOUGHT: "if the server returns the reasoning in a separate field, the answer itself is empty: raise "
    "{limit}, or switch off the server's reasoning parser",
    IN_THOUGHT: "the server's reasoning parser seems to treat the whole text as reasoning: switch it off",
    UNENDED: "raise {limit}, and check the server's reasoning parser and stop words",
    NOTHING: "check that this is a judge, and that it gets the prompt unchanged, in its own chat template",
}

_REFUSALS = re.compile(
    r"(?:i['’]?m (?:really |very )?sorry|sorry,|i (?:can['’]?t|cannot|can not|won['’]?t|am unable|am not able)|"
    r"i['’]m (?:unable|not able)|as an ai\b|unfortunately, i\b)",
    re.IGNORECASE,
)
_SIDE = (
    r"(?:answer|response|assistant|output|model|option|candidate|solution|completion|reply)s?"
    r"\W{0,3}(?:[12ab]|one|two)\b"
)
_CHOICE = r"(?:better|best|prefer\w*|winner|choose|verdict|judge?ment|choice|answer|decision)"
_FORMS = {
    BRACKETS: re.compile(r"\[\[\s*(?:[abc12]|tie)\b[^\]\n]{0,8}\]\]", re.IGNORECASE),
    BOXED: re.compile(r"\\boxed\s*\{"),
    JSON: re.compile(
        r"[\"'][\w ]{0,30}(?:answer|better|winner|prefer|choice|choose|chosen|verdict|judge?ment|decision|best|rank)"
        r"[\w ]{0,30}[\"']\s*:",
        re.IGNORECASE,
    ),
    IN_WORDS: re.compile(r"<answer>.*?</answer>", re.DOTALL),
    UNCLOSED: re.compile(r"<answer>|</answer>"),
    OTHER_TAG: re.compile(
        r"<\W?(?:answer|verdict|judge?ment|winner|choice|preference|final|decision|result)\w*>", re.IGNORECASE
    ),
    SENTENCE: re.compile(
        rf"\b{_SIDE}\W+(?:is|was|wins|seems|has|provides|gives)\b|"
        rf"\b{_CHOICE}\b\W+(?:(?:is|the|one|response|of)\W+)*(?:{_SIDE}|(?:[12ab]|first|second)\b)|"
        rf"\A\W*(?:{_SIDE}|[12ab])\W*\Z",
        re.IGNORECASE,
    ),
}
"""Searched for after the thought, in this order: the most specific form comes first."""


class UnreadableJudge(UserError):
    """None of a judge's first answers can be read, so the run stops; finished answers are kept."""


class Reading(NamedTuple):
    """The result of reading one answer."""

    reason: str = ""
    """Why it has no verdict; empty if it has one."""
    truncated: bool = False
    """Whether the token limit cut it."""
    example: str = ""
    """The beginning and end of the text on one line, if it has no verdict."""
    others: tuple[str, ...] = ()
    """Dialects that would read a verdict in it."""


def reading_of(vote: Judgment, dialect: Dialect = OURS) -> Reading:
    """Return the reading of a vote; a vote from release 0.1.0 may have a draft as its answer, which does not count."""
    draft = spoken_from(vote.text, cut=vote.truncated) is None
    return read(vote.text, readable=vote.answer is not None and not draft, truncated=vote.truncated, dialect=dialect)


def reading_of_completion(completion: Completion, *, readable: bool, dialect: Dialect = OURS) -> Reading:
    """Return the reading of a completion, whose engine also reports refusals."""
    truncated, refused = completion.truncated, completion.refused
    return read(completion.text, readable=readable, truncated=truncated, refused=refused, dialect=dialect)


def read(
    text: str, *, readable: bool, truncated: bool = False, refused: bool = False, dialect: Dialect = OURS
) -> Reading:
    """Return the reading of a text; ``readable`` says whether it has a verdict, the engine reports the other flags."""
    if readable:
        return Reading("", truncated)
    reason = why_unreadable(text, truncated=truncated, refused=refused, dialect=dialect)
    others = () if truncated or refused else tuple(_others(text, dialect))
    return Reading(reason, truncated, _shortened(text), others)


def _others(text: str, dialect: Dialect) -> Iterator[str]:
    """Yield the dialects other than ``dialect`` that would read a verdict in a text."""
    for other in map(find_dialect, dialect_names()):
        if other.name != dialect.name and not other.pointwise and other.parse(text).answer is not None:
            yield other.name


def why_unreadable(text: str, *, truncated: bool = False, refused: bool = False, dialect: Dialect = OURS) -> str:
    """Return why a text has no readable verdict, as one of the constants of this module.

    >>> why_unreadable("<think>The first one errs.</think><answer>Answer 2 is better</answer>")
    'an <answer> that is not 1 or 2 alone'
    """
    if refused:
        return REFUSED
    if truncated:
        return CUT
    if not text.strip():
        return EMPTY
    start = spoken_from(text)
    if start is None:
        return UNENDED
    tail = text[start:]
    if not tail.strip():
        return IN_THOUGHT if "<answer>" in text[:start].lower() else ONLY_THOUGHT
    if tail.count("<answer>") > 1 or tail.count("</answer>") > 1 or len(dialect.read(tail).spans) > 1:
        return SEVERAL
    for form, pattern in _FORMS.items():
        if pattern.search(tail[-_LOOKED_AT:]):
            return form
    return REFUSED if _REFUSALS.match(tail.lstrip()) else NOTHING


def _shortened(text: str) -> str:
    """Return the beginning of an untrusted text and its end, where the verdict would be, on one line."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= 240 else f"{line[:100]} ... {line[-140:]}"


def limit_of(max_new_tokens: int) -> str:
    """Return the option that limits a judge's answer, with its value."""
    return f"--max-new-tokens (now {max_new_tokens:,})"


class Readings:
    """Counts of answers: all, with a verdict, cut, and the reasons why the others have none."""

    def __init__(self, dialect: Dialect = OURS) -> None:
        """Take the dialect to read the answers in."""
        self.answers = self.readable = self.truncated = 0
        self.reasons: Counter[str] = Counter()
        self._dialect = dialect
        self._examples: dict[str, str] = {}
        self._others: Counter[str] = Counter()

    def add(self, reading: Reading) -> None:
        """Count one answer."""
        self.answers += 1
        self.truncated += reading.truncated
        self.readable += not reading.reason
        if reading.reason:
            self.reasons[reading.reason] += 1
            self._examples.setdefault(reading.reason, reading.example)
            self._others.update(reading.others)

    @property
    def example(self) -> str:
        """An answer without a verdict, for the most common reason; empty if there is none."""
        return self._examples[self.reasons.most_common(1)[0][0]] if self.reasons else ""

    def cause(self, limit: str = "the token limit") -> str:
        """Return, in words, why answers have no verdict and what to do, by frequency; empty if all have one.

        ``limit`` names the option that limits an answer, so that the reader knows what to raise.
        """
        if not self.reasons:
            return ""
        unread = self.reasons.total()
        said = [f"{count:,} of {unread:,}: {reason}" for reason, count in self.reasons.most_common(2)]
        dialect = self._dialect
        form = " or ".join(map(dialect.form.format, dialect.verdicts)) if dialect.verdicts else dialect.form
        advice = _ADVICE.get(self.reasons.most_common(1)[0][0], _OURS).format(limit=limit, form=form)
        return f"{'; '.join(said)}. What helps: {advice}{self._hint()}."

    def _hint(self) -> str:
        """Return which dialects would read most of the unreadable answers; the user has to choose one."""
        names = [name for name, count in self._others.items() if 2 * count > self.reasons.total()]
        if not names:
            return ""
        return f"; or, if the judge was trained to answer that way, --dialect {' or '.join(names)}, which reads it"

    def report(self, limit: str = "the token limit") -> dict[str, Any]:
        """Return everything for JSON: counts, reasons with their counts, one example, the cause in words."""
        return {
            "answers": self.answers,
            "readable": self.readable,
            "truncated": self.truncated,
            "reasons": dict(self.reasons.most_common()),
            "example": self.example,
            "cause": self.cause(limit),
        }


class Watch:
    """Counts a judge's readable answers, and reports once if none of the first :data:`FIRST` can be read."""

    def __init__(
        self,
        judge: str,
        on_unreadable: OnUnreadable,
        *,
        limit: str = "the token limit",
        speaks: bool = True,
        dialect: Dialect = OURS,
    ) -> None:
        """Take the judge's name, what to do, and what limits an answer: ``--max-new-tokens (now 1,024)``.

        If several processes watch together, only one ``speaks``. ``dialect`` is the one to read the answers in.
        """
        self.dialect = dialect
        self.readings = Readings(dialect)
        self._judge, self._on, self._limit, self._speaks = judge, on_unreadable, limit, speaks
        self._elsewhere = self._elsewhere_readable = 0
        self._said = ""

    def add(self, readings: Iterable[Reading], *, elsewhere: tuple[int, int] = (0, 0)) -> bool:
        """Count answers; return False if no more should be requested.

        ``elsewhere`` counts answers, and those with a verdict among them, that only other processes have seen.
        """
        for reading in readings:
            self.readings.add(reading)
        self._elsewhere += elsewhere[0]
        self._elsewhere_readable += elsewhere[1]
        readable = self.readings.readable + self._elsewhere_readable
        if not self._said and not readable and self.readings.answers + self._elsewhere >= FIRST:
            self._said = self._words()
            if self._on == "warn" and self._speaks:
                _LOG.warning("%s", self._said)
        return not self.stopped

    @property
    def stopped(self) -> bool:
        """Whether no more answers should be requested."""
        return bool(self._said) and self._on == "stop"

    @property
    def words(self) -> str:
        """The report on an unreadable judge (counts, cause, example); empty if there is nothing to report."""
        return self._said

    def check(self, left: int) -> None:
        """Raise UnreadableJudge if that is why ``left`` rows have no answer; if no row is left, warn."""
        if not self.stopped:
            return
        if not left:
            _LOG.warning("%s", self._said)
            return
        raise UnreadableJudge(
            f"{self._said}\nStopped with {left:,} rows left. Finished answers are kept, and the same command resumes "
            "from there; to continue in any case: --on-unreadable warn."
        )

    def _words(self) -> str:
        answers = self.readings.answers + self._elsewhere
        lines = [
            f"{self._judge}: not one of the first {answers:,} answers can be read. {self.readings.cause(self._limit)}"
        ]
        if self.readings.reasons:
            lines.append(f"One of them: {self.readings.example or '(empty)'}")
        return "\n".join(lines)

r"""The prompt and answer form of one published judge: a dialect, one small file each in ``records/dialects``.

A dialect is a prompt (a text file with placeholders for the question and the responses) and the form of its verdict.
The shared code is here, in :mod:`~r1_reward.records.prompt` and in :mod:`~r1_reward.records.parsing`: placeholders are
filled in one pass, hostile text is neutralized, and a verdict counts only outside the model's thought.

>>> from r1_reward.records.dialects import find_dialect
>>> find_dialect("rm-r1").parse("<eval>Chatbot B miscounts.</eval>\n<answer>[[A]]</answer>")
ParsedJudgment(answer=1, reasoning='<eval>Chatbot B miscounts.</eval>', well_formed=True)
>>> find_dialect("llm-as-judge").parse("Both are right: [[C]]").answer
0
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from r1_reward.records.content import Shown
from r1_reward.records.parsing import ParsedJudgment, parse_judgment, spoken_from
from r1_reward.records.prompt import fill_template
from r1_reward.records.schema import Judgment, Label

_PLACEHOLDER = re.compile(r"\{(question|answer1|answer2)\}")


class Found(NamedTuple):
    """The verdict in the part of a text after the thought; offsets count from the start of that part."""

    answer: Label | None = None
    """1 or 2 in the order shown, 0 for a tie, None if there is no verdict or verdicts contradict each other."""
    spans: tuple[tuple[int, int], ...] = ()
    """Start and end of every verdict; the rest is reasoning."""
    at: int | None = None
    """Offset of the single character that carries the verdict (1 or 2, A or B), None if there is none."""


NOTHING = Found()


@dataclass(frozen=True)
class Dialect:
    """The prompt and the verdict form of one kind of judge."""

    name: str
    title: str
    """Which judges it is for, in a few words."""
    form: str
    """The form of a verdict, with ``{}`` for one of :attr:`verdicts`."""
    read: Callable[[str], Found]
    """Finds the verdict in the part of a text after the thought."""
    template: str
    """The prompt with its placeholders, or the name of its file (.txt) in ``records/templates``."""
    source: str
    """Source of the prompt and the form, and the license of the wording."""
    system: str | None = None
    """A system message, or its file, for judges that were trained with one."""
    verdicts: tuple[str, str] | None = ("1", "2")
    """The verdicts for response 1 and response 2, one token each; None if no single token carries the verdict."""
    ties: bool = False
    """Whether the prompt allows a tie."""
    hostile: tuple[str, ...] = ()
    """Patterns to neutralize in questions and responses; none may match once a space follows its first character, and
    none may have a named or numbered group."""
    models: tuple[str, ...] = ()
    """Case-insensitive patterns of the names of models that use the dialect."""
    labels: tuple[str, str] = ("Response 1", "Response 2")
    """The prompt's names for the two responses."""
    score: Callable[[str], float | None] | None = None
    """For judges that see one response at a time: reads its score, in [0, 1], from the text after the thought."""
    write: Callable[[Label | None, float | None, str], str] | None = None
    """Writes an answer that :attr:`form` cannot express, from the answer, the probability that the first response is
    better, and the reasoning."""

    @property
    def pointwise(self) -> bool:
        """Whether its judges see one response at a time."""
        return self.score is not None

    def messages(
        self, question: Shown, *responses: Shown, images: int = 0, special_tokens: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the chat that asks about two responses, or about one if the judge sees one at a time.

        In the default dialect it equals :func:`r1_reward.records.prompt.build_messages`: ``images`` come first, the
        images of contents keep their positions, and hostile text is neutralized, including this dialect's own.
        """
        names = ("answer1",) if self.pointwise else ("answer1", "answer2")
        contents = {"question": question, **dict(zip(names, responses, strict=True))}
        parts = fill_template(self.wording(), _PLACEHOLDER, contents, special_tokens, self.hostile)
        user = {"role": "user", "content": [*({"type": "image"} for _ in range(images)), *parts]}
        if self.system is None:
            return [user]
        return [{"role": "system", "content": [{"type": "text", "text": _template(self.system)}]}, user]

    def parse(self, text: str, *, cut: bool = False) -> ParsedJudgment:
        """Parse one judgment; ``cut`` says that the token limit or a filter cut it off.

        ``reasoning`` is everything except the thought's tags and the sentences of the verdict; ``well_formed`` says
        whether there is a verdict.
        """
        text = text.strip()
        start = spoken_from(text, cut=cut)
        if start is None:
            return ParsedJudgment(None, parse_judgment(text).reasoning, False)
        spoken = text[start:]
        found = self.read(spoken)
        parts = (parse_judgment(text[:start]).reasoning, without(spoken, found.spans).strip())
        return ParsedJudgment(found.answer, "\n\n".join(filter(None, parts)), found.answer is not None)

    def reasoning(self, vote: Judgment) -> str:
        """Return the reasoning of a vote, or its whole text if its verdict cannot be read."""
        return vote.text if vote.answer is None else self.parse(vote.text, cut=vote.truncated).reasoning

    def place(self, text: str) -> int | None:
        """Return the offset of the character that carries the verdict, None if there is none."""
        start = spoken_from(text)
        at = None if start is None else self.read(text[start:]).at
        return None if start is None or at is None else start + at

    def position(
        self, tokens: Sequence[int], verdicts: Sequence[int], decode: Callable[[list[int]], str], text: str
    ) -> int | None:
        """Return the index of the token in ``tokens`` that carries the verdict of their ``text``, None if none does.

        ``verdicts`` are the tokens of the two verdicts; ``decode`` turns tokens into text.
        """
        place = self.place(text)
        behind = None if place is None else len(text) - place
        for position in range(len(tokens) - 1, -1, -1):
            if behind is not None and tokens[position] in verdicts:
                length = len(decode(list(tokens[position:])).lstrip())  # some tokens begin with a space
                if length >= behind:
                    return position if length == behind else None
        return None

    def as_ours(self, text: str) -> str:
        """Return a judgment that has a verdict in the form of the default dialect, to train a student on.

        The two responses are renamed accordingly; the reasoning of :meth:`parse` becomes the thought.
        """
        parsed = self.parse(text)
        ours = dict(zip(self.labels, ("Response 1", "Response 2"), strict=True))
        names = re.compile("|".join(rf"\b{re.escape(label)}\b" for label in ours))
        reasoning = names.sub(lambda match: ours[match[0]], parsed.reasoning)
        return f"<think>{reasoning}</think><answer>{parsed.answer}</answer>"

    def parse_score(self, text: str, *, cut: bool = False) -> float | None:
        """Return the score, in [0, 1], in a judgment of one response; None if it cannot be read."""
        start = spoken_from(text, cut=cut)
        return None if self.score is None or start is None else self.score(text[start:])

    def wording(self) -> str:
        """Return the prompt with its placeholders."""
        return _template(self.template)

    def speaks(self, model: str) -> bool:
        """Return whether a model of this name uses the dialect."""
        return any(re.search(pattern, model, re.IGNORECASE) for pattern in self.models)


def marked(pattern: re.Pattern[str], answers: dict[str, Label], spoken: str) -> Found:
    """Find verdicts in markers, such as ``[[A]]``: repeated ones count once, contradictory ones not at all.

    The first group of ``pattern`` is the character of the verdict.
    """
    matches = [match for match in pattern.finditer(spoken) if match[1] in answers]
    said = {answers[match[1]] for match in matches}
    if not said:
        return NOTHING
    spans = tuple(match.span() for match in matches)
    return Found(said.pop(), spans, matches[-1].start(1)) if len(said) == 1 else Found(None, spans)


def without(spoken: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a text without the sentences, or lines, that contain the given spans."""
    kept, end = [], 0
    for start, stop in spans:
        before = max((m.end() for m in _SENTENCE_END.finditer(spoken, end, start)), default=end)
        after = _SENTENCE_END.search(spoken, stop)
        kept.append(spoken[end : max(before, end)])
        end = max(end, len(spoken) if after is None else after.end())
    return "".join([*kept, spoken[end:]])


_SENTENCE_END = re.compile(r"\n|[.!?]+[*_\"')\]]*(?=\s)|(?<=>)(?=\s|\Z)|,\s*(?=\")|(?=\})")
"""The end of a line, of a sentence, of a tag with nothing behind it, or of a member of a JSON object."""


@functools.cache
def _template(name: str) -> str:
    if not name.endswith(".txt"):
        return name
    return (resources.files("r1_reward.records") / "templates" / name).read_text(encoding="utf-8")

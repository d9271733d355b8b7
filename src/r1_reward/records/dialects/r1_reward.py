"""R1-Reward and every model trained with this package: the default."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from r1_reward.records.dialect import NOTHING, Dialect, Found
from r1_reward.records.parsing import ParsedJudgment, answer_position, parse_judgment, tidy


class _R1Reward(Dialect):
    """The prompt and the parser of method section 1."""

    def parse(self, text: str, *, cut: bool = False) -> ParsedJudgment:
        """Parse one judgment by the exact format of method section 1; its reasoning is the thought alone."""
        return parse_judgment(text, cut=cut)

    def position(
        self, tokens: Sequence[int], verdicts: Sequence[int], decode: Callable[[list[int]], str], text: str
    ) -> int | None:
        """Return the index of the answer token."""
        return None if self.parse(text).answer is None else answer_position(tokens, verdicts, decode)

    def as_ours(self, text: str) -> str:
        """Return the text without white space around its parts."""
        return tidy(text)


def read(spoken: str) -> Found:
    """Find the single ``<answer>``, closed or not; only a lone digit between its tags is a verdict."""
    start = spoken.find("<answer>")
    if spoken.count("<answer>") != 1:
        return NOTHING
    inner = spoken[start + len("<answer>") :]
    end = spoken.find("</answer>", start)
    stop = len(spoken) if end < 0 else end + len("</answer>")
    at = start + len("<answer>") + len(inner) - len(inner.lstrip())
    return Found(parse_judgment(spoken).answer, ((start, stop),), at)


DIALECT = _R1Reward(
    name="r1-reward",
    title="R1-Reward, and models trained with this package",
    form="<answer>{}</answer>",
    read=read,
    template="pairwise.txt",
    source="arXiv 2505.02835, Table 1; github.com/yfzhang114/r1_reward",
    models=(r"(?:^|[/_.-])r1[-_]reward(?![a-z])",),
)

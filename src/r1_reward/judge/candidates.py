"""N responses to one question: texts that look the same are judged once, and what that gives goes to all of them.

>>> Candidates.of(["three", "eight", "three"])
Candidates(texts=['three', 'eight'], places=[0, 1, 0])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from r1_reward.judge.prepare import check_text
from r1_reward.judge.ranking import Comparison, Ranking
from r1_reward.records.errors import UserError
from r1_reward.records.texts import visible


class Candidates(NamedTuple):
    """The different texts among some responses."""

    texts: list[str]
    """In the order in which they first occur."""
    places: list[int]
    """For each response, which of the texts it is."""

    @classmethod
    def of(cls, responses: Sequence[str], name: str = "responses") -> Candidates:
        """Find the different texts.

        Raises:
            UserError: there are no responses, or one is no text, blank or too long; the message says which.
        """
        if isinstance(responses, str) or not isinstance(responses, Sequence):
            raise UserError(f"{name}: must be a list of responses, not one {type(responses).__name__}.")
        if not responses:
            raise UserError(f"{name}: is empty; give at least one response.")
        for number, response in enumerate(responses):
            check_text(response, f"{name}[{number}]")
        seen = [visible(response) for response in responses]
        number_of = {text: number for number, text in enumerate(dict.fromkeys(seen))}
        first = dict(zip(reversed(seen), reversed(responses), strict=True))
        return cls([first[text] for text in number_of], [number_of[text] for text in seen])

    def spread(self, ranking: Ranking) -> Ranking:
        """Return the ranking of all responses, given that of the texts; equal ones stand together."""
        scores = [ranking.scores[place] for place in self.places]
        mean = sum(scores) / len(scores)
        return Ranking(
            tuple(i for best in ranking.order for i, place in enumerate(self.places) if place == best),
            tuple(score - mean for score in scores),
            tuple(ranking.standard_errors[place] for place in self.places),
            self.among_all(ranking.comparisons),
        )

    def among_all(self, comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
        """Return comparisons of texts as comparisons of the responses that have them first."""
        first = [self.places.index(number) for number in range(len(self.texts))]
        return tuple(Comparison(first[i], first[j], probability) for i, j, probability in comparisons)


def net_win_rates(n: int, comparisons: Iterable[Comparison]) -> list[float | None]:
    """Return for each of ``n`` candidates the mean of 2 P(win) - 1 over its readable comparisons, in [-1, 1], or None.

    >>> net_win_rates(3, [Comparison(0, 1, 0.75), Comparison(0, 2, None)])
    [0.5, -0.5, None]
    """
    margins: list[list[float]] = [[] for _ in range(n)]
    for first, second, probability in comparisons:
        if probability is not None:
            margins[first].append(2 * probability - 1)
            margins[second].append(1 - 2 * probability)
    return [sum(own) / len(own) if own else None for own in margins]

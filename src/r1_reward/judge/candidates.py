"""N responses to one question: those that look the same are judged once and share the result.

>>> Candidates.of(["three", "eight", "three"])
Candidates(different=['three', 'eight'], places=[0, 1, 0])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from r1_reward.judge.comparisons import Comparison
from r1_reward.judge.prepare import Images, OpenedImages, check_content, check_group, fill
from r1_reward.judge.ranking import Ranking
from r1_reward.judge.votes import content_number
from r1_reward.records.content import Content, Shown, key_of
from r1_reward.records.errors import UserError
from r1_reward.records.texts import visible
from r1_reward.store.video import FRAMES


class Candidates(NamedTuple):
    """The distinct responses in a list."""

    different: list[Shown]
    """Opened, in order of first occurrence."""
    places: list[int]
    """For each response, its index in ``different``."""

    @classmethod
    def of(cls, responses: Sequence[Content], name: str = "responses", *, video_frames: int = FRAMES) -> Candidates:
        """Open the responses and find the distinct ones, by the visible text and the pixels of pictures.

        Every image part must have its picture; :meth:`Asked.of` fills them in.

        Raises:
            UserError: there are none, or one is neither text nor parts, blank or too long; the message says which.
        """
        if isinstance(responses, str) or not isinstance(responses, Sequence):
            raise UserError(f"{name}: must be a list of responses, not one {type(responses).__name__}.")
        if not responses:
            raise UserError(f"{name}: is empty; pass at least one response.")
        shown = [
            check_content(response, f"{name}[{number}]", video_frames=video_frames)
            for number, response in enumerate(responses)
        ]
        seen = [appearance(response) for response in shown]
        number_of = {key: number for number, key in enumerate(dict.fromkeys(seen))}
        first = dict(zip(reversed(seen), reversed(shown), strict=True))
        return cls([first[key] for key in number_of], [number_of[key] for key in seen])

    def spread(self, ranking: Ranking) -> Ranking:
        """Return the ranking of all responses, given that of the distinct ones; equal ones are adjacent."""
        scores = [ranking.scores[place] for place in self.places]
        mean = sum(scores) / len(scores)
        return Ranking(
            tuple(i for best in ranking.order for i, place in enumerate(self.places) if place == best),
            tuple(score - mean for score in scores),
            tuple(ranking.standard_errors[place] for place in self.places),
            self.among_all(ranking.comparisons),
        )

    def among_all(self, comparisons: Iterable[Comparison]) -> tuple[Comparison, ...]:
        """Return comparisons of distinct responses with the indices of their first occurrences."""
        first = [self.places.index(number) for number in range(len(self.different))]
        return tuple(Comparison(first[i], first[j], probability) for i, j, probability in comparisons)


class Asked(NamedTuple):
    """A question, the pictures before it, and its responses, ready to be shown."""

    question: Shown
    """Includes the criteria, if any."""
    images: OpenedImages
    candidates: Candidates

    @classmethod
    def of(
        cls,
        question: Content,
        images: Images,
        responses: Sequence[Content],
        criteria: str | None = None,
        *,
        name: str = "responses",
        video_frames: int = FRAMES,
    ) -> Asked:
        """Fill every place for a picture with the next of the ``images``, question first, and open all of them.

        Raises:
            UserError: places and images do not match, or a content cannot be shown; the message says which.
        """
        if isinstance(responses, Sequence) and not isinstance(responses, str):
            contents = {"question": question} | {f"{name}[{number}]": one for number, one in enumerate(responses)}
            (question, *responses), images = fill(contents, images)
        candidates = Candidates.of(responses, name, video_frames=video_frames)
        return cls(*check_group(question, images, criteria, video_frames=video_frames), candidates)

    def drawn(self, seed: int) -> tuple[int, list[int]]:
        """Return the seed for a schedule and the order in which it takes the different responses.

        Both come from the content, so the same responses meet whatever order they are given in.
        """
        shown = (seed, key_of(self.question), self.images.digest)
        numbers = [content_number("schedule", *shown, appearance(one)) for one in self.candidates.different]
        return content_number(*sorted(numbers)), sorted(range(len(numbers)), key=numbers.__getitem__)


def appearance(shown: Shown) -> str:
    """Return a key that is equal for contents that look the same."""
    return key_of(visible(shown) if isinstance(shown, str) else shown)

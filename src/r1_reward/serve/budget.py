"""What one request may use: pictures, pixels, responses, judgements and time, counted in one place for every route.

Each route makes one budget when its request arrives and draws from it whatever it is about to spend; what would
exceed a limit is refused before it is spent::

    budget = Budget(settings)
    budget.responses(4, "responses")
    budget.judgments(6, votes=3, both_orders=True, field="responses")     # 6 pairs, 36 judgements
    budget.pixels(810_000, "images[0]")
    budget.left()                                                         # seconds until the deadline

A refusal names the number asked for, the limit and the setting that raises it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from r1_reward.serve.errors import Refusal
from r1_reward.serve.settings import ServerSettings

Clock = Callable[[], float]
TOO_MANY_PIXELS = 2**62
"""Stands for the pixels of a picture that is larger than anything Pillow would open."""


class Budget:
    """What is left of one request's share of the server; ``clock`` tells seconds, like ``time.monotonic``."""

    def __init__(self, settings: ServerSettings, clock: Clock = time.monotonic) -> None:
        self.settings, self._clock = settings, clock
        self.deadline = clock() + settings.timeout
        """When the request is given up, on the clock."""
        self._spent = {"max_images": 0, "max_pixels": 0, "max_responses": 0, "max_judgments": 0}

    def left(self, most: float = float("inf")) -> float:
        """Return the seconds that are left, 0 at least and ``most`` at most."""
        return min(most, max(0.0, self.deadline - self._clock()))

    def check_time(self) -> None:
        """Raise the refusal of :meth:`timed_out` if the deadline has passed."""
        if self.left() == 0:
            raise self.timed_out()

    def timed_out(self) -> Refusal:
        """Return the refusal of a request that has taken too long."""
        seconds = f"not finished within {self.settings.timeout:g} seconds"
        return Refusal(504, f"{seconds}; ask for less at once, or again when it is quieter")

    def text(self, text: str, field: str) -> None:
        """Let a question or a response through if it is short enough."""
        self._at_most("max_chars", len(text), "characters", field)

    def too_long(self, text: str) -> str | None:
        """Return why a text is too long to be shown, None if it is not."""
        try:
            self.text(text, "")
        except Refusal as refusal:
            return refusal.message
        return None

    def responses(self, count: int, field: str) -> None:
        """Spend the responses to one question."""
        self._at_most("max_candidates", count, "responses to one question", field)
        self._spend("max_responses", count, "responses in all", field)

    def judgments(self, pairs: int, *, votes: int, both_orders: bool, field: str, votes_field: str = "votes") -> None:
        """Spend the judgements of so many pairs: every vote counts, whether or not a rule may stop before it.

        The request names the pairs by ``field`` and the votes by ``votes_field``.
        """
        self._at_most("max_votes", votes, "votes for each order", votes_field)
        self._spend("max_judgments", pairs * votes * (2 if both_orders else 1), "judgements (pairs x votes)", field)

    def pictures(self, count: int, field: str) -> None:
        """Spend pictures."""
        self._spend("max_images", count, "pictures", field)

    def pixels(self, count: int, field: str) -> None:
        """Spend the pixels of one picture."""
        self._spend("max_pixels", count, "pixels in all pictures together", field)

    def _spend(self, setting: str, count: int, what: str, field: str) -> None:
        self._spent[setting] += count
        self._at_most(setting, self._spent[setting], what, field)

    def _at_most(self, setting: str, count: int, what: str, field: str) -> None:
        limit = getattr(self.settings, setting)
        if count > limit:
            number = f"{count:,}" if count < TOO_MANY_PIXELS else "far too many"
            option = f"--{setting.replace('_', '-')}"
            raise Refusal(422, f"{number} {what}; this server takes at most {limit:,} ({option})", field)

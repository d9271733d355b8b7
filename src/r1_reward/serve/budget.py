"""The limits of one request: pictures, pixels, responses, judgments and time, counted in one place for every route.

Each request gets a budget when it arrives. A route spends from the budget before it does the work, and is refused if
that would exceed a limit::

    budget = Budget(settings)
    budget.responses(4, "responses")
    budget.judgments(6, votes=3, both_orders=True, field="responses")     # 6 pairs, 36 judgments
    budget.pixels(810_000, "images[0]")
    budget.left()                                                         # seconds until the deadline

A refusal names the number requested, the limit, and the option that raises it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from r1_reward.serve.errors import Refusal
from r1_reward.serve.settings import ServerSettings

Clock = Callable[[], float]
TOO_MANY_PIXELS = 2**62
"""Used as the pixel count of a picture that is too large for Pillow to open."""


class Budget:
    """What one request may still use; ``clock`` returns seconds, like ``time.monotonic``."""

    def __init__(self, settings: ServerSettings, clock: Clock = time.monotonic) -> None:
        self.settings, self._clock = settings, clock
        self.deadline = clock() + settings.timeout
        """Time on the clock at which the request times out."""
        self._spent = {"max_images": 0, "max_pixels": 0, "max_responses": 0, "max_judgments": 0}

    def left(self, most: float = float("inf")) -> float:
        """Return the seconds left, between 0 and ``most``."""
        return min(most, max(0.0, self.deadline - self._clock()))

    def check_time(self) -> None:
        """Raise the refusal of :meth:`timed_out` if the deadline has passed."""
        if self.left() == 0:
            raise self.timed_out()

    def timed_out(self) -> Refusal:
        """Return the refusal of a request that has taken too long."""
        seconds = f"not finished within {self.settings.timeout:g} seconds (--timeout)"
        return Refusal(504, f"{seconds}; send smaller requests, or try again when the server is less busy")

    def text(self, text: str, field: str) -> None:
        """Refuse a question or a response that is too long."""
        self._at_most("max_chars", len(text), "characters", field)

    def too_long(self, text: str) -> str | None:
        """Return why a text is too long to be shown, or None if it is short enough."""
        try:
            self.text(text, "")
        except Refusal as refusal:
            return refusal.message
        return None

    def responses(self, count: int, field: str) -> None:
        """Spend the responses to one question."""
        self._at_most("max_candidates", count, "responses to one question", field)
        self._spend("max_responses", count, "responses in total", field)

    def judgments(self, pairs: int, *, votes: int, both_orders: bool, field: str, votes_field: str = "votes") -> None:
        """Spend the judgments of so many pairs; every vote counts, even if a stop rule may skip it.

        ``field`` is the request's field of the pairs, ``votes_field`` that of the votes.
        """
        self._at_most("max_votes", votes, "votes for each order", votes_field)
        self._spend("max_judgments", pairs * votes * (2 if both_orders else 1), "judgments (pairs x votes)", field)

    def pictures(self, count: int, field: str) -> None:
        """Spend pictures."""
        self._spend("max_images", count, "pictures", field)

    def pixels(self, count: int, field: str) -> None:
        """Spend the pixels of one picture."""
        self._spend("max_pixels", count, "pixels in all pictures", field)

    def _spend(self, setting: str, count: int, what: str, field: str) -> None:
        self._spent[setting] += count
        self._at_most(setting, self._spent[setting], what, field)

    def _at_most(self, setting: str, count: int, what: str, field: str) -> None:
        limit = getattr(self.settings, setting)
        if count > limit:
            number = f"{count:,}" if count < TOO_MANY_PIXELS else "far too many"
            option = f"--{setting.replace('_', '-')}"
            raise Refusal(422, f"{number} {what}; this server takes at most {limit:,} ({option})", field)

"""What was sent to servers and what came back, counted; what they refused, in words."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Usage:
    """What was sent to servers and what came back."""

    calls: int = 0
    """Requests sent, every try counted."""
    failures: int = 0
    """Tries that brought no whole reply."""
    request_seconds: float = 0.0
    """Sum of the times that requests took; divided by ``calls``, the latency."""
    prompt_tokens: int = 0
    """As the servers count them, 0 if they do not."""
    completion_tokens: int = 0
    last_failure: str = ""
    """The latest try that failed, in words, for a message to a person."""
    refused: list[str] = field(default_factory=list)
    """Parameters that servers refused or ignored, each once: what is sent instead, and what is lost by it."""

    def cost(self, price_per_million_in: float, price_per_million_out: float) -> float:
        """Return what the tokens cost; see :func:`cost`."""
        return cost(self.prompt_tokens, self.completion_tokens, price_per_million_in, price_per_million_out)


def cost(prompt_tokens: int, tokens: int, price_per_million_in: float, price_per_million_out: float) -> float:
    """Return what tokens shown and generated cost, in the currency of the prices per million tokens."""
    return (prompt_tokens * price_per_million_in + tokens * price_per_million_out) / 1e6

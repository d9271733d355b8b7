"""Counts of requests to servers and their replies, and the parameters that servers refused."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Usage:
    """Counts of requests to servers and their replies."""

    calls: int = 0
    """Requests sent, including retries."""
    failures: int = 0
    """Tries without a complete reply."""
    request_seconds: float = 0.0
    """Total duration of all requests; divided by ``calls``, the mean latency."""
    prompt_tokens: int = 0
    """As counted by the servers, 0 if they do not report them."""
    completion_tokens: int = 0
    last_failure: str = ""
    """The latest failed try, described for an error message."""
    refused: list[str] = field(default_factory=list)
    """Parameters that servers refused or ignored, each once, with what is sent instead and what that loses."""

    def cost(self, price_per_million_in: float, price_per_million_out: float) -> float:
        """Return the cost of all tokens; see :func:`cost`."""
        return cost(self.prompt_tokens, self.completion_tokens, price_per_million_in, price_per_million_out)


def cost(prompt_tokens: int, tokens: int, price_per_million_in: float, price_per_million_out: float) -> float:
    """Return the cost of prompt and generated tokens, in the currency of the prices per million tokens."""
    return (prompt_tokens * price_per_million_in + tokens * price_per_million_out) / 1e6

"""Which parameters of the chat protocol a server takes, and what is lost by those it does not; no network here.

::

    dialect = Dialect()
    dialect.options(seed=5, temperature=0.0, max_new_tokens=1024)           # what a request says besides its messages
    poorer = dialect.without('{"error": {"param": "seed"}}', sent={"seed": 5})
    poorer.losses(dialect, temperature=0.0)                                 # ["seed: left out; ..."]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from r1_reward.engines.refusals import refused_altogether, refused_parameters

_ALTERNATIVES = 5  # asked for at each token; only 1 and 2 at the answer matter, and they are far ahead there
_FEWEST = 2  # with one alternative alone the other answer would have no probability
_SEEDS = 2**31  # the smallest range of seeds among the servers
_NEARLY_GREEDY = 0.01
_ABOVE_ZERO = re.compile(
    r"positive|(?:greater|larger|more|higher) than (?:0|zero)|above (?:0|zero)|> ?0|\(0|non-?zero|(?:be|to) (?:0|zero)",
    re.I,
)
_ONE_OF_THEM = re.compile(r"both|only one|together|mutually|simultaneous|at the same time", re.IGNORECASE)


class Dialect(NamedTuple):
    """What a server takes. It starts with everything and gives up what is refused."""

    temperature: bool = True
    seed: bool = True
    top_p: bool = True
    logprobs: bool = True
    alternatives: int = _ALTERNATIVES
    """How many of the likeliest tokens it names at each place (``top_logprobs``)."""
    several: bool = True
    """Whether one request may ask for several completions (``n``)."""
    limit: str | None = "max_tokens"
    """What the limit of tokens is called; None if the server takes none."""
    coldest: float = 0.0
    """The lowest temperature it takes."""

    def without(self, refusal: str, sent: Mapping[str, Any]) -> Dialect:
        """Return what a refusal of a request with these options leaves; the same if it is about something else."""
        named = refused_parameters(refusal, sent)
        if "n" in named:
            return self._replace(several=False)  # the others may do alone
        if {"temperature", "top_p"} <= named and _ONE_OF_THEM.search(refusal):
            named.discard("temperature")
        poorer = self
        if "temperature" in named:
            too_cold = sent["temperature"] == 0 and not self.coldest and _ABOVE_ZERO.search(refusal)
            poorer = poorer._replace(coldest=_NEARLY_GREEDY) if too_cold else poorer._replace(temperature=False)
        if "max_tokens" in named:
            poorer = poorer._replace(limit="max_completion_tokens")  # all that OpenAI's newer models know
        if "max_completion_tokens" in named:
            poorer = poorer._replace(limit=None)
        if "logprobs" in named and self.alternatives > _FEWEST and not refused_altogether(refusal):
            named.discard("logprobs")  # fewer of them may do
            poorer = poorer._replace(alternatives=_FEWEST)
        off: dict[str, Any] = dict.fromkeys(named & {"seed", "top_p", "logprobs"}, False)
        return poorer._replace(**off)

    def options(self, seed: int, temperature: float, max_new_tokens: int, completions: int = 1) -> dict[str, Any]:
        """Return the parameters of a request for so many completions; ``seed`` may be any integer."""
        options: dict[str, Any] = {}
        if self.seed:
            options["seed"] = seed % _SEEDS
        if self.temperature:
            options["temperature"] = max(temperature, self.coldest)
        if self.limit is not None:
            options[self.limit] = max_new_tokens
        if completions > 1:
            options["n"] = completions
        if self.logprobs:
            options |= {"logprobs": True, "top_logprobs": self.alternatives}
        if self.top_p and temperature > 0:
            options["top_p"] = 1.0  # else vLLM takes the checkpoint's, 0.001 for Qwen2-VL: every vote the same
        return options

    def joined(self, other: Dialect) -> Dialect:
        """Return what both take: of two requests under way at once each may have learnt something."""
        both = {name: getattr(self, name) and getattr(other, name) for name in _SWITCHES}
        limits = (self.limit, other.limit)
        limit = None if None in limits else next((name for name in limits if name != "max_tokens"), "max_tokens")
        fewer = min(self.alternatives, other.alternatives)
        return Dialect(**both, alternatives=fewer, limit=limit, coldest=max(self.coldest, other.coldest))

    def losses(self, before: Dialect, temperature: float) -> list[str]:
        """Say what this dialect does without that the one ``before`` had, asked at a ``temperature``."""
        greedy = "so that votes are not greedy" if temperature == 0 else f"not at the {temperature:g} asked for"
        words = {
            "temperature": f"temperature: left out; the server samples at its own, {greedy}",
            "seed": "seed: left out; sampled votes cannot be repeated",
            "top_p": "top_p: left out; votes are drawn with the server's own, which may cut off rarer answers",
            "logprobs": "logprobs: left out; an answer's probability is known from counts of votes alone",
            "several": "n: left out; votes are asked for one by one",
        }
        lost = [text for name, text in words.items() if getattr(before, name) and not getattr(self, name)]
        if self.coldest > before.coldest and self.temperature:
            lost.append(f"temperature 0: {self.coldest:g} is sent instead; votes are nearly greedy, not greedy")
        if self.alternatives < before.alternatives and self.logprobs:
            lost.append(
                f"top_logprobs {before.alternatives}: {self.alternatives} is sent instead; an answer that is not among "
                f"the {self.alternatives} likeliest tokens counts as impossible"
            )
        if self.limit != before.limit:
            instead = f"sent as {self.limit}, which counts hidden reasoning, too"
            lost.append(f"max_tokens: {instead if self.limit else 'left out; the server alone ends an answer'}")
        return lost


_SWITCHES = ("temperature", "seed", "top_p", "logprobs", "several")

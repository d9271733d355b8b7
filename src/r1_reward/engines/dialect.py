"""Which parameters of the chat protocol a server accepts, and what is lost without the others; no network access.

::

    dialect = Dialect()
    dialect.options(seed=5, temperature=0.0, max_new_tokens=1024)           # a request's other parameters
    poorer = dialect.without('{"error": {"param": "seed"}}', sent={"seed": 5})
    poorer.losses(dialect, temperature=0.0)                                 # ["seed: left out; ..."]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from r1_reward.engines.refusals import refused_altogether, refused_parameters

_ALTERNATIVES = 5  # requested at each token; only 1 and 2 at the answer matter, and they are far ahead there
_FEWEST = 2  # with a single alternative the other answer would have no probability
_SEEDS = 2**31  # the smallest seed range among servers
_NEARLY_GREEDY = 0.01
_ABOVE_ZERO = re.compile(
    r"positive|(?:greater|larger|more|higher) than (?:0|zero)|above (?:0|zero)|> ?0|\(0|non-?zero|(?:be|to) (?:0|zero)",
    re.I,
)
_ONE_OF_THEM = re.compile(r"both|only one|together|mutually|simultaneous|at the same time", re.IGNORECASE)


class Dialect(NamedTuple):
    """The parameters a server accepts: at first all of them, later those it has not refused."""

    temperature: bool = True
    seed: bool = True
    top_p: bool = True
    logprobs: bool = True
    alternatives: int = _ALTERNATIVES
    """How many of the most likely tokens it returns at each position (``top_logprobs``)."""
    several: bool = True
    """Whether one request may ask for several completions (``n``)."""
    limit: str | None = "max_tokens"
    """The name of the token limit; None if the server accepts none."""
    coldest: float = 0.0
    """The lowest temperature it accepts."""

    def without(self, refusal: str, sent: Mapping[str, Any]) -> Dialect:
        """Return the dialect without what was refused of the ``sent`` options; unchanged if that is none of them."""
        named = refused_parameters(refusal, sent)
        if "n" in named:
            return self._replace(several=False)  # the rest may be accepted for single completions
        if {"temperature", "top_p"} <= named and _ONE_OF_THEM.search(refusal):
            named.discard("temperature")
        poorer = self
        if "temperature" in named:
            too_cold = sent["temperature"] == 0 and not self.coldest and _ABOVE_ZERO.search(refusal)
            poorer = poorer._replace(coldest=_NEARLY_GREEDY) if too_cold else poorer._replace(temperature=False)
        if "max_tokens" in named:
            poorer = poorer._replace(limit="max_completion_tokens")  # the only one that OpenAI's newer models accept
        if "max_completion_tokens" in named:
            poorer = poorer._replace(limit=None)
        if "logprobs" in named and self.alternatives > _FEWEST and not refused_altogether(refusal):
            named.discard("logprobs")  # fewer may be accepted
            poorer = poorer._replace(alternatives=_FEWEST)
        off: dict[str, Any] = dict.fromkeys(named & {"seed", "top_p", "logprobs"}, False)
        return poorer._replace(**off)

    def options(self, seed: int, temperature: float, max_new_tokens: int, completions: int = 1) -> dict[str, Any]:
        """Return the parameters of a request for this many completions; ``seed`` may be any integer."""
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
            options["top_p"] = 1.0  # else vLLM uses the checkpoint's: 0.001 for Qwen2-VL, which makes all votes equal
        return options

    def joined(self, other: Dialect) -> Dialect:
        """Return what both accept: each of two concurrent requests may have learned something."""
        both = {name: getattr(self, name) and getattr(other, name) for name in _SWITCHES}
        limits = (self.limit, other.limit)
        limit = None if None in limits else next((name for name in limits if name != "max_tokens"), "max_tokens")
        fewer = min(self.alternatives, other.alternatives)
        return Dialect(**both, alternatives=fewer, limit=limit, coldest=max(self.coldest, other.coldest))

    def losses(self, before: Dialect, temperature: float) -> list[str]:
        """Describe what is lost with this dialect instead of ``before``, in requests at this ``temperature``."""
        greedy = "so votes are not greedy" if temperature == 0 else f"not the {temperature:g} requested"
        words = {
            "temperature": f"temperature: left out; the server uses its own, {greedy}",
            "seed": "seed: left out; sampled votes are not reproducible",
            "top_p": "top_p: left out; votes are sampled with the server's own, which may cut off rarer answers",
            "logprobs": "logprobs: left out; an answer's probability can only be estimated from vote counts",
            "several": "n: left out; votes are requested one by one",
        }
        lost = [text for name, text in words.items() if getattr(before, name) and not getattr(self, name)]
        if self.coldest > before.coldest and self.temperature:
            lost.append(f"temperature 0: {self.coldest:g} is sent instead; votes are nearly greedy, not greedy")
        if self.alternatives < before.alternatives and self.logprobs:
            lost.append(
                f"top_logprobs {before.alternatives}: {self.alternatives} is sent instead; an answer that is not among "
                f"the {self.alternatives} most likely tokens counts as impossible"
            )
        if self.limit != before.limit:
            instead = f"sent as {self.limit}, which also counts hidden reasoning"
            lost.append(f"max_tokens: {instead if self.limit else 'left out; only the server limits an answer'}")
        return lost


_SWITCHES = ("temperature", "seed", "top_p", "logprobs", "several")

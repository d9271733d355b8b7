"""Engines for tests: what a model would write is computed, the rest is the real thing."""

from __future__ import annotations

import json
import re

from r1_reward.engines.engine import BatchSession, Generative
from r1_reward.engines.scalar import Score, Scoring

_SHOWN = re.compile(
    r"\[Question\]:\n(.*?)  \n\n#{6} \[Response 1\]:\n(.*?)  \n\n#{6} \[Response 2\]:\n(.*?)  \n", re.DOTALL
)


def shown(request):
    """Return question, first and second response, as the prompt of a request shows them: [image] for a picture."""
    prompt = "".join(part.get("text", "[image]") for part in request.messages[0]["content"])
    return _SHOWN.search(prompt).groups()


class FakeEngine(Generative):
    """An engine whose ``answer(requests)`` yields completions or an error for each; a batch of 64 at a time."""

    batch_size = 64

    def open(self):
        return BatchSession(4 * self.batch_size, lambda requests: list(self.answer(requests)))


class Table(Scoring):
    """Scores answers by a table, and remembers what it was asked."""

    def __init__(self, table):
        super().__init__()
        self.table, self.asked, self.limit = table, [], None

    def score(self, candidates, *, max_new_tokens=1024):
        self.asked += [response for _, _, response in candidates]
        self.limit = max_new_tokens
        return [Score(self.table[response]) for _, _, response in candidates]


def make_special(tokenizer, tags):
    """Mark added tokens as special, as some families' tokenizers have the tags of a thought."""
    from tokenizers import Tokenizer

    held = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in held["added_tokens"]:
        token["special"] = token["special"] or token["content"] in tags
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(held))

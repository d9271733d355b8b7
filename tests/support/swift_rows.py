"""Rows as ms-swift hands them to reward functions, and a judge that remembers what it was shown."""

from __future__ import annotations

import uuid

from fakes import FakeEngine, shown
from PIL import Image

from r1_reward.engines.engine import EngineError
from r1_reward.engines.length import PromptTooLong
from r1_reward.records.schema import Completion

WHITE, BLACK = Image.new("RGB", (28, 28), "white"), Image.new("RGB", (28, 28), "black")


class Witness(FakeEngine):
    """Prefers the longer response before light pictures or none, the shorter one before dark ones.

    ``asked`` holds (question, first, second, the brightness of each picture) of every judgement. A response with
    "gibberish" in it silences the judge, one with "endless" is too long for it, a question with "down" makes it fail.
    """

    special_tokens = ("<|im_end|>",)

    def __init__(self):
        self.asked = []

    def answer(self, requests):
        for request in requests:
            question, first, second = shown(request)
            light = [picture.getpixel((0, 0))[0] for picture in request.images]
            self.asked.append((question, first, second, light))
            if "down" in question:
                yield EngineError("the judge stumbles")
                continue
            if "endless" in first + second:
                yield PromptTooLong.counted(9000, 4096, 512)
                continue
            dark = bool(light) and light[0] < 128
            one, two = (len(text) * (-1 if dark else 1) for text in (first, second))
            unreadable = one == two or "gibberish" in first + second
            text = "Who knows?" if unreadable else f"<think>Seen.</think><answer>{1 if one > two else 2}</answer>"
            probability = None if unreadable else 0.9 if one > two else 0.1
            yield [Completion(text=text, tokens=5, probability=probability) for _ in request.seeds]


def row(question, completion, *, images=(), prompt_id="prompt_0", request_id=None, before=(), **columns):
    """Return one row: what swift's ``to_reward_row`` makes of a sample."""
    messages = [*before, {"role": "user", "content": question}, {"role": "assistant", "content": completion}]
    own = {"images": list(images)} if images else {}
    return {
        "messages": messages, "prompt_id": prompt_id, "request_id": request_id or f"chatcmpl-{uuid.uuid4().hex}",
        "finish_reason": "stop", "is_truncated": False, "rollout_infos": {}, "response_token_ids": [[1]], **own,
        **columns,
    }  # fmt: skip


def columns_of(rows):
    """Return rows as swift passes them to an ORM: a list for each name, None where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def completions_of(rows):
    return [row["messages"][-1]["content"] for row in rows]

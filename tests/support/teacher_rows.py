"""Rows for annotating, what a scripted teacher says about them, and what a folder holds afterwards."""

from __future__ import annotations

import io
import json

from PIL import Image
from scripted_server import reply

from r1_reward.data.annotate import AnnotateSettings, Money, annotate
from r1_reward.records.prompt import build_prompt
from r1_reward.store.shards import PairWriter, read_rows


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


def pair(number, **changes):
    row = {
        "id": f"p{number}",
        "question": f"question {number}?",
        "images": [{"bytes": png((number % 256, number // 256, 9)), "path": f"{number}.png"}],
        "response_1": f"first {number}",
        "response_2": f"second {number}",
        "preferred": 1 + number % 2,
        "source": "s",
    }
    return {**row, **changes}


def write_pairs(folder, rows):
    with PairWriter(folder) as writer:
        for row in rows:
            writer.add(row)
        writer.close({})
    return folder


def prompt(row, swapped=False):
    responses = (row["response_1"], row["response_2"])
    return build_prompt(row["question"], *(responses[::-1] if swapped else responses))


def says(answer, thought="Because."):
    return f"<think>{thought}</think><answer>{answer}</answer>"


def right(row):
    return reply(says(row["preferred"], f"On {row['question']}"))


def wrong(row):
    return reply(says(3 - row["preferred"]))


FREE = Money()


def run(server, folder, out, *, model="teacher", money=FREE, concurrency=4, **options):
    chosen = AnnotateSettings(teacher=f"server:{model}@{server.url}", **options.pop("settings", {}))
    return annotate(folder, out, chosen, money=money, concurrency=concurrency, retries=0, **options)


def rows_of(folder):
    return {row["id"]: row for row in read_rows(folder)}


def lines_of(out, name="attempts.jsonl"):
    return [json.loads(line) for line in (out / name).read_text().splitlines()]

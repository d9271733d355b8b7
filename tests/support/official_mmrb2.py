"""Made-up files of MMRB2 with its form, columns and numbers; no row of it is in this repository.

The same ``seed`` gives the same pairs in both forms: the Hub's parquet files, and the JSON files that its scripts read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from official_files import GREYS, IMAGE, mixed, picture, strings, write_json, write_pictures, write_table
from official_rows import Row

COUNT = 1000
CHOSEN_A = {"t2i": 532, "edit": 555, "interleaved": 575, "reasoning": 475}
SOURCES = {
    "t2i": {"evalmuse": 390, "oneigbench": 278, "r2ibench": 128, "wise": 111, "realunify_ueg": 93},
    "edit": {
        "emu-edit": 329, "dreambench": 242, "new_synthetic_edit": 178, "text_heavy_edit": 114, "risebench": 84,
        "hq-edit": 53,
    },
    "interleaved": {"isgbench": 421, "chameleon": 284, "interleavedeval": 267, "mmmg": 28},
    "reasoning": {"mindcube": 367, "blink": 355, "muirbench": 137, "realunify": 55, "visulogic": 49, "vstar": 37},
}  # fmt: skip
MODELS = {
    "t2i": ["gemini-2.5-flash", "imagen4-ultra", "flux", "stable-diffusion-3.5-large", "gpt-image-1"],
    "edit": ["gemini-2.0-flash", "gemini-2.5-flash", "gpt-image-1", "flux-kontext", "imagen-edit"],
    "interleaved": ["gpt-gemini-agent", "gemini-2.5-flash", "gpt-image-agent", "gpt-flux-agent"],
    "reasoning": ["GPT5_Gemini_SketchpadAgent", "Gemini_gemini_2.5_pro", "gpt-4.1", "gpt-4o", "o3"],
}
# Responses by their number of pictures.
SHOWN = {
    ("t2i", "a"): {1: 1000}, ("t2i", "b"): {1: 1000}, ("edit", "a"): {1: 999, 3: 1}, ("edit", "b"): {1: 999, 2: 1},
    ("interleaved", "a"): {1: 343, 2: 88, 3: 195, 4: 203, 5: 95, 6: 52, 7: 19, 8: 3, 9: 1, 11: 1},
    ("interleaved", "b"): {31: 1, 1: 339, 2: 92, 3: 210, 4: 189, 5: 102, 6: 41, 7: 15, 8: 6, 9: 1, 10: 3, 11: 1},
    ("reasoning", "a"): {
        0: 491, 1: 53, 2: 116, 3: 75, 4: 92, 5: 46, 6: 52, 7: 9, 8: 17, 9: 21, 10: 8, 11: 6, 12: 3, 14: 5, 15: 1,
        16: 4, 17: 1,
    },
    ("reasoning", "b"): {
        2: 122, 0: 506, 1: 41, 3: 71, 4: 81, 5: 57, 6: 45, 7: 16, 8: 25, 9: 14, 10: 6, 11: 6, 12: 7, 13: 1, 18: 1,
        23: 1,
    },
}  # fmt: skip
RATED = {(0, 3): 373, (3, 0): 333, (3, 3): 294}
"""Reasoning pairs by how many people rated each response alone."""
COLUMNS = (
    strings("pair_id", "prompt_text") | {"prompt_images": pa.list_(IMAGE)}
    | strings("response_a_text") | {"response_a_images": pa.list_(IMAGE)}
    | strings("response_b_text") | {"response_b_images": pa.list_(IMAGE)}
    | strings("chosen", "prompt_source", "response_a_model", "response_b_model", "human_annotations", "prompt_metadata")
)  # fmt: skip


def mmrb2(folder: Path, *, seed: int = 0, rows: int | None = None) -> Path:
    """Write ``{task}/test-00000-of-00001.parquet`` with embedded pictures.

    Texts name their pictures by ``<image_N>``, or by nothing where all pictures come last; every tenth ``chosen`` is in
    lower case.
    """
    for task in SOURCES:
        made = []
        for number, pair in enumerate(mmrb2_pairs(task, seed=seed, rows=rows)):
            row: Row = {"pair_id": pair["id"], "prompt_source": pair["prompt_source"]}
            row["chosen"] = pair["chosen"].lower() if number % 10 == 9 else pair["chosen"]
            for name in ("human_annotations", "prompt_metadata"):
                row[name] = json.dumps(pair[name])
            for side in ("response_a", "response_b"):
                row[f"{side}_model"] = pair[side]["model_name"]
                row[f"{side}_text"], row[f"{side}_images"] = flat(pair[side]["response_content"], number)
            row["prompt_text"], row["prompt_images"] = flat(pair["prompt_content"], number)
            made.append(row)
        write_table(folder / task / "test-00000-of-00001.parquet", made, COLUMNS)
    return folder


def mmrb2_built(folder: Path, *, seed: int = 0, rows: int | None = None) -> Path:
    """Write ``{task}.json``, ``images/`` and ``input_images/``: the same pairs with paths instead of pictures."""
    write_pictures(folder / "images")
    write_pictures(folder / "input_images")
    for task in SOURCES:
        write_json(folder / f"{task}.json", {"pairs": mmrb2_pairs(task, seed=seed, rows=rows)})
    return folder


def always_a(pairs: Sequence[Row]) -> Row:
    """Return the predictions of a judge that prefers A as stored, in the form of the official samples."""
    entry = {"evaluator": "always A", "metadata": {}}
    return {
        pair["id"]: {"forward": [{"judgement": "A", **entry}], "reverse": [{"judgement": "B", **entry}]}
        for pair in pairs
    }


def mmrb2_pairs(task: str, *, seed: int = 0, rows: int | None = None) -> list[Row]:
    """Return the pairs of a task as its JSON file has them."""
    rng = random.Random(f"{seed} {task}")
    labels = mixed({"A": CHOSEN_A[task], "B": COUNT - CHOSEN_A[task]}, rng)
    sources = mixed(SOURCES[task], rng)
    shown = {side: mixed(SHOWN[task, side], rng) for side in "ab"}
    rated = mixed(RATED, rng)
    pairs = []
    for number in range(COUNT if rows is None else min(rows, COUNT)):
        models = [rng.choice(MODELS[task]) for _ in "ab"]
        metadata = metadata_of(sources[number], number)
        middle = "_".join(f"{model}_{rng.randrange(9999)}" for model in models)
        pair: Row = {
            "id": f"{sources[number]}_{metadata['id']}_{rng.getrandbits(63) - 2**62}_{middle}",
            "prompt_content": prompt(task, number, rng), "prompt_source": sources[number], "prompt_metadata": metadata,
            "chosen": labels[number],
        }  # fmt: skip
        for side, model in zip("ab", models, strict=True):
            content = response(task, f"{side.upper()} {number}", shown[side][number], rng)
            pair[f"response_{side}"] = {"model_name": model, "response_content": content}
        if task == "reasoning":
            letters = {side: rng.choices("ABC", k=count) for side, count in zip("ab", rated[number], strict=True)}
            pair["human_annotations"] = {f"response_{side}_ratings": given for side, given in letters.items()}
        else:
            pair["human_annotations"] = ratings(labels[number], rng)
        pairs.append(pair)
    return pairs


def metadata_of(source: str, number: int) -> Row:
    """Return metadata in the forms of the sources: ids are texts or numbers, a category may be a list."""
    match source:
        case "evalmuse" | "r2ibench":
            return {"id": f"{number:05}"}
        case "wise":
            return {"id": number, "category": "Biology", "version": "rewrite"}
        case "emu-edit":
            return {"id": number, "task": "global", "split": "test"}
        case "mindcube":
            return {"id": f"among_{number}", "category": ["perpendicular", "self"]}
        case "interleavedeval" | "hq-edit":
            return {"id": number}
        case "blink":
            return {"id": f"val_Forensic_Detection_{number}"}
        case "dreambench" | "new_synthetic_edit" | "chameleon":
            return {"id": number, "category": "guitar"}
        case _:
            return {"id": str(number), "category": "Text_Rendering"}


def ratings(label: str, rng: random.Random) -> list[int]:
    """Return three ratings from 1 to 6, whose mean is above 3.5 if A was chosen and below it if not."""
    while True:
        made = [rng.randint(1, 6) for _ in range(3)]
        if (sum(made) > 10) == (label == "A"):
            return made


def prompt(task: str, number: int, rng: random.Random) -> list[list[str]]:
    """Return a text, and for ``edit`` and ``reasoning`` one to three pictures before or after it."""
    text = ["text", f"Prompt {number} of {task}."]
    if task == "t2i" or (task == "interleaved" and number % 2):
        return [text]
    pictures = [["image", f"input_images/{(number + place) % GREYS}.png"] for place in range(rng.randint(1, 3))]
    return [*pictures, text] if rng.random() < 0.5 else [text, *pictures]


def response(task: str, name: str, shown: int, rng: random.Random) -> list[list[str]]:
    """Return texts and ``shown`` pictures in turn; ``t2i`` and ``edit`` have pictures alone."""
    start = rng.randrange(GREYS)
    pictures = [["image", f"images/{(start + place) % GREYS}.png"] for place in range(shown)]
    if task in ("t2i", "edit"):
        return pictures
    texts: list[list[str]] = [["text", f"Step {place} of {name}."] for place in range(shown + 1)]
    parts = [part for step in zip(texts, pictures, strict=False) for part in step]
    if task == "reasoning":
        return [*parts, texts[-1]]
    return parts if rng.random() < 0.5 else [*parts[1:], texts[-1]]


def flat(content: Sequence[Sequence[str]], number: int) -> tuple[str, list[Any]]:
    """Return the text of the Hub and its pictures.

    The text keeps the place of each picture, unless there is none to keep: pictures alone, or after everything else.
    """
    pictures = [picture(int(Path(value).stem), Path(value).name) for kind, value in content if kind == "image"]
    kinds = [kind for kind, _ in content]
    placeholders = "text" in kinds and (number % 2 == 0 or kinds != sorted(kinds, reverse=True))
    words, seen = [], 0
    for kind, value in content:
        if kind == "text":
            words.append(value)
        elif placeholders:
            seen += 1
            words.append(f"<image_{seen}>")
    return "\n".join(words), pictures

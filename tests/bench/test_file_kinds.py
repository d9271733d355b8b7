"""The kind of a file is guessed from the readers that can parse it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from official_files import edit_reward_bench, mr2_bench, omni_reward_bench, reward_bench_2
from official_mmrb2 import mmrb2, mmrb2_built
from official_rows import hub_row, mrb_row, png, vl_row, write, write_parquet
from prediction_rows import our_row

from r1_reward.bench.benchmark import Benchmark
from r1_reward.bench.benchmarks import REGISTERED, register
from r1_reward.bench.fields import Draft, Fields
from r1_reward.bench.file_kinds import hint, kinds_of, looks_like
from r1_reward.records.prompt import build_prompt
from r1_reward.store.pairs import save_pairs


def rl_row(number: int, answer: str = "1") -> dict[str, Any]:
    text = build_prompt(f"Which digit {number}?", "A three.", "An eight.")
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": text}]
    message = json.dumps([{"role": "user", "content": content}])
    return {"question": "q", "message": message, "answer": [f"<answer>{answer}</answer>"], "image": "a.png"}


def chat(*texts: str, names: tuple[str, str] = ("role", "content"), roles: Any = ("user", "assistant")) -> list[Any]:
    return [dict(zip(names, turn, strict=True)) for turn in zip(roles, texts, strict=True)]


def povid_row(number: int) -> dict[str, Any]:
    sides = [
        chat("<image>\nWhich?", text, names=("from", "value"), roles=("human", "gpt"))
        for text in ("A three.", "An eight.")
    ]
    return {"id": str(number), "image": "a.png", "conversations": sides[0], "rejected_conversations": sides[1]}


def arena_row(number: int) -> dict[str, Any]:
    sides = {f"conversation_{side}": chat("Which?", text) for side, text in (("a", "A three."), ("b", "An eight."))}
    return {"question_id": str(number), "winner": "tie" if number < 5 else "model_a", "image": "a.png", **sides}


def feedback_row(number: int) -> dict[str, Any]:
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    completions = [
        {"response": text, "annotations": {aspect: {"Rating": str(rating)} for aspect in aspects}}
        for text, rating in (("A three.", 4), ("An eight.", 2))
    ]
    return {"id": str(number), "prompt": "Which?", "img_path": "a.png", "completions": completions}


def trl_row(number: int) -> dict[str, Any]:
    sides = {
        name: chat(text, roles=("assistant",)) for name, text in (("chosen", "A three."), ("rejected", "An eight."))
    }
    return {"prompt": chat(f"Which {number}?", roles=("user",)), "images": ["a.png"], **sides}


def rlaif_row(number: int) -> dict[str, Any]:
    return {"idx": number, "question": "Which?", "chosen": "A three.", "rejected": "An eight.", "image_path": "a.png"}


def mm_row(number: int) -> dict[str, Any]:
    return {"prompt": f"Which {number}?", "chosen": "A three.", "rejected": "An eight.", "image": "short/a.png"}


SOURCES = {
    "r1-reward-rl": rl_row, "povid": povid_row, "wildvision-battle": arena_row, "vl-feedback": feedback_row,
    "trl": trl_row, "rlaif-v": rlaif_row, "mm-rlhf": mm_row,
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_every_source_is_known_by_its_rows(tmp_path: Path, name: str, suffix: str) -> None:
    rows = [SOURCES[name](number) for number in range(30)]
    file = tmp_path / f"rows{suffix}"
    file.write_text(json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    kinds = looks_like(file)
    assert kinds[0].name == name
    assert kinds[0].command == f"r1-reward data import {name} --from {file} --out DIR"


def test_the_sentence_names_what_it_is_and_the_command(tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", [rl_row(n) for n in range(3)])
    assert hint(looks_like(file)) == (
        f"This looks like R1-Reward-RL rows: `r1-reward data import r1-reward-rl --from {file} --out DIR`"
    )
    assert hint([]) == ""


def test_benchmarks_are_known_by_their_rows_and_sizes(tmp_path: Path) -> None:
    hub = write(tmp_path / "hub.jsonl", [hub_row(vl_row(n)) for n in range(4)])
    assert [kind.name for kind in looks_like(hub)] == ["vl-rewardbench"]
    assert looks_like(hub)[0].command == f"r1-reward bench run vl-rewardbench --data {hub} --model MODEL --out DIR"
    write_parquet(tmp_path / "test-0.parquet", [hub_row(vl_row(n)) for n in range(4)], "image", lambda _: "a.png")
    assert [kind.name for kind in looks_like(tmp_path / "test-0.parquet")] == ["vl-rewardbench"]
    (tmp_path / "all_data.json").write_text(json.dumps([mrb_row(n) for n in range(5)]))
    assert [kind.name for kind in looks_like(tmp_path / "all_data.json")] == ["multimodal-rewardbench"]
    # prompt, chosen and rejected are MM-RLHF's fields as well: the number of rows decides, else both are named
    some = write(tmp_path / "some.jsonl", [vl_row(n) for n in range(4)])
    assert {"mm-rlhf", "vl-rewardbench"} <= {kind.name for kind in looks_like(some)}
    whole = write(tmp_path / "whole.jsonl", [vl_row(n) for n in range(1250)])
    assert [kind.name for kind in looks_like(whole)] == ["vl-rewardbench"]


def test_registered_benchmarks_are_tried_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(row: Fields) -> Draft:
        good, bad = row.texts("answers")
        return Draft(row.text("name"), row.text("ask"), good, bad, 1, "all", images=row.image("image"))

    monkeypatch.setattr("r1_reward.bench.benchmarks.REGISTERED", dict(REGISTERED))
    register(Benchmark(name="cups", title="Cups", parse=parse))
    file = write(
        tmp_path / "a.jsonl", [{"name": "1", "ask": "How many?", "answers": ["Two.", "Nine."], "image": "a.png"}]
    )
    assert [kind.what for kind in looks_like(file)] == ["rows of Cups"]


def test_predictions_are_known_before_the_rows_they_repeat(tmp_path: Path) -> None:
    released = write(tmp_path / "released.jsonl", [vl_row(n) | {"rewards": [1, 0]} for n in range(3)])
    assert [kind.command for kind in looks_like(released)] == [f"r1-reward bench score BENCHMARK {released}"]
    judged = [{"ID": "a", "Label": "A", "output": "[[A]]", "Meta": mrb_row(n)} for n in range(3)]
    official = write(tmp_path / "official.jsonl", judged)
    assert [kind.command for kind in looks_like(official)] == [
        f"r1-reward bench score multimodal-rewardbench {official}"
    ]
    (own,) = looks_like(write(tmp_path / "predictions.jsonl", [our_row(0)]))
    assert own.name == "ours" and own.what == "predictions of this package"


def test_what_the_package_writes_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    pair = {"id": "7", "question": "Which?", "images": ["a.png"], "response_1": "A", "response_2": "B", "preferred": 1}
    for name in ("pairs.jsonl", "pairs.parquet"):
        save_pairs([pair], tmp_path / name)
        assert [kind.name for kind in looks_like(tmp_path / name)] == ["pairs"]
    attempt = {
        "key": "k", "id": "7", "attempt": 1, "swapped": False, "temperature": 0.0, "answer": 1, "problem": "",
        "text": "x", "tokens": 3, "prompt_tokens": None,
    }  # fmt: skip
    rows = {
        "groups": {"question": "Which?", "images": ["a.png"], "responses": ["A", "B"]},
        "attempts": attempt,
    }
    for name, row in rows.items():
        assert [kind.name for kind in kinds_of([row], 1, "a.jsonl")] == [name]


SCORED = {"id": "7", "rewards": [0.5, -0.5], "order": [0, 1], "error": None}
VERDICT = {
    "id": "7", "preferred": 1, "probability": 0.5, "for_1": 1, "for_2": 0, "unreadable": 1, "flips": None, "tokens": 9,
    "error": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        SCORED,
        {**SCORED, "votes": 2, "unreadable": 1, "truncated": 0},
        VERDICT,
        {**VERDICT, "truncated": 1},
        {**VERDICT, "ties": 0, "truncated": 1},
    ],
    ids=["groups of 0.1.0", "groups", "pairs of 0.1.0", "pairs without ties", "pairs"],
)
def test_scored_rows_are_known_with_the_columns_of_then_and_now(row: dict[str, object]) -> None:
    assert [kind.name for kind in kinds_of([row], 1, "a.jsonl")] == ["scores"]


@pytest.mark.parametrize(
    "rows", [[], [{"id": "1"}], [{"messages": [{"role": "user", "content": "Hi"}]}], [{"id": 1, "answer": "2"}], [{}]]
)
def test_nothing_is_made_up_for_rows_of_no_known_kind(tmp_path: Path, rows: list[Any]) -> None:
    assert looks_like(write(tmp_path / "a.jsonl", rows)) == []
    assert looks_like(tmp_path / "gone.jsonl") == []


def named(row: dict[str, Any], count: int = 9) -> list[str]:
    rows = [row | ({"id": f"{row['id']}{number}"} if "id" in row else {}) for number in range(count)]
    return [kind.what for kind in kinds_of(rows, count, "a.jsonl")]


TEXTS = {"chosen": "A three.", "rejected": "An eight."}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"question": "Which?", "image": "a.png", **TEXTS}, "rows with the fields of RLAIF-V"),  # MMPR's
        (
            {"question": "Which?", "image": {"bytes": b"x"}, "image_name": "a", **TEXTS},
            "rows with the fields of RLAIF-V",
        ),
        ({"prompt": "Which?", "image": "a.png", "source": "x", **TEXTS}, "rows with the fields of MM-RLHF"),
        ({"id": "x", "prompt": "Which?", "image": "images/a.png", **TEXTS}, "rows with the fields of MM-RLHF"),
        ({"id": "x", "prompt": "Which?", "video": "films/a.mp4", **TEXTS}, "rows with the fields of MM-RLHF"),
        ({"question": "Which?", "image": "a.png", "origin_dataset": "x", **TEXTS}, "RLAIF-V rows"),
        ({"prompt": "Which?", "image": {"path": "mcq/a.png", "bytes": b"x"}, **TEXTS}, "MM-RLHF rows"),
    ],
)
def test_common_fields_do_not_identify_a_dataset(row: dict[str, Any], what: str) -> None:
    assert named(row) == [what]


@pytest.mark.parametrize(
    "row",
    [
        {"id": "x", "prompt": "Which?", "subset": "chat", "chosen_model": "a", "rejected_model": "b", **TEXTS},
        {"id": "mmmu_1", "prompt": "Which?", "image": None, **TEXTS},
        {"id": "x", "prompt": "Which?", "image": "", **TEXTS},
        {"prompt": "Which?", "response": "Three.", "helpfulness": 3, "correctness": 3, "verbosity": 2},
        {"prompt": "Which?", "response_1": "A", "response_2": "B", "preference_strength": -1},
        {"question": "Which?", **TEXTS},
        {"question": "Which?", "responses": ["A", "B"], "correct": [True, False], "model": "m"},
        {
            "question": "Which?",
            "images": ["a.png"],
            "responses": [{"text": "A", "model": "m"}, {"text": "B", "model": "n"}],
        },
        {"question": "Which?", "image": "a.png", "response_1": "A", "response_2": "B", "overall_response": 1},
    ],
)
def test_rows_of_text_alone_and_of_other_projects_are_of_no_kind(row: dict[str, Any]) -> None:
    assert named(row) == []


def test_a_part_of_a_benchmark_is_named_by_its_ids() -> None:
    whats = named({"id": "mathverse_", "prompt": "Which?", "image": "vl_reward/img/image_0.jpg", **TEXTS})
    assert whats == ["rows of VL-RewardBench", "rows with the fields of MM-RLHF"]
    assert named({"id": "07_6", "prompt": "Which?", "image": "mcq/07.png", **TEXTS}) == [
        "MM-RLHF rows", "rows of MM-RLHF-RewardBench",
    ]  # fmt: skip


def test_rows_of_several_kinds_are_of_none(tmp_path: Path) -> None:
    mixed = [SOURCES[name](1) for name in SOURCES]
    assert looks_like(write(tmp_path / "a.jsonl", mixed)) == []


WRITERS = {
    "mmrb2": mmrb2, "omni-rewardbench": omni_reward_bench, "editreward-bench": edit_reward_bench, "mr2bench": mr2_bench,
    "rewardbench-2": reward_bench_2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mmrb2", ""), ("mmrb2", "t2i"), ("mmrb2", "reasoning/test-00000-of-00001.parquet"),
        ("omni-rewardbench", ""), ("omni-rewardbench", "text_to_image"),
        ("editreward-bench", ""), ("editreward-bench", "2pair"),
        ("mr2bench", ""), ("mr2bench", "video.json"), ("rewardbench-2", ""), ("rewardbench-2", "data"),
    ],
)  # fmt: skip
def test_benchmarks_of_several_tasks_are_known_by_folder_and_file(tmp_path: Path, name: str, place: str) -> None:
    place = str(WRITERS[name](tmp_path, rows=2) / place)
    kinds = looks_like(place)
    assert kinds[0].name == name
    assert kinds[0].command == f"r1-reward bench run {name} --data {place.rstrip('/')} --model MODEL --out DIR"


@pytest.mark.parametrize("form", [mmrb2_built, partial(omni_reward_bench, form="json")])
def test_benchmarks_of_several_tasks_are_known_in_their_scripts_forms(tmp_path: Path, form: Any) -> None:
    form(tmp_path, rows=2)
    names = {file.name: [kind.name for kind in looks_like(file)] for file in tmp_path.glob("*.json")}
    assert len(names) > 3 and len({tuple(found) for found in names.values()}) == 1
    assert names.popitem()[1][0] in ("mmrb2", "omni-rewardbench")


@pytest.mark.parametrize("name", ["t2i.jsonl", "image.jsonl", "text_to_text.jsonl", "2pair.jsonl"])
def test_a_file_name_alone_does_not_identify_a_task(tmp_path: Path, name: str) -> None:
    kinds = looks_like(write(tmp_path / name, [vl_row(number) for number in range(4)]))
    assert not {kind.name for kind in kinds} & set(WRITERS)

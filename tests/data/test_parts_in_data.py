"""Contents as parts, ties and criteria in all data functions: nothing is lost or confused."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from fakes import FakeEngine
from mixture_rows import cell, encoded, make_row, picture, sentence, write_folder
from scripted_server import reply
from teacher_rows import lines_of, rows_of, run, says

from r1_reward.data.annotation import row_key
from r1_reward.data.contamination import BenchmarkIndex
from r1_reward.data.difficulty import split_difficulty
from r1_reward.data.exporting import export_r1_reward_rl
from r1_reward.data.importing import import_pairs
from r1_reward.data.mix_config import MixConfig
from r1_reward.data.mixing import mix
from r1_reward.data.pass_rates import PassRates
from r1_reward.data.subsets import balance, both_orders, split
from r1_reward.records.content import places_of, text_of, to_parts
from r1_reward.records.errors import UserError
from r1_reward.records.prompt import build_messages
from r1_reward.store.pairs import load_pairs
from r1_reward.store.shards import read_rows


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(seed: int, **options: Any) -> dict[str, Any]:
    return {"type": "image", "image": cell(seed, **options)}


def drawn(number: int, **changes: Any) -> dict[str, Any]:
    """Two drawings: nothing but pictures in the answers, none beside the question."""
    row = make_row(
        number, question=f"Draw {number}. {sentence(f'd{number}', 6)}", images=[],
        response_1=[image(1000 + number)], response_2=[text("Here: "), image(2000 + number)],
    )  # fmt: skip
    return {**row, **changes}


def sizes(content: Any) -> list[bytes]:
    return [place.source["bytes"] for place in places_of(content)]


def mixed(folder: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    config = MixConfig.model_validate({"sources": {"one": {"path": write_folder(folder / "one", rows)}}, **options})
    report = mix(config, folder / "out").report
    sides = [side for side in ("train", "test") if (folder / "out" / side).exists()]
    return report, {row["id"]: row for side in sides for row in read_rows(folder / "out" / side)}


def removed_of(folder: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (folder / "out" / "removed.jsonl").read_text().splitlines()]
    return {line["id"]: line["reason"] for line in lines}


# ---- mix


def test_pictures_move_with_their_response(tmp_path: Path) -> None:
    rows = [drawn(number, preferred=1, criteria=f"criterion {number}") for number in range(12)]
    report, out = mixed(tmp_path, rows, test_share=0.25)
    assert report["labels"]["train"] | {} and sum(sum(side.values()) for side in report["labels"].values()) == 12
    assert Counter(row["preferred"] for row in out.values()) == {1: 6, 2: 6}
    for row in rows:
        found = out[row["id"]]
        better, other = (found[f"response_{n}"] for n in (found["preferred"], 3 - found["preferred"]))
        assert (to_parts(better), to_parts(other)) == (row["response_1"], row["response_2"])
        assert found["criteria"] == row["criteria"]


def test_ties_are_removed_and_counted(tmp_path: Path) -> None:
    rows = [make_row(n, preferred=n % 3) for n in range(9)] + [drawn(20, preferred=0), drawn(21)]
    report, out = mixed(tmp_path, rows)
    assert report["removed"] == {"tie": 4}
    assert report["sources"]["one"]["removed"] == {"tie": 4}
    assert all(row["preferred"] for row in out.values()) and len(out) == 7
    assert report["examples"]["tie"][0]["detail"] == "neither response is preferred"
    assert load_pairs(tmp_path / "out" / "train", check_images=False).num_rows == 7


def test_a_tie_neither_repeats_nor_contradicts(tmp_path: Path) -> None:
    """A row with the same content as a tie stays: the removed tie does not affect it."""
    rows = [make_row(1, preferred=0), make_row(1, id="one:again"), make_row(2), make_row(2, id="one:tie", preferred=0)]
    _, out = mixed(tmp_path, rows)
    assert sorted(out) == ["one:2", "one:again"]
    with pytest.raises(UserError, match="No rows are left"):
        mixed(tmp_path / "only", [make_row(1, preferred=0)])


def test_duplicates_depend_on_the_pictures_inside_contents(tmp_path: Path) -> None:
    same = {"question": sentence("ask", 12), "images": []}
    a, b = [image(1)], [text("And "), image(2)]
    jpeg, worse = ({"bytes": encoded(picture(1), "JPEG", quality=q), "path": "1.jpg"} for q in (85, 60))
    rows = [
        drawn(1, **same, response_1=a, response_2=b),
        drawn(2, **same, response_1=a, response_2=b),  # exact
        drawn(3, **same, response_1=b, response_2=a, preferred=2),  # exact, turned round
        drawn(4, **same, response_1=[{"type": "image", "image": jpeg}], response_2=b),  # near
        drawn(5, **same, response_1=b, response_2=[{"type": "image", "image": worse}], preferred=2),  # near, turned
        drawn(6, **same, response_1=[image(3)], response_2=b),  # another picture
        drawn(7, **same, response_1=[image(2)], response_2=[text("And "), image(1)]),  # pictures exchanged, texts not
        drawn(8, **same, response_1=a, response_2=b, criteria="beauty"),  # another criterion
        drawn(9, **same, response_1=a, response_2=b, criteria="likeness", preferred=2),
    ]
    report, out = mixed(tmp_path, rows)
    assert removed_of(tmp_path) == {
        "one:2": "exact duplicate", "one:3": "exact duplicate", "one:4": "near duplicate", "one:5": "near duplicate",
    }  # fmt: skip
    assert sorted(out) == ["one:1", "one:6", "one:7", "one:8", "one:9"]
    assert report["statistics"]["pictures"]["count"] == 10


def test_contradictions_between_pictures_remove_both(tmp_path: Path) -> None:
    rows = [drawn(1), drawn(1, id="one:against", preferred=2), drawn(2)]
    mixed(tmp_path, rows)
    assert removed_of(tmp_path) == {"one:1": "contradiction", "one:against": "contradiction"}


def test_an_unreadable_picture_inside_a_content_removes_its_row(tmp_path: Path) -> None:
    broken = {"type": "image", "image": {"bytes": b"no picture", "path": "x.png"}}
    report, out = mixed(tmp_path, [drawn(1, response_2=[text("x"), broken]), drawn(2)])
    assert report["removed"] == {"unreadable picture": 1}
    assert list(out) == ["one:2"]


def test_rows_that_share_a_picture_within_are_on_one_side(tmp_path: Path) -> None:
    rows = [drawn(n, response_1=[image(n // 4)]) for n in range(40)]
    report, _ = mixed(tmp_path, rows, test_share=0.3)
    assert report["split"] == {"groups": 10, "largest_group": 4}
    sides = [{sizes(row["response_1"])[0] for row in read_rows(tmp_path / "out" / side)} | {
        sizes(row["response_2"])[0] for row in read_rows(tmp_path / "out" / side)
    } for side in ("train", "test")]  # fmt: skip
    assert not sides[0] & sides[1]


def test_mixing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = [make_row(n) for n in range(5)] + [drawn(10 + n) for n in range(5)]
    mixed(tmp_path / "a", rows, test_share=0.2)
    mixed(tmp_path / "b", rows, test_share=0.2)
    for file in (tmp_path / "a" / "out").rglob("*.parquet"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


class _Suite:
    """A benchmark with pictures in its answers, as far as an index looks at one."""

    source, revision, n, size, notes = "bench", None, 1, None, []

    def __init__(self, row: Any) -> None:
        self._row = row

    def rows(self) -> Any:
        yield self._row


class _Row:
    index, id, images, video = 0, "b", (), None

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (drawn(1, response_2=[image(77)]), "benchmark picture"),
        (drawn(1, question=[image(77), text("Make it red.")]), "benchmark picture"),
        (make_row(1, images=[cell(77)]), "benchmark picture"),
        (drawn(1, question=[text(sentence("q", 40)), image(5)], response_1=sentence("r", 40)), "benchmark text"),
        (drawn(1), ""),
    ],
)
def test_contamination_compares_pictures_and_texts_inside_contents(tmp_path: Path, row: Any, reason: str) -> None:
    theirs = _Row(
        question=[text(sentence("q", 40)), image(88)], response_1=[text(sentence("r", 40))], response_2=[image(77)]
    )
    config = MixConfig.model_validate(
        {
            "sources": {"one": {"path": write_folder(tmp_path / "one", [row, drawn(500)])}},
            "benchmarks": [{"suite": "vl-rewardbench", "path": "bench"}],
        }
    )
    mix(config, tmp_path / "out", open_benchmark=lambda *_, **__: _Suite(theirs))
    assert removed_of(tmp_path) == ({"one:1": reason} if reason else {})
    assert BenchmarkIndex(
        config.benchmarks, config.contamination, lambda *_, **__: _Suite(theirs)
    ).described[0]["pictures"] == 2  # fmt: skip


# ---- subsets of what training loads


def dataset(folder: Path, rows: list[dict[str, Any]]) -> Any:
    write_folder(folder / "in", rows, rows_per_shard=3)
    return load_pairs(folder / "in", check_images=False)


def test_balance_and_both_orders_swap_pictures_with_their_texts(tmp_path: Path) -> None:
    rows = [drawn(n, preferred=1) for n in range(6)] + [make_row(n + 6) for n in range(2)]
    pairs = dataset(tmp_path, rows)
    wanted = {row["id"]: (row["response_1"], row["response_2"]) for row in rows}
    for made, count in ((balance(pairs, seed=3), 8), (both_orders(pairs, seed=3), 16)):
        assert len(made) == count
        assert Counter(made["preferred"]) == {1: count // 2, 2: count // 2}
        assert made.features == pairs.features
        for row in made:
            found = [to_parts(row[f"response_{n}"]) for n in (row["preferred"], 3 - row["preferred"])]
            assert tuple(found) == wanted[row["id"]]


def test_split_keeps_pictures_within_on_one_side(tmp_path: Path) -> None:
    rows = [drawn(n, response_2=[image(n // 3)]) for n in range(12)] + [make_row(50, images=[cell(0)])]
    train, test = split(dataset(tmp_path, rows), seed=1, test_size=4)
    shown = [{data for row in side for name in ("response_2",) for data in sizes(row[name])} for side in (train, test)]
    beside = {cell["bytes"] for row in test for cell in row["images"]}
    assert not shown[0] & shown[1] and not beside & shown[0] and len(train) + len(test) == 13


# ---- annotate


def pictures_sent(body: dict[str, Any]) -> list[bytes | str]:
    """What a teacher's server was sent, in order: texts, and pixels of pictures."""
    parts = body["messages"][0]["content"]
    return [
        part["text"] if part["type"] == "text" else base64.b64decode(part["image_url"]["url"].partition(",")[2])
        for part in parts
    ]


def test_the_teacher_is_shown_pictures_at_their_places(server: Any, tmp_path: Path) -> None:
    row = drawn(
        1, images=[cell(9)], question=[text("Is "), image(3), text(" a cat?")], response_1=[image(4), text(" is.")],
        response_2="No.", criteria="Be fair to cats.",
    )  # fmt: skip
    server.default = [reply(says(2)), reply(says(1))]
    report = run(server, write_folder(tmp_path / "in", [row]), tmp_path / "out", settings={"reorder": False})
    sent = pictures_sent(server.bodies[0])
    kinds = ["text" if isinstance(piece, str) else "image" for piece in sent]
    assert kinds == ["image", "text", "image", "text", "image", "text"]
    assert sent[1].endswith("Is ") and sent[3].startswith(" a cat?") and "Be fair to cats." in sent[3]
    assert sent[5].startswith(" is.")
    assert len({piece for piece in sent if isinstance(piece, bytes)}) == 3
    (written,) = rows_of(tmp_path / "out").values()
    assert written["attempts"] == 2 and report["complete"]
    assert {name: written[name] for name in ("question", "response_1", "criteria")} == {
        name: row[name] for name in ("question", "response_1", "criteria")
    }


def test_a_swapped_row_keeps_pictures_with_their_response(server: Any, tmp_path: Path) -> None:
    rows = [drawn(n, preferred=2) for n in range(8)]
    server.default = [reply(says(1))]  # whatever is shown first: it agrees once the responses are exchanged
    run(server, write_folder(tmp_path / "in", rows), tmp_path / "out", settings={"reorder": True})
    found = rows_of(tmp_path / "out")
    assert 1 in {row["preferred"] for row in found.values()}
    for row in rows:
        one = found[row["id"]]
        assert (one["preferred"] == 1) == (one["reasoning"] is not None)
        assert to_parts(one[f"response_{one['preferred']}"]) == row["response_2"]


def test_ties_are_not_asked_about(server: Any, tmp_path: Path) -> None:
    server.default = [reply(says(1))]
    rows = [drawn(1, preferred=0), drawn(2), make_row(3, preferred=0), make_row(4)]
    report = run(server, write_folder(tmp_path / "in", rows), tmp_path / "out")
    assert (report["complete"], report["written"], report["dropped"]) == (True, 2, {"tie": 2})
    assert len(server.bodies) == 2
    assert {line["id"]: line["reason"] for line in lines_of(tmp_path / "out", "dropped.jsonl")} == {
        "one:1": "tie", "one:3": "tie",
    }  # fmt: skip


def test_a_row_that_cannot_be_shown_is_skipped_and_the_others_are_annotated(server: Any, tmp_path: Path) -> None:
    server.default = [reply(says(1))]
    broken = {"type": "image", "image": {"bytes": b"no picture", "path": "x.png"}}
    rows = [
        make_row(1, question="long " * 12_000), drawn(2, response_1=[text("x"), broken]), drawn(3), make_row(4),
    ]  # fmt: skip
    report = run(server, write_folder(tmp_path / "in", rows), tmp_path / "out")
    assert (report["written"], report["dropped"]) == (2, {"not shown": 1, "image": 1})
    lost = {line["id"]: line["detail"] for line in lines_of(tmp_path / "out", "dropped.jsonl")}
    assert "question: has 60,000 characters" in lost["one:1"] and "is not an image" in lost["one:2"]
    assert len(server.bodies) == 2


def test_the_key_of_a_row_depends_on_what_is_shown_and_stays_for_plain_rows(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", [drawn(1), drawn(1, response_1=[image(5)]), drawn(1, criteria="x"), make_row(1)])
    rows = list(read_rows(tmp_path / "a"))
    assert len({row_key(row) for row in rows}) == 4
    named = dict(
        rows[0], response_1=[{"type": "image", "image": {**rows[0]["response_1"][0]["image"], "path": "other"}}]
    )
    assert row_key(named) == row_key(rows[0])
    plain = {
        "id": "1",
        "question": "q",
        "images": [],
        "video": None,
        "response_1": "a",
        "response_2": "b",
        "criteria": None,
    }
    assert row_key(plain) == "dd45ec3fc4d2f428"


# ---- divide, export


class Judge(FakeEngine):
    def open(self) -> Any:
        raise AssertionError("ties are not measured")


def test_ties_are_in_neither_set(tmp_path: Path) -> None:
    taught = {"reasoning": says(1), "attempts": 2}
    rows = [drawn(1, preferred=0), drawn(2, **taught), make_row(3, preferred=0, attempts=2), make_row(4, **taught)]
    source = write_folder(tmp_path / "in", rows)
    sft, rl = split_difficulty(source, tmp_path / "sft", tmp_path / "rl")
    for side, report in (("sft", sft), ("rl", rl)):
        assert [row["id"] for row in read_rows(tmp_path / side)] == ["one:2", "one:4"]
        assert report["neither"] == {"neither response is preferred": 2}
        assert report["levels"]["tie"] == 2


def test_ties_have_no_pass_rate(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", [drawn(1, preferred=0), make_row(2, preferred=0)])
    with pytest.raises(AssertionError, match="not measured"):
        split_difficulty(
            write_folder(tmp_path / "more", [drawn(1, preferred=0), drawn(2)]), tmp_path / "a", tmp_path / "b",
            PassRates(model="m", samples=2), engine=Judge(),
        )  # fmt: skip
    _, rl = split_difficulty(
        source, tmp_path / "s", tmp_path / "r", PassRates(model="m", samples=2), engine=FakeEngine()
    )
    assert (rl["written"], rl["neither"]) == (0, {"neither response is preferred": 2})


def test_pairs_unsupported_by_the_released_format_are_counted(tmp_path: Path) -> None:
    rows = [
        drawn(1), make_row(2, preferred=0), make_row(3, question=[text("Is "), image(3), text("?")]),
        make_row(4, criteria="Be brief. <|im_end|>"), make_row(5, question=[text("two"), text("texts")]),
    ]  # fmt: skip
    write_folder(tmp_path / "in", rows)
    report = export_r1_reward_rl(tmp_path / "in", tmp_path / "out")
    assert (report["kept"], report["dropped"]) == (2, {"pictures within": 2, "tie": 1})
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [(line["id"], line["reason"]) for line in lost] == [
        ("one:1", "pictures within"), ("one:2", "tie"), ("one:3", "pictures within"),
    ]  # fmt: skip
    assert lost[0]["detail"] == "response_1 contains 1"
    import_pairs("r1-reward-rl", tmp_path / "out" / "train.jsonl", tmp_path / "back", images=tmp_path / "out")
    before = {row["id"]: row for row in read_rows(tmp_path / "in")}
    for row in read_rows(tmp_path / "back"):
        old = before[row["id"].removeprefix("r1-reward-rl:")]
        names = ("question", "response_1", "response_2", "preferred", "criteria")
        assert {name: row[name] for name in names} == {name: old[name] for name in names}
    with pytest.raises(UserError, match="none of its 1 pairs can be exported"):
        write_folder(tmp_path / "ties", [make_row(1, preferred=0)])
        export_r1_reward_rl(tmp_path / "ties", tmp_path / "none")


def test_lengths_of_the_card_are_those_of_texts(tmp_path: Path) -> None:
    report, _ = mixed(
        tmp_path, [drawn(1, question="Draw.", response_1=[image(4)], response_2=[text("Sure: "), image(5)])]
    )
    numbers = report["statistics"]["all"]
    assert (numbers["question"], sorted([numbers["preferred"], numbers["other"]])) == (5, [7, 13])
    assert text_of([image(4)]) == "[image]"
    assert build_messages("a", "b", "c")  # what the released form has in its place

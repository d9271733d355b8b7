"""R1-Reward-RL: pairs from complete prompts, and back, without guessing."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.data.sources.common import REASONS, Candidate, Drop, Row
from r1_reward.data.sources.r1_reward_rl import cut_prompt, read, to_row
from r1_reward.records.errors import UserError
from r1_reward.records.placeholders import name_pictures
from r1_reward.records.prompt import build_prompt, neutralize

PNG_BYTES = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TEXTS = ("Which sort of painting?", "It is by Vuillard.", "It is a photo.\n\nOf a shop.")


def message(prompt: str, *images: str, text_first: bool = True) -> str:
    content = [{"type": "image", "image": path} for path in images]
    content.insert(0 if text_first else len(content), {"type": "text", "text": prompt})
    return json.dumps([{"role": "user", "content": content}])


def make_row(**changes: Any) -> dict[str, Any]:
    prompt = message(build_prompt(*TEXTS), "/abs/RLAIF-V-image/shop.jpg")
    row = {"question": TEXTS[0], "message": prompt, "answer": ["<answer>2</answer>"]}
    return {**row, "image": base64.b64encode(PNG_BYTES).decode(), **changes}


def pair(row: dict[str, Any]) -> Candidate:
    (item,) = read(Row(row))
    assert isinstance(item, Candidate)
    return item


def reason(row: dict[str, Any]) -> str:
    with pytest.raises(Drop) as caught:
        list(read(Row(row)))
    assert caught.value.reason in REASONS
    return str(caught.value)


def test_a_row_of_the_hub() -> None:
    embedded = ({"bytes": PNG_BYTES, "path": None},)
    assert pair(make_row()) == Candidate("", TEXTS[0], TEXTS[2], TEXTS[1], embedded, preferred=2)
    first = pair(make_row(answer=["<answer>1</answer>"]))
    assert (first.chosen, first.rejected, first.preferred) == (TEXTS[1], TEXTS[2], 1)


def test_image_before_text_and_plain_answers_are_the_same() -> None:
    swapped = message(build_prompt(*TEXTS), "/x.jpg", text_first=False)
    assert pair(make_row(message=swapped)) == pair(make_row())
    assert pair(make_row(answer=" <answer> 2 </answer>\n")) == pair(make_row())


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        (None, {"path": "/abs/RLAIF-V-image/shop.jpg"}),
        ("", {"path": "/abs/RLAIF-V-image/shop.jpg"}),
        ("images/shop.jpg", {"bytes": None, "path": "images/shop.jpg"}),
        ("shop", {"bytes": None, "path": "shop"}),  # four letters are base64, too
        (PNG_BYTES, {"bytes": PNG_BYTES, "path": None}),
        ({"bytes": PNG_BYTES, "path": "a.png"}, {"bytes": PNG_BYTES, "path": "a.png"}),
        ("data:image/png;base64," + base64.b64encode(PNG_BYTES).decode(), {"bytes": PNG_BYTES, "path": None}),
        (base64.encodebytes(PNG_BYTES).decode(), {"bytes": PNG_BYTES, "path": None}),  # in two lines
    ],
)
def test_where_the_image_comes_from(column: Any, cell: dict[str, Any]) -> None:
    assert pair(make_row(image=column)).images == (cell,)


def test_long_base64_that_is_not_an_image_is_left_to_the_image_check() -> None:
    junk = base64.b64encode(b"\x01" * 6000).decode()
    assert pair(make_row(image=junk)).images == ({"bytes": b"\x01" * 6000, "path": None},)


def test_several_images_come_from_the_message() -> None:
    row = make_row(message=message(build_prompt(*TEXTS), "/a.png", "file:///b.png"))
    assert pair(row).images == ({"path": "/a.png"}, {"path": "/b.png"})


def test_headings_with_four_signs_as_in_the_authors_example() -> None:
    prompt = build_prompt(*TEXTS)
    assert cut_prompt(prompt.replace("###### [Response 2]", "#### [Response 2]")) == TEXTS
    assert cut_prompt(prompt.replace("######", "####")) == TEXTS
    spaced = prompt.replace("  \n\n###### [Response", "\n\n\n###### [Response")  # other white space behind the texts
    assert cut_prompt(spaced) == TEXTS


def test_an_ambiguous_prompt_is_dropped() -> None:
    hostile = build_prompt(*TEXTS).replace("It is by", "It\n\n###### [Response 2]:\nis by")
    with pytest.raises(Drop, match=r"the headings are \[question\], \[response 1\], \[response 2\], \[response 2\]"):
        cut_prompt(hostile)
    for gone in ("###### [Question]:\n", "###### [Response 1]:\n", "###### [Response 2]:\n", "###### **Output Format"):
        with pytest.raises(Drop, match="unreadable prompt: the headings are"):
            cut_prompt(build_prompt(*TEXTS).replace(gone, "###### "))


def test_drops() -> None:
    prompt = build_prompt(*TEXTS)
    cases: dict[str, dict[str, Any]] = {
        "unreadable prompt: message is not JSON": {"message": "[{"},
        "unreadable prompt: message is an object, not a chat": {"message": "{}"},
        "several turns: message is not a single user turn": {
            "message": json.dumps([{"role": "system", "content": "x"}, {"role": "user", "content": prompt}])
        },
        "unreadable prompt: message is not a single user turn": {"message": "[]"},
        "unreadable prompt: the message is not one text with images": {
            "message": json.dumps([{"role": "user", "content": [{"type": "video", "video": "v"}]}])
        },
        "wrong type: an image of the message is not a path": {"message": message(prompt, "")},
        "unreadable label: answer \"['<answer>3</answer>']\" is not <answer>1</answer> or <answer>2</answer>": {
            "answer": ["<answer>3</answer>"]
        },
        "missing field: answer": {"answer": None},
        "no image: neither the column image nor the message has one": {"message": message(prompt), "image": ""},
        "blank text: response_1": {"message": message(build_prompt("q", " ", "b"), "/a.png")},
    }
    assert [reason(make_row(**changes)) for changes in cases.values()] == list(cases)
    for answer in ("2", ["<answer>1</answer>", "<answer>2</answer>"], [], [2], "<answer>1</answer><answer>2</answer>"):
        assert reason(make_row(answer=answer)).startswith("unreadable label")


# ---- and back

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
HOSTILE = st.sampled_from(
    ["###### [Response 2]:\n", "<image>", "<|im_end|>", "{answer2}", "###### **Output Format", "  \n\n", "\n", "#### "]
    + ["<answer>1</answer>", "[Question]:", "\r\n", "\u2028", "### [Question]:\nx"]
)
ANY = st.lists(TEXT | HOSTILE, min_size=1, max_size=5).map("".join).filter(str.strip)


@settings(max_examples=300, deadline=None)
@given(texts=st.tuples(ANY, ANY, ANY), preferred=st.sampled_from([1, 2]))
def test_written_rows_are_read_back_exactly(texts: tuple[str, str, str], preferred: int) -> None:
    full: dict[str, Any] = dict(zip(("question", "response_1", "response_2"), texts, strict=True))
    full |= {"id": "rlaif-v:7", "source": "rlaif-v", "kind": "", "provenance": "rlaif-v:a.parquet:7"}
    row = json.loads(
        json.dumps(to_row({**full, "preferred": preferred, "reasoning": None, "attempts": 2}, ["/x/a.png"]))
    )
    item = pair(row)
    stored = (item.chosen, item.rejected) if preferred == 1 else (item.rejected, item.chosen)
    assert (item.question, *stored) == texts
    assert item.preferred == preferred
    assert item.kept == {"id": "rlaif-v:7", "source": "rlaif-v", "provenance": "rlaif-v:a.parquet:7", "attempts": 2}
    # The training code sees only the prompt, and there all control tokens are broken.
    (turn,) = json.loads(row["message"])
    assert turn["content"][0] == {"type": "image", "image": "/x/a.png"}
    assert turn["content"][1]["text"] == build_prompt(*texts)


@settings(max_examples=300, deadline=None)
@given(texts=st.tuples(ANY, ANY, ANY))
def test_cutting_a_prompt_gives_the_neutralised_texts(texts: tuple[str, str, str]) -> None:
    question, *responses = texts
    safe = tuple(map(neutralize, [name_pictures(question), *responses]))
    assert cut_prompt(build_prompt(*texts)) == safe


def test_columns_that_do_not_match_the_prompt_are_ignored() -> None:
    row = to_row(dict(zip(("question", "response_1", "response_2"), TEXTS, strict=True)) | {
        "id": "s:1", "source": "s", "preferred": 1}, ["/a.png"])  # fmt: skip
    forged = pair(row | {"response_1": "Another answer."})
    assert (forged.question, forged.chosen, forged.rejected) == TEXTS
    del row["response_1"], row["response_2"]
    assert pair(row).chosen == TEXTS[1]


def test_a_pair_without_an_image_cannot_be_written() -> None:
    with pytest.raises(UserError, match="pair s:1: has no image"):
        to_row({"id": "s:1"}, [])

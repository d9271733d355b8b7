"""MM-RLHF, RLAIF-V, POVID, WildVision and TRL rows, in every variant their publishers use."""

from typing import Any

import pytest

from r1_reward.data.sources import SOURCES, find_source
from r1_reward.data.sources.common import REASONS, Candidate, Drop, Row
from r1_reward.records.content import to_parts
from r1_reward.records.errors import UserError

PNG = {"bytes": b"png", "path": "a.png"}


def read(source: str, row: dict[str, Any]) -> list[Candidate | Drop]:
    return list(SOURCES[source].read(Row(row)))


def pair(source: str, row: dict[str, Any]) -> Candidate:
    (item,) = read(source, row)
    assert isinstance(item, Candidate)
    return item


def reason(source: str, row: dict[str, Any]) -> str:
    with pytest.raises(Drop) as caught:
        read(source, row)
    assert caught.value.reason in REASONS
    return str(caught.value)


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


# ---- MM-RLHF

MM_RLHF = {
    "id": "ai2d_azuregpt_4569_175031", "image": "long/ai2d_azuregpt_4569.png", "prompt": "What does the arrow show?",
    "chosen": "Water that evaporates.", "rejected": "Rain.", "chosen_reason": "right", "rejected_reason": "wrong",
}  # fmt: skip


def test_mm_rlhf_image_row() -> None:
    assert pair("mm-rlhf", MM_RLHF) == Candidate(
        id="ai2d_azuregpt_4569_175031", question="What does the arrow show?", chosen="Water that evaporates.",
        rejected="Rain.", images=({"bytes": None, "path": "long/ai2d_azuregpt_4569.png"},), kind="long",
    )  # fmt: skip


def test_mm_rlhf_rows_need_no_reasons_and_may_hold_precomputed_numbers() -> None:
    row = without(MM_RLHF, "chosen_reason", "rejected_reason") | {"reference_chosen_logp": -1.5}
    assert pair("mm-rlhf", row) == pair("mm-rlhf", MM_RLHF)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("short/a.png", "short"), ("mcq/x/b.jpg", "mcq"), ("./safety/a.png", "safety"), ("long/short/a.png", "long"),
        ("images/long/a.png", ""), ("long.png", ""), ("shortcut/a.png", ""), ("video/a.png", "video"),
    ],
)  # fmt: skip
def test_mm_rlhf_part_is_the_first_folder(path: str, part: str) -> None:
    assert pair("mm-rlhf", MM_RLHF | {"image": path}).kind == part


def test_mm_rlhf_video_row() -> None:
    row = without(MM_RLHF, "image") | {"video": "video/-77dfCjTbSc_2_94421", "id": "-77dfCjTbSc_2_94421"}
    item = pair("mm-rlhf", row)
    assert (item.video, item.images, item.kind) == ("video/-77dfCjTbSc_2_94421", (), "video")
    assert pair("mm-rlhf", row | {"image": None}) == item  # how parquet has it


def test_mm_rlhf_drops() -> None:
    assert reason("mm-rlhf", MM_RLHF | {"video": "video/x"}) == "several media: both image and video"
    assert reason("mm-rlhf", without(MM_RLHF, "image")) == "missing field: image or video"
    assert reason("mm-rlhf", MM_RLHF | {"image": ""}) == "no image: image or video"
    assert reason("mm-rlhf", without(MM_RLHF, "rejected")) == "missing field: rejected"
    assert reason("mm-rlhf", MM_RLHF | {"chosen": " \n"}) == "blank text: chosen"
    assert reason("mm-rlhf", MM_RLHF | {"chosen": 3}) == "wrong type: chosen is a number, not text"
    assert reason("mm-rlhf", MM_RLHF | {"image": 3}).startswith("wrong type: image is a number")


# ---- RLAIF-V

RLAIF_V = {
    "ds_name": "RLAIF-V", "image": PNG, "question": "Describe the kitchen.", "chosen": "A counter.",
    "rejected": "A gas cooktop.", "origin_dataset": "COCO", "origin_split": '{"model": "m"}', "idx": "14",
    "image_path": "000000014.jpg",
}  # fmt: skip


def test_rlaif_v() -> None:
    assert pair("rlaif-v", RLAIF_V) == Candidate(
        "14", "Describe the kitchen.", "A counter.", "A gas cooktop.", (PNG,), kind="COCO"
    )
    assert pair("rlaif-v", RLAIF_V | {"idx": 14}).id == "14"
    for gone in (without(RLAIF_V, "image"), RLAIF_V | {"image": {"bytes": None, "path": None}}):
        assert pair("rlaif-v", gone).images == ({"bytes": None, "path": "000000014.jpg"},)
    assert pair("rlaif-v", without(RLAIF_V, "idx", "origin_dataset")).id == ""
    assert reason("rlaif-v", without(RLAIF_V, "image", "image_path")) == "missing field: image or image_path"
    assert reason("rlaif-v", RLAIF_V | {"image": None, "image_path": ""}) == "no image: image or image_path"
    assert reason("rlaif-v", RLAIF_V | {"question": "<image>\n"}) == "blank text: question"


# ---- POVID


def povid(question: str = "<image>\nDescribe this image in detail.", **changes: Any) -> dict[str, Any]:
    def chat(answer: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]

    row = {
        "id": "COCO_train2014_000000353952", "image": "./data/coco/COCO_train2014_000000353952.jpg",
        "conversations": chat("A group of people."), "rejected_conversations": chat("All wear riding boots."),
    }  # fmt: skip
    return row | changes


@pytest.mark.parametrize(
    "question",
    [
        "<image>\nDescribe this image in detail.",
        "Describe this image in detail.\n<image>",
        "Describe this image in detail.",
    ],
)
def test_povid_strips_the_mark_of_the_image(question: str) -> None:
    item = pair("povid", povid(question))
    assert item == Candidate(
        "COCO_train2014_000000353952", "Describe this image in detail.", "A group of people.", "All wear riding boots.",
        ({"bytes": None, "path": "./data/coco/COCO_train2014_000000353952.jpg"},),
    )  # fmt: skip


def test_a_mark_inside_the_question_stays() -> None:
    assert pair("povid", povid("What does <image> mean in HTML?")).question == "What does <image> mean in HTML?"
    assert pair("povid", povid("  Indented as it was. ")).question == "  Indented as it was. "


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("<image>\n<image>\nWhich is older?", "has places for 2 pictures (<image>), and 1 came"),
        ("Is <image> taken after <image>?", "has places for 2 pictures (<image>), and 1 came"),
        ("<image 1> or <image 2>?", "<image 1>, <image 2>"),
    ],
)
def test_placeholders_without_pictures_are_dropped(question: str, told: str) -> None:
    for source, row in (
        ("povid", povid(question)),
        ("mm-rlhf", MM_RLHF | {"prompt": question}),
        ("rlaif-v", RLAIF_V | {"question": question}),
    ):
        said = reason(source, row)
        assert said.startswith("picture places: ") and told in said


def test_model_specific_placeholders_are_removed_at_the_ends() -> None:
    qwen = "<|vision_start|><|image_pad|><|vision_end|>What is it?"
    assert pair("povid", povid(qwen)).question == "What is it?"
    assert pair("povid", povid("[IMG]What is it?\u200b")).question == "What is it?\u200b"
    video = without(MM_RLHF, "image") | {"video": "video/x", "prompt": "<video>\nWhat happens?"}
    assert pair("mm-rlhf", video).question == "What happens?"


@pytest.mark.parametrize("text", ["\u200b", "\ufeff\u00a0", "\u00ad\n\u2060", "<image>\u200b"])
def test_a_text_without_visible_characters_is_blank(text: str) -> None:
    assert reason("rlaif-v", RLAIF_V | {"question": text}) == "blank text: question"
    if "<" not in text:
        assert reason("rlaif-v", RLAIF_V | {"chosen": text}) == "blank text: chosen"
        assert reason(
            "povid", povid(rejected_conversations=[*povid()["conversations"][:1], {"from": "gpt", "value": text}])
        )


def test_povid_drops() -> None:
    turns = povid()["conversations"]
    other = povid("<image>\nWhat is this?")["conversations"]
    assert reason("povid", povid(conversations=turns + turns)) == "several turns: conversations has 4"
    assert reason("povid", povid(conversations=other)).startswith("unexpected turns: the two conversations ask")
    assert reason("povid", povid(conversations=turns[::-1])).startswith("unexpected turns: conversations: gpt, human")
    assert reason("povid", povid(conversations=turns[:1])).startswith("unexpected turns: conversations: human instead")
    assert reason("povid", povid(conversations=[])).startswith("unexpected turns: conversations: none")
    assert reason("povid", povid(conversations="hi")) == "wrong type: conversations is text, not a list of turns"
    assert reason("povid", povid(conversations=["hi"])).startswith("wrong type: conversations[0] is not a turn")
    empty = [turns[0], {"from": "gpt", "value": ""}]
    assert reason("povid", povid(rejected_conversations=empty)) == "blank text: rejected_conversations"
    assert reason("povid", without(povid(), "rejected_conversations")) == "missing field: rejected_conversations"
    assert reason("povid", without(povid(), "image")) == "missing field: image"


# ---- WildVision


def wildvision(**changes: Any) -> dict[str, Any]:
    def chat(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "Solve the 3 questions."}, {"role": "assistant", "content": answer}]

    row = {
        "question_id": "2db1eeb4", "model_a": "gemini-pro-vision", "model_b": "llava-v1.5-13b", "turn": 1,
        "conversation_a": chat("1. No"), "conversation_b": chat("1. Yes"), "language": "English", "image": PNG,
        "anony": True, "winner": "model_a", "tstamp": 1707000000, "judge": "arena_user_10.0.0.1", "domain": "Math",
    }  # fmt: skip
    return row | changes


def test_wildvision_prefers_the_winner() -> None:
    assert pair("wildvision-battle", wildvision()) == Candidate(
        "2db1eeb4", "Solve the 3 questions.", "1. No", "1. Yes", (PNG,), kind="Math"
    )
    item = pair("wildvision-battle", without(wildvision(winner="model_b"), "domain"))
    assert (item.chosen, item.rejected, item.kind) == ("1. Yes", "1. No", "")


def test_wildvision_drops() -> None:
    two = wildvision()["conversation_a"]
    cases = {
        "tie: tie": {"winner": "tie"},
        "tie: tie (bothbad)": {"winner": "tie (bothbad)"},
        "unreadable label: winner 'model_c' is not model_a or model_b": {"winner": "model_c"},
        "unreadable label: winner '1' is not model_a or model_b": {"winner": 1},
        "missing field: winner": {"winner": None},
        "machine judge: gpt-4-vision-preview": {"judge": "gpt-4-vision-preview"},
        "several turns: turn 2": {"turn": 2},
        "several turns: conversation_a has 4": {"conversation_a": two * 2},
        "unexpected turns: conversation_b: user instead of user, assistant": {"conversation_b": two[:1]},
        "blank text: conversation_b": {"conversation_b": [two[0], {"role": "assistant", "content": " "}]},
        "error reply: conversation_a": {
            "conversation_a": [two[0], {"role": "assistant", "content": "**NETWORK ERROR DUE TO HIGH TRAFFIC."}]
        },
        "no image: image": {"image": None},
    }
    assert [reason("wildvision-battle", wildvision(**changes)) for changes in cases.values()] == list(cases)
    other = [{"role": "user", "content": "Else?"}, two[1]]
    assert "different questions" in reason("wildvision-battle", wildvision(conversation_b=other))


# ---- TRL

ASKED = {"role": "user", "content": "What is it?"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("A cat.", "A dog."))


def parts(role: str, text: str, images: int = 0) -> dict[str, Any]:
    """A message of parts, with the keys that parquet adds to those that lack them."""
    shown = [{"type": "image", "text": None}] * images
    return {"role": role, "content": [*shown, {"type": "text", "text": text}]}


@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "What is it?", "chosen": "A cat.", "rejected": "A dog."},
        {"prompt": "<image>What is it?", "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"prompt": None, "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {
            "prompt": [parts("user", "What is it?", images=1)],
            "chosen": [parts("assistant", "A cat.")],
            "rejected": [parts("assistant", "A dog.")],
        },
    ],
)
def test_trl_variants_are_the_same_pair(texts: dict[str, Any]) -> None:
    assert pair("trl", texts | {"images": [PNG]}) == Candidate("", "What is it?", "A cat.", "A dog.", (PNG,))
    assert pair("trl", texts | {"image": PNG}).images == (PNG,)


def test_trl_keeps_all_images_in_order() -> None:
    row = {"prompt": [parts("user", "Which?", images=2)], "chosen": [GOOD], "rejected": [BAD], "images": ["b", PNG]}
    assert pair("trl", row | {"id": 7}) == Candidate(
        "7", "Which?", "A cat.", "A dog.", ({"bytes": None, "path": "b"}, PNG)
    )
    assert "refer to 2 images, the row has 1" in reason("trl", row | {"images": [PNG]})


IMAGE, URL = {"type": "image"}, {"type": "image_url", "image_url": {"url": "a.png"}}


def said(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ([said("Is "), IMAGE, said(" taken after "), IMAGE, said("?")], ["Is ", 0, " taken after ", 1, "?"]),
        ([said("Is "), URL, said(" taken after "), URL, said("?")], ["Is ", 0, " taken after ", 1, "?"]),
        (["Is ", IMAGE, " taken after ", IMAGE, "?"], ["Is ", 0, " taken after ", 1, "?"]),
        (
            [said("First"), IMAGE, said("then"), IMAGE, said("Which is older?")],
            ["First", 0, "then", 1, "Which is older?"],
        ),
        ([IMAGE, IMAGE], [0, 1]),
        ([IMAGE, said("猫 or "), said("dog?"), IMAGE], [0, "猫 or \ndog?", 1]),
        ([IMAGE, IMAGE, said("Which is older?")], "Which is older?"),
        ([said("Which is older?"), IMAGE, IMAGE], "Which is older?"),
        ([said("Compare "), IMAGE, said(" with "), IMAGE], ["Compare ", 0, " with ", 1]),
        ([IMAGE, said(" is older than "), IMAGE], [0, " is older than ", 1]),
        ([IMAGE, said("is old."), IMAGE, said("is new. Why?")], [0, "is old.", 1, "is new. Why?"]),
        ([{"type": "input_image"}, URL, {"type": "input_text", "text": "Which is older?"}], "Which is older?"),
        ("<image> is older than <image>", "<image> is older than <image>"),
        ([IMAGE, said("Is it in "), IMAGE, said("too?")], [0, "Is it in ", 1, "too?"]),
        (
            [said("What is "), {"image": "a.png"}, said(" and "), {"image": "b.png"}, said("?")],
            ["What is ", 0, " and ", 1, "?"],
        ),
        ("Is <image> taken after <image>?", "Is <image> taken after <image>?"),
        ([IMAGE, IMAGE, said("<image><image>\nWhich is older?")], "Which is older?"),
        ([IMAGE, IMAGE, said("Is <image> taken after <image>?")], "Is <image> taken after <image>?"),
        ("<image><image>\nWhich is older?", "Which is older?"),
    ],
)
def test_trl_images_between_texts_keep_their_places(content: Any, question: Any) -> None:
    asked = {"role": "user", "content": content}
    row = {"prompt": [asked], "chosen": [GOOD], "rejected": [BAD], "images": ["b", PNG]}
    cells = ({"bytes": None, "path": "b"}, PNG)
    wanted = (question, cells)
    if isinstance(question, list):
        wanted = [said(one) if isinstance(one, str) else IMAGE | {"image": cells[one]} for one in question], ()
    assert (pair("trl", row).question, pair("trl", row).images) == wanted
    whole = {"chosen": [asked, GOOD], "rejected": [asked, BAD], "images": ["b", PNG]}
    assert (pair("trl", whole).question, pair("trl", whole).images) == wanted
    assert reason("trl", row | {"images": [PNG]}).startswith("picture places: ")
    assert reason("trl", row | {"images": ["b", PNG, PNG]}).startswith("picture places: ")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"chosen": [parts("assistant", "See", images=2)]}, "picture places: prompt and answers refer to 2 images"),
        (
            {"prompt": [parts("user", "?", images=1)], "rejected": [parts("assistant", "See", images=1)]},
            "picture places: prompt and answers refer to 2 images, the row has 1",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "video"}, said("What?")]}]},
            "picture places: prompt[0].content has a video part without a file",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "video_url"}, IMAGE, said("?")]}]},
            "picture places: prompt",
        ),
        ({"prompt": [{"role": "user", "content": [[said("What?")]]}]}, "wrong type: prompt[0].content has a part that"),
        ({"prompt": [{"role": "user", "content": [None]}]}, "wrong type: prompt[0].content has a part that"),
        ({"criteria": 7}, "wrong type: criteria is a number, not text"),
        ({"prompt": [{"role": "user", "content": [IMAGE, {"type": "audio"}, said("What?")]}]}, "wrong type: prompt[0]"),
        (
            {"prompt": None, "chosen": [ASKED, GOOD], "rejected": [parts("user", "What is it?", images=2), BAD]},
            "picture places: rejected and answers refer to 2 images, the row has 1",
        ),
    ],
)
def test_trl_drops_no_part_silently(changes: dict[str, Any], why: str) -> None:
    row = {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD], "images": [PNG]}
    assert reason("trl", row | changes).startswith(why)


@pytest.mark.parametrize(
    ("row", "question", "chosen", "rejected", "images"),
    [
        (  # generated pictures, in the order of the chat
            {"prompt": "Draw a cat.", "images": ["a", "b"]}, "Draw a cat.", [0], [1], (),
        ),
        (
            {"prompt": [{"role": "user", "content": [IMAGE, said("Make it red.")]}], "images": ["a", "b", "c"]},
            "Make it red.", [1], [2], (0,),
        ),
        (
            {"prompt": [{"role": "user", "content": [said("Like "), IMAGE, said(", please.")]}], "images": list("abc")},
            ["Like ", 0, ", please."], [1], [2], (),
        ),
        ({"prompt": "Draw.", "own": True}, "Draw.", [0], [1], ()),
        ({"prompt": "Draw.", "own": True, "images": []}, "Draw.", [0], [1], ()),
        ({"prompt": "Draw.", "own": True, "images": ["a", "b"]}, "Draw.", [0], [1], ()),
    ],
)  # fmt: skip
def test_trl_answers_keep_their_pictures(row: Any, question: Any, chosen: Any, rejected: Any, images: Any) -> None:
    row, cells = dict(row), [{"bytes": None, "path": name} for name in "abc"]
    own = row.pop("own", False)
    for name, source in (("chosen", "a"), ("rejected", "b")):
        part = {"type": "image", "image": source} if own else IMAGE
        row[name] = [{"role": "assistant", "content": [said(f"{name}: "), part]}]

    def filled(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [said(one) if isinstance(one, str) else IMAGE | {"image": cells[one]} for one in content]

    found = pair("trl", row | {"criteria": "beauty"})
    wanted = [question, ["chosen: ", *chosen], ["rejected: ", *rejected]]
    assert [to_parts(one) for one in found[1:4]] == list(map(filled, wanted))
    assert found.images == tuple(cells[number] for number in images)
    assert found.kept == {"criteria": "beauty"}


def test_trl_drops() -> None:
    row = {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD], "images": [PNG]}
    system = {"role": "system", "content": "Be brief."}
    assert reason("trl", row | {"prompt": [ASKED, GOOD, ASKED]}) == "several turns: chosen has 4"
    assert reason("trl", row | {"prompt": [system, ASKED]}).startswith("unexpected turns: chosen: system, user")
    assert reason("trl", row | {"images": []}) == "no image: images"
    assert reason("trl", row | {"images": [None]}) == "no image: images"
    assert reason("trl", without(row, "images")) == "missing field: image or images"
    assert reason("trl", row | {"chosen": [{"role": "assistant", "content": None}]}).startswith("wrong type: chosen[0]")
    assert reason("trl", {**without(row, "prompt"), "chosen": "A cat."}) == "missing field: prompt"
    differ = {"chosen": [ASKED, GOOD], "rejected": [{"role": "user", "content": "Else?"}, BAD], "images": [PNG]}
    assert reason("trl", differ) == "unexpected turns: chosen and rejected ask different questions"


# ---- all


def test_an_unknown_source_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="rlaifv: unknown source. The sources are mm-rlhf, .* Did you mean rlaif-v?"):
        find_source("rlaifv")


@pytest.mark.parametrize("source", SOURCES)
def test_rows_of_junk_are_dropped_with_a_known_reason(source: str) -> None:
    names = {"id", "image", "images", "prompt", "question", "chosen", "rejected", "winner", "message", "answer"}
    names |= {"completions", "conversations", "rejected_conversations", "conversation_a", "conversation_b", "judge"}
    for junk in (None, 7, True, "x", "", [], [None], [[]], {}, {"bytes": 3}, {"a": {"b": [1]}}, [{"role": 1}], b"\xff"):
        try:
            items = read(source, dict.fromkeys(names, junk))
        except Drop as drop:
            items = [drop]
        for item in items:
            assert isinstance(item, Candidate) or item.reason in REASONS
            assert isinstance(item, Drop) or junk == "x"  # texts everywhere can be a row: identical answers come later

"""Error messages in place of answers are distinguished from answers, even from answers about errors."""

from __future__ import annotations

import json
import time

import pytest
from mixture_rows import encoded, picture

from r1_reward.data.importing import import_pairs
from r1_reward.data.sources import SOURCES
from r1_reward.data.sources.common import Drop, Row
from r1_reward.data.sources.error_marks import error_mark

NETWORK = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"

WHOLE = [
    "$ERROR$",
    " $ERROR$\n",
    "$ERROR$ (error_code: 1)",
    "$API_ERROR$",
    "$MODERATION$",
    "$MODERATION$ YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES.",
    "\n$MODERATION$ YOUR IMAGE VIOLATES OUR CONTENT MODERATION GUIDELINES.",
    "YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES. PLEASE TRY AGAIN.",
    "Your input violates our content moderation guidelines. Please try again.",
    NETWORK,
    "**NETWORK ERROR DUE TO HIGH TRAFFIC.",
    "Network error due to high traffic. Please regenerate or refresh this page.",
    NETWORK + "\n\n(CUDA out of memory. Tried to allocate 20 MiB. This error means\n\nthat there is none.)",
    "**NETWORK ERROR**",
    "**API REQUEST ERROR**",
    "API REQUEST ERROR.",
    "API REQUEST ERROR. Please increase the number of max tokens.",
    "**API REQUEST ERROR** Reason: The response was blocked.",
    "**API REQUEST ERROR** Reason: The image means trouble.\nPlease try again or increase the number of max tokens.",
    "**RATE LIMIT PER DAY",
    "**RATE LIMIT PER DAY OF THIS MODEL IS REACHED. PLEASE COME BACK LATER OR TRY OTHERS.**\n\n (error_code: 42901)",
    "**RATE LIMIT OF THIS MODEL IS REACHED. PLEASE COME BACK LATER OR USE <span style='color: red;'>[BATTLE MODE]"
    "(https://arena.example)</span> (the 1st tab).**",
    "YOU HAVE REACHED THE CONVERSATION LENGTH LIMIT",
    "YOU HAVE REACHED THE CONVERSATION LENGTH LIMIT. PLEASE CLEAR HISTORY AND START A NEW CONVERSATION.",
    "THIS SESSION HAS BEEN INACTIVE",
    "THIS SESSION HAS BEEN INACTIVE FOR TOO LONG. PLEASE REFRESH THIS PAGE.",
    "\u26a0\ufe0f  Both models will show the responses all at once. Please stay patient as it may take 30 seconds.",
    "Exceeds max token length. Please start a new conversation, thanks.",
    "Streaming error",
    "Streaming error: connection reset by peer",
    "INPUT TOO LONG",
    "INPUT TOO LONG. PLEASE SHORTEN YOUR INPUT.",
    "CUDA OUT OF MEMORY",
    "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 23.69 GiB total capacity; 21.5 GiB already allocated)",
    "Request timed out.",
    "**MODEL OVERLOADED. PLEASE TRY AGAIN LATER.**",
    "NETWORK ERROR. PLEASE TRY AGAIN.",
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "(error_code: 50002)",
    '{"object":"error","message":"**NETWORK ERROR DUE TO HIGH TRAFFIC**","code":50001}',
    "Error code: 429 - {'error': {'message': 'Rate limit reached'}}",
    "HTTPConnectionPool(host='x', port=8000): Read timed out.",
]

BROKEN_OFF = [
    "The image shows a cat.\n\n" + NETWORK,
    "The image shows a ca" + NETWORK,
    "The image shows a cat. " + NETWORK,
    "A cat.\n\n$ERROR$",
    "A cat on a mat.\n**API REQUEST ERROR** Reason: Unknown.",
    "A cat.\n\n(error_code: 50002)",
    "A cat (error_code: 50004)",
    "A cat.\n\n(error_code: 50003, HTTPConnectionPool(host='a', port=1): Read (timed) out.)",
    "The image shows\u258c",
    'The image shows<span class="cursor">',
]

ANSWERS = [
    "The screen shows NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.",
    'It says "API REQUEST ERROR".',
    "The banner says " + NETWORK,
    "The text in the image reads:\n\nNETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.",
    '"NETWORK ERROR DUE TO HIGH TRAFFIC" is what the pop-up says.',
    "Network error due to high traffic means that the server has too many users.",
    "API REQUEST ERROR is shown when the client sends a bad request.",
    "API request errors happen when the server is down.",
    "**API REQUEST ERROR**\n\nThis heading in the screenshot means that the client sent a bad request.",
    f"It is this code:\n```\n{NETWORK}\n```\nIt prints a message.",
    "```\n$ERROR$\n```",
    "$ERROR$ is a placeholder in the template.",
    "$AB$ is 5.",
    "$ABC$",
    "CUDA out of memory is an error that occurs when the GPU is full.",
    "CUDA out of memory: this error means your GPU is full. Reduce the batch size.",
    "Streaming errors occur when the line is slow.",
    "The input is too long for this field, so the form is red.",
    "Request timed out is what the picture says.",
    "This session has been inactive since March, as the log shows.",
    "Rate limit per day: 100 requests\n\nRate limit per hour: 10",
    "The rate limit per day of this model is 100.",
    "Rate limit per day: 100 requests",
    "RATE LIMIT PER DAY: 100",
    "API request error, status 500, is what the left panel lists.",
    "API request error. The user has to check the key.",
    "The failed job has exit status 3 (error_code: 7)",
    "The log reads: failed (error_code: 50002)",
    "The code (error_code: 50002) means out of memory.",
    "NETWORK ERROR",
    "INTERNAL SERVER ERROR",
    "ERROR 404: PAGE NOT FOUND",
    "**SPEED LIMIT 25**",
    "SORRY, WE ARE CLOSED. PLEASE COME BACK LATER.",
    '{"error": "none", "digits": [1, 2]}',
    "Sales: \u2588\u2588\u258c",
    "Sorry, I cannot assist with this picture.",
    "1. No",
    "",
]


@pytest.mark.parametrize("text", [*WHOLE, *BROKEN_OFF])
def test_marks(text):
    assert error_mark(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_answers(text):
    assert error_mark(text) is None


def test_hostile_texts_are_fast():
    start = time.perf_counter()
    for text in (
        "A " * 25_000,
        "(error_code: 1," * 3000,
        "**" * 25_000,
        "$ERROR$ is\n" * 4000,
        "<" * 40_000,
        "{" * 9000,
    ):
        error_mark(text)
    assert time.perf_counter() - start < 20


def battle(answer, number=1, winner="model_a"):
    def chat(text):
        return [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": text}]

    return {
        "question_id": f"q{number}", "conversation_a": chat("There are three."), "conversation_b": chat(answer),
        "winner": winner, "judge": "arena_user_1", "turn": 1, "image": "a.png",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["$ERROR$", "**API REQUEST ERROR**", "A cat.\n\n(error_code: 50002)"])
@pytest.mark.parametrize("winner", ["model_a", "model_b"])
def test_wildvision_drops_a_mark_whoever_won(text, winner):
    with pytest.raises(Drop, match="error reply: conversation_b"):
        list(SOURCES["wildvision-battle"].read(Row(battle(text, winner=winner))))


def test_an_import_counts_and_lists_them_for_any_source(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(picture(1)))
    rows = [battle(text, number) for number, text in enumerate([WHOLE[0], WHOLE[9], "There are two."])]
    (tmp_path / "battle.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = import_pairs("wildvision-battle", tmp_path / "battle.jsonl", tmp_path / "out")
    assert (report["kept"], report["dropped"]) == (1, {"error reply": 2})
    row = {"question": "How many?", "chosen": "Three.", "rejected": NETWORK, "image": "a.png", "idx": "7"}
    (tmp_path / "rlaif.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"rejected": "Two."}) + "\n")
    report = import_pairs("rlaif-v", tmp_path / "rlaif.jsonl", tmp_path / "rlaif")
    assert (report["kept"], report["dropped"]) == (1, {"error reply": 1})
    (line,) = (tmp_path / "rlaif" / "dropped.jsonl").read_text().splitlines()
    assert "NETWORK ERROR" in json.loads(line)["detail"]

"""One budget per request: the same pictures, responses and judgments count the same on every route."""

from __future__ import annotations

import json

import pytest
from served import Clock, Served, base64_png, form, pair, png

from r1_reward.serve.budget import Budget
from r1_reward.serve.errors import Refusal
from r1_reward.serve.settings import ServerSettings

PICTURE = {"base64": base64_png(900, 900)}  # 0.81 megapixels
TEXTS = ["1", "2", "3", "4"]


def told(**settings):
    """Return a budget, and a function that spends from it and returns the refusal, or None."""
    budget = Budget(ServerSettings(**settings), Clock())

    def spend(what, *args, **options):
        try:
            getattr(budget, what)(*args, **options)
        except Refusal as refusal:
            return refusal.status, refusal.field, refusal.message
        return None

    return budget, spend


def test_spending_adds_up_and_a_refusal_names_number_limit_and_option():
    _, spend = told(max_pixels=100, max_images=2, max_responses=5, max_candidates=4, max_judgments=12, max_votes=3)
    assert spend("pixels", 60, "a") is None
    assert spend("pixels", 60, "b") == (
        422, "b", "120 pixels in all pictures; this server takes at most 100 (--max-pixels)"
    )  # fmt: skip
    assert spend("pixels", 2**62, "c")[2].startswith("far too many pixels")
    assert spend("pictures", 2, "a") is None
    assert spend("pictures", 1, "b")[2] == "3 pictures; this server takes at most 2 (--max-images)"
    assert spend("responses", 3, "a") is None
    assert (
        spend("responses", 5, "b")[2] == "5 responses to one question; this server takes at most 4 (--max-candidates)"
    )
    assert "6 responses in total; this server takes at most 5 (--max-responses)" in spend("responses", 3, "c")[2]
    assert spend("judgments", 2, votes=3, both_orders=True, field="a") is None
    assert "13 judgments (pairs x votes)" in spend("judgments", 1, votes=1, both_orders=False, field="b")[2]
    assert spend("judgments", 0, votes=4, both_orders=True, field="b")[1:] == (
        "votes", "4 votes for each order; this server takes at most 3 (--max-votes)"
    )  # fmt: skip


def test_time_runs_out_at_the_deadline():
    budget, spend = told(timeout=30)
    budget._clock.now += 29
    assert (budget.left(), budget.left(0.5)) == (1.0, 0.5) and spend("check_time") is None
    budget._clock.now += 2
    assert budget.left() == 0 and spend("check_time")[0] == 504 and "30 seconds" in spend("check_time")[2]


def requests(images):
    """Yield every way to ask about the same pictures: path, body, content type."""
    as_json = "application/json"
    ranked = {"question": "?", "responses": TEXTS[:2], "images": images}
    yield "/v1/compare", json.dumps(pair(images=images)), as_json
    yield "/v1/rank", json.dumps(ranked), as_json
    yield "/v1/reward", json.dumps(ranked), as_json
    for path, asked in (("/v1/compare", pair()), ("/v1/reward", {"question": "?", "responses": TEXTS[:2]})):
        yield path, *form(asked, *(png(900, 900) for _ in images))
    query = [f"p {text}" for text in TEXTS]
    one_prompt = {"query": query, "prompts": ["p"] * 4, "images": [[one["base64"] for one in images]] * 4}
    yield "/get_reward", json.dumps(one_prompt), as_json
    # Every picture with its own question.
    own = {"query": [], "prompts": [], "images": []}
    for number, image in enumerate(images):
        own["query"] += [f"p{number}: 1", f"p{number}: 2"]
        own["prompts"] += [f"p{number}:"] * 2
        own["images"] += [image["base64"]] * 2
    yield "/get_reward", json.dumps(own), as_json


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_pixels": 1_000_000}, "1,620,000 pixels in all pictures; this server takes at most 1,000,000"),
        ({"max_images": 1}, "2 pictures; this server takes at most 1"),
    ],
)
def test_two_pictures_are_one_too_many_on_every_route(settings, said):
    with Served(**settings) as server:
        for images, expected in (([PICTURE], 200), ([PICTURE] * 2, 422)):
            for path, body, kind in requests(images):
                status, _, answer = server.ask("POST", path, body, {"Content-Type": kind})
                assert status == expected, (path, kind, answer)
                if expected == 422:
                    assert json.loads(answer)["error"]["message"].startswith(said)
        calls = len(server.judge.calls)
        server.post("/get_reward", json.loads(list(requests([PICTURE] * 2))[-1][1]))
        assert len(server.judge.calls) == calls, "nothing of a refused request is judged"


@pytest.mark.parametrize(
    ("path", "asked", "pairs"),
    [
        ("/v1/compare", pair(), 1),
        ("/v1/rank", {"question": "?", "responses": TEXTS}, 6),
        ("/v1/rank", {"question": "?", "responses": list("123456789")}, 29),
        ("/v1/rank", {"question": "?", "responses": TEXTS, "budget": 4}, 4),
        ("/v1/rank", {"question": "?", "responses": ["1", "1", "2"], "budget": 100}, 1),
        ("/v1/reward", {"question": "?", "responses": TEXTS}, 6),
        ("/v1/reward", {"question": "?", "responses": list("123456789"), "kind": "bradley_terry"}, 36),
        ("/v1/reward", {"question": "?", "responses": list("123456789"), "schedule": "circular"}, 9),
        ("/v1/reward", {"question": "?", "responses": list("123456789"), "schedule": "bracket"}, 8),
        ("/v1/reward", {"question": "?", "responses": list("123456789"), "schedule": "adaptive"}, 18),
        ("/v1/reward", {"question": "?", "responses": list("12345678"), "schedule": "adaptive", "comparisons": 11}, 11),
        ("/v1/reward", {"question": "?", "responses": ["1", "1", "2"], "schedule": "circular"}, 1),
        ("/get_reward", {"query": [f"p {n}" for n in "1234"], "prompts": ["p"] * 4}, 6),
        ("/get_reward?schedule=circular", {"query": [f"p {n}" for n in "123456"], "prompts": ["p"] * 6}, 6),
        ("/get_reward?schedule=bracket", {"query": ["p 1", "p 2", "p 3", "q 1", "q 2"], "prompts": list("pppqq")}, 3),
        (
            "/get_reward?schedule=adaptive&comparisons=7",
            {"query": [f"p {n}" for n in "123456"], "prompts": ["p"] * 6},
            7,
        ),
        ("/get_reward", {"query": ["p 1", "p 2", "q 1", "q 2", "r 5"], "prompts": list("ppqqr")}, 2),
    ],
)
def test_judgments_are_counted_as_they_are_made(path, asked, pairs):
    for room, expected in ((0, 200), (-1, 422)):
        with Served(max_judgments=max(1, 2 * pairs + room)) as server:
            status, answer = server.post(path, asked)
            assert status == expected, answer
            if expected == 200:
                assert len(server.judge.seen) == 2 * pairs
            else:
                assert f"{2 * pairs} judgments" in answer["error"]["message"] and not server.judge.seen
                assert "--max-judgments" in answer["error"]["message"]


def test_too_many_questions_are_refused():
    with Served(max_responses=100) as server:
        query = [f"p{number}: 1" for number in range(101)]
        status, answer = server.post("/get_reward", {"query": query, "prompts": [text[:-2] for text in query]})
        assert (status, answer["error"]["field"]) == (422, "prompts[100]")
        assert "101 responses in total; this server takes at most 100 (--max-responses)" in answer["error"]["message"]


def test_refusals_of_a_question_name_the_field():
    with Served(max_candidates=3, max_votes=2, max_chars=10) as server:
        for path, asked, field in (
            ("/v1/rank", {"question": "?", "responses": TEXTS}, "responses"),
            ("/v1/reward", {"question": "?", "responses": ["1", "12345678901"]}, "responses[1]"),
            ("/v1/compare", pair(question="12345678901"), "question"),
            ("/v1/compare", pair(question="?", votes=3), "votes"),
            ("/get_reward?votes=3", {"query": ["?1"], "prompts": ["?"]}, "votes"),
            ("/get_reward", {"query": ["?1", "?2", "?3", "?4"], "prompts": ["?"] * 4}, "prompts[0]"),
            ("/get_reward", {"query": ["12345678901?"], "prompts": ["12345678901?"]}, "prompts[0]"),
        ):
            status, answer = server.post(path, asked)
            assert (status, answer["error"]["field"]) == (422, field), (path, asked, answer)
            assert "this server takes at most" in answer["error"]["message"]
        assert not server.judge.calls

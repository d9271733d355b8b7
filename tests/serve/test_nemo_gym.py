"""NeMo Gym's requests in the form of version 0.7.0, and what it reads from the answers."""

from __future__ import annotations

import asyncio
import threading

import pytest
from served import ScriptedJudge, Served, base64_png, wait_until
from test_cohorts import Waiting, http

QUESTION = "Which is larger?"
PICTURE = f"data:image/png;base64,{base64_png(5, 4)}"


def response(text, *, reasoning="Let me think.", **more):
    """An object of the Responses API, as the policy's server makes it."""
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": None}],
    }  # fmt: skip
    thought = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": reasoning}]}
    return {"id": "resp_1", "object": "response", "created_at": 1.0, "model": "policy", "output": [thought, message],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more}  # fmt: skip


def user(*parts):
    named = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "type": "message", "content": named}


def image(url=PICTURE):
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def rollout(text, index=0, group="group", attempt=0, items=None, **more):
    items = [{"role": "user", "content": QUESTION}] if items is None else items
    group = {} if group is None else {"_ng_group_id": group, "_ng_group_attempt": attempt}
    params = {"input": items, "temperature": 1.0}
    return {"responses_create_params": params, "response": response(text), "_ng_rollout_index": index, **group, **more}


def compared(*texts, items=None, **more):
    items = [{"role": "user", "content": QUESTION}] if items is None else items
    return {"conversation_history": items, "response_objs": [response(text) for text in texts], **more}


@pytest.fixture(scope="module")
def server():
    with Served(group_size=3, group_wait=20, max_chars=200) as server:
        yield server


@pytest.fixture
def name(request):
    return request.node.name


def verify(server, *bodies, path="/verify"):
    async def run():
        return await asyncio.gather(*(http(server.port, body, path) for body in bodies))

    return [(status, answer) for status, _, answer in asyncio.run(run())]


# All at once.


def test_compare(server):
    status, answer = server.post("/compare", compared("4", "7", "5", principle="By size."))
    assert status == 200 and answer["rewards"] == pytest.approx([-0.8, 0.8, 0.0])
    first, *_ = answer["comparison_results"]
    assert {(one["response_i"], one["response_j"]) for one in answer["comparison_results"]} == {(0, 1), (0, 2), (1, 2)}
    assert first["judge_idx"] == 0 and first["probability"] == pytest.approx(0.1)
    assert (first["score_1"], first["score_2"], first["ranking"]) == pytest.approx((1.4, 4.6, 5.5))
    assert answer["metrics"] == {"comparisons": 3.0, "unreadable_rate": 0.0, "unscored_rate": 0.0}
    assert "By size." in server.judge.seen[-1][0]


def test_compare_in_a_circle_and_with_votes(server):
    before = len(server.judge.seen)
    status, answer = server.post("/compare?schedule=circular&votes=2&both_orders=false", compared(*"123456"))
    assert status == 200 and len(answer["comparison_results"]) == 6 and len(server.judge.seen) - before == 6


@pytest.mark.parametrize("long", [[0], [1], [0, 2], [0, 1, 2]])
def test_a_response_that_is_too_long_earns_the_worst_and_the_others_are_judged(server, long):
    texts = ["x" * 201 if place in long else text for place, text in enumerate("479")]
    status, answer = server.post("/compare", compared(*texts))
    assert status == 200 and all(answer["rewards"][place] == -1.0 for place in long)
    assert answer["metrics"]["unscored_rate"] == pytest.approx((3 if len(long) == 2 else len(long)) / 3)
    if len(long) == 1:
        left = [place for place in range(3) if place not in long]
        assert [answer["rewards"][place] for place in left] == pytest.approx([-0.8, 0.8])
        (one,) = answer["comparison_results"]
        assert [one["response_i"], one["response_j"]] == left


def test_silencing_the_judge_earns_the_worst_and_not_zero(server):
    items = [{"role": "user", "content": "unreadable?"}]
    status, answer = server.post("/compare", compared("4", "7", items=items))
    assert status == 200 and answer["rewards"] == [-1.0, -1.0]
    assert answer["comparison_results"][0]["score_1"] is None and answer["metrics"]["unreadable_rate"] == 1.0


@pytest.mark.parametrize(
    "empty",
    [
        {"output": []},
        {"output": [{"type": "reasoning"}]},
        {"output": [{"type": "message", "content": [{"type": "output_text"}]}]},
        response(""),
        response(" \u200b"),
    ],
)
def test_a_blank_response_loses(server, empty):
    body = compared("4", "7")
    body["response_objs"].append(empty)
    assert server.post("/compare", body)[1]["rewards"] == pytest.approx([0.0, 0.8, -0.8])


# Prompts.


@pytest.mark.parametrize(
    ("items", "seen", "pictures"),
    [
        ([user(image(), QUESTION)], [QUESTION], 1),
        ([user(QUESTION, image())], [QUESTION], 1),
        ([user(image(), image(), QUESTION)], [QUESTION], 2),
        ([user("<image>\nWhich is larger?", image())], [QUESTION], 1),
        ([{"role": "system", "content": "Be brief."}, user(image(), QUESTION)], ["system: Be brief.", QUESTION], 1),
        (
            [user("Hello."), {"role": "assistant", "content": [{"type": "output_text", "text": "Hi."}]},
             {"type": "reasoning", "summary": [{"text": "secret"}]}, user(QUESTION)],
            ["user: Hello.", "assistant: Hi.", QUESTION], 0,
        ),
        (
            [user("Look."), {"type": "function_call", "name": "zoom", "arguments": '{"x": 1}', "call_id": "1"},
             {"type": "function_call_output", "call_id": "1", "output": "enlarged"}, user(QUESTION)],
            ["user: Look.", 'assistant: zoom({"x": 1})', "tool: enlarged", QUESTION], 0,
        ),
    ],
)  # fmt: skip
def test_prompts_are_shown_with_their_pictures(server, items, seen, pictures):
    server.judge.seen.clear()
    server.judge.images.clear()
    status, answer = server.post("/compare", compared("4", "7", items=items))
    assert status == 200, answer
    question = server.judge.seen[0][0]
    places = [question.find(text) for text in seen]
    assert -1 not in places and places == sorted(places), question
    assert "<image>" not in question and "secret" not in question
    assert server.judge.images == [[(5, 4)] * pictures] * 2


def test_instructions_and_a_plain_text_as_input(server, name):
    server.judge.seen.clear()
    params = {"input": QUESTION, "instructions": "Be brief."}
    bodies = [rollout(str(n), n, name) | {"responses_create_params": params} for n in range(3)]
    assert [answer["reward"] for _, answer in verify(server, *bodies)] == pytest.approx([-0.8, 0.0, 0.8])
    assert "system: Be brief." in server.judge.seen[0][0] and QUESTION in server.judge.seen[0][0]


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([user("<image>Which?")], "none came"),
        ([user("<|vision_start|><|image_pad|><|vision_end|>Which?")], "none came"),
        ([user("<image>Which?", image(), image())], "2"),
        ([user({"type": "input_image", "file_id": "file-1"}, "Which?")], "file_id"),
        ([user({"type": "input_image", "image_url": None}, "Which?")], "input_image"),
        ([user({"type": "input_file", "file_id": "x"}, "Which?")], "input_file"),
        ([user({"type": "input_audio"}, "Which?")], "input_audio"),
        ([user("Which?", "", image("https://elsewhere.example/a.png"))], "--allow-host"),
        ([user("Which?", image("data:image/png;base64,AAAA"))], "picture"),
        ([user("Which?", image("no/such/file.png"))], "URL"),
        ([{"role": "system", "content": "Be brief."}], "no text in a user message"),
        ([user(" ")], "no text in a user message"),
        ([{"type": "computer_call"}], "computer_call"),
        ([user("x" * 201)], "--max-chars"),
        (["text"], "conversation_history[0]"),
        ([], "conversation_history"),
    ],
)
def test_prompts_that_cannot_be_shown_are_refused_in_its_own_form(server, name, items, said):
    before = len(server.judge.calls)
    status, answer = server.post("/compare", compared("4", "7", items=items))
    assert status in (403, 422) and set(answer) == {"detail"} and said in answer["detail"], answer
    if items and isinstance(items[0], dict):
        status, answer = server.post("/verify", rollout("4", 0, name, items=items))
        assert status in (403, 422) and said in answer["detail"], answer
        assert len(server.service.cohorts) == 0
    assert len(server.judge.calls) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"response_objs": []}, "response_objs"),
        ({"response_objs": [response("4")]}, "response_objs"),
        ({"response_objs": [response("4"), {}]}, "response_objs[1]: has no output list"),
        ({"response_objs": [response("4"), "7"]}, "response_objs[1]"),
        ({"response_objs": [response(str(n)) for n in range(65)]}, "--max-candidates"),
        ({"principle": " "}, "principle: is blank"),
        ({"principle": 7}, "principle"),
        ({"conversation_history": QUESTION}, "conversation_history"),
    ],
)
def test_invalid_compare_requests(server, change, said):
    status, answer = server.post("/compare", compared("4", "7") | change)
    assert status == 422 and set(answer) == {"detail"} and said in answer["detail"], answer


def test_a_failed_judge_is_an_error_in_compare(server):
    for question, status in (("it fails", 503), ("down", 503), ("it explodes", 500)):
        found, answer = server.post("/compare", compared("4", "7", items=[user(question)]))
        assert found == status and set(answer) == {"detail"} and "secret" not in answer["detail"]


# One by one.


def test_rollouts_of_a_group_are_judged_together(server, name):
    bodies = [rollout(text, index, name, items=[user(image(), QUESTION)], _ng_task_index=5, dataset="d")
              for index, text in enumerate("479")]  # fmt: skip
    answers = verify(server, *bodies)
    assert [answer["reward"] for _, answer in answers] == pytest.approx([-0.8, 0.0, 0.8])
    for body, (status, answer) in zip(bodies, answers, strict=True):
        assert status == 200 and answer["mask_sample"] is False and answer["failure_kind"] is None
        for key in ("responses_create_params", "response", "_ng_group_id", "_ng_group_attempt", "_ng_rollout_index"):
            assert answer[key] == body[key]
    assert server.judge.images[-1] == [(5, 4)]
    for body, answer in zip(bodies, answers, strict=True):
        assert verify(server, body) == [answer]  # once more


def test_groups_without_an_id_are_formed_by_task_and_prompt_in_every_epoch(server, name):
    def bodies(task, texts, **more):
        items = [user(f"{name} {task}?")]
        return [rollout(text, index, None, items=items, **more) for index, text in enumerate(texts)]

    for _ in range(2):  # a second epoch has the same task and the same indices
        for texts in ("479", "158"):
            asked = [*bodies(1, texts, _ng_task_index=1), *bodies(1, texts, _ng_task_index=2),
                     *bodies(2, texts, _ng_task_index=1), *bodies(1, texts, prompt_id="p"),
                     *bodies(1, texts), *bodies(1, texts, principle="By size.")]  # fmt: skip
            rewards = [answer["reward"] for _, answer in verify(server, *asked)]
            assert rewards == pytest.approx([-0.8, 0.0, 0.8] * 6)


def test_the_size_may_be_in_the_url_and_is_required(name):
    with Served(group_wait=20) as server:
        status, answer = server.post("/verify", rollout("4", 0))
        assert status == 422 and "--group-size" in answer["detail"]
        bodies = [rollout(text, index) for index, text in enumerate("37")]
        answers = verify(server, *bodies, path="/verify?group_size=2&votes=2&schedule=circular")
        assert [status for status, _ in answers] == [200, 200]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_ng_rollout_index": None}, "_ng_rollout_index"),
        ({"_ng_rollout_index": 3}, "_ng_rollout_index"),
        ({"_ng_rollout_index": -1}, "_ng_rollout_index"),
        ({"_ng_rollout_index": "0"}, "_ng_rollout_index"),
        ({"_ng_group_attempt": -1}, "_ng_group_attempt"),
        ({"response": {}}, "response: has no output list"),
        ({"response": None}, "response"),
        ({"responses_create_params": {}}, "responses_create_params.input"),
        ({"responses_create_params": {"input": 7}}, "responses_create_params.input"),
        ({"principle": ""}, "principle"),
    ],
)
def test_invalid_rollouts(server, name, change, said):
    status, answer = server.post("/verify", rollout("4", 0, name) | change)
    assert status == 422 and set(answer) == {"detail"} and said in answer["detail"], answer
    assert len(server.service.cohorts) == 0


def test_only_win_rates(server):
    status, answer = server.post("/verify?kind=bradley_terry", rollout("4"))
    assert status == 422 and "win_rate" in answer["detail"]


@pytest.mark.parametrize("question", ["it fails", "down", "it explodes"])
def test_a_failed_judge_masks_every_sample_of_its_group(server, name, question):
    items = [user(question)]
    bodies = [rollout(text, n, name, items=items, instance_config={"a": 1}, own=n) for n, text in enumerate("479")]
    for number, (status, answer) in enumerate(verify(server, *bodies)):
        assert status == 200 and answer["mask_sample"] is True and answer["failure_kind"] == "judge_failed"
        assert answer["failure_reason"] and answer["_ng_failure_class"] == "judge_failed"
        assert answer["instance_config"] == {"a": 1, "mask_sample": True} and answer["own"] == number
        assert answer["_ng_rollout_index"] == number and answer["response"] == bodies[number]["response"]


def test_a_missing_reward_is_the_worst_and_says_why(server, name):
    long, *others = verify(server, *(rollout(text, n, name) for n, text in enumerate(["x" * 201, "4", "7"])))
    assert long[0] == 200 and long[1]["reward"] == -1.0 and long[1]["mask_sample"] is False
    assert long[1]["failure_kind"] == "r1_reward:unscored" and "--max-chars" in long[1]["failure_reason"]
    assert [answer["reward"] for _, answer in others] == pytest.approx([-0.8, 0.8])
    mute = [rollout(text, n, f"{name} mute", items=[user("unreadable?")]) for n, text in enumerate("479")]
    assert [answer["reward"] for _, answer in verify(server, *mute)] == [-1.0] * 3


def test_a_changed_response_or_prompt_is_refused_and_the_group_is_unharmed(server, name):
    first = Waiting(server, rollout("4", 0, name), rollout("7", 1, name), path="/verify")
    others = [rollout("9", 2, name, items=[user("Another?")]), rollout("9", 2, name, items=[user(image(), QUESTION)])]
    for other in (*others, rollout("9", 0, name), rollout("9", 2, name, principle="By name.")):
        status, answer = server.post("/verify", other)
        assert status == 409 and set(answer) == {"detail"}, answer
    assert server.post("/verify", rollout("9", 2, name))[1]["reward"] == pytest.approx(0.8)
    assert [answer["reward"] for _, answer in first.join()] == pytest.approx([-0.8, 0.0])


def test_a_later_attempt_replaces_an_earlier_one(server, name):
    first = Waiting(server, rollout("4", 0, name), rollout("7", 1, name), path="/verify")
    again = Waiting(server, path="/verify")
    second = threading.Thread(target=lambda: again.answers.append(server.post("/verify", rollout("1", 0, name, 1))))
    second.start()
    for status, answer in first.join():
        assert status == 503 and "replaced by attempt 1" in answer["detail"]
    assert server.post("/verify", rollout("9", 2, name))[0] == 409
    answers = verify(server, rollout("2", 1, name, 1), rollout("3", 2, name, 1))
    second.join(20)
    assert [answer["reward"] for _, answer in (*again.answers, *answers)] == pytest.approx([-0.8, 0.0, 0.8])
    assert server.post("/verify", rollout("3", 2, name, 1))[1]["reward"] == pytest.approx(0.8)
    assert server.post("/verify", rollout("4", 0, name))[0] == 409


def test_an_incomplete_group_is_an_error_and_not_a_reward():
    with Served(group_size=3, group_wait=0.3) as server:
        for status, answer in verify(server, rollout("4", 0), rollout("7", 1)):
            assert status == 503 and "2 of 3 responses" in answer["detail"]
        assert server.judge.calls == []


def test_more_rollouts_than_the_gate_holds_wait_in_line():
    """NeMo Gym does not retry, so none is refused, and none waits forever."""
    with Served(ScriptedJudge(), group_size=8, group_wait=60, max_queue=2) as server:
        bodies = [rollout(str(n), n, f"group {g}") for n in range(8) for g in range(40)]
        answers = verify(server, *bodies)
        assert {status for status, _ in answers} == {200}
        assert answers[0][1]["reward"] == pytest.approx(-0.8) and answers[-1][1]["reward"] == pytest.approx(0.8)
        assert server.service.state.open == 0


def test_requests_in_line_are_refused_when_the_server_shuts_down():
    judge = ScriptedJudge()
    judge.may_work.clear()
    with Served(judge, group_size=2, max_queue=1) as server:
        pair = {"question": "?", "response_1": "1", "response_2": "2"}
        busy = threading.Thread(target=server.post, args=("/v1/compare", pair))
        busy.start()
        assert judge.busy.wait(20)
        answers = []
        lined = [
            threading.Thread(target=lambda n=n: answers.append(server.post("/verify", rollout("1", n)))) for n in (0, 1)
        ]
        for thread in lined:
            thread.start()
        wait_until(lambda: len(server.service.state.line) == 2)
        server.stop()
        for thread in lined:
            thread.join(20)
        assert [status for status, _ in answers] == [503, 503] and "shutting down" in answers[0][1]["detail"]
        judge.may_work.set()
        busy.join(20)

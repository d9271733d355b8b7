"""Properties of all routes for trainers: responses that are too long for the judge, odd labels and rollouts."""

from __future__ import annotations

import json

import pytest
from served import Served, ShortJudge, base64_png, pair, together

from r1_reward.records.prompt import build_prompt
from r1_reward.serve.judge_client import JudgeFailed, JudgeServer
from r1_reward.serve.labels import LabelError, read_label

QUESTION = "Which is larger?"


def output(text):
    return {"output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]}


def rollout(number, text, group="g", **more):
    asked = {"responses_create_params": {"input": QUESTION}, "response": output(text)}
    return {**asked, "_ng_group_id": group, "_ng_rollout_index": number, **more}


def by_reward(server, texts):
    """Send each response in its own request; the requests wait for each other."""
    bodies = [{"question": QUESTION, "responses": [text], "group": "g", "group_size": len(texts)} for text in texts]
    answers = together(*(lambda body=body: server.post("/v1/reward", body) for body in bodies))
    assert {status for status, _ in answers} == {200}, answers
    return [answer["rewards"][0] for _, answer in answers], [answer["reasons"][0] for _, answer in answers]


def by_get_reward(server, texts):
    status, answer = server.post("/get_reward", {"query": ["Q: " + t for t in texts], "prompts": ["Q: "] * len(texts)})
    assert status == 200, answer
    return answer["rewards"], [None] * len(texts)


def by_labels(server, texts):
    label = {"group": "label", "group_size": len(texts)}
    bodies = [{"query": ["Q: " + text], "prompts": ["Q: "], "labels": [label]} for text in texts]
    answers = together(*(lambda body=body: server.post("/get_reward", body) for body in bodies))
    assert {status for status, _ in answers} == {200}, answers
    return [answer["rewards"][0] for _, answer in answers], [None] * len(texts)


def by_compare(server, texts):
    body = {"conversation_history": [{"role": "user", "content": QUESTION}], "response_objs": list(map(output, texts))}
    status, answer = server.post("/compare", body)
    assert status == 200, answer
    return answer["rewards"], [None] * len(texts)


def by_verify(server, texts):
    path = f"/verify?group_size={len(texts)}"
    bodies = [rollout(number, text) for number, text in enumerate(texts)]
    answers = together(*(lambda body=body: server.post(path, body) for body in bodies))
    assert {status for status, _ in answers} == {200}, answers
    assert not any(answer["mask_sample"] for _, answer in answers)
    return [answer["reward"] for _, answer in answers], [answer["failure_reason"] for _, answer in answers]


def by_client(server, texts):
    scored = JudgeServer(f"http://127.0.0.1:{server.port}").rewards_now(QUESTION, texts)
    return [one.reward for one in scored], [one.why for one in scored]


@pytest.mark.parametrize("ask", [by_reward, by_get_reward, by_labels, by_compare, by_verify, by_client])
def test_a_response_that_is_too_long_for_the_judge_does_not_affect_the_others(ask):
    with Served(ShortJudge()) as server:
        rewards, reasons = ask(server, ["4", "endless 9", "7"])
        assert rewards[0] == pytest.approx(-0.8) and rewards[2] == pytest.approx(0.8)
        assert rewards[1] in (None, -1.0)
        assert reasons[1] is None or "9,000 tokens" in reasons[1]
    with Served(ShortJudge()) as server:
        assert set(ask(server, ["endless 4", "endless 7"])[0]) <= {None, -1.0}


def test_a_failing_judge_is_still_an_error_beside_a_response_that_is_too_long():
    with Served(ShortJudge()) as server:
        server.judge.judge = lambda *_: (_ for _ in ()).throw(RuntimeError("broken"))
        with pytest.raises(JudgeFailed, match="500"):
            by_client(server, ["4", "endless 9", "7"])


def test_a_single_comparison_that_is_too_long_is_refused():
    with Served(ShortJudge()) as server:
        for path, body in (
            ("/v1/compare", pair(first="endless")),
            ("/v1/rank", {"question": QUESTION, "responses": ["endless", "7"]}),
            ("/v1/reward", {"question": QUESTION, "responses": ["endless", "7", "8"]}),
            ("/rerank", {"query": QUESTION, "documents": ["endless", "7", "8"]}),
        ):
            status, answer = server.post(path, body)
            assert status == 413 and "9,000 tokens" in json.dumps(answer)


# Criteria.

TOKENS = ("<image>", "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "[IMG]", "<image_placeholder>")


@pytest.mark.parametrize("pictures", [0, 1])
@pytest.mark.parametrize("token", TOKENS)
def test_criteria_may_not_contain_pictures(token, pictures):
    criteria = {"criteria": f"{token} Which fits?", "images": [{"base64": base64_png()}] * pictures}
    responses = {"question": QUESTION, "responses": ["4", "7"], **criteria}
    asked = [
        ("/v1/compare", pair(**criteria)),
        ("/v1/rank", responses),
        ("/v1/reward", responses),
        ("/v1/reward", {**responses, "responses": ["4"], "group": "g", "group_size": 2}),
    ]
    gym = {"role": "user", "content": QUESTION}
    principle = {"principle": criteria["criteria"]}
    asked.append(
        ("/compare", {"conversation_history": [gym], "response_objs": [output("4"), output("7")], **principle})
    )
    asked.append(("/verify?group_size=2", rollout(0, "4", **principle)))
    with Served(group_wait=20) as server:
        for path, body in asked:
            status, answer = server.post(path, body)
            said = json.dumps(answer)
            assert status == 422 and "criteria" in said and "picture" in said, (path, answer)
            assert said.count("criteria:") <= 1
    assert not server.judge.seen


# NeMo Gym's rollouts.


@pytest.mark.parametrize(
    "more",
    [
        {"mask_sample": True},
        {"mask_sample": "yes"},
        {"failure_kind": ["a"]},
        {"failure_kind": "judge_failed"},
        {"failure_reason": 5},
        {"reward": "none"},
        {"instance_config": 7, "_ng_failure_class": {}},
    ],
)
def test_a_rollouts_own_keys_do_not_pass_for_our_answer(more):
    with Served() as server:
        sent = [rollout(0, "4", **more), rollout(1, "7")]
        answers = together(*(lambda body=body: server.post("/verify?group_size=2", body) for body in sent))
        (status, answer), _ = answers
        assert status == 200, answer
        assert answer["reward"] == pytest.approx(-0.8) and answer["mask_sample"] is False
        assert answer["failure_kind"] is None is answer["failure_reason"]


# Labels.


@pytest.mark.parametrize("size", [10**400, 10**9, 1_000_001, 1e300, -2, 0, 1, 2.5, True, "2"])
def test_an_impossible_group_size_is_refused(size):
    with pytest.raises(LabelError, match="group_size"):
        read_label({"group": "a", "group_size": size})
    with Served() as server:
        body = {"query": ["Q4"], "prompts": ["Q"], "labels": [{"group": "a", "group_size": size}]}
        status, answer = server.post("/get_reward", body)
        assert (status, answer["error"]["field"]) == (422, "labels[0].group_size")


def test_integers_stored_as_floats_are_integers():
    assert read_label({"group": 7.0, "group_size": 8.0}) == read_label({"group": 7, "group_size": 8})
    with pytest.raises(LabelError):
        read_label({"group": 7.5, "group_size": 8})


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2), (2, None), (None, 4)])
def test_labels_of_one_group_must_have_one_size(sizes):
    labels = [{"group": "a", **({} if size is None else {"group_size": size})} for size in sizes]
    with Served(group_wait=0.2) as server:
        status, answer = server.post("/get_reward", {"query": ["Q4", "Q7"], "prompts": ["Q", "Q"], "labels": labels})
        assert status == 422 and "size" in answer["error"]["message"] and answer["error"]["field"] == "labels[1]"
        assert not server.judge.seen


# Chats.

ASKING = [
    {"top_k": 5},
    {"min_p": 0.1},
    {"repetition_penalty": 1.2},
    {"best_of": 4},
    {"use_beam_search": True},
    {"min_tokens": 100},
    {"stop_token_ids": [7]},
    {"ignore_eos": True},
    {"guided_json": {}},
    {"guided_choice": ["1", "2"]},
    {"structured_outputs": {"choice": ["1"]}},
    {"reasoning_effort": "low"},
    {"prompt_logprobs": 1},
    {"continue_final_message": True},
    {"add_generation_prompt": False},
    {"chat_template": "{{ messages }}"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"mm_processor_kwargs": {"max_pixels": 1}},
    {"documents": [{"text": "x"}]},
    {"audio": {"voice": "x"}},
    {"web_search_options": {}},
]


def test_chat_parameters_are_applied_or_refused():
    chat = {"messages": [{"role": "user", "content": build_prompt(QUESTION, "4", "7")}]}
    with Served() as server:
        for more in ASKING:
            status, answer = server.post("/v1/chat/completions", {**chat, **more})
            assert (status, answer["error"]["param"]) == (400, next(iter(more))), answer
        assert not server.judge.seen
        nothing = {
            "top_k": -1,
            "min_p": 0,
            "repetition_penalty": 1.0,
            "stop_token_ids": [],
            "user": "me",
            "audio": None,
        }
        assert server.post("/v1/chat/completions", {**chat, **nothing})[0] == 200


# Blank responses.


@pytest.mark.parametrize("empty", ["", " \n", [], [{"type": "text", "text": " "}], [""], ["\u200b"]])
def test_the_client_shows_blank_responses_as_empty(empty):
    with Served() as server:
        scored = JudgeServer(f"http://127.0.0.1:{server.port}").rewards_now(QUESTION, [empty, "7"])
        assert [one.reward for one in scored] == pytest.approx([-0.8, 0.8])
        assert "(empty response)" in server.judge.seen[0][1:]


@pytest.mark.parametrize("odd", [7, None, {"text": "x"}, [{"type": "audio"}], [7]])
def test_the_client_says_what_is_not_a_response(odd):
    with pytest.raises(JudgeFailed, match="a response "):
        JudgeServer("http://127.0.0.1:9").rewards_now(QUESTION, [odd, "7"])


# Pictures in responses.


def drawn(number, **picture):
    """One response of a group, with a picture in it."""
    parts = [{"type": "text", "text": str(number)}, {"type": "image", "image": picture}]
    return {"question": QUESTION, "responses": [parts], "group": "g", "group_size": 3, "samples": [str(number)]}


@pytest.mark.parametrize("apart", [True, False])
def test_the_pictures_in_a_groups_responses_are_limited_together(apart):
    bodies = [drawn(number, base64=base64_png(10, 10)) for number in range(3)]
    with Served(max_pixels=250, group_wait=0.3) as server:
        if apart:
            answers = together(*(lambda body=body: server.post("/v1/reward", body) for body in bodies))
        else:
            whole = {**bodies[0], "responses": [one["responses"][0] for one in bodies], "samples": ["0", "1", "2"]}
            answers = [server.post("/v1/reward", whole)]
        refused = [answer for status, answer in answers if status == 422]
        assert len(refused) == 1 and "--max-pixels" in refused[0]["error"]["message"]
        assert {status for status, _ in answers} <= {422, 503}
        assert not server.judge.seen
    with Served(max_pixels=300) as server:
        again = [*bodies, bodies[0]]  # the same sample counts once
        answers = together(*(lambda body=body: server.post("/v1/reward", body) for body in again))
        assert {status for status, _ in answers} == {200}, answers

"""The routes of rerankers and scorers: the wire format of vLLM and Cohere, and Cohere's own client."""

from __future__ import annotations

import math

import cohere
import pytest
from cohere.errors import BadRequestError
from fakes import Table
from served import Served, base64_png

from r1_reward.judge.reward_model import RewardModel

RERANK, SCORE = ("/rerank", "/v1/rerank", "/v2/rerank"), ("/score", "/v1/score")
QUERY = "Which is larger?"
PICTURE = "data:image/png;base64," + base64_png()


@pytest.fixture(scope="module")
def server():
    with Served(model_name="judge", max_candidates=8, max_votes=4, max_images=3, max_chars=2000) as served:
        yield served


@pytest.fixture(scope="module")
def scalar():
    table = {"4": 0.5, "7": 1.5, "nan": math.nan}
    with Served(model=RewardModel(Table(table)), model_name="scalar") as served:
        yield served


def ask(server, path="/rerank", **body):
    status, answer = server.post(path, body)
    assert status == 200, answer
    return answer


def refused(server, path="/rerank", status=400, **body):
    got, answer = server.post(path, body)
    assert got == status, answer
    assert answer["message"] == answer["error"]["message"] and answer["error"]["code"] == status
    return answer["error"]["param"], answer["message"]


@pytest.mark.parametrize("path", RERANK)
def test_documents_are_ordered_by_how_often_they_win(path, server):
    answer = ask(server, path, model="judge", query=QUERY, documents=["4", "9", "7"])
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx([0.9, 0.5, 0.1])
    assert [result["document"]["text"] for result in answer["results"]] == ["9", "7", "4"]
    assert answer["model"] == "judge" and answer["usage"]["total_tokens"] == 6 * 9
    assert len(ask(server, path, query=QUERY, documents=["4", "9", "7"], top_n=0)["results"]) == 3


def test_top_n_and_return_documents(server):
    answer = ask(server, query=QUERY, documents=[{"text": "4"}, {"text": "9"}], top_n=1, return_documents=False)
    (best,) = answer["results"]
    assert best["index"] == 1 and best["document"] is None
    assert len(ask(server, query=QUERY, documents=["4", "9"], top_n=99)["results"]) == 2
    first = ask(server, query=QUERY, documents=[{"text": "4"}, {"text": "9"}])["results"][0]
    assert first["document"] == {"text": "9", "multi_modal": None}


def test_equal_documents_share_their_score(server):
    scores = [one["score"] for one in ask(server, "/score", queries=QUERY, documents=["4", "9", "4"])["data"]]
    assert scores[0] == scores[2] < scores[1]
    assert [one["score"] for one in ask(server, "/score", queries=QUERY, documents=["4", "4"])["data"]] == [0.5, 0.5]


def test_the_url_sets_schedule_and_votes(server):
    for options, most in [("", 6 * 2), ("?schedule=circular", 4 * 2), ("?schedule=bracket&votes=3", 3 * 6)]:
        before = server.metric("votes_total", outcome="readable")
        ask(server, "/rerank" + options, query=QUERY, documents=["1", "2", "3", "4"])
        assert server.metric("votes_total", outcome="readable") - before == most
    kind = ask(server, "/rerank?kind=bradley_terry", query=QUERY, documents=["1", "2", "3"])
    assert all(0 < result["relevance_score"] < 1 for result in kind["results"])


def test_pictures_as_documents_and_in_queries(server):
    linked = {"type": "image_url", "image_url": {"url": PICTURE}}
    forms = [
        [{"content": [linked, {"type": "text", "text": "4"}]}, {"content": [{"type": "text", "text": "7"}]}],
        [{"image": PICTURE, "text": "4"}, "7"],
        [{"image": base64_png(), "text": "4"}, {"text": "7"}],
    ]
    for documents in forms:
        results = ask(server, query={"content": [linked, {"type": "text", "text": QUERY}]}, documents=documents)[
            "results"
        ]
        assert [result["index"] for result in results] == [1, 0]
        assert server.judge.images[-1] == [(3, 2), (3, 2)] and "[image]" in "".join(server.judge.seen[-1][1:])
        assert results[1]["document"]["multi_modal"][0]["type"].startswith("image")


def test_nothing_is_judged_blind(server):
    before = len(server.judge.seen)
    for query in ("<image>Which?", {"content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}):
        assert "image" in refused(server, query=query, documents=["4", "7"])[1]
    document = {"content": [{"type": "image"}, {"type": "text", "text": "4"}]}
    assert "image" in refused(server, query=QUERY, documents=[document, "7"])[1]
    assert len(server.judge.seen) == before


@pytest.mark.parametrize("path", SCORE)
@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("text_1", "text_2"), ("data_1", "data_2")]
)
def test_scores_come_in_the_order_of_the_documents(path, names, server):
    query, documents = names
    answer = ask(server, path, **{"model": "judge", query: QUERY, documents: ["4", "9", "7"]})
    assert answer["object"] == "list" and [one["index"] for one in answer["data"]] == [0, 1, 2]
    assert [one["object"] for one in answer["data"]] == ["score"] * 3
    assert [one["score"] for one in answer["data"]] == pytest.approx([0.1, 0.9, 0.5])
    assert ask(server, path, **{query: [QUERY], documents: ["4", "9", "7"]})["data"] == answer["data"]


def test_documents_are_grouped_by_query(server):
    answer = ask(server, "/score", queries=["a", "b", "a", "b"], documents=["1", "9", "2", "3"])
    assert [one["score"] for one in answer["data"]] == pytest.approx([0.1, 0.9, 0.9, 0.1])


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/rerank", {"documents": []}, "documents", "empty"),
        ("/rerank", {"documents": ["4"]}, "documents[0]", "scalar"),
        ("/rerank", {"documents": ["4"] * 500}, "documents", "--max-candidates"),
        ("/rerank", {"documents": [" ", "4"]}, "documents[0]", "blank"),
        ("/rerank", {"documents": ["4", "7" * 2001]}, "documents[1]", "--max-chars"),
        ("/rerank", {"documents": ["4", {}]}, "documents[1]", "must be text"),
        ("/rerank", {"documents": ["4", {"title": "x"}]}, "documents[1]", "must be text"),
        ("/rerank", {"documents": ["4", 7]}, "documents[1]", "text or a document"),
        ("/rerank", {"documents": ["4", {"content": []}]}, "documents[1].content", ""),
        ("/rerank", {"documents": "47"}, "documents", "scalar"),
        ("/rerank", {"documents": 47}, "documents", "text or a document"),
        ("/rerank", {"documents": ["4", "7"], "max_tokens_per_doc": 9}, "max_tokens_per_doc", "leave it out"),
        ("/rerank", {"documents": ["4", "7"], "truncate_prompt_tokens": 9}, "truncate_prompt_tokens", "leave it out"),
        ("/rerank", {"documents": ["4", "7"], "top_n": -1}, "top_n", ""),
        ("/rerank", {"documents": ["4", "7"], "rank_fields": ["title"]}, "rank_fields", "leave it out"),
        ("/rerank", {"documents": ["4", "7"], "use_activation": False}, "use_activation", "leave it out"),
        ("/rerank", {"documents": ["4", "7"], "query": " "}, "query", "blank"),
        ("/rerank", {"documents": ["4", "7"], "query": None}, "query", "text or a document"),
        ("/rerank", {"documents": ["4", {"image": "not base64"}]}, "documents[1][0].image", ""),
        ("/rerank", {"documents": ["4"] + [{"image": PICTURE}] * 4}, "documents[4]", "--max-images"),
        ("/rerank?votes=9", {"documents": ["4", "7"]}, "votes", "--max-votes"),
        ("/rerank?schedule=all", {"documents": ["4", "7"]}, "schedule", ""),
        ("/score", {"queries": "q"}, None, "got queries"),
        ("/score", {"queries": "q", "text_2": ["4", "7"]}, None, "got queries and text_2"),
        ("/score", {"text_1": "q", "text_2": ["4", "7"], "items": "x"}, None, "got items"),
        ("/score", {"text_1": "q", "text_2": []}, "text_2", "empty"),
        ("/score", {"text_1": "q", "text_2": "4"}, "text_2", "scalar"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["4", "7"]}, "text_2[0]", "scalar"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["4", "7", "8"]}, "text_1", "2 queries for 3"),
        ("/score", {"text_1": [], "text_2": ["4", "7"]}, "text_1", "0 queries"),
        ("/score", {"text_1": "q", "text_2": [["4"], "7"]}, "text_2[0]", "text or a document"),
    ],
)  # fmt: skip
def test_refusals_say_why_in_both_forms(path, body, param, words, server):
    body = {"query": QUERY, **body} if "/rerank" in path else body
    got, message = refused(server, path, **body)
    assert got == param and words in message


def test_five_hundred_documents_if_the_operator_allows_them():
    with Served(max_candidates=500, model_name="judge") as server:
        documents = [str(number) for number in range(500)]
        assert "--max-judgments" in refused(server, query=QUERY, documents=documents)[1]
        answer = ask(server, "/v2/rerank?schedule=circular", query=QUERY, documents=documents, top_n=3)
        assert len(answer["results"]) == 3 and answer["results"][0]["relevance_score"] <= 1


def test_a_failed_judge_is_an_error_and_never_a_score(server):
    assert refused(server, status=404, model="gpt", query=QUERY, documents=["4", "7"])[0] == "model"
    param, message = refused(server, status=502, query="unreadable", documents=["4", "7"])
    assert param == "documents" and "documents[0], documents[1]" in message
    assert refused(server, status=502, query="fails", documents=["4", "7"])
    assert refused(server, status=503, query="down", documents=["4", "7"])


@pytest.mark.parametrize("documents", [["4"], ["4", "7"], ["7", "4", "7"]])
def test_a_scalar_judge_scores_each_document_alone(documents, scalar):
    expected = [1 / (1 + math.exp(-{"4": 0.5, "7": 1.5}[one])) for one in documents]
    answer = ask(scalar, "/score", queries="Which?", documents=documents)
    assert [one["score"] for one in answer["data"]] == pytest.approx(expected)
    results = ask(scalar, query="Which?", documents=documents)["results"]
    assert [result["relevance_score"] for result in results] == pytest.approx(sorted(expected, reverse=True))


def test_a_scalar_judge_without_a_finite_reward_and_a_shared_document(scalar):
    assert refused(scalar, status=502, query="Which?", documents=["nan", "4"])[1].endswith("documents[0]")
    assert "image" in refused(scalar, query="<image>Which?", documents=["4"])[1]
    shared = RewardModel(Table({"4": 0.0})).shared()
    with Served(model=shared) as server:
        assert ask(server, "/score", queries="Which?", documents="4")["data"][0]["score"] == 0.5


def test_coheres_own_client(server):
    url = f"http://127.0.0.1:{server.port}"
    documents = ["4", "9", "7"]
    for client in (cohere.Client("none", base_url=url), cohere.ClientV2("none", base_url=url)):
        answer = client.rerank(model="judge", query=QUERY, documents=documents, top_n=2)
        assert [(one.index, one.relevance_score) for one in answer.results] == [(1, 0.9), (2, 0.5)]
        with pytest.raises(BadRequestError) as error:
            client.rerank(model="judge", query=QUERY, documents=["4"])
        assert "scalar" in error.value.body["message"]
    old = cohere.Client("none", base_url=url).rerank(
        model="judge", query=QUERY, documents=[{"text": "4"}, {"text": "9"}], return_documents=True
    )
    assert old.results[0].document.text == "9"

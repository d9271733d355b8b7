"""Schemathesis against the server's own OpenAPI document: the server does what it promises."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from served import Served, base64_png

from r1_reward.records.texts import is_blank

KEY = "a-key"
CHECKS = [
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]
OURS = ("/v1/compare", "/v1/rank", "/v1/reward")
RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")
POOLING = ("/classify", "/v1/classify", "/pooling", "/v1/embeddings")
TRAINERS = ("/get_reward", "/compare", "/verify", "/remote_rm")
POSTED = (*OURS, "/v1/chat/completions", *RERANK, *POOLING, *TRAINERS)
OPERATIONS = dict.fromkeys(POSTED, "POST") | dict.fromkeys(("/v1/models", "/health", "/metrics"), "GET")

schemathesis.openapi.format("picture", st.sampled_from([base64_png(), base64_png(5, 4, "blue")]))
_server = Served(api_key=KEY, max_candidates=4, max_votes=3, group_wait=0.2, group_size=2)


@pytest.fixture(scope="module")
def served():
    with _server as server:
        yield server


@pytest.fixture(scope="module")
def document():
    return schemathesis.openapi.from_dict(_server.app.openapi())


def has_open_parts(body):
    """Return whether parts of a request are elsewhere (a picture, the rest of a group), or all its texts are blank."""
    asked = body if isinstance(body, dict) else {}
    if any(asked.get(name) is not None for name in ("group", "group_size", "samples")):
        return True  # the rest of a group does not arrive
    contents = [asked.get(name) for name in ("question", "response_1", "response_2")]
    contents += asked["responses"] if isinstance(asked.get("responses"), list) else []
    for parts in (content for content in contents if isinstance(content, list)):
        known = [part for part in parts if isinstance(part, dict)]
        if any(part.get("type") == "image" and not part.get("image") for part in known):
            return True
        if all(is_blank(str(part.get("text", "a picture"))) for part in known):
            return True
    return False


# Not `schema.parametrize()`: that makes its examples while tests are collected, ten seconds in every process.
@pytest.mark.slow
@pytest.mark.parametrize("path", OPERATIONS)
def test_the_server_keeps_its_document(path, document, served):
    @settings(
        max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def keeps_it(case):
        checks = list(CHECKS)
        # No schema can say that uploaded bytes are a picture, that a query begins with its prompt, or that there are
        # as many pictures as parts without one; nor that a chat is a comparison.
        if case.path in OURS and case.media_type == "application/json" and not has_open_parts(case.body):
            checks.append(positive_data_acceptance)
        headers = {"Authorization": f"Bearer {KEY}"}
        case.call_and_validate(base_url=f"http://127.0.0.1:{served.port}", headers=headers, checks=checks)

    operation = document[path][OPERATIONS[path]]
    config = HypothesisTestConfig(modes=list(HypothesisTestMode), project=document.config)
    create_test(operation=operation, test_func=keeps_it, config=config)()


def test_every_route_is_in_the_document(document):
    assert {operation.ok().path for operation in document.get_all_operations()} == set(OPERATIONS)


def test_the_document_contains_the_limits_of_this_server():
    schemas = _server.app.openapi()["components"]["schemas"]
    assert schemas["CompareRequest"]["properties"]["votes"]["maximum"] == 3
    assert schemas["RankRequest"]["properties"]["responses"]["maxItems"] == 4
    words, parts = schemas["RankRequest"]["properties"]["question"]["oneOf"]
    assert (words["maxLength"], parts["maxItems"]) == (50_000, 64)
    assert schemas["CompareRequest"]["properties"]["response_1"]["oneOf"] == [words, parts]
    assert schemas["CompareRequest"]["properties"]["criteria"]["anyOf"][0] == words
    assert schemas["RankRequest"]["properties"]["budget"]["anyOf"][0]["maximum"] == 1_000_000

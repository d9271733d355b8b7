"""Schemathesis against the server's own OpenAPI document: what it promises is what it does."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
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
OPERATIONS = {"/v1/compare", "/v1/rank", "/v1/reward", "/get_reward", "/health", "/metrics"}

schemathesis.openapi.format("picture", st.sampled_from([base64_png(), base64_png(5, 4, "blue")]))
_server = Served(api_key=KEY, max_candidates=4, max_votes=3)


@pytest.fixture(scope="module")
def served():
    with _server as server:
        yield server


schema = schemathesis.openapi.from_dict(_server.app.openapi())


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_the_server_keeps_its_document(case, served):
    checks = list(CHECKS)
    # No schema can say that uploaded bytes are a picture, or that a query begins with its prompt.
    if case.path.startswith("/v1") and case.media_type == "application/json":
        checks.append(positive_data_acceptance)
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{served.port}", headers={"Authorization": f"Bearer {KEY}"}, checks=checks
    )


def test_every_route_is_in_the_document(served):
    assert {path for path, _ in ((o.ok().path, o.ok().method) for o in schema.get_all_operations())} == OPERATIONS


def test_the_document_tells_the_limits_of_this_server():
    schemas = _server.app.openapi()["components"]["schemas"]
    assert schemas["CompareRequest"]["properties"]["votes"]["maximum"] == 3
    assert schemas["RankRequest"]["properties"]["responses"]["maxItems"] == 4
    assert schemas["RankRequest"]["properties"]["question"]["maxLength"] == 50_000
    assert schemas["RankRequest"]["properties"]["budget"]["anyOf"][0]["maximum"] == 1_000_000

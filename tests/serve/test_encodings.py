"""Bodies that are compressed, have a byte order mark or another encoding are read, or refused by name."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from served import Served, base64_png, form, pair, png

JSON = json.dumps(pair(question="Größer?"), ensure_ascii=False).encode()
PARTS = gzip.compress(JSON[:9]) + gzip.compress(JSON[9:])


@pytest.fixture(scope="module")
def server():
    with Served(max_body_mb=1) as served:
        yield served


def post(server, body, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer = server.post("/v1/compare", body, **headers)
    return status, answer["error"]["message"] if status != 200 else answer["preferred"]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(JSON), "gzip"),
        (gzip.compress(JSON), "GZip"),
        (PARTS, "x-gzip"),
        (zlib.compress(JSON), "deflate"),
        (zlib.compress(JSON, wbits=-15), "deflate"),
        (gzip.compress(b"\xef\xbb\xbf" + JSON), "gzip"),
        (JSON, "identity"),
        (b"\xef\xbb\xbf" + JSON, ""),
        (b"  " + JSON + b"\n", ""),
    ],
)
def test_supported_bodies_are_read(server, body, encoding):
    assert post(server, body, Content_Encoding=encoding) == (200, 2)


def test_a_form_may_be_compressed(server):
    body, kind = form(pair(), png(5, 4))
    assert post(server, gzip.compress(body), Content_Encoding="gzip", Content_Type=kind) == (200, 2)
    assert server.judge.images[-1] == [(5, 4)]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "message"),
    [
        (JSON, "br", 415, "unsupported Content-Encoding br;"),
        (JSON, "zstd", 415, "unsupported Content-Encoding zstd;"),
        (JSON, "gzip, gzip", 415, "unsupported Content-Encoding gzip, gzip;"),
        (gzip.compress(JSON), "", 415, "the body is gzip"),
        (b"\x28\xb5\x2f\xfd" + JSON, "", 415, "the body is zstd"),
        (JSON, "gzip", 400, "the Content-Encoding is gzip, but the body is not"),
        (JSON, "deflate", 400, "the Content-Encoding is deflate, but the body is not"),
        (gzip.compress(JSON)[:-9], "gzip", 400, "is truncated"),
        (JSON.decode().encode("utf-16"), "", 415, "the body is UTF-16"),
        (JSON.decode().encode("utf-16-le"), "", 415, "UTF-16"),
        (JSON.decode().encode("utf-16-be"), "", 415, "UTF-16"),
        (JSON.decode().encode("utf-32"), "", 415, "the body is UTF-32"),
        (JSON.decode().encode("latin-1"), "", 422, "is not UTF-8 (byte 17)"),
        (b"", "", 422, "the body is empty"),
        (gzip.compress(b""), "gzip", 422, "the body is empty"),
    ],
)
def test_unsupported_bodies_are_named(server, body, encoding, status, message):
    told, said = post(server, body, Content_Encoding=encoding)
    assert told == status and message in said


@pytest.mark.parametrize(
    "bomb",
    [gzip.compress(b" " * (40 << 20) + JSON), gzip.compress(b" " * (1 << 19)) * 4, gzip.compress(b"") * 30_000],
)
def test_unpacking_stops_at_the_body_limit(server, bomb):
    status, said = post(server, bomb, Content_Encoding="gzip")
    assert (status, "--max-body-mb" in said) in ((413, True), (400, False))


@pytest.mark.parametrize(
    ("fields", "message", "field"),
    [
        ({"response_1": " "}, "response 1 is blank", "response_1"),
        ({"response_2": "\n\t"}, "response 2 is blank", "response_2"),
        ({"question": ""}, "question is blank", "question"),
    ],
)
def test_a_blank_text_is_called_blank(server, fields, message, field):
    assert server.post("/v1/compare", {**pair(), **fields}) == (422, {"error": {"message": message, "field": field}})


@pytest.mark.parametrize("path", ["/v1/rank", "/v1/reward"])
def test_the_blank_response_of_several_is_named(server, path):
    error = {"message": "responses[1] is blank", "field": "responses[1]"}
    assert server.post(path, {"question": "?", "responses": ["a", " "]}) == (422, {"error": error})


URL, URI = "https://example.org/7.png", "data:image/png;base64," + base64_png()


@pytest.mark.parametrize(
    ("picture", "status", "message"),
    [
        (URL, 422, "send this URL as"),
        (URI, 422, "send this data URI as"),
        ("scenes/7.png", 422, "plain text does not say"),
        ({"base64": URL}, 422, "this is a URL"),
        ({"path": URL}, 422, "is a URL, not a path"),
        ({"path": URI}, 422, "is a data URI, not a path"),
        ({"url": "scenes/7.png"}, 403, "send a path as"),
        ({"url": URL}, 403, "--allow-host"),
    ],
)
def test_the_error_of_a_malformed_picture_shows_the_right_form(server, picture, status, message):
    told, said = post(server, json.dumps(pair(images=[picture])).encode())
    assert told == status and message in said


@pytest.mark.parametrize("picture", [{"url": URI}, {"base64": URI}])
def test_a_data_uri_is_read(server, picture):
    assert post(server, json.dumps(pair(images=[picture])).encode()) == (200, 2)


QUESTIONS = [("<image>Which?", 1), ("Is <image> after <image>?", 2), ("[IMG]Which?", 1), ("<|image_1|> Which?", 1)]


@pytest.mark.parametrize(("question", "pictures"), QUESTIONS)
@pytest.mark.parametrize("path", ["compare", "rank", "reward"])
def test_a_question_without_its_pictures_is_refused_on_every_route(server, path, question, pictures):
    seen = len(server.judge.seen)
    texts = {"response_1": "1", "response_2": "2"} if path == "compare" else {"responses": ["1", "2"]}
    asked = {"question": question, **texts}
    status, answer = server.post(f"/v1/{path}", asked)
    assert status == 422 and answer["error"]["field"] == "question" and "and none came" in answer["error"]["message"]
    assert len(server.judge.seen) == seen
    asked["images"] = [{"base64": base64_png()}] * pictures
    assert server.post(f"/v1/{path}", asked)[0] == 200
    assert "<" not in server.judge.seen[-1][0] and "[IMG]" not in server.judge.seen[-1][0]

"""Images as text: telling paths, URLs, data URIs and base64 apart."""

from __future__ import annotations

import base64
import doctest
import io
import json

import pytest
from PIL import Image

from r1_reward.judge.prepare import open_images
from r1_reward.records.errors import UserError
from r1_reward.store import encoded
from r1_reward.store.encoded import decode_bare, kind_of_source
from r1_reward.store.images import ImageError, open_image
from r1_reward.store.pairs import load_pairs

BUFFER = io.BytesIO()
Image.new("RGB", (28, 28), "red").save(BUFFER, "PNG")
PNG = BUFFER.getvalue()
BASE64 = base64.b64encode(PNG).decode()


def test_examples():
    assert doctest.testmod(encoded).failed == 0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("https://example.org/7.png", "url"),
        ("HTTP:/example.org/7.png", "url"),
        ("s3://bucket/7.png", "url"),
        ("data:image/png;base64,AAAA", "data"),
        ("data:,x", "data"),
        ("data/7.png", "path"),
        ("data:7.png", "path"),
        ("/images/https/7.png", "path"),
        ("C:/images/7.png", "path"),
        (BASE64, "path"),
    ],
)
def test_kinds(text, kind):
    assert kind_of_source(text) == kind
    assert kind_of_source(f"folder/{text}", in_folder=True) == kind


@pytest.mark.parametrize(
    "text", ["scenes/7.png", "/" + "a" * 60, "a" * 8, "not base64 at all, but a long name of a file"]
)
def test_what_looks_like_a_path_is_not_base64(text):
    assert decode_bare(text) is None


@pytest.mark.parametrize("source", [BASE64, "data:image/png;base64," + BASE64, "DATA:;base64," + BASE64])
def test_images_as_text_are_opened(source):
    assert open_images([source]).digest == open_images([PNG]).digest


@pytest.mark.parametrize("url", ["https://example.org/7.png", "http://x/7.png", "gs://bucket/7.png"])
def test_a_url_is_named_wherever_it_occurs(url, tmp_path):
    for ask in (lambda: open_image(url), lambda: open_images([url]), lambda: open_image(tmp_path / url)):
        with pytest.raises(ImageError, match="is a URL, and images are not downloaded"):
            ask()
    row = {"id": "1", "question": "?", "images": [url], "response_1": "a", "response_2": "b", "preferred": 1}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match="is a URL, and images are not downloaded"):
        load_pairs(tmp_path / "pairs.jsonl")

"""Pictures in requests: what the server opens, and what no client can make it read or fetch."""

from __future__ import annotations

import base64
import http.server
import io
import itertools
import os
import struct
import threading
import time
import zlib

import pytest
from PIL import Image
from served import Served, base64_png, pair, png

from r1_reward.serve.budget import Budget
from r1_reward.serve.errors import Refusal
from r1_reward.serve.pictures import PictureReader, named_contents
from r1_reward.serve.schemas import Base64Image, PathImage, UrlImage
from r1_reward.serve.settings import ServerSettings


def reader(**settings):
    return PictureReader(ServerSettings(**settings))


def read(images, *uploads, clock=time.monotonic, **settings):
    return reader(**settings).open([*images, *uploads], Budget(ServerSettings(**settings), clock))


def refusal(images, *uploads, **settings):
    with pytest.raises(Refusal) as refused:
        read(images, *uploads, **settings)
    return refused.value.status, refused.value.field, refused.value.message


def header_of(width, height):
    """Return a PNG that declares a size but contains almost no data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_base64_data_urls_and_uploads_in_order():
    plain = base64_png(4, 3)
    broken_up = "\n".join(plain[start : start + 20] for start in range(0, len(plain), 20))
    data = "data:image/png;base64," + base64_png(5, 4)
    opened = read([Base64Image(base64=broken_up), Base64Image(base64=data), UrlImage(url=data)], png(6, 5))
    assert [picture.size for picture in opened.pictures] == [(4, 3), (5, 4), (5, 4), (6, 5)]
    assert read([]).pictures == ()


def test_a_sideways_photograph_is_turned_upright():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 2)).save(buffer, "JPEG", exif=exif)
    assert read([], buffer.getvalue()).pictures[0].size == (2, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("!!!", "is not base64"),
        ("AAA", "is not base64"),
        ("é", "is not base64"),
        ("data:image/png,abc", "data:image/png;base64"),
        ("data:image/png;base64", "data:image/png;base64"),
        (base64.b64encode(b"no picture").decode(), "is not an image"),
        (base64.b64encode(png(50, 50)[:60]).decode(), "damaged or truncated"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode(), "is not an image"),
    ],
)
def test_data_that_are_not_a_picture_are_refused(text, message):
    status, field, told = refusal([Base64Image(base64=base64_png()), Base64Image(base64=text)])
    assert (status, field) == (422, "images[1]") and message in told


@pytest.mark.parametrize("size", [(100_000, 100_000), (9000, 9000), (4097, 4096)])
def test_a_pixel_bomb_is_refused_by_its_header(monkeypatch, size):
    monkeypatch.setattr("r1_reward.serve.pictures.open_image", lambda *_, **__: pytest.fail("it was unpacked"))
    status, field, told = refusal([], header_of(*size))
    assert (status, field) == (422, "images[0]") and "at most 16,777,216 (--max-pixels)" in told


def test_a_text_is_not_searched_for_parts():
    class Text(str):
        def __iter__(self):
            pytest.fail("a text of 30 MB would block the server for a second")

    assert named_contents({"question": Text("Which?")}, [png()]) == ({"question": "Which?"}, [png()])


# Paths.


@pytest.fixture
def folder(tmp_path):
    allowed = tmp_path / "allowed"
    (allowed / "sub").mkdir(parents=True)
    (allowed / "sub" / "in.png").write_bytes(png(4, 3))
    (tmp_path / "out.png").write_bytes(png())
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "near.png").write_bytes(png())
    (allowed / "link.png").symlink_to(tmp_path / "out.png")
    (allowed / "inside.png").symlink_to(allowed / "sub" / "in.png")
    (allowed / "circle.png").symlink_to(allowed / "circle.png")
    os.mkfifo(allowed / "pipe")
    return allowed


def test_paths_need_permission(folder):
    status, field, told = refusal([PathImage(path=str(folder / "sub" / "in.png"))])
    assert (status, field) == (403, "images[0]") and "does not read files" in told and str(folder) not in told


def test_paths_inside_an_allowed_folder(folder, tmp_path):
    other = tmp_path / "allowed-not"
    for path in (str(folder / "sub" / "in.png"), "sub/in.png", "inside.png", "sub/../sub/in.png"):
        assert read([PathImage(path=path)], allow_folders=(other, folder)).pictures[0].size == (4, 3)


@pytest.mark.parametrize(
    "path",
    ["../out.png", "{}/../out.png", "{}-not/near.png", "link.png", "circle.png", "pipe", "sub", "none.png",
     "/etc/passwd", "/dev/zero", "\0", "x" * 5000, "~/a.png", ""],
)  # fmt: skip
def test_errors_do_not_reveal_whether_outside_paths_exist(folder, path):
    status, field, told = refusal([PathImage(path=path.replace("{}", str(folder)))], allow_folders=(folder,))
    assert (status, field, told) == (403, "images[0]", "no such file in the folders this server may read")


def test_a_file_that_is_not_a_picture_or_too_large(folder):
    (folder / "text.png").write_text("secret words")
    status, _, told = refusal([PathImage(path="text.png")], allow_folders=(folder,))
    assert status == 422 and "is not an image" in told and "secret" not in told and str(folder) not in told
    (folder / "large.png").write_bytes(bytes(2000))
    status, _, told = refusal([PathImage(path="large.png")], allow_folders=(folder,), max_body_mb=0.001)
    assert status == 422 and "larger than 0.001 MiB (--max-body-mb)" in told


# URLs.


class Host(http.server.BaseHTTPRequestHandler):
    """A host of pictures, some of them strange."""

    asked: list[str] = []

    def do_GET(self):
        type(self).asked.append(self.path)
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", "/ok.png")
            self.end_headers()
        elif self.path.startswith("/ok"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png(4, 3))
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(65536))
            except OSError:
                pass
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.01)
            except OSError:
                pass
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture
def host():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    Host.asked = []
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_need_permission(host):
    status, field, told = refusal([UrlImage(url=f"http://{host}/ok.png")])
    assert (status, field) == (403, "images[0]") and "does not fetch URLs" in told
    for others in (("example.org",), ("127.0.0.1",), (f"127.0.0.2:{host[-5:]}",), (f"x{host}",), (f"{host}0",)):
        assert refusal([UrlImage(url=f"http://{host}/ok.png")], allow_hosts=others)[0] == 403
    assert Host.asked == []


def test_urls_on_an_allowed_host(host):
    assert read([UrlImage(url=f"http://{host}/ok.png?a=1&b=2#c")], allow_hosts=(host,)).pictures[0].size == (4, 3)
    assert Host.asked == ["/ok.png?a=1&b=2"]


def test_a_host_without_a_port_allows_only_the_default_port():
    names = reader(allow_hosts=("Example.org",))
    for url in ("http://example.org/a", "https://EXAMPLE.org/a", "https://example.org:443/a"):
        assert names._allowed(url, "images[0]").hostname == "example.org"
    for url in ("http://example.org:8080/a", "http://sub.example.org/a", "http://example.org.evil.net/a"):
        with pytest.raises(Refusal) as refused:
            names._allowed(url, "images[0]")
        assert refused.value.status == 403


@pytest.mark.parametrize(
    "url",
    ["ftp://{}/a", "file:///etc/passwd", "//{}/a", "http://", "http://[::1", "http://{}:x/a", "http://user@{}/a",
     "http://{}\\@evil.net/a", "http://{}/a b", "http://{}/a\r\nX: y", "http://évil/a", "http://evil.net#@{}/",
     "javascript:x", ""],
)  # fmt: skip
def test_strange_urls_are_not_fetched(host, url):
    status, field, _ = refusal([UrlImage(url=url.replace("{}", host))], allow_hosts=(host,))
    assert status in (403, 422) and field == "images[0]"
    assert Host.asked == []


def test_redirects_are_not_followed(host):
    status, _, told = refusal([UrlImage(url=f"http://{host}/redirect")], allow_hosts=(host,))
    assert status == 422 and "302; redirects are not followed" in told
    assert Host.asked == ["/redirect"]


def test_hosts_that_fail(host):
    assert "answered 404" in refusal([UrlImage(url=f"http://{host}/none")], allow_hosts=(host,))[2]
    closed = "127.0.0.1:9"
    status, _, told = refusal([UrlImage(url=f"http://{closed}/a")], allow_hosts=(closed,))
    assert status == 422 and told.startswith("cannot be fetched")
    status, _, told = refusal([UrlImage(url=f"https://{host}/ok.png")], allow_hosts=(host,))
    assert status == 422 and told.startswith("cannot be fetched")


def test_a_host_that_sends_too_much_or_too_slowly(host):
    status, _, told = refusal([UrlImage(url=f"http://{host}/endless")], allow_hosts=(host,), max_body_mb=1)
    assert status == 422 and "larger than 1 MiB" in told
    dripping = [UrlImage(url=f"http://{host}/drip")]
    hurried = itertools.count(0.0, 0.5).__next__  # every look at the clock takes half a second
    status, _, told = refusal(dripping, allow_hosts=(host,), clock=hurried)
    assert status == 422 and "more than" in told
    assert refusal(dripping, allow_hosts=(host,), clock=itertools.count(0.0, 0.5).__next__, timeout=5)[0] == 504


def test_through_the_server(host, folder):
    with Served(allow_folders=(folder,), allow_hosts=(host,)) as server:
        for image in ({"url": f"http://{host}/ok.png"}, {"path": "sub/in.png"}):
            assert server.post("/v1/compare", pair(images=[image]))[0] == 200
        assert server.judge.images == [[(4, 3)]] * 4
        for image in ({"url": "http://elsewhere.example/ok.png"}, {"path": "../out.png"}):
            status, answer = server.post("/v1/compare", pair(images=[{"base64": base64_png()}, image]))
            assert status == 403 and answer["error"]["field"] == "images[1]"
        assert len(server.judge.calls) == 2

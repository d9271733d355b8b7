"""Open the pictures of a request: base64, uploads, and URLs or paths that the operator allows.

A URL's host must be exactly one of ``allow_hosts``, redirects are not followed, and a path must be in one of
``allow_folders`` after all links are resolved. A picture's size is read from its header, before it is decoded.

    contents, left = named_contents({"question": asked.question}, sources)
    reader.open_contents(contents, left, budget)        # pictures in front, and contents with pictures at their places
"""

from __future__ import annotations

import http.client
import io
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from PIL import Image

from r1_reward.judge.prepare import OpenedImages, open_images
from r1_reward.records.content import Content, ContentError, Place, Shown, fill_places, places_of, read_parts
from r1_reward.serve.budget import TOO_MANY_PIXELS, Budget
from r1_reward.serve.errors import Refusal
from r1_reward.serve.schemas import Base64Image, ImageInput, ImagePart, PartsOrText, PathImage, TextPart, UrlImage
from r1_reward.serve.settings import ServerSettings
from r1_reward.store.contents import open_content
from r1_reward.store.encoded import decode, kind_of_source
from r1_reward.store.images import ImageError, identified, open_image

PictureSource = ImageInput | bytes
"""A picture named in a request, or the bytes of an uploaded file."""


class Named(NamedTuple):
    """A picture of a request, and the field that messages name."""

    source: PictureSource
    field: str


_FETCH_SECONDS = 10.0
_OPTION = "its operator can allow hosts with --allow-host"
_CHUNK = 65536
_PORTS = {"http": 80, "https": 443}


class PictureReader:
    """Opens the pictures of requests if the settings allow it; blocks, so call it in a thread."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._folders = [Path(folder).resolve() for folder in settings.allow_folders]
        self._hosts = {host.lower() for host in settings.allow_hosts}

    def open(self, sources: Sequence[PictureSource], budget: Budget, field: str = "images") -> OpenedImages:
        """Return the pictures of one question; messages call them ``field[0]``, ``field[1]``, ...

        Raises:
            Refusal: a picture is invalid or not allowed, the pictures exceed the request's budget, or time is up.
        """
        budget.pictures(len(sources), field)
        named = [Named(source, f"{field}[{number}]") for number, source in enumerate(sources)]
        return open_images([self._picture(one, budget) for one in named])

    def open_contents(
        self, contents: Mapping[str, Content], images: Sequence[PictureSource], budget: Budget, field: str = "images"
    ) -> tuple[OpenedImages, list[Shown]]:
        """Return the pictures in front of a question, and the contents with their pictures at their places.

        ``contents`` are keyed by the field that messages name; their pictures are :class:`Named`. All are counted
        before the first is opened.

        Raises:
            Refusal: see :meth:`open`.
        """
        for name, content in contents.items():
            budget.pictures(len(places_of(content)), name)
        opened = self.open(images, budget, field)
        return opened, [self._content(content, name, budget) for name, content in contents.items()]

    def _content(self, content: Content, field: str, budget: Budget) -> Shown:
        if isinstance(content, str):
            return content
        pieces = read_parts(content)
        return open_content(
            [piece if isinstance(piece, str) else self._picture(piece.source, budget) for piece in pieces], field
        )

    def _picture(self, named: Named, budget: Budget) -> Image.Image:
        source, name = named
        budget.check_time()
        data = source if isinstance(source, bytes) else self._read(source, name, budget)
        budget.pixels(declared_pixels(data), name)
        budget.check_time()
        try:
            return open_image(data, name="the picture")
        except ImageError as error:
            raise Refusal(422, str(error), name) from error

    def _read(self, source: ImageInput, name: str, budget: Budget) -> bytes:
        if isinstance(source, Base64Image):
            return _decode(source.base64, name)
        if isinstance(source, PathImage):
            return self._read_path(source.path, name)
        if source.url[:5].lower() == "data:":
            return _decode(source.url, name)
        return self._fetch(source.url, name, budget)

    def _read_path(self, path: str, name: str) -> bytes:
        """Read a file in an allowed folder; the error does not reveal whether files elsewhere exist."""
        if (kind := kind_of_source(path)) != "path":
            raise Refusal(422, f'is a {"data URI" if kind == "data" else "URL"}, not a path; send {{"url": ...}}', name)
        if not self._folders:
            reason = "this server does not read files (its operator can allow folders with --allow-folder)"
            raise Refusal(403, f"{reason}; send the picture as base64 or as an upload", name)
        for folder in self._folders:
            try:
                file = (folder / path).resolve()
                if file.is_relative_to(folder) and file.is_file():
                    if file.stat().st_size > self.settings.max_body:
                        raise _too_large(self.settings, name)
                    return file.read_bytes()
            except (OSError, ValueError, RuntimeError):  # missing, NUL in the path, circular links, not readable
                continue
        raise Refusal(403, "no such file in the folders this server may read", name)

    def _fetch(self, url: str, name: str, budget: Budget) -> bytes:
        """Fetch a picture from an allowed host, without redirects, within limits of size and time."""
        parts = self._allowed(url, name)
        ends = budget.left() - budget.left(_FETCH_SECONDS)  # seconds left in the budget when the fetch times out
        timeout = max(0.1, budget.left(_FETCH_SECONDS))
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            response = connection.getresponse()
            if response.status != 200:
                raise Refusal(422, f"its host answered {response.status}; redirects are not followed", name)
            chunks: list[bytes] = []
            size = 0
            while chunk := response.read1(_CHUNK):
                chunks.append(chunk)
                size += len(chunk)
                if size > self.settings.max_body:
                    raise _too_large(self.settings, name)
                if budget.left() <= ends:
                    raise TimeoutError
            return b"".join(chunks)
        except (OSError, ValueError, http.client.HTTPException) as error:
            budget.check_time()
            if isinstance(error, TimeoutError):
                raise Refusal(422, f"its host took more than {timeout:g} seconds to send it", name) from error
            raise Refusal(422, f"cannot be fetched ({type(error).__name__})", name) from error
        finally:
            connection.close()

    def _allowed(self, url: str, name: str) -> SplitResult:
        """Split a URL, after checking that its host is allowed."""
        hint = '; this is not a URL: send a path as {"path": ...}' if kind_of_source(url) == "path" else ""
        if not self._hosts:
            reason = f"this server does not fetch URLs ({_OPTION}); send the picture as base64 or as an upload{hint}"
            raise Refusal(403, reason, name)
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise Refusal(422, "is not a URL: escape white space, backslashes and characters that are not ASCII", name)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Refusal(422, "is not a URL", name) from error
        if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
            raise Refusal(422, f"must look like https://host/picture.png, without a user or password{hint}", name)
        # A host without a port allows the scheme's default port; other ports must be listed explicitly.
        asked = {f"{parts.hostname}:{port or _PORTS[parts.scheme]}"}
        if port in (None, _PORTS[parts.scheme]):
            asked.add(parts.hostname)
        if not asked & self._hosts:
            raise Refusal(403, f"this server does not fetch from that host ({_OPTION})", name)
        return parts


def named_contents(
    sent: Mapping[str, PartsOrText], beside: Sequence[PictureSource]
) -> tuple[dict[str, Content], list[PictureSource]]:
    """Return the contents of a request with the source of every picture at its place, and the remaining pictures.

    Parts without a picture take those ``beside`` the contents in order. Every place holds a :class:`Named`.

    Raises:
        Refusal: the number of pictures differs from the number of parts that take them.
    """
    nameless = [
        f"{field}[{number}]"
        for field, content in sent.items()
        if not isinstance(content, str)  # millions of characters would block the event loop
        for number, part in enumerate(content)
        if isinstance(part, ImagePart) and part.image is None
    ]
    images = [Named(source, f"images[{number}]") for number, source in enumerate(beside)]
    contents = [_named(content, field) for field, content in sent.items()]
    try:
        filled, left = fill_places(contents, images)
    except ContentError as error:
        raise Refusal(422, str(error), [*nameless, "images"][min(len(images), len(nameless))]) from error
    return dict(zip(sent, filled, strict=True)), [one.source for one in left]


def _named(content: PartsOrText, field: str) -> Content:
    """Return content whose places hold :class:`Named` pictures, or None for pictures that come beside it."""
    if isinstance(content, str):
        return content
    pieces: list[str | Place] = []
    for number, part in enumerate(content):
        name = f"{field}[{number}]"
        if isinstance(part, TextPart):
            pieces.append(part.text)
        elif isinstance(part, ImagePart):
            pieces.append(Place("image", None if part.image is None else Named(part.image, f"{name}.image")))
        else:
            pieces.append(Place("image", Named(UrlImage(url=part.image_url.url), f"{name}.image_url")))
    return pieces


def key_of_sent(content: Content) -> object:
    """Return a key that is equal for contents sent as the same, before their pictures are opened."""
    if isinstance(content, str):
        return content
    return tuple(piece if isinstance(piece, str) else piece.source.source for piece in read_parts(content))


def _decode(text: str, name: str) -> bytes:
    """Decode base64, with or without the prefix of a data URL."""
    try:
        return decode(text)
    except ValueError as error:
        advice = '; this is a URL: send it as {"url": ...}' if kind_of_source(text) == "url" else ""
        raise Refusal(422, f"{error}{advice}", name) from error


def _too_large(settings: ServerSettings, name: str) -> Refusal:
    return Refusal(422, f"the file is larger than {settings.max_body_mb:g} MiB (--max-body-mb)", name)


def declared_pixels(data: bytes) -> int:
    """Return width times height from the header, or 0 if it is unreadable; ``open_image`` reports that better."""
    try:
        with identified(io.BytesIO(data)) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return TOO_MANY_PIXELS
    except Exception:  # noqa: BLE001  Pillow raises all sorts of errors on hostile headers
        return 0

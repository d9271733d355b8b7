"""open_image on the kinds of images people have, and on files that only claim to be one."""

import base64
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r1_reward.records.errors import UserError
from r1_reward.serve.pictures import declared_pixels
from r1_reward.store.images import ImageError, check_image, decode_images, embedded, image_suffix, open_image
from r1_reward.store.pairs import validate_pairs
from r1_reward.store.video import open_video


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG whose header declares any size, whatever pixels follow."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def grey(image: Image.Image) -> list[int]:
    """The pixel values of an image that must be RGB and gray."""
    assert image.mode == "RGB"
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].ravel().tolist()


def test_rgb_comes_back_unchanged_from_path_bytes_and_pil(tmp_path: Path) -> None:
    picture = noise()
    file = tmp_path / "a.png"
    file.write_bytes(encode(picture))
    for source in (file, str(file), file.read_bytes(), picture):
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert opened.tobytes() == picture.tobytes()
    opened.putpixel((0, 0), (1, 2, 3))
    assert picture.getpixel((0, 0)) != (1, 2, 3), "a PIL source must not share pixels with the result"


def test_the_name_of_a_file_need_not_tell_its_format(tmp_path: Path) -> None:
    file = tmp_path / "really_a_jpeg.png"
    file.write_bytes(encode(noise(), "JPEG"))
    assert open_image(file).size == (40, 30)


def test_cmyk_becomes_the_same_color_in_rgb() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for source in (red, encode(red, "TIFF"), encode(red, "JPEG", quality=100)):
        r, g, b = open_image(source).getpixel((4, 4))
        assert r > 245
        assert g < 10
        assert b < 10


def test_transparency_is_put_on_white() -> None:
    rgba = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (200, 0, 0, 255))
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    for source in (rgba, encode(rgba), encode(rgba, "WEBP", lossless=True), encode(palette, transparency=0)):
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 0, 0)]


def test_half_transparent_gray_is_mixed_with_white() -> None:
    assert grey(open_image(Image.new("LA", (1, 1), (0, 128)))) == [127]
    assert grey(open_image(encode(Image.new("LA", (1, 1), (0, 128))))) == [127]
    assert grey(open_image(Image.new("La", (1, 1), (0, 128)))) == [127]  # premultiplied black


def test_16_bit_is_scaled_not_clipped() -> None:
    deep = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    assert grey(open_image(encode(Image.fromarray(deep)))) == [0, 1, 128, 255]
    assert grey(open_image(encode(Image.fromarray(deep), "TIFF"))) == [0, 1, 128, 255]
    assert grey(open_image(Image.fromarray(deep.astype(np.int32)))) == [0, 1, 128, 255]


def test_a_dark_16_bit_picture_stays_dark() -> None:
    assert grey(open_image(encode(Image.fromarray(np.full((1, 2), 200, dtype=np.uint16))))) == [1, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),  # 127.5 rounds to even
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),  # no white point: the range found
        ([0.0, 0.5e6, 2e6], [0, 64, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 255, 255]),
    ],
)
def test_float_pictures_are_scaled_by_the_first_white_point_that_fits(values: list[float], expected: list[int]) -> None:
    assert grey(open_image(Image.fromarray(np.array([values], dtype=np.float32)))) == expected


def test_a_flat_picture_beyond_all_white_points_does_not_divide_by_zero() -> None:
    assert grey(open_image(Image.fromarray(np.full((1, 2), 7e6, dtype=np.float32)))) == [0, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "LAB", "RGBX", "RGBa", "PA"])
def test_other_modes_become_rgb(mode: str) -> None:
    assert open_image(Image.new(mode, (3, 2))).mode == "RGB"


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("white", "black", "black")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames > 1
    assert open_image(data).getpixel((3, 3)) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    picture = Image.new("RGB", (4, 2), "white")
    picture.paste("black", (0, 0, 2, 2))  # left half black
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to show
    opened = open_image(encode(picture, "PNG", exif=exif))
    assert opened.size == (2, 4)
    assert opened.getpixel((0, 0)) == (0, 0, 0)
    assert opened.getpixel((0, 3)) == (255, 255, 255)


def test_unreadable_exif_is_ignored() -> None:
    assert open_image(encode(noise(), "JPEG", exif=b"Exif\0\0garbage")).size == (40, 30)


def test_one_pixel_is_a_picture() -> None:
    assert open_image(encode(Image.new("RGB", (1, 1), "red"))).getpixel((0, 0)) == (255, 0, 0)


def test_aspect_ratio_limit_is_the_one_of_qwen_processors() -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    assert open_image(Image.new("L", (2, 400))).size == (2, 400)
    smart_resize(400, 2)
    for size in ((1, 10_000), (10_000, 1), (2, 401)):
        with pytest.raises(ImageError, match=f"is {size[0]}x{size[1]}, an aspect ratio above 200"):
            open_image(Image.new("L", size))
    with pytest.raises(ValueError, match="aspect ratio"):
        smart_resize(401, 2)


# Pillow by itself refuses the first, warns of the second and passes the third.
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(60_000, 60_000), (12_000, 9_000), (9_460, 9_430)])
def test_decompression_bomb_is_refused_before_decoding(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("the pixels were decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("the pixels were decoded"))
    data = png(*size)
    assert len(data) < 100
    with pytest.raises(ImageError, match="more than 89,000,000 pixels"):
        open_image(data)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_truncated_file_is_refused(kind: str, share: float, tmp_path: Path) -> None:
    data = encode(noise(200, 200), kind)
    file = tmp_path / "half.img"
    file.write_bytes(data)
    check_image(file)
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match="half.img: is (damaged|not an image)"):
        check_image(file)


def test_png_with_a_wrong_checksum_is_refused() -> None:
    data = bytearray(encode(noise()))
    data[60] ^= 0xFF
    with pytest.raises(ImageError, match="is damaged or truncated"):
        open_image(bytes(data))


def test_every_prefix_of_a_picture_is_refused_or_has_all_its_pixels() -> None:
    picture = noise(12, 12)
    data = encode(picture)
    refused = 0
    for end in range(len(data)):
        try:
            assert open_image(data[:end]).tobytes() == picture.tobytes()
        except ImageError:
            refused += 1
    assert refused > len(data) - 30  # the checksum and the end marker are not pixels


def test_unusable_files_are_named_and_explained(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("I am not a picture.")
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    reasons = {
        "empty.png": "is empty",
        "text.png": "is not an image",
        "drawing.eps": "is not an image",  # Pillow would start Ghostscript for it
        "gone.png": "no such file",
        "": "is a directory",
        "nul\0.png": "no such file|not a usable path",
        "x" * 5000: "not a usable path|no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason) as caught:
            open_image(str(tmp_path / name))
        assert str(caught.value).startswith(str(tmp_path / name))
        assert isinstance(caught.value, UserError)
    with pytest.raises(ImageError, match="image bytes: is empty"):
        open_image(b"")
    with pytest.raises(ImageError, match="row 7: is not an image"):
        open_image(b"no picture", name="row 7")


def test_decode_images_reads_bytes_before_paths(tmp_path: Path) -> None:
    red, blue = (encode(Image.new("RGB", (2, 2), colour)) for colour in ("red", "blue"))
    file = tmp_path / "blue.png"
    file.write_bytes(blue)
    row = {"images": [{"bytes": red, "path": str(file)}, {"bytes": None, "path": str(file)}]}
    assert [image.getpixel((0, 0)) for image in decode_images(row)] == [(255, 0, 0), (0, 0, 255)]
    assert decode_images({"images": None}) == []
    with pytest.raises(ImageError, match="neither bytes nor a path"):
        decode_images({"images": [{"bytes": None, "path": None}]})


def test_image_suffix() -> None:
    assert [image_suffix(encode(noise(), kind)) for kind in ("PNG", "JPEG", "WEBP")] == [".png", ".jpg", ".webp"]
    assert image_suffix(b"nothing") == ".img"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunks(file: bytes, *chunks: bytes, behind: bool = False) -> bytes:
    """A PNG file with more chunks, before or after its pixels."""
    place = len(file) - 12 if behind else 33
    return file[:place] + b"".join(chunks) + file[place:]


LARGE = zlib.compress(b"{}" * (2 << 20))
TEXTS = {
    "zTXt": [chunk(b"zTXt", b"workflow\0\0" + LARGE)],
    "iTXt": [chunk(b"iTXt", b"workflow\0\1\0\0\0" + LARGE)],
    "iCCP": [chunk(b"iCCP", b"profile\0\0" + LARGE)],
    "both": [chunk(b"zTXt", b"prompt\0\0" + LARGE), chunk(b"iTXt", b"workflow\0\1\0en\0\0" + LARGE)],
    "many": [chunk(b"tEXt", b"part %d\0" % number + b"x" * (1 << 20)) for number in range(66)],
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_png_with_large_texts_shows_its_pixels(kind: str, behind: bool, tmp_path: Path) -> None:
    file = with_chunks(encode(noise()), *TEXTS[kind], behind=behind)
    (tmp_path / "a.png").write_bytes(file)
    for source in (file, tmp_path / "a.png"):
        assert open_image(source).tobytes() == noise().tobytes()
    assert image_suffix(file) == ".png"
    assert declared_pixels(file) == 40 * 30


def test_other_chunks_of_such_a_png_are_kept() -> None:
    turned = Image.new("RGB", (40, 30), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = with_chunks(encode(turned, exif=exif), *TEXTS["zTXt"])
    assert open_image(file).size == (30, 40)


def test_large_texts_do_not_hide_damage_or_a_bomb() -> None:
    with pytest.raises(ImageError, match="is damaged or truncated"):
        open_image(with_chunks(encode(noise()), *TEXTS["iTXt"])[:-400])
    with pytest.raises(ImageError, match="more than 89,000,000 pixels"):
        open_image(with_chunks(png(100_000, 100_000), *TEXTS["zTXt"]))


def test_a_film_of_png_frames_with_large_texts_is_shown(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    file = encode(frames[0], save_all=True, append_images=frames[1:])
    (tmp_path / "a.png").write_bytes(with_chunks(file, *TEXTS["zTXt"]))
    assert [frame.getpixel((0, 0)) for frame in open_video(tmp_path / "a.png", 2)] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "is blank"),
        (" \t", "is blank"),
        ("https://example.org/a.png", "is a URL, and images are not downloaded"),
        ("HTTP://example.org/a.png?size=3", "is a URL, and images are not downloaded"),
        ("s3://bucket/a.png", "is a URL, and images are not downloaded"),
        ("file:///srv/a.png", "is a URL, and images are not downloaded"),
        ("data:image/png;base64," + "iVBORw0KGgo" * 400, "is a data URI"),
        ("data:image/svg+xml,<svg/>", "is a data URI"),
        (base64.b64encode(encode(noise())).decode(), "is a base64-encoded image"),
        (base64.b64encode(encode(noise(), "JPEG")).decode(), "is a base64-encoded image"),
        ("gone.png", "no such file"),
    ],
)
def test_a_text_that_is_not_a_path_is_called_what_it_is(cell: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=reason) as told:
        open_image(cell)
    assert len(str(told.value)) < 500
    with pytest.raises(
        ImageError, match={"": "neither bytes nor a path", "gone.png": "cannot be read"}.get(cell, reason)
    ):
        embedded({"bytes": None, "path": cell})
    row = {"id": "1", "question": "What?", "images": [cell], "response_1": "A.", "response_2": "B.", "preferred": 1}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    (problem,) = validate_pairs(tmp_path / "pairs.jsonl")
    assert (problem.line, problem.field) == (1, "images[0]")
    assert reason in problem.reason
    assert len(problem.reason) < 500


def test_a_folder_that_is_called_like_an_address_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "https:" / "example.org").mkdir(parents=True)
    (tmp_path / "https:" / "example.org" / "a.png").write_bytes(encode(noise()))
    assert open_image(tmp_path / "https:" / "example.org" / "a.png").size == (40, 30)

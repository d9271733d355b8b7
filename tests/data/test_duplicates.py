"""Exact and near duplicates, checked against slow twins that compare everything."""

import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_rows import encoded, make_row, picture, reworded, sentence
from PIL import Image, ImageDraw

from r1_reward.data.duplicates import (
    Components,
    ImageTable,
    PrintMatrix,
    exact_duplicates,
    exact_key,
    fingerprint,
    near_duplicates,
    near_prints,
    normalise,
    sign,
    similarity,
    union,
)


def windows(text: str) -> set[str]:
    text = normalise(text).ljust(5, "\0")
    return {text[start : start + 5] for start in range(len(text) - 4)}


def jaccard(first: str, second: str) -> float:
    a, b = windows(first), windows(second)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("places", [0, 1, 3, 8, 20, 40])
def test_the_estimate_is_near_the_true_share_of_windows(places: int) -> None:
    errors = []
    for seed in range(30):
        text = sentence(seed, 60)
        other = reworded(text, places)
        errors.append(similarity(sign(text), sign(other)) - jaccard(text, other))
    assert abs(np.mean(errors)) < 0.04  # 30 estimates with a standard error of at most 0.0625 each
    assert max(map(abs, errors)) < 0.27


@given(st.text(max_size=30), st.text(max_size=30))
def test_union_is_the_signature_of_both_texts(first: str, second: str) -> None:
    together = union(sign(first), sign(second))
    whole = [sign(part).tolist() for part in (first, second)]
    assert together.tolist() == [min(pair) for pair in zip(*whole, strict=True)]
    assert (similarity(sign(first), sign(second)) == 1.0) or windows(first) != windows(second)


def test_case_width_and_spacing_do_not_count_but_words_do() -> None:
    assert normalise("  A\tred \n \uff33\uff31\uff35\uff21\uff32\uff25 ") == "a red square"
    assert similarity(sign("A red square"), sign("a  RED square\n")) == 1.0
    assert similarity(sign("yes"), sign("no")) == 0.0
    unspaced = "".join(map(chr, range(0x4E00, 0x4E28)))  # no blanks to split at
    assert 0.5 < similarity(sign(unspaced), sign(unspaced[:20] + unspaced[21:])) < 1.0


def key(**changes: object) -> tuple[bytes, bool]:
    return exact_key(make_row(1, **changes), [b"1"])


def test_exact_keys_ignore_only_order_and_spacing() -> None:
    row = make_row(1)
    same, oriented = exact_key(row, [b"1"])
    swapped = {"response_1": row["response_2"], "response_2": row["response_1"]}
    assert key(question=row["question"].upper() + " ") == (same, oriented)
    assert key(**swapped, preferred=2) == (same, oriented)
    assert key(**swapped, preferred=1) == (same, not oriented) == key(preferred=2)
    assert key(id="other", kind="k", provenance="p") == (same, oriented)
    different = [key(question="?")[0], key(response_1="x")[0], exact_key(row, [b"2"])[0], exact_key(row, [])[0]]
    different += [key(video="v")[0], exact_key(row, [b"1", b"1"])[0], exact_key(row, [b"11"])[0]]
    assert len({same, *different}) == 8


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans()), max_size=12))
def test_exact_duplicates_keep_the_first_of_those_that_agree_and_none_that_contradict(
    rows: list[tuple[bytes, bool]],
) -> None:
    keys, preferred = [key for key, _ in rows], [side for _, side in rows]
    found = {one.row: one for one in exact_duplicates(keys, preferred)}
    for place, (name, side) in enumerate(rows):
        same = [other for other, (key, _) in enumerate(rows) if key == name]
        against = [other for other in same if preferred[other] != side]
        if against:
            assert (found[place].reason, preferred[found[place].of]) == ("contradiction", not side)
        elif same[0] != place:
            assert (found[place].reason, found[place].of) == ("exact duplicate", same[0])
        else:
            assert place not in found
        assert place not in found or keys[found[place].of] == name


def signed(*texts: tuple[str, str, str]) -> np.ndarray:
    return np.array([[sign(text) for text in row] for row in texts])


def test_near_duplicates_in_either_order_are_found_and_the_first_is_kept() -> None:
    q, a, b = sentence("q", 8), sentence("a", 80), sentence("b", 80)
    rows = signed((q, a, b), (q, reworded(b), a), (q, a, sentence("c", 80)), (q, a, reworded(b)))
    found = list(near_duplicates(range(4), rows, [1] * 4, 0.85))
    assert [(one.row, one.of, one.reason) for one in found] == [(1, 0, "near duplicate"), (3, 0, "near duplicate")]
    assert all(0.85 <= one.similarity < 1 for one in found)
    assert [one.row for one in near_duplicates([3, 2, 1], rows, [1] * 4, 0.85)] == [1]  # the first that is asked about


def test_the_same_texts_about_other_pictures_are_not_duplicates() -> None:
    rows = signed(*[(sentence("q"), sentence("a"), sentence("b"))] * 4)
    assert list(near_duplicates(range(4), rows, [(1,), (2,), (1, 2), None], 0.9)) == []
    assert [one.row for one in near_duplicates(range(4), rows, [(1,), (2,), (1,), None], 0.9)] == [2]
    assert [one.row for one in near_duplicates(range(4), rows, [None, (2,), (1,), None], 0.9)] == [3]


def test_a_long_shared_question_does_not_make_short_answers_near() -> None:
    question = sentence("template", 200)
    rows = signed((question, "B", "A"), (question, "C", "A"), (question, "A", "B"))
    assert [(one.row, one.of) for one in near_duplicates(range(3), rows, [1] * 3, 0.9)] == [(2, 0)]


def test_near_duplicates_equal_those_of_a_full_comparison() -> None:
    rng = random.Random(5)
    texts = []
    for number in range(60):
        a, b = sentence(f"a{number % 20}", 60), sentence(f"b{number % 20}", 60)
        texts.append(("q", reworded(a, rng.choice([0, 1, 12])), b))
    rows, media = signed(*texts), [number % 2 for number in range(60)]
    kept: list[int] = []
    expected = []
    for row in range(60):
        twins = [
            other for other in kept
            if media[other] == media[row]
            and similarity(rows[row, 1], rows[other, 1]) >= 0.9
            and similarity(union(*rows[row]), union(*rows[other])) >= 0.9
        ]  # fmt: skip
        if twins:
            expected.append((row, twins[0]))
        else:
            kept.append(row)
    found = [(one.row, one.of) for one in near_duplicates(range(60), rows, media, 0.9)]
    assert sorted(found) == expected
    assert 10 < len(found) < 40


def recoded(image: Image.Image, quality: int, scale: float) -> bytes:
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return encoded(image.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=quality)  # type: ignore[arg-type]


def bars(seed: int) -> Image.Image:
    """A chart: white ground, a few bars."""
    image, rng = Image.new("RGB", (300, 200), "white"), random.Random(seed)
    for place in range(6):
        ImageDraw.Draw(image).rectangle([20 + 45 * place, rng.randint(10, 180), 50 + 45 * place, 190], fill="navy")
    return image


def test_a_reencoded_or_resized_picture_is_near_and_another_is_not() -> None:
    table = ImageTable()
    originals = [*(picture(seed, (320, 240)) for seed in range(12)), *(bars(seed) for seed in range(6))]
    table.add([encoded(image) for image in originals])
    for quality, scale in ((85, 1.0), (60, 1.0), (75, 0.5), (75, 1.7)):
        table.add([recoded(image, quality, scale) for image in originals])
    clusters = table.clusters(bits=32).reshape(5, len(originals))
    assert len(set(clusters[0])) == len(originals)
    assert (clusters == clusters[0]).all()


def test_colors_distinguish_what_a_perceptual_hash_cannot() -> None:
    table = ImageTable()
    squares = [Image.new("RGB", (50, 50), colour) for colour in ("red", "blue", "white", "red")]
    table.add([encoded(image, "JPEG", quality=80 + place) for place, image in enumerate(squares)])
    red, blue, white, again = table.clusters(bits=32)
    assert red == again
    assert len({red, blue, white}) == 3


def test_each_picture_is_decoded_once_and_unreadable_ones_stay_alone() -> None:
    table = ImageTable()
    good, broken = encoded(picture(1)), b"no picture"
    assert table.add([good, broken, good]) == [0, 1, 0]
    assert table.add([b"nor this", good]) == [2, 0]
    assert "not an image" in str(table.fingerprints[1])
    assert table.fingerprints[0].size == (96, 72)  # type: ignore[union-attr]
    assert len(set(table.clusters(bits=32).tolist())) == 3
    assert ImageTable().clusters(bits=32).tolist() == []


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 64), st.booleans())
def test_near_prints_equal_those_of_a_slow_comparison(seed: int, bits: int, upper: bool) -> None:
    rng = np.random.default_rng(seed)
    # More rows than are compared at once, in families a few dozen bits apart.
    hashes = rng.integers(0, 256, (4, 32), dtype=np.uint8)[rng.integers(0, 4, 300)]
    hashes ^= np.packbits(rng.random((300, 256)) < 0.08, axis=1)
    prints = PrintMatrix(hashes, rng.choice(np.array([100, 120, 140], dtype=np.uint8), (300, 1)).repeat(48, axis=1))
    other = prints if upper else PrintMatrix(prints.hashes[:40], prints.colours[:40])
    found = {pair for i, j in near_prints(prints, other, bits, upper=upper) for pair in zip(i, j, strict=True)}
    full = np.unpackbits(prints.hashes, axis=1).astype(int)
    expected = {
        (i, j)
        for i in range(300)
        for j in range(i + 1 if upper else 0, len(other.hashes))
        if np.abs(full[i] - full[j]).sum() <= bits and abs(int(prints.colours[i, 0]) - int(prints.colours[j, 0])) <= 32
    }
    assert found == expected


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=30))
def test_components_equal_those_of_a_graph_walk(edges: list[tuple[int, int]]) -> None:
    components = Components(15)
    for first, second in edges:
        components.join([first], [second])
    labels = components.labels()
    for start in range(15):
        reached, waiting = {start}, [start]
        while waiting:
            node = waiting.pop()
            for a, b in [*edges, *((b, a) for a, b in edges)]:
                if a == node and b not in reached:
                    reached.add(b)
                    waiting.append(b)
        assert {node for node in range(15) if labels[node] == labels[start]} == reached


def test_components_lose_no_edge_when_compacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1_reward.data.duplicates._PAIRS_AT_ONCE", 1)
    components = Components(40)
    for node in range(38):
        components.join([node, node], [node + 1, node])
    assert len(set(components.labels()[:39].tolist())) == 1
    assert components.labels()[39] != components.labels()[0]
    assert len(components._edges) < 38, "nothing was dropped"


def test_a_fingerprint_is_the_same_for_the_same_pixels() -> None:
    image = picture(3)
    again = Image.open(io.BytesIO(encoded(image)))
    first, second = fingerprint(image), fingerprint(again)
    assert (first.hash.tolist(), first.colours.tolist()) == (second.hash.tolist(), second.colours.tolist())
    assert (len(first.hash), len(first.colours)) == (32, 48)

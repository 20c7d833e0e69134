"""One picture, brought to what a generator makes: what is read, refused and said."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from latent_flows.data.picture import MOST_PIXELS, read_picture

RNG = np.random.default_rng(0)


def content(mode="RGB", size=(12, 12), kind="png", **options):
    """Noise as the content of a file, of (width, height)."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    file = io.BytesIO()
    image = Image.fromarray(RNG.integers(0, 256, (*size[::-1], *channels), np.uint8))
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    whole = kind + data
    return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))


def png_of_size(width, height):
    """The header of a PNG that says that it is so large, and next to nothing after it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_picture_of_the_right_size_is_taken_as_it_is(tmp_path):
    pixels = RNG.integers(0, 256, (8, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()):
        found = read_picture(source, (8, 6, 3))
        np.testing.assert_array_equal(found.pixels, np.float32(pixels) / 255)
        assert found.notes == ()


@pytest.mark.parametrize(
    ("crop", "note"),
    [
        ("centre", "the middle 20 x 20 of 40 x 20 pixels, brought to 10 x 10"),
        ("pad", "40 x 20 pixels, with black beside them, brought to 10 x 10"),
        ("stretch", "40 x 20 pixels, stretched, brought to 10 x 10"),
    ],
)
def test_what_is_done_to_the_proportions_is_said(crop, note):
    found = read_picture((content(size=(40, 20))), (10, 10, 3), crop=crop)
    assert found.notes == (note,)
    assert found.pixels.shape == (10, 10, 3)
    assert (found.pixels[0].max() == 0) == (crop == "pad")


def test_only_the_size_is_said_where_proportions_are_kept():
    found = read_picture((content(size=(40, 20))), (10, 20, 3))
    assert found.notes == ("40 x 20 pixels, brought to 20 x 10",)


def test_colours_transparency_and_frames_are_said():
    frames = [Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)) for _ in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:])
    notes = read_picture(file.getvalue(), (8, 8, 3)).notes
    assert notes == ("the first of 3 frames", "grey, for a generator of colours")
    assert read_picture((content("RGBA", (8, 8))), (8, 8, 1)).notes == (
        "black where it is transparent",
        "its colours made grey",
    )
    assert read_picture((content("L", (8, 8))), (8, 8, 1)).notes == ()


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (1, MOST_PIXELS + 1)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded_and_nothing_warns(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"^it has .* make it smaller$"):
            read_picture((png_of_size(*size)), (8, 8, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"# Title", "it is no image"),
        (b"\0" * 100, "it is no image"),
        (b"%PDF-1.4", "it is no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "it is no image"),
        (content()[:60], "truncated"),
        (content()[:200], "truncated|incomplete|broken"),
        (content(size=(64, 64), kind="jpeg")[:300], "it is no image|[Tt]runcated|broken"),
        (png_of_size(8, 8)[:20], "it is no image|[Tt]runcated"),
    ],
)
def test_what_is_no_picture_or_damaged_is_one_line(content, message, tmp_path):
    (tmp_path / "file.png").write_bytes(content)
    for source in ((content), tmp_path / "file.png"):
        with pytest.raises(ValueError, match=message) as refused:
            read_picture(source, (8, 8, 3))
        assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_picture(tmp_path / "nothing.png", (8, 8, 3))
    with pytest.raises(ValueError, match=r"[Ii]s a directory|no image|denied"):
        read_picture(tmp_path, (8, 8, 3))


@pytest.mark.parametrize("shape", [(8,), (8, 8), (8, 8, 2)])
def test_a_generator_of_no_pictures_takes_none(shape):
    with pytest.raises(ValueError, match=r"pictures are for a generator of images .* not of shape"):
        read_picture((content()), shape)

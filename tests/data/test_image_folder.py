"""A folder of images: what is read, what is left out, and what is said of it."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from latent_flows import data
from latent_flows.data import image_folder
from latent_flows.data.image_folder import listed

RNG = np.random.default_rng(0)


def picture(path, size=(12, 12), mode="L", **options):
    """Saves noise as an image of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    Image.fromarray(RNG.integers(0, 256, (*size, *channels), np.uint8)).save(path, **options)
    return path


def only(folder, **options):
    """The images of a folder of one image twice, in [0, 1]; the first."""
    found = data.load(folder, split="all", **options)
    return np.asarray(found.examples(np.arange(found.length))["image"])[0]


@pytest.fixture
def photos(tmp_path):
    """Twenty images of two sizes in two subfolders."""
    for i in range(20):
        picture(tmp_path / "photos" / "ab"[i % 2] / f"{i:02d}.png", (12 + i % 2, 10))
    return tmp_path / "photos"


def test_images_of_several_sizes_are_brought_to_one(photos):
    found = data.load(photos, size=8)
    assert (found.name, found.split, found.image_shape) == ("photos/", "train", (8, 8, 1))
    examples = found.examples(np.arange(found.length))
    assert examples["image"].shape == (found.length, 8, 8, 1)
    assert examples["image"].dtype == np.float32
    assert 0 <= examples["image"].min() < examples["image"].max() <= 1
    assert data.load(photos, size=(6, 4)).image_shape == (6, 4, 1)


def test_subfolders_are_labels(photos):
    found = data.load(photos, size=8, split="all")
    np.testing.assert_array_equal(found.examples(np.arange(20))["label"], [0] * 10 + [1] * 10)
    assert found.label_names == ("a", "b")
    assert data.with_labels(found, (1,)).length == 10
    assert data.with_labels(found, (1,)).labels.tolist() == [1] * 10


def test_subfolders_called_by_numbers_are_these_labels(tmp_path):
    for kind in ("3", "10"):
        for i in range(3):
            picture(tmp_path / kind / f"{i}.png")
    assert sorted({*data.load(tmp_path, split="all").labels.tolist()}) == [3, 10]


def test_images_beside_subfolders_have_no_labels_and_that_is_said(photos):
    picture(photos / "loose.png")
    with pytest.warns(UserWarning, match="1 images lie in no subfolder, so that none has a label"):
        found = data.load(photos, size=8)
    assert "label" not in found.examples(np.arange(2))


def test_the_parts_share_nothing_and_are_all_and_stay_as_files_are_added(photos):
    def names(part):
        return {*image_folder._part(listed(photos).images, part)}

    train, test = names("train"), names("test")
    assert train | test == {*listed(photos).images}
    assert not train & test
    lengths = [data.load(photos, size=8, split=part).length for part in ("train", "test", "all")]
    assert lengths == [len(train), len(test), 20]
    for i in range(200):
        picture(photos / "c" / f"{i}.png")
    assert train <= names("train")
    assert test <= names("test")


def test_decoding_at_once_and_on_demand_give_the_same(photos, monkeypatch):
    rows = np.array([3, 0, 0, 5])
    kept = data.load(photos, size=8)
    monkeypatch.setattr(image_folder, "IN_MEMORY", 0)
    lazy = data.load(photos, size=8)
    assert "_decoded" in str(lazy.examples)
    assert "_decoded" not in str(kept.examples)
    for name, values in kept.examples(rows).items():
        np.testing.assert_array_equal(values, lazy.examples(rows)[name])
    first, again = (next(data.batches(d, batch_size=4, seed=1, start=7)) for d in (kept, lazy))
    np.testing.assert_array_equal(first["image"], again["image"])


def test_nothing_is_written_into_the_folder(photos):
    before = sorted(photos.rglob("*"))
    data.load(photos, size=8)
    assert sorted(photos.rglob("*")) == before


def test_what_is_no_image_or_hidden_is_not_looked_at(photos):
    before = data.load(photos, size=8, split="all").length
    (photos / "notes.txt").write_text("none")
    (photos / "a" / ".DS_Store").write_bytes(b"\0")
    (photos / ".hidden").mkdir()
    picture(photos / ".hidden" / "x.png")
    picture(photos / "__MACOSX" / "x.png")
    (photos / "Thumbs.db").write_bytes(b"\0")
    os.mkfifo(photos / "pipe.png")
    assert data.load(photos, size=8, split="all").length == before


def test_links_are_followed_and_circles_are_not(photos, tmp_path):
    picture(tmp_path / "elsewhere" / "x.png")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "a" / "up").symlink_to(photos)
    (photos / "b" / "one.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    found = listed(photos)
    assert "linked/x.png" in found.images
    assert "b/one.png" in found.images
    assert len(found.images) == 22
    (photos / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(
        ValueError, match=r"1 file cannot be read .*b/gone.png: it is a link to now"
    ):
        data.load(photos, size=8)
    with pytest.warns(UserWarning, match="b/gone.png"):
        assert data.load(photos, size=8, split="all", on_error="skip").length == 22


BROKEN = {
    "empty.png": (b"", "it is empty"),
    "text.png": (b"no image at all", "it is no image"),
    "page.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "it is no image"),
}


@pytest.mark.parametrize("name", [*BROKEN, "truncated.png", "truncated.jpg"])
@pytest.mark.parametrize("lazily", [False, True], ids=["kept", "lazy"])
def test_a_broken_file_is_named_and_refused_or_left_out(photos, name, lazily, monkeypatch):
    if name in BROKEN:
        content, why = BROKEN[name]
        (photos / "a" / name).write_bytes(content)
    else:
        whole = picture(photos / "a" / name, (40, 40))
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        why = ""
    monkeypatch.setattr(image_folder, "IN_MEMORY", 0 if lazily else 2**30)

    def read(**options):
        found = data.load(photos, size=8, split="all", **options)
        return found.length, found.examples(np.arange(found.length))["image"]

    with pytest.raises(ValueError, match=f"1 file cannot be read as an image .*a/{name}: {why}"):
        read()
    with pytest.warns(UserWarning, match=f"1 file cannot be read and left out .*a/{name}"):
        length, images = read(on_error="skip")
    # What is found to be broken only when it is decoded stands for its neighbour then.
    late = lazily and name not in BROKEN
    assert length == (21 if late else 20)
    row = sorted([*listed(photos).images]).index(f"a/{name}")
    if late:
        np.testing.assert_array_equal(images[row], images[row + 1])


def test_of_many_broken_files_a_few_are_named(photos):
    for i in range(8):
        (photos / f"{i}.png").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"8 files cannot .*0.png.*4.png: it is no image; and 3 mor"
    ):
        data.load(photos, size=8)


def test_what_cannot_be_read_in_all_is_refused_even_if_broken_files_are_skipped(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    with (
        pytest.warns(UserWarning, match="3 files"),
        pytest.raises(ValueError, match="none of its 3 images can be read"),
    ):
        data.load(tmp_path, on_error="skip")


def test_one_colour_image_makes_all_rgb_and_grey_can_be_asked_for(photos):
    picture(photos / "a" / "colour.png", mode="RGB")
    assert data.load(photos, size=8).image_shape == (8, 8, 3)
    assert data.load(photos, size=8, colour="grey").image_shape == (8, 8, 1)
    grey = data.load(photos, size=8, split="all").examples(np.array([0]))["image"]
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_every_mode_is_read_with_its_own_white(tmp_path):
    values = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    eight = np.uint8(np.round(values / 257))
    grey = Image.fromarray(eight)
    made = {
        "L": grey,
        "RGB": grey.convert("RGB"),
        "16": Image.fromarray(values),
        "P": grey.convert("P"),
        "CMYK": grey.convert("CMYK"),
        "LA": Image.merge("LA", (grey, grey.point(lambda _: 255))),
    }
    for name, image in made.items():
        for i in range(2):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            image.save(folder / f"{i}.{'tif' if name == 'CMYK' else 'png'}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = only(folder, colour="grey")
        np.testing.assert_allclose(found[..., 0], eight / 255, atol=2.1 / 255, err_msg=name)
    assert data.load(tmp_path / "P").image_shape == (8, 8, 1)
    assert data.load(tmp_path / "16").image_shape == (8, 8, 1)
    one = Image.fromarray(np.eye(8, dtype=bool))
    for i in range(2):
        one.save(tmp_path / "L" / f"{i}.png")
    np.testing.assert_array_equal(only(tmp_path / "L")[..., 0], np.eye(8))


def test_numbers_of_32_bits_have_no_known_white(tmp_path):
    for i in range(2):
        Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / f"{i}.tif")
    with pytest.raises(ValueError, match="32 bits, whose white nobody knows; save it with 8 or 16"):
        data.load(tmp_path)


def test_what_is_transparent_lies_over_black_and_that_is_said(tmp_path):
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[:4, :, 3] = 0
    pixels[4:, :, 3] = 255
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    with pytest.warns(UserWarning, match="what is transparent in 2 images is laid over black"):
        found = only(tmp_path)
    np.testing.assert_allclose(found[:4], 0)
    np.testing.assert_allclose(found[4:], 200 / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_an_image_is_upright_as_its_exif_says(tmp_path, kind):
    left = np.zeros((8, 16), np.uint8)
    left[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it
    options = {"jpg": {"quality": 95}, "png": {}, "tif": {"compression": "tiff_lzw"}}[kind]
    for i in range(2):
        Image.fromarray(left).save(tmp_path / f"{i}.{kind}", exif=exif, **options)
    found = only(tmp_path)
    assert found.shape == (16, 8, 1)
    assert found[:3].mean() > 0.9
    assert found[5:].mean() < 0.1


def test_of_an_animation_the_first_frame_is_taken_and_that_is_said(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (255, 0)]
    for i in range(2):
        frames[0].save(tmp_path / f"{i}.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="of 2 animated files the first frame is taken"):
        assert only(tmp_path, colour="grey").min() == 1


def test_the_crop_is_of_the_middle_or_all_of_it_or_a_margin_is_black(tmp_path):
    wide = np.zeros((8, 32), np.uint8)
    wide[:, 12:20] = 255
    for i in range(2):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    centre, pad, stretch = (
        only(tmp_path, size=8, crop=c)[..., 0] for c in ("centre", "pad", "stretch")
    )
    np.testing.assert_array_equal(centre, 1)
    np.testing.assert_array_equal(pad[[0, 1, 2, 5, 6, 7]], 0)
    assert pad[3:5, 3:5].min() > 0.5
    np.testing.assert_allclose(stretch[0], stretch[7], atol=1e-6)
    assert stretch[0, 3] > 0.5 > stretch[0, 0]


def test_a_large_jpeg_is_nearly_the_same_when_it_is_decoded_at_a_fraction(tmp_path):
    y, x = np.mgrid[:512, :768] / 768
    smooth = np.uint8(255 * (0.5 + 0.5 * np.sin(5 * x) * np.cos(4 * y)))
    for i in range(2):
        Image.fromarray(smooth).save(tmp_path / f"{i}.jpg", quality=95)
    expected = np.asarray(
        Image.fromarray(smooth).crop((128, 0, 640, 512)).resize((16, 16), Image.Resampling.BOX)
    )
    np.testing.assert_allclose(only(tmp_path, size=16)[..., 0], expected / 255, atol=0.03)


def test_a_folder_that_holds_too_little_says_what_it_holds(tmp_path):
    def refused():
        with pytest.raises(ValueError, match=f"^{tmp_path}") as caught:
            data.load(tmp_path)
        return str(caught.value)

    assert "holds no images (.apng, " in refused()
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.npz").write_bytes(b"")
    assert "holds files (1 .npz, 1 .txt), but none of an image" in refused()
    assert "name the .npz file itself" in refused()
    picture(tmp_path / "one.png")
    assert "holds one image, one.png: at least two are needed" in refused()


def test_images_of_several_sizes_need_one(photos):
    with pytest.raises(ValueError, match="2 sizes, from 12 x 10 to 13 x 10 pixels: give the size"):
        data.load(photos)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "center"}, "unknown crop 'center' .did you mean 'centre'"),
        ({"on_error": "ignore"}, "unknown on_error 'ignore'"),
        ({"colour": "gray"}, "unknown colour 'gray' .did you mean 'grey'"),
        ({"split": "valid"}, "unknown split 'valid'"),
        ({"size": 0}, "size must be a positive number of pixels, got 0"),
        ({"size": (4, -1)}, "size must be a positive number of pixels"),
    ],
)
def test_wrong_settings_say_what_was_expected(photos, options, message):
    with pytest.raises(ValueError, match=message):
        data.load(photos, **{"size": 8, **options})


def test_a_path_is_told_from_a_name(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos.rename(tmp_path / "sprites")
    assert data.load("sprites", size=16).name == "sprites"
    assert data.load("./sprites", size=16).name == "sprites/"
    (tmp_path / "sprites").rename(tmp_path / "mine")
    assert data.load("mine", size=8).name == "mine/"
    assert data.locate("mine") == str(tmp_path / "mine")
    assert data.locate("sprites") == "sprites"
    with pytest.raises(
        ValueError, match=r"there is no folder of images, and no file, at .*nowhere"
    ):
        data.load("./nowhere")
    with pytest.raises(ValueError, match="is one image: name the folder"):
        data.load(picture(tmp_path / "cat.png"))
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"table.csv is no data set: name a folder of images, or"):
        data.load("table.csv")
    with pytest.raises(ValueError, match=r"crop, on_error is for folders .* digits is none"):
        data.load("digits", crop="pad", on_error="skip")

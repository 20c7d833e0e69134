"""A file of arrays: what its numbers may mean, and what is said where that is open."""

import pickle

import numpy as np
import pytest

from latent_flows import data

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 6, 5), np.uint8)
COLOUR = RNG.integers(0, 256, (40, 6, 5, 3), np.uint8)
VECTORS = RNG.normal(size=(40, 7)) * 100


def saved(folder, array, name="x.npy"):
    np.save(folder / name, array)
    return folder / name


def saved_together(folder, **arrays):
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def everything(path, **options):
    found = data.load(path, split="all", **options)
    return found, found.examples(np.arange(found.length))


def refused(path, **options):
    with pytest.raises(ValueError, match=f"^{path}") as caught:
        data.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["npy", "image", "x"])
def test_colour_images_come_out_as_they_are(tmp_path, kind):
    path = saved(tmp_path, COLOUR) if kind == "npy" else saved_together(tmp_path, **{kind: COLOUR})
    found, examples = everything(path)
    assert (found.name, found.image_shape) == (path.name, (6, 5, 3))
    assert examples["image"].dtype == np.float32
    np.testing.assert_allclose(examples["image"], COLOUR / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize(
    "array",
    [
        GREY > 100,
        (GREY / 255).astype(np.float16),
        GREY / 255,
        (GREY / 255).astype(">f4"),
        np.asfortranarray(GREY / 255),
        GREY / 255 * (1 + 1e-5),
    ],
    ids=["bool", "float16", "float64", "big-endian", "fortran", "rounding"],
)
def test_what_is_in_the_unit_interval_is_taken(tmp_path, array):
    with pytest.warns(
        UserWarning, match=r"of shape \(40, 6, 5\) is taken for grey images \[n, h, w"
    ):
        _, examples = everything(saved(tmp_path, array))
    assert examples["image"].dtype == np.float32
    np.testing.assert_allclose(examples["image"][..., 0], array.astype(np.float32), atol=1e-4)
    assert examples["image"].max() <= 1


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (GREY.astype(np.int64), "int64 from 0 to 255, .* save x.astype.np.uint8"),
        (GREY.astype(np.float32), "float32 from 0 to 255, .* save x / 255"),
        (GREY / 127.5 - 1, "float64 from -1 to 1, .* save .x . 1. / 2"),
        (GREY.astype(np.uint16) * 257, "uint16 from 0 to 65535, .* save x / 65535"),
        (VECTORS.reshape(10, 4, 7), "float64 from .* save .x - x.min... / .x.max.. - x.min.."),
        ((GREY > 9).astype(np.uint8), "uint8 from 0 to 1, .* save x.astype.bool."),
        ((GREY > 9).astype(np.int32), "int32 from 0 to 1, .* save x.astype.bool."),
        (np.zeros((9, 4, 4), np.uint8), "all of x is 0, so there is nothing to learn"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*grey images")
def test_numbers_whose_white_is_open_are_refused_with_how_to_scale_them(tmp_path, array, words):
    path = saved(tmp_path, array)
    with pytest.raises(ValueError, match=words):
        data.load(path)
    remedy = words.rpartition("save ")[2]
    if "nothing" not in words and "min" not in remedy:
        # What is said is enough.
        x = array
        fixed = {"/ 255": x / 255, "bool": x.astype(bool), "uint8": x.astype(np.uint8)}
        fixed |= {"65535": x / 65535, ". 1": (x.astype(float) + 1) / 2}
        data.load(saved(tmp_path, next(v for k, v in fixed.items() if k in remedy)))


def test_rows_that_are_not_finite_are_counted_and_the_first_is_named(tmp_path):
    array = VECTORS.copy()
    array[[7, 30], 2] = np.nan, np.inf
    said = refused(saved(tmp_path, array))
    assert "2 rows hold NaN or infinity in x, first row 7: leave such rows out" in said
    kept = array[np.isfinite(array.reshape(len(array), -1)).all(1)]
    assert data.load(saved(tmp_path, kept), split="all").length == 38


def test_channels_first_are_recognised_and_said(tmp_path):
    path = saved_together(tmp_path, image=np.moveaxis(COLOUR, 3, 1))
    with pytest.warns(
        UserWarning, match=r"\(40, 3, 6, 5\) is taken for \[n, c, h, w\], and turned"
    ):
        found, examples = everything(path)
    assert found.image_shape == (6, 5, 3)
    np.testing.assert_allclose(examples["image"], COLOUR / np.float32(255), rtol=1e-6)


def test_many_channels_last_are_taken_and_first_are_asked_about(tmp_path):
    many = RNG.random((9, 16, 16, 7))
    assert everything(saved(tmp_path, many))[0].image_shape == (16, 16, 7)
    assert "by np.moveaxis(x, 1, 3)" in refused(saved(tmp_path, np.moveaxis(many, 3, 1)))


def test_rows_of_numbers_are_vectors(tmp_path):
    found, examples = everything(saved(tmp_path, VECTORS))
    assert found.image_shape == (7,)
    np.testing.assert_allclose(examples["image"], VECTORS, rtol=1e-6)
    assert everything(saved(tmp_path, RNG.integers(-5, 900, (20, 3))))[0].image_shape == (3,)
    assert "vectors, which have neither a size" in refused(saved(tmp_path, VECTORS), size=8)
    assert "beyond float32" in refused(saved(tmp_path, VECTORS * 1e40))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.arange(9.0), "one number a row is x[:, None]"),
        (np.zeros((2, 2, 2, 2, 2)), "expected vectors [n, d] or images [n, h, w]"),
        (np.zeros((0, 4)), "at least two rows are needed"),
        (np.ones((1, 4)), "at least two rows are needed"),
        (np.zeros((5, 0)), "none that is empty"),
        (np.ones((4, 4), complex), "holds complex128, not real numbers"),
        (np.array([["a", "b"]] * 4), "not real numbers"),
        (np.zeros(4, [("a", "f4"), ("b", "f4")]), "not real numbers"),
        (np.zeros((4, 4), "datetime64[s]"), "not real numbers"),
    ],
)
def test_what_can_be_no_samples_is_refused(tmp_path, array, words):
    assert words in refused(saved(tmp_path, array))


def test_labels_and_factors_come_with_their_names(tmp_path):
    kinds = np.array(["cat", "ant"])[np.arange(40) % 2]
    path = saved_together(
        tmp_path,
        image=COLOUR,
        label=kinds,
        factors=VECTORS[:, :2],
        factor_names=np.array(["size", "angle"]),
    )
    found, examples = everything(path)
    assert found.label_names == ("ant", "cat")
    np.testing.assert_array_equal(examples["label"], (np.arange(40) + 1) % 2)
    assert found.factor_names == ("size", "angle")
    np.testing.assert_allclose(examples["factors"], VECTORS[:, :2], rtol=1e-6)
    assert data.with_labels(found, (1,)).length == 20
    for label in (np.arange(40) % 3, (np.arange(40) % 3).astype(float)[:, None]):
        found, examples = everything(saved_together(tmp_path, x=VECTORS, label=label))
        np.testing.assert_array_equal(examples["label"], np.arange(40) % 3)
        assert found.label_names == ()
    unnamed = everything(saved_together(tmp_path, x=VECTORS, factors=VECTORS))[0]
    assert unnamed.factor_names[:2] == ("factor 0", "factor 1")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"label": np.arange(39)}, "label has shape (39,), expected one for each of the 40 rows"),
        ({"label": np.eye(40)}, "take label.argmax(1)"),
        ({"label": np.arange(40) - 1}, "expected whole numbers from 0 on, or texts"),
        ({"label": np.arange(40) / 2}, "expected whole numbers from 0 on, or texts"),
        ({"label": np.full(40, np.nan)}, "expected whole numbers from 0 on, or texts"),
        ({"factors": np.ones((39, 2))}, "expected numbers of shape (40, f)"),
        ({"factors": np.ones(40)}, "expected numbers of shape (40, f)"),
        ({"factors": np.full((40, 2), np.inf)}, "factors hold numbers that are not finite"),
        (
            {"factors": np.ones((40, 2)), "factor_names": np.array(["a"])},
            "factor_names are <U1 of shape (1,), expected 2 texts",
        ),
        ({"factor_names": np.array(["a"])}, "holds factor_names, but no factors"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused(tmp_path, arrays, words):
    assert words in refused(saved_together(tmp_path, x=VECTORS, **arrays))


def test_an_npz_names_what_it_holds(tmp_path):
    said = refused(saved_together(tmp_path, arr_0=GREY, y=VECTORS))
    assert "holds arr_0, y; the array of samples is called image or x there" in said
    assert "holds both image and x" in refused(saved_together(tmp_path, image=GREY, x=VECTORS))
    assert "has no height and width" in refused(saved_together(tmp_path, image=VECTORS))
    path = saved_together(tmp_path, x=VECTORS, labels=np.arange(40))
    with pytest.warns(UserWarning, match=r"not used: labels .known are image, x, label, factors"):
        assert "label" not in everything(path)[1]


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def test_pickled_objects_are_never_loaded(tmp_path):
    objects = np.array([Trap(), Trap()], object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    assert "Python objects, which are never loaded" in refused(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", x=objects)
    assert "Python objects, which are never loaded" in refused(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", x=VECTORS, label=objects)
    assert "Python objects, which are never loaded" in refused(tmp_path / "x.npz")
    (tmp_path / "x.npy").write_bytes(pickle.dumps(Trap()))
    assert "cannot be read" in refused(tmp_path / "x.npy") or "objects" in refused(
        tmp_path / "x.npy"
    )


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(tmp_path, name, share):
    path = saved(tmp_path, COLOUR) if name == "x.npy" else saved_together(tmp_path, x=COLOUR)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "cannot be read" in refused(path)


def test_a_row_stays_in_its_part_as_rows_are_appended(tmp_path):
    many = RNG.normal(size=(500, 3))
    before = data.load(saved(tmp_path, many[:200]), split="test")
    rows = before.examples(np.arange(before.length))["image"]
    after = data.load(saved(tmp_path, many), split="test")
    np.testing.assert_array_equal(after.examples(np.arange(before.length))["image"], rows)
    assert after.length == pytest.approx(50, abs=15)
    assert after.length + data.load(tmp_path / "x.npy").length == 500
    assert data.load(saved(tmp_path, many[:2]), split="test").length == 1


def test_size_and_colours_can_be_asked_for(tmp_path):
    path = saved(tmp_path, COLOUR)
    found, examples = everything(path, size=12, colour="grey")
    assert examples["image"].shape == (40, *found.image_shape) == (40, 12, 12, 1)
    plain = everything(path, colour="grey")[1]["image"][..., 0]
    np.testing.assert_allclose(plain, COLOUR @ [0.299, 0.587, 0.114] / 255, atol=1e-5)
    grey = saved(tmp_path, GREY[..., None])
    assert everything(grey, colour="rgb", size=(4, 3))[1]["image"].shape == (40, 4, 3, 3)


def test_rows_of_an_npy_are_read_as_they_are_asked_for(tmp_path):
    found = data.load(saved(tmp_path, VECTORS), split="all")
    batch = next(data.batches(found, batch_size=8, seed=0))
    assert batch["image"].shape == (8, 7)
    path = tmp_path / "x.npy"
    content = bytearray(path.read_bytes())
    content[-VECTORS.nbytes :] = (VECTORS * 2).tobytes()
    with open(path, "rb+") as file:
        file.write(content)
    np.testing.assert_allclose(found.examples(np.array([3]))["image"], 2 * VECTORS[[3]], rtol=1e-6)

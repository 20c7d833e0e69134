"""A generator of one's own: functions, their checkpoints and settings, and what is refused."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file

from latent_flows.generators import GeneratorSpec, load_generator

OWN = """
import jax
import jax.numpy as jnp
import numpy as np

def good(z):
    return jnp.full((4, 4, 1), 0.5) + 0.01 * z.sum()

def scaled(params, z):
    return params["deep"]["gain"] * jnp.ones((4, 4, 1)) + 0.01 * z.sum()

def vector(z):
    return jnp.concatenate([z, -z])

def sequence(z):
    return jnp.outer(jnp.sin(jnp.arange(1.0, 8.0)), z)

def spectral(z):
    return jnp.ones((4, 4, 11)) * jnp.tanh(z.sum())

def film(z):
    return jnp.ones((5, 4, 4, 3)) * jax.nn.sigmoid(z.sum())

def integers(z):
    return jnp.ones((4, 4, 1), int)

def several(z):
    return good(z), good(z)

def number(z):
    return z.sum()

def nothing(z):
    return jnp.ones((4, 0, 1)) * z[0]

def endless(z):
    return good(z) / 0

def blank(z):
    return jnp.full((4, 4, 1), 0.5) + 0 * z.sum()

def stopped(z):
    return jax.lax.stop_gradient(good(z))

def rounded(z):
    return jnp.round(255 * good(z)) / 255

def rooted(z):
    return good(z) + 0.01 * jnp.sqrt(jnp.zeros(())) * jnp.sqrt(0 * z[0])

def sized(z):
    return jnp.full((4, 4, 1), 0.5) + 0.01 * z[0]

def great(z):
    return jnp.ones((100_000, 100_000, 3)) * z[0]

def symmetric(z):
    return jnp.tanh(jnp.linspace(-3, 3, 16)).reshape(4, 4, 1) + 1e-5 * z.sum()

def host(z):
    return jnp.asarray(np.asarray(z))

def leaving(z):
    raise SystemExit(3)

three = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def load(name, **settings):
    return load_generator(GeneratorSpec(f"own.py:{name}", **{"latent_dim": 3, **settings}))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("good", (4, 4, 1)),
        ("vector", (6,)),
        ("sequence", (7, 3)),
        ("spectral", (4, 4, 11)),
        ("film", (5, 4, 4, 3)),
    ],
)
def test_a_sample_is_an_image_a_vector_a_sequence_or_anything_else(name, shape, own):
    found = load(name)
    assert (found.event_shape, found.latent_dim, found.encode) == (shape, 3, None)
    z = found.prior(jax.random.key(0))
    assert jax.jit(found.decode)(z).shape == shape


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("god", {}, "own.py has no 'god'; did you mean 'good'?"),
        ("three", {}, "own.py:three is a int, no function"),
        ("scaled", {}, "with generator.checkpoint it gets (params, z)"),
        ("integers", {}, "gives int32, not floating-point numbers"),
        ("several", {}, "gives tuple, not an array"),
        ("number", {}, "gives shape (), in which there is nothing to change"),
        ("nothing", {}, "gives shape (4, 0, 1), in which there is nothing to change"),
        ("host", {}, "fails on a latent of shape (3,): TracerArrayConversionError"),
        ("leaving", {}, "fails on a latent of shape (3,): RuntimeError: it calls SystemExit(3)"),
        ("good", {"latent_dim": None}, "or the function an attribute latent_dim"),
        ("good", {"label": 2}, "are for published generators"),
        ("good", {"space": "w"}, "are for published generators"),
        ("blank", {}, "own.py:blank makes the same sample of every latent"),
        ("endless", {}, "own.py:endless makes samples that are not finite"),
        ("stopped", {}, "makes samples whose derivatives by the latent are zero"),
        ("rounded", {}, "makes samples whose derivatives by the latent are zero"),
        ("rooted", {}, "makes samples whose derivatives are not finite"),
        ("symmetric", {}, "makes pixels from -0.995 to 0.995, far beyond generator.range 0 1"),
        ("good", {"checkpoint": "none.npz"}, "none.npz does not exist"),
        ("good", {"checkpoint": "own.py"}, "must be an orbax folder, .npz or .safetensors"),
        ("good", {"checkpoint": "."}, "cannot be read"),
        (
            "great",
            {},
            "a few samples of own.py:great (4 of (100000, 100000, 3)) takes at least 447 GiB",
        ),
        ("great", {}, "GiB are free; make them smaller"),
    ],
)
def test_what_makes_no_samples_is_one_line(name, settings, message, own):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load(name, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"range": (1.0, 0.0)}, "generator.range must be black and white, got (1.0, 0.0)"),
        ({"truncation": 0.0}, "generator.truncation must be positive, got 0.0"),
        ({"label": -1}, "generator.label must not be negative, got -1"),
        ({"latent_dim": 0}, "generator.latent_dim must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GeneratorSpec("own.py:good", **settings)


@pytest.mark.parametrize("said", ["four", 0, -3, True, 2.5, float("nan"), 2**40, [4], (1, 2)])
def test_dimensions_that_are_no_number_of_them_are_refused(said, own):
    own.write_text(OWN + f"sized.latent_dim = {said!r}\n".replace("nan", "float('nan')"))
    with pytest.raises(ValueError, match=r"own.py:sized: latent_dim must be a whole number from 1"):
        load("sized", latent_dim=None)


def test_dimensions_that_differ_are_refused_and_equal_ones_are_not(own):
    own.write_text(OWN + "sized.latent_dim = np.int64(4)\nscaled.latent_dim = jnp.array(4)\n")
    with pytest.raises(ValueError, match=r"differ: 2 by generator.latent_dim, 4 by own.py:sized"):
        load("sized", latent_dim=2)
    np.savez("params.npz", **{"deep/gain": np.array(0.25), "latent_dim": np.array(3)})
    with pytest.raises(ValueError, match=r"differ: 4 by own.py:scaled, 3 by params.npz"):
        load("scaled", checkpoint="params.npz", latent_dim=None)
    assert load("sized", latent_dim=4).latent_dim == 4


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.at.all:f", "nowhere.at.all cannot be imported (ModuleNotFoundError"),
        ("broken.py:f", "broken.py cannot be imported (ZeroDivisionError: division by zero)"),
        ("leaving.py:f", "leaving.py cannot be imported (SystemExit: 2)"),
        ("missing.py:f", "missing.py does not exist"),
        ("folder.py:f", "folder.py is a folder, not a file with a function"),
    ],
)
def test_a_path_that_does_not_import_says_why(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("1 / 0\n")
    Path("leaving.py").write_text("raise SystemExit(2)\n")
    Path("folder.py").mkdir()
    with pytest.raises(ValueError, match=re.escape(message)):
        load_generator(path)


# --- checkpoints ---


def truncated(place):
    np.savez(place, gain=np.ones(1000))
    place.write_bytes(place.read_bytes()[:-300])


def damaged(place):
    np.savez_compressed(place, gain=np.arange(1000))
    content = bytearray(place.read_bytes())
    content[60:400] = bytes(340)
    place.write_bytes(content)


DAMAGED = {
    "truncated": (truncated, "cannot be read"),
    "damaged": (damaged, "cannot be read"),
    "a folder": (Path.mkdir, "cannot be read"),
    "empty": (Path.touch, "cannot be read"),
    "objects": (lambda place: np.savez(place, w=np.array([{}], object)), "cannot be read"),
    "texts": (lambda place: np.savez(place, w=np.array(["a"])), "holds <U1, not numbers alone"),
    "an array that holds others": (
        lambda place: np.savez(place, **{"w": np.ones(1), "w/b": np.ones(1)}),
        "w/b lies in w, which is an array itself",
    ),
    "others in an array": (
        lambda place: np.savez(place, **{"w/b": np.ones(1), "w": np.ones(1)}),
        "w is an array, and others lie in it",
    ),
}
"""Checkpoints that nobody can read, and what the message says."""


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_checkpoint_that_cannot_be_read_is_one_line(kind, suffix, own):
    make, message = DAMAGED[kind]
    make(own.parent / "params.npz")
    if suffix == "safetensors":
        Path("params.npz").rename("params.safetensors")
        message = "cannot be read"
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load("scaled", checkpoint=f"params.{suffix}")
    assert str(error.value).startswith("generator.checkpoint: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "orbax"])
def test_every_kind_of_checkpoint_gives_the_same_samples(kind, own):
    flat = {"deep/gain": np.array(0.25, np.float32), "latent_dim": np.array(2)}
    place = own.parent / f"params.{kind}"
    if kind == "npz":
        np.savez(place, **flat)
    elif kind == "safetensors":
        save_file(flat, place)
    else:
        with ocp.StandardCheckpointer() as writer:
            writer.save(
                place, {"deep": {"gain": flat["deep/gain"]}, "latent_dim": flat["latent_dim"]}
            )
    found = load("scaled", checkpoint=str(place), latent_dim=None)
    assert (found.latent_dim, found.event_shape) == (2, (4, 4, 1))
    np.testing.assert_allclose(found(jnp.ones(2)), 0.27, rtol=1e-6)


# --- how it is computed ---


def test_a_function_computes_in_the_dtype_asked_for(own):
    np.savez("params.npz", **{"deep/gain": np.array(0.3, np.float32)})
    half = load("scaled", checkpoint="params.npz", latent_dim=2, dtype="bfloat16").decode
    image = half(jnp.zeros(2))
    assert image.dtype == jnp.float32
    # 0.3 has no exact form in eight bits.
    assert float(image[0, 0, 0]) == float(jnp.bfloat16(0.3)) != float(jnp.float32(0.3))
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_numbers_of_ones_own_are_not_narrowed_in_silence(own):
    message = re.escape("own.py:symmetric makes float32 of latents in bfloat16")
    with pytest.raises(ValueError, match=message):
        load("symmetric", latent_dim=1, range=(-1.0, 1.0), dtype="bfloat16")


def test_the_range_of_the_images_becomes_black_and_white(own):
    image = load("symmetric", latent_dim=1, range=(-1.0, 1.0))(jnp.zeros(1))
    np.testing.assert_allclose([image.min(), image.max()], [0.0025, 0.9975], atol=1e-4)


# --- a frozen one ---


FROZEN = """
from latent_flows.generators import freeze

encoded = freeze(vector, 3, name="mine", encode=lambda x: (x[:3], jnp.ones(3)), dataset="digits")
"""


def test_a_frozen_generator_of_ones_own_is_taken_with_its_encoder(own):
    own.write_text(OWN + FROZEN)
    found = load("encoded", latent_dim=None)
    assert (found.name, found.dataset) == ("mine", "digits")
    z = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(found.encode(found(z))[0], z)
    with pytest.raises(ValueError, match=r"is a FrozenGenerator, which says all of itself"):
        load("encoded", prior="sphere")

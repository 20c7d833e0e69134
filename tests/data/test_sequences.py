"""Sequences start at the image, change one factor only, and say what they cannot do."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import data
from latent_flows.data import grids, scenes, sprites
from latent_flows.data.grids import Grid, rows_by_factors
from latent_flows.data.sequences import load_sequences, sequences


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_a_digit_is_red_at_first_grows_to_its_published_size_and_ends_in_another_colour(digits):
    found = sequences(digits, ("scale", "rotation", "hue"))
    example = jnp.zeros((8, 8, 1)).at[3:5, 3:5].set(1.0)
    frames = [jax.jit(found.sequence, static_argnums=1)(example, k) for k in range(3)]
    for sequence in frames:
        assert sequence.shape == (9, 8, 8, 3)
        np.testing.assert_array_equal(sequence[0], jnp.pad(example, ((0, 0), (0, 0), (0, 2))))
        assert 0 <= sequence.min() <= sequence.max() <= 1
    # Areas go with the square of the factor 1.0, 1.1, ..., 1.8.
    areas = np.asarray(frames[0].sum((1, 2, 3)))
    np.testing.assert_allclose(areas[[0, 5, 8]], 4 * np.array([1, 1.5, 1.8]) ** 2, rtol=0.05)
    np.testing.assert_allclose(frames[2].sum((1, 2))[-1], [0, 0, 4], atol=1e-5)  # blue
    # The centre is turned, not moved.
    np.testing.assert_allclose(frames[1][:, ::-1, ::-1], frames[1], atol=1e-5)


def test_a_traced_factor_gives_what_a_known_one_gives(digits):
    found = sequences(digits, ("scale", "rotation"), frames=3)
    example = jnp.asarray(digits.examples(np.array([0]))["image"][0])
    traced = jax.jit(found.sequence)(example, jnp.array(1))
    np.testing.assert_allclose(traced, found.sequence(example, 1), atol=1e-6)


@pytest.mark.parametrize("name", ["x", "y", "scale"])
def test_a_factor_of_a_sprite_goes_up_by_half_its_range_and_no_other_moves(name):
    found = load_sequences("sprites", ("x", "y", "scale"), size=48)
    examples = found.dataset.examples(np.arange(0, 60000, 5000))["example"]
    k = found.factors.index(name)
    ends = jax.jit(jax.vmap(lambda e: found.sequence(e, k)[jnp.array([0, 8])]))(examples)
    moments = jax.vmap(jax.vmap(sprites.moments))(ends)
    start, end = (np.asarray(part) for part in zip(*(m.T for m in moments[:3]), strict=True))
    expected = {"x": [0.25, 0, 0], "y": [0, 0.25, 0], "scale": [0, 0, 0]}[name]
    if name == "scale":
        ratio = end[2] / start[2]
        scale = np.asarray(examples[:, 1])
        np.testing.assert_allclose(ratio, (scale + 0.25) / scale, rtol=0.01)
        np.testing.assert_allclose(end[:2], start[:2], atol=2e-3)
    else:
        np.testing.assert_allclose(end - start, np.array(expected)[:, None] + 0 * start, atol=2e-3)


def test_every_start_leaves_room_for_a_whole_sequence():
    found = load_sequences("sprites", sprites.Factors._fields, size=8)
    examples = found.dataset.examples(np.arange(0, found.dataset.length, 997))["example"]
    low, high = np.asarray(examples.min(0)), np.asarray(examples.max(0))
    np.testing.assert_allclose(low[[0, 1, 3, 4]], [0, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(high[[0, 1, 3, 4]], [1, 0.75, 0.5, 0.5], atol=1e-6)
    # A square becomes an ellipse, through what lies between.
    shape = jax.jit(found.sequence, static_argnums=1)(jnp.array([0.0, 1.0, 0.0, 0.5, 0.5]), 0)
    ellipse = sprites.render(sprites.Factors(1.0, 1.0, 0.0, 0.5, 0.5), size=8)
    np.testing.assert_allclose(shape[-1], ellipse, atol=1e-6)


@pytest.mark.slow
def test_a_hue_of_a_scene_goes_two_thirds_of_a_turn_and_no_other_factor_moves():
    found = load_sequences("scenes", ("wall_hue", "scale"), size=32)
    examples = found.dataset.examples(np.arange(0, 400_000, 100_000))["example"]
    ends = jax.jit(jax.vmap(lambda e: found.sequence(e, 0)[jnp.array([0, 8])]))(examples)
    measured = jax.jit(jax.vmap(jax.vmap(scenes.MEASURES.measure)))(ends)
    moved = np.asarray(measured[:, 1] - measured[:, 0])
    np.testing.assert_allclose(moved[:, 1] % 1, 2 / 3, atol=1e-5)
    # What is mixed at the outline has another hue.
    np.testing.assert_allclose(np.delete(moved, (1, 4), axis=1), 0, atol=0.03)
    assert np.asarray(examples[:, 3]).max() <= 1.0


def test_frames_are_differentiable_in_time():
    found = load_sequences("sprites", ("x",), size=16)
    example = jnp.asarray(found.dataset.examples(np.array([0]))["example"][0])
    at = partial(found.frame, example, 0)
    _, speed = jax.jit(lambda t: jax.jvp(at, (t,), (1.0,)))(4.0)
    difference = (at(4.01) - at(3.99)) / 0.02
    np.testing.assert_allclose(speed, difference, atol=5e-3)
    assert float(jnp.abs(speed).max()) > 0.05


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (("rotatoin",), r"unknown factor of digits 'rotatoin' .did you mean 'rotation'"),
        ((), "at least one name"),
        (("hue", "hue"), "none twice"),
    ],
)
def test_factors_that_are_not_there_are_refused(digits, factors, message):
    with pytest.raises(ValueError, match=message):
        sequences(digits, factors)


def test_other_mistakes_are_refused(digits):
    with pytest.raises(ValueError, match="did you mean 'scale'"):
        load_sequences("sprites", ("scal",))
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        sequences(digits, ("hue",), frames=1)
    with pytest.raises(ValueError, match=r"k must lie in \[0, 1\), got 1"):
        sequences(digits, ("zoom",)).frame(jnp.ones((8, 8, 1)), 1, 0.0)
    four = data.from_arrays("four", image=np.zeros((3, 4, 4, 4)))
    with pytest.raises(ValueError, match="4 channels"):
        sequences(four, ("hue",))


# --- sets that hold every combination ---

TINY = Grid(("label_size", "label_place"), ("size", "place"), (3, 5))


@pytest.fixture
def tiny(monkeypatch):
    """Shuffled on disk; an image holds its own factors."""
    monkeypatch.setattr(grids, "GRIDS", {"tiny": TINY})
    monkeypatch.setattr("latent_flows.data.sequences.GRIDS", {"tiny": TINY})
    size, place = (
        axis.ravel()[np.random.default_rng(0).permutation(15)]
        for axis in np.meshgrid(np.arange(3), np.arange(5), indexing="ij")
    )
    images = np.stack([size, place], -1).reshape(15, 1, 2, 1).astype(np.float32)
    return data.from_arrays("tiny", image=images, label_size=size, label_place=place)


def test_sequences_are_looked_up_where_all_combinations_are_held(tiny):
    found = sequences(tiny, ("place", "size"), frames=3)
    examples = found.dataset.examples(np.arange(15))["example"]
    assert examples.shape == (15, 2, 3, 1, 2, 1)
    for example in examples:
        place, size = (np.asarray(found.sequence(jnp.asarray(example), k))[..., 0] for k in (0, 1))
        # Half of the 5 places is 2 steps, half of the 3 sizes is 1; a half step is rounded to even.
        np.testing.assert_array_equal(place[:, 0, 1] - place[0, 0, 1], [0, 1, 2])
        np.testing.assert_array_equal(size[:, 0, 0] - size[0, 0, 0], [0, 0, 1])
        np.testing.assert_array_equal(place[:, 0, 0], place[0, 0, 0])
        np.testing.assert_array_equal(size[:, 0, 1], size[0, 0, 1])
        np.testing.assert_array_equal(place[0], size[0])
    assert len(np.unique(examples[:, 0, 0], axis=0)) == 6  # 2 sizes, 3 places leave room


def test_a_grid_that_is_not_whole_is_refused(tiny):
    part = data.from_arrays("tiny", label_size=np.zeros(15, int), label_place=np.zeros(15, int))
    with pytest.raises(ValueError, match="twice"):
        rows_by_factors(part, TINY)
    with pytest.raises(ValueError, match=r"all 15 combinations .* got 3"):
        rows_by_factors(data.from_arrays("tiny", image=np.zeros((3, 1, 1, 1))), TINY)
    with pytest.raises(ValueError, match="no label_size, label_place"):
        rows_by_factors(data.from_arrays("tiny", image=np.zeros((15, 1, 1, 1))), TINY)


def test_the_known_grids_are_those_of_the_published_sets():
    assert math.prod(grids.GRIDS["dsprites"].sizes) == 737_280
    assert math.prod(grids.GRIDS["shapes3d"].sizes) == 480_000

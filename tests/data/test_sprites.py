import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_flows.data import sprites
from latent_flows.data.sprites import Factors, centre, is_valid, moments, render

SQUARE, ELLIPSE, HEART = 0.0, 1.0, 2.0
render_jit = jax.jit(render, static_argnames="size")
render_all = jax.jit(jax.vmap(render))
measure_all = jax.jit(jax.vmap(moments))
check_all = jax.jit(jax.vmap(is_valid))


@jax.jit
def weighted(asked: Factors) -> jax.Array:
    """A number that depends on every pixel in its own way."""
    image = render(asked)
    return (image.ravel() * jnp.cos(jnp.arange(image.size, dtype=image.dtype))).sum()


weighted_slopes = jax.jit(jax.grad(weighted))
jacobian = jax.jit(jax.jacfwd(render))
factors = st.builds(
    Factors,
    shape=st.sampled_from([SQUARE, ELLIPSE, HEART]),
    scale=st.floats(0.5, 1.0),
    orientation=st.floats(-7.0, 7.0),
    x=st.floats(0.0, 1.0),
    y=st.floats(0.0, 1.0),
)


@functools.cache
def many(seed: int) -> tuple[Factors, jax.Array]:
    drawn = jax.jit(jax.vmap(sprites.random_factors))(jax.random.split(jax.random.key(seed), 1000))
    return drawn, render_all(drawn)


@pytest.mark.parametrize("shape", [0, 1, 2])
@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4])
def test_area_is_that_of_the_outline(shape, angle):
    image = render_jit(Factors(shape, 0.8, angle, 0.4, 0.7), size=256)
    assert image.mean() == pytest.approx(sprites.AREAS[shape] * 0.8**2, rel=2e-3)


def test_area_of_an_upright_square_does_not_depend_on_where_between_pixels_it_lies():
    """Whole-pixel edges are rendered exactly apart from the corners, and so are all others."""
    at = lambda x: render_jit(Factors(SQUARE, 1.0, 0.0, x, 0.5)).sum()  # noqa: E731
    sums = jax.vmap(at)(jnp.linspace(0.4, 0.5, 37))
    # Four corners, at each of which min(a, b) stands where a * b would be exact.
    np.testing.assert_allclose(sums, (64 * 2 * sprites.SQUARE) ** 2, atol=1.2)
    assert np.ptp(sums) < 0.6


def test_moving_by_whole_pixels_moves_the_image():
    pixel = 1 / (64 * (1 - 2 * sprites.MARGIN))
    here = render_jit(Factors(HEART, 0.9, 0.5, 0.4, 0.6))
    there = render_jit(Factors(HEART, 0.9, 0.5, 0.4 + 3 * pixel, 0.6 - 5 * pixel))
    np.testing.assert_allclose(jnp.roll(here, (3, -5), axis=(1, 0)), there, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(factors)
def test_barycentre_is_where_it_was_asked_to_be(asked):
    found = moments(render_jit(asked))
    assert float(found.x) == pytest.approx(centre(asked.x), abs=0.001)
    assert float(found.y) == pytest.approx(centre(asked.y), abs=0.001)


@settings(max_examples=30, deadline=None)
@given(factors)
def test_sprites_stay_in_the_frame(asked):
    image = np.array(render_jit(asked))
    assert image.min() >= 0
    assert image.max() <= 1
    image[1:-1, 1:-1] = 0
    assert not image.any()


@pytest.mark.parametrize(
    ("shape", "turn", "same"),
    [
        (SQUARE, np.pi / 2, True),
        (SQUARE, np.pi / 4, False),
        (ELLIPSE, np.pi, True),
        (ELLIPSE, np.pi / 2, False),
        (HEART, 2 * np.pi, True),
        (HEART, np.pi, False),
    ],
)
def test_turning_by_a_symmetry_changes_nothing(shape, turn, same):
    here = render_jit(Factors(shape, 1.0, 0.2, 0.5, 0.5))
    there = render_jit(Factors(shape, 1.0, 0.2 + turn, 0.5, 0.5))
    assert bool(jnp.abs(here - there).max() < 1e-3) == same


def test_orientation_is_anticlockwise_as_seen():
    upright = render_jit(Factors(HEART, 1.0, 0.0, 0.5, 0.5))
    turned = render_jit(Factors(HEART, 1.0, np.pi / 2, 0.5, 0.5))
    np.testing.assert_allclose(np.rot90(upright), turned, atol=1e-3)


@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
@pytest.mark.parametrize("name", ["scale", "orientation", "x", "y"])
def test_derivatives_in_the_factors_match_finite_differences(shape, name, dtype):
    base = jax.tree.map(jnp.asarray, Factors(shape, 0.8, 0.35, 0.43, 0.61))
    value = getattr(base, name)
    step = 1e-6 if dtype == jnp.float64 else 1e-3
    up = weighted(base._replace(**{name: value + step}))
    down = weighted(base._replace(**{name: value - step}))
    slope = (up - down) / (2 * step)
    tolerance = 1e-5 if dtype == jnp.float64 else 5e-2
    assert abs(slope) > 0.1
    found = getattr(weighted_slopes(base), name)
    np.testing.assert_allclose(found, slope, rtol=tolerance, atol=tolerance)


def test_derivatives_are_finite_for_any_factors():
    # The middle of a pixel and the middle of the sprite coincide here, where distances have kinks.
    for shape in (0.0, 0.5, 1.0, 1.7, 2.0, 2.5):
        middle = 0.5 + 1 / 64
        slopes = jacobian(Factors(shape, 1.0, 0.0, middle, middle))
        assert all(bool(jnp.isfinite(slope).all()) for slope in slopes)


def test_shapes_between_two_lie_between_them():
    areas = [
        float(render_jit(Factors(shape, 1.0, 0.0, 0.5, 0.5)).sum())
        for shape in np.linspace(0, 2, 21)
    ]
    jumps = np.abs(np.diff(areas))
    assert jumps.max() < 20
    assert areas[0] > areas[5] > areas[10] < areas[15] < areas[20]


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_dtype_follows_the_precision(dtype):
    assert jax.eval_shape(render, Factors(0, 1, 0, 0, 0)).dtype == dtype


def test_moments_of_a_rectangle():
    image = jnp.zeros((32, 64, 1)).at[4:12, 10:42].set(0.5)
    found = moments(image)
    assert float(found.x) == pytest.approx(26 / 64)
    assert float(found.y) == pytest.approx(8 / 32)
    assert float(found.mass) == pytest.approx(128)
    assert float(found.size) == pytest.approx(np.sqrt(128 / (32 * 64)))
    # A side of n pixels has second moment n^2 / 12.
    assert float(found.elongation) == pytest.approx(np.log(32**2 / 8**2), rel=1e-5)


def test_size_and_elongation_do_not_change_with_position_and_angle():
    asked, _ = many(0)
    ones = jnp.ones_like(asked.shape)
    found = measure_all(render_all(asked._replace(shape=ones, scale=0.9 * ones)))
    # The blur of about a pixel adds to both second moments, hence the tolerance.
    np.testing.assert_allclose(found.elongation, 2 * np.log(2), rtol=0.02)
    np.testing.assert_allclose(found.elongation, found.elongation[0], atol=0.005)
    np.testing.assert_allclose(found.size, 0.9 * np.sqrt(sprites.AREAS[1]), rtol=0.005)


def test_moments_of_nothing_and_of_round_things_have_finite_derivatives():
    slopes = jax.jit(jax.grad(lambda image: sum(moments(image))))
    square = jnp.zeros((16, 16, 1)).at[4:8, 4:8].set(1.0)
    for image in (jnp.zeros((16, 16, 1)), square):
        assert bool(jnp.isfinite(slopes(image)).all())
    assert float(moments(square).elongation) == 0
    assert [float(value) for value in moments(jnp.zeros((16, 16, 1)))] == [0.5, 0.5, 0, 0, 0]


def test_moments_are_differentiable(x64):
    image = render_jit(Factors(HEART, 0.8, 0.4, 0.3, 0.6))
    shift = jax.random.normal(jax.random.key(0), image.shape)
    measure = jax.jit(moments)
    _, tangent = jax.jvp(measure, (image,), (shift,))
    step = 1e-6
    up, down = measure(image + step * shift), measure(image - step * shift)
    for slope, high, low in zip(tangent, up, down, strict=True):
        np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-4)


@pytest.mark.parametrize("size", [32, 64])
def test_true_sprites_are_valid(size):
    drawn, _ = many(0)
    images = jax.jit(jax.vmap(lambda asked: render(asked, size=size)))(drawn)
    assert check_all(images).mean() >= 0.999


def test_other_images_are_not_valid():
    key = jax.random.key(0)
    shape = (1000, 64, 64, 1)
    sprite = render(Factors(HEART, 0.8, 0.4, 0.3, 0.6))
    ring = render(Factors(SQUARE, 1.0, 0.0, 0.5, 0.5)) - render(Factors(1, 0.5, 0.0, 0.5, 0.5))
    assert not check_all(jax.random.uniform(key, shape)).any()
    assert not check_all(jax.random.bernoulli(key, 0.05, shape) * 1.0).any()
    assert not check_all(jnp.linspace(0, 1, 1000)[:, None, None, None] * jnp.ones(shape[1:])).any()
    for other in (0.5 * sprite, 1 - sprite, ring):
        assert not is_valid(other)
    assert is_valid(sprite)


def test_two_sprites_apart_are_not_valid():
    _, first = many(0)
    _, second = many(1)
    apart = (first * second).sum((1, 2, 3)) == 0
    assert apart.sum() > 100
    assert not check_all(jnp.maximum(first, second))[apart].any()


def test_grid_is_every_combination_once_with_y_fastest():
    table = np.stack(jax.jit(jax.vmap(sprites.grid_factors))(jnp.arange(sprites.COUNT)), axis=1)
    codes = np.round(table / [1, 0.1, np.pi / 20, 1 / 31, 1 / 31]).astype(int) - [0, 5, 0, 0, 0]
    assert sprites.COUNT == 737_280
    np.testing.assert_array_equal(
        np.ravel_multi_index(tuple(codes.T), sprites.GRID), np.arange(sprites.COUNT)
    )
    np.testing.assert_allclose(table[1] - table[0], [0, 0, 0, 0, 1 / 31], atol=1e-6)
    np.testing.assert_allclose(np.unique(table[:, 1]), np.linspace(0.5, 1, 6), rtol=1e-6)


def test_splits_are_disjoint_cover_everything_and_look_alike():
    train, test = sprites.split_indices("train"), sprites.split_indices("test")
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(sprites.COUNT))
    assert len(test) / sprites.COUNT == pytest.approx(0.1, abs=0.002)
    for rows in (train, test):
        places = np.unravel_index(rows, sprites.GRID)
        for place, count in zip(places, sprites.GRID, strict=True):
            shares = np.bincount(place, minlength=count) / len(rows)
            np.testing.assert_allclose(shares, 1 / count, rtol=0.06)


def test_splits_never_change():
    assert sprites.split_indices("test")[:5].tolist() == [0, 7, 11, 22, 25]


def test_data_set_renders_the_factors_it_names():
    batch = sprites.dataset("test").examples(np.array([3, 70_000]))
    image = render_all(batch["factors"])
    np.testing.assert_allclose(batch["image"], image, atol=1e-5)
    np.testing.assert_array_equal(batch["label"], batch["factors"].shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: render(Factors(0, jnp.ones(3), 0, 0, 0)), "scale must be a scalar"),
        (lambda: render(Factors(0, 1, 0, 0, 0), size=0), "size must be"),
        (lambda: moments(jnp.ones((8, 8, 3))), r"one image .* got \(8, 8, 3\)"),
        (lambda: is_valid(jnp.ones((2, 8, 8, 1))), r"got \(2, 8, 8, 1\)"),
        (lambda: sprites.grid_factors(sprites.COUNT), "index must lie in"),
        (lambda: sprites.dataset("val"), "splits train, test, got 'val'"),
        (lambda: sprites.dataset(size=-1), "size must be"),
    ],
)
def test_wrong_arguments_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions
from latent_flows.directions.losses import LOSSES


@pytest.fixture
def pair(key):
    x, y = jax.random.uniform(key, (2, 11, 14, 2))
    mask = jnp.ones((11, 14)).at[:3].set(0).at[:, -4:].set(0)
    return x, y, mask


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_equal_images_cost_nothing_and_others_something(name, pair):
    x, y, mask = pair
    loss = jax.jit(directions.loss(name))
    np.testing.assert_allclose(loss(x, x, mask), 0, atol=1e-6)
    assert loss(x, y, mask) > 1e-4


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_pixels_that_are_not_known_have_no_influence_and_no_gradient(name, pair):
    x, y, mask = pair
    loss = jax.jit(directions.loss(name))
    known = mask[..., None] > 0
    spoilt = jnp.where(known, y, jnp.nan)
    np.testing.assert_allclose(loss(x, y, mask), loss(x, spoilt, mask), rtol=1e-6)
    gradient = jax.grad(loss)(x, spoilt, mask)
    assert (jnp.where(known, 0, gradient) == 0).all()
    assert (jnp.where(known, gradient, 1) != 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_known_pixel_costs_nothing(name, pair):
    x, y, mask = pair
    assert directions.loss(name)(x, y, 0 * mask) == 0
    assert jnp.isfinite(jax.grad(directions.loss(name))(x, y, 0 * mask)).all()


@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_the_blurred_error_is_its_formula_in_fourier_space(sigma, x64, pair):
    x, y, mask = (np.asarray(part, np.float64) for part in pair)
    size = 96  # wide enough that a periodic convolution does not come round
    offset = np.arange(size) - size // 2
    kernel = np.exp(-(offset**2) / (2 * sigma**2))
    kernel = np.roll(kernel / kernel.sum(), -(size // 2))
    spectrum = np.fft.fft2(mask[..., None] * (x - y), (size, size), axes=(0, 1))
    spectrum *= np.fft.fft2(np.outer(kernel, kernel))[..., None]
    expected = (abs(spectrum) ** 2).sum() / size**2 / (2 * mask.sum())
    result = directions.blurred_error(jnp.array(x), jnp.array(y), jnp.array(mask), sigma=sigma)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_without_blur_it_is_the_mean_squared_error(pair):
    x, y, mask = pair
    expected = ((x - y) ** 2)[mask == 1].mean()
    np.testing.assert_allclose(directions.mse(x, y, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(directions.blurred_error(x, y, mask, sigma=0.0), expected, rtol=1e-4)


def test_a_blur_forgives_texture_but_not_position():
    texture = jnp.where(jnp.indices((16, 16)).sum(0) % 2, 0.6, -0.6)[..., None]
    bump = jnp.zeros((16, 16, 1)).at[4:12, 4:12].set(1.0)
    moved = jnp.roll(bump, 4, 1)
    ones = jnp.ones((16, 16))
    assert directions.mse(bump, bump + texture, ones) > directions.mse(bump, moved, ones)
    assert directions.blurred_error(bump, bump + texture, ones) < 0.01 * directions.blurred_error(
        bump, moved, ones
    )


def test_structural_similarity_is_its_definition_averaged_over_pixels(x64, key):
    x, y = np.asarray(jax.random.uniform(key, (2, 7, 9)))
    rows, columns = np.indices((7, 9))
    expected = []
    for row, column in np.ndindex(7, 9):
        window = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 1.5**2))
        window /= window.sum()
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
        covariance = (window * (x - mean_x) * (y - mean_y)).sum()
        similarity = (2 * mean_x * mean_y + 1e-4) * (2 * covariance + 9e-4)
        similarity /= (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
        expected.append((1 - similarity) / 2)
    result = directions.dssim(jnp.array(x[..., None]), jnp.array(y[..., None]), jnp.ones((7, 9)))
    np.testing.assert_allclose(result, np.mean(expected), rtol=1e-6)


def test_losses_under_jit_and_vmap(pair):
    x, y, mask = pair
    for name in LOSSES:
        loss = jax.jit(directions.loss(name))
        many = jax.jit(jax.vmap(loss, (0, 0, None)))(jnp.stack([x, y]), jnp.stack([y, y]), mask)
        np.testing.assert_allclose(many, [loss(x, y, mask), 0], rtol=1e-5, atol=1e-6)


def test_bad_input_is_named(pair):
    x, y, mask = pair
    with pytest.raises(ValueError, match="x and y must be images of one shape"):
        directions.mse(x, y[:, 1:], mask)
    with pytest.raises(ValueError, match=r"mask must have shape \(11, 14\)"):
        directions.dssim(x, y, mask[1:])
    with pytest.raises(ValueError, match="sigma must be at least 0"):
        directions.blurred_error(x, y, mask, sigma=-1.0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        partial(directions.dssim, sigma=0.0)(x, y, mask)
    with pytest.raises(ValueError, match=r"unknown loss 'ssim' .*'dssim'"):
        directions.loss("ssim")


@pytest.mark.parametrize("shape", [(7,), (5, 2), (4, 6, 5), (2, 3, 4, 5)])
def test_samples_of_any_shape_differ_by_the_mean_square_of_what_is_known(shape, key):
    x, y = jax.random.normal(key, (2, *shape))
    known = jax.random.bernoulli(jax.random.key(1), 0.6, shape).at[(0,) * len(shape)].set(True)
    squares = (x - y) ** 2
    expected = squares[known].mean()
    np.testing.assert_allclose(directions.mse(x, y, known), expected, rtol=1e-5)
    spoilt = jnp.where(known, x, jnp.nan)
    np.testing.assert_allclose(directions.mse(spoilt, y, known), expected, rtol=1e-5)
    for mask in (1.0, jnp.ones(shape[:1]), jnp.ones((1,) * len(shape)), jnp.ones(shape)):
        np.testing.assert_allclose(directions.mse(x, y, mask), squares.mean(), rtol=1e-5)
    # Without a blur it is the same, and there is nothing else to blur.
    np.testing.assert_array_equal(
        directions.blurred_error(x, y, known, sigma=0.0), directions.mse(x, y, known)
    )
    if len(shape) != 3:
        for loss in (directions.blurred_error, directions.dssim):
            with pytest.raises(
                ValueError, match=r"is of images \[h, w, c\], and a sample of shape"
            ):
                loss(x, y, known)


def test_a_mask_of_the_numbers_of_an_image_says_what_one_of_its_pixels_does(pair):
    x, y, mask = pair
    whole = jnp.broadcast_to(mask[..., None], x.shape)
    for name in LOSSES:
        loss = directions.loss(name)
        np.testing.assert_allclose(loss(x, y, whole), loss(x, y, mask), rtol=1e-5)


def test_a_loss_of_ones_own_is_found_in_its_file(tmp_path):
    (tmp_path / "mine.py").write_text("def far(x, y, mask):\n    return abs(x - y).max()\n")
    assert directions.loss(f"{tmp_path}/mine.py:far")(np.arange(3), np.zeros(3), 1) == 2
    with pytest.raises(ValueError, match="has no 'fra'; did you mean 'far'"):
        directions.loss(f"{tmp_path}/mine.py:fra")

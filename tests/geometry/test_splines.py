"""Shortest splines against closed forms, against geodesics by Newton's method, and bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.geometry._discrete_energy import with_slope
from latent_flows.geometry.curves import measure, straight
from latent_flows.geometry.geodesics import geodesic
from latent_flows.geometry.metrics import FORMED, conformal, pullback
from latent_flows.geometry.splines import spline_geodesic

HALF_PLANE = conformal(lambda z: 1 / z[1] ** 2)
ENDS = jnp.array([[-0.7, 0.4], [0.9, -0.3]])


def bowl(z):
    return jnp.concatenate([z, jnp.exp(-(z**2).sum())[None]])


def network(dim, size=40):
    keys = jax.random.split(jax.random.key(1), 2)
    first = jax.random.normal(keys[0], (dim, 64)) / jnp.sqrt(dim)
    second = jax.random.normal(keys[1], (64, size)) / 8
    return lambda z: jnp.tanh(2 * z @ first) @ second


def test_in_the_half_plane_it_is_as_long_as_the_hyperbolic_distance(key):
    z = (
        jax.random.normal(key, (2, 10, 2))
        .at[..., 1]
        .set(jnp.exp(jax.random.normal(key, (2, 10)) / 2))
    )
    found = jax.jit(jax.vmap(partial(spline_geodesic, HALF_PLANE)))(*z)
    assert found.converged.all()
    assert (found.points[:, 0] == z[0]).all()
    assert (found.points[:, -1] == z[1]).all()
    squared = ((z[0] - z[1]) ** 2).sum(-1)
    wanted = jnp.arccosh(1 + squared / (2 * z[0, :, 1] * z[1, :, 1]))
    np.testing.assert_allclose(found.length, wanted, rtol=2e-3)


@pytest.mark.slow
def test_it_is_the_geodesic_that_newtons_method_finds():
    metric = pullback(bowl)
    newton = jax.jit(partial(geodesic, metric))(*ENDS)
    spline = jax.jit(partial(spline_geodesic, metric))(*ENDS)
    assert newton.converged
    assert spline.converged
    assert spline.length == pytest.approx(float(newton.length), rel=1e-3)
    np.testing.assert_allclose(spline(0.5), newton(0.5), atol=0.03)


@pytest.mark.slow
def test_through_a_long_latent_it_is_shorter_than_the_line_by_about_as_much():
    metric = pullback(network(32))
    z0, z1 = jax.random.normal(jax.random.key(2), (2, 32))
    line, _, _ = measure(metric, straight(z0, z1, 32))
    newton = jax.jit(partial(geodesic, metric))(z0, z1)
    spline = jax.jit(partial(spline_geodesic, metric))(z0, z1)
    assert newton.converged
    gained = (line - spline.length) / (line - newton.length)
    assert 0.9 < gained < 1.01


@pytest.mark.slow
def test_the_scale_of_the_latents_is_of_no_account():
    units = 1000.0
    found = jax.jit(partial(spline_geodesic, pullback(bowl)))(*ENDS)
    scaled = jax.jit(partial(spline_geodesic, pullback(lambda z: bowl(z / units))))(*(ENDS * units))
    assert found.converged
    assert scaled.converged
    assert scaled.length == pytest.approx(float(found.length), rel=2e-3)


@pytest.mark.slow
def test_a_search_that_is_cut_short_says_so_and_is_no_worse_than_its_start():
    metric = pullback(network(32))
    z0, z1 = jax.random.normal(jax.random.key(2), (2, 32))
    found = jax.jit(partial(spline_geodesic, metric, max_iterations=4))(z0, z1)
    assert not found.converged
    assert found.energy < measure(metric, straight(z0, z1, 8))[1]


@pytest.mark.slow
def test_a_path_through_images_too_crooked_for_a_few_panels_is_measured_and_kept():
    crooked = network(32)
    metric = pullback(lambda z: crooked(8 * z))
    z0, z1 = jax.random.normal(jax.random.key(3), (2, 12, 32))[:, 8]
    found = spline_geodesic(metric, z0, z1, tolerance=3e-3)
    line = measure(metric, straight(z0, z1, 8), panels=512).length
    assert found.converged
    assert found.length < 0.6 * line
    exact = measure(metric, found.points, panels=512).length
    assert found.length == pytest.approx(float(exact), rel=5e-3)


@pytest.mark.slow
def test_through_a_convolution_it_is_what_it_is_through_the_same_linear_map(key):
    kernel = jax.random.normal(key, (3, 3, 1, 2))

    def convolved(image):
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=axes)

    def drawn(z):
        return jnp.tanh(jnp.outer(z, z[::-1]) + z)[None, ..., None]

    pairs = jax.random.normal(key, (2, 2, 3))
    matrix = jax.jacobian(convolved)(drawn(pairs[0, 0])).reshape(18, 9)

    def paths(decode):
        search = partial(spline_geodesic, pullback(decode), knots=2, segments=8)
        return jax.jit(jax.vmap(search))(*pairs)

    found = paths(lambda z: convolved(drawn(z)))
    wanted = paths(lambda z: matrix @ drawn(z).ravel())
    np.testing.assert_allclose(found.length, wanted.length, rtol=1e-3)


def test_a_metric_that_is_not_finite_leaves_the_line():
    holed = conformal(lambda z: jnp.where(jnp.abs(z[0]) < 0.1, jnp.nan, 1.0))
    found = spline_geodesic(holed, [-1.0, 0.0], [1.0, 0.0])
    assert not found.converged
    np.testing.assert_allclose(found.points, straight(*jnp.array([[-1.0, 0.0], [1.0, 0.0]]), 8))


def test_a_search_that_starts_at_the_minimum_has_converged():
    found = spline_geodesic(pullback(lambda z: 2 * z), jnp.zeros(20), jnp.ones(20), knots=2)
    assert found.converged
    assert found.length == pytest.approx(2 * 20**0.5, rel=1e-5)


@pytest.mark.slow
def test_one_knot_is_the_line_and_derivatives_are_zero():
    metric = pullback(bowl)
    assert spline_geodesic(metric, *ENDS, knots=1).points.shape == (2, 2)
    gradient = jax.grad(lambda z: spline_geodesic(metric, z, ENDS[1], knots=2).length)(ENDS[0])
    assert (gradient == 0).all()


@pytest.mark.parametrize(
    "wrong", [{"knots": 0}, {"knots": 65}, {"tolerance": 0.0}, {"max_iterations": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="knots must lie in"):
        spline_geodesic(pullback(bowl), *ENDS, **wrong)


def curved(dim):
    """Of a few axes that show much and many that show little, as a GAN's."""
    keys = jax.random.split(jax.random.key(4), 2)
    scales = jnp.maximum(0.8 ** jnp.arange(dim), 0.02)
    first = jax.random.normal(keys[0], (dim, 120)) * scales[:, None]
    second = jax.random.normal(keys[1], (120, 200)) / 11
    return lambda z: jnp.tanh(z @ first) @ second


def test_of_a_latent_too_long_for_jacobians_none_is_formed_and_the_path_is_shorter():
    dim = FORMED + 6
    metric = pullback(curved(dim))
    z0, z1 = jax.random.normal(jax.random.key(5), (2, dim))
    search = partial(spline_geodesic, metric, knots=2, segments=4)
    program = jax.jit(search).lower(z0, z1)
    assert f"{dim}x200x" not in program.as_text()
    found = program.compile()(z0, z1)
    assert found.length < 0.95 * measure(metric, straight(z0, z1, 16)).length
    assert jnp.isfinite(found.residual)


@pytest.mark.slow
def test_of_a_latent_too_long_for_jacobians_a_path_is_about_as_short_as_by_newtons_method():
    metric = pullback(curved(FORMED + 6))
    z0, z1 = jax.random.normal(jax.random.key(5), (2, FORMED + 6))
    long = spline_geodesic(metric, z0, z1, knots=4, segments=16)
    short = geodesic(metric, z0, z1, segments=16)
    line = measure(metric, straight(z0, z1, 16)).length
    assert long.converged
    assert (line - long.length) / (line - short.length) > 0.9


def test_few_images_at_once_make_the_same_energy_and_slope():
    metric = pullback(bowl)
    chain = jax.random.normal(jax.random.key(6), (8, 2))
    (whole, slope), (few, other) = jax.jit(
        lambda chain: [with_slope(metric, size)(chain) for size in (None, 3)]
    )(chain)
    assert few == pytest.approx(float(whole), rel=1e-5)
    np.testing.assert_allclose(other, slope, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        spline_geodesic(metric, *ENDS, knots=2, segments=8, batch_size=0)


def test_an_axis_that_a_long_latent_does_not_show_is_said():
    decode = curved(FORMED + 6)
    hidden = pullback(lambda z: decode(z.at[3].set(0.0)))
    z0, z1 = jax.random.normal(jax.random.key(5), (2, FORMED + 6))
    found = spline_geodesic(hidden, z0, z1, knots=3, segments=6)
    assert not found.converged
    assert jnp.isfinite(found.points).all()

"""Loss terms at their closed forms and at the ends of their ranges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from latent_flows import objectives


def test_the_kl_divergence_is_the_expected_log_ratio(dtype):
    mean, std = jnp.array([0.0, -1.5, 2.0], dtype), jnp.array([1.0, 0.3, 2.0], dtype)
    # The log-ratio of two Gaussians is a parabola, on which this quadrature is exact.
    nodes, weights = (jnp.asarray(part, dtype) for part in hermegauss(4))
    z = mean + std * nodes[:, None]
    logpdf = jax.scipy.stats.norm.logpdf
    ratio = logpdf(z, mean, std) - logpdf(z)
    expected = weights @ ratio / weights.sum()
    found = jax.jit(objectives.gaussian_kl)(mean, std)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_factorised_posterior_for_all_has_no_total_correlation(key, dtype):
    z = jax.random.normal(key, (16, 3), dtype)
    mean, std = jnp.full((16, 3), 0.5, dtype), jnp.full((16, 3), 0.7, dtype)
    assert abs(objectives.total_correlation(z, mean, std)) < 1e-5


def test_separate_codes_on_a_grid_are_independent_and_on_a_diagonal_are_not(dtype):
    # Narrow posteriors far apart: every mixture density is that of its nearest member.
    side = 4
    steps = jnp.arange(side, dtype=dtype)
    grid = jnp.stack(jnp.meshgrid(steps, steps), -1).reshape(-1, 2)
    for codes, expected in (
        (grid, 0.0),
        (jnp.repeat(steps[:, None], 2, 1), np.log(side)),
        (jnp.repeat(steps[:, None], 3, 1), 2 * np.log(side)),
    ):
        std = jnp.full_like(codes, 0.01)
        found = jax.jit(objectives.total_correlation)(codes, codes, std)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("std", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_total_correlation_of_gaussian_codes_is_that_of_their_covariance(key, std, rho, dtype):
    # Of z = mean + std * noise with unit variances of the means, correlated in two of six.
    size, dim, batch = 1 + std**2, 6, 4096
    truth = -0.5 * np.log(1 - (rho / size) ** 2)
    root = jnp.linalg.cholesky(jnp.eye(dim).at[0, 1].set(rho).at[1, 0].set(rho))
    scales = jnp.array([1e-3, 1.0, 1.0, 5.0, 1.0, 1.0])  # units do not matter
    mean = (jax.random.normal(key, (batch, dim), dtype) @ root.T.astype(dtype)) * scales
    stds = jnp.broadcast_to((std * scales).astype(dtype), mean.shape)
    found = jax.jit(objectives.gaussian_total_correlation)(mean.astype(dtype), stds)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, truth, atol=0.02)


@pytest.mark.slow
def test_the_estimate_for_training_exceeds_the_information_less_log_of_the_batch(key):
    keys = jax.random.split(key)
    mean = jax.random.normal(keys[0], (1024, 6))
    for std in (0.01, 0.1, 1.0):
        stds = jnp.full_like(mean, std)
        z = mean + std * jax.random.normal(keys[1], mean.shape)
        own = jax.scipy.stats.norm.logpdf(z, mean, stds)
        others = jax.scipy.stats.norm.logpdf(z[:, None], mean[None], stds[None])
        marginal = jax.nn.logsumexp(others, axis=1) - np.log(1024)
        information = jnp.mean(own - marginal, 0).sum()
        found = objectives.total_correlation(z, mean, stds)
        assert found > information - np.log(1024) - 1e-3
        assert abs(information - 3 * np.log(1 + 1 / std**2)) < 1
        assert objectives.gaussian_total_correlation(mean, stds) < 0.02


def test_total_correlation_stays_finite_for_codes_that_are_copies_or_never_change(dtype):
    step = jnp.linspace(-1, 1, 64, dtype=dtype)
    for std in (0.0, 1e-6):
        copies = jnp.stack([step, 2 * step, 0 * step, jnp.cos(9 * step)], -1)
        found = objectives.gaussian_total_correlation(copies, jnp.full_like(copies, std))
        assert 3 < found < np.inf
        still = jnp.zeros((64, 3), dtype)
        assert objectives.gaussian_total_correlation(still, jnp.full_like(still, std)) == 0


def test_contributions_do_not_depend_on_pace_or_on_the_units_of_the_axes(key):
    keys = jax.random.split(key, 3)
    velocity = jax.random.normal(keys[0], (4,))
    factor = jax.random.normal(keys[1], (4, 4))
    metric, units = factor.T @ factor, jnp.exp(jax.random.normal(keys[2], (4,)))
    found = objectives.unit_contributions(velocity, metric)
    assert float(jnp.linalg.norm(found)) == pytest.approx(1, abs=1e-6)
    rescaled = metric * units * units[:, None]
    np.testing.assert_allclose(
        objectives.unit_contributions(3 * velocity / units, rescaled), found, rtol=1e-5
    )
    np.testing.assert_allclose(objectives.unit_contributions(-velocity, metric), -found, rtol=1e-6)


def test_a_flow_at_rest_contributes_nothing_and_its_gradient_is_finite():
    rest, metric = jnp.zeros(3), jnp.eye(3)
    assert objectives.unit_contributions(rest, metric).tolist() == [0, 0, 0]
    assert jnp.isfinite(jax.jacobian(objectives.unit_contributions)(rest, metric)).all()


def test_the_share_along_what_is_known_is_finite_with_its_gradient_for_a_flow_at_rest(key):
    share = lambda v, known: objectives.share_along(v, known, jnp.eye(3))  # noqa: E731
    rest, axes = jnp.zeros(3), jnp.eye(3)[:2]
    for v, known in [(rest, axes), (rest, 0 * axes), (jnp.ones(3), 0 * axes)]:
        assert share(v, known) == 0
        for slope in jax.grad(share, argnums=(0, 1))(v, known):
            assert jnp.isfinite(slope).all()
    drawn = jax.random.normal(key, (3,))
    assert float(share(drawn, axes)) == pytest.approx(
        float(drawn[:2] @ drawn[:2] / (drawn @ drawn)), rel=1e-4
    )


ONE_AXIS = jnp.broadcast_to(jnp.eye(4)[0], (2, 5, 4))
ALL_AXES = jnp.full((2, 5, 4), 0.5)
OWN_AXIS = jnp.broadcast_to(jnp.eye(4)[:2, None], (2, 5, 4))
BOTH_WAYS = ONE_AXIS[:, :4] * jnp.array([1.0, -1.0, -1.0, 1.0])[:, None]


@pytest.mark.parametrize(
    ("term", "contributions", "expected"),
    [
        (objectives.sparsity, ONE_AXIS, 0),
        (objectives.sparsity, BOTH_WAYS, 0),
        (objectives.sparsity, OWN_AXIS, 0),
        (objectives.sparsity, ALL_AXES, 1),
        (objectives.overlap, OWN_AXIS, 0),
        (objectives.overlap, ALL_AXES, 1 / 4),
        (objectives.overlap, ONE_AXIS, 1),
        (objectives.overlap, ONE_AXIS[:1], 0),
        (objectives.direction_consistency, OWN_AXIS, 0),
        (objectives.direction_consistency, ALL_AXES, 0),
        (objectives.direction_consistency, BOTH_WAYS, 1),
    ],
)
def test_terms_of_contributions_reach_the_ends_of_their_range(term, contributions, expected):
    np.testing.assert_allclose(jax.jit(term)(contributions), expected, atol=1e-5)
    assert jnp.isfinite(jax.grad(term)(contributions)).all()


def test_terms_of_contributions_stay_in_their_range(key):
    vectors = jax.random.normal(key, (20, 3, 6, 4))
    vectors /= jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    for term in (objectives.sparsity, objectives.overlap, objectives.direction_consistency):
        values = jax.vmap(term)(vectors)
        assert ((values > 0) & (values < 1)).all()


def test_stillness_falls_from_one_through_a_half_to_zero():
    speeds = jnp.array([0.0, 4.0, 1e8])
    found = jax.vmap(lambda s: objectives.variation_loss(s[None, None], 2.0))(speeds)
    np.testing.assert_allclose(found, [1, 0.5, 0], atol=1e-6)
    # One flow that stands still costs its whole share, however fast the other is.
    assert float(objectives.variation_loss(jnp.array([[0.0], [1e8]]), 2.0)) == pytest.approx(0.5)


def test_off_pace_is_the_squared_log_ratio_to_the_pace():
    for ratio in (0.5, 1.0, 2.0):
        speed = jnp.full((3, 4), (1.5 * ratio) ** 2)
        np.testing.assert_allclose(objectives.speed_loss(speed, 1.5), np.log(ratio) ** 2, atol=1e-6)
    still = jnp.zeros((1, 2))
    assert jnp.isfinite(objectives.speed_loss(still, 1.0))
    assert jnp.isfinite(jax.grad(objectives.speed_loss)(still, 1.0)).all()


@pytest.mark.parametrize(
    ("z", "expected"),
    [([0.0, 1.0], 0), ([2.0, 3.0], 0), ([3.0, 1.0], 1), ([-2.0, 1.0], 4), ([1.0, -3.0], 1)],
)
def test_outside_counts_half_widths_beyond_the_box(z, expected):
    low, high, z = jnp.array([0.0, -1.0]), jnp.array([2.0, 3.0]), jnp.array(z)
    assert float(objectives.outside(z, low, high)) == expected
    # A shift and a stretch of box and latent together change nothing.
    moved = [3 * point + 1 for point in (z, low, high)]
    assert float(objectives.outside(*moved)) == pytest.approx(expected)


def test_relative_start_compares_the_start_with_what_follows():
    moving = jnp.ones((3, 2))
    for start, expected in ((0.0, 0.0), (1.0, 0.5), (1e4, 1.0)):
        found = objectives.relative_start(start * moving, moving)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    # Slowing the whole flow down gains nothing.
    slow = objectives.relative_start(0.01 * 2 * moving, 0.01 * moving)
    np.testing.assert_allclose(slow, 4 / 5, rtol=1e-5)

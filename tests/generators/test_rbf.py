"""The deviation that grows away from data: its formula, its limits, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from latent_flows.generators import rbf
from latent_flows.generators.rbf import RBF, StdNetwork


def clusters(dtype=np.float32, count=40):
    """Two tight clouds far apart."""
    random = np.random.default_rng(0)
    centres = np.repeat([[-5.0, 0.0], [5.0, 0.0]], count, axis=0)
    return (centres + 0.3 * random.standard_normal(centres.shape)).astype(dtype)


def test_precision_is_a_sum_of_gaussian_kernels_and_a_constant(dtype):
    params = RBF(
        jnp.array([[0.0, 0.0], [1.0, 2.0]], dtype),
        jnp.array([0.5, 2.0], dtype),
        jnp.log(jnp.array([[1.0, 3.0], [4.0, 5.0]], dtype)),
        jnp.array(0.25, dtype),
    )
    z = np.array([0.5, 1.0])
    kernels = np.exp([-0.5 * (0.25 + 1.0), -2.0 * (0.25 + 1.0)])
    expected = kernels @ np.array([[1.0, 3.0], [4.0, 5.0]]) + 0.25
    found = jax.jit(rbf.precision)(params, jnp.asarray(z, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(rbf.std(params, jnp.asarray(z, dtype)) ** -2, expected, rtol=1e-5)


def test_kernels_sit_on_clusters_and_reach_as_far_as_their_codes(dtype):
    codes = clusters(dtype)
    params = rbf.init_rbf(jnp.asarray(codes, dtype), (2, 3), centres=2, reach=2.0)
    assert params.log_weights.shape == (2, 2, 3)
    assert all(leaf.dtype == dtype for leaf in params)
    order = np.argsort(np.asarray(params.centres)[:, 0])
    for side, k in zip((codes[:40], codes[40:]), order, strict=True):
        np.testing.assert_allclose(params.centres[k], side.mean(0), rtol=1e-4, atol=1e-5)
        distance = np.linalg.norm(side - side.mean(0), axis=1).mean()
        np.testing.assert_allclose(params.bandwidths[k], 0.5 / (2 * distance) ** 2, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_deviation_grows_from_the_data_to_its_limit(dtype):
    params = rbf.init_rbf(jnp.asarray(clusters(dtype)), (1,), centres=2, std=0.3, zeta=1e-4)
    along = jnp.stack([jnp.linspace(5.0, 30.0, 40), jnp.zeros(40)], 1).astype(dtype)
    deviation = np.asarray(jax.vmap(lambda z: rbf.std(params, z))(along))[:, 0]
    assert (np.diff(deviation) >= 0).all()
    assert deviation[0] == pytest.approx(0.3, rel=0.1)
    assert deviation[-1] == pytest.approx(100.0, rel=1e-4)
    between = rbf.std(params, jnp.zeros(2, dtype))
    assert between[0] == pytest.approx(100.0, rel=1e-2)


def test_derivatives_are_finite_everywhere(dtype):
    params = rbf.init_rbf(jnp.asarray(clusters(dtype)), (4,), centres=2)
    points = jnp.stack([jnp.linspace(-300, 300, 61), jnp.full(61, 0.1)], 1).astype(dtype)
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda z: rbf.std(params, z))))(points)
    assert jnp.isfinite(jacobians).all()
    # Very far away nothing changes any more.
    assert not jacobians[0].any()


def test_a_cluster_without_extent_takes_that_of_the_others():
    codes = np.concatenate([clusters()[:40], np.full((5, 2), 9.0, np.float32)])
    params = rbf.init_rbf(codes, (1,), centres=2)
    np.testing.assert_allclose(params.bandwidths[0], params.bandwidths[1], rtol=1e-5)


def test_kernels_depend_on_the_seed_and_on_nothing_else():
    codes = np.random.default_rng(0).standard_normal((200, 2))
    first, again, other = (rbf.init_rbf(codes, (1,), centres=20, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.centres, again.centres)
    assert pairwise_distances(first.centres, other.centres).min(1).max() > 1e-3


@pytest.mark.parametrize(
    ("codes", "settings", "message"),
    [
        (np.zeros((5, 2)), {"centres": 2}, "centres must be .* fewer than the 1 different codes"),
        (np.eye(3), {"centres": 3}, "fewer than the 3 different codes, got 3"),
        (np.eye(3), {"centres": 0}, "centres must be at least 1"),
        (np.zeros(5), {}, r"codes must be finite and of shape \[n, d\], got shape \(5,\)"),
        (np.full((5, 2), np.nan), {}, "codes must be finite"),
        (np.eye(3), {"centres": 1, "zeta": 0.0}, "zeta must be positive, got 0.0"),
        (np.eye(3), {"centres": 1, "reach": -1.0}, "reach must be positive"),
        (np.eye(3), {"centres": 1, "std": float("nan")}, "std must be positive, got nan"),
    ],
)
def test_what_cannot_be_fitted_names_the_argument(codes, settings, message):
    with pytest.raises(ValueError, match=message):
        rbf.init_rbf(codes, (1,), **settings)


def test_a_latent_of_another_size_is_refused():
    params = rbf.init_rbf(clusters(), (1,), centres=2)
    with pytest.raises(ValueError, match=r"expected a latent of shape \(2,\), got \(3,\)"):
        jax.jit(rbf.std)(params, jnp.zeros(3))


def test_the_ordinary_network_is_positive_and_shaped_like_a_sample(key):
    network = StdNetwork((4, 4, 2), width=8, depth=1)
    params = network.init(key, jnp.zeros(3))
    points = 10 * jax.random.normal(key, (50, 3))
    deviation = jax.jit(jax.vmap(lambda z: network.apply(params, z)))(points)
    assert deviation.shape == (50, 4, 4, 2)
    assert (deviation > 0).all()
    assert deviation.std() > 0

"""A tabulated metric agrees with the one it was made from, and is smooth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.geometry.interpolation import tabulate


def bowl(z):
    """The metric of a paraboloid."""
    return jnp.eye(2, dtype=z.dtype) + 4 * jnp.outer(z, z)


def test_between_the_points_of_the_grid_it_agrees_with_its_derivatives(dtype, key):
    table = tabulate(bowl, [-1.5, -1.0], [1.5, 1.2], resolution=64)
    points = jax.random.uniform(key, (50, 2), dtype, -0.8, 0.8)
    for power, atol in ((0, 1e-4), (1, 5e-3), (2, 0.2)):
        exact, found = bowl, table
        for _ in range(power):
            exact, found = jax.jacfwd(exact), jax.jacfwd(found)
        values = jax.jit(jax.vmap(found))(points)
        assert values.dtype == dtype
        np.testing.assert_allclose(values, jax.vmap(exact)(points), atol=atol)


def test_outside_of_the_grid_it_is_that_of_the_border():
    table = tabulate(bowl, [-1, -1], [1, 1], resolution=32)
    np.testing.assert_allclose(table(jnp.array([3.0, 0.5])), bowl(jnp.array([1.0, 0.5])), atol=1e-3)


@pytest.mark.parametrize(
    ("metric", "corners", "resolution", "message"),
    [
        (bowl, ([0, 0], [1, 0]), 16, "low must lie below"),
        (bowl, ([0, 0], [1, 1]), 4, "resolution must be at least 8, got 4"),
        (lambda z: -jnp.eye(2), ([0, 0], [1, 1]), 8, "metric must be positive definite"),
    ],
)
def test_bad_input_is_named(metric, corners, resolution, message):
    with pytest.raises(ValueError, match=message):
        tabulate(metric, *corners, resolution=resolution)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions


def test_sefa_maximises_the_stretch(key, dtype):
    weight = jax.random.normal(key, (12, 5), dtype)
    found = directions.sefa(weight, 3)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-5)
    stretch = jnp.linalg.norm(weight @ found.T, axis=0)
    np.testing.assert_allclose(stretch, jnp.linalg.svd(weight)[1][:3], rtol=1e-4)
    others = directions.random_directions(key, 50, 5)
    assert (jnp.linalg.norm(weight @ others.T, axis=0) <= stretch[0] * (1 + 1e-5)).all()


def test_ganspace_finds_the_latents_that_drive_the_largest_activations(key):
    zs = jax.random.normal(key, (500, 4))
    mixing = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (9, 4)))[0]
    activations = (zs * jnp.array([1.0, 4.0, 0.1, 2.0])) @ mixing.T + 3.0
    found = directions.ganspace(zs, activations, 3)
    np.testing.assert_allclose(abs(found), jnp.eye(4)[jnp.array([1, 3, 0])], atol=0.15)


def test_ganspace_of_the_latents_themselves_is_their_principal_components(key):
    zs = jax.random.normal(key, (400, 3)) * jnp.array([0.2, 1.0, 3.0])
    found = directions.ganspace(zs, None, 3)
    expected = jnp.linalg.svd(zs - zs.mean(0), full_matrices=False)[2]
    np.testing.assert_allclose(abs(jnp.sum(found * expected, 1)), 1, atol=1e-3)


def test_random_directions_are_uniform_on_the_sphere(key):
    found = directions.random_directions(key, 4000, 3)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.T @ found / 4000, np.eye(3) / 3, atol=0.03)
    np.testing.assert_allclose(found.mean(0), 0, atol=0.03)


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match="weight must be a matrix"):
        directions.sefa(jnp.ones(3), 1)
    with pytest.raises(ValueError, match=r"count must lie in \[1, 3\], got 4"):
        directions.sefa(jnp.ones((3, 5)), 4)
    with pytest.raises(ValueError, match="latents"):
        directions.ganspace(jnp.ones((3, 2)), jnp.ones((4, 2)), 1)
    with pytest.raises(ValueError, match="at least 1"):
        directions.random_directions(key, 0, 3)

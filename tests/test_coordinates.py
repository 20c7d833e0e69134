"""Frames: a linear mixture is unmixed, and coordinates undo latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import coordinates

MIXING = np.array([[2.0, -0.5, 0.3], [0.4, 1.0, 0.8], [-0.6, 0.2, 1.5]])
MEAN = np.array([1.0, -2.0, 0.5])


@pytest.fixture(scope="module")
def sources():
    limit = np.sqrt(3)  # of unit variance
    return np.random.default_rng(0).uniform(-limit, limit, (4000, 3))


@pytest.fixture(scope="module")
def found(sources):
    # Dimension 1 of four is an unused one.
    codes = np.insert(sources @ MIXING.T + MEAN, 1, 7.0, axis=1)
    keep = np.array([True, False, True, True])
    return coordinates.independent_components(jnp.asarray(codes), keep), jnp.asarray(codes)


def test_a_mixture_of_uniform_sources_is_recovered_up_to_order_and_sign(sources, found):
    frame, codes = found
    recovered = jax.vmap(lambda z: coordinates.from_latent(frame, z))(codes)
    correlation = np.corrcoef(sources.T, recovered.T)[:3, 3:]
    order = np.argmax(np.abs(correlation), axis=0)
    assert sorted(order) == [0, 1, 2]
    signs = np.sign(correlation[order, range(3)])
    np.testing.assert_allclose(correlation[order, range(3)] * signs, 1, atol=0.01)
    mixing = frame.basis[jnp.array([0, 2, 3])] * signs
    np.testing.assert_allclose(mixing, MIXING[:, order], atol=0.1)
    np.testing.assert_allclose(np.std(recovered, axis=0), 1, atol=0.01)


def test_dimensions_that_are_not_kept_stay_at_their_mean(found):
    frame, _ = found
    assert frame.basis.shape == (4, 3)
    np.testing.assert_array_equal(frame.basis[1], 0)
    for s in (jnp.zeros(3), jnp.array([1.0, -2.0, 3.0])):
        np.testing.assert_allclose(coordinates.to_latent(frame, s)[1], 7.0, rtol=1e-6)


def test_the_same_seed_gives_the_same_frame(sources):
    one, two = (coordinates.independent_components(sources[:200], seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.basis, two.basis)


def test_coordinates_undo_latents(key, dtype):
    keys = jax.random.split(key, 3)
    frame = coordinates.AffineCoordinates(
        jax.random.normal(keys[0], (5,), dtype), jax.random.normal(keys[1], (5, 3), dtype)
    )
    s = jax.random.normal(keys[2], (7, 3), dtype)

    @jax.jit
    @jax.vmap
    def there_and_back(s):
        return coordinates.from_latent(frame, coordinates.to_latent(frame, s))

    assert there_and_back(s).dtype == dtype
    np.testing.assert_allclose(there_and_back(s), s, rtol=1e-4, atol=1e-4)


def test_a_latent_outside_the_span_goes_to_its_nearest_point_inside():
    frame = coordinates.AffineCoordinates(jnp.zeros(2), jnp.array([[1.0], [1.0]]))
    s = coordinates.from_latent(frame, jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(coordinates.to_latent(frame, s), [1.0, 1.0], rtol=1e-6)


def test_composing_with_a_frame_is_the_generator_of_its_latent():
    generator = lambda z: jnp.sin(z) * z[0]  # noqa: E731
    frame = coordinates.AffineCoordinates(
        jnp.array([1.0, 2.0]), jnp.array([[0.0, 2.0], [1.0, 0.0]])
    )
    s = jnp.array([0.3, -0.2])
    expected = generator(jnp.array([0.6, 2.3]))
    np.testing.assert_allclose(coordinates.compose(generator, frame)(s), expected, rtol=1e-6)
    same = coordinates.compose(generator, coordinates.identity(2))
    np.testing.assert_allclose(same(s), generator(s), rtol=1e-6)


def test_active_dimensions_are_those_narrower_than_the_prior():
    std = jnp.array([[0.1, 1.0, 0.7], [0.3, 0.9, 0.95]])
    assert coordinates.active(std).tolist() == [True, False, False]
    assert coordinates.active(std, 0.9).tolist() == [True, False, True]


def test_components_that_cannot_be_found_are_refused():
    codes = np.zeros((5, 3))
    with pytest.raises(ValueError, match="no latent dimension is active"):
        coordinates.independent_components(codes, np.zeros(3, bool))
    with pytest.raises(ValueError, match="5 codes are too few to find 3 components"):
        coordinates.independent_components(codes)


def test_principal_axes_whiten_and_drop_what_does_not_vary(key):
    latents = jax.random.normal(key, (500, 3)) @ jnp.diag(jnp.array([0.5, 2.0, 0.0])) + 1.0
    frame = coordinates.principal_axes(latents)
    found = jax.vmap(lambda z: coordinates.from_latent(frame, z))(latents)
    assert found.shape == (500, 2)
    np.testing.assert_allclose(jnp.cov(found.T), np.eye(2), atol=1e-4)
    np.testing.assert_allclose(jnp.abs(frame.basis[1, 0]), 2.0, rtol=0.1)
    back = jax.vmap(lambda s: coordinates.to_latent(frame, s))(found)
    np.testing.assert_allclose(back, latents, atol=1e-4)


def test_principal_axes_of_latents_longer_than_they_are_many_are_those_of_their_covariance(key):
    latents = jax.random.normal(key, (5, 9)) * jnp.arange(1.0, 10.0)
    frame = coordinates.principal_axes(latents, 3)
    variances, axes = jnp.linalg.eigh(jnp.cov(latents.T))
    assert frame.basis.shape == (9, 3)
    np.testing.assert_allclose(frame.origin, latents.mean(0), rtol=1e-5)
    for k in range(3):
        exact = axes[:, -1 - k] * jnp.sqrt(variances[-1 - k])
        found = frame.basis[:, k] * jnp.sign(frame.basis[:, k] @ exact)
        np.testing.assert_allclose(found, exact, atol=1e-3)
    assert coordinates.principal_axes(latents).basis.shape == (9, 4)


@pytest.mark.parametrize(
    ("latents", "message"),
    [(jnp.ones((1, 2)), "at least 2 latents, got 1"), (jnp.ones((5, 2)), "are all the same")],
)
def test_latents_that_do_not_vary_have_no_principal_axes(latents, message):
    with pytest.raises(ValueError, match=message):
        coordinates.principal_axes(latents)


def test_the_most_visible_axis_is_the_one_that_changes_the_image_most(key):
    turn = jnp.linalg.qr(jax.random.normal(key, (3, 3)))[0]
    generator = lambda z: jnp.array([1.0, 5.0, 2.0]) * (turn @ z)  # noqa: E731
    frame = coordinates.visible_axes(generator, jnp.ones((4, 3)))
    np.testing.assert_allclose(jnp.abs(frame.basis.T @ turn[1]), [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(jnp.abs(frame.basis.T @ turn[0]), [0, 0, 1], atol=1e-4)

"""The surface with a hole: where its points lie, and that they are always the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import data
from latent_flows.data import surface


def rows(split):
    found = data.load("surface", split=split)
    return found.examples(np.arange(found.length))


def test_the_surface_is_the_graph_of_its_height(dtype):
    uv = jnp.array([0.5, 0.5], dtype)
    assert surface.height(uv) == pytest.approx(0.0, abs=1e-6)
    assert surface.height(jnp.array([1.0, 0.0], dtype)) == pytest.approx(1.0)
    assert surface.height(jnp.array([-0.5, 1.0], dtype)) == pytest.approx(np.sqrt(0.5))
    point = jax.jit(surface.immersion)(uv)
    assert point.dtype == dtype
    np.testing.assert_allclose(point, [[[0.7, 0.7, 0.5]]], atol=1e-6)


def test_the_pull_back_metric_is_that_of_a_graph(x64):
    uv = jnp.array([0.3, -0.7])
    slope = 0.4 * jax.grad(surface.height)(uv)
    jacobian = jax.jacfwd(lambda uv: surface.immersion(uv).ravel())(uv)
    expected = 0.4**2 * jnp.eye(2) + jnp.outer(slope, slope)
    np.testing.assert_allclose(jacobian.T @ jacobian, expected, rtol=1e-10)


@pytest.mark.parametrize("split", ["train", "test"])
def test_points_lie_on_the_ring_up_to_noise(split):
    found = rows(split)
    radius = np.linalg.norm(found["factors"], axis=1)
    assert radius.min() >= surface.INNER
    assert radius.max() <= surface.OUTER
    # Evenly over the area: the squared radius is uniform.
    middle = (surface.INNER**2 + surface.OUTER**2) / 2
    assert (radius**2).mean() == pytest.approx(middle, rel=0.03)
    noiseless = jax.vmap(surface.immersion)(jnp.asarray(found["factors"]))
    noise = found["image"] - np.asarray(noiseless)
    assert noise.std() == pytest.approx(surface.NOISE, rel=0.05)
    assert noise.mean() == pytest.approx(0, abs=3 * surface.NOISE / np.sqrt(noise.size))
    assert found["image"].dtype == np.float32
    assert found["image"].min() > 0
    assert found["image"].max() < 1


def test_labels_are_thirds_of_the_ring():
    found = rows("test")
    angle = np.arctan2(found["factors"][:, 1], found["factors"][:, 0]) % (2 * np.pi)
    np.testing.assert_array_equal(found["label"], np.floor(angle / (2 * np.pi / 3)))
    np.testing.assert_allclose(np.bincount(found["label"]) / 1000, 1 / 3, atol=0.05)


def test_splits_are_fixed_and_share_no_point():
    train, again, test = rows("train")["image"], rows("train")["image"], rows("test")["image"]
    np.testing.assert_array_equal(train, again)
    assert not {p.tobytes() for p in train} & {p.tobytes() for p in test}


def test_wrong_arguments_say_what_was_expected():
    with pytest.raises(ValueError, match="splits train, test, got 'val'"):
        data.load("surface", split="val")
    with pytest.raises(ValueError, match=r"size must be left out for surface.* got 8"):
        data.load("surface", size=8)
    with pytest.raises(ValueError, match=r"two coordinates, got shape \(3,\)"):
        surface.immersion(jnp.zeros(3))

"""Images of whole numbers, of which differences and squares wrap around, are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import classifiers, data, directions
from latent_flows.data import sprites
from latent_flows.directions import losses, transformations
from latent_flows.evaluation import control_score, correlation, equivariance_error, path_length
from latent_flows.evaluation import vp_score as vp
from latent_flows.evaluation.frechet import frechet_distance
from latent_flows.evaluation.traversals import dominance
from latent_flows.generators import likelihoods
from latent_flows.generators.vae import VAE, VAEConfig

BLACK, GREY = np.zeros((8, 8, 1), np.uint8), np.full((8, 8, 1), 200, np.uint8)
MASK = np.ones((8, 8))
VAE_OF_ONE = VAE(VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=1), (8, 8, 1))


def flat(z):
    return jnp.full((8, 8, 1), z[0])


def followed(z0, ts):
    return jnp.tile(z0, (len(ts), 1))


TAKES_IMAGES = {
    **{
        f"loss {name}": lambda x, loss=loss: loss(x, jnp.zeros((8, 8, 1)), MASK)
        for name, loss in losses.LOSSES.items()
    },
    **{
        f"loss {name}, the other image": lambda x, loss=loss: loss(jnp.zeros((8, 8, 1)), x, MASK)
        for name, loss in losses.LOSSES.items()
    },
    **{
        f"transformation {name}": lambda x, change=change: change(x, 0.1)
        for name, change in transformations.TRANSFORMATIONS.items()
    },
    "invert": lambda x: directions.invert(flat, x, jnp.zeros(1)),
    "invert a generator": (
        lambda x: directions.invert(lambda z: flat(z).astype(x.dtype), flat(MASK[0]), jnp.zeros(1))
    ),
    "trajectories": lambda x: directions.trajectories(
        jax.random.key(0),
        lambda z: flat(z).astype(x.dtype),
        "zoom",
        [0.1],
        count=2,
        latent_dim=1,
    ),
    "path_length": path_length,
    "equivariance_error": lambda x: equivariance_error(
        lambda x: x[0, 0].astype(float), flat, followed, np.stack([x, x]), jnp.arange(2.0)
    ),
    "equivariance_error of a decoder": lambda x: equivariance_error(
        lambda x: x[0, 0],
        lambda z: flat(z).astype(x.dtype),
        followed,
        jnp.zeros((2, 8, 8, 1)),
        jnp.arange(2.0),
    ),
    "vp_score": lambda x: vp(
        jax.random.key(0), np.stack([x] * 20), np.stack([x] * 20), jnp.arange(20) % 2
    ),
    "pair_features": lambda x: classifiers.pair_features(x, x),
    "shrink": classifiers.shrink,
    **{
        f"classifier {name}": (
            lambda x, net=net: net(2).init(jax.random.key(0), np.concatenate([x, x], -1))
        )
        for name, net in classifiers.CLASSIFIERS.items()
    },
    "bernoulli": lambda x: likelihoods.bernoulli(x, jnp.zeros(x.shape)),
    "gaussian": lambda x: likelihoods.gaussian(x, jnp.zeros(x.shape), 1.0),
    "discretised_logistic": lambda x: likelihoods.discretised_logistic(x, jnp.zeros(x.shape), 1.0),
    "moments": sprites.moments,
    "is_valid": sprites.is_valid,
    "a VAE": lambda x: jax.eval_shape(VAE_OF_ONE.init, jax.random.key(0), x),
}


@pytest.mark.parametrize("kind", [np.uint8, np.int32])
@pytest.mark.parametrize("name", TAKES_IMAGES)
def test_images_of_whole_numbers_are_refused(name, kind):
    with pytest.raises(ValueError, match=rf"float.*{np.dtype(kind)}"):
        TAKES_IMAGES[name](GREY.astype(kind))


def test_the_message_says_what_to_do_with_8_bits():
    with pytest.raises(ValueError, match="got uint8 for x: divide 8-bit images by 255 first"):
        losses.blurred_error(BLACK, GREY, MASK)


@pytest.mark.slow
def test_measurements_may_be_whole_numbers():
    asked, measured = np.array([0, 2, 4]), np.array([[0, 2, 4], [1, 3, 5]])
    expected = control_score(*(jnp.asarray(a, float) for a in (asked, measured)))
    got = control_score(asked.astype(np.uint8), measured.astype(np.uint8))
    jax.tree.map(np.testing.assert_allclose, got, expected)
    falling = np.array([5, 3, 1], np.uint8)[None, None, :, None]
    np.testing.assert_allclose(correlation(np.arange(3), falling)[0], -1, rtol=1e-5)
    fell = dominance(falling[:, :, 0], falling[:, :, 2], np.ones((1, 1), bool), np.ones(1))
    np.testing.assert_allclose(fell.change, 4)
    apart = frechet_distance(np.uint8([[0], [2]]), np.uint8([[200], [202]]))
    assert apart == pytest.approx(200**2)


def test_data_sets_are_of_8_bits_or_of_floats():
    found = data.from_arrays("set", image=np.array([[[[True]]], [[[False]]]]))
    image = found.examples(np.arange(2))["image"]
    assert image.dtype == np.float32
    assert image.ravel().tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"uint8, or floats in \[0, 1\], got int64"):
        data.from_arrays("set", image=np.zeros((2, 4, 4, 1), np.int64))

"""The score of beta-VAE: can a linear classifier name the factor that pairs of examples share?"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows._extras import extra
from latent_flows.evaluation._sampler import Recognition, Sampler, check, groups

__all__ = ["beta_vae_score"]


def beta_vae_score(
    key: PRNGKeyArray,
    sampler: Sampler,
    *,
    batch_size: int = 64,
    train: int = 10_000,
    test: int = 5_000,
) -> Recognition:
    r"""Can a linear classifier name the factor that pairs of examples share?

    One point is the mean of `|z - z'|` over a batch of pairs that share the value of one random
    factor; logistic regression learns to name it. Chance is one over the number of factors. Codes
    that differ by a rotation may still score 1, and the regularisation (`C = 1`) makes the score of
    very small codes lower.

    Args:
        key: randomness of the factors and pairs.
        sampler: of `sampler_of_examples` or `sampler_of_model`.
        batch_size: pairs a point.
        train: points to learn from.
        test: points to judge on.

    Returns:
        A `Recognition`.

    Raises:
        ValueError: fewer than two factors or points that cannot be told, or codes that are not
            finite.

    References:
        Higgins et al., *beta-VAE*, 2017, section 3; defaults of disentanglement_lib.

    >>> import jax
    >>> from latent_flows.evaluation import sampler_of_model
    >>> same = sampler_of_model(lambda key: jax.random.normal(key, (2,)), lambda f: f)
    >>> beta_vae_score(jax.random.key(0), same, train=100, test=50).accuracy
    1.0
    """

    with extra("evaluation"):
        from sklearn.linear_model import LogisticRegression

    check(sampler, batch_size=(batch_size, 1), train=(train, sampler.factors), test=(test, 1))
    labels, points = groups(_difference, sampler, batch_size, key, train + test)
    if len(np.unique(labels[:train])) < sampler.factors:
        raise ValueError(f"train of {train} points is too few: a factor is missing among them")
    model = LogisticRegression(max_iter=1000).fit(points[:train], labels[:train])
    right = model.predict(points) == labels
    return Recognition(float(right[train:].mean()), float(right[:train].mean()))


def _difference(draw: Any, key: PRNGKeyArray, k: Array, size: int) -> Float[Array, "d"]:
    pairs = jax.vmap(lambda key: draw(key, k, 2))(jax.random.split(key, size))
    return jnp.mean(jnp.abs(pairs[:, 0] - pairs[:, 1]), axis=0)

"""The score of FactorVAE: does the code that varies least name the factor that examples share?"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows.evaluation._sampler import Recognition, Sampler, check, groups

__all__ = ["factor_vae_score"]


def factor_vae_score(
    key: PRNGKeyArray,
    sampler: Sampler,
    *,
    batch_size: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    threshold: float = 0.0,
) -> Recognition:
    r"""Does the code that varies least among examples name the factor that they share?

    Each batch shares the value of one random factor `k` and casts a vote: the dimension whose
    variance in the batch, over its variance among all examples (the first of each batch), is least.
    Each dimension stands for the factor that most of its votes come from; the score is the share of
    votes that come from the factor that theirs stands for. No classifier is trained. Chance is
    about one over the number of factors.

    Dimensions with a standard deviation of at most `threshold` among all examples do not vote, in
    particular those that never change (whose ratio disentanglement_lib makes 0/0). If none is left
    the score is 0, as there.

    Args:
        key: randomness of the factors and examples.
        sampler: of `sampler_of_examples` or `sampler_of_model`.
        batch_size: examples a vote, at least 2.
        train: votes that decide what each dimension stands for.
        test: votes that are judged.
        threshold: see above; such as 0.05 to leave out dimensions that a VAE does not use.

    Returns:
        A `Recognition`.

    Raises:
        ValueError: fewer votes, examples or factors than it takes, or codes that are not finite.

    References:
        Kim and Mnih, *Disentangling by Factorising*, 2018, section 5; defaults of
        disentanglement_lib.

    >>> import jax
    >>> from latent_flows.evaluation import sampler_of_model
    >>> same = sampler_of_model(lambda key: jax.random.normal(key, (2,)), lambda f: 3 * f[::-1])
    >>> factor_vae_score(jax.random.key(0), same, train=100, test=50).accuracy
    1.0
    """
    check(sampler, batch_size=(batch_size, 2), train=(train, sampler.factors), test=(test, 1))
    labels, found = groups(_first_and_variance, sampler, batch_size, key, train + test)
    # One example alone shares its factor with nobody: a draw from all.
    codes, variances = found[:, 0], found[:, 1]
    variance = codes.var(axis=0, ddof=1)
    active = (np.sqrt(variance) > threshold) & (np.ptp(codes, axis=0) > 0)
    if not active.any():
        return Recognition(0.0, 0.0)
    ratios = np.where(active, variances / np.where(active, variance, 1), np.inf)
    votes = ratios.argmin(axis=1)
    table = np.zeros((sampler.factors, len(active)), int)
    np.add.at(table, (labels[:train], votes[:train]), 1)
    right = table.argmax(axis=0)[votes] == labels
    return Recognition(float(right[train:].mean()), float(right[:train].mean()))


def _first_and_variance(draw: Any, key: PRNGKeyArray, k: Array, size: int) -> Float[Array, "2 d"]:
    codes = draw(key, k, size)
    return jnp.stack([codes[0], jnp.var(codes, axis=0, ddof=1)])

"""Loss terms of variational autoencoders: divergences and total correlation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows.typing import Latent, Scalar


def gaussian_kl(mean: Latent, std: Latent) -> Float[Array, "d"]:
    r"""KL divergence of `N(mean, std^2)` from `N(0, 1)`, per dimension, in nats.

    $$ \tfrac12 (\mu^2 + \sigma^2 - 1) - \log \sigma $$

    Example:
        >>> import jax.numpy as jnp
        >>> from latent_flows.objectives import gaussian_kl
        >>> gaussian_kl(jnp.zeros(2), jnp.ones(2)).tolist()
        [0.0, 0.0]
    """
    return 0.5 * (mean**2 + std**2 - 1.0) - jnp.log(std)


def total_correlation(
    z: Float[Array, "batch d"], mean: Float[Array, "batch d"], std: Float[Array, "batch d"]
) -> Scalar:
    r"""Total correlation of the aggregate posterior, estimated on one batch, in nats.

    $$ \mathrm{TC} = \mathrm{KL}\Big(q(z) \,\Big\|\, \prod_j q(z_j)\Big), \qquad
       q(z) \approx \frac1B \sum_i q(z \mid x_i) $$

    The mixture over the batch stands in for the aggregate posterior (minibatch weighted sampling
    of Chen et al. 2018, beta-TC-VAE, without its constant, which has no gradient).

    Args:
        z: samples `z_i ~ q(z | x_i)`.
        mean: posterior means.
        std: posterior standard deviations.
    """
    log_q = jax.scipy.stats.norm.logpdf(z[:, None], mean[None], std[None])
    log_size = jnp.log(z.shape[0])
    joint = jax.nn.logsumexp(log_q.sum(-1), axis=1) - log_size
    marginals = jax.nn.logsumexp(log_q, axis=1) - log_size
    return jnp.mean(joint - marginals.sum(-1))


def gaussian_kl_between(
    mean: Latent, std: Latent, other_mean: Latent, other_std: Latent
) -> Float[Array, "d"]:
    r"""KL divergence of `N(mean, std^2)` from `N(other_mean, other_std^2)`, per dimension, in nats.

    $$ \log \frac{\sigma'}{\sigma} + \frac{\sigma^2 + (\mu - \mu')^2}{2 \sigma'^2} - \tfrac12 $$

    Example:
        >>> import jax.numpy as jnp
        >>> one = jnp.ones(1)
        >>> gaussian_kl_between(3 * one, one, one, one).tolist()
        [2.0]
    """
    ratio = std / other_std
    return 0.5 * (ratio**2 + ((mean - other_mean) / other_std) ** 2 - 1) - jnp.log(ratio)


def permuted(key: PRNGKeyArray, z: Float[Array, "batch d"]) -> Float[Array, "batch d"]:
    """Samples of the product of the marginals: each dimension shuffled over the batch by itself.

    Args:
        key: randomness of the shuffles.
        z: samples of the aggregate posterior.

    Source: FactorVAE (Kim and Mnih, 2018, algorithm 1).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> z = jnp.arange(6.0).reshape(3, 2)
        >>> jnp.sort(permuted(jax.random.key(0), z), axis=0).tolist() == z.tolist()
        True
    """
    return jax.random.permutation(key, z, axis=0, independent=True)


def density_ratio_loss(joint: Float[Array, "batch"], shuffled: Float[Array, "batch"]) -> Scalar:
    r"""The logistic loss by which a discriminator learns a log-density ratio.

    $$ -\tfrac12 \mathbb E_{q(z)} \log \sigma(D(z))
       -\tfrac12 \mathbb E_{\prod_j q(z_j)} \log \sigma(-D(z)) $$

    At its minimum `D = log q(z) / prod_j q(z_j)`, so that the mean of `D` over samples of `q(z)` is
    the total correlation, the term that FactorVAE adds to the bound.

    Args:
        joint: `D` of codes.
        shuffled: `D` of the same codes after `permuted`.

    Source: FactorVAE (Kim and Mnih, 2018, eq. 3 and algorithm 1).

    Example:
        >>> import jax.numpy as jnp
        >>> print(density_ratio_loss(jnp.zeros(4), jnp.zeros(4)).round(3))
        0.693
    """
    return 0.5 * jnp.mean(jax.nn.softplus(-joint)) + 0.5 * jnp.mean(jax.nn.softplus(shuffled))

"""Loss terms of variational autoencoders: divergences and total correlation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows.typing import Generator, Latent, Scalar

__all__ = [
    "density_ratio_loss",
    "gaussian_kl",
    "gaussian_kl_between",
    "gaussian_total_correlation",
    "noisy_negative_log_likelihood",
    "permuted",
    "total_correlation",
]


def gaussian_kl(mean: Float[Array, "*n d"], std: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    r"""KL divergence of `N(mean, std^2)` from `N(0, 1)`, per dimension, in nats.

    $$ \tfrac12 (\mu^2 + \sigma^2 - 1) - \log \sigma $$

    Args:
        mean: one number a dimension.
        std: one positive number a dimension.

    Returns:
        The divergence of each dimension.

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

    **A term to train with, no measurement.** Where posteriors are narrow, few others of the batch
    reach a sample, and the joint density is that of its own posterior over `B`. Whatever the truth,

    $$ \widehat{\mathrm{TC}} \ge \sum_j \hat I_j - \log B, $$

    with $\hat I_j$ the information on `x` in dimension `j` alone as the batch tells it, about
    $\log 1 / \sigma_j$ nats of unit variance: 20 nats for six independent codes of deviation 0.01
    and `B` = 1,024, where the truth is 0. Report `gaussian_total_correlation` beside it.

    Args:
        z: samples `z_i ~ q(z | x_i)`.
        mean: posterior means.
        std: posterior standard deviations.

    Returns:
        The estimate, in nats.

    References:
        Chen, Li, Grosse and Duvenaud, *Isolating Sources of Disentanglement in Variational
        Autoencoders*, 2018, section 3.1 and appendix C.1.

    >>> mean = jax.random.normal(jax.random.key(0), (1024, 6))  # independent
    >>> std = jnp.full_like(mean, 0.01)
    >>> z = mean + std * jax.random.normal(jax.random.key(1), mean.shape)
    >>> print(total_correlation(z, mean, std).round(), gaussian_total_correlation(mean, std) < 0.02)
    20.0 True
    """
    log_q = jax.scipy.stats.norm.logpdf(z[:, None], mean[None], std[None])
    log_size = jnp.log(z.shape[0])
    joint = jax.nn.logsumexp(log_q.sum(-1), axis=1) - log_size
    marginals = jax.nn.logsumexp(log_q, axis=1) - log_size
    return jnp.mean(joint - marginals.sum(-1))


def gaussian_total_correlation(
    mean: Float[Array, "batch d"], std: Float[Array, "batch d"]
) -> Scalar:
    r"""Total correlation of the Gaussian with the aggregate posterior's covariance, in nats.

    $$ \mathrm{TC} = \tfrac12 \Big(\sum_j \log \Sigma_{jj} - \log\det\Sigma\Big), \qquad
       \Sigma = \operatorname{cov}_i \mu_i + \operatorname{diag}\, \overline{\sigma_i^2} $$

    Exact where the codes are jointly Gaussian, for posteriors of any width. Of other codes it is
    what their linear dependence amounts to: 0 says uncorrelated, and not independent. Of a batch
    of independent codes it is about `d (d - 1) / (4 B)` too large.

    Args:
        mean: posterior means.
        std: posterior standard deviations.

    Returns:
        At least 0, up to rounding, and finite: where a code is a linear function of the others it
        is as large as the precision can tell. A dimension that never changes counts as independent.

    References:
        Watanabe, *Information Theoretical Analysis of Multivariate Correlation*, 1960; as a
        measurement of representations, Locatello et al., *Challenging Common Assumptions in the
        Unsupervised Learning of Disentangled Representations*, 2019, section 5.2.

    >>> pair = jnp.array([[1.0, 0.6], [0.6, 1.0]])
    >>> mean = jax.random.normal(jax.random.key(0), (10_000, 2)) @ jnp.linalg.cholesky(pair).T
    >>> found = gaussian_total_correlation(mean, jnp.full_like(mean, 0.01))
    >>> print(found.round(2), (-0.5 * jnp.log(1 - 0.6**2)).round(2))
    0.22 0.22
    """
    centred = mean - mean.mean(0)
    # Of unit variance first: the determinant of small variances underflows.
    variance = jnp.mean(centred**2 + std**2, 0)
    scale = jax.lax.rsqrt(jnp.where(variance > 0, variance, 1))
    scaled = centred * scale
    products = jnp.matmul(scaled.T, scaled, precision="highest") / len(mean)
    # Rounding must not make the determinant negative: it may be that of a smaller correlation.
    rounding = 4 * len(scale) * jnp.finfo(mean.dtype).eps
    unit = jnp.eye(len(scale), dtype=bool)
    sign, log_determinant = jnp.linalg.slogdet(jnp.where(unit, 1, products / (1 + rounding)))
    return -0.5 * jnp.where(sign > 0, log_determinant, jnp.log(rounding))


def gaussian_kl_between(
    mean: Latent, std: Latent, other_mean: Latent, other_std: Latent
) -> Float[Array, "*n d"]:
    r"""KL divergence of `N(mean, std^2)` from `N(other_mean, other_std^2)`, per dimension, in nats.

    $$ \log \frac{\sigma'}{\sigma} + \frac{\sigma^2 + (\mu - \mu')^2}{2 \sigma'^2} - \tfrac12 $$

    Args:
        mean: of the first, one number a dimension.
        std: of the first, positive.
        other_mean: of the second.
        other_std: of the second, positive.

    Returns:
        The divergence of each dimension.

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

    Returns:
        As many samples.

    References:
        FactorVAE (Kim and Mnih, 2018, algorithm 1).

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

    Returns:
        The loss, in nats.

    References:
        FactorVAE (Kim and Mnih, 2018, eq. 3 and algorithm 1).

    >>> import jax.numpy as jnp
    >>> print(density_ratio_loss(jnp.zeros(4), jnp.zeros(4)).round(3))
    0.693
    """
    return 0.5 * jnp.mean(jax.nn.softplus(-joint)) + 0.5 * jnp.mean(jax.nn.softplus(shuffled))


def noisy_negative_log_likelihood(
    encode: Callable[[Array], tuple[Latent, Latent]],
    decode: Generator,
    std: Generator,
    noise: float,
    key: PRNGKeyArray,
    image: Array,
) -> tuple[Scalar, Array]:
    r"""Of one image under Gaussian noise, at one draw from its posterior, in nats per pixel.

    $$\frac{(x - g(z))^2 + \epsilon^2}{2 \sigma(z)^2} + \log \sigma(z) + \tfrac12 \log 2 \pi$$

    Args:
        encode: from an image to its posterior.
        decode: from a latent to the mean of an image.
        std: from a latent to the deviation.
        noise: deviation of the noise that images are taken to carry already.
        key: a random key.
        image: any.

    Returns:
        The mean over pixels, and the deviation of each.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 4.

    >>> one = jnp.ones(1)
    >>> value, _ = noisy_negative_log_likelihood(
    ...     lambda x: (x, 0 * x), lambda z: z, lambda z: one, 0.0, jax.random.key(0), one
    ... )
    >>> print(value.round(3))
    0.919
    """
    mean, spread = encode(image)
    z = mean + spread * jax.random.normal(key, mean.shape)
    squared = (image - decode(z)) ** 2 + noise**2
    sigma = std(z)
    value = squared / (2 * sigma**2) + jnp.log(sigma) + jnp.log(2 * jnp.pi) / 2
    return jnp.mean(value), sigma

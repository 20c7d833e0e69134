"""Lower bounds on `log p(x)` of a latent-variable model, in nats."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows.objectives import gaussian_kl
from latent_flows.typing import Latent, Scalar

__all__ = ["Encoder", "LogLikelihood", "elbo", "iwae_bound"]

Encoder: TypeAlias = Callable[[Array], tuple[Latent, Latent]]
"""`x -> (mean, std)` of the diagonal Gaussian `q(z | x)`."""

LogLikelihood: TypeAlias = Callable[[Array, Latent], Scalar]
"""`(x, z) -> log p(x | z)`, summed over the event; for densities see `generators.likelihoods`."""

# So many decoded samples are in memory at once; the rest wait their turn in a scan.
_CHUNK = 64


def elbo(
    key: PRNGKeyArray,
    encode: Encoder,
    log_likelihood: LogLikelihood,
    x: Array,
    *,
    samples: int = 1,
    log_prior: Callable[[Latent], Scalar] | None = None,
) -> Scalar:
    r"""Evidence lower bound of one `x`, its divergence in closed form.

    $$\mathbb{E}_{q(z|x)} \log p(x|z) - \mathrm{KL}(q(z|x) \,\|\, N(0, I)) \le \log p(x)$$

    With another prior the divergence is a mean over the same draws, but for the entropy of the
    posterior.

    The expectation is a mean over `samples` reparametrised draws, so the value is an unbiased
    estimate of the bound and differentiable in whatever the two callables close over.

    Args:
        key: randomness of the draws.
        encode: `x -> (mean, std)`, both `[d]`, `std > 0`.
        log_likelihood: `(x, z) -> log p(x | z)`, a scalar in nats.
        x: one example, of any shape.
        samples: number of draws, at least 1. More than 64 are scanned in pieces of 64.
        log_prior: `z -> log p(z)` of a prior that is not `N(0, I)`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: `samples` is below 1, or the callables return wrong shapes.

    References:
        Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, equation 3 and appendix B.

    >>> import jax, jax.numpy as jnp
    >>> encode = lambda x: (x / 2, jnp.full_like(x, 0.5**0.5))  # the posterior of x = z + noise
    >>> normal = lambda x, z: jax.scipy.stats.norm.logpdf(x, z).sum()
    >>> value = elbo(jax.random.key(0), encode, normal, jnp.zeros(1), samples=4096)
    >>> exact = jax.scipy.stats.norm.logpdf(0.0, 0.0, 2**0.5)
    >>> bool(abs(value - exact) < 0.05)
    True
    """
    mean, std = _posterior(encode, x)
    if log_prior is None:
        draw = lambda eps: log_likelihood(x, mean + std * eps)  # noqa: E731
        return jnp.mean(_each_draw(key, draw, mean, samples)) - jnp.sum(gaussian_kl(mean, std))
    joint = lambda z: log_likelihood(x, z) + log_prior(z)  # noqa: E731
    entropy = jnp.sum(jnp.log(std)) + mean.size / 2 * (1 + math.log(2 * math.pi))
    return jnp.mean(_each_draw(key, lambda eps: joint(mean + std * eps), mean, samples)) + entropy


def iwae_bound(
    key: PRNGKeyArray,
    encode: Encoder,
    log_likelihood: LogLikelihood,
    x: Array,
    *,
    samples: int = 64,
    log_prior: Callable[[Latent], Scalar] | None = None,
) -> Scalar:
    r"""Importance-weighted lower bound on `log p(x)` of one `x`.

    $$\log \frac{1}{m} \sum_{i=1}^{m} \frac{p(x|z_i)\, p(z_i)}{q(z_i|x)},
      \qquad z_i \sim q(z|x)$$

    Its expectation grows with `m` from the ELBO (`m = 1`) to `log p(x)`; with the exact posterior
    it is `log p(x)` for every `m` and every draw.

    Args:
        key: randomness of the draws.
        encode: `x -> (mean, std)`, both `[d]`, `std > 0`.
        log_likelihood: `(x, z) -> log p(x | z)`, a scalar in nats.
        x: one example, of any shape.
        samples: `m`, at least 1. Memory does not grow beyond 64 decoded draws at a time (unless the
            bound is differentiated in reverse mode, which keeps them all).
        log_prior: `z -> log p(z)` of a prior that is not `N(0, I)`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: `samples` is below 1, or the callables return wrong shapes.

    References:
        Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, equation 8.

    >>> import jax, jax.numpy as jnp
    >>> encode = lambda x: (x / 2, jnp.full_like(x, 0.5**0.5))  # the posterior of x = z + noise
    >>> normal = lambda x, z: jax.scipy.stats.norm.logpdf(x, z).sum()
    >>> value = iwae_bound(jax.random.key(0), encode, normal, jnp.zeros(1), samples=2)
    >>> exact = jax.scipy.stats.norm.logpdf(0.0, 0.0, 2**0.5)
    >>> bool(abs(value - exact) < 1e-5)
    True
    """
    mean, std = _posterior(encode, x)

    def log_weight(eps: Latent) -> Array:
        z = mean + std * eps
        if log_prior is not None:
            log_q = jnp.sum(jax.scipy.stats.norm.logpdf(eps) - jnp.log(std))
            return log_likelihood(x, z) + log_prior(z) - log_q
        # log p(z) - log q(z|x): the two normalising constants cancel.
        log_ratio = jnp.sum(0.5 * (eps**2 - z**2) + jnp.log(std))
        return log_likelihood(x, z) + log_ratio

    log_weights = _each_draw(key, log_weight, mean, samples)
    return jax.nn.logsumexp(log_weights) - jnp.log(jnp.asarray(samples, log_weights.dtype))


def _posterior(encode: Encoder, x: Array) -> tuple[Latent, Latent]:
    mean, std = encode(x)
    if mean.ndim != 1 or mean.shape != std.shape:
        raise ValueError(
            "encode must return (mean, std) of one shape [d] for one unbatched x, "
            f"but returned {mean.shape} and {std.shape}"
        )
    return mean, std


def _each_draw(
    key: PRNGKeyArray, f: Callable[[Latent], Scalar], like: Latent, samples: int
) -> Float[Array, "samples"]:
    """`f` of `samples` standard normal draws, a chunk at a time."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")

    def draw(key: PRNGKeyArray) -> Scalar:
        value = f(jax.random.normal(key, like.shape, like.dtype))
        if value.shape != ():
            raise ValueError(
                "log_likelihood must return one number, summed over the event, "
                f"but returned shape {value.shape}"
            )
        return value

    return jax.lax.map(draw, jax.random.split(key, samples), batch_size=min(samples, _CHUNK))

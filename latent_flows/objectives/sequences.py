"""Loss terms of latent sequences: which factor acts, how strongly, and where it leads."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows.typing import Latent, Scalar

__all__ = [
    "categorical_kl",
    "concrete_gates",
    "gumbel_softmax",
    "latent_matching",
    "spike_and_slab_kl",
]


def latent_matching(z: Latent, mean: Latent, std: Latent) -> Scalar:
    r"""How unlikely a flowed latent is under the posterior of the image it should be the code of.

    $$ -\log N(z_t;\ \mu(x_t), \sigma^2(x_t)) = \sum_i \tfrac12 \Big(\frac{z_i - \mu_i}{\sigma_i}
       \Big)^2 + \log \sigma_i + \tfrac12 \log 2\pi $$

    Its mean over `z_t`, the flow of samples of `q(z_0 | x_0)`, is the divergence of their
    distribution from `q(z_t | x_t)` up to their entropy. Bounded below where `std` is.

    Args:
        z: `z_t`, where the flow takes the code of `x_0`.
        mean: of `q(z_t | x_t)`.
        std: of the same.

    Returns:
        The loss, in nats.

    References:
        The latent matching of Song et al. (ICML 2023, section 3.4), as a divergence.

    >>> import jax.numpy as jnp
    >>> print(latent_matching(jnp.ones(2), jnp.ones(2), jnp.ones(2)).round(3))
    1.838
    """
    return -jnp.sum(jax.scipy.stats.norm.logpdf(z, mean, std))


def gumbel_softmax(
    key: PRNGKeyArray, logits: Float[Array, "k"], temperature: Scalar | float
) -> Float[Array, "k"]:
    r"""A relaxed draw of one of `K`: weights that sum to 1, nearly one-hot at low temperature.

    $$ y = \operatorname{softmax}\big((\ell + g) / \tau\big), \qquad
       g_k \sim \text{Gumbel}(0, 1) $$

    Args:
        key: randomness of the draw.
        logits: unnormalised log-probabilities.
        temperature: `tau`, positive.

    Returns:
        The weights.

    References:
        Jang, Gu and Poole, *Categorical Reparameterization with Gumbel-Softmax*, 2017, eq. 2.

    >>> import jax, jax.numpy as jnp
    >>> gumbel_softmax(jax.random.key(0), jnp.array([99.0, 0.0]), 0.5).tolist()
    [1.0, 0.0]
    """
    noise = jax.random.gumbel(key, logits.shape, logits.dtype)
    return jax.nn.softmax((logits + noise) / temperature)


def categorical_kl(logits: Float[Array, "k"]) -> Scalar:
    """KL divergence of a categorical posterior from the uniform prior, in nats: 0 to log K.

    Args:
        logits: unnormalised log-probabilities.

    Returns:
        The divergence, in nats.

    >>> import jax.numpy as jnp
    >>> print(categorical_kl(jnp.zeros(4)), categorical_kl(jnp.array([99.0, 0.0])).round(3))
    0.0 0.693
    """
    log_q = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_q) * log_q) + jnp.log(logits.shape[-1])


def concrete_gates(
    key: PRNGKeyArray, logits: Float[Array, "k"], temperature: Scalar | float
) -> Float[Array, "k"]:
    r"""Gates between 0 and 1 that reach both ends with positive probability (hard concrete).

    $$ g = \operatorname{clip}\big(1.2\, \sigma((\ell + \log u - \log(1 - u)) / \tau) - 0.1,
       0, 1\big), \qquad u \sim U(0, 1) $$

    A closed gate is exactly 0, so that what it guards does not act at all.

    Args:
        key: randomness of the draw.
        logits: log-odds that a gate is open.
        temperature: `tau`, positive.

    Returns:
        The gates.

    References:
        Louizos, Welling and Kingma, *Learning Sparse Neural Networks through L0 Regularization*,
        2018, eqs. 10 and 11, with stretch (-0.1, 1.1).

    >>> import jax, jax.numpy as jnp
    >>> concrete_gates(jax.random.key(0), jnp.array([-99.0, 99.0]), 0.5).tolist()
    [0.0, 1.0]
    """
    noise = jax.random.logistic(key, logits.shape, logits.dtype)
    return jnp.clip(1.2 * jax.nn.sigmoid((logits + noise) / temperature) - 0.1, 0, 1)


def spike_and_slab_kl(
    logits: Float[Array, "k"],
    mean: Float[Array, "k"],
    std: Float[Array, "k"],
    open_share: Scalar | float,
) -> Float[Array, "k"]:
    r"""KL divergence of a spike-and-slab posterior from a spike-and-slab prior, in nats each.

    With probability `pi` a coefficient is drawn from the slab, otherwise it is 0:

    $$ \mathrm{KL} = \mathrm{KL}(\text{Bern}(\pi) \,\|\, \text{Bern}(\pi_0))
       + \pi\, \mathrm{KL}(N(\mu, \sigma^2) \,\|\, N(0, 1)) $$

    Args:
        logits: log-odds of `pi`, for each coefficient.
        mean: of the slab.
        std: of the slab.
        open_share: `pi_0`, the prior's probability of the slab, in (0, 1).

    Returns:
        The divergence of each dimension, in nats.

    References:
        Tonolini, Jensen and Murray-Smith, *Variational Sparse Coding*, 2019, eq. 7.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones(1)
    >>> spike_and_slab_kl(0 * one, 5 * one, one, 0.5).tolist()
    [6.25]
    """
    share = jax.nn.sigmoid(logits)
    gates = share * (jax.nn.log_sigmoid(logits) - jnp.log(open_share)) + (1 - share) * (
        jax.nn.log_sigmoid(-logits) - jnp.log1p(-jnp.asarray(open_share))
    )
    return gates + share * (0.5 * (mean**2 + std**2 - 1) - jnp.log(std))

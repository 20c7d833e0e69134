"""The metric of a latent space in which distributions that are told apart easily are far apart."""

from collections.abc import Callable
from typing import Any

from latent_flows.geometry.families import Family
from latent_flows.geometry.metrics import Pullback, pullback
from latent_flows.typing import Latent

__all__ = ["fisher_rao"]


def fisher_rao(decode: Callable[[Latent], Any], family: Family) -> Pullback:
    r"""The Fisher-Rao metric of the distributions that a decoder gives, pulled back to its latent.

    $$M(z) = J(z)^\top I(\theta(z))\, J(z), \qquad
      \mathrm{KL}\big(p(x \mid z) \,\|\, p(x \mid z + dz)\big) \approx \tfrac12 dz^\top M(z)\, dz$$

    with the Fisher information $I$ of the likelihood. It needs no metric of data space: what is far
    is what data would tell apart, so that a decoder of counts, of classes or of yes and no has a
    geometry too. A length of 1 is a divergence of half a nat, were it that short.

    Args:
        decode: `z -> parameters` of the likelihood, as the family takes them.
        family: of `latent_flows.geometry.families`: `bernoulli()`, `categorical()`, `poisson()`,
            `negative_binomial(r)`, `gaussian()`, ...; or `of_log_prob` of your own.

    Returns:
        The metric, which keeps an immersion. It is NaN where parameters leave their range, and
        geodesics that cross such places say so.

    Raises:
        ValueError: something that is no family; when called, parameters that the family cannot have
            or of another shape.

    References:
        Arvanitidis, Gonzalez-Duque, Pouplin, Kalatzis and Hauberg, *Pulling back information
        geometry*, 2022, section 3.

    >>> import jax.numpy as jnp
    >>> from latent_flows.geometry import families
    >>> metric = fisher_rao(lambda z: z, families.bernoulli())
    >>> print(metric(jnp.zeros(1)))  # p (1 - p), of logits
    [[0.25]]
    """
    if not isinstance(family, Family):
        raise ValueError(
            f"family must be one of latent_flows.geometry.families, called, got {family!r}"
        )
    return pullback(lambda z: family.coordinates(decode(z)), family.ambient)

"""The loss of a VAE that is trained together with flows of its codes, on pairs of samples.

A pair is a sample `x_0` and a later one `x_t`, in which one factor has changed. `encode_pairs`
draws codes, `transport_codes` moves them along the potentials of known factors, `joint_terms` makes
the terms, and `joint_sum` adds them up.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from latent_flows import flows, pde
from latent_flows._normal import log_normal
from latent_flows.objectives.autoencoders import gaussian_kl
from latent_flows.objectives.sequences import latent_matching
from latent_flows.typing import Latent, Potential, Scalar

__all__ = [
    "JointTerms",
    "PairCodes",
    "Transported",
    "encode_pairs",
    "joint_sum",
    "joint_terms",
    "origins",
    "transport_codes",
]


class PairCodes(NamedTuple):
    """Posteriors of both samples of each pair, the earlier one first, and a draw from each."""

    mean: tuple[Float[Array, "n K d"], Float[Array, "n K d"]]
    """Means."""
    std: tuple[Float[Array, "n K d"], Float[Array, "n K d"]]
    """Standard deviations."""
    z: tuple[Float[Array, "n K d"], Float[Array, "n K d"]]
    """Draws."""


class Transported(NamedTuple):
    """What flows make of codes."""

    end: Float[Array, "n K d"]
    """Where they take the code of `x_0`."""
    start: Float[Array, "n K d"]
    """Where the code of `x_t` comes from."""
    log_prior: Float[Array, "n K"] | None
    """Log-density of the code of `x_t` under the prior that is carried along; None: N(0, I)."""
    residual: Scalar
    """Relative residual of the equation, or zero."""
    inference: Scalar
    """Divergence of what was inferred of the flow from its prior; zero where it is known."""


class JointTerms(NamedTuple):
    """The unweighted terms, in nats a sample."""

    reconstruction: Scalar
    """Negative log-likelihood of each sample, given its own code."""
    kl: Scalar
    """Divergence of posteriors from the prior."""
    transport: Scalar
    """Negative log-likelihood of each sample, given where the flow takes the code of the other."""
    matching: Scalar
    """`latent_matching` of the carried code of `x_0` and the posterior of `x_t`."""
    residual: Scalar
    """Relative residual of the equation; in [0, number of terms]."""
    inference: Scalar
    """Divergence of what was inferred of the flow."""


def encode_pairs(
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    encode: Callable[[Array], tuple[Latent, Latent]],
    before: Float[Array, "n K *event"],
    after: Float[Array, "n K *event"],
) -> PairCodes:
    """Posteriors of pairs of samples, and a draw from each.

    Args:
        keys: random keys, for the earlier samples and for the later ones.
        encode: `x -> (mean, std)`.
        before: the earlier samples, `x_0`.
        after: the later ones, `x_t`.

    Returns:
        The codes.

    >>> pairs = jnp.ones((2, 3, 4))
    >>> keys = jax.random.key(0), jax.random.key(1)
    >>> encode_pairs(keys, lambda x: (x[:2], 0 * x[:2]), pairs, 2 * pairs).z[1][0, 0].tolist()
    [2.0, 2.0]
    """
    stats = [jax.vmap(jax.vmap(encode))(samples) for samples in (before, after)]
    mean, std = zip(*stats, strict=True)
    z = tuple(
        m + s * jax.random.normal(k, m.shape) for k, m, s in zip(keys, mean, std, strict=True)
    )
    return PairCodes(mean, std, z)  # type: ignore[arg-type]


def transport_codes(
    potential: Callable[[PyTree, Scalar, Latent], Scalar],
    params: PyTree,
    codes: PairCodes,
    t: Float[Array, "n K"],
    *,
    equation: Callable[[PyTree, Potential], pde.Residual] | None = None,
    flowed: bool = True,
    steps: int = 4,
    exact: bool = False,
) -> Transported:
    """Codes along the flow of one potential a factor, which is known.

    Args:
        potential: `(parameters, t, z) -> scalar`.
        params: parameters of the `K` potentials, stacked.
        codes: of pairs, in column `k` those between which factor `k` has changed.
        t: how far.
        equation: from the parameters of one, and the potential, to the residual.
        flowed: whether the prior of the later code is N(0, I) carried along, or N(0, I) itself.
        steps: of the midpoint rule along each path.
        exact: whether the density is that of these steps, see `flows.origin`.

    Returns:
        Where the codes go and come from.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, section 3.3.

    >>> z = jnp.ones((1, 1, 2))
    >>> codes = PairCodes((z, z), (z, z), (z, z))
    >>> along = transport_codes(lambda v, t, z: v @ z, jnp.ones((1, 2)), codes, jnp.ones((1, 1)))
    >>> print(along.end[0, 0], along.start[0, 0])
    [2. 2.] [0. 0.]
    """

    def along(own: PyTree, t: Array, z0: Array, zt: Array) -> tuple[dict[str, Array], Scalar]:
        u = partial(potential, own)
        end = jax.vmap(lambda z, t: flows.carry(flows.gradient(u), z, 0.0, t, steps=steps))(z0, t)
        found = {"end": end, **origins(u, zt, t, flowed=flowed, steps=steps, exact=exact)}
        if equation is None:
            return found, jnp.zeros(())
        return found, pde.relative_residual(equation(own, u), t, end)

    moved, residuals = jax.vmap(along, in_axes=(0, 1, 1, 1), out_axes=(1, 0))(params, t, *codes.z)
    return Transported(
        moved["end"],
        moved["start"],
        moved.get("log_prior"),
        jnp.mean(residuals),
        jnp.zeros(()),
    )


def origins(
    u: Potential,
    z: Float[Array, "n d"],
    t: Float[Array, "n"],
    *,
    flowed: bool = True,
    steps: int = 4,
    exact: bool = False,
) -> dict[str, Array]:
    """Where codes of later samples come from, and their prior if it is the one carried along.

    Args:
        u: the potential that takes them there.
        z: the codes.
        t: their times.
        flowed: whether the prior is carried along.
        steps: of the midpoint rule along each path.
        exact: whether the prior is that which these steps carry along, see `flows.origin`.

    Returns:
        `start`, and `log_prior` if it is carried along.

    >>> found = origins(lambda t, z: z.sum(), jnp.ones((1, 2)), jnp.ones(1), flowed=False)
    >>> print(found["start"])
    [[0. 0.]]
    """
    if not flowed:
        back = jax.vmap(lambda z, t: flows.carry(flows.gradient(u), z, t, 0.0, steps=steps))
        return {"start": back(z, t)}
    carried = partial(flows.origin, u, log_normal, steps=steps, exact=exact)
    found = jax.vmap(carried)(z, t)
    return {"start": found.z, "log_prior": found.log_density}


def joint_terms(
    log_likelihood: Callable[[Array, Latent], Scalar],
    before: Float[Array, "n K *event"],
    after: Float[Array, "n K *event"],
    codes: PairCodes,
    moved: Transported,
) -> JointTerms:
    r"""The terms of a VAE whose codes flow.

    The later sample is explained by a code whose prior is N(0, I) carried along the flow,

    $$\log p(x_t) \ge \mathbb E_{q(z_t | x_t)} \bigl[\log p(x_t | z_t) + \log p_t(z_t)
      - \log q(z_t | x_t)\bigr]$$

    Args:
        log_likelihood: `(x, z) -> log p(x | z)`.
        before: the earlier samples, `x_0`.
        after: the later ones, `x_t`.
        codes: of both.
        moved: what the flows make of them.

    Returns:
        The terms.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, section
        3.3; Song et al., *Flow Factorized Representation Learning*, 2023, eq. (9).

    >>> z, one = jnp.zeros((1, 1, 2)), jnp.ones((1, 1, 2))
    >>> codes = PairCodes((z, z), (one, one), (z, z))
    >>> moved = Transported(z, z, None, jnp.zeros(()), jnp.zeros(()))
    >>> terms = joint_terms(lambda x, z: -jnp.sum((x - z) ** 2), one, one, codes, moved)
    >>> print(terms.reconstruction, terms.kl, terms.transport)
    2.0 0.0 2.0
    """
    (mean0, mean1), (std0, std1), (z0, z1) = codes
    each = jax.vmap(jax.vmap(log_likelihood))
    kls = [jnp.mean(jnp.sum(gaussian_kl(m, s), -1)) for m, s in ((mean0, std0), (mean1, std1))]
    if moved.log_prior is not None:
        density = jnp.sum(jax.scipy.stats.norm.logpdf(z1, mean1, std1), -1)
        kls[1] = jnp.mean(density - moved.log_prior)
    fit = jax.vmap(jax.vmap(latent_matching))
    return JointTerms(
        reconstruction=-0.5 * jnp.mean(each(before, z0) + each(after, z1)),
        kl=0.5 * (kls[0] + kls[1]),
        transport=-0.5 * jnp.mean(each(after, moved.end) + each(before, moved.start)),
        matching=jnp.mean(fit(moved.end, mean1, std1)),
        residual=moved.residual,
        inference=moved.inference,
    )


def joint_sum(
    terms: JointTerms,
    *,
    transport: float = 0.5,
    matching: float = 0.02,
    residual: float = 1.0,
    inference: float = 1.0,
    rise: Scalar | float = 1.0,
) -> Scalar:
    """The loss, in nats a sample.

    Args:
        terms: the terms.
        transport: share of the reconstruction at the points to which flows take codes.
        matching: weight of the term of this name.
        residual: weight of the term of this name.
        inference: weight of the term of this name.
        rise: what divergences are multiplied by while they are warmed up.

    Returns:
        The sum.

    >>> print(joint_sum(JointTerms(*jnp.ones(6)), matching=2.0))
    6.0
    """
    total = (1 - transport) * terms.reconstruction + transport * terms.transport
    total += rise * (terms.kl + inference * terms.inference)
    total += matching * terms.matching
    return total + residual * terms.residual

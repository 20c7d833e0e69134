"""What flags say about the K traversals: how each moves a latent, and which equation it obeys."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import PyTree

from experiments.potential_flows.flags import Flows
from experiments.runtime.cli import UsageError
from latent_flows import flows, pde, traversals
from latent_flows.pde import EQUATIONS, coefficient
from latent_flows.potentials import FieldNet, PotentialNet
from latent_flows.typing import Field, Latent, Metric, Scalar

NAMES = {
    "potential": "potentials",
    "linear": "learnt lines",
    "warp": "RBF warps",
    "field": "free fields",
}
"""What the members of a family are called in tables."""


def network(settings: Flows) -> nn.Module:
    """The network that all members share: of time and latent, to a potential or a velocity."""
    if settings.family == "linear":
        return traversals.Line()
    if settings.family == "warp":
        return traversals.Warp(pairs=settings.supports)
    timed = PotentialNet if settings.family == "potential" else FieldNet
    return timed(
        width=settings.width,
        depth=settings.depth,
        horizon=float(settings.horizon),
        initial=settings.initial,
    )


def potential_network(settings: Flows) -> PotentialNet:
    """The network of potentials.

    Raises:
        UsageError: the members are no potentials.
    """
    net = network(settings)
    if not isinstance(net, PotentialNet):
        raise UsageError(
            f"this needs potentials, and flows.family is {settings.family}: "
            f"{NAMES[settings.family]} are the gradient of none"
        )
    return net


@lru_cache(maxsize=8)
def field(settings: Flows, metric: Metric | None = None) -> Field:
    """How one member moves a latent, given its parameters.

    The same function for the same flags, so that what follows it is compiled once.

    Args:
        settings: the flags.
        metric: the generator's, for natural gradients.
    """
    net = network(settings)
    if settings.family != "potential":
        return traversals.following(net)
    if settings.gradient == "natural":
        assert metric is not None
        return traversals.climbing(net, partial(flows.natural_gradient, metric=metric))
    return traversals.climbing(net)


def is_odd(settings: Flows) -> bool:
    """Whether the negatives of potentials would be as good as they are."""
    found = EQUATIONS[settings.pde]
    return settings.family == "potential" and (found is None or found.linear)


def members(settings: Flows, params: PyTree) -> PyTree:
    """The parameters of the members, from those that are learnt."""
    return traversals.orthogonal(params) if settings.orthogonal else params


def row_sums(f: Callable[[Latent], Scalar]) -> Callable[[Latent], Latent]:
    r"""What published code computes in place of a Laplacian: each row of the Hessian summed.

    $$z \mapsto \nabla^2 f(z)\, \mathbf 1$$

    No Laplacian: it depends on the choice of axes, and misses curvature where rows cancel. It is
    here to be compared with one, in whose place it may stand in an equation.

    >>> print(row_sums(lambda z: z[0] * z[1])(jnp.ones(2)))
    [1. 1.]
    """
    return lambda z: jax.jvp(jax.grad(f), (z,), (jnp.ones_like(z),))[1]


def equation(settings: Flows, params: PyTree, raw: Scalar) -> Callable[..., pde.Residual] | None:
    """The equation of one potential, which may be given another `laplacian=`; None for none.

    Args:
        settings: the flags.
        params: of the potential.
        raw: what its coefficient is made of.
    """
    found = EQUATIONS[settings.pde]
    if found is None or settings.family != "potential":
        return None
    apply: Any = network(settings).apply  # flax types its result as a pair as well
    bound = partial(found, partial(apply, params), coefficient(raw))
    return partial(bound, laplacian=row_sums) if settings.laplacian == "row-sum" else bound


def describe(settings: Flows) -> str:
    """What moves latents, in a few words.

    >>> describe(Flows(pde="heat")), describe(Flows(family="linear"))
    ('heat potentials', 'learnt lines')
    """
    if settings.family != "potential":
        return NAMES[settings.family]
    kind = {"none": "free"}.get(settings.pde, settings.pde)
    return f"{kind} {NAMES['potential']}"

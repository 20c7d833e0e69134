"""What flags say about the K traversals: how each moves a latent, and which equation it obeys."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import PyTree

from experiments.potential_flows.flags import Flows
from experiments.runtime.cli import UsageError
from latent_flows import calculus, flows, pde, traversals
from latent_flows.geometry.operators import Operator
from latent_flows.potentials import FieldNet, PotentialNet
from latent_flows.typing import Field, Metric, Potential, Scalar

SPEED_FLOOR = 0.1

Equation = Callable[..., pde.Residual]

EQUATIONS: dict[str, Equation | None] = {
    "wave": pde.wave,
    "heat": pde.heat,
    "hamilton_jacobi": lambda u, _, **options: pde.hamilton_jacobi(u, **options),
    # The potential as a density that relaxes to the prior N(0, I).
    "fokker_planck": lambda u, d, **options: pde.fokker_planck(u, lambda t, z: -z, d, **options),
    "none": None,
}
"""Residuals by name, as functions of a potential and one positive learnt coefficient."""

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


def field(settings: Flows, metric: Metric | None = None) -> Field:
    """How one member moves a latent, given its parameters.

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


def members(settings: Flows, params: PyTree) -> PyTree:
    """The parameters of the members, from those that are learnt."""
    return traversals.orthogonal(params) if settings.orthogonal else params


def coefficient(raw: Scalar) -> Scalar:
    """A positive coefficient of the PDE (wave speed, diffusivity) that cannot vanish."""
    return SPEED_FLOOR + jax.nn.softplus(raw)


def residual(
    settings: Flows, params: PyTree, raw: Scalar, laplacian: Operator = calculus.laplacian
) -> pde.Residual | None:
    """The equation of one potential, or None where there is none.

    Args:
        settings: the flags.
        params: of the potential.
        raw: what its coefficient is made of.
        laplacian: the operator in it.
    """
    equation = EQUATIONS[settings.pde]
    if equation is None or settings.family != "potential":
        return None
    apply: Any = network(settings).apply  # flax types its result as a pair as well
    u: Potential = partial(apply, params)
    return equation(u, coefficient(raw), laplacian=laplacian)


def describe(settings: Flows) -> str:
    """What moves latents, in a few words.

    >>> describe(Flows(pde="heat")), describe(Flows(family="linear"))
    ('heat potentials', 'learnt lines')
    """
    if settings.family != "potential":
        return NAMES[settings.family]
    kind = {"none": "free"}.get(settings.pde, settings.pde)
    return f"{kind} {NAMES['potential']}"

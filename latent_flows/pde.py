"""Partial differential equations, as residuals that vanish on solutions.

An equation is a function that returns its signed terms; `equation` turns it into one that returns
their sum, and keeps the terms, because a residual is only small *compared with* its terms.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows import calculus
from latent_flows.calculus import Number, time_derivative
from latent_flows.typing import Latent, Potential, Scalar, VectorField

__all__ = [
    "EQUATIONS",
    "LearntEquation",
    "Residual",
    "coefficient",
    "described",
    "equation",
    "fokker_planck",
    "hamilton_jacobi",
    "heat",
    "relative_residual",
    "relative_size",
    "wave",
]

Parameters = ParamSpec("Parameters")
Terms: TypeAlias = Callable[[Any, Latent], tuple[Scalar, ...]]
Operator: TypeAlias = Callable[[Callable], Callable[[Latent], Scalar]]


@dataclass(frozen=True)
class Residual:
    """`(t, z) -> scalar`, the sum of the signed terms of an equation."""

    terms: Terms
    """`(t, z) -> (term, ...)`; they sum to zero exactly on solutions. With an operator that gives
    a vector in place of a Laplacian there is one equation a component."""

    def __call__(self, t: Number, z: Latent) -> Scalar:
        return functools.reduce(operator.add, self.terms(t, z))


def equation(
    terms: Callable[Concatenate[Callable, Parameters], Terms],
) -> Callable[Concatenate[Callable, Parameters], Residual]:
    """Make an equation of a function that returns its signed terms.

    Args:
        terms: takes the unknown function and the parameters of the equation, and returns
            `(t, z) -> (term, ...)`. Everything goes on one side: `a = b` has the terms `a, -b`.

    Returns:
        A function of the same arguments that returns the `Residual`.

    >>> import jax.numpy as jnp
    >>> @equation
    ... def decay(u, rate):
    ...     return lambda t, z: (time_derivative(u)(t, z), rate * u(t, z))
    >>> residual = decay(lambda t, z: jnp.exp(-2.0 * t) * z.sum(), 2.0)
    >>> print(abs(residual(0.0, jnp.ones(3))))
    0.0
    """

    @functools.wraps(terms)
    def residual(u, *args, **kwargs):
        return Residual(terms(u, *args, **kwargs))

    return residual


@equation
def wave(u: Potential, speed: Number, *, laplacian: Operator = calculus.laplacian) -> Terms:
    r"""The residual of the wave equation.

    $$u_{tt} - c^2 \Delta u = 0$$

    Args:
        u: `(t, z) -> scalar`.
        speed: `c`; may be traced. Its sign does not matter.
        laplacian: any operator `f -> (z -> scalar)`, so that the wave may live on a manifold.

    Returns:
        The `Residual`, `(t, z) -> scalar`, with terms $u_{tt}$ and $-c^2 \Delta u$.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, eq. (5).

    >>> import jax.numpy as jnp
    >>> residual = wave(lambda t, z: 4.0 * t**2 + z @ z, 2.0)
    >>> print(residual(0.3, jnp.ones(1)))
    0.0
    """
    return lambda t, z: (
        time_derivative(u, order=2)(t, z),
        -(speed**2) * laplacian(lambda y: u(t, y))(z),
    )


@equation
def heat(u: Potential, diffusivity: Number, *, laplacian: Operator = calculus.laplacian) -> Terms:
    r"""The residual of the heat equation.

    $$u_t - D \Delta u = 0$$

    Args:
        u: `(t, z) -> scalar`.
        diffusivity: `D`; may be traced.
        laplacian: any operator `f -> (z -> scalar)`.

    Returns:
        The `Residual`, `(t, z) -> scalar`, with terms $u_t$ and $-D \Delta u$.

    References:
        Evans, *Partial Differential Equations*, 2010, section 2.3.

    >>> import jax.numpy as jnp
    >>> residual = heat(lambda t, z: 6.0 * t + z @ z, 1.0)
    >>> print(residual(0.3, jnp.ones(3)))
    0.0
    """
    return lambda t, z: (
        time_derivative(u)(t, z),
        -diffusivity * laplacian(lambda y: u(t, y))(z),
    )


@equation
def hamilton_jacobi(
    u: Potential,
    source: Potential | None = None,
    *,
    viscosity: Number = 0.0,
    laplacian: Operator = calculus.laplacian,
) -> Terms:
    r"""The residual of the Hamilton-Jacobi equation of a free particle, or a forced one.

    $$u_t + \tfrac12 |\nabla u|^2 - \nu \Delta u - s(t, z) = 0$$

    Without viscosity and source, the flow of $\nabla u$ is dynamic optimal transport.

    Args:
        u: `(t, z) -> scalar`.
        source: `s`, `(t, z) -> scalar`; None for zero.
        viscosity: `nu`; may be traced. At the Python number 0 no Laplacian is computed.
        laplacian: any operator `f -> (z -> scalar)`.

    Returns:
        The `Residual`, `(t, z) -> scalar`, with the terms above, less those left out.

    References:
        Song et al., *Flow Factorized Representation Learning*, 2023, eq. (6); Benamou and
        Brenier, 2000, for the transport.

    >>> import jax.numpy as jnp
    >>> residual = hamilton_jacobi(lambda t, z: z @ z / (2.0 * (t + 1.0)))
    >>> print(residual(1.0, jnp.ones(2)))
    0.0
    """

    def terms(t, z):
        slope = jax.grad(u, argnums=1)(t, z)
        kept = [time_derivative(u)(t, z), slope @ slope / 2]
        if not (isinstance(viscosity, int | float) and viscosity == 0):
            kept.append(-viscosity * laplacian(lambda y: u(t, y))(z))
        if source is not None:
            kept.append(-source(t, z))
        return tuple(kept)

    return terms


@equation
def fokker_planck(
    p: Potential,
    drift: VectorField,
    diffusivity: Number,
    *,
    laplacian: Operator = calculus.laplacian,
    divergence: Operator = calculus.divergence,
) -> Terms:
    r"""The residual of the Fokker-Planck equation.

    $$p_t + \nabla \cdot (p\, b) - D \Delta p = 0$$

    It holds for the density of $dz = b\,dt + \sqrt{2D}\,dW$.

    Args:
        p: the density, `(t, z) -> scalar`.
        drift: `b`, `(t, z) -> vector`.
        diffusivity: `D`; may be traced.
        laplacian: any operator `f -> (z -> scalar)`.
        divergence: any operator `v -> (z -> scalar)`.

    Returns:
        The `Residual`, `(t, z) -> scalar`, with terms $p_t$, $\nabla \cdot (p\,b)$ and
        $-D \Delta p$.

    References:
        Risken, *The Fokker-Planck Equation*, 1989, eq. (1.13).

    >>> import jax.numpy as jnp
    >>> gaussian = lambda t, z: jnp.exp(-z @ z / 2.0)
    >>> residual = fokker_planck(gaussian, lambda t, z: -z, 1.0)
    >>> print(abs(residual(0.0, jnp.ones(2))) < 1e-6)
    True
    """
    return lambda t, z: (
        time_derivative(p)(t, z),
        divergence(lambda y: p(t, y) * drift(t, y))(z),
        -diffusivity * laplacian(lambda y: p(t, y))(z),
    )


def relative_residual(residual: Residual, ts: Array, zs: Array) -> Scalar:
    r"""How large a residual is compared with its terms, over a batch.

    $$\frac{\mathbb E\,\bigl[(\sum_i r_i)^2\bigr]}{\sum_i \mathbb E\,[r_i^2]}$$

    It is 0 for an exact solution, 1 for uncorrelated terms, and at most the number of terms. It
    does not change when `u` is scaled in a linear equation, so a potential cannot make it small by
    being small. Where every term is exactly zero it is 0 as well (`u = 0` *is* a solution), never
    nan; report the displacement along the flow next to it.

    Args:
        residual: one of the equations of this module, or any made by `equation`.
        ts: times, `[n]`.
        zs: points, `[n, d]`.

    Returns:
        A scalar in `[0, number of terms]`.

    Raises:
        ValueError: for shapes other than `[n]` and `[n, d]`.

    >>> import jax.numpy as jnp
    >>> ts, zs = jnp.arange(3.0), jnp.ones((3, 2))
    >>> print(relative_residual(wave(lambda t, z: t**2 + z @ z / 2, 1.0), ts, zs))
    0.0
    >>> print(relative_residual(wave(lambda t, z: 0.0 * z.sum(), 1.0), ts, zs))
    0.0
    """
    if jnp.ndim(ts) != 1 or jnp.ndim(zs) != 2 or jnp.shape(ts)[0] != jnp.shape(zs)[0]:
        raise ValueError(
            f"expected times of shape [n] and points of shape [n, d], got {jnp.shape(ts)} and "
            f"{jnp.shape(zs)}"
        )

    def values(t: Scalar, z: Latent) -> Array:
        # An equation may hold for each component of a vector, as that of the row sums does.
        terms = jnp.stack(jnp.broadcast_arrays(*residual.terms(t, z)))
        return terms.reshape(len(terms), -1)

    found = jnp.moveaxis(jax.vmap(values)(ts, zs), 1, 0)
    return relative_size(tuple(found))


def relative_size(terms: Sequence[Array]) -> Scalar:
    """How large a sum is compared with its terms: `relative_residual` of terms that are known.

    Args:
        terms: the terms, of one shape.

    Returns:
        The mean square of their sum divided by the sum of their mean squares; 0 where all vanish.

    >>> print(relative_size([jnp.ones(3), -jnp.ones(3)]), relative_size([jnp.ones(3)]))
    0.0 1.0
    """
    values = jnp.stack([jnp.ravel(term) for term in terms])
    # Squares of small terms would underflow, so they are measured against the largest.
    scale = jax.lax.stop_gradient(jnp.abs(values).max())
    moves = scale > 0
    values = values / jnp.where(moves, scale, 1.0)
    total = jnp.square(values).mean(1).sum()
    return jnp.square(values.sum(0)).mean() / jnp.where(moves, total, 1.0)


# --- equations by name, with a coefficient that is learnt ---

_LEAST = 0.1
"""Below which no learnt coefficient falls: without it an equation would lose one of its terms."""


@dataclass(frozen=True)
class LearntEquation:
    """An equation of one function and one positive coefficient, `(u, coefficient) -> Residual`.

    >>> residual = EQUATIONS["heat"](lambda t, z: 6.0 * t + z @ z, 1.0)
    >>> print(residual(0.3, jnp.ones(3)))
    0.0
    """

    residual: Callable[..., Residual]
    """Takes the function, the coefficient, and `laplacian=`."""
    about: str
    """What it says, in one line."""
    on_manifold: bool = False
    """Whether the Laplacian is all that a metric would change in it."""
    linear: bool = False
    """Whether what solves it does so times any number, -1 among them."""

    def __call__(
        self, u: Potential, coefficient: Number, *, laplacian: Operator = calculus.laplacian
    ) -> Residual:
        return self.residual(u, coefficient, laplacian=laplacian)


def _free_particle(u: Potential, _: Number, *, laplacian: Operator) -> Residual:
    return hamilton_jacobi(u, laplacian=laplacian)


def _to_the_prior(p: Potential, diffusivity: Number, *, laplacian: Operator) -> Residual:
    return fokker_planck(p, lambda t, z: -z, diffusivity, laplacian=laplacian)


EQUATIONS: dict[str, LearntEquation | None] = {
    "wave": LearntEquation(wave, "u_tt = c^2 lap u", on_manifold=True, linear=True),
    "heat": LearntEquation(heat, "u_t = c lap u", on_manifold=True, linear=True),
    "hamilton_jacobi": LearntEquation(_free_particle, "u_t + |grad u|^2 / 2 = 0, nothing to learn"),
    "fokker_planck": LearntEquation(
        _to_the_prior,
        "u_t = div(u z) + c lap u, a density that relaxes to N(0, c)",
        linear=True,
    ),
    "none": None,
}
"""Equations by name, for experiments; None for no equation. A new one is an entry here."""


def described(equations: Mapping[str, LearntEquation | None] = EQUATIONS) -> str:
    """The names of equations and what each says, for the help of a command.

    Args:
        equations: by name.

    Returns:
        One line.

    >>> described({"heat": EQUATIONS["heat"], "none": None})
    'heat: u_t = c lap u; none'
    """
    return "; ".join(
        name if found is None else f"{name}: {found.about}" for name, found in equations.items()
    )


def coefficient(raw: Float[Array, "*n"]) -> Float[Array, "*n"]:
    r"""A positive coefficient that cannot vanish, of a number that is learnt.

    $$c = 0.1 + \log(1 + e^r)$$

    Args:
        raw: any number, or an array of them.

    Returns:
        The coefficient: a wave's speed, a diffusivity.

    >>> print(coefficient(jnp.array(-100.0)), coefficient(jnp.array(100.0)))
    0.1 100.1
    """
    return _LEAST + jax.nn.softplus(raw)

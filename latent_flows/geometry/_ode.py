"""What the differential equations of this folder share: their starts, tolerances and ends."""

from collections.abc import Sequence

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from latent_flows.typing import Latent

__all__ = ["adaptive", "floats", "hold", "precision", "start"]


def floats(x: ArrayLike | Sequence[float]) -> Array:
    """Numbers as floats of the precision that is switched on, or of their own if that is higher.

    Everything of a solver is then of one dtype, whatever that of the metric. What are no real
    numbers is left as it is, for a check to name.

    Args:
        x: numbers of any kind.

    Returns:
        An array of the same shape.

    >>> print(floats([1, 2]))
    [1. 2.]
    """
    x = jnp.asarray(x)
    if not (jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.floating)):
        return x
    return x.astype(jnp.promote_types(x.dtype, jnp.result_type(float)))


def start(name: str, z: ArrayLike | Sequence[float]) -> Latent:
    """One vector of `floats`.

    Args:
        name: what the caller calls it.
        z: what should be a vector.

    Returns:
        `z` as an array of floats.

    Raises:
        ValueError: for anything but one vector of numbers.

    >>> print(start("z0", [1, 2]))
    [1. 2.]
    """
    z = floats(z)
    if z.ndim != 1 or not jnp.issubdtype(z.dtype, jnp.floating):
        raise ValueError(
            f"{name} must be one vector of numbers, got shape {z.shape} and dtype {z.dtype}; "
            "use jax.vmap for a batch"
        )
    return z


def adaptive(
    tolerance: float, solver: diffrax.AbstractSolver | None
) -> tuple[diffrax.AbstractSolver, diffrax.PIDController]:
    """A solver and the controller of its steps.

    Args:
        tolerance: of the error of one step, relative and absolute, positive.
        solver: the one asked for, or None for what does the least work at that tolerance: `Tsit5`
            down to 1e-6, `Dopri8` below.

    Returns:
        Both.

    Raises:
        ValueError: for a tolerance that is not positive, a solver without an error estimate.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    if solver is None:
        solver = diffrax.Tsit5() if tolerance >= 1e-6 else diffrax.Dopri8()
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise ValueError(f"solver must estimate its error to choose its steps, got {solver}")
    return solver, diffrax.PIDController(rtol=tolerance, atol=tolerance)


def precision(z: Latent) -> float:
    """The tolerance of one step that the numbers of `z` can hold.

    Args:
        z: a latent.

    Returns:
        1e-5 in 32 bits or fewer, 1e-9 in 64.
    """
    return 1e-5 if jnp.finfo(z.dtype).bits <= 32 else 1e-9


def hold(path: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """A path that stays at its last finite point once it is no longer finite.

    Args:
        path: of which the first point is finite.

    Returns:
        The path; finite.

    >>> import jax.numpy as jnp
    >>> print(hold(jnp.array([[1.0], [2.0], [jnp.nan], [jnp.inf]]))[:, 0])
    [1. 2. 2. 2.]
    """
    finite = jnp.isfinite(path).all(-1)
    return path[jax.lax.cummax(jnp.where(finite, jnp.arange(path.shape[0]), 0))]

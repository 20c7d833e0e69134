"""A damped Newton method for functions of a chain of points, each coupled to the next."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from latent_flows.geometry import block_tridiagonal
from latent_flows.typing import Scalar

__all__ = ["Advance", "Minimum", "Model", "minimise", "propose"]


class Model(NamedTuple):
    """What is known of a function around one chain of points: a parabola, and a safer one."""

    value: Scalar
    """The function."""
    gradient: Float[Array, "m d"]
    """Its gradient."""
    diagonal: Float[Array, "m d d"]
    """The diagonal blocks of its Hessian, or of what is known of it."""
    upper: Float[Array, "m-1 d d"]
    """The blocks above the diagonal."""
    safe_diagonal: Float[Array, "m d d"]
    """Diagonal blocks of a positive definite stand-in for the Hessian, for where the Hessian is
    not; also the unit of the damping."""
    safe_upper: Float[Array, "m-1 d d"]
    """The blocks above the diagonal of the stand-in."""
    noise: Scalar
    """The decrement, see `minimise`, that rounding makes of a zero gradient."""
    memory: Any
    """Anything that the next evaluation needs."""


class Minimum(NamedTuple):
    """Where a minimisation ended."""

    points: Float[Array, "m d"]
    """The best chain of points that was found, and if converged one more step from there."""
    model: Model
    """The function before that step; its value is infinite if it was not finite at the start."""
    converged: Bool[Array, ""]
    """Whether the gradient is zero to tolerance, as `minimise` defines it."""
    iterations: Int[Array, ""]
    """How many times the function was evaluated."""


Advance = Callable[[Float[Array, "m d"], Float[Array, "m d"], Model], tuple[Model, Model]]
"""`(points, step, here) -> (there, here)`: the model at `points`, which lie one `step` from where
the model `here` was made; and that one, if the step taught something about it, amended. The first
call comes with a step of zero, and zeros in the memory of `here`."""


class _State(NamedTuple):
    points: Float[Array, "m d"]
    here: Model
    step: Float[Array, "m d"]
    squared_decrement: Scalar
    left: Scalar
    damping: Scalar
    iterations: Int[Array, ""]


def minimise(
    advance: Advance,
    blank: Model,
    start: Float[Array, "m d"],
    *,
    tolerance: float,
    max_iterations: int,
) -> Minimum:
    r"""Minimise a function of a chain of points by damped Newton steps.

    Each step solves $(H + \lambda \operatorname{diag} B)\, s = -g$ with the model's Hessian $H$,
    or, where that is not positive definite, with the stand-in $B$. A step that does not lower the
    function is not taken; the damping $\lambda$ then grows, and shrinks again, down to zero, with
    steps that do what the model foretold. The function is evaluated once a step.

    It has converged when the Newton decrement $\delta = \sqrt{-g^\top s}$, of which half the square
    is what a step should gain, is at most `tolerance` times the root of the value, or is what
    rounding makes of zero. It does not depend on the units of the points. A last step is then taken
    on trust. Once the decrement falls fast, $\delta_k^2 < \delta_{k-1}^2 / 10$, what counts is
    $\delta_k^2 / \delta_{k-1}$, the decrement that is to be expected after this last step. Damping
    makes decrements small, and is made up for by a factor $\sqrt{1 + \lambda}$.

    Args:
        advance: gives the model at new points; see `Advance`.
        blank: a model of the right shapes, all zeros.
        start: the points to start from.
        tolerance: relative decrement at which to stop.
        max_iterations: the most evaluations.

    Returns:
        A `Minimum`. Nothing that is not finite is ever stepped to.

    References:
        Moré, *The Levenberg-Marquardt Algorithm: Implementation and Theory*, 1978.
    """
    tiny = jnp.finfo(start.dtype).eps

    def unfinished(state: _State) -> Bool[Array, ""]:
        model = state.here
        return (state.iterations == 0) | (
            jnp.isfinite(model.value)
            & (state.left > _target(model, tolerance))
            & (state.iterations < max_iterations)
            & (state.damping < 1e8)
        )

    def iterate(state: _State) -> _State:
        trial = state.points + state.step
        there, here = advance(trial, state.step, state.here)
        gained = here.value - there.value
        finite = jnp.isfinite(there.value) & jnp.isfinite(there.gradient).all()
        taken = finite & (gained >= -32 * tiny * jnp.abs(here.value))
        ratio = 2 * gained / state.squared_decrement
        less = jnp.where(state.damping < 1e-3, 0, state.damping / 8)
        damping = jnp.where(
            (ratio > 0.75) | (state.iterations == 0),
            less,
            jnp.where(ratio > 0.2, state.damping, jnp.maximum(4 * state.damping, 0.03)),
        )
        here = jax.tree.map(lambda new, old: jnp.where(taken, new, old), there, here)
        step, squared_decrement = propose(here, damping)
        # Steps that get shorter that fast will go on to do so; not where damping makes them short.
        shrinking = squared_decrement / state.squared_decrement
        shrinking = jnp.where(taken & (shrinking < 0.1), shrinking, 1)
        return _State(
            points=jnp.where(taken, trial, state.points),
            here=here,
            step=step,
            squared_decrement=squared_decrement,
            left=shrinking * squared_decrement * (1 + damping),
            damping=damping,
            iterations=state.iterations + 1,
        )

    zero = jnp.zeros((), start.dtype)
    state = jax.lax.while_loop(
        unfinished,
        iterate,
        _State(
            points=start,
            here=blank._replace(value=zero + jnp.inf),
            step=jnp.zeros_like(start),
            squared_decrement=zero,
            left=zero,
            damping=zero,
            iterations=jnp.zeros((), int),
        ),
    )
    converged = jnp.isfinite(state.here.value) & (state.left <= _target(state.here, tolerance))
    return Minimum(
        # The last step is known already and comes closer still.
        points=state.points + jnp.where(converged, state.step, 0),
        model=state.here,
        converged=converged,
        iterations=state.iterations,
    )


def _target(model: Model, tolerance: float) -> Scalar:
    """The square of the decrement at which to stop."""
    return tolerance**2 * jnp.abs(model.value) + model.noise**2


def propose(model: Model, damping: Scalar) -> tuple[Float[Array, "m d"], Scalar]:
    """The next step, and the square of the decrement.

    Args:
        model: of the function near a point.
        damping: how much of the safe diagonal is added.

    Returns:
        The step, then the square of the decrement.
    """
    systems = (
        jnp.stack([model.diagonal, model.safe_diagonal]) + damping * model.safe_diagonal,
        jnp.stack([model.upper, model.safe_upper]),
    )
    solve = jax.vmap(partial(block_tridiagonal.solve, right=-model.gradient))
    newton, safe = solve(*systems)
    step = jnp.where(jnp.isfinite(newton).all(), newton, safe)
    return step, -(step * model.gradient).sum()

"""A damped Newton method for functions of a chain of points, each coupled to the next."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from latent_flows._results import Result, first_failure
from latent_flows.geometry import _block_tridiagonal
from latent_flows.typing import Scalar

__all__ = ["Advance", "Minimum", "Model", "Problem", "minimise", "minimum", "propose"]


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
    finer: Scalar
    """The function by another rule, which is much larger than `value` where too few samples miss
    what lies between them."""
    memory: Any
    """Anything that the next evaluation needs."""


_SAMPLED = 1.5
"""How much larger `finer` may be than `value`; no matter where the search came from a place where
it was larger still."""


_SADDLE = 1e-3
"""Curvature, in units of the safe Hessian's, that has to be negative by more than rounding."""
_WAVES = 4
"""Waves along the chain among which the direction of least curvature is sought."""
_ESCAPES = 4
"""How often a search that has ended at a saddle goes on from there."""
_KICKS = (1.0, 0.25, 1 / 16, 1 / 64)
"""Squared sizes of the first step from a saddle, in units of the safe Hessian and the value."""


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
    result: Result
    """Why it has not converged, if it has not."""


Advance = Callable[[Float[Array, "m d"], Float[Array, "m d"], Model], tuple[Model, Model]]
"""`(points, step, here) -> (there, here)`: the model at `points`, which lie one `step` from where
the model `here` was made; and that one, if the step taught something about it, amended. The first
call comes with a step of zero, and zeros in the memory of `here`."""


class Problem(NamedTuple):
    """A function of a chain of points, as its minimisation asks for it."""

    value: Callable[[Float[Array, "m d"]], Scalar]
    """The function itself."""
    advance: Advance
    """Its models, one after the other."""
    blank: Model
    """A model of the right shapes, all zeros."""
    exact: Callable[[Float[Array, "m d"], Model], Model]
    """`(points, model) -> model`: the model of a place near `points` with the exact Hessian at
    `points`, which tells a minimum from a saddle."""


class _Search(NamedTuple):
    found: Minimum
    start: Float[Array, "m d"]
    """Where to go on from."""
    saddle: Bool[Array, ""]
    rounds: Int[Array, ""]


class _State(NamedTuple):
    points: Float[Array, "m d"]
    here: Model
    step: Float[Array, "m d"]
    squared_decrement: Scalar
    left: Scalar
    damping: Scalar
    iterations: Int[Array, ""]


def minimum(
    problem: Problem,
    start: Float[Array, "m d"],
    *,
    tolerance: float,
    max_iterations: int,
) -> Minimum:
    """Minimise a function of a chain of points, past saddles.

    Where the gradient of `minimise` is zero but the Hessian is not positive semidefinite, it goes
    on along the direction of least curvature.

    Args:
        problem: the function.
        start: the points to start from.
        tolerance: as in `minimise`.
        max_iterations: as in `minimise`, after each saddle anew.

    Returns:
        A `Minimum`, which has not converged where it is a saddle.
    """

    def go_on(search: _Search) -> _Search:
        found = minimise(
            problem.advance,
            problem.blank,
            search.start,
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
        start, saddle = _leave(problem, found)
        result = first_failure((~saddle, Result.stalled), (found.converged, found.result))
        found = found._replace(converged=found.converged & ~saddle, result=result)
        return _Search(found, start, saddle, search.rounds + 1)

    no, none = jnp.array(False), jnp.zeros((), int)
    nowhere = first_failure((no, Result.stalled))
    return jax.lax.while_loop(
        lambda search: (search.rounds == 0) | search.saddle & (search.rounds <= _ESCAPES),
        go_on,
        _Search(Minimum(start, problem.blank, no, none, nowhere), start, no, none),
    ).found


def _leave(problem: Problem, found: Minimum) -> tuple[Float[Array, "m d"], Bool[Array, ""]]:
    """Where to go on from a saddle, and whether it is one: whether there is a way down.

    Nothing is done where the Hessian is positive semidefinite, of a whole batch if need be.
    """
    model, points = found.model, found.points
    along = _downhill(problem.exact(points, model))
    sizes = jnp.sqrt(2 * jnp.abs(model.value) * jnp.array(_KICKS, points.dtype))
    margin = 32 * jnp.finfo(points.dtype).eps * jnp.abs(model.value) + model.noise**2

    def kick(state: tuple[Int[Array, ""], Array, Array]) -> tuple[Int[Array, ""], Array, Array]:
        count, _, _ = state
        there = points + sizes[count] * along
        return count + 1, there, problem.value(there) < model.value - margin

    is_saddle = found.converged & (along != 0).any()
    _, there, lower = jax.lax.while_loop(
        lambda state: is_saddle & (state[0] < len(_KICKS)) & ~state[2],
        kick,
        (jnp.zeros((), int), points, jnp.array(False)),
    )
    return jnp.where(lower, there, points), lower


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
    function is not taken, nor one to where its samples miss most of it; the damping $\lambda$ then
    grows, and shrinks again, down to zero, with steps that do what the model foretold. The function
    is evaluated once a step.

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
        sampled = _is_sampled(there, here)
        taken = finite & sampled & (gained >= -32 * tiny * jnp.abs(here.value))
        ratio = jnp.where(sampled, 2 * gained / state.squared_decrement, 0)
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
        result=first_failure(
            (converged | (state.iterations < max_iterations), Result.max_steps_reached),
            (converged, Result.stalled),
        ),
    )


def _is_sampled(there: Model, here: Model) -> Bool[Array, ""]:
    """Whether the samples of the function still tell what it is, or no less than they did."""
    known = jnp.isfinite(here.value)
    ratio = jnp.where(known, here.finer / jnp.where(here.value > 0, here.value, 1), jnp.inf)
    most = jnp.maximum(_SAMPLED, jnp.where(jnp.isnan(ratio), jnp.inf, ratio))
    return (there.finer <= most * there.value + there.noise**2) | (most == jnp.inf)


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
    solve = jax.vmap(partial(_block_tridiagonal.solve, right=-model.gradient))
    newton, safe = solve(*systems)
    step = jnp.where(jnp.isfinite(newton).all(), newton, safe)
    return step, -(step * model.gradient).sum()


def _downhill(model: Model) -> Float[Array, "m d"]:
    r"""The direction in which a stationary point is most of a saddle.

    The lowest Ritz vector of $H x = \mu B x$ among the slowest waves with fixed ends: what a curve
    that has passed a conjugate point can gain by is smooth.

    Args:
        model: the function there, with its exact Hessian.

    Returns:
        `x` with $x^\top B x = 1$; zero where no $\mu$ is negative by more than rounding.

    References:
        Saad, *Numerical Methods for Large Eigenvalue Problems*, 2011, section 4.3.
    """
    m, d = model.gradient.shape
    waves = np.sin(np.pi * np.outer(1 + np.arange(min(_WAVES, m)), 1 + np.arange(m)) / (m + 1))
    basis = np.einsum("km,de->kdme", waves, np.eye(d)).reshape(-1, m, d)
    trial = jnp.asarray(basis, model.gradient.dtype)

    def projected(diagonal: Float[Array, "m d d"], upper: Float[Array, "m-1 d d"]) -> Array:
        images = jax.vmap(partial(_block_tridiagonal.times, diagonal, upper))(trial)
        small = jnp.einsum("imd,jmd->ij", trial, images)
        return (small + small.T) / 2

    lower = jnp.linalg.cholesky(projected(model.safe_diagonal, model.safe_upper))
    inward = jax.scipy.linalg.solve_triangular(
        lower, jnp.eye(len(basis), dtype=lower.dtype), lower=True
    )
    values, vectors = jnp.linalg.eigh(inward @ projected(model.diagonal, model.upper) @ inward.T)
    x = jnp.einsum("i,imd->md", vectors[:, 0] @ inward, trial)
    return jnp.where((values[0] < -_SADDLE) & jnp.isfinite(x).all(), x, 0)

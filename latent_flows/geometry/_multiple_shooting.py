"""Multiple shooting: a curve between two points refined until it solves the geodesic equation."""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Float

from latent_flows.typing import Latent

__all__ = ["State", "multiple_shooting"]

State = Float[Array, "two_d"]
"""A point and a velocity, one after the other."""


def multiple_shooting(
    field: Callable[[State], State],
    states: Float[Array, "arcs two_d"],
    z1: Latent,
    *,
    max_steps: int,
) -> tuple[Latent, Float[Array, "d d"]]:
    r"""The initial velocity of the geodesic that is near a curve.

    The curve is cut into arcs of equal duration. Each is followed from its own point and velocity
    $y_i = (z_i, v_i)$ by one step of Tsit5, $\Phi$, and Newton's method closes the gaps,

    $$A_i\, \delta_i - \delta_{i+1} = y_{i+1} - \Phi(y_i), \qquad A_i = \Phi'(y_i)$$

    with the end points held, by eliminating all unknowns but the first velocity. A geodesic is as
    sensitive to its first velocity as it is long and its surface crooked; cut into arcs, the method
    converges from curves where shooting all the way has long lost its target.

    Args:
        field: the geodesic equation, `(z, v) -> (v, acceleration)`.
        states: where the arcs start and how fast, for a curve that takes one unit of time. The
            first point is held. The error is of the fifth order in the duration of an arc.
        z1: where the last arc ends.
        max_steps: the most steps of Newton's method; it ends when one changes nothing by more than
            a part in ten thousand, so that the next would change nothing in 32 bits.

    Returns:
        The first velocity, and the derivative of the end point with respect to it. Neither is
        checked; where the method diverges they may be anything.

    References:
        Stoer and Bulirsch, *Introduction to Numerical Analysis*, 2002, section 7.3.5.
    """
    arcs, dim = states.shape[0], z1.shape[0]
    term = diffrax.ODETerm(lambda t, y, args: field(y))
    solver = diffrax.Tsit5(scan_kind="lax")  # the one that forward mode goes through

    def follow(y: State) -> tuple[State, State]:
        begin, end = jnp.zeros((), y.dtype), jnp.full((), 1 / arcs, y.dtype)
        state = solver.init(term, begin, end, y, None)
        y = solver.step(term, begin, end, y, None, state, made_jump=False)[0]
        return y, y

    def newton(carry: tuple[Array, Array], args: None) -> tuple[Array, Array]:
        y, _ = carry
        slope, end = jax.vmap(jax.jacfwd(follow, has_aux=True))(y)
        gap = end - jnp.concatenate([y[1:], jnp.zeros_like(y[:1])])

        def onwards(move: Array, arc: tuple[Array, Array]) -> Array:
            slope, gap = arc
            return (slope @ move).at[:, -1].add(gap)

        # How every state moves: with each number of the first velocity, and as the gaps close.
        first = jnp.eye(2 * dim, dim + 1, -dim, dtype=y.dtype)
        first = first.at[:, -1].set(0)
        last, moves = jax.lax.scan(lambda m, arc: (onwards(m, arc), m), first, (slope, gap))
        reach = last[:dim, :-1]
        kick = jnp.linalg.solve(reach, z1 - last[:dim, -1])
        return y + moves @ jnp.append(kick, 1), reach

    y, reach = optimistix.fixed_point(
        newton,
        optimistix.FixedPointIteration(rtol=1e-4, atol=1e-4),
        (states, jnp.zeros((dim, dim), states.dtype)),
        max_steps=max_steps,
        throw=False,
    ).value
    return y[0, dim:], reach

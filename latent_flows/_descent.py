"""Descent to the least of a smooth function of few parameters, as one program."""

from collections.abc import Callable

import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

__all__ = ["descend"]


def descend(
    objective: Callable,
    start: PyTree,
    steps: int,
    learning_rate: float,
    key: PRNGKeyArray | None = None,
) -> PyTree:
    """Parameters after so many steps of Adam; with a key, each step gets one of its own."""
    # Objectives are of order one; this eps keeps Adam from following gradients that are rounding.
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps), eps=1e-4)

    def step(state, key):
        parameters, opt_state = state
        slope = jax.grad(objective)(parameters, *(() if key is None else (key,)))
        updates, opt_state = optimizer.update(slope, opt_state, parameters)
        return (optax.apply_updates(parameters, updates), opt_state), None

    keys = None if key is None else jax.random.split(key, steps)
    (parameters, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys, length=steps)
    return parameters

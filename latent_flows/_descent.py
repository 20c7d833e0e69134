"""Descent to the least of a smooth function of few parameters, as one program."""

from collections.abc import Callable

import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

__all__ = ["descend", "settling"]


def settling(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam whose step falls to 0 along a cosine, for objectives of order one.

    Args:
        learning_rate: at the first step.
        steps: after which it is 0.

    Returns:
        The optimiser.
    """
    # This eps keeps Adam from following gradients that are rounding.
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps), eps=1e-4)


def descend(
    optimizer: optax.GradientTransformation,
    objective: Callable,
    start: PyTree,
    steps: int,
    key: PRNGKeyArray | None = None,
) -> PyTree:
    """Parameters after so many steps; with a key, each step gets one of its own.

    Args:
        optimizer: that makes the steps.
        objective: of the parameters, or of these and a key.
        start: the parameters before the first step.
        steps: how many.
        key: randomness of the objective.

    Returns:
        The parameters.
    """

    def step(state, key):
        parameters, opt_state = state
        slope = jax.grad(objective)(parameters, *(() if key is None else (key,)))
        updates, opt_state = optimizer.update(slope, opt_state, parameters)
        return (optax.apply_updates(parameters, updates), opt_state), None

    keys = None if key is None else jax.random.split(key, steps)
    (parameters, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys, length=steps)
    return parameters

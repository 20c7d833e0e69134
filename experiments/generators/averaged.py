"""Training whose result is a moving average of the parameters, for targets that are random."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from experiments.runtime.run_dir import Folder
from experiments.runtime.training import (
    Batch,
    Batches,
    Init,
    Params,
    State,
    Training,
    advance,
    optimizer,
)
from latent_flows.generators.adversarial import average
from latent_flows.typing import Scalar

Loss: TypeAlias = Callable[[Params, Array, Batch], Scalar]
"""`(params, key, batch) -> loss`."""


def fit(
    folder: Folder,
    phase: str,
    *,
    init: Init,
    loss: Loss,
    batches: Batches,
    config: Training,
    decay: float,
    seed: int,
    describe: str,
) -> Params:
    """Train, or go on training, in a run folder: the averaged parameters.

    Args:
        folder: the run folder.
        phase: name of what is trained.
        init: `key -> params`.
        loss: of the parameters, a key and a batch.
        batches: from the batch of a step on.
        config: optimiser and duration.
        decay: of the average.
        seed: source of all randomness, with the phase.
        describe: what the progress line calls it.

    Returns:
        The average after the last step.
    """
    method = optimizer(config)

    def begin(key: PRNGKeyArray) -> State:
        params = init(key)
        # The average starts as a copy, since the two buffers are given to the first step.
        copy = jax.tree.map(jnp.copy, params)
        return State(jnp.zeros((), jnp.int32), copy, (params, method.init(params)))

    return advance(
        folder,
        phase,
        begin=begin,
        update=partial(_update, method, loss, decay),
        batches=batches,
        config=config,
        seed=seed,
        describe=describe,
    ).params


def _update(
    method: optax.GradientTransformation,
    loss: Loss,
    decay: float,
    state: State,
    key: PRNGKeyArray,
    batch: Batch,
) -> tuple[State, dict[str, Scalar]]:
    params, memory = state.opt_state
    key = jax.random.fold_in(key, state.step)
    value, slope = jax.value_and_grad(loss)(params, key, batch)
    change, memory = method.update(slope, memory, params)
    params = optax.apply_updates(params, change)
    mean = average(state.params, params, state.step, decay)
    metrics = {"loss": value, "grad_norm": optax.global_norm(slope)}
    return State(state.step + 1, mean, (params, memory)), metrics

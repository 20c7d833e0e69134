"""The loss by which guided flows are taught, and what a constant direction makes of it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments.potential_flows.families import EQUATIONS, coefficient
from experiments.runtime.training import Batch, Params
from experiments.supervised_flows.config import (
    Config,
    network,
    progress,
    residual_is_on,
)
from experiments.supervised_flows.known import Known
from experiments.supervised_flows.sequences import Seen, Taught
from latent_flows import data, flows, objectives
from latent_flows.directions.sequences import constant_direction, mean_square_step
from latent_flows.typing import Scalar


def lessons(config: Config, taught: Taught, seen: Seen) -> data.Dataset:
    """The sequences as a data set, one row a sequence of every factor."""
    # Where there are fewer than a batch has, they are shown more than once.
    times = -(-config.training.batch_size // len(taught.start))
    arrays = {
        "start": taught.start,
        "sign": taught.sign,
        "codes": taught.codes,
        # In units of the distance that a flow that stands still misses by.
        "metric": seen.metric / stillness(taught, seen)[:, None, None],
        "slopes": seen.slopes,
    }
    repeated: dict[str, Any] = {
        name: np.concatenate([np.asarray(rows)] * times) for name, rows in arrays.items()
    }
    return data.from_arrays("sequences", **repeated)


def loss(
    config: Config, known: Known, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the terms of one step, all potentials at once."""
    del step
    keys = jax.random.split(key, len(config.sequences.factors))
    kept = jnp.asarray(known.others(config.sequences.factors), batch["codes"].dtype)
    found = jax.vmap(partial(taught_by, config), in_axes=(0, 0, 0, 0, 1))(
        params["potentials"], params["coefficients"], keys, kept, dict(batch)
    )
    terms = {name: jnp.mean(value) for name, value in found.items()}
    total = sum(getattr(config.weights, name) * value for name, value in terms.items())
    return jnp.asarray(total), terms


def taught_by(
    config: Config,
    params: PyTree,
    raw: Scalar,
    key: Array,
    kept: Float[Array, "f"],
    batch: Batch,
) -> dict[str, Scalar]:
    """The terms of one potential on sequences of its factor."""
    equation = EQUATIONS[config.flows.pde] if residual_is_on(config) else None
    apply: Any = network(config).apply  # flax types its result as a pair as well
    terms = objectives.guided_flow_terms(
        key,
        partial(apply, params),
        objectives.GuidedBatch(**batch),
        kept,
        horizon=config.sequences.horizon,
        solver=flows.solver(config.flows.solver),
        equation=None if equation is None else lambda u: equation(u, coefficient(raw)),
    )
    return terms._asdict()


def stillness(taught: Taught, seen: Seen) -> Float[Array, "k"]:
    """Mean squared distance from the sequences of a flow that stands still, for each factor."""
    each = jax.vmap(mean_square_step, in_axes=1)
    return each(taught.codes[:, :, 0], taught.codes[:, :, 1:], seen.metric)


def constant_directions(
    config: Config, known: Known, taught: Taught, seen: Seen
) -> Float[Array, "k m"]:
    """The best constant direction of each factor for the same sequences and the same loss."""
    horizon, weights = config.sequences.horizon, config.weights
    ends = taught.start[..., None] + jnp.arange(1.0, horizon + 1)
    passed = progress(config, ends) - progress(config, taught.start)[..., None]
    slopes = seen.slopes * known.others(config.sequences.factors)[None, :, None, :, None]
    leaks = jnp.einsum("nkpfi,nkpfj->kij", slopes, slopes) / np.prod(slopes.shape[0:3:2])
    # In units of the landing, which may be left out; then there is no saying how far to go.
    leakage = weights.leakage / max(weights.landing, 1e-6)

    def each(z0: Array, zs: Array, amounts: Array, metric: Array, penalty: Array) -> Array:
        return constant_direction(z0, zs, amounts, metric=metric, penalty=penalty)

    return jax.vmap(each, in_axes=(1, 1, 1, 1, 0))(
        taught.codes[:, :, 0],
        taught.codes[:, :, 1:],
        passed * taught.sign[..., None],
        seen.metric,
        leakage * leaks / config.sequences.reach**2,
    )

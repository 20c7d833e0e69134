"""The prior of a trained VAE: a flow from noise to the codes of its training images."""

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators.training_data import encoded, shown
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Batch, Params, Training, drawn, fit
from latent_flows._validation import at_least
from latent_flows.data import Dataset
from latent_flows.generators import FrozenGenerator
from latent_flows.generators._flow_map import check_steps
from latent_flows.generators.prior_flow import (
    PriorFlow,
    blend_mixture,
    draw_codes,
    held_out,
    init_prior_flow,
    prior_flow_loss,
)
from latent_flows.typing import Scalar

PHASE = "prior_flow"
AT_ONCE = 1000
"""Images that are in memory at once."""


@dataclass(frozen=True)
class PriorSettings:
    """The flow that becomes the prior, trained on codes with the VAE frozen."""

    width: int = 64
    """Units of a layer of its velocity field."""
    depth: int = 3
    """Residual blocks of its velocity field."""
    codes: int = 20_000
    """Training images, at most, whose posteriors codes are drawn from."""
    steps: int = 16
    """Steps of the solver from noise to codes, all equal; 0: it chooses them."""
    solver: str = "tsit5"
    """Solver: euler, heun, midpoint, ralston, bosh3, tsit5, dopri5 or dopri8."""
    training: Training = field(
        default_factory=lambda: Training(
            steps=5000, batch_size=256, learning_rate=4e-3, decay="cosine", checkpoint_every=2000
        )
    )
    """Optimiser and duration."""

    def __post_init__(self) -> None:
        at_least(self, "prior_flow.", width=1, depth=1, codes=2, steps=0)
        check_steps(self.steps or None, self.solver)


def check(
    config: PriorSettings, latent_dim: int, dataset: Dataset, *, flags: str = "--prior-flow."
) -> None:
    """Reject too few codes for a flow.

    Args:
        config: of the flow.
        latent_dim: numbers of a code.
        dataset: whose examples are encoded.
        flags: how the flags of `config` begin.

    Raises:
        ValueError: fewer than a batch has, or than a covariance needs.
    """
    there = min(config.codes, dataset.length)
    needed = max(config.training.batch_size, latent_dim + 1)
    if there < needed:
        raise ValueError(
            f"the flow prior learns from {there} codes, and needs {needed} for its batches and for "
            f"the covariance of all latents; raise {flags}codes, or lower "
            f"{flags}training.batch-size"
        )


def train(
    folder: Folder, config: PriorSettings, generator: FrozenGenerator, dataset: Dataset, seed: int
) -> PriorFlow:
    """Fit, or go on fitting, a flow to the codes of training images."""
    with announced("encoding images, for their codes to be the prior"):
        means, stds = codes(config, generator, dataset, seed)
    key = jax.random.key(seed)
    drawn_codes = draw_codes(key, jnp.asarray(means), jnp.asarray(stds))
    # They are in random order.
    held = held_out(len(means), config.training.batch_size)
    flow = init_prior_flow(
        key,
        drawn_codes,
        width=config.width,
        depth=config.depth,
        steps=config.steps or None,
        solver=config.solver,
    )
    params = fit(
        folder,
        PHASE,
        init=partial(initial, flow),
        loss=partial(loss, flow),
        batches=drawn({"mean": means[held:], "std": stds[held:]}, config.training.batch_size, seed),
        config=config.training,
        seed=seed,
        describe=f"prior of {generator.name}",
    )
    flow = replace(flow, params=params)
    if not held:
        return flow
    with announced("comparing the flow with mixtures of Gaussians, by held-out codes"):
        return blend_mixture(flow, key, drawn_codes[held:], drawn_codes[:held])


def codes(
    config: PriorSettings, generator: FrozenGenerator, dataset: Dataset, seed: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n d"]]:
    """Posteriors of training images, transformed as the VAE saw them."""
    chosen = np.random.default_rng(seed).permutation(dataset.length)[: config.codes]
    parts = [
        jax.tree.map(np.asarray, encoded(generator, shown(generator, dataset, part, seed + i)))
        for i, part in enumerate(np.split(chosen, range(AT_ONCE, len(chosen), AT_ONCE)))
    ]
    means, stds = zip(*parts, strict=True)
    return np.concatenate(means), np.concatenate(stds)


def initial(flow: PriorFlow, key: Array) -> Params:
    """Fresh parameters of the velocity field."""
    return flow.net.init(key, 0.0, jnp.zeros_like(flow.mean))


def loss(
    flow: PriorFlow, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    """The flow-matching loss of a draw from each posterior."""
    del step
    code_key, loss_key = jax.random.split(key)
    drawn = draw_codes(code_key, batch["mean"], batch["std"])
    return prior_flow_loss(replace(flow, params=params), loss_key, drawn), {}

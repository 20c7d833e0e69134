"""The numbers and pictures of a VAE that was trained with flows."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.flow_vae.config import PHASE, Config
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params
from latent_flows import plots
from latent_flows.data.sequences import Sequences
from latent_flows.evaluation.flow_vae import (
    factor_directions,
    factor_equivariance,
    follower,
    frame_bounds,
    held_out_sequences,
    sample_bounds,
    sequence_bound,
)
from latent_flows.generators.vae import generator
from latent_flows.objectives.flow_vae import FlowVAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    model: FlowVAE, config: Config, params: Params, train: Sequences, test: Sequences
) -> dict[str, Any]:
    """All numbers of a run, each a mean over the held-out images; bounds are in nats an image."""
    samples, steps = config.scores.samples, config.scores.steps
    found = held_out_sequences(test, min(config.scores.images, test.dataset.length))
    result: dict[str, Any] = {
        "kind": model.kind,
        "test_images": len(found.t),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }
    flowed = config.objective.prior == "flowed"
    result |= sample_bounds(model, params, found, flowed=flowed, samples=samples, steps=steps)
    few = jax.tree.map(lambda leaf: leaf[: config.scores.sequences], found)
    result |= frame_bounds(model, params, few, flowed=flowed, samples=samples, steps=steps)
    result["iwae_sequence"] = sequence_bound(model, params, few, samples=samples, steps=steps)
    straight = factor_directions(model, params, train, seed=config.seed)
    return result | factor_equivariance(model, params, few, straight, test.factors, steps=steps)


def tabulated(config: Config, metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The numbers of a run as rows of tables, by their titles."""
    numbers = {name: value for name, value in metrics.items() if name != "factors"}
    return {
        f"{config.objective.kind} on {config.data}, held out": [numbers],
        "Error in pixels a frame": metrics["factors"],
    }


def draw(
    folder: Folder, model: FlowVAE, config: Config, params: Params, test: Sequences
) -> list[str]:
    """Save sequences and losses; gives the files of those that could not be drawn."""
    figures: dict[str, Callable[[], Figure]] = {
        "sequences": partial(draw_sequences, model, config, params, test),
        "losses_vae": lambda: plots.loss_curves(
            folder.rows(PHASE), caption="Loss per pixel, and its terms in nats per image."
        ),
    }
    return tables.save_figures(folder, figures)


def draw_sequences(model: FlowVAE, config: Config, params: Params, test: Sequences) -> "Figure":
    """True sequences, what becomes of `x_0` by the flow, and reconstructions."""
    found = held_out_sequences(test, 1)
    encode, decode = model.encoder(params), generator(model.vae, params["vae"])
    own = follower(model, params, steps=config.scores.steps)
    ts = jnp.arange(float(config.frames))
    rows, labels = [], []
    for k, name in enumerate(test.factors):
        xs = found.sequences[0, k]
        rows.append(xs)
        labels.append(f"{name}: true")
        if own is not None:
            codes = own(jnp.asarray(k), xs[-1], encode(xs[0])[0], ts)
            rows.append(jax.vmap(decode)(codes))
            labels.append("by the flow, from the first")
        rows.append(jax.vmap(lambda x: decode(encode(x)[0]))(xs))
        labels.append("each reconstructed")
    return plots.strips(
        np.asarray(jnp.stack(rows)),
        row_labels=labels,
        axis="time",
        caption=f"Held-out sequences of {test.dataset.name}; kind: {model.kind}.",
    )

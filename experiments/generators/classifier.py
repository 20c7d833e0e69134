"""The training of a classifier of labelled data, which judges what a generator makes."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Batch, Init, Params, Training, fit
from latent_flows import data
from latent_flows.data import Dataset
from latent_flows.data.dataset import Examples
from latent_flows.typing import Scalar

PHASE = "classifier"

Logits: TypeAlias = Callable[[Params, Float[Array, "n h w c"]], Float[Array, "n classes"]]
"""`(params, images) -> logits`."""


def labels(examples: Examples) -> Int[np.ndarray, "n"] | None:
    """What a classifier can tell apart: labels, those of data that are drawn, or None."""
    if "label" in examples:
        return np.asarray(examples["label"])
    for drawn in data.DRAWN.values():
        if isinstance(examples.get("factors"), drawn.factors):
            return np.rint(np.asarray(getattr(examples["factors"], drawn.label))).astype(int)
    return None


def train(
    folder: Folder,
    dataset: Dataset,
    init: Init,
    logits: Logits,
    config: Training,
    seed: int,
    describe: str,
) -> Params:
    """Train, or go on training, a classifier in a run folder."""
    return fit(
        folder,
        PHASE,
        init=init,
        loss=partial(_loss, logits),
        batches=partial(_batches, dataset, config.batch_size, seed),
        config=config,
        seed=seed,
        describe=describe,
    )


def _loss(
    logits: Logits, params: Params, key: Array, step: Array, batch: Batch
) -> tuple[Scalar, dict[str, Scalar]]:
    del key, step
    found, truth = logits(params, batch["image"]), batch["label"]
    entropy = optax.softmax_cross_entropy_with_integer_labels(found, truth)
    return jnp.mean(entropy), {"accuracy": jnp.mean(jnp.argmax(found, -1) == truth)}


def _batches(
    dataset: Dataset, size: int, seed: int, start: int, sharding: NamedSharding
) -> Iterator[dict[str, Any]]:
    for batch in data.batches(dataset, batch_size=size, seed=seed, start=start, sharding=sharding):
        yield {"image": batch["image"], "label": labels(batch)}

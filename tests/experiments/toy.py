"""A small experiment: a line through points, with noise in the loss. Used by the tests."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.runtime.cli import main
from experiments.runtime.run_dir import open_folder
from experiments.runtime.training import Training, fit

TRAINING = Training(steps=40, batch_size=8, log_every=3, checkpoint_every=7)


@dataclass(frozen=True)
class Config:
    """What the toy does."""

    PHASES: ClassVar = {"training": ("line",)}

    run: str = "runs/toy"
    """Folder of the run."""
    dim: int = 3
    """Numbers per example."""
    seed: int = 0
    """Source of all randomness."""
    explode: int = -1
    """Step at which the term 'fit' becomes NaN; -1 for never."""
    sleep: float = 0.0
    """Seconds each batch takes."""
    training: Training = TRAINING
    """How to optimise."""


def init(dim):
    return lambda key: {"w": 0.1 * jax.random.normal(key, (dim,)), "b": 0.0}


def loss(explode):
    def evaluate(params, key, step, batch):
        error = batch["x"] @ params["w"] + params["b"] - batch["y"]
        noise = 0.01 * jax.random.normal(key, error.shape)
        bad = jnp.where(step == explode, jnp.nan, 1.0)
        terms = {"fit": bad * jnp.mean((error + noise) ** 2), "size": jnp.sum(params["w"] ** 2)}
        return terms["fit"] + 1e-3 * terms["size"], terms

    return evaluate


def batches(config):
    def at(start, sharding) -> Iterator:
        for step in range(start, 10**9):
            time.sleep(config.sleep)
            rng = np.random.default_rng((config.seed, step))
            x = rng.normal(size=(config.training.batch_size, config.dim)).astype(np.float32)
            yield jax.device_put({"x": x, "y": x.sum(axis=1)}, sharding)

    return at


def run(config):
    folder = open_folder(config.run, config)
    params = fit(
        folder,
        "line",
        init=init(config.dim),
        loss=loss(config.explode),
        batches=batches(config),
        config=config.training,
        seed=config.seed,
    )
    digest = {"w": [float(v).hex() for v in params["w"]], "b": float(params["b"]).hex()}
    folder.write_json("result.json", digest)


PRESETS = {
    "small": ("A few steps.", Config()),
    "long": ("Many steps.", Config(training=Training(steps=100_000, batch_size=8))),
}

if __name__ == "__main__":
    raise SystemExit(main(run, PRESETS))

"""Does the input ever starve the step? How long a step of a VAE waits for its batch.

Run as `python -m benchmarks.input`. As in the training loop, the batch of the next step is asked
for while the device is at work on this one: the step starves where that batch is there only after
it is done. For comparison the same batches are fetched with nothing else to do, and the same step
is run on one batch over and over. `folder` is one of PNG files of several sizes, made of sprites
and thrown away unless --folder names one of yours, whose decoded images are held in memory, as
they are that small; of `lazy` every image is decoded each time it is asked for. Nothing is saved.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import optax

from benchmarks.command import Flags, Results, command
from benchmarks.ratio import Ratio, compared
from experiments.generators import train_vae
from experiments.generators.train_vae import Config, images
from experiments.runtime.training import optimizer
from latent_flows.data import Dataset, image_folder, sprites

SETS = {
    "sprites": train_vae.SPRITES,
    "mnist": train_vae.MNIST,
    "folder": train_vae.IMAGES,
    "lazy": train_vae.IMAGES,
}
"""The presets of `experiments.train_vae` whose step and batches are measured."""
SIDES = (32, 48, 64, 100)
"""Pixels of the images that are made."""


@dataclass(frozen=True)
class Settings(Flags):
    """Measure how long training waits for its input."""

    sets: tuple[str, ...] = ("sprites", "mnist", "folder", "lazy")
    """Data sets: sprites, mnist (through TFDS, see TFDS_DATA_DIR), folder, lazy."""
    folder: str = ""
    """Images of your own."""
    files: int = 2000
    """PNG files that are made."""
    steps: int = 60
    """Training steps that are timed, after as many as fill the pipeline."""
    warmup: int = 5
    """Steps before that."""
    turns: int = 3
    """In which these steps are taken, each with as many on one batch and as many batches alone."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds, as medians over steps."""

    wait: float
    """Until the next batch is there, in training, while the device is at work."""
    step: float
    """A step in training, its wait included."""
    fetch: float
    """A batch, when nothing else is done."""
    compute: float
    """A step on a batch that is there."""
    starved: float
    """Share of the steps that were done before the next batch was there."""
    steps: list[float] = field(default_factory=list)
    """A step in training in each turn."""
    computes: list[float] = field(default_factory=list)
    """A step on a batch that is there in each turn."""


def measure(config: Config, dataset: Dataset, steps: int, warmup: int, turns: int = 1) -> Timing:
    """Time the training of a VAE and its parts on a data set."""
    vae = train_vae.model(config, dataset)
    method = optimizer(config.training)
    params = train_vae.initial(vae, jax.random.key(0))
    sharding = jax.sharding.NamedSharding(
        jax.sharding.Mesh(jax.devices(), ("data",)), jax.sharding.PartitionSpec("data")
    )
    objective = partial(train_vae.loss, vae, config.objective)

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, key: Any, batch: Any) -> tuple[Any, Any]:
        params, opt_state, count = state
        (value, _), grads = jax.value_and_grad(objective, has_aux=True)(
            params, jax.random.fold_in(key, count), count, batch
        )
        updates, opt_state = method.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, count + 1), value

    key = jax.random.key(1)
    state = (params, method.init(params), 0)
    source = iter(images(dataset, config.training.batch_size, 0, 0, sharding))
    batch = next(source)
    waits: list[float] = []
    starved: list[bool] = []
    wholes: list[list[float]] = []
    computes: list[list[float]] = []
    fetches: list[float] = []
    for turn in range(turns):
        # The pipeline is filled anew: what is fetched alone in between is the next batches.
        wholes.append([])
        for index in range(warmup + steps):
            begun = time.perf_counter()
            state, value = step(state, key, batch)
            asked = time.perf_counter()
            batch = jax.block_until_ready(next(source))
            waited = time.perf_counter() - asked
            done = value.is_ready()
            jax.block_until_ready(value)
            if index >= warmup:
                waits.append(waited)
                starved.append(done)
                wholes[turn].append(time.perf_counter() - begun)
        computes.append([])
        for _ in range(steps):
            begun = time.perf_counter()
            state, value = step(state, key, batch)
            jax.block_until_ready(value)
            computes[turn].append(time.perf_counter() - begun)
        for _ in range(steps):
            begun = time.perf_counter()
            jax.block_until_ready(next(source))
            fetches.append(time.perf_counter() - begun)
    medians = [[1e3 * statistics.median(turn) for turn in each] for each in (wholes, computes)]
    return Timing(
        wait=1e3 * statistics.median(waits),
        step=statistics.median(medians[0]),
        fetch=1e3 * statistics.median(fetches),
        compute=statistics.median(medians[1]),
        starved=statistics.mean(starved),
        steps=medians[0],
        computes=medians[1],
    )


def make_folder(folder: Path, count: int) -> None:
    """Saves sprites as PNG files of several sizes."""
    from PIL import Image

    images = sprites.dataset(size=64).examples(np.arange(count))["image"]
    for number, image in enumerate(np.asarray(images)):
        side = SIDES[number % len(SIDES)]
        picture = Image.fromarray(np.uint8(255 * image[..., 0])).resize((side, side))
        picture.save(folder / f"{number:06d}.png")


@contextmanager
def folder_of(settings: Settings) -> Iterator[str]:
    """The folder of images that is read, made first if none is named."""
    if settings.folder or not {"folder", "lazy"} & {*settings.sets}:
        yield settings.folder
        return
    with tempfile.TemporaryDirectory() as made:
        make_folder(Path(made), settings.files)
        yield made


def load(name: str, folder: str) -> tuple[Config, Dataset]:
    """The configuration and the training data of a set."""
    config = SETS[name]
    if not config.data:
        config = replace(config, data=folder)
    kept = 0 if name == "lazy" else image_folder.IN_MEMORY
    with mock.patch.object(image_folder, "IN_MEMORY", kept):
        return config, train_vae.load(config, "train")


def ratio(name: str, timing: Timing) -> Ratio:
    """A step in training against one on a batch that is there: 1 where the input is for nothing."""
    sides = {"training": timing.steps, "the step on one batch": timing.computes}
    [row] = compared(f"training step with its input, {name}", sides, ours="training", unit="ms")
    return row


def main(settings: Settings) -> Results:
    """Measure and print every data set."""
    found = Results()
    with folder_of(settings) as folder:
        for name in settings.sets:
            timing = _shown(name, settings, *load(name, folder))
            found.rows.append({"set": name, **asdict(timing)})
            found.ratios.append(ratio(name, timing))
    return found


def _shown(name: str, settings: Settings, config: Config, dataset: Dataset) -> Timing:
    timing = measure(config, dataset, settings.steps, settings.warmup, settings.turns)
    print(
        f"{name}, batches of {config.training.batch_size}: step {timing.step:.1f} ms "
        f"({timing.compute:.1f} ms on one batch over and over); the next batch is there after "
        f"{timing.wait:.2f} ms ({timing.fetch:.2f} ms when nothing else is done), later than "
        f"the step's end in {timing.starved:.0%} of the steps",
        flush=True,
    )
    return timing


if __name__ == "__main__":
    command(main, __doc__, Settings)

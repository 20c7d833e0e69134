"""The data that a generator is trained on, or was, and what its encoder makes of them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Int

from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from latent_flows import data
from latent_flows._transforms import in_chunks
from latent_flows.data import Dataset
from latent_flows.data.image_file import Crop
from latent_flows.data.image_folder import Colour, OnError
from latent_flows.directions import transformation
from latent_flows.generators import FrozenGenerator

CHUNK = 250
"""Images that are encoded at once."""


@dataclass(frozen=True)
class Reading:
    """How data of your own are read; of no account for sets with a name."""

    crop: Crop = "centre"
    """How images of other proportions are brought to the size: centre: the middle, as large as it
    can be; pad: all of it, with black on two sides; stretch: all of it."""
    colour: Colour = "own"
    """Whether images are grey or RGB; own: grey if all are."""
    on_error: OnError = "refuse"
    """A file that cannot be read as an image: refuse the folder, or skip the file and say so."""


ReadingFlags = Annotated[Reading, tyro.conf.arg(name="data")]
"""As a field of a configuration: `--data.crop` and so on, beside `--data NAME`."""
ImageSize = Annotated[int | None, tyro.conf.arg(aliases=("--data.size",))]
"""As a field of a configuration: `--image-size`, or `--data.size`."""


class Learner(Protocol):
    """The configuration of an experiment that learns from data."""

    @property
    def run(self) -> str:
        """The run folder."""

    @property
    def data(self) -> str:
        """A name, or a path."""

    @property
    def image_size(self) -> int | None:
        """Pixels a side."""

    @property
    def reading(self) -> Reading:
        """How files are read."""


class Chooser(Learner, Protocol):
    """One that may learn from certain labels alone."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Of the examples that are learnt from; none: all."""


Config = TypeVar("Config", bound=Learner)


def settled(config: Config) -> Config:
    """A configuration whose data are found from any working folder.

    Raises:
        UsageError: it names none; or its run folder would lie among the images, and be read as
            some of them.
    """
    if not config.data:
        raise UsageError(
            "no data are named: give --data and the path of a folder of images, or of an .npz or "
            ".npy of arrays, or the name of a data set"
        )
    if not data.is_own(config.data):
        return config
    place = Path(data.locate(config.data))
    run = Path(config.run).expanduser().absolute()
    if place.is_dir() and run.resolve().is_relative_to(place.resolve()):
        raise UsageError(
            f"--run {config.run} lies inside the images of --data {config.data}, and its pictures "
            "would be taken for some of them; choose a --run elsewhere"
        )
    fields: Any = config
    return dataclasses.replace(fields, data=str(place))


def load(config: Chooser, part: str) -> Dataset:
    """A part of the data that a configuration names.

    Raises:
        ValueError: they are not there, or broken, or leave open what their numbers mean.
    """
    usual = dataclasses.asdict(Reading())
    how: dict[str, Any] = {
        setting: value
        for setting, value in dataclasses.asdict(config.reading).items()
        if value != usual[setting]  # the others say nothing of a set with a name
    }
    with announced(f"loading the {part} data of {config.data}"):
        found = data.load_part(config.data, part, size=config.image_size, **how)
        return data.with_labels(found, config.labels)


def reading_of(config: Learner) -> tuple[tuple[str, str], ...]:
    """How the data of a configuration are read, as a generator keeps it."""
    return tuple(dataclasses.asdict(config.reading).items()) if data.is_own(config.data) else ()


def load_data(generator: FrozenGenerator, part: str) -> Dataset:
    """A part of the data that a generator was trained on, in its own size.

    Args:
        generator: that knows its data.
        part: "train" or "test".

    Raises:
        UsageError: it does not, or they are gone, or are of another shape.
        ValueError: the data are not there, or broken.
    """
    if generator.dataset is None:
        raise UsageError(
            f"{generator.name} does not say which data it was trained on, and they are needed here"
        )
    name, shape = generator.dataset, generator.event_shape
    with announced(f"loading the {part} data of {name}"):
        if data.is_own(name):
            found = _load_own(generator, name, part)
            if found.image_shape == shape:
                return data.with_labels(found, generator.labels)
        else:
            for size in (None, shape[0]):
                found = data.load_part(name, part, size=size)
                if found.image_shape == shape:
                    return data.with_labels(found, generator.labels)
    raise UsageError(
        f"the examples of {name} have shape {found.image_shape}, and {generator.name} makes {shape}"
    )


def _load_own(generator: FrozenGenerator, name: str, part: str) -> Dataset:
    """Files of one's own, in the size and the colours of a generator.

    Raises:
        UsageError: they are not where they were.
        ValueError: they cannot be read.
    """
    if not Path(name).exists():
        raise UsageError(
            f"the data of {generator.name} are not at {name} any more: put them back, or say where "
            "they are by --generator.data PATH"
        )
    shape = generator.event_shape
    how: dict[str, Any] = dict(generator.reading)
    if len(shape) == 3:
        own = how.get("colour", "own")
        how |= {"size": shape[:2], "colour": {1: "grey", 3: "rgb"}.get(shape[2], own)}
    return data.load_part(name, part, **how)


def check_encoder(generator: FrozenGenerator, what: str) -> None:
    """Rejects a generator without an encoder.

    Args:
        generator: any.
        what: what needs one, as the subject of a sentence.

    Raises:
        UsageError: it has none.
    """
    if generator.encode is None:
        raise UsageError(
            f"{what} is about codes of data, and {generator.name} has no encoder: only a VAE will "
            "do"
        )


def encoded(
    generator: FrozenGenerator, images: Float[Array, "n *event"]
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Means and standard deviations of the posterior of images, some at a time."""
    assert generator.encode is not None
    return in_chunks(generator.encode, CHUNK)(images)


def shown(
    generator: FrozenGenerator, dataset: Dataset, chosen: Int[np.ndarray, "n"], seed: int
) -> Float[Array, "n *event"]:
    """Images of some examples, transformed as the generator saw them in training."""
    images = jnp.asarray(dataset.examples(chosen)["image"])
    keys = jax.random.split(jax.random.key(seed), len(images))
    return jax.vmap(lambda key, image: augmented(generator.augment, key, image))(keys, images)


def augmented(
    augment: tuple[tuple[str, float], ...], key: Array, image: Float[Array, "*event"]
) -> Float[Array, "*event"]:
    """An image after some transformations, each by an even draw from [-t, t].

    Args:
        augment: names of transformations, and the largest `t` of each.
        key: a random key.
        image: with values in [0, 1].
    """
    amounts = jax.random.uniform(key, (len(augment),), image.dtype, -1, 1)
    for (name, t), amount in zip(augment, amounts, strict=True):
        image = jnp.clip(transformation(name)(image, t * amount)[0], 0, 1)
    return image


def drawn_codes(
    generator: FrozenGenerator, images: Float[Array, "n *event"], seed: int
) -> Float[Array, "n d"]:
    """A draw from the posterior of each image."""
    mean, std = encoded(generator, images)
    return mean + std * jax.random.normal(jax.random.key(seed), mean.shape)

"""What a run of directions is about: a generator, where to start, what its images are measured by.

Starts are codes of data where the generator has an encoder, and draws of its prior where not.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.directions.config import Config, loss, measured
from experiments.generators.limits import SMALLEST
from experiments.generators.training_data import drawn_codes, load_data, shown
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from latent_flows import data, directions, plots
from latent_flows.data import Dataset
from latent_flows.data.image_factors import ANY_IMAGE
from latent_flows.evaluation.image_control import Subject, survey
from latent_flows.generators import FrozenGenerator, draw_latents

__all__ = ["Data", "Subject", "check", "load_images", "subject_of"]

SURVEYED = 1000
"""Images whose factors' ranges, and latents whose norms, are taken for what is usual."""


class Data(NamedTuple):
    """The images that a generator was trained on, as far as they are needed."""

    train: Dataset
    test: Dataset


def check(config: Config, generator: FrozenGenerator) -> None:
    """Reject what makes no sense for such a generator before anything is computed.

    Raises:
        ValueError: it makes no images, or a transformation or a loss is not for these.
    """
    shape = generator.event_shape
    if len(shape) != 3:
        raise UsageError(
            f"directions perform transformations of images [height, width, channels], and "
            f"{generator.name} makes samples of shape {shape}"
        )
    if min(shape[:2]) < SMALLEST:
        raise UsageError(
            f"there is nothing to move in images of less than {SMALLEST} pixels a side, and "
            f"{generator.name} makes {shape}"
        )
    plots.check_drawable(shape, f"images of {generator.name}")
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    mask = jax.ShapeDtypeStruct(shape[:2], jnp.float32)
    amount = jax.ShapeDtypeStruct((), jnp.float32)
    for name in config.transformations:
        jax.eval_shape(directions.transformation(name), image, amount)
    for name in config.losses:
        jax.eval_shape(loss(config, name), image, image, mask)


def load_images(config: Config, generator: FrozenGenerator) -> Data | None:
    """The data of a generator with an encoder, or whose data have measures of their own.

    Raises:
        ValueError: they are not there, or fewer than trajectories are asked for.
    """
    if generator.encode is None:
        # Then they are a help, and no more.
        if data.measures(generator.dataset) is ANY_IMAGE:
            return None
        try:
            train = load_data(generator, "train")
        except UsageError:
            return None
        return Data(train, train)
    if generator.dataset is None:
        return None
    found = Data(load_data(generator, "train"), load_data(generator, "test"))
    if config.inversion.count > found.train.length:
        raise ValueError(
            f"inversion.count ({config.inversion.count}) is more than the {found.train.length} "
            f"examples of {found.train.name}"
        )
    return found


def subject_of(config: Config, generator: FrozenGenerator, images: Data | None) -> Subject:
    """Find where to start from, and what is usual there."""
    measures = data.measures(None if images is None else images.train.name)
    factors = measures.best(measured(config))
    what = "drawing latents" if generator.encode is None else "encoding images"
    with announced(f"{what}, and measuring the factors of images"):
        if generator.encode is not None and images is not None:
            starts = codes(config, generator, images.train, config.inversion.count)
            held_out = codes(config, generator, images.test, config.control.starts)
            others = codes(config, generator, images.train, SURVEYED)
        else:
            keys = jax.random.split(jax.random.key(config.seed), 3)
            counts = config.inversion.count, config.control.starts, SURVEYED
            starts, held_out, others = (
                draw_latents(generator.prior, key, count)
                for key, count in zip(keys, counts, strict=True)
            )
        if images is None:
            name, usual = generator.name, survey(factors, others, generator.decode)
        else:
            name = images.train.name
            usual = survey(factors, some(config, generator, images.test, SURVEYED))
    return Subject(
        generator=generator.decode,
        first_layer=generator.first_layer,
        starts=starts,
        held_out=held_out,
        radius=float(jnp.linalg.norm(others, axis=1).max()),
        name=name,
        factors=factors,
        is_valid=measures.is_valid,
        low=usual[0],
        high=usual[1],
        faintest=usual[2],
        # What was moved by so much, and no more, in training has limits as well.
        bounded=measures.bounded or bool(generator.augment),
    )


def codes(
    config: Config, generator: FrozenGenerator, dataset: Dataset, count: int
) -> Float[Array, "n d"]:
    """Codes of random examples, drawn from the posterior."""
    return drawn_codes(generator, some(config, generator, dataset, count), config.seed)


def some(
    config: Config, generator: FrozenGenerator, dataset: Dataset, count: int
) -> Float[Array, "n h w c"]:
    """Random examples, as the generator was shown them."""
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:count]
    return shown(generator, dataset, chosen, config.seed)

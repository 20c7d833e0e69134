"""What a run of directions is about: a generator, where to start, how its samples are measured.

Starts are codes of data where the generator has an encoder, and draws of its prior where not.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.directions.config import ALWAYS, OWN, Config, loss, measured, reach
from experiments.generators.limits import SMALLEST
from experiments.generators.training_data import drawn_codes, load_data, shown
from experiments.generators.transformable import check_transformation, sample_of, tried_on
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from latent_flows import data, directions, plots
from latent_flows._named_function import is_named
from latent_flows.data import Dataset
from latent_flows.data.image_factors import ANY_IMAGE, shows_light
from latent_flows.directions.transformations import alike
from latent_flows.evaluation.image_control import Subject, survey
from latent_flows.generators import FrozenGenerator, draw_latents

__all__ = ["Data", "Subject", "check", "load_images", "subject_of"]

SURVEYED = 1000
"""Images whose factors' ranges, and latents whose norms, are taken for what is usual."""


class Data(NamedTuple):
    """The data that a generator was trained on, as far as they are needed."""

    train: Dataset
    test: Dataset


def check(config: Config, generator: FrozenGenerator) -> None:
    """Reject what makes no sense for such a generator before anything is computed.

    Raises:
        UsageError: a transformation, a factor or a loss is not for its samples.
        ValueError: the same of one of the library.
    """
    usual = [name for name in config.transformations if not is_named(name)]
    if usual:
        _check_images(generator, usual[0])
    sample = jax.ShapeDtypeStruct(generator.event_shape, jnp.float32)
    amount = jax.ShapeDtypeStruct((), jnp.float32)
    for name in usual:
        jax.eval_shape(directions.transformation(name), sample, amount)
    own = [name for name in (*config.transformations, *config.losses) if is_named(name)]
    # Only what others wrote has to be tried.
    tried = sample_of(generator, config.seed) if own else None
    for name in config.transformations:
        if tried is not None and is_named(name):
            check_transformation(f"--transformations {name}", name, tried, reach(config)[name])
    ways = alike([directions.transformation(name) for name in config.transformations], sample)
    mask = jax.eval_shape(ways[0], sample, amount)[1]
    for name in config.losses:
        if tried is not None and is_named(name):
            _check_loss(name, loss(config, name), tried, mask.shape)
        else:
            try:
                jax.eval_shape(loss(config, name), sample, sample, mask)
            except ValueError as error:
                raise UsageError(f"--losses {name}: {error}") from None


def _check_images(generator: FrozenGenerator, name: str) -> None:
    """Rejects samples of which the transformations of the library say nothing."""
    shape = generator.event_shape
    if not plots.are_pictures(shape):
        raise UsageError(
            f"directions perform transformations of images [height, width, channels] such as "
            f"{name}, and {generator.name} makes samples of shape {shape}: give --transformations "
            f"{OWN}, one of your own for these"
        )
    if min(shape[:2]) < SMALLEST:
        raise UsageError(
            f"there is nothing to move in images of less than {SMALLEST} pixels a side, and "
            f"{generator.name} makes {shape}"
        )


def _check_loss(
    name: str, distance: directions.Loss, sample: Array, mask_shape: tuple[int, ...]
) -> None:
    """Tries a loss of one's own.

    Raises:
        UsageError: it fails, or gives no finite number.
    """
    who = f"--losses {name}"
    value = tried_on(who, sample, distance, sample, jnp.ones(mask_shape, sample.dtype))
    if np.shape(value) != () or not np.issubdtype(np.asarray(value).dtype, np.floating):
        raise UsageError(
            f"{who} must give one number for two samples and a mask, got shape {np.shape(value)}"
        )
    if not np.isfinite(value):
        raise UsageError(f"{who} must be finite where two samples agree, got {value}")


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
    light = shows_light(generator.event_shape)
    factors = measures.best(measured(config, ALWAYS if light else ()))
    what = "drawing latents" if generator.encode is None else "encoding data"
    with announced(f"{what}, and measuring the factors of samples"):
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
        names=generator.output_names,
    )


def codes(
    config: Config, generator: FrozenGenerator, dataset: Dataset, count: int
) -> Float[Array, "n d"]:
    """Codes of random examples, drawn from the posterior."""
    return drawn_codes(generator, some(config, generator, dataset, count), config.seed)


def some(
    config: Config, generator: FrozenGenerator, dataset: Dataset, count: int
) -> Float[Array, "n *event"]:
    """Random examples, as the generator was shown them."""
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:count]
    return shown(generator, dataset, chosen, config.seed)

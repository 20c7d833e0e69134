"""What a run of directions is about: a generator, where to start, what its images are measured by.

Starts are codes of data where the generator has an encoder, and draws of its prior where not.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from experiments.directions.config import Config, loss, measured
from experiments.generators.limits import SMALLEST
from experiments.generators.training_data import drawn_codes, load_data, shown
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from latent_flows import data, directions, plots
from latent_flows.data import Dataset, ImageFactor
from latent_flows.data.image_factors import ANY_IMAGE, Image, measure
from latent_flows.generators import FrozenGenerator, draw_latents
from latent_flows.typing import Generator, Scalar

SURVEYED = 1000
"""Images whose factors' ranges, and latents whose norms, are taken for what is usual."""
FAINT = 0.25
"""Share of the least mass of data below which an image shows nothing to be measured."""
AT_ONCE = 50
"""Images that are measured together."""
_ITSELF = Partial(jnp.asarray)  # what an image is made of, if it is there already


class Subject(NamedTuple):
    """A frozen generator, where to start from, and what can be measured on its images."""

    generator: Generator
    """Its parameters are its leaves."""
    first_layer: Float[Array, "k d"] | None
    """Weights of the layers that take the latent, stacked; None where none is linear."""
    starts: Float[Array, "n d"]
    """Codes of training images, drawn from the posterior; draws from the prior without an
    encoder."""
    held_out: Float[Array, "m d"]
    """Codes of held-out images, or other draws."""
    radius: float
    """The largest norm of a code or draw: latents farther out are not searched."""
    name: str
    """Of the data set, or of a generator whose data are not at hand, for captions."""
    factors: tuple[ImageFactor, ...]
    """What is measured."""
    is_valid: Callable[[Image], Bool[Array, ""]]
    """Whether an image is one of such data."""
    low: np.ndarray
    """1% quantile of each factor over images of data, or of draws where these are not at hand."""
    high: np.ndarray
    """99% quantile."""
    faintest: float
    """Mean of an image below which nothing is measured on it."""
    bounded: bool
    """Whether no factor leaves its range: those of data that were made so."""


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


def survey(
    factors: Sequence[ImageFactor],
    points: Float[Array, "n ..."],
    image: Callable[[Array], Image] = _ITSELF,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The central 98% of each factor over images, and how faint an image may be.

    Args:
        factors: what to measure.
        points: the images, or what `image` makes one of.
        image: a pytree, such as a generator that was hoisted.
    """

    @jax.jit
    def look(image: Callable[[Array], Image], points: Array) -> tuple[Array, Array]:
        def one(point: Array) -> tuple[Array, Scalar]:
            made = image(point)
            return measure(factors, made), made.mean()

        return jax.lax.map(one, points, batch_size=AT_ONCE)

    values, means = look(image, points)
    low, high = np.quantile(np.asarray(values), [0.01, 0.99], axis=0)
    return low, high, FAINT * float(jnp.quantile(means, 0.01))

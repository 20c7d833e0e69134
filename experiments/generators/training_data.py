"""The data that a generator was trained on, and what its encoder makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from latent_flows import data
from latent_flows._transforms import in_chunks
from latent_flows.data import Dataset
from latent_flows.directions import transformation
from latent_flows.generators import FrozenGenerator

CHUNK = 250
"""Images that are encoded at once."""


def load_data(generator: FrozenGenerator, part: str) -> Dataset:
    """A part of the data that a generator was trained on, in its own size.

    Args:
        generator: that knows its data.
        part: "train" or "test".

    Raises:
        UsageError: it does not.
        ValueError: the data are not there, or are of another shape.
    """
    if generator.dataset is None:
        raise UsageError(
            f"{generator.name} does not say which data it was trained on, and they are needed here"
        )
    with announced(f"loading the {part} images of {generator.dataset}"):
        for size in (None, generator.event_shape[0]):
            found = data.load_part(generator.dataset, part, size=size)
            if found.image_shape == generator.event_shape:
                return data.with_labels(found, generator.labels)
    raise UsageError(
        f"the images of {generator.dataset} have shape {found.image_shape}, and {generator.name} "
        f"makes {generator.event_shape}"
    )


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
    augment: tuple[tuple[str, float], ...], key: Array, image: Float[Array, "h w c"]
) -> Float[Array, "h w c"]:
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

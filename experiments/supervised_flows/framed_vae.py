"""What guided flows live on: a frozen VAE, coordinates of its codes, what is known of its data."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.generators.kept_frame import kept_frame
from experiments.generators.training_data import check_encoder, encoded, load_data
from experiments.runtime.announcements import announced
from experiments.runtime.cli import Failure, UsageError
from experiments.runtime.run_dir import Folder
from experiments.supervised_flows.config import Config, per_factor
from experiments.supervised_flows.factors import KNOWN
from experiments.supervised_flows.known import Known
from experiments.supervised_flows.transformed import (
    check_transformations,
    is_transformation,
    transformed_samples,
)
from latent_flows import coordinates
from latent_flows._transforms import in_chunks
from latent_flows._validation import choose
from latent_flows.coordinates import AffineCoordinates
from latent_flows.data import Dataset
from latent_flows.generators import FrozenGenerator
from latent_flows.typing import Generator

ENCODED = 4096
"""Samples whose codes say what the frame is."""
AT_ONCE = 50
"""Jacobians of the generator that are made at once."""


def check_generator(generator: FrozenGenerator) -> None:
    """Reject a generator that guided flows cannot be taught on.

    Raises:
        UsageError: it has no encoder, or does not know its data.
    """
    check_encoder(generator, "a guided flow")
    if generator.dataset is None:
        raise UsageError(
            f"guided flows are taught by sequences of data, and {generator.name} does not say "
            "which it was trained on: name them, or their path, by --generator.data"
        )


def check_factors(config: Config, generator: FrozenGenerator) -> None:
    """Reject factors that sequences of a generator's data cannot be made with.

    Raises:
        UsageError: one is not of the data, or nothing shows how far it got.
        ValueError: there is no such factor; the nearest is named.
    """
    names, dataset = config.sequences.factors, str(generator.dataset)
    drawn = [name for name in names if not is_transformation(name)]
    for name in drawn:
        if dataset not in KNOWN:
            raise UsageError(
                f"{name} is of images whose factors are known: {' or '.join(KNOWN)}, not {dataset} "
                f"({generator.name}); give transformations of its samples as --sequences.factors, "
                "of images such as translate_x and zoom, of any samples a function of your own as "
                "file.py:function"
            )
        choose(f"factor of {dataset}", name, KNOWN[dataset].factors)
    made = [name for name in names if is_transformation(name)]
    if drawn and made:
        raise UsageError(
            f"sequences are either drawn, as of {drawn[0]}, or examples that are transformed, as "
            f"by {made[0]}: give --sequences.factors of one kind"
        )
    check_transformations(made, generator, config.seed)


def load_known(config: Config, generator: FrozenGenerator, dataset: Dataset) -> Known:
    """What is known of the samples that sequences are made of.

    Args:
        config: what the flags say.
        generator: the frozen VAE.
        dataset: that it was trained on.

    Raises:
        UsageError: a transformation, checked before, does not what it should on these data.
    """
    names = config.sequences.factors
    if not any(map(is_transformation, names)):
        return replace(KNOWN[dataset.name], size=generator.event_shape[0])
    test = load_data(generator, "test")
    with announced("trying the transformations on examples"):
        return transformed_samples(
            names,
            generator,
            dataset,
            test,
            counts=(per_factor(config) * len(names), config.starts * len(names)),
            seed=config.seed,
        )


class FramedVAE(NamedTuple):
    """The frozen VAE, the frame that flows live in, and the samples that teach them."""

    generator: FrozenGenerator
    frame: AffineCoordinates
    known: Known

    @property
    def decode(self) -> Generator:
        """From the frame's coordinates to a sample."""
        return coordinates.compose(self.generator.decode, self.frame)

    @property
    def dim(self) -> int:
        """Length of the frame's coordinates."""
        return self.frame.basis.shape[1]

    def encode(self, sample: Array) -> Array:
        """The code of a sample, in the frame's coordinates."""
        assert self.generator.encode is not None
        mean, _ = self.generator.encode(sample)
        return coordinates.from_latent(self.frame, mean)

    def render(self, frame: Any) -> Array:
        """The true sample of a frame, in the shape of the generator's."""
        return self.known.render(frame)[0]


def load_framed(
    config: Config,
    generator: FrozenGenerator,
    dataset: Dataset,
    folder: Folder | None = None,
    known: Known | None = None,
) -> FramedVAE:
    """Find the frame in the codes of data.

    Args:
        config: what the flags say.
        generator: the frozen VAE.
        dataset: that it was trained on.
        folder: of a run that is made, which keeps the frame.
        known: what is known of the data, if it is loaded already.

    Raises:
        Failure: the codes say nothing.
    """
    known = known or load_known(config, generator, dataset)
    if config.flows.frame == "identity":
        return FramedVAE(generator, coordinates.identity(generator.latent_dim), known)
    find = partial(components, config, generator, dataset)
    return FramedVAE(generator, kept_frame(folder, generator.latent_dim, find), known)


def components(config: Config, generator: FrozenGenerator, dataset: Dataset) -> AffineCoordinates:
    """Independent components of the codes of data.

    Raises:
        Failure: the codes say nothing.
    """
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:ENCODED]
    with announced(f"encoding {len(chosen)} examples"):
        mean, std = encoded(generator, jnp.asarray(dataset.examples(chosen)["image"]))
    active = coordinates.active(std)
    if not active.any():
        raise Failure(
            f"{generator.name} says nothing of its data: no latent dimension is active, so there "
            "are no components to find; train it for more steps or with a smaller beta, or take "
            "--flows.frame identity in a new --run"
        )
    with announced("finding independent components of the codes"):
        return coordinates.independent_components(mean, active, seed=config.seed)


def measured(
    framed: FramedVAE, codes: Float[Array, "*n m"]
) -> tuple[Float[Array, "*n f"], Bool[Array, "*n"]]:
    """Attributes of the samples of codes, and which of these are valid."""
    decode, known = framed.decode, framed.known

    def look(z: Array) -> tuple[Array, Array]:
        sample = decode(z)
        return known.measure(sample), known.is_valid(sample)

    found, valid = in_chunks(look)(codes.reshape(-1, codes.shape[-1]))
    return found.reshape(*codes.shape[:-1], -1), valid.reshape(codes.shape[:-1])


def true_attributes(framed: FramedVAE, factors: Any) -> Float[Array, "*n f"]:
    """Attributes of true samples."""
    look = in_chunks(lambda one: framed.known.measure(framed.render(one)))
    found = look(jax.tree.map(jnp.ravel, factors))
    return found.reshape(*jnp.shape(factors[0]), -1)

"""What guided flows live on: a frozen VAE of drawn images, coordinates of its codes, attributes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.generators.kept_frame import kept_frame
from experiments.generators.training_data import check_encoder, encoded
from experiments.runtime.announcements import announced
from experiments.runtime.cli import Failure, UsageError
from experiments.runtime.run_dir import Folder
from experiments.supervised_flows.config import Config
from experiments.supervised_flows.factors import KNOWN, Known
from latent_flows import coordinates
from latent_flows._transforms import in_chunks
from latent_flows.coordinates import AffineCoordinates
from latent_flows.data import Dataset
from latent_flows.evaluation.comparison import factor_ranges
from latent_flows.generators import FrozenGenerator
from latent_flows.typing import Generator

ENCODED = 4096
"""Images whose codes say what the frame is."""
SURVEYED = 2000
"""Images whose attributes say what their ranges are."""
AT_ONCE = 50
"""Jacobians of the generator that are made at once."""


def check_generator(generator: FrozenGenerator) -> None:
    """Reject a generator that guided flows cannot be taught on.

    Raises:
        UsageError: it has no encoder, or its images' factors are not known.
    """
    check_encoder(generator, "a guided flow")
    if generator.dataset not in KNOWN:
        raise UsageError(
            f"guided flows need images whose factors are known: {' or '.join(KNOWN)}, not "
            f"{generator.dataset or 'those that nobody knows of'} ({generator.name})"
        )


class Subject(NamedTuple):
    """The frozen VAE, and the frame that flows live in."""

    generator: FrozenGenerator
    frame: AffineCoordinates

    @property
    def known(self) -> Known:
        """What is known of the images that the generator was trained on."""
        assert self.generator.dataset is not None
        return KNOWN[self.generator.dataset]

    @property
    def decode(self) -> Generator:
        """From the frame's coordinates to an image."""
        return coordinates.compose(self.generator.decode, self.frame)

    @property
    def dim(self) -> int:
        """Length of the frame's coordinates."""
        return self.frame.basis.shape[1]

    def encode(self, image: Array) -> Array:
        """The code of an image, in the frame's coordinates."""
        assert self.generator.encode is not None
        mean, _ = self.generator.encode(image)
        return coordinates.from_latent(self.frame, mean)

    def render(self, factors: Any) -> Float[Array, "h w c"]:
        """The true image of some factors, in the size of the generator's."""
        return self.known.drawn.render(factors, size=self.generator.event_shape[0])


def load_subject(
    config: Config, generator: FrozenGenerator, dataset: Dataset, folder: Folder | None = None
) -> Subject:
    """Find the frame in the codes of data.

    Args:
        config: what the flags say.
        generator: the frozen VAE.
        dataset: that it was trained on.
        folder: of a run that is made, which keeps the frame.

    Raises:
        Failure: the codes say nothing.
    """
    if config.flows.frame == "identity":
        return Subject(generator, coordinates.identity(generator.latent_dim))

    def find() -> AffineCoordinates:
        return _components(config, generator, dataset)

    return Subject(generator, kept_frame(folder, generator.latent_dim, find))


def _components(config: Config, generator: FrozenGenerator, dataset: Dataset) -> AffineCoordinates:
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[:ENCODED]
    with announced(f"encoding {len(chosen)} images"):
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


def attribute_ranges(dataset: Dataset, seed: int) -> Float[Array, "f"]:
    """Width of the central 98% of each attribute over the data."""
    chosen = np.random.default_rng(seed).permutation(dataset.length)[:SURVEYED]
    return factor_ranges(
        KNOWN[dataset.name].measures, jnp.asarray(dataset.examples(chosen)["image"])
    )


def measured(
    subject: Subject, codes: Float[Array, "*n m"]
) -> tuple[Float[Array, "*n f"], Bool[Array, "*n"]]:
    """Attributes of the images of codes, and which of these images are valid."""
    decode, measures = subject.decode, subject.known.measures

    def look(z: Array) -> tuple[Array, Array]:
        image = decode(z)
        return measures.measure(image), measures.is_valid(image)

    found, valid = in_chunks(look)(codes.reshape(-1, codes.shape[-1]))
    return found.reshape(*codes.shape[:-1], -1), valid.reshape(codes.shape[:-1])


def true_attributes(subject: Subject, factors: Any) -> Float[Array, "*n f"]:
    """Attributes of rendered images."""
    measures = subject.known.measures
    look = in_chunks(lambda one: measures.measure(subject.render(one)))
    found = look(jax.tree.map(jnp.ravel, factors))
    return found.reshape(*jnp.shape(factors[0]), -1)

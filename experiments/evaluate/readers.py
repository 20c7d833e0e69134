"""What there is to evaluate in a run folder: codes, likelihoods, held-out data, flows, metrics.

Any run that holds a generator, or was about one, has what that generator has. An experiment whose
runs have more is an entry of `MORE`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.flow_vae import config as flow_vae_config
from experiments.generators import spec
from experiments.generators.training_data import load_data
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import flow_space
from experiments.potential_flows.config import Config as FlowConfig
from experiments.runtime.cli import module_name
from experiments.runtime.run_dir import made_by, read_config, read_object
from experiments.runtime.training import restore
from latent_flows import data
from latent_flows.data import Dataset
from latent_flows.data.sequences import Sequences, grid_of
from latent_flows.evaluation import traversals
from latent_flows.evaluation.likelihood import Encoder, LogLikelihood
from latent_flows.generators import FrozenGenerator
from latent_flows.generators.frozen import LogPrior
from latent_flows.objectives import log_normal
from latent_flows.typing import VectorField

METRICS = "metrics.json"
PATHS = 64
"""Starting points from which each traversal is followed."""
POINTS = 11
"""Points of each path."""


class HeldOut(NamedTuple):
    """Held-out examples of the data that a generator was trained on."""

    name: str
    length: int
    images: Callable[[Int[np.ndarray, "n"]], Float[Array, "n h w c"]]
    factors: Callable[[Int[np.ndarray, "n"]], Float[np.ndarray, "n f"]] | None
    """The true factors of examples; None where they are not known."""
    names: tuple[str, ...]
    """Of these factors."""
    labels: Callable[[Int[np.ndarray, "n"]], Int[np.ndarray, "n"]] | None = None
    """The classes of examples; None where they are not known."""


class Paths(NamedTuple):
    """What can be measured on images along traversals."""

    ts: Float[Array, "t"]
    attributes: Float[Array, "k n t f"]
    valid: Bool[Array, "k n t"]
    names: tuple[str, ...]
    """Of the attributes."""


class Evaluated(NamedTuple):
    """A run, as far as scores look at it."""

    run: str
    experiment: str
    metrics: Mapping[str, Any] = {}
    """What the run has measured itself, in `metrics.json`; empty if it is not there."""
    generator: FrozenGenerator | None = None
    """Of the run, if that is about one."""
    held_out: HeldOut | None = None
    encode: Encoder | None = None
    log_likelihood: LogLikelihood | None = None
    """Of the model that the run has trained."""
    log_prior: LogPrior | None = None
    """Of its latents; None: N(0, I)."""
    paths: Callable[[], Paths] | None = None
    """Follows the run's flows."""


def read(run: str) -> Evaluated:
    """What there is in a run folder.

    Raises:
        UsageError: no run folder, or one of another version.
        ValueError: it has no generator, or one that is damaged; or its data are not there.
    """
    maker = made_by(run)
    path = Path(run).expanduser().absolute() / METRICS
    found = Evaluated(run, maker, read_object(path) if path.exists() else {})
    return MORE.get(maker, _generator)(found)


# --- experiments ---


def _generator(found: Evaluated) -> Evaluated:
    generator = spec.of_run(found.run)
    found = found._replace(generator=generator)
    if generator.encode is None or generator.dataset is None:
        return found
    return found._replace(
        held_out=_examples(load_data(generator, "test")),
        encode=generator.encode,
        log_likelihood=generator.log_likelihood,
        log_prior=None if _is_standard(generator) else generator.log_prior,
    )


def _is_standard(generator: FrozenGenerator) -> bool:
    """Whether the prior is N(0, I), as far as is known: bounds then have a closed form."""
    return generator.log_prior is None or is_normal(generator)


def is_normal(generator: FrozenGenerator) -> bool:
    """Whether the prior is known to be N(0, I)."""
    if generator.log_prior is None:
        return False
    zs = jax.random.normal(jax.random.key(0), (4, generator.latent_dim))
    found = jax.vmap(generator.log_prior)(zs)
    return bool(jnp.allclose(found, jax.vmap(log_normal)(zs), atol=1e-3))


def _flows(found: Evaluated) -> Evaluated:
    return _generator(found)._replace(paths=partial(_paths, found.run))


def _flow_vae(found: Evaluated) -> Evaluated:
    config = read_config(found.run, flow_vae_config.Config)
    test = flow_vae_config.load(config, "test")
    model = flow_vae_config.build(config, test)
    params = restore(found.run, flow_vae_config.PHASE, model.init)
    return found._replace(
        held_out=_starts(test),
        encode=model.encoder(params),
        log_likelihood=model.log_likelihood(params),
    )


MORE: dict[str, Callable[[Evaluated], Evaluated]] = {
    module_name(FlowConfig): _flows,
    module_name(flow_vae_config.Config): _flow_vae,
}
"""By the experiment, what there is in a run of it besides its generator, or in place of one."""


# --- data ---


def _examples(dataset: Dataset) -> HeldOut:
    def images(rows: Int[np.ndarray, "n"]) -> Float[Array, "n h w c"]:
        return jnp.asarray(dataset.examples(rows)["image"])

    def stacked(names: tuple[str, ...], rows: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n f"]:
        found = dataset.examples(rows)
        return np.stack([np.asarray(found[name]) for name in names], -1)

    def rendered(rows: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n f"]:
        return np.stack([np.asarray(v) for v in dataset.examples(rows)["factors"]], -1)

    def labels(rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        return np.asarray(dataset.examples(rows)["label"])

    if true := data.measures(dataset.name).true_factors:
        return HeldOut(dataset.name, dataset.length, images, rendered, true)
    if (grid := grid_of(dataset)) is not None:
        truth = partial(stacked, grid.labels)
        return HeldOut(dataset.name, dataset.length, images, truth, grid.factors)
    is_image = len(dataset.image_shape) == 3
    known = labels if is_image and "label" in dataset.examples(np.arange(1)) else None
    return HeldOut(dataset.name, dataset.length, images, None, (), known)


def _starts(sequences: Sequences) -> HeldOut:
    """The first images of sequences."""
    dataset = sequences.dataset
    first = jax.jit(jax.vmap(lambda example: sequences.frame(example, 0, 0.0)))

    def made(rows: Int[np.ndarray, "n"]) -> Float[Array, "n ..."]:
        return jnp.asarray(dataset.examples(rows)["example"])

    true = data.measures(dataset.name).true_factors  # what a start is made of, if they are known
    return HeldOut(
        dataset.name,
        dataset.length,
        lambda rows: first(made(rows)),
        (lambda rows: np.asarray(made(rows))) if true else None,
        true,
    )


# --- traversals ---


def _paths(run: str) -> Paths:
    """Follows every flow of a run of potential_flows over the time that it was trained on."""
    config, _, about, params = flow_space.load_run(run)
    field = flow_space.vector_field(config.flows, about)
    members = flow_families.members(config.flows, params["potentials"])
    rows = np.random.default_rng(config.seed).permutation(len(about.starts))[:PATHS]
    ts = jnp.linspace(0.0, float(config.flows.horizon), POINTS)
    known = data.measures(about.frozen.dataset)

    def path(field: VectorField, start: Array) -> tuple[Array, Array]:
        found = traversals.traverse(about.generator, field, start, ts)
        attributes = jax.vmap(known.measure)(found.samples)
        return attributes, jax.vmap(known.is_valid)(found.samples) & found.ok

    @jax.jit
    def all_paths(members: Any, starts: Array) -> tuple[Array, Array]:
        def of_member(member: Any) -> tuple[Array, Array]:
            return jax.vmap(partial(path, partial(field, member)))(starts)

        return jax.lax.map(of_member, members)

    attributes, valid = all_paths(members, about.starts[rows])
    return Paths(ts, attributes, valid, known.factor_names)

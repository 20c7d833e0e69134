"""Fields that are followed for a time: each learnt flow of a run, of whatever experiment."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments.flow_vae import config as flow_vae_config
from experiments.flow_vae import scores as flow_vae_scores
from experiments.generators.kept_frame import read_frame
from experiments.generators.training_data import encoded, load_data
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import flow_space, traverse
from experiments.potential_flows import scores as flow_scores
from experiments.runtime.run_dir import Folder, read_config
from experiments.runtime.training import restore
from experiments.supervised_flows import config as guided_config
from experiments.supervised_flows import framed_vae
from experiments.supervised_flows import scores as guided_scores
from experiments.supervised_flows.transformed import short_names
from latent_flows import coordinates, potentials
from latent_flows.coordinates import AffineCoordinates
from latent_flows.generators import FrozenGenerator
from latent_flows.objectives.flow_vae import WITH_FLOW
from latent_flows.traversals import climbing
from latent_flows.typing import Field, Latent, Potential, Scalar

METRICS = "metrics.json"
Tables = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows by the titles of their tables."""


class Starts(NamedTuple):
    """Latents from which to show what flows do."""

    latents: Float[Array, "n d"]
    word: str
    """What one of them is."""


class Followed(NamedTuple):
    """Learnt flows of one run, in coordinates of its generator's latents."""

    names: tuple[str, ...]
    """One a flow."""
    one: str
    """What one of them is called."""
    what: str
    """What all of them are."""
    horizon: float
    """The time that they were trained for."""
    field: Field
    """`(parameters, t, s) -> ds/dt`."""
    members: PyTree
    """Parameters of the flows, stacked."""
    frame: AffineCoordinates
    """Coordinates that the field is a function of."""
    has_components: bool
    """Whether these are independent components of the generator's codes of data."""
    climbed: Callable[[int], Potential] | None
    """The potential of a flow, of the generator's latents; None where there is none."""
    starts: Callable[[int], Starts]
    """At most so many, found when they are asked for."""
    tables: Callable[[], Tables]
    """What the run has measured."""


def of_potentials(run: str, generator: FrozenGenerator) -> Followed:
    """The flows of a run of potential_flows.

    Raises:
        UsageError: it is not finished.
    """
    config, space, params = flow_space.load_flows(run, generator)
    settings = config.flows
    members = flow_families.members(settings, params["potentials"])
    folder = Folder(_path(run))

    def starts(count: int) -> Starts:
        whole = space
        if not len(space.starts):
            *_, whole, _ = flow_space.load_run(run, generator)
        chosen = range(min(count, len(whole.starts)))
        found = jnp.stack([traverse.representative(whole, k) for k in chosen])
        word = "code" if flow_space.starts_from_codes(settings, generator) else "draw"
        return Starts(jax.vmap(partial(coordinates.to_latent, whole.frame))(found), word)

    climbed = None
    if settings.family == "potential":
        net = flow_families.potential_network(settings)
        climbed = partial(_climbed, net, members, space.frame)
    return Followed(
        tuple(traverse.row_labels(folder, config)),
        {"potential": "flow"}.get(settings.family, settings.family),
        flow_families.describe(settings),
        float(settings.horizon),
        flow_space.vector_field(settings, space),
        members,
        space.frame,
        settings.frame == "ica" and generator.encode is not None,
        climbed,
        starts,
        partial(_measured, folder, flow_scores.tabulated),
    )


def guided(run: str, generator: FrozenGenerator) -> Followed:
    """The flows of a run of guided, one for each factor.

    Raises:
        UsageError: it is not finished.
    """
    config = read_config(run, guided_config.Config)
    framed_vae.check_generator(generator)
    if config.flows.frame == "identity":
        frame = coordinates.identity(generator.latent_dim)
    elif (kept := read_frame(_path(run), generator.latent_dim)) is not None:
        frame = kept
    else:
        dataset = load_data(generator, "train")
        frame = framed_vae.components(config, generator, dataset)
    dim = frame.basis.shape[1]
    params = restore(run, guided_config.PHASE, partial(guided_config.initial, config, dim))
    net = guided_config.network(config)
    return Followed(
        tuple(short_names(config.sequences.factors)),
        "flow",
        f"{config.flows.initial} potentials that were taught a factor each",
        float(config.sequences.horizon),
        climbing(net),
        params["potentials"],
        frame,
        config.flows.frame == "ica",
        partial(_climbed, net, params["potentials"], frame),
        partial(_codes, generator, config.seed),
        partial(_measured, Folder(_path(run)), guided_scores.tabulated),
    )


def of_flow_vae(run: str, generator: FrozenGenerator) -> Followed | None:
    """The flows of a run of flow_vae; None of a kind of VAE without any.

    Of the sparse kind each slider's field, with the weight 1.

    Raises:
        UsageError: it is not finished.
    """
    config = read_config(run, flow_vae_config.Config)
    model = flow_vae_config.build_for(config, generator.event_shape)
    if model.kind not in WITH_FLOW:
        return None
    params = restore(run, flow_vae_config.PHASE, model.init)
    members, field, climbed = params["potentials"], climbing(model.potential), None
    frame = coordinates.identity(generator.latent_dim)
    if model.kind == "sparse":
        members = jnp.eye(model.members)

        def field(weights: Array, t: Scalar, z: Latent) -> Latent:
            return model.acting(params, weights)(t, z)

    else:
        climbed = partial(_climbed, model.potential, members, frame)
    numbers = tuple(map(str, range(model.members)))
    return Followed(
        config.factors if model.kind == "flow" else numbers,
        "flow",
        "fields that were learnt together with the VAE",
        float(config.frames - 1),
        field,
        members,
        frame,
        False,
        climbed,
        partial(_codes, generator, config.seed),
        partial(_measured, Folder(_path(run)), partial(flow_vae_scores.tabulated, config)),
    )


def _climbed(net: Any, members: PyTree, frame: AffineCoordinates, k: int) -> Potential:
    inner = potentials.select(net, members, k)
    return lambda t, z: inner(t, coordinates.from_latent(frame, z))


def _codes(generator: FrozenGenerator, seed: int, count: int) -> Starts:
    """Codes of held-out data, or draws of the prior where the data are not at hand."""
    if generator.encode is None or generator.dataset is None:
        keys = jax.random.split(jax.random.key(seed), count)
        return Starts(jnp.stack([generator.prior(key) for key in keys]), "draw")
    dataset = load_data(generator, "test")
    chosen = np.random.default_rng(seed).permutation(dataset.length)[:count]
    images = jnp.asarray(dataset.examples(chosen)["image"])
    return Starts(encoded(generator, images)[0], "held-out code")


def _measured(folder: Folder, tabulated: Callable[[Any], Tables]) -> Tables:
    if not (folder.path / METRICS).exists():
        return {}
    with folder.understood(METRICS):
        return tabulated(folder.read_object(METRICS))


def _path(run: str) -> Path:
    return Path(run).expanduser().absolute()

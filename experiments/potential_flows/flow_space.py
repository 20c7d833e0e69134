"""What a run is about: a generator, the coordinates that flows live in, and where they start."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators.kept_frame import kept_frame, read_frame
from experiments.generators.spec import of_run
from experiments.generators.training_data import encoded, load_data, shown
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import ways
from experiments.potential_flows.config import PHASE, Config
from experiments.potential_flows.flags import Flows
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices
from experiments.runtime.cli import Failure, UsageError
from experiments.runtime.run_dir import Folder, read_config
from experiments.runtime.training import Params, restore
from latent_flows import _memory, coordinates, data, directions, flows, plots, potentials
from latent_flows._transforms import in_chunks
from latent_flows._validation import choose
from latent_flows.classifiers import (
    CLASSIFIERS,
    SIDES,
    Network,
    number_scales,
    pair_features,
    vector_features,
)
from latent_flows.coordinates import AffineCoordinates
from latent_flows.data import Dataset
from latent_flows.data.image_factors import Measures
from latent_flows.generators import FrozenGenerator, draw_latents
from latent_flows.geometry.interpolation import blend
from latent_flows.geometry.metrics import unit_metric
from latent_flows.typing import Field, Generator, Latent, Metric

VISIBLE_AT = 128
"""Latents at which the most visible axes are looked for, and the mean metric."""
SURVEYED = 512
"""Samples that say how they vary, where they are no images."""
CLIMBING = 0.3
"""Damping of natural gradients: with 0.01 and 0.1, unit steps along the inverse explode."""


class Spread(NamedTuple):
    """How samples that are no images vary, of whatever unit they are."""

    mean: Float[Array, "*event"]
    """Of each number of a sample."""
    scale: Float[Array, "*event"]
    """Its deviation."""
    distance: float
    """Between two samples, root mean square."""


class FlowSpace(NamedTuple):
    """The frozen generator, the frame that flows live in, and where they start."""

    frozen: FrozenGenerator
    """The generator itself, of latents."""
    frame: AffineCoordinates
    generator: Generator
    """From the frame's coordinates to a sample."""
    starts: Float[Array, "n m"]
    """Starting points, in the frame's coordinates."""
    low: Latent
    """1% quantile of the starting points."""
    high: Latent
    """99% quantile."""
    metric: Metric | None = None
    """Of the generator, for flows that climb in it."""
    manifold: Metric | None = None
    """Of the generator, for equations that hold on its manifold."""
    spread: Spread | None = None
    """Of its samples; None of images, which have a unit."""


# --- what can be known before anything is computed ---


def check(config: Config) -> None:
    """Rejects unknown names, and batches that devices cannot share out.

    Raises:
        ValueError: naming the nearest valid ones.
    """
    flows.solver(config.flows.solver)
    check_devices(training=config.training)


def check_generator(config: Config, frozen: FrozenGenerator, dataset: Dataset | None) -> None:
    """Rejects a generator, or data, that the flows asked for cannot be learnt of.

    Raises:
        UsageError: its samples are no images, and a classifier of images, or a transformation of
            images to avoid, is asked for; or steered fields are, and no factor is measured.
        ValueError: they are too small for the classifier, too few or too long.
    """
    if is_image(frozen):
        image = jax.ShapeDtypeStruct(frozen.event_shape, jnp.float32)
        jax.eval_shape(
            lambda image: classifier(config.flows, frozen).init(
                jax.random.key(0), seen(config.flows, image, image)
            ),
            image,
        )
    elif config.flows.classifier != "small":
        raise UsageError(
            f"flows.classifier {config.flows.classifier} sees images [h, w, c], and {frozen.name} "
            f"makes samples of shape {frozen.event_shape}: leave it out, and dense layers see them"
        )
    if config.flows.avoid:
        _check_transformable(config.flows, frozen)
    is_measured = measured_factors(config.scores.factors, frozen) is not None
    if not is_measured and (config.scores.steered or config.scores.taught):
        raise UsageError(
            f"scores.steered and scores.taught need factors that are measured, and {frozen.name} "
            "was not trained on data that come with some: name them, as --scores.factors x y size"
        )
    if dataset is not None and is_encoded(config.flows, frozen):
        _check_codes(config, frozen, dataset)
    _check_memory(config.flows, frozen.latent_dim)


def measured_factors(names: Sequence[str], frozen: FrozenGenerator) -> Measures | None:
    """What is measured on the generator's images, if anything is.

    Args:
        names: of the factors that were asked for; none: those that examples of its data come with.
        frozen: the generator.

    Raises:
        UsageError: its samples are no images.
        ValueError: a factor that is not measured on images of its data.
    """
    known = data.measures(frozen.dataset)
    if not names:
        return known if known.true_factors else None
    if not is_image(frozen):
        raise UsageError(
            f"scores.factors are measured on images [h, w, c], and {frozen.name} makes samples of "
            f"shape {frozen.event_shape}: leave them out"
        )
    factors = {factor.name: factor for factor in known.factors}
    return known._replace(factors=tuple(choose("factor", name, factors) for name in names))


def _check_transformable(settings: Flows, frozen: FrozenGenerator) -> None:
    if not is_image(frozen):
        raise UsageError(
            f"flows.avoid names transformations of images [h, w, c], and {frozen.name} makes "
            f"samples of shape {frozen.event_shape}: leave it out"
        )
    image = jax.ShapeDtypeStruct(frozen.event_shape, jnp.float32)
    for name in settings.avoid:
        apply = directions.transformation(name)
        jax.eval_shape(lambda image, apply=apply: apply(image, 0.0), image)


def _check_codes(config: Config, frozen: FrozenGenerator, dataset: Dataset) -> None:
    codes, latent_dim = min(config.flows.codes, dataset.length), frozen.latent_dim
    starts = min(config.flows.bank or codes, codes)
    if starts_from_codes(config.flows, frozen) and config.training.batch_size > starts:
        raise ValueError(
            f"training.batch_size ({config.training.batch_size}) is more than the {starts} codes "
            f"of {dataset.name} to draw from; lower it"
        )
    if config.flows.frame == "ica" and codes < 2 * latent_dim:
        raise ValueError(
            f"flows.codes: {codes} codes are too few to find up to {latent_dim} components, which "
            f"takes {2 * latent_dim}; raise it, or take flows.frame identity"
        )


def _check_memory(settings: Flows, dim: int) -> None:
    """Latents so long, or so many, that their arrays alone do not fit into memory."""
    matrices = max(settings.bank, VISIBLE_AT if settings.frame == "visible" else 1)
    _memory.require(
        4 * (2 * settings.codes * dim + matrices * dim**2),
        f"{settings.codes} latents of {dim} numbers with {matrices} matrices of their size",
        "take a generator of fewer latent dimensions, or lower --flows.codes or --flows.bank",
    )


def is_image(frozen: FrozenGenerator) -> bool:
    """Whether samples are images, of any size and number of channels."""
    return plots.are_pictures(frozen.event_shape)


def starts_from_codes(settings: Flows, frozen: FrozenGenerator) -> bool:
    """Whether traversals start from codes of data, and not from draws."""
    return frozen.encode is not None and settings.starts == "posterior"


def is_encoded(settings: Flows, frozen: FrozenGenerator) -> bool:
    """Whether codes of data are needed: to start from, or to find the frame."""
    found = starts_from_codes(settings, frozen) or settings.frame == "ica"
    return frozen.encode is not None and found


def training_data(settings: Flows, frozen: FrozenGenerator) -> Dataset | None:
    """The data that the generator was trained on, where they are of use.

    Raises:
        ValueError: they are not there.
    """
    if is_encoded(settings, frozen) or data.measures(frozen.dataset).true_factors:
        return load_data(frozen, "train")
    return None


# --- the space ---


def load_space(
    settings: Flows,
    seed: int,
    frozen: FrozenGenerator,
    dataset: Dataset | None,
    *,
    folder: Folder | None = None,
    frame: AffineCoordinates | None = None,
) -> FlowSpace:
    """The frame and the starting points on a generator.

    Args:
        settings: what the flags say of the flows.
        seed: which examples, and draws.
        frozen: the generator.
        dataset: that it was trained on, see `training_data`.
        folder: of a run that is made, which keeps the frame.
        frame: the frame, where it is known.

    Raises:
        Failure: the generator has an encoder that says nothing of its data.
    """
    codes = None
    if dataset is not None and is_encoded(settings, frozen):
        count = min(settings.codes, dataset.length)
        chosen = np.random.default_rng(seed).permutation(dataset.length)[:count]
        with announced(f"encoding {count} images"):
            codes = encoded(frozen, shown(frozen, dataset, chosen, seed))
    key = jax.random.key(seed)
    if codes is not None and starts_from_codes(settings, frozen):
        mean, std = codes
        latents = mean + std * jax.random.normal(key, mean.shape)
    else:
        with announced(f"drawing {settings.codes} latents"):
            latents = draw_latents(frozen.prior, key, settings.codes)

    def find() -> AffineCoordinates:
        return frame_of(settings, seed, frozen, latents, codes)

    if frame is None:
        keeper = None if settings.frame == "identity" else folder
        frame = kept_frame(keeper, frozen.latent_dim, find)
    starts = jax.vmap(partial(coordinates.from_latent, frame))(latents)
    low, high = jnp.quantile(starts, 0.01, axis=0), jnp.quantile(starts, 0.99, axis=0)
    within = coordinates.compose(frozen.decode, frame)
    spread = None if is_image(frozen) else spread_of(within, frozen.event_shape, starts)
    space = FlowSpace(frozen, frame, within, starts, low, high, spread=spread)
    with announced("measuring the generator's metric"):
        return with_metrics(settings, space)


def frame_of(
    settings: Flows,
    seed: int,
    frozen: FrozenGenerator,
    latents: Float[Array, "n d"],
    codes: tuple[Float[Array, "n d"], Float[Array, "n d"]] | None,
) -> AffineCoordinates:
    """The frame that the flags name, from latents, and from codes of data where there are some."""
    if settings.frame == "identity":
        return coordinates.identity(frozen.latent_dim)
    if settings.frame == "visible":
        with announced("finding the axes that change samples most"):
            return coordinates.visible_axes(frozen.decode, latents[:VISIBLE_AT])
    if codes is None:
        return coordinates.principal_axes(latents)
    mean, std = codes
    if not coordinates.active(std).any():
        raise Failure(
            f"{frozen.name} says nothing of its data: no latent dimension is active, so there are "
            "no components to find; train one for longer or with a smaller --objective.beta, or "
            "take --flows.frame identity in a new --run"
        )
    with announced("finding independent components of the codes"):
        return coordinates.independent_components(mean, coordinates.active(std), seed=seed)


def spread_of(
    generator: Generator, event_shape: tuple[int, ...], starts: Float[Array, "n m"]
) -> Spread:
    """How the samples of starting points vary."""
    with announced("measuring how samples vary"):
        samples = in_chunks(lambda z: generator(z).ravel())(starts[:SURVEYED])
    distance = float(jnp.sqrt(2 * jnp.sum(jnp.var(samples, axis=0))))
    mean, scale = (x.reshape(event_shape) for x in number_scales(samples))
    return Spread(mean, scale, distance)


def with_metrics(settings: Flows, space: FlowSpace) -> FlowSpace:
    """The space with the metrics that the flags ask for."""
    within, starts = space.generator, space.starts
    if settings.laplacian == "beltrami":
        space = space._replace(manifold=unit_metric(within, starts[:VISIBLE_AT]))
    if settings.gradient == "natural":
        metric: Metric = unit_metric(within, starts[:VISIBLE_AT], damping=CLIMBING)
        if settings.bank:
            bank = starts[: settings.bank]
            found = jax.jit(partial(jax.lax.map, metric, batch_size=64))(bank)
            metric = blend(bank, found)
        space = space._replace(metric=metric)
    return space


# --- what is learnt ---


def vector_field(settings: Flows, space: FlowSpace) -> Field:
    """How one member of the family moves a latent, given its parameters."""
    return flow_families.field(settings, space.metric)


def initial(settings: Flows, space: FlowSpace, key: Array) -> Params:
    """Fresh parameters of the potentials, the PDE's coefficients and the pair classifier."""
    potential_key, classifier_key = jax.random.split(key)
    count, dim = settings.count, space.starts.shape[1]
    sample = jnp.zeros(space.frozen.event_shape)
    pair = seen(settings, sample, sample, space.spread)
    return {
        "potentials": potentials.init_stack(
            flow_families.network(settings), potential_key, count, dim
        ),
        "coefficients": jnp.full((count,), 0.5),
        "classifier": classifier(settings, space.frozen).init(classifier_key, pair),
    }


def classifier(settings: Flows, frozen: FrozenGenerator) -> Network:
    """The network that names the potential from a pair of samples."""
    kind = settings.classifier if is_image(frozen) else "vector"
    return CLASSIFIERS[kind](settings.count)


def seen(
    settings: Flows,
    before: Float[Array, "..."],
    after: Float[Array, "..."],
    spread: Spread | None = None,
) -> Array:
    """What the classifier sees of pairs of images, or of other samples that vary like this."""
    if spread is None:
        return pair_features(before, after, side=SIDES[settings.classifier])
    rank = spread.mean.ndim
    first, last = (x.reshape(*x.shape[: x.ndim - rank], -1) for x in (before, after))
    return vector_features(first, last, spread.mean.ravel(), spread.scale.ravel())


def pace(settings: Flows, spread: Spread | None) -> float:
    """Data-space length per unit time that flows are drawn to.

    Of samples of any unit one at which a flow goes as far as two samples are apart.
    """
    if spread is None:
        return settings.pace
    return settings.pace * spread.distance / settings.horizon


def load_run(
    path: str | Path, frozen: FrozenGenerator | None = None
) -> tuple[Config, Dataset | None, FlowSpace, Params]:
    """Everything of a finished run: configuration, training data, space, learnt parameters.

    Args:
        path: the run folder.
        frozen: the run's generator, where it is at hand.

    Raises:
        UsageError: the folder holds no finished run of this experiment.
        ValueError: its generator is no longer there.
    """
    config = read_config(path, Config)
    frozen = of_run(path) if frozen is None else frozen
    dataset = training_data(config.flows, frozen)
    frame = _kept(path, config, frozen)
    space = load_space(config.flows, config.seed, frozen, dataset, frame=frame)
    return config, dataset, space, _restored(path, config, space)


def load_flows(path: str | Path, frozen: FrozenGenerator) -> tuple[Config, FlowSpace, Params]:
    """What moves latents in a finished run: `load_run` without what only training needs.

    Where the folder holds the frame, no data are read: then there are no starting points.

    Args:
        path: the run folder.
        frozen: the run's generator.

    Raises:
        UsageError: the folder holds no finished run of this experiment.
    """
    config = read_config(path, Config)
    frame = _kept(path, config, frozen)
    needs_samples = config.flows.gradient == "natural" or not is_image(frozen)
    if frame is None or needs_samples:
        config, _, space, params = load_run(path, frozen)
        return config, space, params
    none = jnp.zeros((0, frame.basis.shape[1]))
    within = coordinates.compose(frozen.decode, frame)
    space = FlowSpace(frozen, frame, within, none, none.sum(0), none.sum(0))
    return config, space, _restored(path, config, space)


def _restored(path: str | Path, config: Config, space: FlowSpace) -> Params:
    """What a finished run has learnt, each potential turned as it was there."""
    params = restore(path, PHASE, partial(initial, config.flows, space))
    return ways.kept(Path(path).expanduser().absolute(), params)


def _kept(path: str | Path, config: Config, frozen: FrozenGenerator) -> AffineCoordinates | None:
    """The frame of a run that is there, where it has not to be found anew."""
    if config.flows.frame == "identity":
        return coordinates.identity(frozen.latent_dim)
    return read_frame(Path(path).expanduser().absolute(), frozen.latent_dim)

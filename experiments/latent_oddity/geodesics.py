"""Shortest paths between held-out images, beside straight lines: do they stay where data is?

Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018, claims (i) and (iii): with a
deviation that grows away from data the volume measure is large off the data, and paths that are
shortest in that metric decode to images that a classifier is sure of, where straight lines cross
regions without data. Of a generator without an encoder (of train_gan or import_weights, or a
function of your own) pairs of draws from its prior are joined instead, by its pull-back metric; of
any generator, latents of your own by --from and --to. Of a VAE of several decoders (train_vae with
--vae.decoders) held-out images are joined in their expected metric, which needs no deviation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float

from experiments.generators import spec
from experiments.generators.spec import Usual
from experiments.inversion.latent_file import read_latents
from experiments.latent_oddity import (
    densities,
    ensemble_geodesics,
    figures,
    gan_geodesics,
    scores,
    setup,
)
from experiments.latent_oddity.paths import STRAIGHT, Geodesics, Paths, joined, recalled, straight
from experiments.latent_oddity.scores import Judges
from experiments.latent_oddity.setup import Manifold
from experiments.runtime import tables
from experiments.runtime.cli import UsageError
from experiments.runtime.defaults import Quick, Settings
from experiments.runtime.run_dir import Folder
from latent_flows.evaluation.plausibility import off_data, volume_contrast
from latent_flows.generators import FrozenGenerator
from latent_flows.geometry.ensembles import Draws
from latent_flows.geometry.graph import knn_graph
from latent_flows.typing import Metric

UNSHOWN = ("length_network",)
"""Measures that the table leaves out."""
TITLES = {"rbf": "RBF deviation", "network": "ordinary deviation"}
NAMES = {
    "rbf": "RBF geodesic",
    "network": "ordinary geodesic",
    densities.NAME: "density geodesic",
    ensemble_geodesics.NAME: "geodesic",
    setup.EUCLIDEAN: STRAIGHT,
}
"""What paths are called in tables, by the metric in which they are shortest."""
HOLED = ("rbf", densities.NAME)
"""The metrics that have holes, which a path can pass on either side."""


@dataclass(frozen=True)
class Config(scores.Config):
    """Compare geodesics with straight lines."""

    QUICK: ClassVar[Quick] = {
        **scores.Config.QUICK,
        "geodesics.pairs": 8,
        "geodesics.segments": 16,
        "geodesics.off": 200,
        "geodesics.shown": 4,
        "geodesics.strips": 2,
    }

    geodesics: Geodesics = field(default_factory=Geodesics)
    """Paths, measurements and pictures."""
    first: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Join these latents instead of held-out codes or draws: an .npy file of one or several, such
    as experiments.invert writes; with --to."""
    last: Annotated[str, tyro.conf.arg(name="to")] = ""
    """Their other ends: an .npy file of one or as many."""
    decoders: Literal["auto", "one", "independent", "mean"] = "auto"
    """Of a generator of several decoders, whose geodesics: one, of their expected metric, as of one
    drawn for a whole path; independent, as of one drawn at each of its points; mean, of their mean
    with the deviations of its noise, as of one decoder; auto: one where there are several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first and self.latents:
            raise ValueError("--latents and --from exclude each other: leave one out")
        if bool(self.first) != bool(self.last):
            raise ValueError("--from and --to belong together: name the latents of both ends")

    @staticmethod
    def follow(settings: Settings) -> None:
        """Fewer neighbours than codes."""
        settings.at_most("geodesics.neighbours", settings["codes"] - 1)


PRESETS = {
    **setup.presets(Config),
    "gan": (
        "the generator of a run of train_gan, or your own; minutes on a CPU",
        Config(
            run="runs/geodesics-gan",
            generator=Usual("runs/gan", "train_gan sprites"),
            geodesics=Geodesics(pairs=10, segments=64),
        ),
    ),
}


def titles(manifold: Manifold) -> dict[str, str]:
    """What the metrics of a generator are called, by name."""
    return {kind: {**TITLES, **setup.OTHERS}[kind] for kind in manifold.kinds}


def named(paths: Mapping[str, Paths]) -> dict[str, Paths]:
    """Paths by the names that they have in tables."""
    return {NAMES[name]: found for name, found in paths.items()}


def check(config: Config, manifold: Manifold) -> None:
    """Reject what the data cannot give, before anything is written.

    Raises:
        ValueError: more neighbours than codes, or a classifier that cannot be trained.
    """
    scores.check(config, manifold)
    neighbours, codes = config.geodesics.neighbours, len(manifold.train.codes)
    if neighbours >= codes:
        raise ValueError(
            f"geodesics.neighbours ({neighbours}) must be less than the {codes} training codes, "
            "the least of codes and what the data hold"
        )


def unseen(manifold: Manifold) -> Float[np.ndarray, "n d"]:
    """The held-out codes that the density has not seen."""
    return np.array_split(np.asarray(manifold.test.codes), 2)[1]


def ends(config: Config, manifold: Manifold) -> Float[Array, "m 2 d"]:
    """Random pairs of these."""
    return random_pairs(config, unseen(manifold))


def random_pairs(config: Config, codes: Float[np.ndarray, "n d"]) -> Float[Array, "m 2 d"]:
    """Random pairs of codes."""
    random = np.random.default_rng(config.seed)
    rows = [random.choice(len(codes), 2, replace=False) for _ in range(config.geodesics.pairs)]
    return jnp.asarray(codes[np.array(rows)])


def given_ends(config: Config, dim: int) -> Float[Array, "m 2 d"] | None:
    """The pairs that the flags name, or of latents that they name, if they do.

    Raises:
        UsageError: there are no such latents, or not as many of both ends.
    """
    if config.latents:
        found = setup.given_latents(config, dim)
        return random_pairs(config, np.asarray(found))
    if not config.first:
        return None
    ways = {"--from": config.first, "--to": config.last}
    both = [read_latents(name, dim, flag) for flag, name in ways.items()]
    counts = {len(latents) for latents in both}
    if len(counts - {1}) > 1:
        raise UsageError(
            f"--from {config.first} holds {len(both[0])} latents and --to {config.last} "
            f"{len(both[1])}; one of them must hold as many, or one alone"
        )
    pairs = jnp.stack(jnp.broadcast_arrays(*both), axis=1)
    if bool((pairs[:, 0] == pairs[:, 1]).all(1).any()):
        raise UsageError(
            f"--from {config.first} and --to {config.last} name the same latent twice; there is no "
            "way between"
        )
    return pairs


def keep_ends(folder: Folder, pairs: Float[Array, "m 2 d"] | None) -> None:
    """Notes which latents of one's own a run joins.

    Raises:
        UsageError: it has joined others, that were in the same files.
    """
    if pairs is None:
        return
    setup.keep_latents(folder, "ends", pairs, "the files of --from and --to, or --latents, hold")


def find(
    folder: Folder,
    config: Config,
    manifold: Manifold,
    given: Float[Array, "m 2 d"] | None = None,
) -> dict[str, Paths]:
    """The paths of every method, by its metric's name; straight lines are those of "euclidean"."""
    pairs, settings = ends(config, manifold) if given is None else given, config.geodesics

    def compute(name: str, metric: Metric) -> Paths:
        neighbours = settings.neighbours if name in HOLED else 0
        graph = None
        if neighbours:
            graph = knn_graph(metric, manifold.train.codes, neighbours=neighbours)
        return joined(metric, pairs, settings, graph)

    found: dict[str, Paths] = {
        name: recalled(folder, f"paths_{name}", partial(compute, name, manifold.metrics[name]))
        for name in manifold.kinds
    }
    found[setup.EUCLIDEAN] = straight(pairs, settings.segments)
    return found


def measure(config: Config, manifold: Manifold, judge: Judges, paths: Mapping[str, Paths]) -> Any:
    """All numbers of a run."""
    codes = unseen(manifold)
    metrics = {title: manifold.metrics[kind] for kind, title in titles(manifold).items()}
    off = off_data(codes, judge.log_density, count=config.geodesics.off, seed=config.seed)
    return {
        "pairs": config.geodesics.pairs,
        "classifier_accuracy": judge.accuracy,
        "paths": scores.measure_paths(manifold, judge, named(paths)),
        "volume": volume_contrast(metrics, codes, off),
    }


def show(metrics: Mapping[str, Any], paths: Mapping[str, Paths], between: str) -> None:
    """Print the numbers of a run."""
    shown = [{k: v for k, v in row.items() if k not in UNSHOWN} for row in metrics["paths"]]
    rows = tables.with_times(shown, [found.times for found in paths.values()])
    tables.show(f"Paths between {between}, means over pairs", rows)
    tables.show("Log volume of the metric, medians", metrics["volume"])


def draw(
    folder: Folder, config: Config, manifold: Manifold, paths: Mapping[str, Paths], between: str
) -> list[str]:
    """Save the pictures of a run; gives the files of those that could not be drawn."""
    settings = config.geodesics
    worst = figures.hardest(manifold, paths[setup.EUCLIDEAN])
    strips = worst[: settings.strips]
    drawn = figures.losses(folder)
    if manifold.generator.latent_dim <= 2:
        some = worst[figures.spread(len(worst), settings.shown)]
        drawn["latent"] = partial(
            figures.geodesics, manifold, paths, some, titles(manifold), between
        )
    shown = named(paths)
    if manifold.generator.event_shape in ((1, 1, 3), (3,)):
        # The first is drawn in front, what it is compared with next to it.
        front = {name: shown[name] for name in ("RBF geodesic", STRAIGHT, "ordinary geodesic")}
        drawn["space"] = partial(figures.space, manifold, front, strips, between)
    else:
        caption = (
            f"Decoded paths, {len(shown)} a pair, between those pairs of {between} whose straight "
            "line is longest in the RBF metric."
        )
        drawn["strips"] = partial(figures.strips, manifold.generator, shown, strips, caption)
    return tables.save_figures(folder, drawn)


def draws_of(config: Config, generator: FrozenGenerator) -> Draws | None:
    """How members of an ensemble are drawn along a path; None where no ensemble is asked for.

    Raises:
        UsageError: one is, and the generator is none; or features of samples are, which it has not.
    """
    choice = config.decoders
    if choice == "mean":
        return None
    if choice == "auto":
        is_other = config.geodesics.features or None in (generator.members, generator.encode)
        return None if is_other else "one"
    ensemble_geodesics.check(generator)
    if config.geodesics.features:
        raise UsageError(
            f"--geodesics.features and --decoders {choice} exclude each other: leave one out"
        )
    return choice


def run_ensemble(
    config: Config,
    generator: FrozenGenerator,
    given: Float[Array, "m 2 d"] | None,
    draws: Draws,
    between: str,
) -> int | None:
    """The same of an ensemble of decoders, in its expected metric."""
    # Latents of a file are joined here, and take the place of no codes.
    manifold = setup.of_codes(replace(config, latents=""), generator)
    flat = {setup.EUCLIDEAN: manifold.metrics[setup.EUCLIDEAN]}
    # Whatever deviations it may have besides.
    manifold = manifold._replace(metrics={**setup.own_metrics(generator), **flat})
    check(config, manifold)
    folder = spec.open_study(config)
    keep_ends(folder, given)
    judge = scores.appoint(folder, config, manifold)
    settings, pairs = config.geodesics, ends(config, manifold) if given is None else given
    paths = ensemble_geodesics.find(folder, generator, pairs, settings, draws)

    def measured() -> Any:
        whole = measure(config, manifold, judge, paths)
        more = ensemble_geodesics.measure(generator, paths)
        rows = [{**row, **own} for row, own in zip(whole["paths"], more, strict=True)]
        return {**whole, "paths": rows}

    found = folder.remember("metrics", measured)
    longest = figures.hardest(manifold, paths[setup.EUCLIDEAN])
    pictures = ensemble_geodesics.pictures(
        generator, named(paths), longest, manifold.test, settings
    )
    failed = tables.save_figures(folder, figures.losses(folder) | pictures)
    with folder.understood("metrics"):
        show(found, paths, between)
    return tables.where(folder, failed)


def run(config: Config) -> int | None:
    """Join pairs, measure, draw."""
    generator = spec.load(config)
    given = given_ends(config, generator.latent_dim)
    if given is not None:
        config = replace(config, geodesics=replace(config.geodesics, pairs=len(given)))
    between = "held-out codes" if given is None else "the latents that were given"
    config.geodesics.check_memory(generator.latent_dim)
    draws = draws_of(config, generator)
    # Between latents of one's own the generator's own metric will do, where no other is at hand.
    is_plain = given is not None and not setup.has_deviations(generator)
    is_plain |= generator.encode is None or bool(config.geodesics.features)
    if config.density.kind != "none" and (draws is not None or is_plain):
        raise UsageError(
            f"--density.kind {config.density.kind}: here that is for codes of a VAE of one decoder "
            "with both deviations, which its geodesics are compared with; leave it out"
        )
    if draws is not None:
        return run_ensemble(config, generator, given, draws, between)
    if is_plain:
        metric = gan_geodesics.seen_through(generator, config.geodesics)
        folder = spec.open_study(config)
        keep_ends(folder, given)
        return gan_geodesics.run(folder, generator, metric, config.geodesics, config.seed, given)
    setup.check_deviations(generator)
    manifold = setup.of_codes(config, generator)
    check(config, manifold)
    folder = spec.open_study(config)
    keep_ends(folder, given)
    judge = scores.appoint(folder, config, manifold)
    paths = find(folder, config, manifold, given)
    metrics = folder.remember("metrics", lambda: measure(config, manifold, judge, paths))
    failed = draw(folder, config, manifold, paths, between)
    with folder.understood("metrics"):
        show(metrics, paths, between)
    return tables.where(folder, failed)

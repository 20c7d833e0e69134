"""Fit locally adaptive normal distributions to latent codes, beside Gaussian mixtures.

Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018, claim (iv): a mixture of LANDs,
normal distributions with the distance of the generator's metric, follows latent codes better than
a Gaussian mixture of the same size. All densities are with respect to Lebesgue measure of latent
space, so they can be compared.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.latent_oddity import figures, mixtures, setup
from experiments.latent_oddity.setup import Manifold, everywhere
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.defaults import Quick
from experiments.runtime.run_dir import Folder
from latent_flows._validation import at_least
from latent_flows.geometry.land import MEASURES, fewest_samples
from latent_flows.typing import Latent, Metric, Scalar

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

GAUSSIAN = "gaussian"
TITLES = {
    **{
        f"{kind}_{measure}": f"LAND, {name}, {measure}"
        for kind, name in {
            "rbf": "RBF deviation",
            "network": "ordinary deviation",
            **setup.OTHERS,
        }.items()
        for measure in MEASURES
    },
    GAUSSIAN: "Gaussian mixture",
}
RANGE = 8.0
"""Nats below the highest log-density that pictures show."""


@dataclass(frozen=True)
class Fit:
    """The mixtures."""

    components: int = 0
    """Of each mixture; 0: as many as there are labels, or 3 without labels."""
    points: int = 300
    """Training codes, or draws, that mixtures are fitted to."""
    test_points: int = 500
    """Held-out codes whose density is measured."""
    samples: int = 512
    """Latents that constants are estimated with during a fit."""
    final_samples: int = 2048
    """The same, once it is done."""
    segments: int = 16
    """Parts that a geodesic is discretised in."""
    table: int = 192
    """Points on each side of the table that a metric of two latents is kept in, which makes
    geodesics many times cheaper; 0: no table."""
    iterations: int = 10
    """The most steps of each mean."""
    resolution: int = 81
    """Points on each side of the picture, each of which takes a geodesic to every mean."""

    def __post_init__(self) -> None:
        least = {"components": 0, "points": 8, "test_points": 1, "samples": 16, "segments": 2}
        least |= {"final_samples": 16, "iterations": 1, "table": 0, "resolution": 2}
        at_least(self, "fit.", **least)


@dataclass(frozen=True)
class Config(setup.Config):
    """Compare mixtures of LANDs with Gaussian mixtures."""

    QUICK: ClassVar[Quick] = {
        **setup.Config.QUICK,
        "fit.points": 60,
        "fit.test_points": 30,
        "fit.resolution": 21,
        "fit.samples": 64,
        "fit.final_samples": 128,
        "fit.segments": 8,
        "fit.table": 48,
        "fit.iterations": 2,
    }

    fit: Fit = field(default_factory=Fit)
    """Mixtures."""


SHORT = Fit(iterations=3, final_samples=1024)
"""For mixtures of ten, which take ten times as long."""

FEW = Fit(
    components=1,
    points=60,
    test_points=60,
    samples=64,
    final_samples=128,
    segments=6,
    iterations=2,
)
"""For geodesics of a large generator, which take hundreds of passes through it each."""

PRESETS = {
    **{
        name: (
            about,
            replace(config, fit=SHORT) if name.partition("-")[0] in ("digits", "mnist") else config,
        )
        for name, (about, config) in setup.presets(Config).items()
    },
    **setup.gan_preset(Config, setup.FEW_LATENTS, fit=FEW, codes=200),
}


def check(config: Config, manifold: Manifold) -> None:
    """Reject what the data cannot give, before anything is written.

    Raises:
        ValueError: more components than points, no more points than numbers of a code, or too few
            latents to estimate constants with.
    """
    codes, _ = points(config, manifold)
    if len(codes) <= (dim := manifold.generator.latent_dim):
        raise ValueError(
            f"fit.points: {len(codes)} {manifold.source} are too few for latents of {dim} numbers; "
            f"at least {dim + 1} are needed, of fit.points, codes and what the data hold"
        )
    if (samples := config.fit.samples) < (least := fewest_samples(dim)):
        raise ValueError(
            f"fit.samples: {samples} are too few for latents of {dim} numbers, over which "
            f"densities are integrated; at least {least} are needed, or a generator of fewer "
            "latents, such as that of `python -m experiments.train_gan sprites-few`"
        )
    if (wanted := components(config, manifold)) > len(codes):
        raise ValueError(
            f"fit.components: {wanted} are more than the {len(codes)} codes that they are fitted "
            "to, the least of fit.points, codes and what the data hold"
        )


def components(config: Config, manifold: Manifold) -> int:
    """The size of each mixture."""
    labels = manifold.train.labels
    return config.fit.components or (3 if labels is None else len(np.unique(labels)))


def points(config: Config, manifold: Manifold) -> tuple[Float[Array, "n d"], Float[Array, "m d"]]:
    """The codes that mixtures are fitted to, and those that they are measured on."""
    train, test = manifold.train.codes, manifold.test.codes
    return train[: config.fit.points], test[: config.fit.test_points]


def find(
    folder: Folder,
    config: Config,
    manifold: Manifold,
    known: Mapping[str, Metric],
    start: Float[Array, "k d"],
) -> Any:
    """The mixtures of LANDs of each metric and measure, by name, and the seconds they took."""
    codes, _ = points(config, manifold)
    fit = partial(
        mixtures.fit,
        jax.random.key(config.seed),
        codes=codes,
        start=start,
        samples=config.fit.samples,
        final_samples=config.fit.final_samples,
        segments=config.fit.segments,
        max_iterations=config.fit.iterations,
        batch_size=setup.at_once(codes),
    )
    found = {}
    for kind, measure in itertools.product(manifold.kinds, MEASURES):
        name = f"land_{kind}_{measure}"
        title = TITLES[f"{kind}_{measure}"]
        compute = partial(fit, metric=known[kind], measure=measure, title=title)
        kept, times = folder.remember_timed(name, compute)
        with folder.understood(name):
            mixtures.revive(kept)
            found[f"{kind}_{measure}"] = {**kept, "times": times}
    return found


def log_density(
    known: Mapping[str, Metric], name: str, saved: Mapping[str, Any]
) -> Callable[[Latent], Scalar]:
    """The log-density of the mixture of this name."""
    return mixtures.log_density(known[name.partition("_")[0]], saved)


def measure(
    config: Config,
    manifold: Manifold,
    known: Mapping[str, Metric],
    mixture: "GaussianMixture",
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """The held-out log-density of every mixture."""
    train, test = points(config, manifold)
    rows = []
    for name, saved in found.items():
        values = everywhere(log_density(known, name, saved), test)
        rows.append(
            {
                "method": TITLES[name],
                "held_out": float(np.mean(values)),
                "median": float(np.median(values)),
                "fitted": saved["log_likelihood"],
                "constant_error": mixtures.error_of_constant(saved),
                "converged": float(saved["converged"]),
            }
        )
    values = mixture.score_samples(np.asarray(test))
    rows.append(
        {
            "method": TITLES[GAUSSIAN],
            "held_out": float(np.mean(values)),
            "median": float(np.median(values)),
            "fitted": float(mixture.score(np.asarray(train))),
            "constant_error": 0.0,
            "converged": float(mixture.converged_),
        }
    )
    return {"components": mixture.n_components, "points": len(train), "methods": rows}


def show(metrics: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Print the numbers of a run."""
    times = [*(of["times"] for of in found.values()), {"seconds": 0.0, "compiling": 0.0}]
    rows = tables.with_times(metrics["methods"], times)
    title = f"{metrics['components']} components fitted to {metrics['points']} codes"
    tables.show(f"{title}: log-density, nats a code", rows)


def draw(
    config: Config,
    manifold: Manifold,
    known: Mapping[str, Metric],
    mixture: "GaussianMixture",
    found: Mapping[str, Any],
) -> figures.Drawn:
    """The densities side by side, with held-out codes; of long codes, what the means decode to."""
    _, test = points(config, manifold)
    if test.shape[1] > 2:
        means = {TITLES[n]: np.asarray(saved["means"], np.float32) for n, saved in found.items()}
        means[TITLES[GAUSSIAN]] = np.asarray(mixture.means_, np.float32)
        caption = "What the means of each mixture decode to."
        return {"means": partial(figures.samples_of_groups, manifold, means, "components", caption)}
    first = manifold.kinds[0]
    shown = {TITLES[n]: log_density(known, n, found[n]) for n in found if n.startswith(first)}
    shown[TITLES[GAUSSIAN]] = mixtures.gaussian_log_density(mixture)
    top = float(np.quantile(mixture.score_samples(np.asarray(test)), 0.9))
    picture = partial(
        figures.densities,
        shown,
        test,
        floor=top - RANGE,
        resolution=config.fit.resolution,
        caption=(
            f"Log-density of mixtures of {mixture.n_components} components, the lowest "
            f"{RANGE:g} nats below what is usual on data, and held-out codes."
        ),
    )
    return {"densities": picture}


def run(config: Config) -> int | None:
    """Fit mixtures, measure, draw."""
    manifold = setup.load_manifold(config)
    check(config, manifold)
    folder = setup.open_folder(config, manifold)
    codes, _ = points(config, manifold)
    with announced("fitting a Gaussian mixture"):
        mixture = mixtures.gaussian(codes, components(config, manifold), config.seed)
    known = setup.tabulated(manifold, config.fit.table)
    found = find(folder, config, manifold, known, jnp.asarray(mixture.means_, codes.dtype))
    failed = tables.save_figures(folder, draw(config, manifold, known, mixture, found))
    metrics = folder.remember("metrics", lambda: measure(config, manifold, known, mixture, found))
    with folder.understood("metrics"):
        show(metrics, found)
    return tables.where(folder, failed)

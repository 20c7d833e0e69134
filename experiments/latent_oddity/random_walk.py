"""Random walks on a generator's manifold, beside Euclidean walks: which stay where data is?

Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018, claim (v): Brownian motion under
the metric of a generator whose deviation grows away from data stays near data and makes plausible
samples, where a Euclidean random walk leaves it. All walks start from the same training codes and
take the same number of steps, equally long in data space at these codes.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.latent_oddity import figures, scores, setup
from experiments.latent_oddity.scores import Judges
from experiments.latent_oddity.setup import Manifold, everywhere
from experiments.runtime import tables
from experiments.runtime.defaults import Quick
from experiments.runtime.progress import in_parts
from experiments.runtime.run_dir import Folder, Timed
from latent_flows._transforms import even_size
from latent_flows._validation import at_least
from latent_flows.evaluation.plausibility import walk_plausibility
from latent_flows.geometry import brownian_motion
from latent_flows.geometry.metrics import matrix, pullback
from latent_flows.typing import Latent, Metric, Scalar

BATCH = 16
"""Walks that are followed at once; of long latents one, whose metric is work enough."""
SURVEYED = 500
"""Codes at which the metric says how long a step takes; of long latents a tenth."""
TITLES = {
    "rbf": "Brownian, RBF deviation",
    "network": "Brownian, ordinary deviation",
    setup.EUCLIDEAN: "Euclidean",
    **{name: f"Brownian, {title}" for name, title in setup.OTHERS.items()},
}


@dataclass(frozen=True)
class Walks:
    """The walks, and when a sample counts as plausible."""

    walks: int = 60
    """Walks of each kind, from as many training codes, or draws."""
    steps: int = 200
    """Of each walk."""
    step: float = 0.1
    """Length of a step in data space, in units of the distance between the decoded images of two
    random codes (root mean square, for the median code)."""
    substeps: int = 2
    """Steps of the solver in each step."""
    confidence: float = 0.9
    """From which confidence of the classifier on a sample is plausible."""
    density: float = 0.01
    """Share of held-out codes whose density is too low to be plausible."""
    drawn: int = 3
    """Walks that are drawn and decoded, of each kind."""

    def __post_init__(self) -> None:
        at_least(self, "walks.", walks=1, steps=1, substeps=1, drawn=1)
        if not self.step > 0:
            raise ValueError(f"walks.step must be positive, got {self.step}")
        for name in ("confidence", "density"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"walks.{name} must lie in (0, 1), got {getattr(self, name)}")


@dataclass(frozen=True)
class Config(scores.Config):
    """Compare Brownian motion on the manifold with Euclidean walks."""

    QUICK: ClassVar[Quick] = {
        **scores.Config.QUICK,
        "walks.walks": 10,
        "walks.steps": 40,
        "walks.substeps": 1,
    }

    walks: Walks = field(default_factory=Walks)
    """Walks."""


FEW = Walks(walks=3, steps=10, substeps=1)
"""For long latents, whose metric takes many passes through the generator, and its slope far more.
"""
PRESETS = {**setup.presets(Config), **setup.gan_preset(Config, walks=FEW, codes=200)}


class Paths(NamedTuple):
    """The walks of one method."""

    zs: Float[Array, "n t d"]
    ok: Bool[Array, "n"]
    """Whether a walk stayed finite."""
    time_step: float
    """Time of a step, in squared lengths of the metric."""
    times: Mapping[str, float]
    """Seconds that walking and compiling took, where that is known."""


def spread(manifold: Manifold, codes: Float[Array, "n d"]) -> float:
    """The root mean square distance between the decoded images of random pairs of codes."""
    images = everywhere(lambda z: manifold.generator.decode(z).ravel(), codes)
    return float(np.sqrt(2 * np.sum(np.var(images, 0))))


def time_step(
    config: Config, manifold: Manifold, metric: Metric, codes: Float[Array, "n d"]
) -> float:
    """The time in which a walk goes one step's length in data space, at the median code.

    A short time `t` of Brownian motion under `M` changes the decoded image, whose own metric is
    `G`, by `sqrt(t trace(M^-1 G))` in root mean square.
    """
    decoded = pullback(manifold.generator.decode)

    def rate(z: Latent) -> Scalar:
        return jnp.trace(jnp.linalg.solve(matrix(metric, z), matrix(decoded, z)))

    length = config.walks.step * spread(manifold, codes)
    return float(length**2 / np.median(everywhere(rate, codes)))


def walk(config: Config, metric: Metric, starts: Float[Array, "n d"], step: float) -> Timed:
    """Walks from each start."""
    settings = config.walks
    ts = step * np.arange(settings.steps + 1.0)

    def follow(key: Array, z: Latent) -> Any:
        return brownian_motion(key, metric, z, ts, substeps=settings.substeps)

    keys = jax.random.split(jax.random.key(config.seed), len(starts))
    size = even_size(len(starts), 1 if starts.shape[1] > setup.LONG else BATCH)
    begun = time.monotonic()
    compiled = jax.jit(jax.vmap(follow)).lower(keys[:size], starts[:size]).compile()
    ready = time.monotonic()
    zs, ok = in_parts(
        "walks",
        lambda *part: compiled(*part)[1:3],
        (keys, starts),
        size,
        lambda part: f"{part[1].mean():.0%} stayed finite",
    )
    times = {"seconds": time.monotonic() - ready, "compiling": ready - begun}
    return {"zs": zs, "ok": ok, "time_step": step}, times


def find(folder: Folder, config: Config, manifold: Manifold) -> dict[str, Paths]:
    """The walks of every method, by its metric's name."""
    starts = manifold.train.codes[: config.walks.walks]
    found = {}
    few = SURVEYED // 10 if starts.shape[1] > setup.LONG else SURVEYED
    for name, metric in manifold.metrics.items():

        def compute(metric: Metric = metric) -> Timed:
            step = time_step(config, manifold, metric, manifold.train.codes[:few])
            return walk(config, metric, starts, step)

        saved, times = folder.remember_timed(f"walks_{name}", compute)
        with folder.understood(f"walks_{name}"):
            zs = jnp.asarray(np.array(saved["zs"], np.float32))
            found[name] = Paths(zs, jnp.asarray(saved["ok"]), saved["time_step"], times)
    return found


def measure(
    config: Config, manifold: Manifold, judge: Judges, found: Mapping[str, Paths]
) -> dict[str, Any]:
    """All numbers of a run."""
    _, held_out = np.array_split(np.asarray(manifold.test.codes), 2)
    lowest = float(np.quantile(judge.log_density(held_out), config.walks.density))
    rows = [
        {
            "walk": TITLES[name],
            **walk_plausibility(
                manifold.generator.decode,
                paths.zs,
                judge.log_density,
                lowest,
                judge.confidence,
                config.walks.confidence,
            ),
            "ok": float(np.mean(paths.ok)),
        }
        for name, paths in found.items()
    ]
    return {
        "walks": config.walks.walks,
        "steps": config.walks.steps,
        "classifier_accuracy": judge.accuracy,
        "methods": rows,
    }


def show(metrics: Mapping[str, Any], found: Mapping[str, Paths], what: str) -> None:
    """Print the numbers of a run."""
    rows = tables.with_times(metrics["methods"], [paths.times for paths in found.values()])
    title = f"{metrics['walks']} walks of {metrics['steps']} steps from {what}"
    tables.show(f"{title}: shares of plausible samples", rows)


def draw(config: Config, manifold: Manifold, found: Mapping[str, Paths]) -> figures.Drawn:
    """Walks over the log volume, and what they decode to."""
    zs = {name: np.asarray(paths.zs[: config.walks.drawn]) for name, paths in found.items()}
    drawn: figures.Drawn = {}
    if manifold.generator.latent_dim <= 2:
        drawn["walks"] = partial(figures.walks, manifold, zs, TITLES)
    if manifold.generator.event_shape != (1, 1, 3):
        steps = np.linspace(0, config.walks.steps, 12).astype(int)
        some = {name: walks[:, steps] for name, walks in zs.items()}
        drawn["samples"] = partial(figures.along_walks, manifold, some, TITLES)
    return drawn


def run(config: Config) -> int | None:
    """Walk, measure, draw."""
    manifold = setup.load_manifold(config)
    scores.check(config, manifold)
    folder = setup.open_folder(config, manifold)
    judge = scores.appoint(folder, config, manifold)
    found = find(folder, config, manifold)
    metrics = folder.remember("metrics", partial(measure, config, manifold, judge, found))
    failed = tables.save_figures(folder, draw(config, manifold, found))
    with folder.understood("metrics"):
        show(metrics, found, manifold.named("training"))
    return tables.where(folder, failed)

"""Random walks on a generator's manifold, beside Euclidean walks: which stay where data is?

Arvanitidis, Hansen and Hauberg, "Latent Space Oddity", ICLR 2018, claim (v): Brownian motion under
the metric of a generator whose deviation grows away from data stays near data and makes plausible
samples, where a Euclidean random walk leaves it. All walks start from the same training codes and
take the same number of steps, equally long in data space at these codes. Trains the generator
first unless --generator names a finished one.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.generators.load import resolved
from experiments.generators.noise_std import KINDS
from experiments.latent_oddity import plausibility, setup
from experiments.latent_oddity.geodesics import box
from experiments.latent_oddity.plausibility import Judges
from experiments.latent_oddity.setup import Subject, everywhere
from experiments.runtime import tables
from experiments.runtime.defaults import Quick
from experiments.runtime.run_dir import Folder, Timed, open_folder
from latent_flows import plots
from latent_flows._transforms import vmap_chunked
from latent_flows._validation import at_least
from latent_flows.geometry.diffusion import brownian_motion
from latent_flows.geometry.metrics import log_volume, matrix, pullback
from latent_flows.typing import Latent, Metric, Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 64
"""Walks that are followed at once."""
TITLES = {
    "rbf": "Brownian, RBF deviation",
    "network": "Brownian, ordinary deviation",
    setup.EUCLIDEAN: "Euclidean",
}


@dataclass(frozen=True)
class Walks:
    """The walks, and when a sample counts as plausible."""

    walks: int = 60
    """Walks of each kind, from as many training codes."""
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
class Config(setup.Config):
    """Compare Brownian motion on the manifold with Euclidean walks."""

    QUICK: ClassVar[Quick] = {
        **setup.Config.QUICK,
        "walks.walks": 10,
        "walks.steps": 40,
        "walks.substeps": 1,
    }

    walks: Walks = field(default_factory=Walks)
    """Walks."""


PRESETS = setup.presets(Config)


class Paths(NamedTuple):
    """The walks of one method."""

    zs: Float[Array, "n t d"]
    ok: Bool[Array, "n"]
    """Whether a walk stayed finite."""
    time_step: float
    """Time of a step, in squared lengths of the metric."""
    times: Mapping[str, float]
    """Seconds that walking and compiling took, where that is known."""


def spread(subject: Subject, codes: Float[Array, "n d"]) -> float:
    """The root mean square distance between the decoded images of random pairs of codes."""
    images = everywhere(lambda z: subject.mean(z).ravel(), codes)
    return float(np.sqrt(2 * np.sum(np.var(images, 0))))


def time_step(
    config: Config, subject: Subject, metric: Metric, codes: Float[Array, "n d"]
) -> float:
    """The time in which a walk goes one step's length in data space, at the median code.

    A short time `t` of Brownian motion under `M` changes the decoded image, whose own metric is
    `G`, by `sqrt(t trace(M^-1 G))` in root mean square.
    """
    decoded = pullback(subject.mean)

    def rate(z: Latent) -> Scalar:
        return jnp.trace(jnp.linalg.solve(matrix(metric, z), matrix(decoded, z)))

    length = config.walks.step * spread(subject, codes)
    return float(length**2 / np.median(everywhere(rate, codes)))


def walk(config: Config, metric: Metric, starts: Float[Array, "n d"], step: float) -> Timed:
    """Walks from each start."""
    settings = config.walks
    ts = step * np.arange(settings.steps + 1.0)

    def follow(key: Array, z: Latent) -> Any:
        return brownian_motion(key, metric, z, ts, substeps=settings.substeps)

    keys = jax.random.split(jax.random.key(config.seed), len(starts))
    begun = time.monotonic()
    compiled = jax.jit(vmap_chunked(follow, BATCH)).lower(keys, starts).compile()
    ready = time.monotonic()
    found = jax.block_until_ready(compiled(keys, starts))
    times = {"seconds": time.monotonic() - ready, "compiling": ready - begun}
    return {"zs": found.zs, "ok": found.ok, "time_step": step}, times


def find(folder: Folder, config: Config, subject: Subject) -> dict[str, Paths]:
    """The walks of every method, by its metric's name."""
    starts = subject.train.codes[: config.walks.walks]
    found = {}
    for name in (*KINDS["both"], setup.EUCLIDEAN):
        metric = subject.metrics[name]

        def compute(metric: Metric = metric) -> Timed:
            step = time_step(config, subject, metric, subject.train.codes[:500])
            return walk(config, metric, starts, step)

        saved, times = folder.remember_timed(f"walks_{name}", compute)
        with folder.understood(f"walks_{name}"):
            zs = jnp.asarray(np.array(saved["zs"], np.float32))
            found[name] = Paths(zs, jnp.asarray(saved["ok"]), saved["time_step"], times)
    return found


def measure_walks(
    config: Config, subject: Subject, judge: Judges, paths: Paths, lowest: float
) -> dict[str, float | None]:
    """How plausible the samples of one method are, all steps after the start together."""
    zs = paths.zs[:, 1:]
    count, steps, dim = zs.shape
    flat = zs.reshape(-1, dim)
    log_density = judge.log_density(flat).reshape(count, steps)
    dense = log_density >= lowest
    # Of every walk a few steps are decoded, the last among them.
    shown = np.linspace(steps - 1, 0, min(steps, 20)).astype(int)
    images = everywhere(subject.mean, zs[:, shown].reshape(-1, dim))
    sure: np.ndarray | None = None
    if judge.confidence is not None:
        sure = judge.confidence(jnp.asarray(images)).reshape(count, -1) >= config.walks.confidence
    lengths = np.linalg.norm(np.diff(np.asarray(paths.zs), axis=1), axis=-1)
    return {
        "dense": float(dense.mean()),
        "dense_at_end": float(dense[:, -1].mean()),
        "confident": None if sure is None else float(sure.mean()),
        "confident_at_end": None if sure is None else float(sure[:, 0].mean()),
        "log_density": float(np.median(log_density)),
        "latent_step": float(np.median(lengths)),
        "reach": float(np.median(np.linalg.norm(zs[:, -1] - paths.zs[:, 0], axis=-1))),
        "ok": float(np.mean(paths.ok)),
    }


def measure(
    config: Config, subject: Subject, judge: Judges, found: Mapping[str, Paths]
) -> dict[str, Any]:
    """All numbers of a run."""
    _, held_out = np.array_split(np.asarray(subject.test.codes), 2)
    lowest = float(np.quantile(judge.log_density(held_out), config.walks.density))
    rows = [
        {"walk": TITLES[name], **measure_walks(config, subject, judge, paths, lowest)}
        for name, paths in found.items()
    ]
    return {
        "walks": config.walks.walks,
        "steps": config.walks.steps,
        "classifier_accuracy": judge.accuracy,
        "methods": rows,
    }


def show(metrics: Mapping[str, Any], found: Mapping[str, Paths]) -> None:
    """Print the numbers of a run."""
    rows = tables.with_times(metrics["methods"], [paths.times for paths in found.values()])
    title = f"{metrics['walks']} walks of {metrics['steps']} steps from training codes"
    tables.show(f"{title}: shares of plausible samples", rows)


def draw(
    config: Config, subject: Subject, found: Mapping[str, Paths]
) -> dict[str, Callable[[], "Figure"]]:
    """Walks over the log volume, and what they decode to."""
    figures: dict[str, Callable[[], Figure]] = {}
    if subject.vae.config.latent_dim <= 2:
        figures["walks"] = partial(draw_walks, config, subject, found)
    if subject.vae.image_shape != (1, 1, 3):
        figures["samples"] = partial(draw_samples, config, subject, found)
    return figures


def draw_walks(config: Config, subject: Subject, found: Mapping[str, Paths]) -> "Figure":
    """Some walks over the log volume."""
    drawn, dim = config.walks.drawn, subject.vae.config.latent_dim
    codes = np.asarray(subject.train.codes[:1000])
    walks = [np.asarray(paths.zs[:drawn]).reshape(-1, dim) for paths in found.values()]
    low, high = box(codes)
    # A walk that runs away leaves the picture, which it would else make too coarse to see.
    seen = np.clip(np.concatenate(walks), low - (high - low) / 2, high + (high - low) / 2)
    low, high = box(np.concatenate([codes, seen]))
    behind = [name if name in KINDS["both"] else "rbf" for name in found]
    return plots.latent_maps(
        [log_volume(subject.metrics[name]) for name in behind],
        low=low,
        high=high,
        titles=[TITLES[name] for name in found],
        value="log volume",
        data=codes,
        labels=None if subject.train.labels is None else subject.train.labels[:1000],
        curves=[{"walk": np.asarray(paths.zs[:drawn])} for paths in found.values()],
        resolution=61,
        caption=(
            "Random walks from training codes over the log volume of the walk's own metric "
            "(for Euclidean walks that with RBF deviation), with training codes."
        ),
    )


def draw_samples(config: Config, subject: Subject, found: Mapping[str, Paths]) -> "Figure":
    """What some walks decode to."""
    places = np.linspace(0, config.walks.steps, 12).astype(int)
    decode = jax.vmap(jax.vmap(subject.mean))
    rows = {name: decode(paths.zs[: config.walks.drawn, places]) for name, paths in found.items()}
    return plots.strips(
        np.concatenate([np.asarray(images) for images in rows.values()]),
        row_labels=[TITLES[name] for name, images in rows.items() for _ in images],
        axis="along the walk",
        caption="Decoded points of random walks that start from the same training codes.",
    )


def run(config: Config) -> int | None:
    """Train the generator, walk, measure, draw."""
    config = resolved(config)
    train_set, test_set = setup.datasets(config)
    folder = open_folder(config.run, config)
    subject = setup.load_subject(folder, config, train_set, test_set)
    judge = plausibility.appoint(folder, config, subject, train_set)
    found = find(folder, config, subject)
    metrics = folder.remember("metrics", partial(measure, config, subject, judge, found))
    failed = tables.save_figures(folder, draw(config, subject, found))
    with folder.understood("metrics"):
        show(metrics, found)
    return tables.where(folder, failed)

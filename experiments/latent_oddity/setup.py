"""What experiments on the geometry of a generator share: its flags, its metrics, codes of data.

The generator is a VAE whose noise has a deviation that was fitted afterwards, once by an RBF
network and once by an ordinary network: two metrics, to be compared with each other and with
straight lines. One of several decoders has the metric of their ensemble, one of a single decoder
and no deviation that of its mean; and one without an encoder its own, and draws from its prior, or
latents of a file, in place of codes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.generators import spec
from experiments.generators.noise_std import KINDS
from experiments.generators.spec import Flags, Usual
from experiments.generators.training_data import check_encoder, encoded, load_data
from experiments.inversion.latent_file import read_latents
from experiments.latent_oddity import densities
from experiments.latent_oddity.densities import Density
from experiments.runtime import extension
from experiments.runtime.announcements import announced
from experiments.runtime.cli import Presets, UsageError, module_name
from experiments.runtime.defaults import Quick
from experiments.runtime.run_dir import Folder
from latent_flows._transforms import in_chunks
from latent_flows._validation import at_least
from latent_flows.data import Dataset
from latent_flows.generators import FrozenGenerator, GeneratorSpec, draw_latents
from latent_flows.geometry.ensembles import ensemble_pullback
from latent_flows.geometry.interpolation import tabulate
from latent_flows.geometry.metrics import Pullback, pullback, stochastic_pullback, unit_metric
from latent_flows.typing import Metric

EUCLIDEAN = "euclidean"
FEWEST = 4
"""Held-out examples without which nothing can be measured."""
METHODS = (*KINDS["both"], EUCLIDEAN)
"""The metrics of a VAE with both deviations, by name."""
OTHERS = {
    "pullback": "pull-back",
    "ensemble": "ensemble of decoders",
    densities.NAME: "density of codes",
}
"""The metrics that are made of no deviation, by name, and their titles."""
DAMPING = 0.01
"""Of the metric of a generator without an encoder, in units of its mean over draws and axes."""
SURVEYED = 32
"""Draws over which that mean is taken."""
LONG = 16
"""Numbers of a latent above which a metric is work enough for a few points at a time."""


@dataclass(frozen=True)
class Config:
    """The generator, and the points whose geometry is studied."""

    PHASES: ClassVar[extension.Phases] = {}
    QUICK: ClassVar[Quick] = {"codes": 300, "density.steps": 200, "density.table": 64}

    run: str = "runs/oddity"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness."""
    generator: str = ""
    """Run folder of train_vae with --variance both or several decoders, or of any experiment on
    one; or without an encoder: of train_gan or import_weights, package.module:function or
    file.py:function. Then draws from its prior take the place of codes."""
    source: Flags = field(default_factory=GeneratorSpec)
    """More of a generator without an encoder."""
    codes: int = 2000
    """Examples, at most, that are encoded, of the training and of the held-out part each; or as
    many draws, or latents of a file."""
    latents: str = ""
    """Of a generator without an encoder: an .npy file of latents, such as experiments.invert finds
    of pictures, in place of draws from the prior. Every second one is held out."""

    density: Density = field(default_factory=Density)
    """A metric beside those of the generator."""

    def __post_init__(self) -> None:
        at_least(self, codes=16)
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


Kind = TypeVar("Kind", bound=Config)

GENERATORS = {
    "surface": ("points of a surface with a hole, two latents", "surface-plane"),
    "digits": ("scikit-learn's digits, two latents", "digits-plane"),
    "mnist012": ("the digits 0, 1 and 2 of MNIST, two latents", "mnist012-plane"),
    "mnist": ("MNIST, two latents", "mnist-plane"),
}
"""What every one of these experiments has a preset for, and the preset of train_vae that makes it.
"""


BESIDE = ("mnist012", "mnist")
"""Those that have a preset with the metric of a density as well."""


def presets(kind: type[Kind], **settings: Any) -> Presets[Kind]:
    """An experiment's presets, one for each of `GENERATORS`, and those of `BESIDE`.

    Args:
        kind: its configuration, a subclass of `Config`.
        settings: fields that differ from the defaults of `kind`, in all presets.
    """
    experiment = module_name(kind).rpartition(".")[2]

    def preset(name: str, vae: str, **more: Any) -> Kind:
        return kind(
            run=f"runs/{experiment}-{name}",
            generator=Usual(f"runs/vae-{vae}", f"train_vae {vae}"),
            **settings,
            **more,
        )

    plain = {name: (about, preset(name, vae)) for name, (about, vae) in GENERATORS.items()}
    beside = {
        f"{name}-{densities.NAME}": (
            f"{about}, and a metric made of a density of their codes",
            preset(f"{name}-{densities.NAME}", vae, density=Density("kernel")),
        )
        for name, (about, vae) in GENERATORS.items()
        if name in BESIDE
    }
    return {**plain, **beside}


GAN = Usual("runs/gan", "train_gan sprites")
"""The generator without an encoder that presets are of."""
FEW_LATENTS = Usual("runs/gan-few", "train_gan sprites-few")
"""The same of what can be integrated over."""


def gan_preset(kind: type[Kind], generator: Usual = GAN, **settings: Any) -> Presets[Kind]:
    """The preset for a generator without an encoder, or for one's own."""
    experiment = module_name(kind).rpartition(".")[2]
    config = kind(run=f"runs/{experiment}-gan", generator=generator, **settings)
    return {"gan": ("draws of a run of train_gan, or of your own; minutes on a CPU", config)}


class Sample(NamedTuple):
    """Examples, and where the encoder puts them."""

    images: Float[Array, "m *event"]
    """Of data; none of draws."""
    codes: Float[Array, "n d"]
    """Means of the posterior, or draws from the prior."""
    labels: Int[np.ndarray, "n"] | None


class Manifold(NamedTuple):
    """A generator with its metrics, and data seen through it."""

    generator: FrozenGenerator
    metrics: Mapping[str, Metric]
    """The expected metric with each deviation, of the RBF network ("rbf") and of the ordinary one
    ("network"), or those of `OTHERS`; that of a density, if asked for; and "euclidean", the
    latent's own."""
    data: Dataset | None
    """What the generator was trained on; None where draws take the place of codes, or latents of a
    file do."""
    train: Sample
    """Of these data, or draws."""
    test: Sample
    """Of held-out data, or other draws."""
    source: str = "codes"
    """What its latents are, in words: codes, draws or latents."""

    def named(self, part: str) -> str:
        """What the latents of a part, training or held-out, are in words: draws have none."""
        return f"{part} {self.source}" if self.data else self.source

    @property
    def kinds(self) -> list[str]:
        """The metrics that come of the generator; the first is the one to trust."""
        return [name for name in self.metrics if name != EUCLIDEAN]


def load_manifold(config: Config) -> Manifold:
    """The generator that the flags name, and examples of its data, or draws from its prior.

    Raises:
        UsageError: there are no such latents as the flags name, or too few.
        ValueError: there is no generator, or its data are too few.
    """
    generator = spec.load(config)
    return of_draws(config, generator) if generator.encode is None else of_codes(config, generator)


def of_codes(config: Config, generator: FrozenGenerator) -> Manifold:
    """The metrics of a generator, and examples of its data encoded.

    Raises:
        UsageError: it has no encoder, or latents of a file are to take the place of codes.
        ValueError: its data are too few.
    """
    check_encoder(generator, module_name(type(config)))
    if config.latents:
        raise UsageError(
            f"--latents {config.latents}: {generator.name} has an encoder, and its codes are "
            "studied; leave it out"
        )
    train, test = (load_data(generator, part) for part in ("train", "test"))
    if test.length < FEWEST:
        raise ValueError(
            f"{test.name} has {test.length} held-out examples; at least {FEWEST} are needed, half "
            "of them for a density"
        )
    metrics: dict[str, Metric] = {
        kind: stochastic_pullback(generator.decode, generator.noise_std[kind])
        for kind in KINDS["both"]
        if kind in generator.noise_std
    }
    if not metrics:
        metrics |= own_metrics(generator)
        if generator.members is None:
            print(
                f"{generator.name} has no deviation of its noise: its metric is that of the mean "
                "alone, which does not grow away from data; train_vae --variance both fits some",
                flush=True,
            )
    with announced("encoding images"):
        seen, held_out = (sample(config, generator, part) for part in (train, test))
    (own,) = own_metrics(generator).values()
    metrics |= of_density(config, own, seen.codes)
    metrics[EUCLIDEAN] = pullback(lambda z: z)
    return Manifold(generator, metrics, train, seen, held_out)


def of_density(config: Config, own: Metric, codes: Float[Array, "n d"]) -> dict[str, Metric]:
    """The metric of a density by its name, if the flags ask for one."""
    if config.density.kind == "none":
        return {}
    return {densities.NAME: densities.made_of(config.density, config.seed, own, codes)}


def has_deviations(generator: FrozenGenerator) -> bool:
    """Whether both deviations of its noise are known."""
    return {*KINDS["both"]} <= {*generator.noise_std}


def check_deviations(generator: FrozenGenerator) -> None:
    """Reject a generator without both deviations of its noise.

    Raises:
        UsageError: one is missing.
    """
    if missing := [kind for kind in KINDS["both"] if kind not in generator.noise_std]:
        raise UsageError(
            f"{generator.name} has no deviation of its noise ({' and '.join(missing)}), of which "
            "its metrics are made: make it by `python -m experiments.train_vae` with --variance "
            "both, or one of that command's presets that end in -plane"
        )


def of_draws(config: Config, generator: FrozenGenerator) -> Manifold:
    """The metric of a generator without an encoder, and draws from its prior, or given latents."""
    none = jnp.zeros((0, *generator.event_shape))
    if config.latents:
        draws = given_latents(config, generator.latent_dim)
        halves: Sequence[Array] = draws[::2], draws[1::2]
    else:
        draws = draw_latents(generator.prior, jax.random.key(config.seed), 2 * config.codes)
        halves = jnp.split(draws, 2)
    seen, others = (Sample(none, half, None) for half in halves)
    own: dict[str, Metric] = {
        # So that there is a length along what samples do not show, of which GANs have much.
        name: unit_metric(metric.immersion, draws[:SURVEYED], damping=DAMPING)
        for name, metric in own_metrics(generator).items()
    }
    (metric,) = own.values()
    own |= of_density(config, metric, seen.codes)
    source = "latents" if config.latents else "draws"
    metrics: dict[str, Metric] = {**own, EUCLIDEAN: pullback(lambda z: z)}
    return Manifold(generator, metrics, None, seen, others, source)


def given_latents(config: Config, dim: int) -> Float[Array, "n d"]:
    """Those of the file that the flags name, as many as they ask for.

    Raises:
        UsageError: there are no such latents, or too few.
    """
    found = read_latents(config.latents, dim, "--latents")
    if len(found) < 2 * FEWEST:
        raise UsageError(
            f"--latents {config.latents} holds {len(found)} latents; at least {2 * FEWEST} are "
            "needed, half of which are held out"
        )
    return found[: 2 * config.codes]


def open_folder(config: Config, manifold: Manifold) -> Folder:
    """The run folder, which is about the latents that it was begun with.

    Raises:
        UsageError: the file of latents holds others by now.
    """
    folder = spec.open_study(config)
    if config.latents:
        both = jnp.concatenate([manifold.train.codes, manifold.test.codes])
        keep_latents(folder, "given", both, f"the file of --latents holds ({config.latents})")
    return folder


def keep_latents(folder: Folder, name: str, latents: Float[Array, "..."], whose: str) -> None:
    """Notes in a run folder which latents of one's own it is about.

    Args:
        folder: of the run.
        name: what they are kept as.
        latents: them.
        whose: what holds them, for the message.

    Raises:
        UsageError: it is about others, that were in the same files.
    """
    kept = folder.remember(name, lambda: np.asarray(latents, float))
    with folder.understood(name):
        is_same = np.array_equal(np.asarray(kept, np.float32), np.asarray(latents, np.float32))
    if not is_same:
        raise UsageError(
            f"{folder.path} is about other latents than those that {whose} by now; choose another "
            "--run"
        )


def own_metrics(generator: FrozenGenerator) -> dict[str, Pullback]:
    """The metric that needs no deviation: that of several decoders, where there are, or of one."""
    if generator.members is not None:
        return {"ensemble": ensemble_pullback(generator)}
    return {"pullback": pullback(generator.decode)}


def sample(config: Config, generator: FrozenGenerator, dataset: Dataset) -> Sample:
    """Random examples and their codes."""
    chosen = np.random.default_rng(config.seed).permutation(dataset.length)[: config.codes]
    examples = dataset.examples(chosen)
    images = jnp.asarray(examples["image"])
    labels = np.asarray(examples["label"]) if "label" in examples else None
    return Sample(images, encoded(generator, images)[0], labels)


def at_once(codes: Float[Array, "n d"]) -> int:
    """Geodesics that are solved at once, of these latents."""
    return 16 if codes.shape[1] > LONG else 256


def everywhere(
    function: Callable[[Array], Any], points: Array | np.ndarray, batch_size: int = 256
) -> np.ndarray:
    """A function of one point at many, in bounded memory."""
    return np.asarray(in_chunks(function, batch_size)(jnp.asarray(points)))


def tabulated(manifold: Manifold, resolution: int) -> dict[str, Metric]:
    """The metric of each deviation, as a table if that is possible and asked for.

    Args:
        manifold: the generator.
        resolution: points on each side of the table; 0 for the metrics themselves, which are also
            what a generator has whose latents are not two.
    """
    if not resolution or manifold.generator.latent_dim != 2:
        return {kind: manifold.metrics[kind] for kind in manifold.kinds}
    with announced("putting the metrics into tables"):
        corners = densities.corners(np.asarray(manifold.train.codes))
        return {
            kind: tabulate(manifold.metrics[kind], *corners, resolution=resolution)
            for kind in manifold.kinds
        }

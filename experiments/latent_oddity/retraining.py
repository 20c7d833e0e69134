"""Are distances the same after training again? Of an ensemble of decoders, by its members.

Syrota, Moreno-Munoz and Hauberg, "Decoder ensembling for learned latent geometries", 2024: a VAE is
trained several times from other seeds, and each time the distances between the same pairs of
held-out images are measured. Their coefficient of variation, deviation over mean of the
retrainings, says how far a distance is a property of the data: of Euclidean distances of the codes,
of geodesic ones through 1, 2, 3, 5 and 8 decoders, and of one decoder with an RBF deviation.

Each retraining trains one stack of decoders, of which fewer members are the first ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.generators import noise_std, train_vae
from experiments.generators.limits import check_vae
from experiments.generators.noise_std import Deviation
from experiments.generators.train_vae import Objective
from experiments.generators.training_data import (
    ImageSize,
    Reading,
    ReadingFlags,
    load,
    settled,
)
from experiments.latent_oddity.ensemble_geodesics import disagreement_map
from experiments.latent_oddity.figures import POINTS
from experiments.runtime import extension, tables
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices
from experiments.runtime.defaults import Quick
from experiments.runtime.progress import in_parts
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Params, Training, fit
from latent_flows import plots
from latent_flows._transforms import in_chunks
from latent_flows._validation import at_least
from latent_flows.data import Dataset
from latent_flows.generators.vae import VAE, VAEConfig, generator, members
from latent_flows.geometry import (
    Geodesic,
    ensemble_energy,
    ensemble_pullback,
    geodesic,
    pullback,
    stochastic_pullback,
)
from latent_flows.geometry.ensembles import Draws
from latent_flows.typing import Metric, Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 100
"""Retrainings of a run."""
BATCH = 10
"""Pairs that are joined at once."""
SHOWN = 6
"""Pairs whose geodesics are drawn."""
EUCLIDEAN, RBF = "Euclidean", "RBF"
INDEPENDENT, ROOT, CONTROL = ", independent draws", ", by energy", ", plus a constant"
"""How names of distances end: geodesics of least expected energy; not their length in the expected
metric, but the root of twice this energy; and the root of the squared length and a constant, which
is the mean of what draws add: of no pair does it know anything."""


@dataclass(frozen=True)
class Config:
    """Compare distances of retrained ensembles."""

    PHASES: ClassVar[extension.Phases] = {
        "training": tuple(f"vae-{place}" for place in range(MOST)),
        "deviation.training": tuple(f"rbf-{place}" for place in range(MOST)),
    }
    QUICK: ClassVar[Quick] = {
        "retrainings": 3,
        "pairs": 10,
        "segments": 8,
        "training.steps": 300,
        "training.batch_size": 64,
        "vae.width": 16,
        "deviation.training.steps": 100,
        "deviation.codes": 500,
        "deviation.centres": 32,
    }

    run: str = "runs/retraining"
    """Run folder; the same command goes on with what it holds."""
    seed: int = 0
    """Source of all randomness; each retraining has a seed of its own."""
    data: str = "mnist"
    """Data set, or the path of one, as train_vae takes it."""
    image_size: ImageSize = None
    """Pixels along each side; by default the data set's own."""
    reading: ReadingFlags = field(default_factory=Reading)
    """How a folder of images, or a file of arrays, is read."""
    labels: tuple[int, ...] = ()
    """Learn from examples with these labels only; none: all."""
    vae: VAEConfig = field(
        default_factory=lambda: VAEConfig(
            latent_dim=2, encoder="mlp", decoder="mlp", width=32, decoders=8
        )
    )
    """Architecture; decoders: members of the largest ensemble."""
    objective: Objective = field(default_factory=Objective)
    """Loss of the VAE."""
    training: Training = field(
        default_factory=lambda: Training(
            steps=8000, batch_size=128, learning_rate=1e-3, warmup=100, decay="cosine"
        )
    )
    """Optimiser and duration of each retraining."""
    retrainings: int = 10
    """VAEs that are trained, from 2 to 100."""
    members: tuple[int, ...] = (1, 2, 3, 5, 8)
    """Sizes of the ensembles that are compared."""
    pairs: int = 50
    """Pairs of held-out images whose distances are measured."""
    segments: int = 16
    """Parts that a geodesic is discretised in."""
    draws: tuple[Draws, ...] = ("one", "independent")
    """What geodesics make least: one, the energy in the expected metric; independent, the expected
    energy with a member drawn at each point; or both."""
    rbf: bool = True
    """Whether to fit the RBF deviation of one decoder, to be compared with."""
    deviation: Deviation = field(
        default_factory=lambda: Deviation(
            training=Training(
                steps=1000, batch_size=128, learning_rate=5e-2, warmup=50, decay="cosine"
            )
        )
    )
    """That deviation."""

    def __post_init__(self) -> None:
        at_least(self, seed=0, retrainings=2, pairs=1, segments=1)
        if self.retrainings > MOST:
            raise ValueError(f"retrainings must be at most {MOST}, got {self.retrainings}")
        for name in ("members", "draws"):
            if not getattr(self, name) or len({*getattr(self, name)}) < len(getattr(self, name)):
                raise ValueError(f"{name} must hold each value once, got {getattr(self, name)}")
        if not all(1 <= count <= self.vae.decoders for count in self.members):
            raise ValueError(
                f"members must lie in [1, vae.decoders = {self.vae.decoders}], got {self.members}: "
                "lower them, or raise --vae.decoders"
            )


PRESETS = {
    "mnist": (
        "two latents on MNIST, ten retrainings: about an hour on a core",
        Config(run="runs/retraining-mnist"),
    ),
    "mnist10": (
        "the same with ten latents",
        Config(
            run="runs/retraining-mnist10",
            vae=VAEConfig(latent_dim=10, encoder="mlp", decoder="mlp", width=32, decoders=8),
        ),
    ),
    "digits": (
        "two latents on scikit-learn's digits, five retrainings: minutes",
        Config(
            run="runs/retraining-digits",
            data="digits",
            vae=VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=16, decoders=8),
            training=Training(
                steps=2000, batch_size=128, learning_rate=2e-3, warmup=50, decay="cosine"
            ),
            retrainings=5,
            pairs=30,
            deviation=Deviation(
                centres=32,
                reach=1.25,
                training=Training(
                    steps=500, batch_size=128, learning_rate=5e-2, warmup=50, decay="cosine"
                ),
            ),
        ),
    ),
}


def check(config: Config, train: Dataset, test: Dataset) -> None:
    """Reject what the data cannot give, before a run folder is made.

    Raises:
        ValueError: fewer held-out images than a pair takes; a batch larger than the data; a VAE
            that does not fit into memory.
    """
    if test.length < 2:
        raise ValueError(f"{test.name} has {test.length} held-out examples, and a pair takes two")
    stages = {"training": config.training, "deviation.training": config.deviation.training}
    check_devices(**stages)
    for name, stage in stages.items():
        if stage.batch_size > train.length:
            raise ValueError(
                f"{name}.batch_size ({stage.batch_size}) is more than the {train.length} examples "
                f"of {train.name}"
            )
    check_vae(config.vae, train.image_shape, config.training.batch_size)
    jax.eval_shape(
        VAE(config.vae, train.image_shape).init, jax.random.key(0), jnp.zeros(train.image_shape)
    )


def pairs(config: Config, test: Dataset) -> Float[Array, "p 2 *event"]:
    """The same pairs of held-out images for every retraining."""
    random = np.random.default_rng(config.seed)
    rows = [random.choice(test.length, 2, replace=False) for _ in range(config.pairs)]
    found = test.examples(np.concatenate(rows))["image"]
    return jnp.asarray(found).reshape(config.pairs, 2, *test.image_shape)


def trained(folder: Folder, config: Config, train: Dataset, place: int) -> Params:
    """The parameters of one retraining, trained, or gone on with, in the run folder."""
    vae, seed = VAE(config.vae, train.image_shape), seed_of(config, place)
    return fit(
        folder,
        f"vae-{place}",
        init=partial(train_vae.initial, vae, known=train_vae.standard(as_vae(config, seed), train)),
        loss=partial(train_vae.loss, vae, config.objective),
        batches=partial(train_vae.images, train, config.training.batch_size, seed),
        config=config.training,
        seed=seed,
        describe=f"retraining {place + 1} of {config.retrainings}",
    )


def seed_of(config: Config, place: int) -> int:
    """The seed of a retraining: no two runs of other seeds share one."""
    return config.seed * config.retrainings + place


def as_vae(config: Config, seed: int) -> train_vae.Config:
    """What train_vae would be asked for."""
    return train_vae.Config(data=config.data, seed=seed, vae=config.vae, deviation=config.deviation)


def first(params: Params, count: int) -> Params:
    """The parameters of the first members alone; of one they are those of a plain VAE."""
    own = params["params"]
    kept = jax.tree.map(lambda leaf: leaf[0] if count == 1 else leaf[:count], own["decoder"])
    return {**params, "params": {**own, "decoder": kept}}


def sized(config: Config, shape: tuple[int, ...], count: int) -> VAE:
    """The VAE of so many decoders."""
    return VAE(replace(config.vae, decoders=count), shape)


def own(config: Config, params: Params, count: int) -> Params:
    """The parameters of so many members of a retraining."""
    return params if config.vae.decoders == count else first(params, count)


def metric_of(vae: VAE, draws: Draws, params: Params) -> Metric:
    """The pull-back metric of one decoder, or the expected one of several."""
    stack = members(vae, params)
    return (
        pullback(generator(vae, params)) if stack is None else ensemble_pullback(stack, draws=draws)
    )


def rbf_metric(vae: VAE, both: tuple[Params, Params]) -> Metric:
    """The expected metric of one decoder with its RBF deviation."""
    params, deviation = both
    return stochastic_pullback(
        generator(vae, params), noise_std.close("rbf", Deviation(), vae, deviation)
    )


def expected_energy(vae: VAE, params: Params, path: Geodesic) -> Scalar:
    """What independent draws make of a path; of one decoder there is one draw."""
    stack = members(vae, params)
    return path.energy if stack is None else ensemble_energy(stack, path.points)


def deviation_of(
    folder: Folder, config: Config, train: Dataset, place: int, params: Params
) -> Params:
    """The RBF deviation of the first decoder of a retraining."""
    vae, seed = sized(config, train.image_shape, 1), seed_of(config, place)
    with announced("encoding images, to place the kernels of the deviation"):
        codes = train_vae.kernel_codes(as_vae(config, seed), train, vae, params)
    return fit(
        folder,
        f"rbf-{place}",
        init=partial(noise_std.initial, "rbf", config.deviation, vae, codes, seed),
        loss=partial(noise_std.loss, "rbf", config.deviation, vae, params),
        batches=partial(train_vae.images, train, config.deviation.training.batch_size, seed),
        config=config.deviation.training,
        seed=seed,
        describe=f"RBF deviation {place + 1} of {config.retrainings}",
    )


class Joiner:
    """Geodesics between pairs, by one program for all retrainings.

    Of independent draws the root of twice the expected energy is measured as well, in which members
    that disagree count at every point.
    """

    def __init__(
        self,
        config: Config,
        metric: Callable[[Any], Metric],
        energy: Callable[[Any, Geodesic], Scalar] = lambda _, path: path.energy,
    ):
        def join(parameters: Any, ends: Float[Array, "p 2 d"]) -> tuple[Geodesic, Array]:
            found = metric(parameters)

            def one(pair: Float[Array, "2 d"]) -> tuple[Geodesic, Array]:
                path = geodesic(found, *pair, segments=config.segments)
                return path, jnp.sqrt(2 * energy(parameters, path))

            return jax.vmap(one)(ends)

        self.join = jax.jit(join)

    def __call__(self, name: str, parameters: Any, ends: Float[Array, "p 2 d"]) -> dict[str, Any]:
        found, root = in_parts(
            name,
            partial(self.join, parameters),
            (np.asarray(ends),),
            BATCH,
            lambda part: f"{part[0].converged.mean():.0%} converged",
        )
        return {
            "length": found.length,
            "root_energy": root,
            "converged": found.converged,
            "points": found.points[:SHOWN],
        }


def name_of(count: int, draws: Draws) -> str:
    """What a row is called.

    >>> name_of(1, "one"), name_of(8, "independent")
    ('1 decoder', '8 decoders, independent draws')
    """
    if count == 1:
        return "1 decoder"
    return f"{count} decoders" + (INDEPENDENT if draws == "independent" else "")


def joiners(config: Config, shape: tuple[int, ...]) -> dict[str, tuple[Joiner, int]]:
    """What joins pairs through so many members, by its name."""
    found = {}
    for count in config.members:
        for draws in config.draws if count > 1 else ("one",):
            vae = sized(config, shape, count)
            joiner = Joiner(config, partial(metric_of, vae, draws), partial(expected_energy, vae))
            found[name_of(count, draws)] = joiner, count
    return found


def measured(
    folder: Folder,
    config: Config,
    train: Dataset,
    images: Float[Array, "p 2 *event"],
    place: int,
    joined: Mapping[str, tuple[Joiner, int]],
    with_rbf: Joiner,
) -> dict[str, Any]:
    """The distances of one retraining, by the name of what they are measured with."""
    params = trained(folder, config, train, place)
    alone = own(config, params, 1)
    deviation = deviation_of(folder, config, train, place, alone) if config.rbf else None

    def compute() -> dict[str, Any]:
        ends = codes_of(config, train, params, images)
        found: dict[str, Any] = {
            EUCLIDEAN: {"length": jnp.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)}
        }
        for name, (joiner, count) in joined.items():
            label = f"geodesics {place + 1}, {name}"
            found[name] = joiner(label, own(config, params, count), ends)
        if deviation is not None:
            found[RBF] = with_rbf(f"geodesics {place + 1}, RBF", (alone, deviation), ends)
        return found

    kept = folder.remember(f"distances-{place}", compute)
    with folder.understood(f"distances-{place}"):
        return {
            name: {part: np.array(value, float) for part, value in row.items()}
            for name, row in kept.items()
        }


def codes_of(
    config: Config, train: Dataset, params: Params, images: Float[Array, "p 2 *event"]
) -> Float[Array, "p 2 d"]:
    """Where the encoder of a retraining puts the images."""
    vae = VAE(config.vae, train.image_shape)
    apply: Any = vae.apply  # flax types its result as a pair as well
    encode = in_chunks(partial(apply, params, method=vae.encode))
    flat = images.reshape(-1, *train.image_shape)
    return encode(flat)[0].reshape(*images.shape[:2], config.vae.latent_dim)


def variation(lengths: Float[np.ndarray, "r p"]) -> Float[np.ndarray, "p"]:
    """The coefficient of variation of each distance over retrainings.

    >>> print(variation(np.array([[1.0, 2.0], [3.0, 2.0]])).round(3))
    [0.707 0.   ]
    """
    return lengths.std(0, ddof=1) / lengths.mean(0)


def told_apart(lengths: Float[np.ndarray, "r p"]) -> float | None:
    """How far distances of different pairs lie apart, in deviations over retrainings.

    What is added to all distances alike makes their variation small, and leaves this as it is.

    >>> told_apart(np.array([[1.0, 5.0], [3.0, 7.0]]))
    2.0
    """
    if lengths.shape[1] < 2:
        return None
    within = lengths.std(0, ddof=1).mean()
    return float(lengths.mean(0).std(ddof=1) / within) if within > 0 else None


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """How much the distances of each kind vary, over pairs."""
    lengths: dict[str, np.ndarray] = {}
    for name in found[0]:
        lengths[name] = np.stack([one[name]["length"] for one in found])
        if name.endswith(INDEPENDENT):
            squares = lengths[name] ** 2
            roots = np.stack([one[name]["root_energy"] for one in found])
            lengths[f"{name}{ROOT}"] = roots
            added = np.maximum(np.mean(roots**2 - squares), 0)
            lengths[f"{name}{CONTROL}"] = np.sqrt(squares + added)
    varies = {name: variation(each) for name, each in lengths.items()}
    rows = []
    for name, each in varies.items():
        difference = varies[EUCLIDEAN] - each
        is_line = name == EUCLIDEAN
        path = name.removesuffix(ROOT).removesuffix(CONTROL)
        shares = [] if is_line else [one[path]["converged"].mean() for one in found]
        rows.append(
            {
                "distance": name,
                "variation": float(each.mean()),
                "standard_error": _standard_error(each),
                "less_than_euclidean": None if is_line else float(difference.mean()),
                "its_standard_error": None if is_line else _standard_error(difference),
                "told_apart": told_apart(lengths[name]),
                "converged": None if is_line else float(np.mean(shares)),
            }
        )
    return {
        "retrainings": len(found),
        "pairs": lengths[EUCLIDEAN].shape[1],
        "distances": rows,
        "variation": {name: each.tolist() for name, each in varies.items()},
    }


def _standard_error(values: Float[np.ndarray, "p"]) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def draw_variation(metrics: Mapping[str, Any]) -> "Figure":
    """The variation of every pair's distance, and the mean with the deviation over pairs."""
    varies = metrics["variation"]
    return plots.dots(
        {"coefficient of variation": [*varies.values()]},
        labels=[*varies],
        caption=(
            f"How much distances between {metrics['pairs']} pairs of held-out images vary over "
            f"{metrics['retrainings']} retrainings: a dot a pair, mean and deviation over pairs."
        ),
    )


def draw_map(
    config: Config,
    train: Dataset,
    test: Dataset,
    params: Params,
    found: Mapping[str, Any],
) -> "Figure":
    """Geodesics of the first retraining over how much its decoders disagree."""
    examples = test.examples(np.arange(min(POINTS, test.length)))
    images = jnp.asarray(examples["image"])
    codes = np.asarray(codes_of(config, train, params, images[:, None])[:, 0])
    stack = members(VAE(config.vae, train.image_shape), params)
    last = [name for name in found if name not in (EUCLIDEAN, RBF, name_of(1, "one"))]
    points = {name: found[name]["points"] for name in last}
    ends = next(iter(points.values()))[:, [0, -1]]
    curves = {
        f"geodesics through {name}": {"geodesic": points[name], "straight line": ends}
        for name in last[-2:]
    }
    return disagreement_map(
        stack,
        codes,
        examples.get("label"),
        curves,
        f"How much {config.vae.decoders} decoders disagree over the latent space, with held-out "
        "codes (one colour a label), and geodesics between some pairs of them.",
    )


def run(config: Config) -> int | None:
    """Train again and again, measure, draw."""
    config = settled(config)
    train, test = load(config, "train"), load(config, "test")
    check(config, train, test)
    folder = open_folder(config.run, config)
    images, shape = pairs(config, test), train.image_shape
    joined = joiners(config, shape)
    with_rbf = Joiner(config, partial(rbf_metric, sized(config, shape, 1)))
    found = [
        measured(folder, config, train, images, place, joined, with_rbf)
        for place in range(config.retrainings)
    ]
    metrics = folder.remember("metrics", lambda: summary(found))
    figures: dict[str, Callable[[], Figure]] = {"variation": partial(draw_variation, metrics)}
    if config.vae.latent_dim == 2 and max(config.members) > 1:
        params = trained(folder, config, train, 0)
        figures["map"] = partial(draw_map, config, train, test, params, found[0])
    failed = tables.save_figures(folder, figures)
    with folder.understood("metrics"):
        title = (
            f"Coefficient of variation of {metrics['pairs']} distances over "
            f"{metrics['retrainings']} retrainings, means over pairs"
        )
        tables.show(title, metrics["distances"])
    return tables.where(folder, failed)

"""The rows of the table of results, as data: a new group is one more entry of `GROUPS`.

A row is a run of an experiment with given flags, or another part of the numbers of such a run.
Settings that all rows of a group share are written once, so that rows differ in what they compare
and in nothing else.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.potential_flows.families import NAMES

POTENTIALS = NAMES["potential"]


class Row(NamedTuple):
    """A line of a table."""

    label: str
    """What it is called; unique in its group."""
    flags: str = ""
    """Of the experiment, the preset first."""
    method: str = ""
    """Which rows of the run's metrics are meant, where these say of which method they are."""
    of: str = ""
    """The label of the row whose run this row's numbers are taken from, instead of an own run."""


class Measure(NamedTuple):
    """A column of a table: a number in a run's metrics.json, or the mean of several."""

    name: str
    """As the run calls it."""
    part: str = ""
    """The part of the metrics that it is in."""
    where: Mapping[str, Any] = {}
    """What else the lines of that part must say, to be meant."""


class Group(NamedTuple):
    """Rows that are compared with each other."""

    title: str
    module: str
    """The experiment."""
    rows: tuple[Row, ...]
    measures: Mapping[str, Measure]
    """Columns by their heading."""
    shared: str = ""
    """Flags of every row, before its own."""
    generator: str = ""
    """Experiment and flags of the run whose generator all rows of a seed use, if they use one."""
    home: str = ""
    """Folder of that run, in the root of all runs, before the seed."""
    figure: tuple[str, ...] = ()
    """Columns that are drawn."""
    notes: str = ""
    """What a reader has to know."""


LONG, SHORT = {"displacement": "long"}, {"displacement": "short"}


def _compared(name: str, where: Mapping[str, Any]) -> Measure:
    return Measure(name, "comparison", where)


VP = {
    "VP 1%, short": _compared("vp@1%", SHORT),
    "VP 10%, short": _compared("vp@10%", SHORT),
    "VP 1%, long": _compared("vp@1%", LONG),
    "VP 10%, long": _compared("vp@10%", LONG),
}
LENGTH = {"length": _compared("length", LONG)}
RESIDUAL = {"PDE residual": Measure("residual", "potentials")}
FACTORS = {
    "factor share": _compared("share", LONG),
    "worst share": _compared("worst share", LONG),
    "factors": _compared("factors", LONG),
    "sign": _compared("sign", LONG),
    "valid": _compared("valid", LONG),
    "worst valid": _compared("worst valid", LONG),
}
STRAIGHT = "linear R2"
"""Column of how straight a generator is, which is the same for all rows of a seed."""
TURNING = "turning"
"""Column of how fast straight lines turn away from geodesics on a generator, the same."""
STRAIGHTNESS = {
    STRAIGHT: Measure("mean", "straightness"),
    TURNING: Measure("turning", "turning"),
}

SCORES = "--scores.pairs 256 --scores.vp-steps 60 --scores.seeds 2 --scores.starts 64"
ON_SPRITES = (
    "demo --flows.reach 0 --flows.no-turned --weights.residual 3 --training.b2 0.999 "
    "--training.learning-rate 3e-3 --training.steps 800 --scores.length 8 --scores.short 0.25 "
    f"{SCORES} --scores.no-others"
)
ON_SPRITES_GAN = (
    "gan --flows.count 4 --training.steps 500 --scores.length 8 --scores.short 0 "
    f"{SCORES} --scores.no-others"
)
ON_SCENES = (
    f"scenes --training.steps 800 --scores.length 8 --scores.short 0 {SCORES} --scores.no-others"
)
_EARLIER = "experiments.train_vae sprites --training.b2 0.999 --objective.delay 0"
BEFORE = f"{_EARLIER} --objective.warmup 50"
"""The VAE of sprites as it was when most groups were measured."""
RISING = f"{_EARLIER} --objective.warmup 3000"
"""As it was when methods were compared on it."""
PLAIN = "--weights.sparsity 0 --weights.overlap 0 --weights.consistency 0"
"""What leaves the alignment with axes out of the loss."""

LINES = NAMES["linear"]
LEARNT = (
    Row("wave", PLAIN, POTENTIALS),
    Row("heat", f"{PLAIN} --flows.pde heat", POTENTIALS),
    Row("Hamilton-Jacobi", f"{PLAIN} --flows.pde hamilton_jacobi", POTENTIALS),
    Row("Fokker-Planck", f"{PLAIN} --flows.pde fokker_planck", POTENTIALS),
    Row("potentials, no equation", f"{PLAIN} --flows.pde none", POTENTIALS),
    Row(
        "free field",
        f"{PLAIN} --flows.family field --flows.initial free",
        NAMES["field"],
    ),
    Row(LINES, f"{PLAIN} --flows.family linear", NAMES["linear"]),
    Row(
        "learnt lines, orthogonal",
        f"{PLAIN} --flows.family linear --flows.orthogonal",
        NAMES["linear"],
    ),
    Row("RBF warps", f"{PLAIN} --flows.family warp", NAMES["warp"]),
    Row("ours: wave, aligned in the metric", "", POTENTIALS),
    Row(
        "ours: wave on the manifold",
        f"{PLAIN} --flows.laplacian beltrami",
        POTENTIALS,
    ),
    Row("ours: wave, natural gradient", f"{PLAIN} --flows.gradient natural", POTENTIALS),
)
"""Everything that is learnt, under one loss but for the alignment."""


KEPT = (
    "wave",
    "potentials, no equation",
    LINES,
    "RBF warps",
    "ours: wave, aligned in the metric",
)
"""Of what is learnt, what is compared on generators that are less straight."""
EXACT = " --scores.local-basis --scores.steered"
"""What asks for the traversals that need Jacobians of the generator."""
STEERED = ("local basis", "steered")
TAUGHT = ("taught gradient", "taught dual frame")
"""Networks that are shown the steered fields; the run of learnt lines measures them as well."""


def _baselines(
    others: tuple[str, ...], learnt: tuple[Row, ...] = LEARNT, more: str = "", taught: bool = False
) -> tuple[Row, ...]:
    """The rows of all methods: the first one's run measures what needs no learning as well."""
    first = learnt[0]
    measured = {first.label: f" --scores.others --scores.closed-form{more}"}
    if taught:
        measured[LINES] = " --scores.taught gradient 'dual frame'"
    rows = [row._replace(flags=row.flags + measured.get(row.label, "")) for row in learnt]
    rows += [Row(name, method=name, of=first.label) for name in others]
    return (*rows, *(Row(name, method=name, of=LINES) for name in TAUGHT if taught))


ON_MNIST_MOVED = (
    "mnist --flows.count 4 --flows.starts prior --flows.frame visible --flows.codes 2048 "
    "--flows.bank 1024 --training.steps 800 --scores.factors x y size light --scores.length 5 "
    f"--scores.short 0 {SCORES} --scores.no-others"
)


def _where_factors_are_measured(
    generator: str,
    home: str,
    shared: str,
    others: tuple[str, ...],
    which: str,
    factors: str,
    steered: str,
) -> Group:
    """The methods on a kind of generator of sprites or scenes."""
    learnt = tuple(row for row in LEARNT if row.label in KEPT)
    return Group(
        title=f"Traversals of {which}, at equal length in data space",
        module="experiments.potential_flows",
        shared=shared,
        rows=_baselines(
            ("random directions", "latent coordinates", *others, *STEERED),
            learnt,
            EXACT,
            taught=True,
        ),
        measures={**FACTORS, **LENGTH, **RESIDUAL, **STRAIGHTNESS},
        generator=generator,
        home=home,
        figure=("factor share", "valid"),
        notes=EQUAL + factors + TERMS + steered + OF_TAUGHT,
    )


EQUAL = (
    "Every traversal is scaled to the same mean length in data space (`length`; what cannot go so "
    "far ends shorter), then VP is the test accuracy of a classifier that has seen 1% or 10% of "
    "the image pairs, for displacements of that length and of a quarter of it. VP says how well "
    "traversals can be told apart, not that they are single factors: directions at random do well. "
)


def _of_factors(named: str, valid: str) -> str:
    return (
        f"`factor share` is the part of the measured change ({named}, each in units of its range) "
        "that falls on the factor that changes most; `factors`, how many different ones the "
        "traversals change; `sign`, the share of starting points from which it changes in the more "
        f"common direction; `valid`, that of end images of {valid}. "
    )


OF_FACTORS = _of_factors("x, y, size, elongation", "one whole sprite")
OF_MOVED = _of_factors("x, y, size, light", "finite numbers, no more")
OF_SCENES = _of_factors(
    "the hues of floor, wall and object, its scale and elongation, the orientation", "one object"
)
TERMS = (
    "All that is learnt minimises the same terms (naming the traversal, the equation where there "
    "is one, a wanted speed, staying where codes are); *aligned* adds sparsity, little overlap and "
    "consistency in the generator's metric. "
)

_LOCAL = "*Local basis*: along the leading singular vectors of the Jacobian at each start. "
_STRAIGHTNESS = (
    f"`{STRAIGHT}`: of the factors in the latent, their mean; 1 where straight lines would do. "
    f"`{TURNING}`: by how many radians a straight line turns away from geodesics of the generator "
    "in a unit step, in the median; 0 where straight lines are geodesics. "
)
_FIELDS = "*Steered*, with nothing learnt and no labels: the fields "
OF_STEERING = f"{_LOCAL}{_FIELDS}of moving in x and y and of zooming. {_STRAIGHTNESS}"
OF_LEADING = (
    f"{_LOCAL}{_FIELDS}along which one factor grows and all others stay, which are told what is "
    f"measured as no other row is. {_STRAIGHTNESS}"
)

OF_TAUGHT = (
    "*Taught gradient*: potentials whose gradients were shown these fields at 2,048 latents; "
    "*taught dual frame*: potentials that were shown the values and slopes of what is measured, "
    "each moved along while the others stay. "
)

ABLATED = ["classification", "residual", "speed", "outside", "sparsity", "overlap", "consistency"]


LIGHTLY = "--objective.prior standard --objective.transport 0.1 --objective.mismatch 0.001"
"""A flow that hardly enters the loss, beside an otherwise plain VAE."""


def _bounds(data: str, presets: str, sequences: str) -> Group:
    kinds = {
        "VAE": "vae",
        "beta-VAE": "beta-vae",
        "beta-TC-VAE": "tc-vae",
        "FactorVAE": "factor-vae",
        "potential flow, factor known": "flow",
        "potential flow, standard prior": f"flow {LIGHTLY}",
        "Hamilton-Jacobi, factor inferred": "hamilton-jacobi",
        "Hamilton-Jacobi, density of the steps": "hamilton-jacobi --objective.density steps",
        "gradient and solenoidal, unsupervised": "sparse",
    }
    return Group(
        title=f"VAEs trained together with flows on {data}",
        module="experiments.flow_vae",
        shared=f"{presets} --training.steps 2000 --scores.images 100 --scores.sequences 20",
        rows=tuple(Row(name, f"--objective.kind {kind}") for name, kind in kinds.items()),
        measures={
            "bound, plain": Measure("iwae_plain"),
            "bound, transformed": Measure("iwae_transformed"),
            "bound, a frame of a sequence": Measure("iwae_sequence"),
            "equivariance error": Measure("equivariance"),
            "straight directions' error": Measure("equivariance_straight"),
        },
        figure=("bound, plain", "bound, transformed", "equivariance error"),
        notes=(
            "Importance-weighted bounds (64 samples) of held-out images in nats, larger is better, "
            "at equal architecture and steps; equivariance error in pixels a frame, smaller is "
            "better: of the flow, or where there is none of straight directions. In a sequence a "
            f"flow with a known factor is told which. {sequences}"
        ),
    )


def _sequences(data: str, presets: str, shown: str, scored: tuple[int, int] = (50, 20)) -> Group:
    images, sequences = scored
    kinds = {
        "VAE, a code for each frame": "vae",
        "codes along a line": "flow --fields.family line",
        "codes along a linear map": "flow --fields.family linear",
        "potential flow": "flow",
        "potential flow, factor inferred": "hamilton-jacobi",
    }
    return Group(
        title=f"What flows explain of sequences of {data}",
        module="experiments.flow_vae",
        shared=(
            f"{presets} --training.steps 2000 --scores.images {images} "
            f"--scores.sequences {sequences}"
        ),
        rows=tuple(Row(name, f"--objective.kind {kind}") for name, kind in kinds.items()),
        measures={
            "a frame of a sequence": Measure("iwae_sequence"),
            "a frame alone": Measure("iwae_frame_marginal"),
            "a frame alone, N(0, I)": Measure("iwae_frame_standard"),
            "equivariance error": Measure("equivariance"),
            "parameters": Measure("parameters"),
        },
        figure=("a frame of a sequence", "a frame alone, N(0, I)", "equivariance error"),
        notes=(
            "Importance-weighted bounds (64 samples) in nats, larger is better, of held-out "
            "sequences of nine frames, at the same architecture of the VAE and number of steps. "
            "In a sequence all frames follow from one code; the factor is told, or summed over "
            "where it is inferred. A frame alone has the density of a random frame of a random "
            "sequence: the prior, carried along every flow for every time. A line and a linear "
            "map are potentials without a network and an equation: any transport. "
            f"{shown}"
        ),
    )


GUIDED = {
    "static": "sprites",
    "standing wave": "swing",
    "free in time": "sprites --flows.initial free --weights.residual 0",
    "free in time, wave equation": "sprites --flows.initial free --weights.residual 1",
    "taught from any time": "segments",
    "taught from any time, wave equation": "segments --weights.residual 1",
    "published setting": "published",
}


def _guided() -> tuple[Row, ...]:
    rows = []
    for count in (15, 150, 1500):
        labels = {name: f"{count} sequences, {name}" for name in GUIDED}
        rows += [
            Row(labels[name], f"{flags} --sequences.count {count}", method="flow")
            for name, flags in GUIDED.items()
        ]
        line = f"{count} sequences, constant direction"
        rows.append(Row(line, method="constant direction", of=labels["static"]))
    return tuple(rows)


def _controlled(name: str, factor: str) -> Measure:
    return Measure(name, "control", {"factor": factor})


GROUPS: Mapping[str, Group] = {
    "baselines-sprites": Group(
        title="Traversals of a VAE of sprites, at equal length in data space",
        module="experiments.potential_flows",
        shared=ON_SPRITES,
        rows=_baselines(
            (
                "random directions",
                "latent coordinates",
                "SeFa",
                "GANSpace",
                "ICA axes",
                "re-encoded truth",
                *STEERED,
            ),
            more=EXACT,
            taught=True,
        ),
        measures={**FACTORS, **VP, **LENGTH, **RESIDUAL, **STRAIGHTNESS},
        generator=RISING,
        home="vae-sprites",
        figure=("factor share", "valid", "VP 10%, short"),
        notes=EQUAL + OF_FACTORS + TERMS + OF_STEERING + OF_TAUGHT,
    ),
    "baselines-sprites-conv": _where_factors_are_measured(
        "experiments.train_vae sprites-conv",
        "vae-sprites-conv",
        ON_SPRITES,
        ("SeFa", "GANSpace", "ICA axes", "re-encoded truth"),
        "a plain convolutional VAE of sprites",
        OF_FACTORS,
        OF_STEERING,
    ),
    "baselines-scenes": _where_factors_are_measured(
        "experiments.train_vae scenes",
        "vae-scenes",
        ON_SCENES,
        ("SeFa", "GANSpace", "ICA axes", "re-encoded truth"),
        "a convolutional VAE of scenes",
        OF_SCENES,
        OF_LEADING,
    ),
    "baselines-mnist-moved": _where_factors_are_measured(
        "experiments.train_vae mnist-moved",
        "vae-mnist-moved",
        ON_MNIST_MOVED,
        ("SeFa", "GANSpace", "most visible axes"),
        "a VAE of moved digits",
        OF_MOVED,
        OF_STEERING,
    ),
    "baselines-sprites-gan": _where_factors_are_measured(
        "experiments.train_gan sprites --networks.generator 32 32 16 16 "
        "--networks.discriminator 16 16 32 32 --training.steps 1500",
        "sngan-sprites",
        ON_SPRITES_GAN,
        ("SeFa", "GANSpace", "most visible axes"),
        "an SNGAN of sprites",
        OF_FACTORS,
        OF_STEERING,
    ),
    "baselines-mnist": Group(
        title="Traversals of a VAE of MNIST, at equal length in data space",
        module="experiments.potential_flows",
        shared=(
            f"mnist --training.steps 800 --flows.bank 1024 --scores.length 5 {SCORES} "
            "--scores.no-others"
        ),
        rows=_baselines(("random directions", "latent coordinates", "GANSpace", "ICA axes")),
        measures={**VP, **LENGTH, **RESIDUAL},
        generator="experiments.train_vae mnist",
        home="vae-mnist",
        figure=("VP 1%, short", "VP 10%, short"),
        notes=EQUAL + TERMS,
    ),
    "baselines-sngan": Group(
        title="Traversals of an SNGAN of MNIST, at equal length in data space",
        module="experiments.potential_flows",
        shared=f"gan --training.steps 500 --scores.length 8 {SCORES} --scores.no-others",
        rows=_baselines(
            ("random directions", "latent coordinates", "SeFa", "GANSpace", "most visible axes")
        ),
        measures={**VP, **LENGTH, **RESIDUAL},
        generator="experiments.train_gan mnist",
        home="sngan-mnist",
        figure=("VP 1%, short", "VP 10%, short"),
        notes=EQUAL + TERMS,
    ),
    "ablation-sprites": Group(
        title="Each term of the loss left out, on the VAE of sprites",
        module="experiments.potential_flows",
        shared=ON_SPRITES,
        rows=(
            Row("all terms", "", POTENTIALS),
            *(Row(f"no {name}", f"--weights.{name} 0", POTENTIALS) for name in ABLATED),
            Row(
                "initial condition as a loss",
                "--flows.initial free",
                POTENTIALS,
            ),
            Row("no initial condition", "--flows.initial free --weights.initial 0", POTENTIALS),
            Row("no time", "--flows.initial static", POTENTIALS),
            Row("row sums for the Laplacian", "--flows.laplacian row-sum", POTENTIALS),
            Row(
                "published terms",
                f"{PLAIN} --weights.speed 0 --weights.outside 0 --weights.variation 1 "
                "--weights.residual 1 --flows.initial free",
                POTENTIALS,
            ),
            Row(
                "published terms, row sums",
                f"{PLAIN} --weights.speed 0 --weights.outside 0 --weights.variation 1 "
                "--weights.residual 1 --flows.initial free --flows.laplacian row-sum",
                POTENTIALS,
            ),
        ),
        measures={
            **FACTORS,
            "VP 10%, short": VP["VP 10%, short"],
            **LENGTH,
            **RESIDUAL,
        },
        generator=BEFORE,
        home="vae-sprites-before",
        figure=("factor share", "valid", "PDE residual"),
        notes=(
            OF_FACTORS + "`PDE residual` is that of the equation with a true Laplacian, relative "
            "to its terms (1: they have nothing to do with each other), also for potentials that "
            "were trained on the row sums of the Hessian, as published code has it."
        ),
    ),
    "joint-mnist": _bounds("MNIST", "mnist", "Scale, rotation and hue of red digits."),
    "joint-sprites": _bounds(
        "sprites", "sprites", "x, y, orientation, scale and shape of rendered sprites."
    ),
    "sequences-digits": _sequences(
        "digits", "digits", "Scale, rotation and hue of scikit-learn's red digits."
    ),
    "sequences-mnist": _sequences("MNIST", "mnist", "Scale, rotation and hue of red digits."),
    "sequences-sprites": _sequences(
        "sprites", "sprites", "x, y, orientation, scale and shape of rendered sprites."
    ),
    "sequences-scenes": _sequences(
        "scenes",
        "scenes",
        "The hues of floor, wall and object, scale, shape and orientation.",
        # Each has 12,288 numbers a frame, of six factors.
        scored=(20, 8),
    ),
    "guided-sprites": Group(
        title="Flows guided by known factors of sprites",
        module="experiments.guided",
        rows=_guided(),
        measures={
            "R2 of x": _controlled("r2", "x"),
            "R2 of y": _controlled("r2", "y"),
            "R2 of scale": _controlled("r2", "scale"),
            "leakage": Measure("leakage", "control"),
            "over that of constant directions": Measure("relative_leakage", "summary"),
            "error": Measure("error", "control"),
            "error at twice the time": Measure("far_error", "control"),
        },
        generator=BEFORE,
        home="vae-sprites-before",
        figure=("leakage", "error at twice the time"),
        notes=(
            "R2 is between the asked and the measured change; leakage is the change of the worst "
            "other factor as a share of the change asked for, each in units of its range; errors "
            "are mean absolute ones in units of the range, at the trained time and at twice that. "
            "Leakage and errors are means over x, y and scale."
        ),
    ),
}


class Across(NamedTuple):
    """One column of several groups side by side."""

    title: str
    groups: Mapping[str, str]
    """By what they are called here: groups on other generators, with rows of the same labels."""
    columns: tuple[str, ...]
    """What is compared; the first one is drawn."""
    followed: Mapping[str, str]
    """Rows whose first column is drawn against how straight generators are, by their names."""
    notes: str


ACROSS: Mapping[str, Across] = {
    "flows-and-lines": Across(
        title="When flows beat straight lines",
        groups={
            "VAE that shifts coordinates": "baselines-sprites",
            "plain VAE": "baselines-sprites-conv",
            "SNGAN": "baselines-sprites-gan",
            "VAE of scenes": "baselines-scenes",
            "VAE of moved digits": "baselines-mnist-moved",
        },
        columns=("factor share", "valid"),
        followed={
            "steered": "steered",
            "taught dual frame": "taught dual frame",
            "taught gradient": "taught gradient",
            "potentials, aligned": "ours: wave, aligned in the metric",
            "learnt lines": LINES,
            "latent coordinates": "latent coordinates",
            "re-encoded truth": "re-encoded truth",
        },
        notes=(
            "The same sprites, by generators whose latents are more straight or less, scenes, and "
            "digits that are moved, zoomed and dimmed: in brackets the linear R2 of the factors in "
            "the latent, and the radians that a straight line turns away from geodesics in a unit "
            "step. Seeds are of the generator and of what is learnt on it."
        ),
    ),
}
"""What is shown across groups, by the name of its figure."""

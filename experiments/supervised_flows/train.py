"""Learn flows that change known factors: one potential for each, taught by sequences of samples.

In these one factor changes by known amounts: images are rendered so, or examples of any data are
transformed. A frozen VAE encodes them; the flow of the factor's potential has to take the code of
the first to those of the others. It is compared with the best constant direction for the same
sequences. Guidance as in Song et al., "Flow Factorized Representation Learning", NeurIPS 2023, but
for a generator that stays as it is.
"""

from dataclasses import replace
from functools import partial

from experiments.generators.spec import Usual, load, open_study
from experiments.generators.training_data import load_data
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params, Training, fit, shuffled
from experiments.supervised_flows import scores
from experiments.supervised_flows.config import (
    PHASE,
    Config,
    Flows,
    Sequences,
    Weights,
    check,
    initial,
)
from experiments.supervised_flows.figures import draw, is_drawn
from experiments.supervised_flows.framed_vae import (
    FramedVAE,
    check_factors,
    check_generator,
    load_framed,
    load_known,
)
from experiments.supervised_flows.objective import constant_directions, lessons, loss
from experiments.supervised_flows.sequences import Seen, Taught, see, teach

SPRITES = Config(
    run="runs/guided",
    # Without time the wave equation has but one term, and no small relative residual.
    weights=Weights(residual=0.0, leakage=3.0),
    training=Training(steps=1500, batch_size=16, learning_rate=1e-2, decay="cosine"),
)
PRESETS = {
    "sprites": ("x, y and scale of sprites, by potentials without time", SPRITES),
    "swing": (
        "the same by standing waves, from rest to rest as a pendulum swings",
        replace(
            SPRITES,
            run="runs/guided-swing",
            sequences=Sequences(schedule="swing"),
            flows=Flows(initial="standing"),
        ),
    ),
    "segments": (
        "the same by networks of time, taught by sequences that start at any time",
        replace(
            SPRITES,
            run="runs/guided-segments",
            sequences=Sequences(offset=1.0),
            flows=Flows(initial="free"),
            weights=Weights(residual=0.0),
        ),
    ),
    "published": (
        "networks of time at rest at time 0, from the encoder's own codes",
        replace(
            SPRITES,
            run="runs/guided-published",
            sequences=Sequences(refine=0),
            flows=Flows(initial="exact"),
            weights=Weights(leakage=0.0),
        ),
    ),
    "scenes": (
        "hues, scale and orientation of coloured scenes, by potentials without time",
        replace(
            SPRITES,
            run="runs/guided-scenes",
            generator=Usual("runs/vae-scenes", "train_vae scenes"),
            sequences=Sequences(
                factors=("floor_hue", "wall_hue", "object_hue", "scale", "orientation"), count=2500
            ),
        ),
    ),
    "mnist": (
        "position and size of MNIST's digits, by sequences of transformed examples",
        replace(
            SPRITES,
            run="runs/guided-mnist",
            generator=Usual("runs/vae-mnist-moved", "train_vae mnist-moved"),
            sequences=Sequences(factors=("translate_x", "translate_y", "zoom")),
        ),
    ),
}


def train(folder: Folder, config: Config, framed: FramedVAE, taught: Taught, seen: Seen) -> Params:
    """Train, or go on training, the potentials of a run folder."""
    dataset = lessons(config, taught, seen)
    names = ", ".join(framed.known.labels(config.sequences.factors))
    return fit(
        folder,
        PHASE,
        init=partial(initial, config, framed.dim),
        loss=partial(loss, config, framed.known),
        batches=shuffled(dataset, config.training, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"{config.flows.initial} potentials of {names}",
    )


def run(config: Config) -> int | None:
    """Teach the potentials on a frozen VAE; measure, draw."""
    check(config)
    generator = load(config)
    check_generator(generator)
    check_factors(config, generator)
    dataset = load_data(generator, "train")
    known = load_known(config, generator, dataset)
    folder = open_study(config)
    failed: list[str] = []
    if not is_drawn(folder, config):
        framed = load_framed(config, generator, dataset, folder, known)
        with announced("measuring the attributes of samples"):
            ranges = known.ranges(dataset, config.seed)
        with announced(f"making and encoding {config.sequences.count} sequences"):
            taught = teach(config, framed)
        with announced("differentiating the generator along the sequences"):
            seen = see(config, framed, taught, ranges)
        params = train(folder, config, framed, taught, seen)
        with announced("solving for constant directions"):
            directions = constant_directions(config, known, taught, seen)
        followed = scores.follow(config, framed, params, directions)
        outcomes = {}
        if config.measure:
            outcomes = scores.measure(folder, config, framed, params, followed, ranges)
        failed = draw(folder, config, framed, followed, outcomes)
    if (folder.path / scores.METRICS).exists():
        with folder.understood(scores.METRICS):
            scores.show(folder.read_object(scores.METRICS))
    return tables.where(folder, failed)

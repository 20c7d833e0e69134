"""Train a VAE together with potentials whose flows move its codes as known factors move the image.

Song, Keller, Sebe and Welling, "Latent Traversals in Generative Models as Potential Flows", ICML
2023, third setting, and its follow-ups; --objective.kind vae, beta-vae, tc-vae and factor-vae are
what it is compared with, at equal architecture and steps and on the same image pairs. The run
folder holds importance-weighted bounds of held-out images, transformed images and sequences, and
the equivariance error.
"""

from dataclasses import replace
from functools import partial

import jax
from jaxtyping import Array

from experiments.flow_vae import scores as flow_vae_scores
from experiments.flow_vae.config import PHASE, Config, Fields, Scores, build, check, load
from experiments.generators.limits import check_image_size
from experiments.generators.training_data import reading_of, settled
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.checks import check_devices
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Batch, Params, Training, fit, shuffled
from latent_flows.data.sequences import Sequences
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.stored import StoredGenerator, to_bytes
from latent_flows.generators.vae import VAEConfig
from latent_flows.objectives.flow_vae import (
    FlowVAE,
    FlowVAEObjective,
    flow_vae_loss,
    sample_pairs,
)
from latent_flows.typing import Scalar

MNIST = Config(
    run="runs/flow-vae-mnist",
    vae=VAEConfig(latent_dim=12, encoder="mlp", decoder="mlp", width=32),
    fields=Fields(width=32),
    training=Training(steps=6000, batch_size=48, learning_rate=2e-3, warmup=100, decay="cosine"),
)
SPRITES = replace(
    MNIST,
    run="runs/flow-vae-sprites",
    data="sprites",
    image_size=32,
    factors=("x", "y", "orientation", "scale", "shape"),
    training=replace(MNIST.training, steps=4000, batch_size=50),
)
DIGITS = replace(
    MNIST,
    run="runs/flow-vae-digits",
    data="digits",
    vae=VAEConfig(latent_dim=8, encoder="mlp", decoder="mlp", width=16),
    fields=Fields(width=16),
    training=replace(MNIST.training, steps=2000),
    scores=Scores(images=200),
)

SCENES = replace(
    SPRITES,
    run="runs/flow-vae-scenes",
    data="scenes",
    factors=("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"),
    training=replace(SPRITES.training, batch_size=48),
)

PRESETS = {
    "mnist": ("scale, rotation and hue of red digits, through TFDS (minutes)", MNIST),
    "sprites": ("x, y, orientation, scale and shape of rendered sprites (minutes)", SPRITES),
    "scenes": ("the six factors of coloured scenes (minutes)", SCENES),
    "digits": ("the same as mnist on scikit-learn's 8x8 digits (a minute)", DIGITS),
}


def loss(
    model: FlowVAE,
    objective: FlowVAEObjective,
    steps: int,
    sequences: Sequences,
    params: Params,
    key: Array,
    step: Array,
    batch: Batch,
) -> tuple[Scalar, dict[str, Scalar]]:
    """Of the pairs of images that the examples of a batch are shown in."""
    pair_key, own_key = jax.random.split(key)
    pairs = sample_pairs(sequences, pair_key, batch["example"])
    return flow_vae_loss(model, objective, params, own_key, step, pairs, steps=steps)


def train(folder: Folder, config: Config, model: FlowVAE, sequences: Sequences) -> Params:
    """Train, or go on training, all networks of a run folder."""
    return fit(
        folder,
        PHASE,
        init=model.init,
        loss=partial(loss, model, config.objective, config.fields.steps, sequences),
        batches=shuffled(sequences.dataset, config.training, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"{model.kind} on {config.data}",
    )


def stored(config: Config, model: FlowVAE, params: Params, sequences: Sequences) -> StoredGenerator:
    """The VAE alone, as any other experiment takes it.

    It knows its data unless sequences show them in other colours.
    """
    shape = sequences.dataset.image_shape
    has_own = len(shape) != 3 or shape == sequences.image_shape
    return StoredGenerator(
        model.vae,
        params["vae"],
        f"the VAE of sequences of {sequences.dataset.name}",
        config.data if has_own else None,
        reading=reading_of(config) if has_own else (),
    )


def run(config: Config) -> int | None:
    """Train, measure, draw."""
    config = settled(config)
    check_image_size(config.image_size)
    check_devices(training=config.training)
    with announced(f"loading the images of {config.data}"):
        train_set, test_set = load(config, "train"), load(config, "test")
    check(config, train_set)
    model = build(config, train_set)
    jax.eval_shape(model.init, jax.random.key(0))
    folder = open_folder(config.run, config)
    params = train(folder, config, model, train_set)
    if not (folder.path / GENERATOR).exists():
        folder.write_bytes(GENERATOR, to_bytes(stored(config, model, params, train_set)))
    failed = flow_vae_scores.draw(folder, model, config, params, test_set)
    if config.measure or (folder.path / "metrics.json").exists():
        metrics = folder.remember(
            "metrics",
            lambda: flow_vae_scores.measure(model, config, params, train_set, test_set),
        )
        with folder.understood("metrics"):
            for title, rows in flow_vae_scores.tabulated(config, metrics).items():
                tables.show(title, rows)
    return tables.where(folder, failed)

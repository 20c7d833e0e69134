"""Find latent directions that perform transformations, and measure the control they give.

Plumerault, Le Borgne and Hudelot, "Controlling generative models with continuous factors of
variations", ICLR 2020: images of random latents are transformed, the latents of the results found
by descent in small steps, and a direction fitted to these, without labels. Beside the paper's
straight direction a curved one, other losses, one-shot inversion and directions that nobody
trained. Of any generator: a VAE, a GAN trained or imported here, or a function of yours; of images
by the transformations here, and of samples of any shape by your own.
"""

from typing import Any

from experiments.directions import figures, scores
from experiments.directions.config import (
    Config,
    Inversion,
    check_functions,
    label,
    suited,
)
from experiments.directions.learn import LINEAR, NONLINEAR, ONE_SHOT, file_name, fit, follow
from experiments.directions.subject import Subject, check, load_images, subject_of
from experiments.generators.spec import Usual, load, open_study
from experiments.inversion.latent_file import read_latents
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from latent_flows.directions.model import FittedDirection
from latent_flows.directions.trajectories import Trajectories

SPRITES = Config()
DIGITS = Config(
    run="runs/directions-digits",
    generator=Usual("runs/vae-digits-moved", "train_vae digits-moved"),
    ts=(0.1, 0.1, 0.25),
    inversion=Inversion(sigma=1.0),
)
MNIST = Config(
    run="runs/directions-mnist",
    generator=Usual("runs/vae-mnist-moved", "train_vae mnist-moved"),
    transformations=("translate_x", "zoom", "brightness"),
    ts=(0.1, 0.3, 0.5),
    inversion=Inversion(count=96, sigma=1.5),
)
BETA = Config(
    run="runs/directions-beta",
    generator=Usual("runs/vae-sprites-small", "train_vae sprites-small"),
    losses=("blurred",),
    inversion=Inversion(sigma=1.5),
)
GAN = Config(
    run="runs/directions-gan",
    generator=Usual("runs/gan", "train_gan sprites"),
    ts=(0.1, 0.1, 0.25),
    inversion=Inversion(sigma=1.5),
)
PRESETS = {
    "sprites": ("position and size by a VAE of rendered sprites, in minutes on a CPU", SPRITES),
    "digits": ("by one of scikit-learn's digits that were moved, in minutes on a CPU", DIGITS),
    "mnist": ("position, size and brightness by a VAE of MNIST that was moved", MNIST),
    "beta": ("by a small plain VAE of sprites, of which to vary beta and seed", BETA),
    "gan": ("position and size by a GAN of sprites", GAN),
}


def learn(
    folder: Folder, config: Config, subject: Subject
) -> tuple[dict[str, dict[str, Trajectories]], dict[str, dict[str, FittedDirection]]]:
    """All trajectories, by how they were found, and all directions fitted to them, by method."""
    first = config.losses[0]
    found: dict[str, dict[str, Trajectories]] = {}
    models: dict[str, dict[str, FittedDirection]] = {LINEAR: {}, NONLINEAR: {}}
    for name in (*config.losses, ONE_SHOT):
        sequential, way = name != ONE_SHOT, label(name)
        found[way] = follow(folder, config, subject, name if sequential else first, sequential)
        if name == first:
            models[LINEAR] = fit(folder, config, LINEAR, found[way])
            models[NONLINEAR] = fit(folder, config, NONLINEAR, found[way], curved=True)
        else:
            method = f"{LINEAR}, {way}"
            models[method] = fit(folder, config, file_name(method), found[way])
    return found, models


def run(config: Config) -> int | None:
    """Find the directions of a generator, measure, draw."""
    check_functions(config)
    generator = load(config)
    config = suited(config, generator.event_shape)
    check(config, generator)
    given = read_latents(config.latent, generator.latent_dim, "--latent") if config.latent else None
    images = load_images(config, generator)
    folder = open_study(config)
    measured = (folder.path / scores.METRICS).exists()
    finished = figures.is_drawn(folder, config) and (measured or not config.measure)
    if finished and given is None:
        if measured:
            with folder.understood(scores.METRICS):
                scores.show(config, folder.read_object(scores.METRICS))
        return tables.where(folder)
    subject = subject_of(config, generator, images)
    found, models = learn(folder, config, subject)
    if finished and given is not None:
        return tables.where(folder, figures.draw_from(folder, config, subject, models, given))
    metrics: dict[str, Any] = {}
    asked: dict[str, dict[str, Any]] = {}
    if config.measure:
        metrics, asked = scores.measure(folder, config, subject, found, models)
    failed = figures.draw(folder, config, subject, found, models, asked)
    if given is not None:
        failed += figures.draw_from(folder, config, subject, models, given)
    if metrics:
        scores.show(config, metrics)
    return tables.where(folder, failed)

"""Steer a generator: move, zoom or dim its images exactly, without training, labels or inversion.

At every latent the field that performs a transformation is a damped least-squares solution: the
transformation says how the image should move, the generator's Jacobian how it can. Followed from
held-out latents and corrected at each amount, beside the best straight lines, which are told the
truth. What the generator cannot do is said: the residual.
"""

from typing import Any

from experiments.directions.subject import check, load_images, subject_of
from experiments.generators.spec import Usual, load, open_study
from experiments.runtime import tables
from experiments.steer import distil, figures, scores
from experiments.steer.config import Config, Distil
from latent_flows.steering.distilled import FORMS, Fields

GAN = Usual("runs/gan", "train_gan sprites")
MOVED = Usual("runs/vae-mnist-moved", "train_vae mnist-moved")
PRESETS = {
    "folded": ("sprites by a plain convolutional VAE, where no line moves one thing", Config()),
    "distilled": (
        "the same, and what networks learn of its fields: any field, a gradient, a dual frame",
        Config(run="runs/steer-distilled", distil=Distil(forms=tuple(FORMS))),
    ),
    "sprites": (
        "sprites by the VAE of the demo, where lines are good",
        Config(run="runs/steer-sprites", generator=Usual("runs/vae-sprites", "train_vae sprites")),
    ),
    "gan": ("sprites by a GAN of 64 latents", Config(run="runs/steer-gan", generator=GAN)),
    "mnist": (
        "position, size and brightness of digits by a VAE of MNIST that was moved",
        Config(
            run="runs/steer-mnist",
            generator=MOVED,
            transformations=("translate_x", "zoom_object", "brightness"),
            ts=(0.1, 0.3, 0.5),
            hold=("nothing",),
            blur=1.5,
        ),
    ),
}


def run(config: Config) -> int | None:
    """Lead latents, measure what their images do, draw."""
    generator = load(config)
    asked = config.asked
    check(asked, generator)
    images = load_images(asked, generator)
    folder = open_study(config)
    subject = subject_of(asked, generator, images)
    learnt: dict[str, Fields] = {}
    if config.distil.forms:
        learnt = distil.learn(folder, config, subject, distil.bank(config, generator, images))
    led = scores.led(folder, config, subject, learnt)
    failed = figures.draw(folder, config, subject, led)
    metrics: dict[str, Any] = folder.remember(
        scores.METRICS, lambda: scores.measure(config, subject, led, learnt)
    )
    with folder.understood(scores.METRICS):
        scores.show(config, metrics)
    return tables.where(folder, failed)

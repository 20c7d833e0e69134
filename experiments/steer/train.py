"""Steer a generator: move, zoom or dim its images exactly, without training, labels or inversion.

At every latent the field that performs a transformation is a damped least-squares solution: the
transformation says how the sample should move, the generator's Jacobian how it can. Followed from
held-out latents and corrected at each amount, beside the best straight lines, which are told the
truth. What the generator cannot do is said: the residual. Samples need be no images: a function of
yours says what is done to others.
"""

from typing import Any

from experiments.directions.config import check_functions, visible
from experiments.directions.scores import place_of
from experiments.directions.subject import check, load_images, subject_of
from experiments.generators.spec import Usual, load, open_study
from experiments.runtime import tables
from experiments.steer import attributes, compared, distil, figures, scores
from experiments.steer.config import Config, Distil, suited
from experiments.steer.config import check as check_samples
from latent_flows import data
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
    "scenes": (
        "hues, size, height and angle of scenes by a VAE, one at a time",
        Config(
            run="runs/steer-scenes",
            generator=Usual("runs/vae-scenes", "train_vae scenes"),
            transformations=("hue",),
            ts=(0.15,),
            hold=("nothing",),
            attributes=data.measures("scenes").factor_names,
        ),
    ),
    "gan": ("sprites by a GAN of 64 latents", Config(run="runs/steer-gan", generator=GAN)),
    "mnist": (
        "position, size and brightness of digits by a VAE of MNIST that was moved",
        Config(
            run="runs/steer-mnist",
            generator=MOVED,
            transformations=("translate_x", "zoom_object", "brightness"),
            ts=(0.1, 0.3, 0.5),
            hold=("nothing", "place"),
            blur=1.5,
        ),
    ),
}


def run(config: Config) -> int | None:
    """Lead latents, measure what their images do, draw."""
    check_functions(config.asked)
    generator = load(config)
    config = suited(config, generator.event_shape)
    asked = config.asked
    check(asked, generator)
    check_samples(config, generator)
    attributes.check(config, generator)
    learnt_elsewhere = compared.read(config, generator)
    images = load_images(asked, generator)
    folder = open_study(config)
    subject = subject_of(asked, generator, images)
    learnt: dict[str, Fields] = {}
    if config.distil.forms:
        learnt = distil.learn(folder, config, subject, distil.bank(config, generator, images))
    led = scores.led(folder, config, subject, learnt)
    places = {kind: place_of(asked, subject, kind) for kind in visible(asked)}
    amounts = {kind: scores.amounts_of(config, kind) for kind in places}
    others = compared.led(folder, subject, learnt_elsewhere, places, amounts, "transformations")
    led = {kind: methods | others.get(kind, {}) for kind, methods in led.items()}
    failed = figures.draw(folder, config, subject, led)
    measured = attributes.subject_of(subject, generator) if config.attributes else subject
    changed = attributes.led(folder, config, measured, learnt_elsewhere)
    failed += attributes.draw(folder, config, measured, changed)

    def measure() -> dict[str, Any]:
        found = scores.measure(config, subject, led, learnt)
        rows = attributes.measure(config, measured, changed)
        return found | ({"attributes": rows} if rows else {})

    metrics: dict[str, Any] = folder.remember(scores.METRICS, measure)
    with folder.understood(scores.METRICS):
        scores.show(config, metrics)
    return tables.where(folder, failed)

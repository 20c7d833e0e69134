"""Networks that were taught the steered fields, as traversals to compare with.

What potentials can do where they are told all that there is to tell: a gradient that was shown the
exact field of each factor, or the dual frame of potentials that were shown what is measured.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.tree_util import Partial
from jaxtyping import Array, Float

from experiments.directions.learn import arrays
from experiments.potential_flows.steered import DEAR, Steered
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Batch, Params, Training, drawn, fit
from experiments.steer.config import FRAME
from latent_flows._transforms import closure_convert_at
from latent_flows.data.image_factors import Measures, measure
from latent_flows.evaluation.comparison import Family
from latent_flows.steering import distilled
from latent_flows.steering.distilled import Fields, Form, Lesson, Scales
from latent_flows.typing import Generator, Latent, Scalar

NAMES = {form: f"taught {form}" for form in distilled.FORMS}
"""What their families are called."""
PHASE = "taught"
SIZES = "scores/taught_sizes"
TRAINING = Training(steps=3000, batch_size=64, decay="cosine")
BANK = 2048
"""Latents whose lessons are learnt: each holds the Jacobian of an image."""
SURVEYED = 128
"""Of them, those from which the sizes of what is learnt are taken."""


class Subject(NamedTuple):
    """What is taught."""

    generator: Generator
    """Of images."""
    exact: Steered
    """The fields."""
    measures: Measures
    """What is measured on the images, and held but for one."""


def families(
    folder: Folder,
    forms: Sequence[str],
    subject: Subject,
    starts: Float[Array, "k n m"],
    bank: Float[Array, "n m"],
    seed: int,
) -> list[Family]:
    """Networks of some forms, trained at once on the same lessons, or read.

    Args:
        folder: of the run, which keeps what was learnt.
        forms: of `distilled.FORMS`.
        subject: what they are taught.
        starts: of as many traversals as there are at most.
        bank: latents at which the fields are shown.
        seed: of the training.
    """
    lesson = partial(_lesson, subject)
    teach = partial(_lessons, lesson)
    found = {name: distilled.form(name) for name in forms}
    with announced("measuring the sizes of the fields"):
        kept = arrays(folder, SIZES, lambda: distilled.scales(teach(bank[:SURVEYED])))
    sizes = Scales(*(jnp.asarray(each, bank.dtype) for each in kept))
    like = jax.eval_shape(lesson, bank[0])
    first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    def batches(start: int, sharding: NamedSharding) -> Iterable[Batch]:
        with announced("measuring the fields that potentials are taught"):
            lessons = teach(bank)._asdict()
        return drawn(lessons, TRAINING.batch_size, seed)(start, sharding)

    learnt = fit(
        folder,
        PHASE,
        init=lambda key: {name: form.init(key, first) for name, form in found.items()},
        loss=Partial(partial(_loss, found), sizes),
        batches=batches,
        config=TRAINING,
        seed=seed,
        describe="teaching steered fields to networks",
    )
    count = len(subject.exact.factors)
    each = {"place": jnp.arange(count), "pace": jnp.ones(count)}
    led = []
    for name, form in found.items():
        # A frame moves each factor by one a unit of time, all others by none.
        own = each | ({"pace": subject.exact.paces} if name == FRAME else {})
        field = partial(_led, form.fields(learnt[name], sizes))
        # In equal steps: where a network is wrong, an adaptive one would not end.
        led.append(Family(NAMES[name], subject.generator, field, own, starts[:count], DEAR))
    return led


def _lessons(lesson: Callable[[Latent], Lesson], latents: Float[Array, "n m"]) -> Lesson:
    of_one = closure_convert_at(lesson, latents[0])
    # A program for each: within a loop XLA's convolutions for CPUs are many times slower.
    teach = jax.jit(lambda of_one, z: of_one(z))
    found = [jax.device_get(teach(of_one, z)) for z in latents]
    return jax.tree.map(lambda *each: np.stack(each), *found)


def _lesson(subject: Subject, z: Latent) -> Lesson:
    moved = subject.exact.factors
    factors = (*moved, *(factor for factor in subject.measures.factors if factor not in moved))
    measured = lambda z: measure(factors, subject.generator(z))  # noqa: E731
    return distilled.lesson(subject.exact.fields, measured, z)


def _loss(
    forms: Mapping[str, Form],
    sizes: Scales,
    params: Params,
    key: Array,
    step: Array,
    batch: Batch,
) -> tuple[Scalar, dict[str, Scalar]]:
    del key, step
    return distilled.mean_losses(forms, params, sizes, Lesson(**batch))


def _led(fields: Fields, own: Mapping[str, Array], t: Array, z: Latent) -> Latent:
    return own["pace"] * fields(t, z)[own["place"]]

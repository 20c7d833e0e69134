"""The exact fields, taught to networks on latents that are led along the fields as they learn."""

from collections.abc import Callable, Mapping
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from experiments.directions import scores as lines
from experiments.directions.config import reach, visible
from experiments.directions.learn import key_of, remembered
from experiments.directions.subject import Data, Subject, codes
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Batch, Params, drawn, fit
from experiments.steer.config import FRAME, PHASE, PLACE, Config, exact_field, method_of
from latent_flows import flows
from latent_flows._transforms import vmap_chunked
from latent_flows.data.image_factors import measure, shape
from latent_flows.directions import to_ball
from latent_flows.generators import FrozenGenerator, draw_latents
from latent_flows.steering import Attributes, distilled
from latent_flows.steering.distilled import Fields, Form, Lesson, Scales
from latent_flows.typing import Generator, Latent, Scalar

AT_ONCE = 8
"""Latents whose lessons are made together: a lesson holds the Jacobian of an image."""
STEPS = 2
"""Of the midpoint rule from one amount to the next."""
SURVEYED = 128
"""Lessons from which the sizes of what is learnt are taken."""

Lessons = Callable[[Generator, Float[Array, "n d"]], Lesson]


def lessons(config: Config, subject: Subject) -> Lessons:
    """What makes the lessons at many latents: the exact fields, and attributes that they change.

    The attributes that the fields change come first, then those that are held.
    """
    own = [lines.place_of(config.asked, subject, kind) for kind in visible(config.asked)]
    factors = [subject.factors[i] for i in own]
    holds: list[Attributes] = []
    if "moments" in config.hold:
        names = [factor.name for factor in factors]
        rest = [factor for factor in PLACE if factor.name not in names]
        holds = [partial(measure, rest), shape] if rest else [shape]

    def one(generator: Generator, z: Latent) -> Lesson:
        def attributes(z: Latent) -> Float[Array, "m"]:
            image = generator(z)
            return jnp.concatenate([measure(factors, image), *(hold(image) for hold in holds)])

        exact = [exact_field(config, generator, kind) for kind in config.transformations]
        return distilled.lesson(exact, attributes, z)

    def many(generator: Generator, zs: Float[Array, "n d"]) -> Lesson:
        return vmap_chunked(partial(one, generator), AT_ONCE)(zs)

    return many


def bank(config: Config, generator: FrozenGenerator, images: Data | None) -> Float[Array, "n d"]:
    """Latents where lessons begin: codes of training images, or draws of the prior."""
    if generator.encode is not None and images is not None:
        return codes(config.asked, generator, images.train, config.distil.bank)
    return draw_latents(generator.prior, key_of(config.asked, "lessons"), config.distil.bank)


def learn(
    folder: Folder, config: Config, subject: Subject, begin: Float[Array, "n d"]
) -> dict[str, Fields]:
    """Train all forms at once, on the same lessons, or read them; their velocities by name."""
    teach = lessons(config, subject)
    forms = {
        name: distilled.form(name, width=config.distil.width, depth=config.distil.depth)
        for name in config.distil.forms
    }
    sizes: Scales = remembered(
        folder,
        "latents/scales",
        lambda: distilled.scales(jax.jit(teach)(subject.generator, begin[:SURVEYED])),
    )
    like = jax.eval_shape(teach, subject.generator, begin[:2])
    first = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), like)

    def init(key: Array) -> Params:
        return {name: form.init(key, first) for name, form in forms.items()}

    largest = np.array([reach(config.asked)[kind] for kind in config.transformations], np.float32)
    found = fit(
        folder,
        PHASE,
        init=init,
        loss=Partial(partial(_loss, forms, teach, largest), subject.generator, sizes),
        batches=drawn({"z": np.asarray(begin)}, config.training.batch_size, config.seed),
        config=config.training,
        seed=config.seed,
        describe=f"teaching fields of {subject.name} to networks",
    )
    ways = {name: form.fields(found[name], sizes) for name, form in forms.items()}
    if FRAME in ways and len(sizes.values) > len(sizes.fields):
        # One training serves the frame that holds the shape, and the one that does not.
        whole = {method_of("moments", FRAME): ways.pop(FRAME)}
        alone = distilled.first(len(sizes.fields), found[FRAME], sizes)
        ways |= ({FRAME: forms[FRAME].fields(*alone)} if "nothing" in config.hold else {}) | whole
    return ways


def _loss(
    forms: Mapping[str, Form],
    teach: Lessons,
    largest: Float[np.ndarray, "k"],
    generator: Generator,
    sizes: Scales,
    params: Params,
    key: Array,
    step: Array,
    batch: Batch,
) -> tuple[Scalar, dict[str, Scalar]]:
    del step
    starts = teach(generator, batch["z"])
    keys = jax.random.split(key, len(batch["z"]))
    moved = teach(generator, jax.vmap(partial(_along, largest))(keys, starts))
    truth = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), starts, moved)
    return distilled.mean_losses(forms, params, sizes, truth)


def _along(largest: Float[np.ndarray, "k"], key: Array, lesson: Lesson) -> Latent:
    """A latent some way along one of its exact fields, where the next lesson is."""
    key_kind, key_amount = jax.random.split(key)
    kind = jax.random.randint(key_kind, (), 0, len(largest))
    amount = jax.random.uniform(key_amount, minval=-1, maxval=1) * jnp.asarray(largest)[kind]
    # The field is followed by one step only, which must not lead far from what it knows.
    return lesson.z + to_ball(amount * lesson.fields[kind], 0.3 * jnp.sqrt(len(lesson.z)))


def follow(
    config: Config, subject: Subject, fields: Fields, kind: str, ts: Float[np.ndarray, "a"]
) -> Float[np.ndarray, "n a d"]:
    """Where the velocity that a network gives leads held-out latents, at each amount."""
    index = config.transformations.index(kind)
    sides = [_refined(ts[ts < 0][::-1]), _refined(ts[ts > 0])]

    def one(z: Latent) -> Float[Array, "a d"]:
        def velocity(t: Scalar, z: Latent) -> Latent:
            return fields(t, z)[index]

        # In equal steps: where a network is wrong, an adaptive one would not end.
        ways = [
            flows.integrate(velocity, z, jnp.asarray(side, z.dtype), solver=diffrax.Midpoint()).zs
            for side in sides
        ]
        ways = [way[STEPS::STEPS] for way in ways]
        led = jnp.concatenate([ways[0][::-1], ways[1]])
        # What could not be followed has not moved.
        return jnp.where(jnp.isfinite(led), led, z)

    return np.asarray(jax.jit(jax.vmap(one))(subject.held_out))


def _refined(amounts: Float[np.ndarray, "a"]) -> Float[np.ndarray, "times"]:
    """From 0 to amounts that go outward, with as many steps to each."""
    whole = np.arange(STEPS * len(amounts) + 1) / STEPS
    return np.interp(whole, np.arange(len(amounts) + 1), [0.0, *amounts])

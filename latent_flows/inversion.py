"""Inversion of a generator: the latent of a picture, from many starts at once, with an error.

`invert` finds it in one call. What shows its progress, or may be stopped, calls what it is made of:

    state = init_inversion(key, generator, image, settings)
    while state.step < settings.steps and not stopped:
        state = inversion_step(generator, image, state, settings, count=10)
        show(inversion_result(generator, image, state, settings))
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from latent_flows._norms import safe_norm
from latent_flows._results import Result, first_failure, message_of
from latent_flows._transforms import vmap_chunked
from latent_flows._validation import at_least, floats
from latent_flows.directions.losses import blur
from latent_flows.generators.frozen import FrozenGenerator
from latent_flows.typing import Latent, Scalar

__all__ = [
    "Features",
    "InversionSettings",
    "InversionState",
    "Inverted",
    "init_inversion",
    "inversion_result",
    "inversion_step",
    "invert",
]

Features = Callable[[Array], Array]
"""From a sample to an array of any shape: what a network sees in it."""

_SURVEYED = 256
"""Draws that say where the latents are, and how far they spread."""
_ALONE = 16
"""Draws whose samples say how far apart two of them are, where none are compared with the image."""
_UNLIKE = 0.5
"""Of the variance of samples: an error above it means that the nearest sample is another picture.
"""


@dataclass(frozen=True)
class InversionSettings:
    """What is descended, from where, and how.

    The objective is without units: each term is divided by what it is, on average, between a draw
    of the generator and the mean of such draws.

    >>> InversionSettings(starts=0)
    Traceback (most recent call last):
    ...
    ValueError: starts must be at least 1, got 0
    """

    starts: int = 8
    """Descents from different latents, of which the best is taken: the encoder's code, where there
    is an encoder; the mean of the latents (of W, for a generator of W or W+); and of random draws
    those whose samples are nearest."""
    steps: int = 200
    """Of each descent."""
    learning_rate: float = 0.1
    """Of Adam, in deviations of the prior; falls to 0 along a cosine."""
    pixel_weight: float = 1.0
    """Of the mean squared error."""
    blurred_weight: float = 1.0
    """Of the same of blurred images, which still has a slope where shapes do not overlap; for
    images alone."""
    sigma: float | None = None
    """Deviation of that blur, in pixels; by default a sixteenth of the shorter side."""
    features: Features | None = None
    """What a network sees in a sample."""
    feature_weight: float = 1.0
    """Of the mean squared error of these features."""
    prior_weight: float = 0.0
    """Of the distance from the shell that draws of the prior lie in: half the squared difference
    of norms, about the mean, in deviations."""
    penalty: Callable[[Latent], Scalar] | None = None
    """A term of one's own, added as it is."""
    project: Callable[[Latent], Latent] | None = None
    """Applied to the starts and after every step, such as `directions.to_ball`."""
    candidates: int = 8
    """Random draws that are looked at for each start."""
    batch_size: int = 64
    """Descents, or samples, at once; fewer take less memory."""

    def __post_init__(self) -> None:
        at_least(self, starts=1, steps=1, candidates=1, batch_size=1)
        weights = ("pixel_weight", "blurred_weight", "feature_weight", "prior_weight")
        at_least(self, **dict.fromkeys(weights, 0))
        for name in (*weights, "learning_rate"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.sigma is not None and not (self.sigma >= 0 and math.isfinite(self.sigma)):
            raise ValueError(f"sigma must be at least 0 pixels, got {self.sigma}")
        if not (
            self.pixel_weight or self.blurred_weight or (self.features and self.feature_weight)
        ):
            raise ValueError("nothing compares the images: pixel_weight and blurred_weight are 0")


class Inverted(NamedTuple):
    """The latent that was found for an image."""

    z: Latent
    """The latent, the best of all starts and steps."""
    image: Array
    """The sample of it."""
    error: Scalar
    """Its mean squared error; infinite where no step had a finite one."""
    errors: Float[Array, "starts"]
    """The same, of the best step of each start."""
    result: Result
    """Whether it is the latent of this image, and why not; `message` in words."""

    @property
    def message(self) -> Any:
        """What `result` says, in words; empty where the image was found."""
        return message_of(self.result)


class InversionState(NamedTuple):
    """Descents under way."""

    step: Int[Array, ""]
    """Steps that were made."""
    zs: Float[Array, "starts d"]
    """Where each descent is."""
    memory: PyTree
    """Of each, the optimiser's."""
    best: Float[Array, "starts d"]
    """The best latent of each so far."""
    objective: Float[Array, "starts"]
    """Its objective."""
    errors: Float[Array, "starts"]
    """Its mean squared error."""
    centre: Latent
    """Mean of draws of the prior."""
    scale: Latent
    """Their deviations."""
    shell: tuple[Scalar, Scalar]
    """Mean and deviation of their distances from it, in deviations."""
    spread: tuple[Scalar, ...]
    """Variances of samples, of blurred ones, and of their features, as far as they are compared."""


def invert(
    key: PRNGKeyArray,
    generator: FrozenGenerator,
    images: Array,
    settings: InversionSettings | None = None,
) -> Inverted:
    r"""The latents whose samples come nearest to images.

    $$\min_z\ \frac{|g(z) - x|^2}{\operatorname{Var} g}
      + \frac{|G_\sigma * (g(z) - x)|^2}{\operatorname{Var}(G_\sigma * g)}
      + \lambda \Bigl(\frac{|z - \bar z| - r}{s}\Bigr)^2 / 2 + \dots$$

    by Adam from many starts, in one compiled program, in units of the prior's deviations.

    Args:
        key: a random key.
        generator: of any event shape, such as from `load_generator` or `freeze`. Of StyleGAN2 one
            in W or W+ starts at the mean of W.
        images: one `[*event]`, or several `[n, *event]`.
        settings: what is descended, from where, and how.

    Returns:
        The latents, their samples and errors, all with the leading axis of the images.

    Raises:
        ValueError: images that are not of floats, or of another shape than the generator's.

    References:
        Zhu et al., *Generative Visual Manipulation on the Natural Image Manifold*, 2016, for an
        encoder first and descent after it; Karras et al., *Analyzing and Improving the Image
        Quality of StyleGAN*, 2020, section 5, for W.

    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators import freeze
    >>> generator = freeze(lambda z: jnp.tanh(z)[:, None, None] * jnp.ones((2, 4, 1)), 2)
    >>> z = jnp.array([0.5, -0.3])
    >>> found = invert(jax.random.key(0), generator, generator(z))
    >>> print(found.error < 1e-4, jnp.allclose(found.z, z, atol=0.01), found.message == "")
    True True True
    """
    settings = settings or InversionSettings()
    images = jnp.asarray(images)
    rank = len(generator.event_shape)
    _check_image(generator, images, many=images.ndim == rank + 1)
    if images.ndim == rank:
        return _whole(settings, key, generator, images)
    keys = jax.random.split(key, len(images))
    return _every(settings, keys, generator, images)


def init_inversion(
    key: PRNGKeyArray,
    generator: FrozenGenerator,
    image: Array,
    settings: InversionSettings | None = None,
) -> InversionState:
    """The starts of an inversion, from which `inversion_step` goes on.

    Args:
        key: a random key.
        generator: of any event shape.
        image: one `[*event]`.
        settings: as in `invert`.

    Returns:
        Descents that have not made a step.

    Raises:
        ValueError: an image that is not of floats, or of another shape than the generator's.

    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators import freeze
    >>> state = init_inversion(jax.random.key(0), freeze(jnp.sin, 3), jnp.zeros(3))
    >>> state.zs.shape, int(state.step)
    ((8, 3), 0)
    """
    image = jnp.asarray(image)
    _check_image(generator, image)
    return _init(settings or InversionSettings(), key, generator, image)


def inversion_step(
    generator: FrozenGenerator,
    image: Array,
    state: InversionState,
    settings: InversionSettings | None = None,
    *,
    count: int = 10,
) -> InversionState:
    """Some steps of all descents of an inversion, compiled once.

    Args:
        generator: that of `init_inversion`.
        image: as well.
        state: of the descents.
        settings: as in `init_inversion`.
        count: steps; those beyond the settings' `steps` are not made.

    Returns:
        The state after them.

    Raises:
        ValueError: fewer than one step.

    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators import freeze
    >>> generator, image = freeze(jnp.sin, 3), jnp.full(3, 0.5)
    >>> state = init_inversion(jax.random.key(0), generator, image)
    >>> later = inversion_step(generator, image, state, count=20)
    >>> print(int(later.step), later.errors.min() < state.errors.min())
    20 True
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    settings = settings or InversionSettings()
    return _advance(settings, count, generator, jnp.asarray(image), state)


def inversion_result(
    generator: FrozenGenerator,
    image: Array,
    state: InversionState,
    settings: InversionSettings | None = None,
) -> Inverted:
    """The best of the descents so far.

    Args:
        generator: that of `init_inversion`.
        image: as well.
        state: of the descents, at any step.
        settings: as in `init_inversion`.

    Returns:
        The result; where steps are left, its reason says so.

    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators import freeze
    >>> generator, image = freeze(jnp.sin, 3), jnp.full(3, 0.5)
    >>> state = init_inversion(jax.random.key(0), generator, image)
    >>> inversion_result(generator, image, state).image.shape
    (3,)
    """
    return _result(settings or InversionSettings(), generator, jnp.asarray(image), state)


@partial(jax.jit, static_argnums=0)
def _every(
    settings: InversionSettings, keys: Array, generator: FrozenGenerator, images: Array
) -> Inverted:
    at_once = max(1, settings.batch_size // settings.starts)
    return vmap_chunked(lambda key, image: _whole(settings, key, generator, image), at_once)(
        keys, images
    )


@partial(jax.jit, static_argnums=0)
def _whole(
    settings: InversionSettings, key: PRNGKeyArray, generator: FrozenGenerator, image: Array
) -> Inverted:
    state = _init(settings, key, generator, image)
    return _result(
        settings, generator, image, _advance(settings, settings.steps, generator, image, state)
    )


@partial(jax.jit, static_argnums=0)
def _init(
    settings: InversionSettings, key: PRNGKeyArray, generator: FrozenGenerator, image: Array
) -> InversionState:
    drawing, more = jax.random.split(key)
    draws = jax.vmap(generator.prior)(jax.random.split(drawing, _SURVEYED))
    centre, scale = draws.mean(0), draws.std(0)
    # A number that hardly varies is not to be searched in steps of next to nothing.
    scale = jnp.maximum(scale, 1e-3 * jnp.maximum(scale.max(), 1e-6))
    far = safe_norm((draws - centre) / scale, axis=1)
    encoded = [] if generator.encode is None else [generator.encode(image)[0].astype(draws.dtype)]
    fixed = jnp.stack([*encoded, centre])[: settings.starts]
    drawn = settings.starts - len(fixed)
    count = max(drawn * settings.candidates, _ALONE)
    beyond = jax.random.split(more, max(count - _SURVEYED, 0))
    some = jnp.concatenate([draws[:count], jax.vmap(generator.prior)(beyond)])
    project = settings.project or _same
    starts, some = jax.vmap(project)(fixed), jax.vmap(project)(some)

    def mapped(function: Callable[[Latent], Any], zs: Array) -> Any:
        return jax.lax.map(function, zs, batch_size=settings.batch_size)

    samples = mapped(lambda z: _seen(settings, generator(z)), some)
    spread = tuple(jnp.maximum(jnp.nanvar(seen, axis=0).mean(), 1e-12) for seen in samples)
    state = InversionState(
        step=jnp.zeros((), jnp.int32),
        zs=starts,
        memory=None,
        best=starts,
        objective=jnp.full(settings.starts, jnp.inf, draws.dtype),
        errors=jnp.full(settings.starts, jnp.inf, draws.dtype),
        centre=centre,
        scale=scale,
        shell=(far.mean(), jnp.maximum(far.std(), 1e-6)),
        spread=spread,
    )
    if drawn:
        value = partial(_compared, settings, _seen(settings, image), state)
        # What is not a number comes last.
        order = jnp.argsort(jax.vmap(lambda z, *seen: value(z, seen)[0])(some, *samples))
        starts = jnp.concatenate([starts, some[order[:drawn]]])
    memory = jax.vmap(_optimizer(settings).init)(starts)
    return state._replace(zs=starts, memory=memory, best=starts)


@partial(jax.jit, static_argnums=(0, 1))
def _advance(
    settings: InversionSettings,
    count: int,
    generator: FrozenGenerator,
    image: Array,
    state: InversionState,
) -> InversionState:
    optimizer, project = _optimizer(settings), settings.project or _same
    target = _seen(settings, image)

    def objective(z: Latent) -> tuple[Scalar, Scalar]:
        return _compared(settings, target, state, z, _seen(settings, generator(z)))

    def step(now: _Descent, _: None) -> tuple[_Descent, None]:
        (value, error), slope = jax.value_and_grad(objective, has_aux=True)(now.z)
        now = _better(now, now.z, value, error)
        updates, memory = optimizer.update(state.scale * slope, now.memory)
        moved = project(now.z + state.scale * updates)
        z = jnp.where(jnp.isfinite(moved).all(), moved, now.best)
        return now._replace(z=z, memory=memory), None

    def descend(now: _Descent) -> _Descent:
        return jax.lax.scan(step, now, length=min(count, settings.steps))[0]

    # Steps beyond the last have length 0.
    now = _Descent(state.zs, state.memory, state.best, state.objective, state.errors)
    now = jax.lax.map(descend, now, batch_size=settings.batch_size)
    return state._replace(
        step=jnp.minimum(state.step + count, settings.steps),
        zs=now.z,
        memory=now.memory,
        best=now.best,
        objective=now.objective,
        errors=now.error,
    )


@partial(jax.jit, static_argnums=0)
def _result(
    settings: InversionSettings, generator: FrozenGenerator, image: Array, state: InversionState
) -> Inverted:
    target = _seen(settings, image)

    def last(now: _Descent) -> _Descent:
        seen = _seen(settings, generator(now.z))
        return _better(now, now.z, *_compared(settings, target, state, now.z, seen))

    # Where each is now has not been looked at yet.
    now = _Descent(state.zs, None, state.best, state.objective, state.errors)
    found = jax.lax.map(last, now, batch_size=settings.batch_size)
    chosen = jnp.argmin(found.objective)
    z, error = found.best[chosen], found.error[chosen]
    result = first_failure(
        (jnp.isfinite(error), Result.nonfinite),
        (state.step >= settings.steps, Result.unfinished),
        (error <= _UNLIKE * state.spread[0], Result.unlike),
    )
    return Inverted(z, generator(z), error, found.error, result)


class _Descent(NamedTuple):
    """One of the descents."""

    z: Latent
    memory: PyTree
    best: Latent
    objective: Scalar
    error: Scalar


def _better(now: _Descent, z: Latent, objective: Scalar, error: Scalar) -> _Descent:
    is_better = objective < now.objective
    return now._replace(
        best=jnp.where(is_better, z, now.best),
        objective=jnp.where(is_better, objective, now.objective),
        error=jnp.where(is_better, error, now.error),
    )


def _seen(settings: InversionSettings, sample: Array) -> tuple[Array, ...]:
    """What is compared of samples: themselves, blurred, and features of them."""
    seen = [sample]
    if _is_blurred(settings, sample.shape):
        side = min(sample.shape[:2])
        seen.append(blur(sample, side / 16 if settings.sigma is None else settings.sigma))
    if settings.features is not None:
        seen.append(jnp.asarray(settings.features(sample)))
    return tuple(seen)


def _weights(settings: InversionSettings, shape: tuple[int, ...]) -> list[float]:
    blurred = [settings.blurred_weight] if _is_blurred(settings, shape) else []
    features = [] if settings.features is None else [settings.feature_weight]
    return [settings.pixel_weight, *blurred, *features]


def _is_blurred(settings: InversionSettings, shape: tuple[int, ...]) -> bool:
    return settings.blurred_weight > 0 and len(shape) == 3 and min(shape[:2]) > 1


def _compared(
    settings: InversionSettings,
    target: tuple[Array, ...],
    state: InversionState,
    z: Latent,
    seen: tuple[Array, ...],
) -> tuple[Scalar, Scalar]:
    """The objective of a latent with this sample, and its mean squared error."""
    errors = [jnp.mean((a - b) ** 2) for a, b in zip(seen, target, strict=True)]
    weights = _weights(settings, target[0].shape)
    value = sum(
        weight * error / spread
        for weight, error, spread in zip(weights, errors, state.spread, strict=True)
    )
    if settings.prior_weight:
        radius, deviation = state.shell
        off = (safe_norm((z - state.centre) / state.scale) - radius) / deviation
        value = value + settings.prior_weight * off**2 / 2
    if settings.penalty is not None:
        value = value + settings.penalty(z)
    return jnp.asarray(value, z.dtype), jnp.asarray(errors[0], z.dtype)


def _optimizer(settings: InversionSettings) -> optax.GradientTransformation:
    # The steps are few and without noise: with a longer memory the last ones go to swinging back.
    rate = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    return optax.adam(rate, b1=0.5, b2=0.9)


def _same(z: Latent) -> Latent:
    return z


def _check_image(generator: FrozenGenerator, image: Array, *, many: bool = False) -> None:
    floats("invert", images=image)
    if image.shape[1 if many else 0 :] != generator.event_shape or not image.size:
        raise ValueError(
            f"the images have shape {image.shape}, but {generator.name} makes "
            f"{generator.event_shape}"
        )

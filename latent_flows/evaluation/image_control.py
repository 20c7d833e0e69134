"""How well directions control the factors of images, and trajectories reach their targets.

All measurements are on decoded images: none is an opinion of the model that is judged. Samples need
be no images: of vectors and all else, those factors are measured that transformations come with,
and what is known of images of light alone (whether one is too faint, or valid) is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from latent_flows import directions
from latent_flows._transforms import vmap_chunked
from latent_flows.data.image_factors import (
    Image,
    ImageFactor,
    measure,
    sharpness,
    shows_light,
    unwrapped,
)
from latent_flows.directions.losses import blurred_error, mse
from latent_flows.directions.model import Direction, DirectionModel
from latent_flows.directions.trajectories import Trajectories
from latent_flows.directions.transformations import Sample, Weights, spread, transformed
from latent_flows.evaluation.control import ControlScore, control_score, reach
from latent_flows.typing import Generator, Scalar

__all__ = [
    "Asked",
    "Measured",
    "Subject",
    "decode",
    "even_direction",
    "explained",
    "image_control",
    "inversion_scores",
    "joint_control",
    "overlap",
    "possible",
    "score_of",
    "survey",
    "untrained_directions",
    "watch",
]

BATCH = 16
"""Latents that are moved by all amounts at once."""
AT_ONCE = 50
"""Images that are measured together."""
SPAN = 1.5
"""How far baselines are followed to find out what they do, in units of a latent's deviation."""
FOLLOWED = 7
"""Places on the way there, both ways."""
NOTHING = 1e-12
"""Sum of the squared changes of a factor up to which it counts as still."""
PLACES = 7
"""Values that a factor is set to, to measure how exactly."""
FAINT = 0.25
"""Share of the least mass of data below which an image shows nothing to be measured."""
_ITSELF = Partial(jnp.asarray)  # what an image is made of, if it is there already


class Subject(NamedTuple):
    """A frozen generator, where to start from, and what can be measured on its images."""

    generator: Generator
    """Its parameters are its leaves."""
    first_layer: Float[Array, "k d"] | None
    """Weights of the layers that take the latent, stacked; None where none is linear."""
    starts: Float[Array, "n d"]
    """Codes of training images, drawn from the posterior; draws from the prior without an
    encoder."""
    held_out: Float[Array, "m d"]
    """Codes of held-out images, or other draws."""
    radius: float
    """The largest norm of a code or draw: latents farther out are not searched."""
    name: str
    """Of the data set, or of a generator whose data are not at hand, for captions."""
    factors: tuple[ImageFactor, ...]
    """What is measured."""
    is_valid: Callable[[Image], Bool[Array, ""]]
    """Whether an image is one of such data."""
    low: np.ndarray
    """1% quantile of each factor over images of data, or of draws where these are not at hand."""
    high: np.ndarray
    """99% quantile."""
    faintest: float
    """Mean of an image below which nothing is measured on it; -inf of what is no image of light."""
    bounded: bool
    """Whether no factor leaves its range: those of data that were made so."""
    names: tuple[str, ...] = ()
    """Of the numbers of a sample, for drawings of what is no image."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return jax.eval_shape(self.generator, self.held_out[0]).shape


class Measured(NamedTuple):
    """Factors of the images of some latents, and of the same latents moved by several amounts."""

    before: Float[np.ndarray, "n f"]
    """Of the latents themselves."""
    after: Float[np.ndarray, "n a f"]
    """Of each, moved by each amount."""
    shows: Bool[np.ndarray, "n a"]
    """Whether an image after is bright enough for its factors to mean something."""
    valid: Bool[np.ndarray, "n a"]
    """Whether it is also one of such data, as far as that can be seen."""


class Asked(NamedTuple):
    """What one direction did when it was asked for changes of its factor."""

    amounts: list[float]
    """The changes, in units of the transformation."""
    mean: list[float | None]
    """The change measured, on average over starts; None where no start can be changed so."""
    deviation: list[float | None]
    """The standard deviation of this change over starts."""
    row: dict[str, Any]
    """Scores."""


def survey(
    factors: Sequence[ImageFactor],
    points: Float[Array, "n ..."],
    image: Callable[[Array], Image] = _ITSELF,
) -> tuple[np.ndarray, np.ndarray, float]:
    """The central 98% of each factor over images, and how faint an image may be.

    Args:
        factors: what to measure.
        points: the images, or what `image` makes one of.
        image: a pytree, such as a generator whose parameters are its leaves.

    Returns:
        The 1% and the 99% quantile of each factor, and the mean of an image below which nothing
        is measured on it: -inf of what is no image of light.

    >>> from latent_flows.data.image_factors import X
    >>> survey((X,), jnp.ones((2, 4, 4, 1)))[2]
    0.25
    """

    @jax.jit
    def look(image: Callable[[Array], Image], points: Array) -> tuple[Array, Array]:
        def one(point: Array) -> tuple[Array, Scalar]:
            made = image(point)
            return measure(factors, made), made.mean()

        return vmap_chunked(one, AT_ONCE)(points)

    values, means = look(image, points)
    # What cannot be measured on some samples has the range that it has on others.
    known = [column[np.isfinite(column)] for column in np.asarray(values).T]
    ends = [np.quantile(column, [0.01, 0.99]) if column.size else np.zeros(2) for column in known]
    low, high = np.array(ends).reshape(-1, 2).T
    light = shows_light(jax.eval_shape(image, points[0]).shape)
    return low, high, FAINT * float(jnp.quantile(means, 0.01)) if light else -np.inf


def _shift(models: tuple[Direction, ...], z: Array, amounts: Float[Array, "k"]) -> Array:
    """Changes each factor by an amount."""
    if len(models) > 1:
        return directions.shift_many(models, z, amounts)
    return directions.shift(models[0], z, amounts[0], extrapolate=True)


def _place(models: tuple[Direction, ...], z: Array, amounts: Float[Array, "k"]) -> Array:
    """Sets each factor to a value."""
    if len(models) > 1:
        return directions.place_many(models, z, amounts)
    return directions.place(models[0], z, amounts[0], extrapolate=True)


@partial(jax.jit, static_argnames=("way", "factors", "is_valid"))
def _watch(
    way: Callable,
    factors: tuple[ImageFactor, ...],
    is_valid: Callable,
    generator: Generator,
    faintest: Scalar,
    models: Any,
    zs: Float[Array, "n d"],
    amounts: Float[Array, "a k"],
) -> tuple[Array, ...]:
    look = partial(measure, factors)

    def one(z: Array) -> tuple[Array, ...]:
        images = jax.vmap(lambda a: generator(way(models, z, a)))(amounts)
        shows = jax.vmap(jnp.mean)(images) >= faintest
        before = look(generator(z))
        after = unwrapped(factors, before, jax.vmap(look)(images))
        return before, after, shows, shows & jax.vmap(is_valid)(images)

    return vmap_chunked(one, BATCH)(zs)


def watch(
    subject: Subject,
    way: Callable[[Any, Array, Array], Array],
    models: Any,
    zs: Float[Array, "n d"],
    amounts: Float[np.ndarray, "a k"],
) -> Measured:
    """Measures the images of latents before and after they are moved.

    Args:
        subject: the generator, and what is measured.
        way: `(models, z, amounts) -> z`; called again for the same function nothing is compiled.
        models: what moves them: a pytree, such as a tuple of directions.
        zs: the latents.
        amounts: by how much, one for each model.

    Returns:
        The factors of all images.
    """
    found = _watch(
        way,
        subject.factors,
        subject.is_valid,
        subject.generator,
        jnp.asarray(subject.faintest),
        models,
        zs,
        jnp.asarray(amounts, zs.dtype),
    )
    return Measured(*map(np.asarray, found))


def image_control(
    subject: Subject,
    own: int,
    model: Direction,
    largest: float,
    scale: Float[np.ndarray, "f"],
    *,
    sides: int = 10,
    stretch: float = 2.0,
    bound: float = 0.1,
) -> Asked:
    """Asks a direction for changes of its factor, from held-out latents, and measures.

    Args:
        subject: the generator, and what is measured.
        own: which of the factors the direction changes.
        model: the direction.
        largest: the largest change that it was trained on.
        scale: the range of each factor.
        sides: changes that are asked of each latent, on each side of 0.
        stretch: the largest of them, in units of `largest`.
        bound: error (root mean square, as a share of the factor's range) up to which control
            counts as such when its reach is measured.

    Returns:
        What it did, with the scores of `control_score` and `reach`.

    References:
        Plumerault, Le Borgne and Hudelot, *Controlling generative models with continuous factors
        of variations*, 2020, section 3.
    """
    amounts = np.linspace(-1, 1, 2 * sides + 1) * largest * stretch
    seen = watch(subject, _shift, (model,), subject.held_out, amounts[:, None])
    change = seen.after[..., own] - seen.before[:, None, own]
    counts = seen.shows & possible(subject, own, seen.before, amounts)
    others = np.delete(np.arange(len(scale)), own)
    trained = np.abs(amounts) <= largest * (1 + 1e-6)
    score = score_of(
        amounts[trained],
        change[:, trained],
        seen.after[:, trained][..., others],
        scale[others],
        valid=counts[:, trained],
    )
    places = np.linspace(-1, 1, PLACES) * largest
    there = watch(subject, _place, (model,), subject.held_out, places[:, None])
    placed = score_of(places, there.after[..., own], valid=there.shows, up_to_constant=True)
    masked = np.ma.masked_where(~counts, change)
    error = np.sqrt(np.ma.mean((masked - amounts) ** 2, 0)).filled(np.nan)
    row = {
        "r2": float(score.r2),
        "correlation": float(score.correlation),
        "spread": float(np.nanmean(score.spread)),
        # Where nothing else is measured, nothing is known of it.
        "leakage": float(score.leakage.max()) if others.size else None,
        **{
            f"leakage_{subject.factors[k].name}": float(value)
            for k, value in zip(others, score.leakage, strict=True)
        },
        "reach": reach(amounts, error, bound * scale[own]),
        "error_far": _finite(np.ma.masked_invalid(error[[0, -1]]).mean()),
        "placed_r2": float(placed.r2),
        "placed_spread": float(np.nanmean(placed.spread)),
    }
    if shows_light(subject.event_shape):
        row["valid"] = float(seen.valid[:, trained].mean())
    mean, deviation = ([_finite(v) for v in part] for part in (masked.mean(0), masked.std(0)))
    return Asked(amounts.tolist(), mean, deviation, row)


def score_of(*arrays: np.ndarray, valid: np.ndarray, up_to_constant: bool = False) -> ControlScore:
    """`control_score` of arrays of NumPy, without a free constant.

    Args:
        valid: which images count.
        up_to_constant: whether a constant is allowed for.
        *arrays: what `control_score` takes.

    Returns:
        The score.
    """
    given = map(jnp.asarray, arrays)
    return control_score(*given, valid=jnp.asarray(valid), up_to_constant=up_to_constant)


def _finite(value: Any) -> float | None:
    """A number, or None where it is masked or not finite."""
    return float(value) if value is not np.ma.masked and np.isfinite(value) else None


def possible(
    subject: Subject, own: int, before: Float[np.ndarray, "n f"], amounts: Float[np.ndarray, "a"]
) -> Bool[np.ndarray, "n a"]:
    """Which changes lead to a value that the data have, where these have sharp limits.

    Sprites are drawn inside a certain square only. Of other data everything may be asked.

    Args:
        subject: what is usual.
        own: which of the factors is changed.
        before: the factors of the images before.
        amounts: the changes.

    Returns:
        Whether each image can be changed so.
    """
    if not subject.bounded or np.isfinite(subject.factors[own].period):
        return np.ones((len(before), len(amounts)), bool)
    target = before[:, own, None] + amounts
    return (target >= subject.low[own]) & (target <= subject.high[own])


@jax.jit
def decode(generator: Generator, zs: Float[Array, "n d"]) -> Float[Array, "n *event"]:
    """The samples of latents, a few at a time.

    Args:
        generator: a pytree.
        zs: the latents.

    Returns:
        The samples.
    """
    return jax.lax.map(generator, zs, batch_size=BATCH)


def _proposals(
    subject: Subject, key: PRNGKeyArray, candidates: int
) -> dict[str, Float[Array, "m d"]]:
    """The directions that each baseline proposes."""
    dim = subject.held_out.shape[1]
    count = min(candidates, dim)
    images = decode(subject.generator, subject.starts)
    # No more components than samples, or numbers of one, and no more than latents.
    components = min(count, len(subject.starts) - 1, images[0].size)
    weight = subject.first_layer
    closed = {} if weight is None else {"SeFa": directions.sefa(weight, min(count, *weight.shape))}
    return closed | {
        "GANSpace": directions.ganspace(
            subject.starts, images.reshape(len(images), -1), components
        ),
        "random direction": directions.random_directions(key, count, dim),
        "latent coordinate": jnp.eye(dim)[jnp.argsort(-subject.starts.std(0))[:count]],
    }


def even_direction(direction: Any, slope: float, *, knots: int = 11) -> DirectionModel:
    """A direction along which a factor changes evenly, anywhere.

    Args:
        direction: the vector.
        slope: change of the factor by a step of it.
        knots: of the model.

    Returns:
        The model.

    >>> print(even_direction([0.0, 1.0], 0.5)(jnp.array([3.0, 8.0])))
    4.0
    """
    direction = jnp.asarray(direction)
    ticks = jnp.linspace(-4.0, 4.0, knots, dtype=direction.dtype)
    nothing = jnp.zeros((), direction.dtype)
    return DirectionModel(
        direction, ticks, slope * ticks, slope * ticks[jnp.array([0, -1])], nothing, nothing
    )


def untrained_directions(
    subject: Subject,
    key: PRNGKeyArray,
    places: Mapping[str, int],
    *,
    candidates: int = 6,
    knots: int = 11,
) -> list[dict[str, Any]]:
    """The best of each baseline's directions for each transformation, told its true slope.

    SeFa (where a linear layer takes the latent), GANSpace, random directions and latent
    coordinates. All of them are followed from the starts. The direction whose straight line
    explains the measured change of the factor best is taken, with the slope of this line: more
    than directions are told that see no measurement.

    Args:
        subject: the generator, and what is measured.
        key: a random key.
        places: which of the factors each transformation changes, by its name.
        candidates: directions that each baseline proposes.
        knots: of the models that they are followed by.

    Returns:
        Rows of transformation, method, direction, slope, and share of the change explained.
    """
    if not places:
        return []
    steps = np.linspace(-SPAN, SPAN, FOLLOWED)
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for family, found in _proposals(subject, key, candidates).items():
        for direction in found:
            model = even_direction(direction, 1.0, knots=knots)
            slopes, shares = explained(subject, _shift, (model,), steps)
            for name, own in places.items():
                row = {
                    "transformation": name,
                    "method": family,
                    "direction": (direction if slopes[own] >= 0 else -direction).tolist(),
                    "slope": max(abs(float(slopes[own])), 1e-4),
                    "explained": float(shares[own]),
                }
                if row["explained"] > best.get((name, family), {"explained": -1.0})["explained"]:
                    best[name, family] = row
    return [*best.values()]


def explained(
    subject: Subject,
    way: Callable[[Any, Array, Array], Array],
    models: Any,
    amounts: Float[np.ndarray, "a"],
) -> tuple[Float[np.ndarray, "f"], Float[np.ndarray, "f"]]:
    """How the factors of images change with how far their latents are moved, as a straight line.

    Args:
        subject: the generator, and what is measured.
        way: `(models, z, amounts) -> z`, with one amount.
        models: what moves latents: a pytree.
        amounts: how far, both ways.

    Returns:
        The slope of each factor, and the share of its change that the line explains.
    """
    seen = watch(subject, way, models, subject.starts, amounts[:, None])
    change = seen.after - seen.before[:, None]
    counts = seen.shows[..., None] & np.isfinite(change)
    change, asked = np.where(counts, change, 0.0), np.where(counts, amounts[:, None], 0.0)
    slopes = (change * asked).sum((0, 1)) / np.maximum((asked**2).sum((0, 1)), 1e-12)
    missed, whole = ((of**2).sum((0, 1)) for of in (change - slopes * asked, change))
    # Of what does not change at all nothing is explained.
    return slopes, np.where(whole > NOTHING, 1 - missed / np.maximum(whole, NOTHING), 0.0)


def joint_control(
    subject: Subject,
    own: Sequence[int],
    models: tuple[Direction, ...],
    largest: Sequence[float],
) -> dict[str, Any]:
    """Asks for changes of two factors at once, all combinations of a few.

    Args:
        subject: the generator, and what is measured.
        own: which of the factors each direction changes.
        models: the two directions.
        largest: the largest change of each.

    Returns:
        The R2 of each, by name.
    """
    sides = [np.linspace(-1, 1, 5) * most for most in largest]
    amounts = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 2)
    seen = watch(subject, _shift, models, subject.held_out, amounts)
    counts = seen.shows
    for k, index in enumerate(own):
        counts = counts & possible(subject, index, seen.before, amounts[:, k])
    row: dict[str, Any] = {}
    for k, index in enumerate(own):
        change = seen.after[..., index] - seen.before[:, None, index]
        score = score_of(amounts[:, k], change, valid=counts)
        row[("first_r2", "second_r2")[k]] = float(score.r2)
    return row


def overlap(image: Image, target: Image, mask: Weights) -> Scalar:
    r"""How much of the light of two images is at the same place.

    $$\frac{\sum_p m_p \min(x_p, y_p)}{\sum_p m_p \max(x_p, y_p)}$$

    Args:
        image: of light.
        target: another.
        mask: weights of the pixels.

    Returns:
        From 0 to 1, where the images agree.

    >>> print(overlap(jnp.ones((2, 2, 1)), jnp.eye(2)[..., None], jnp.ones((2, 2))))
    0.5
    """
    known = spread(mask, image)
    either = jnp.sum(known * jnp.maximum(image, target))
    return jnp.sum(known * jnp.minimum(image, target)) / jnp.maximum(either, 1e-6)


def _errors(
    before: Sample, sample: Sample, target: Sample, mask: Weights, sigma: float
) -> dict[str, Scalar]:
    """How far a sample is from its target; of images also through a blur, and how sharp it is."""
    found = {"mse": mse(sample, target, mask)}
    if sample.ndim == 3:
        found["blurred"] = blurred_error(sample, target, mask, sigma=sigma)
        found["sharpness"] = sharpness(sample) / jnp.maximum(sharpness(before), 1e-6)
    return found


@partial(jax.jit, static_argnames=("factors", "kind", "sigma"))
def _judge(
    factors: tuple[ImageFactor, ...],
    kind: str,
    sigma: float,
    generator: Generator,
    found: Trajectories,
) -> tuple[Array, Array, Array, dict[str, Array]]:
    transform = directions.transformation(kind)
    look = partial(measure, factors)

    def one(z0: Array, zs: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
        before = generator(z0)

        def visit(z: Array, t: Array) -> tuple[Array, Array, dict[str, Array]]:
            sample = generator(z)
            target, mask = transformed(transform, before, t)
            return look(sample), sample.mean(), _errors(before, sample, target, mask, sigma)

        return look(before), *jax.vmap(visit)(zs, found.ts)

    return vmap_chunked(one, BATCH)(found.z0, found.zs)


def inversion_scores(
    subject: Subject,
    kind: str,
    found: Trajectories,
    *,
    own: int | None = None,
    near: float = 0.0,
    sigma: float = 3.0,
) -> dict[str, float | None]:
    """How near the trajectories of a transformation come to their targets, and how sharp.

    Errors, sharpness and the share of images that miss the factor asked for, or show nothing, are
    those at the largest |t|. R2 counts all that show something. The blurred error and sharpness are
    of images.

    Args:
        subject: the generator, and what is measured.
        kind: name of the transformation.
        found: its trajectories.
        own: which of the factors it changes; None where none is measured.
        near: error of that factor up to which it is not missed.
        sigma: standard deviation of the blur of the second error, in pixels.

    Returns:
        The scores by name.
    """
    before, after, mean, errors = jax.tree.map(
        np.asarray, _judge(subject.factors, kind, sigma, subject.generator, found)
    )
    ends = [0, -1]
    names = [name for name in ("mse", "blurred", "sharpness") if name in errors]
    row: dict[str, float | None] = {name: float(errors[name][:, ends].mean()) for name in names}
    row |= {"r2": None, "missed": None}
    if own is not None:
        ts = np.asarray(found.ts)
        change = after[..., own] - before[:, None, own]
        shows, asked = mean >= subject.faintest, possible(subject, own, before, ts)
        row["r2"] = float(score_of(ts, change, valid=shows & asked).r2)
        hit = np.abs(change - ts) <= near
        if asked[:, ends].any():
            row["missed"] = 1 - float((shows & hit)[:, ends][asked[:, ends]].mean())
    return row

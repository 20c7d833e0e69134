"""Samples of any data that transformations change, the library's or one's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.generators.transformable import check_transformation, sample_of
from experiments.runtime.cli import UsageError
from experiments.supervised_flows.known import Known
from latent_flows import data, plots
from latent_flows._named_function import is_named, label
from latent_flows._transforms import in_chunks
from latent_flows.data import Dataset, ImageFactor, Measures
from latent_flows.data.image_factors import shows_light
from latent_flows.directions.transformations import ENTRIES, Entry, alike, entry, spread
from latent_flows.generators import FrozenGenerator

MOST = 2**29
"""Bytes, at most, of the examples that are kept for sequences."""
SURVEYED = 200
"""Examples that are looked at under every transformation."""
AMOUNTS = (0.0, -1.0, -0.5, 0.5, 1.0)
"""Those by which they are transformed, in units of the reach."""
LEFT_ALONE = 0.25
"""Change of an attribute, as a share of that of a factor's own, below which it should be none."""
STILL = 1e-5
"""Range of an attribute, as a share of its largest value, below which it says nothing."""

EXAMPLE = (
    "@registered(reach=1.0, factor=ImageFactor('level', 'units', measure)), of "
    "latent_flows.directions.transformations and latent_flows.data, where measure(sample) gives "
    "one number that it raises"
)


def is_transformation(name: str) -> bool:
    """Whether a name is that of a transformation, and not of a factor of drawn data.

    >>> is_transformation("zoom"), is_transformation("own.py:f"), is_transformation("x")
    (True, True, False)
    """
    return is_named(name) or name in ENTRIES


def short_names(names: Sequence[str]) -> list[str]:
    """Transformations as pictures call them: functions without their file, if they differ then.

    >>> short_names(["zoom", "genes.py:induce"]), short_names(["a.py:f", "b.py:f"])
    (['zoom', 'induce'], ['a.py:f', 'b.py:f'])
    """
    short = [*map(label, names)]
    return short if len(set(short)) == len(short) else list(names)


class Frame(NamedTuple):
    """What a transformed sample is made from."""

    example: Int[Array, "*t"]
    """Row of the examples that are kept."""
    which: Int[Array, "*t"]
    """Which of the transformations."""
    amount: Float[Array, "*t"]
    """By how much."""


class Survey(NamedTuple):
    """What transformations make of examples."""

    ranges: Float[Array, "f"]
    """Width of the central 98% of each attribute; infinite where it stays as it is."""
    others: Float[np.ndarray, "k f"]
    """For each transformation, 1 for every attribute that it leaves alone."""


@dataclass(frozen=True)
class TransformedSamples(Known):
    """Examples of data, transformed by amounts between minus and plus each one's reach."""

    entries: Mapping[str, Entry]
    """The transformations, by name."""
    seen: Mapping[str, ImageFactor]
    """What shows each, by its name."""
    samples: Float[Array, "n *event"]
    """Examples: first those to learn from, then others."""
    rows: range
    """Those that sequences are made of here."""
    unseen: range
    """Those that held-out sequences are made of."""
    survey: Survey | None = None
    """What the transformations make of examples, once it is known."""

    def own(self, names: Sequence[str]) -> list[int]:
        """For each factor, which of the measured attributes shows it."""
        return [self.measures.factors.index(self.seen[name]) for name in names]

    def others(self, names: Sequence[str]) -> Float[np.ndarray, "k f"]:
        """For each factor, 1 for every attribute that its transformation leaves alone."""
        assert self.survey is not None
        order = [*self.entries]
        return self.survey.others[[order.index(name) for name in names]]

    def beside(
        self, names: Sequence[str], changes: Float[Array, "n k t f"], true: Float[Array, "n k t f"]
    ) -> Float[Array, "n k t f"]:
        """Of every attribute but a factor's own, what it changes more or less than was asked for.

        A zoom moves what is not in the middle: that is no mistake of the flow.
        """
        not_own = 1.0 - jax.nn.one_hot(jnp.array(self.own(names)), changes.shape[-1])
        return changes - true * not_own[:, None]

    def labels(self, names: Sequence[str]) -> list[str]:
        """Functions of one's own without their file."""
        return short_names(names)

    def frames(
        self, names: Sequence[str], key: Array, k: Int[Array, ""], share: Float[Array, "t"]
    ) -> Frame:
        """A random example, transformed from minus (share 0) to plus (1) the reach."""
        example = jax.random.randint(key, (), self.rows.start, self.rows.stop)
        reaches = jnp.array([self.entries[name].reach for name in names])
        order = [*self.entries]
        which = jnp.array([order.index(name) for name in names])[k]
        same = jnp.ones(len(share), int)
        return Frame(example * same, which * same, reaches[k] * (2 * share - 1))

    def render(self, frame: Frame) -> tuple[Array, Array]:
        """An example after a transformation, and its mask, a weight for each of its numbers."""
        sample = self.samples[frame.example]
        ways = alike([found.apply for found in self.entries.values()], sample)
        moved, mask = jax.lax.switch(frame.which, ways, sample, frame.amount)
        return moved, jnp.broadcast_to(spread(mask, sample), sample.shape)

    def ranges(self, dataset: Dataset, seed: int) -> Float[Array, "f"]:
        """Width of the central 98% of each attribute over the transformed examples."""
        del dataset, seed
        assert self.survey is not None
        return self.survey.ranges

    def held_out(self) -> "TransformedSamples":
        """The same of examples that are not learnt from."""
        return replace(self, rows=self.unseen)

    @property
    def damping(self) -> float:
        """Of a Gauss-Newton step: of images one squared pixel, as usual.

        Of other samples, which have any unit, as large a share of what differs between two of them
        as that is between images: a hundredth of the sum of their variances.
        """
        if plots.are_pictures(self.samples.shape[1:]):
            return super().damping
        variance = float(jnp.sum(jnp.var(self.samples, axis=0)))
        return max(0.01 * variance, float(jnp.finfo(jnp.float32).tiny))


def check_transformations(names: Sequence[str], generator: FrozenGenerator, seed: int) -> None:
    """Reject what cannot be done to the samples of a generator, or not be measured on them.

    Raises:
        UsageError: a transformation is not for such samples, or nothing shows what it does.
        ValueError: there is none of that name.
    """
    for name in names:
        _check_factor(name, entry(name))
        if not is_named(name):
            _check_shape(name, generator)
    if own := [name for name in names if is_named(name)]:
        sample = sample_of(generator, seed)
        for name in own:
            check_transformation(f"--sequences.factors {name}", name, sample, entry(name).reach)


def _check_factor(name: str, found: Entry) -> None:
    if found.factor is None and name in ENTRIES:
        able = ", ".join(other for other, of in ENTRIES.items() if of.factor is not None)
        raise UsageError(
            f"--sequences.factors {name}: nothing is known that shows how far it got, so a flow "
            f"that is taught it could not be measured; name some of {able}, or a function of your "
            f"own that is registered with a factor: {EXAMPLE}"
        )
    if found.factor is None:
        raise UsageError(
            f"--sequences.factors {name} is registered with no factor that shows how far it got; "
            f"decorate it with {EXAMPLE}"
        )


def _check_shape(name: str, generator: FrozenGenerator) -> None:
    """Rejects samples of which a transformation of the library says nothing."""
    shape, told = generator.event_shape, f"--sequences.factors {name}"
    if not plots.are_pictures(shape):
        raise UsageError(
            f"{told} transforms images [height, width, channels], and {generator.name} makes "
            f"samples of shape {shape}; name a function of your own, file.py:function, that is "
            f"decorated with {EXAMPLE}"
        )
    sample = jax.ShapeDtypeStruct(shape, jnp.float32)
    try:
        jax.eval_shape(entry(name).apply, sample, jax.ShapeDtypeStruct((), jnp.float32))
    except ValueError as error:
        raise UsageError(f"{told}: {error}") from None


def transformed_samples(
    names: Sequence[str],
    generator: FrozenGenerator,
    train: Dataset,
    test: Dataset,
    *,
    counts: tuple[int, int],
    seed: int,
) -> TransformedSamples:
    """Examples of data under some transformations, which are tried on them.

    Args:
        names: of the transformations, all of them checked.
        generator: on whose data.
        train: what to learn from.
        test: what held-out sequences are made of.
        counts: sequences of each of these, and so many examples at most.
        seed: which examples.

    Raises:
        UsageError: a transformation changes an example by nothing, or makes no numbers of it, or
            does not change what should show it.
    """
    entries = {name: entry(name) for name in names}
    bytes_each = 4 * int(np.prod(generator.event_shape))
    most = max(MOST // 2 // bytes_each, 1)
    parts = []
    for dataset, count in zip((train, test), counts, strict=True):
        chosen = np.random.default_rng(seed).permutation(dataset.length)[: min(count, most)]
        parts.append(jnp.asarray(dataset.examples(chosen)["image"], jnp.float32))
    measures, seen = _measures(generator, entries)
    ends = len(parts[0]), len(parts[0]) + len(parts[1])
    samples = jnp.concatenate(parts)
    known = TransformedSamples(
        measures, entries, seen, samples, range(ends[0]), range(ends[0], ends[1])
    )
    return replace(known, survey=_survey(known))


def _measures(
    generator: FrozenGenerator, entries: Mapping[str, Entry]
) -> tuple[Measures, dict[str, ImageFactor]]:
    """What is measured on samples: of images what is of all such, and the factors asked for."""
    factors = {name: found.factor for name, found in entries.items() if found.factor is not None}
    # Only of grey and colour, perhaps with alpha, position and light mean something.
    shape = generator.event_shape
    if not shows_light(shape):
        return Measures(tuple(dict.fromkeys(factors.values())), _is_finite), factors
    usual = data.measures(generator.dataset)
    seen = {name: usual.best((factor,))[0] for name, factor in factors.items()}
    together = tuple(dict.fromkeys((*usual.factors, *seen.values())))
    return usual._replace(factors=together), seen


def _is_finite(sample: Array) -> Bool[Array, ""]:
    return jnp.isfinite(sample).all()


def _survey(known: TransformedSamples) -> Survey:
    """Try every transformation on examples.

    Raises:
        UsageError: one does not what a transformation should.
    """
    count = min(SURVEYED, len(known.rows))
    shape = len(known.entries), count, len(AMOUNTS)
    which, example, place = (part.ravel() for part in np.indices(shape))
    reaches = np.array([found.reach for found in known.entries.values()])
    amount = reaches[which] * np.array(AMOUNTS)[place]
    frames = Frame(*map(jnp.asarray, (example, which, amount.astype(np.float32))))

    def look(frame: Frame) -> tuple[Array, ...]:
        sample, _ = known.render(frame)
        return known.measure(sample), jnp.isfinite(sample).all()

    values, is_finite = (
        np.asarray(part).reshape(*shape, *part.shape[1:]) for part in in_chunks(look)(frames)
    )
    own = known.own([*known.entries])
    for k, (name, found) in enumerate(known.entries.items()):
        told, factor = f"--sequences.factors {name}", known.measures.factors[own[k]].name
        if not is_finite[k].all():
            raise UsageError(
                f"{told} makes numbers that are not finite of the data, for t from -{found.reach} "
                f"to {found.reach}; mend it, or register it with a smaller reach"
            )
        if not np.isfinite(values[k, ..., own[k]]).all():
            raise UsageError(
                f"{told}: the measure of its factor {factor!r} is not finite on the data, for t "
                f"from -{found.reach} to {found.reach}; mend it, such that it is of any sample"
            )
    low, high = np.quantile(values.reshape(-1, values.shape[-1]), [0.01, 0.99], axis=0)
    size = np.maximum(np.abs(values).reshape(-1, values.shape[-1]).max(0), 1e-30)
    ranges = np.where(high - low > STILL * size, high - low, np.inf)
    passed = np.asarray(known.changes(jnp.asarray(values)))
    far = np.abs(passed / ranges).mean((1, 2))
    for k, name in enumerate(known.entries):
        if not far[k, own[k]] > STILL:
            factor = known.measures.factors[own[k]].name
            raise UsageError(
                f"--sequences.factors {name} does not change its factor {factor!r} on the data, so "
                "there is nothing to teach; mend its measure, or register it with a larger reach"
            )
    others = far < LEFT_ALONE * far[np.arange(len(own)), own][:, None]
    return Survey(jnp.asarray(ranges, jnp.float32), others.astype(float))

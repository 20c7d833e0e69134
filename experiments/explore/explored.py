"""What is explored: a generator, codes of its data, and all that moves and measures its latents."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.explore import sliders
from experiments.explore.control import Control
from experiments.explore.moves import Combined, combined
from experiments.explore.plane import Plane, frame_of
from experiments.explore.sliders import Learnt
from experiments.generators.training_data import encoded, load_data, shown
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from latent_flows import data, plots
from latent_flows.coordinates import AffineCoordinates
from latent_flows.data import Dataset, ImageFactor
from latent_flows.generators import (
    FrozenGenerator,
    GeneratorSpec,
    draw_latents,
    load_generator,
    stored,
)
from latent_flows.generators.load import GENERATOR, is_function, reference
from latent_flows.generators.style_layers import layer_numbers
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.geometry.metrics import pullback
from latent_flows.typing import Generator, Latent, Metric, Scalar

SAMPLES = 64
"""Samples that say between which values numbers are drawn, where they are no pictures."""


class Codes(NamedTuple):
    """Latents of data, or draws of the prior where there is no encoder."""

    latents: Float[np.ndarray, "n d"]
    colours: Mapping[str, Float[np.ndarray, "n"]]
    """By what they may be coloured: labels, factors."""
    names: tuple[str, ...] = ()
    """What labels 0, 1, ... are called."""
    are_data: bool = False
    """Whether they are codes of data."""
    numbers: Int[np.ndarray, "n"] | None = None
    """Which examples these are."""


class Seen(NamedTuple):
    """A latent that was moved, and what it looks like."""

    latent: Float[np.ndarray, "d"]
    sample: Float[np.ndarray, "..."]
    factors: Float[np.ndarray, "f"]
    """What is measured on a picture."""
    missing: Float[np.ndarray, "k"]
    """The share of each slider's amount that the generator could not do."""


@dataclass(frozen=True, eq=False)
class Explored:
    """Shared by all tabs, and never changed by one."""

    name: str
    """What the run is called."""
    identity: str
    """That no other run has."""
    generator: FrozenGenerator
    learnt: Learnt
    codes: Codes
    dataset: Dataset | None = None
    seed: int = 0
    layers: int = 0
    """Layers that have a part of a latent each, one after the other; 0: no such."""
    classes: int = 0
    """Classes that the generator can be told to make; 0: none."""
    relabel: Callable[[int], FrozenGenerator] | None = None
    """The generator of another class."""
    classes_are_drawn: bool = False
    """Whether latents are drawn of a class, and what is made of them is not told of it again."""
    drawn_to: Float[np.ndarray, "d"] | None = None
    """The latent that truncation draws others to, where that is not the middle of the prior."""
    _frames: dict[str, AffineCoordinates] = field(default_factory=dict)

    @cached_property
    def is_picture(self) -> bool:
        """Whether samples are looked at as pictures."""
        return plots.are_pictures(self.generator.event_shape)

    @cached_property
    def factors(self) -> tuple[ImageFactor, ...]:
        """What is measured on a sample; nothing where it is no picture."""
        return data.measures(self.generator.dataset).factors if self.is_picture else ()

    @cached_property
    def controls(self) -> tuple[Control, ...]:
        """All sliders."""
        return tuple(control for part in self.learnt.parts for control in part.controls)

    @cached_property
    def shows_axes(self) -> bool:
        """Whether the axes along which samples change most can be afforded."""
        return "visible" in self.learnt.frames or sliders.shows_axes(self.generator)

    @cached_property
    def range(self) -> tuple[float, float]:
        """Between which values the numbers of samples are drawn, where they are no pictures."""
        latents = jnp.asarray(self.codes.latents[:SAMPLES])
        made = np.asarray(jax.jit(jax.vmap(self.generator.decode))(latents))
        low, high = float(made.min()), float(made.max())
        return low, high if high > low else low + 1.0

    @cached_property
    def _move(self) -> Combined:
        return combined(self.learnt.parts)

    @cached_property
    def _shown(self) -> Callable[..., Any]:
        factors = self.factors

        @jax.jit
        def shown(
            generator: Generator,
            base: Latent,
            moved: Latent,
            mask: Latent,
            middle: Latent,
            truncation: Scalar,
        ) -> tuple[Array, Array, Array]:
            z = middle + truncation * (base + mask * (moved - base) - middle)
            sample = generator(z)
            found = [factor.measure(sample) for factor in factors]
            return z, sample, jnp.stack(found) if found else jnp.zeros(0)

        return shown

    def at(
        self,
        base: Float[np.ndarray, "d"],
        amounts: Sequence[float] | Float[np.ndarray, "k"],
        *,
        mask: Float[np.ndarray, "d"] | None = None,
        truncation: float = 1.0,
        generator: FrozenGenerator | None = None,
    ) -> Seen:
        """A latent after all sliders, and its sample.

        Args:
            base: where the sliders start.
            amounts: of each.
            mask: of the numbers of a latent that they move; by default all.
            truncation: of the distance from the middle.
            generator: another of the same latents.
        """
        decode = (generator or self.generator).decode
        moved, missing = self._move(decode, np.asarray(amounts), base)
        mask = np.ones_like(base) if mask is None else mask
        found = self._shown(decode, base, moved, mask, self.middle, np.float32(truncation))
        latent, sample, factors = map(np.asarray, found)
        return Seen(latent, sample, factors, missing)

    def of_class(self, label: int | None) -> FrozenGenerator:
        """The generator, told to make a class.

        Raises:
            ValueError: there is no such class.
        """
        if label is None:
            return self.generator
        if self.relabel is None or not 0 <= label < self.classes:
            raise ValueError(f"there are {self.classes} classes, none of them {label}")
        return self.relabel(label)

    def warm(self) -> None:
        """Compiles what every page needs first."""
        self.at(self.codes.latents[0], np.zeros(len(self.controls)))

    def warm_sliders(self) -> Iterator[None]:
        """Compiles what each slider needs, one after the other."""
        start = 0
        for part in self.learnt.parts:
            amounts = np.zeros(len(self.controls))
            amounts[start] = 1e-3
            start += len(part.controls)
            self.at(self.codes.latents[0], amounts)
            yield

    @cached_property
    def middle(self) -> Float[np.ndarray, "d"]:
        """The latent that truncation draws others to: the mean of typical ones."""
        latents = self.codes.latents
        if self.drawn_to is not None:
            return self.drawn_to
        return latents.mean(0) if self.codes.are_data else np.zeros_like(latents[0])

    def decode(
        self, latents: Float[np.ndarray, "n d"], generator: FrozenGenerator | None = None
    ) -> Float[np.ndarray, "n ..."]:
        """The samples of some latents as they are."""
        return np.asarray(_decoded((generator or self.generator).decode, jnp.asarray(latents)))

    def frame(self, kind: str, pins: Float[np.ndarray, "p d"] | None = None) -> AffineCoordinates:
        """The axes of a kind, found when they are first asked for.

        Raises:
            ValueError: there are none.
        """
        if kind == "pinned":
            return frame_of(kind, self.generator, self.codes.latents, None, pins)
        if kind in self.learnt.frames:
            return self.learnt.frames[kind]
        if kind not in self._frames:
            codes = self.codes.latents if self.codes.are_data else None
            self._frames[kind] = frame_of(kind, self.generator, self.codes.latents, codes)
        return self._frames[kind]

    def plane(
        self,
        kind: str,
        first: int,
        second: int,
        anchor: Float[np.ndarray, "d"],
        pins: Float[np.ndarray, "p d"] | None = None,
    ) -> Plane:
        """The plane of two axes of a kind through a latent.

        Raises:
            ValueError: there are no such axes, or they are one.
        """
        frame = self.frame(kind, pins)
        count = frame.basis.shape[1]
        if not (0 <= first < count and 0 <= second < count) or first == second:
            raise ValueError(
                f"a plane needs two different axes below {count}, got {first} and {second}"
            )
        anchor = np.asarray(frame.origin, np.float32) if kind == "pinned" else anchor
        return Plane(anchor, frame, first, second)

    def drawn(self, number: int, label: int | None = None) -> Float[np.ndarray, "d"]:
        """The draw of the prior with a number, of a class where latents have one."""
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        return np.asarray(self.of_class(label).prior(key), np.float32)

    def code(self, number: int) -> Float[np.ndarray, "d"]:
        """The code of an example of the data.

        Raises:
            ValueError: there is no encoder, or no such example.
        """
        if self.dataset is None or self.generator.encode is None:
            raise ValueError(f"{self.generator.name} has no codes of data")
        if not 0 <= number < self.dataset.length:
            raise ValueError(f"examples are numbered from 0 to {self.dataset.length - 1}")
        image = jnp.asarray(self.dataset.examples(np.array([number]))["image"])
        return np.asarray(encoded(self.generator, image)[0][0], np.float32)


def metric_of(generator: FrozenGenerator) -> Metric:
    """The metric of a generator, with the deviation of its noise where that grows off the data."""
    return pullback(partial(immersed, generator))


def immersed(generator: FrozenGenerator, z: Latent) -> Float[Array, "n"]:
    """A latent as a point of the space that the metric of a generator is measured in."""
    sample = generator.decode(z).ravel()
    if (std := generator.noise_std.get("rbf")) is None:
        return sample
    return jnp.concatenate([sample, std(z).ravel()])


@jax.jit
def _decoded(decode: Generator, latents: Float[Array, "n d"]) -> Array:
    return jax.lax.map(decode, latents)


def load_explored(
    name: str,
    run: str,
    generator: FrozenGenerator,
    spec: GeneratorSpec | None = None,
    *,
    codes: int,
    seed: int,
) -> Explored:
    """Everything that the explorer shows of a run.

    Args:
        name: what it is called.
        run: its folder; empty for a generator alone.
        generator: that it is about.
        spec: by which it was loaded.
        codes: examples of its data that the map shows.
        seed: which examples, and draws.

    Raises:
        UsageError: the run is not finished.
    """
    found = sliders.read(run, generator) if run else Learnt(sliders.usual_steering(generator))
    dataset = _dataset(generator)
    with announced("encoding data" if generator.encode is not None else "drawing latents"):
        points = _codes(generator, dataset, codes, seed)
    with announced("finding the axes that change samples most"):
        visible = sliders.visible_axes(generator, points.latents)
    axes = sliders.axes(generator, points.latents, visible)
    known = {} if visible is None else {"visible": visible}
    found = found._replace(parts=(*found.parts, axes), frames={**known, **found.frames})
    identity = _identity(generator, found, run)
    explored = Explored(name, identity, generator, found, points, dataset, seed)
    return explored if spec is None else _told(explored, spec)


def _told(explored: Explored, spec: GeneratorSpec) -> Explored:
    """With what a generator of layers, or of classes, can be told besides."""
    if explored.generator.encode is not None or is_function(spec.path):
        return explored
    resolved = GeneratorSpec(**reference(spec, explored.seed, Path.cwd())["spec"])
    place = Path(resolved.path)
    kept = stored.read(place / GENERATOR if place.is_dir() else place)
    net, has_styles = kept.net, isinstance(kept.net, StyleGAN2) and resolved.space != "z"
    if has_styles:
        mean = np.asarray(kept.variables["statistics"]["mean_w"], np.float32)
        means = np.broadcast_to(mean, (net.style_count, net.style_width))
        if resolved.layers:
            means = means[[*layer_numbers(resolved.layers, net.style_count)]]
        if resolved.space == "w+":
            explored = replace(explored, layers=len(means), drawn_to=means.ravel())
        else:
            explored = replace(explored, drawn_to=means.mean(0))
    if not (classes := getattr(net, "classes", 0)):
        return explored

    @lru_cache(maxsize=4)
    def relabel(label: int) -> FrozenGenerator:
        made = load_generator(replace(resolved, label=label), seed=explored.seed)
        # Where the class is in the latent, what is made of it is compiled already.
        return replace(explored.generator, prior=made.prior) if has_styles else made

    return replace(explored, classes=classes, relabel=relabel, classes_are_drawn=has_styles)


def _dataset(generator: FrozenGenerator) -> Dataset | None:
    """The data, if they are there: without them there are no codes, and that is all."""
    if generator.dataset is None or generator.encode is None:
        return None
    try:
        return load_data(generator, "train")
    except (UsageError, ValueError, OSError) as error:
        print(f"warning: no codes of data are shown: {' '.join(str(error).split())}", flush=True)
        return None


def _codes(generator: FrozenGenerator, dataset: Dataset | None, count: int, seed: int) -> Codes:
    if dataset is None or generator.encode is None:
        drawn = draw_latents(generator.prior, jax.random.key(seed), count)
        return Codes(np.asarray(drawn, np.float32), {})
    chosen = np.random.default_rng(seed).permutation(dataset.length)[:count]
    examples = dataset.examples(chosen)
    latents = np.asarray(encoded(generator, shown(generator, dataset, chosen, seed))[0])
    colours: dict[str, np.ndarray] = {}
    if "label" in examples:
        colours["label"] = np.asarray(examples["label"])
    if "factors" in examples:
        found = examples["factors"]
        names = data.measures(dataset.name).true_factors or dataset.factor_names
        columns = np.asarray(found).T if isinstance(found, np.ndarray) else found
        colours |= {n: _classes(column) for n, column in zip(names, columns, strict=False)}
    return Codes(latents, colours, dataset.label_names, True, chosen)


def _classes(column: Any) -> np.ndarray:
    """Whole numbers as such: then they are classes, with a colour each."""
    found = np.asarray(column)
    rounded = np.round(found)
    is_whole = np.array_equal(found, rounded) and np.abs(rounded).max(initial=0) < 2**31
    return rounded.astype(np.int64) if is_whole else found


def _identity(generator: FrozenGenerator, found: Learnt, run: str) -> str:
    """A word for a run that stays the same where it is moved, and differs from any other's."""
    digest = hashlib.blake2b(digest_size=9)
    for leaf in jax.tree.leaves(generator):
        if isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            digest.update(np.ascontiguousarray(leaf).tobytes())
    names = [control.name for part in found.parts for control in part.controls]
    about: list[Any] = [generator.latent_dim, generator.event_shape, names]
    if run:
        from experiments.runtime.run_dir import read_header

        header = read_header(run)
        about += [header["experiment"], header["config"]]
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()

"""The pictures of directions: traversals, asked against measured change, ways of inversion."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.directions.config import Config, reach, visible
from experiments.directions.learn import LINEAR, NONLINEAR, ONE_SHOT
from experiments.directions.scores import place_of
from experiments.directions.subject import Subject
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from latent_flows import directions, plots
from latent_flows._named_function import label
from latent_flows._transforms import vmap_chunked
from latent_flows.data.image_factors import measure, shows_light
from latent_flows.directions import transformations
from latent_flows.directions.model import FittedDirection
from latent_flows.directions.trajectories import Trajectories
from latent_flows.evaluation.image_control import decode as decode_latents
from latent_flows.typing import Generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAST = "inversions.png"
"""The file that is written last."""
COLUMNS = 9
"""Images of a row of a traversal."""
EXAMPLES = 2
"""Starts whose traversals are shown."""


def draw(
    folder: Folder,
    config: Config,
    subject: Subject,
    found: Mapping[str, Mapping[str, Trajectories]],
    models: Mapping[str, Mapping[str, FittedDirection]],
    asked: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Save every picture of a run; gives the files of those that could not be drawn."""
    figures: dict[str, Callable[[], Figure]] = {
        f"traversals_{label(kind)}": partial(traversals, config, subject, kind, models)
        for kind in config.transformations
    }
    if asked:
        figures["control"] = lambda: plots.asked_against_measured(
            [{name: curves[name] for name in (LINEAR, NONLINEAR)} for curves in asked.values()],
            titles=[*map(label, asked)],
            units=[subject.factors[place_of(config, subject, kind)].unit for kind in asked],
            trained=[reach(config)[kind] for kind in asked],
            caption=(
                f"{subject.name}: change of a factor that was asked of held-out latents and change "
                "measured on the samples, with bands of one deviation. Between the dotted lines "
                "lie the changes that the directions were fitted to."
            ),
        )
    losses = [*map(label, config.losses)]
    first = losses[0]
    if len(losses) > 1:
        figures["losses"] = partial(
            inversions,
            config,
            subject,
            {name: found[name] for name in losses},
            "Ends of trajectories, at the largest |t| on either side, for each loss.",
        )
    ways = {"in small steps": found[first], ONE_SHOT: found[ONE_SHOT]}
    figures[LAST.removesuffix(".png")] = partial(
        inversions,
        config,
        subject,
        ways,
        "Ends of trajectories, at the largest |t| on either side: each descent started from the "
        f"result of the one before, or from the first sample ({first} loss).",
    )
    return tables.save_figures(folder, figures)


def is_drawn(folder: Folder, config: Config) -> bool:
    """Whether nothing is left to do in a run: the last picture is drawn after everything else."""
    names = [LAST, *(f"traversals_{label(kind)}.png" for kind in config.transformations)]
    names += ["control.png"] if visible(config) and config.measure else []
    names += ["losses.png"] if len(config.losses) > 1 else []
    return all((folder.path / name).exists() for name in names)


def draw_from(
    folder: Folder,
    config: Config,
    subject: Subject,
    models: Mapping[str, Mapping[str, FittedDirection]],
    zs: Float[Array, "n d"],
) -> list[str]:
    """Save the pictures that begin at latents of one's own, called after their file."""
    stem = Path(config.latent).stem
    figures = {
        f"traversals_{label(kind)}_{stem}": partial(
            traversals, config, subject, kind, models, zs, f"the latents of {stem}"
        )
        for kind in config.transformations
    }
    return tables.save_figures(folder, figures)


def traversals(
    config: Config,
    subject: Subject,
    kind: str,
    models: Mapping[str, Mapping[str, FittedDirection]],
    zs: Float[Array, "n d"] | None = None,
    whose: str = "held-out latents",
) -> "Figure":
    """The transformed sample itself, and what the directions make of its latent."""
    amounts = jnp.linspace(-1.0, 1.0, COLUMNS) * reach(config)[kind]
    zs = subject.held_out[central(subject)[:EXAMPLES]] if zs is None else zs
    rows, labels = [], []
    for z in zs:
        image = subject.generator(z)
        rows.append(transformed(kind, image, amounts))
        labels.append("transformed")
        for method in (LINEAR, NONLINEAR):
            rows.append(_moved(subject.generator, models[method][kind], z, amounts))
            labels.append(method)
    name = label(kind)
    return paths(
        np.asarray(jnp.stack(rows)),
        amounts=np.asarray(amounts),
        row_labels=labels,
        axis=f"t ({name})",
        caption=(
            f"{subject.name}, {name}: samples of {whose}, transformed (what is unknown is grey, or "
            "left out), and with their latents moved along the directions. The start is marked."
        ),
        names=subject.names,
    )


def paths(
    samples: Float[np.ndarray, "k t *event"],
    *,
    amounts: Float[np.ndarray, "t"],
    row_labels: Sequence[str],
    axis: str,
    caption: str,
    names: Sequence[str] = (),
) -> "Figure":
    """One row a path: images as such, and all else as lines of its numbers, or bars.

    Args:
        samples: of any event shape.
        amounts: along the paths.
        row_labels: names of the paths.
        axis: what the amounts are.
        caption: what is seen.
        names: of the numbers of what is no image.
    """
    shape = samples.shape[2:]
    caption = " ".join(filter(None, [caption, plots.how_drawn(shape)]))
    if not plots.are_pictures(shape):
        return plots.vector_traversals(
            samples,
            places=amounts,
            row_labels=row_labels,
            axis=axis,
            caption=caption,
            names=names,
        )
    return plots.traversal_grid(
        plots.sample_pictures(samples, shape),
        times=amounts,
        row_labels=row_labels,
        axis=axis,
        caption=caption,
    )


def central(subject: Subject) -> Int[np.ndarray, "m"]:
    """Which held-out latents have factors nearest to the middle of their ranges, these first."""
    look = partial(measure, subject.factors)
    values = np.asarray(
        jax.jit(lambda g, zs: vmap_chunked(lambda z: look(g(z)), 32)(zs))(
            subject.generator, subject.held_out
        )
    )
    middle, half = (subject.high + subject.low) / 2, (subject.high - subject.low) / 2
    off = np.max(np.abs(values - middle) / np.maximum(half, 1e-6), axis=1, initial=0.0)
    return np.argsort(off, kind="stable")


def transformed(
    kind: str, sample: Float[Array, "*event"], amounts: Float[Array, "a"]
) -> Float[Array, "a *event"]:
    """Copies of a sample: of light, grey where they are not known; of all else, nothing there."""
    unknown = 0.5 if shows_light(sample.shape) else jnp.nan
    apply = partial(transformations.transformed, directions.transformation(kind), sample)

    def one(t: Array) -> Array:
        after, mask = apply(t)
        return jnp.where(transformations.spread(mask, after) > 0, after, unknown)

    return jax.vmap(one)(amounts)


@jax.jit
def _moved(generator: Generator, model: FittedDirection, z: Array, amounts: Array) -> Array:
    shift = partial(directions.shift, model, z, extrapolate=True)
    return jax.vmap(lambda dt: generator(shift(dt)))(amounts)


def inversions(
    config: Config,
    subject: Subject,
    ways: Mapping[str, Mapping[str, Trajectories]],
    caption: str,
    shown: int = 3,
) -> "Figure":
    """Targets at both ends of some trajectories, and what each way of inversion made of them."""
    decode = partial(decode_latents, subject.generator)
    centre, places = subject.held_out[central(subject)[0]], jnp.array([0, -1])
    rows, labels = [], []
    for kind in config.transformations:
        first = next(iter(ways.values()))[kind]
        distances = jnp.linalg.norm(first.z0 - centre, axis=1)
        chosen = jnp.argsort(distances)[:shown]
        before = decode(first.z0[chosen])
        targets = jax.vmap(partial(transformed, kind), (0, None))(before, first.ts[places])
        rows.append(_between(before, targets))
        labels.append(f"{label(kind)}: targets")
        for name, found in ways.items():
            ends = found[kind].zs[chosen][:, places]
            made = decode(ends.reshape(-1, ends.shape[-1]))
            rows.append(_between(before, made.reshape(-1, 2, *before.shape[1:])))
            labels.append(name)
    samples, shape = np.asarray(jnp.stack(rows)), subject.event_shape
    if not plots.are_pictures(shape):
        return paths(
            samples[:, 0],
            amounts=np.array([-1.0, 0.0, 1.0]),
            row_labels=labels,
            axis="t, in units of the largest",
            caption=f"{caption} One start.",
            names=subject.names,
        )
    strips = samples.reshape(len(samples), -1, *shape)
    return plots.strips(
        plots.sample_pictures(strips, shape),
        row_labels=labels,
        axis="smallest t, start, largest t; for each of several starts",
        caption=" ".join(filter(None, [caption, plots.how_drawn(shape)])),
    )


def _between(
    before: Float[Array, "n *event"], ends: Float[Array, "n 2 *event"]
) -> Float[Array, "n 3 *event"]:
    """Each start between its two ends."""
    return jnp.stack([ends[:, 0], before, ends[:, 1]], axis=1)

"""What other runs have learnt about the same generator, led beside steering.

Whatever moves latents for a time is a candidate: flows of potentials, warps, lines, directions. Of
each run, and of each transformation, that one counts which explains the measured change best over
training latents, told its slope by ground truth: as the straight baselines are.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.directions.learn import LINEAR, NONLINEAR, file_name
from experiments.directions.subject import Subject
from experiments.generators.spec import of_run
from experiments.learnt import reader
from experiments.learnt.factors import Fitted
from experiments.learnt.flows import Followed
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder
from experiments.steer.config import Config
from experiments.steer.scores import BATCH, Led
from latent_flows import export, traversals
from latent_flows.evaluation.image_control import FOLLOWED, explained
from latent_flows.generators import FrozenGenerator
from latent_flows.traversals import Motion

FARTHEST = 4.0
"""How far a way is followed, in units of how far it was learnt."""
LEAST = 1e-6
"""Change of a factor over all of a way below which it has no slope."""


class Candidates(NamedTuple):
    """Ways that were learnt together, of which the best by ground truth is taken."""

    name: str
    """What they are, in tables."""
    move: Motion
    numbers: tuple[int, ...]
    """Which of the motion's."""
    spans: tuple[float, ...]
    """How far each was learnt, in the motion's unit."""

    def way(self, number: Array, z: Array, amounts: Float[Array, "1"]) -> Array:
        """A latent moved by one of them."""
        return self.move(number, amounts[0], z)


def read(config: Config, generator: FrozenGenerator) -> list[Candidates]:
    """What the runs of `--compare` have learnt.

    Raises:
        UsageError: one is not finished, has learnt nothing that moves latents, or is about another
            generator.
    """
    found = []
    for run in config.compare:
        _check_same(run, of_run(run), generator)
        with announced(f"reading what {run} has learnt"):
            learnt = reader.read(run, generator)
        if isinstance(learnt, Followed):
            move = traversals.motion(learnt.field, learnt.members, learnt.frame)
            count = len(learnt.names)
            spans = (learnt.horizon,) * count
            found.append(Candidates(learnt.what, move, tuple(range(count)), spans))
        elif isinstance(learnt, Fitted):
            move, names = export.motion(learnt.learnt), learnt.learnt.names
            half = len(names) // 2
            for first, kind in ((0, LINEAR), (half, NONLINEAR)):
                numbers = tuple(range(first, first + half))
                reaches = tuple(learnt.limits[names[number]] for number in numbers)
                found.append(Candidates(f"{kind} directions", move, numbers, reaches))
        else:
            raise UsageError(
                f"--compare {run}: there is nothing in it that was learnt and moves latents; name "
                "runs of potential_flows, guided, flow_vae or directions"
            )
    return _told_apart(found)


def _told_apart(found: list[Candidates]) -> list[Candidates]:
    """The same with different names: where two would have one, all have a number."""
    names = [each.name for each in found]
    if len(set(names)) == len(names):
        return found
    return [each._replace(name=f"{each.name} {i + 1}") for i, each in enumerate(found)]


def _check_same(run: str, other: FrozenGenerator, generator: FrozenGenerator) -> None:
    """Rejects a run about another generator.

    Raises:
        UsageError: it is.
    """
    same = (other.latent_dim, other.event_shape) == (generator.latent_dim, generator.event_shape)
    if same:
        z = jax.random.normal(jax.random.key(0), (generator.latent_dim,))
        image, own = (np.asarray(jax.jit(one.decode)(z)) for one in (other, generator))
        same = np.allclose(image, own, rtol=1e-3, atol=1e-3)
    if not same:
        raise UsageError(
            f"--compare {run} is about another generator ({other.name}); only what was learnt on "
            "the one that is steered can be led beside it"
        )


def led(
    folder: Folder,
    subject: Subject,
    found: Sequence[Candidates],
    places: Mapping[str, int],
    amounts: Mapping[str, Float[np.ndarray, "a"]],
    word: str,
) -> dict[str, dict[str, Led]]:
    """By what is changed and by what was compared, where held-out latents are led.

    Args:
        folder: where it is kept.
        subject: the generator, and what is measured.
        found: of `read`.
        places: which of the measured factors each name changes.
        amounts: the changes that are asked for, by name.
        word: what the names are, in files.
    """
    rows: dict[str, dict[str, Led]] = {name: {} for name in places}
    for each in found if places else ():
        kept = folder.remember(
            f"latents/compared_{word}_{file_name(each.name)}",
            partial(_found, subject, each, places, amounts),
        )
        for name in places:
            rows[name][f"learnt: {each.name}"] = Led(np.array(kept[name]["zs"], np.float32), None)
    return rows


def _found(
    subject: Subject,
    each: Candidates,
    places: Mapping[str, int],
    amounts: Mapping[str, Float[np.ndarray, "a"]],
) -> dict[str, Any]:
    with announced(f"following {each.name} to see what they change"):
        steps = np.linspace(-1, 1, FOLLOWED)
        seen = [
            explained(subject, each.way, jnp.asarray(number), span * steps)
            for number, span in zip(each.numbers, each.spans, strict=True)
        ]
    slopes, shares = (np.stack(column) for column in zip(*seen, strict=True))
    best = {}
    for name, own in places.items():
        # A path that came to nothing finite explains nothing.
        at = int(np.argmax(np.nan_to_num(shares[:, own], nan=-np.inf)))
        slope, limit = float(slopes[at, own]), FARTHEST * each.spans[at]
        if abs(slope) * each.spans[at] > LEAST:
            times = np.clip(amounts[name] / slope, -limit, limit)
        else:
            times = np.zeros_like(amounts[name])
        zs = _moved(each.way, jnp.asarray(each.numbers[at]), subject.held_out, jnp.asarray(times))
        best[name] = {
            "which": each.numbers[at],
            "slope": slope,
            "explained": float(shares[at, own]),
            "zs": np.asarray(zs),
        }
    return best


@partial(jax.jit, static_argnames="way")
def _moved(way: Callable, number: Array, starts: Float[Array, "n d"], times: Array) -> Array:
    times = times.astype(starts.dtype)

    def one(z: Array) -> Array:
        return jax.vmap(lambda t: way(number, z, t[None]))(times)

    return jax.lax.map(one, starts, batch_size=BATCH)

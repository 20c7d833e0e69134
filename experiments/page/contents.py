"""What a page shows of a run: the samples of every way to move, ahead of time, and its tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from experiments.directions import config as direction_config
from experiments.directions import scores as direction_scores
from experiments.directions.figures import central
from experiments.directions.subject import load_images, subject_of
from experiments.generators.spec import of_run
from experiments.generators.style_mixing import mixing
from experiments.inversion.latent_file import read_latents
from experiments.learnt.factors import Fitted, Steered
from experiments.learnt.flows import METRICS, Followed, Tables
from experiments.learnt.reader import READERS, read
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Folder, made_by
from experiments.steer import scores as steer_scores
from experiments.steer.scores import lead
from latent_flows import coordinates
from latent_flows._named_function import label
from latent_flows._transforms import closure_convert_at, in_chunks
from latent_flows.directions.model import DirectionModel
from latent_flows.evaluation.traversals import both_ways
from latent_flows.export import motion
from latent_flows.generators import FrozenGenerator
from latent_flows.typing import Latent


class Move(NamedTuple):
    """One way to move, for a slider."""

    name: str
    unit: str
    """Of its places."""
    places: Float[np.ndarray, "frames"]
    """Increasing, with 0 in the middle."""
    group: str = ""
    """What it is one of."""


class Contents(NamedTuple):
    """All that is on a page."""

    title: str
    about: str
    """One sentence: what moves what."""
    frozen: FrozenGenerator
    moves: Sequence[Move]
    starts: Sequence[str]
    """Names of the samples that are moved."""
    samples: Float[np.ndarray, "starts moves frames *event"]
    missing: Float[np.ndarray, "starts moves frames"] | None
    """The share of a change that is missing there, where that is known."""
    tables: Tables


class Wish(NamedTuple):
    """How much of a run shall be on the page."""

    starts: int
    """Samples that are moved."""
    side: int
    """Frames on each side of a start."""
    latent: str
    """File of latents to start from instead."""
    first: int = 0
    """Which sample is the first of them, counted from 0."""
    stretch: float = 1.0
    """How far they are moved, in units of what the run was made for."""
    layers: str = ""
    """Layers of a StyleGAN2 that are moved, such as 2-4; empty: all."""


class Way(NamedTuple):
    """What a run learnt, as far as a page draws it."""

    about: str
    moves: Sequence[Move]
    starts: Sequence[str]
    frozen: FrozenGenerator
    follow: Callable[[int], tuple[np.ndarray, np.ndarray | None]]
    """From the number of a start to its samples `[moves, frames, *event]`, and what is missing."""
    tables: Tables


def contents(run: str, wish: Wish) -> Contents:
    """All that a page of a run shows.

    Raises:
        UsageError: there is no such run, it is unfinished, or there is nothing to move in it.
    """
    frozen = of_run(run) if made_by(run) in READERS else None
    decode = None if frozen is None else mixing(run, frozen, wish.layers)
    with announced(f"loading the run {run}"):
        moving = None if frozen is None else read(run, frozen)
    if frozen is None or decode is None or moving is None:
        names = ", ".join(name.rpartition(".")[2] for name in READERS)
        raise UsageError(
            f"{run} holds a run of {made_by(run)}, in which nothing moves: expected a run of "
            f"{names}"
        )
    if isinstance(moving, Followed):
        way = _flows(moving, frozen, decode, wish)
    elif isinstance(moving, Fitted):
        way = _directions(moving, run, frozen, decode, wish)
    else:
        way = _steered(moving, frozen, decode, wish)
    count = len(way.starts)
    if not count:
        raise UsageError(f"{run} has no start {wish.first}: lower --start")
    found, missing = [], []
    with progress("frames of the page", 0, count) as report:
        report(0, f"{len(way.moves)} ways to move")
        for place in range(count):
            samples, lost = way.follow(place)
            found.append(samples)
            missing.append(lost)
            report(place + 1, way.starts[place])
    known = [lost for lost in missing if lost is not None]
    return Contents(
        title=f"{Path(run).expanduser().absolute().name}: {way.frozen.name}",
        about=f"{way.about} Layers {wish.layers} alone are moved." if wish.layers else way.about,
        frozen=way.frozen,
        moves=way.moves,
        starts=way.starts,
        samples=np.stack(found),
        missing=np.stack(known) if known else None,
        tables={title: rows for title, rows in way.tables.items() if rows},
    )


def _own(wish: Wish, dim: int) -> tuple[Array, list[str]] | None:
    """Latents of a file, if one is named, and what to call them."""
    if not wish.latent:
        return None
    found = read_latents(wish.latent, dim, "--latent")
    name = Path(wish.latent).stem
    if wish.first >= len(found):
        raise UsageError(
            f"--latent {wish.latent} holds {len(found)} latents, of which --start {wish.first} is "
            "none"
        )
    names = [name] if len(found) == 1 else _numbered(len(found), name)
    chosen = _chosen(wish)
    return found[chosen], names[chosen]


def _chosen(wish: Wish) -> slice:
    return slice(wish.first, wish.first + wish.starts)


def _numbered(count: int, what: str) -> list[str]:
    return [f"{what} {k + 1}" for k in range(count)]


def _flows(found: Followed, frozen: FrozenGenerator, decode: Partial, wish: Wish) -> Way:
    if own := _own(wish, frozen.latent_dim):
        starts, names = own
    else:
        with announced("choosing where traversals start"):
            all_starts, word = found.starts(wish.first + wish.starts)
        chosen = _chosen(wish)
        starts, names = all_starts[chosen], _numbered(len(all_starts), word)[chosen]
    ts = jnp.linspace(0.0, found.horizon * wish.stretch, wish.side + 1)
    places = np.concatenate([-np.asarray(ts)[:0:-1], np.asarray(ts)])
    frame = found.frame

    def drawn(z0: Latent) -> Array:
        start = coordinates.from_latent(frame, z0)

        def generator(s: Array) -> Array:
            # What of a latent lies outside the frame's span stays.
            return decode(z0, z0 + frame.basis @ (s - start))

        return both_ways(generator, found.field, found.members, start, ts).samples

    # What it closes over is an argument of the program, which is one for all starts.
    paths = closure_convert_at(drawn, starts[0])
    solve = jax.jit(lambda paths, z0: paths(z0))

    def follow(place: int) -> tuple[np.ndarray, None]:
        return np.asarray(solve(paths, starts[place])), None

    return Way(
        f"Each slider follows one of {len(found.names)} {found.what} from the sample in the "
        "middle: forward to the right, reversed to the left.",
        [Move(f"Flow {name}", "time", places, "flows") for name in found.names],
        names,
        frozen,
        follow,
        found.tables(),
    )


def _directions(
    found: Fitted, run: str, frozen: FrozenGenerator, decode: Partial, wish: Wish
) -> Way:
    config, learnt, limits = found
    folder = Folder(Path(run).expanduser().absolute())
    starts, names = _held_out(config, frozen, wish)
    amounts = wish.stretch * np.linspace(-1, 1, 2 * wish.side + 1)
    moves = [
        Move(
            f"{name}, {'straight' if isinstance(model, DirectionModel) else 'curved'}",
            "t",
            amounts * limits[name],
            "directions",
        )
        for name, model in zip(learnt.names, learnt.models, strict=True)
    ]
    move = motion(learnt)

    @jax.jit
    def along(generator: Partial, k: Array, ts: Array, z: Array) -> Array:
        return jax.lax.map(lambda t: generator(z, move(k, t, z)), ts, batch_size=8)

    def follow(place: int) -> tuple[np.ndarray, None]:
        rows = [
            along(decode, jnp.int32(k), jnp.asarray(one.places, jnp.float32), starts[place])
            for k, one in enumerate(moves)
        ]
        return np.stack([np.asarray(row) for row in rows]), None

    metrics: Tables = {}
    if (folder.path / METRICS).exists():
        with folder.understood(METRICS):
            metrics = direction_scores.tabulated(config, folder.read_object(METRICS))
    return Way(
        "Each slider changes one thing by the amount t of its transformation, from the sample in "
        "the middle, along a direction that was found without labels.",
        moves,
        names,
        frozen,
        follow,
        metrics,
    )


def _steered(found: Steered, frozen: FrozenGenerator, decode: Partial, wish: Wish) -> Way:
    config, limits = found.config, found.limits
    starts, names = _held_out(config.asked, frozen, wish)
    side = wish.stretch * np.linspace(0, 1, wish.side + 1)[1:]
    amounts = np.concatenate([-side[::-1], side])
    asked = [(kind, hold) for kind in config.transformations for hold in config.hold]
    moves = [
        Move(
            label(kind) if hold == "nothing" else f"{label(kind)}, {hold} held",
            "t",
            np.insert(amounts, wish.side, 0.0) * limits[kind],
            "steered factors",
        )
        for kind, hold in asked
    ]
    settings = (config.blur, config.damping, config.corrections, config.tolerance)

    made = in_chunks(decode, 8)

    def follow(place: int) -> tuple[np.ndarray, np.ndarray | None]:
        samples, missing = [], []
        for kind, hold in asked:
            ts = tuple(float(t) for t in amounts * limits[kind])
            z = starts[place]
            led = lead(kind, hold, settings, ts, frozen.decode, z[None])
            path = jnp.insert(led.zs[0], wish.side, z, axis=0)
            samples.append(np.asarray(made(jnp.broadcast_to(z, path.shape), path)))
            missing.append(np.insert(np.asarray(led.residual)[0], wish.side, 0.0))
        # What was missing there is of all layers.
        return np.stack(samples), None if wish.layers else np.stack(missing)

    return Way(
        "Each slider steers the sample in the middle to the amount t of a transformation, by the "
        "generator's own geometry.",
        moves,
        names,
        frozen,
        follow,
        steer_scores.tabulated(config, found.metrics),
    )


def _held_out(
    config: direction_config.Config, frozen: FrozenGenerator, wish: Wish
) -> tuple[Float[Array, "n d"], list[str]]:
    """Latents of held-out images in the middle of the factors' ranges, or those of a file."""
    if own := _own(wish, frozen.latent_dim):
        return own
    subject = subject_of(config, frozen, load_images(config, frozen))
    found = central(subject)
    what = "draw" if frozen.encode is None else "held-out code"
    chosen = _chosen(wish)
    return subject.held_out[found[chosen]], _numbered(len(found), what)[chosen]

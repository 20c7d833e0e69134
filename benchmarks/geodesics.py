"""Geodesics of a decoder: against stochman and GEORCE, and how they grow.

Run as `python -m benchmarks.geodesics`. All sides connect the same pairs of latents of the same
decoder by curves of as many points. What they reached is measured in one way for all: the energy
of the curve's image, sampled at many points, and the gradient of the discretised energy at as many
points as the curve was optimised with. Calls of the sides alternate, so that a change in the load
of the machine meets all of them. Compilation is timed apart.

stochman minimises the energy of a cubic spline by at most 150 steps of Adam, its default, for all
pairs in one batch. GEORCE (Rygaard and Hauberg, 2025) is written down here as published, in JAX,
with its backtracking line search: it only asks for the metric, not for the immersion. It stops
where a step promises as little as where the library stops.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from rich.table import Table

from benchmarks import table
from benchmarks.command import Flags, Results, command
from benchmarks.own_process import in_own_process, peak_mib
from benchmarks.peers import NO_STOCHMAN, has, tensors, torch_module
from benchmarks.ratio import compared
from benchmarks.turns import (
    choose_threads,
    compiled,
    median,
    medians,
    no_cached_programs,
    turns,
)
from experiments.generators.training_data import encoded, load_data
from latent_flows._transforms import vmap_chunked
from latent_flows.generators import load_generator
from latent_flows.geometry import _discrete_energy, _newton
from latent_flows.geometry.curves import evaluate, straight
from latent_flows.geometry.geodesics import geodesic_batch, reach
from latent_flows.geometry.metrics import conformal, pullback, squared_norm
from latent_flows.typing import Generator, Latent, Metric, Scalar

OURS = "latent_flows"
"""The side of the library."""
FINE = 257
"""Points at which every curve's energy is measured."""
AT_ONCE = 32
"""Pairs that are connected at once, with either JAX solver; the rest wait."""
TOLERANCE = 1e-3
"""Relative decrement at which the library and GEORCE stop; the library's default."""


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    pairs: int = 100
    """Pairs of latents, standard normal."""
    points: int = 20
    """Points of a curve, ends included."""
    widths: tuple[int, ...] = (64, 64, 784)
    """Units of the decoder's layers."""
    scales: tuple[float, ...] = (1.0, 3.0)
    """Factors on the decoder's input: the larger, the more curved it is."""
    parts: tuple[Literal["peers", "bare", "cost", "growth", "memory"], ...] = (
        "peers",
        "bare",
        "cost",
        "growth",
        "memory",
    )
    """peers: against stochman and GEORCE through the decoder; bare: against GEORCE for metrics
    without an immersion; cost: of a metric and of an iteration, in passes through the decoder;
    growth: with pairs, points and latents; memory: of a thousand pairs in a 10-dimensional
    decoder with 512 units a layer, or that of --generator, in a process of its own."""
    generator: str = ""
    """Run folder of a finished train_vae: the thousand geodesics go between codes of its held-out
    images, through its decoder; empty: random latents and a random decoder."""
    repeats: int = 5
    """Timed calls of each, of which the median counts."""
    patience: float = 40.0
    """Seconds after which a comparison makes do with fewer repeats, but at least 3."""
    quick: bool = False
    """Small sizes, in seconds: to see that it runs."""


# --- what is connected ---


def decoder(key: jax.Array, latent: int, widths: tuple[int, ...], scale: float) -> Generator:
    """A random network with tanh between its layers."""
    sizes = (latent, *widths)
    keys = jax.random.split(key, len(widths))
    layers = [
        jax.random.normal(k, (rows, columns)) / jnp.sqrt(rows)
        for k, rows, columns in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]

    def decode(z: Latent) -> Float[Array, "n"]:
        x = scale * z
        for layer in layers[:-1]:
            x = jnp.tanh(x @ layer)
        return x @ layers[-1]

    decode.layers, decode.scale = layers, scale  # type: ignore[attr-defined]
    return decode


def ends(key: jax.Array, pairs: int, latent: int) -> tuple[jax.Array, jax.Array]:
    """Pairs of standard normal latents."""
    z = jax.random.normal(key, (2, pairs, latent))
    return z[0], z[1]


# --- GEORCE ---


class _Georce(NamedTuple):
    points: Float[Array, "n+1 d"]
    energy: Scalar
    promised: Scalar
    iterations: Int[Array, ""]


def georce(
    metric: Metric, z0: Latent, z1: Latent, *, segments: int, max_iterations: int = 100
) -> tuple[Float[Array, "n+1 d"], Bool[Array, ""], Int[Array, ""]]:
    r"""The points of a geodesic by GEORCE, whether it converged, and its iterations.

    It minimises $\sum_t u_t^\top G(z_t) u_t$ with $z_{t+1} = z_t + u_t$. An iteration freezes the
    $G_t$ and the slopes $\nu_t = \nabla_z u_t^\top G(z) u_t$; the multipliers of the constraint
    then have a closed form, and with them the best $u$, to which a backtracking line search goes.
    """
    quadratic = jax.vmap(lambda z, u: squared_norm(metric, z, u))
    slope = jax.vmap(jax.grad(lambda z, u: squared_norm(metric, z, u)))

    def value(points: Float[Array, "n+1 d"]) -> Scalar:
        return quadratic(points[:-1], jnp.diff(points, axis=0)).sum()

    def iterate(state: _Georce) -> _Georce:
        points, u = state.points[:-1], jnp.diff(state.points, axis=0)
        inverses = jnp.linalg.inv(jax.vmap(metric)(points))
        slopes = slope(points, u).at[0].set(0)
        # The sum of the slopes after each point.
        after = jnp.cumsum(slopes[::-1], axis=0)[::-1] - slopes
        pulled = jnp.einsum("tij,tj->i", inverses, after)
        last = jnp.linalg.solve(inverses.sum(0), 2 * (z0 - z1) - pulled)
        best = -jnp.einsum("tij,tj->ti", inverses, last + after) / 2
        move = best - u
        change = jnp.concatenate([jnp.zeros_like(z0)[None], jnp.cumsum(move, axis=0)])
        change = change.at[-1].set(0)
        promised = -jax.jvp(value, (state.points,), (change,))[1]

        def fails(search: tuple[Scalar, Scalar, Int[Array, ""]]) -> Bool[Array, ""]:
            size, found, tries = search
            return ~(found < state.energy - 1e-4 * size * promised) & (tries < 30)

        def halve(search: tuple[Scalar, Scalar, Int[Array, ""]]):
            size, _, tries = search
            return size / 2, value(state.points + size / 2 * change), tries + 1

        one = jnp.ones_like(state.energy)
        full = value(state.points + change)
        size, found, _ = jax.lax.while_loop(fails, halve, (one, full, jnp.zeros((), int)))
        lower = found < state.energy
        return _Georce(
            points=jnp.where(lower, state.points + size * change, state.points),
            energy=jnp.where(lower, found, state.energy),
            promised=promised,
            iterations=state.iterations + 1,
        )

    def unfinished(state: _Georce) -> Bool[Array, ""]:
        first = state.iterations == 0
        promising = state.promised > TOLERANCE**2 * state.energy
        return first | (promising & (state.iterations < max_iterations))

    line = straight(z0, z1, segments)
    zero = jnp.zeros((), z0.dtype)
    found = jax.lax.while_loop(
        unfinished, iterate, _Georce(line, value(line), zero, jnp.zeros((), int))
    )
    converged = found.promised <= TOLERANCE**2 * found.energy
    return found.points, converged, found.iterations


# --- stochman ---


def has_stochman() -> bool:
    """Whether stochman, and PyTorch below it, are installed."""
    return has("torch", "stochman")


class Stochman:
    """`connecting_geodesic` of all pairs; a call gives the curve and whether it converged."""

    def __init__(self, decode: Any, z0: jax.Array, z1: jax.Array):
        torch: Any = torch_module("torch")
        self.torch = torch
        self.threads = 1
        manifold: Any = torch_module("stochman.manifold")
        weights, self.ends = tensors(([*decode.layers], (z0, z1)))

        class Decoded(manifold.EmbeddedManifold):  # type: ignore[misc]
            def embed(self, points, jacobian=False):
                x = decode.scale * points
                for weight in weights[:-1]:
                    x = torch.tanh(x @ weight)
                return x @ weights[-1]

        self.manifold = Decoded()

    def __call__(self, *_: Any) -> tuple[Any, bool]:
        self.torch.set_num_threads(self.threads)
        return self.manifold.connecting_geodesic(*self.ends)


def stochman_points(curve: Any, count: int) -> Float[np.ndarray, "p n d"]:
    """Points of all its curves at equal distances in `s`."""
    torch: Any = torch_module("torch")
    with torch.no_grad():
        return curve(torch.linspace(0, 1, count, device=curve.device)).numpy(force=True)


# --- measurements ---


def many(connect: Callable) -> Callable:
    """Connects many pairs, a bounded number of them at a time, as `geodesic_batch` does."""
    return vmap_chunked(connect, AT_ONCE, effort=lambda *ends: reach(jnp.stack(ends, 1)))


class Reached(NamedTuple):
    """What a side reached, one number a pair."""

    energy: Float[np.ndarray, "p"]
    gradient: Float[np.ndarray, "p"]
    """The norm of the gradient of the discretised energy, over the energy."""
    converged: float
    """Share of the pairs that converged, by what the side itself says."""


def sample(points: Float[Array, "p n+1 d"], count: int) -> Float[Array, "p m d"]:
    """More, or fewer, points of the splines through points."""
    s = jnp.linspace(0, 1, count)
    return jax.vmap(lambda curve: jax.vmap(partial(evaluate, curve))(s))(points)


def reached(
    metric: Metric,
    fine: Float[Array, "p m d"],
    coarse: Float[Array, "p n d"],
    converged: float,
) -> Reached:
    """Energy and gradient of curves that are given by many and by few points."""
    total = _discrete_energy.total(metric)

    def gradient(points):
        value, slope = jax.value_and_grad(total)(points)
        return jnp.linalg.norm(slope[1:-1]) / value

    energies = jax.jit(partial(jax.lax.map, total, batch_size=10))(fine)
    gradients = jax.jit(partial(jax.lax.map, gradient, batch_size=10))(coarse)
    return Reached(np.asarray(energies), np.asarray(gradients), converged)


def compare(config: Config, scale: float) -> Results:
    """The library, stochman and GEORCE through one decoder."""
    decode = decoder(jax.random.key(0), 2, config.widths, scale)
    metric = pullback(decode)
    pairs = ends(jax.random.key(1), config.pairs, 2)
    segments = config.points - 1
    ours, seconds = compiled(
        partial(geodesic_batch, metric, segments=segments, tolerance=TOLERANCE, batch_size=AT_ONCE),
        *pairs,
    )
    theirs, their_seconds = compiled(many(partial(georce, metric, segments=segments)), *pairs)
    sides: dict[str, Callable] = {OURS: ours, "GEORCE": theirs}
    if has_stochman():
        sides["stochman"] = Stochman(decode, *pairs)
        choose_threads(sides["stochman"])
    taken = turns(sides, pairs, config.repeats, patience=config.patience)
    found = ours(*pairs)
    results = {OURS: (found.points, float(found.converged.mean()))}
    points, converged, _ = theirs(*pairs)
    results["GEORCE"] = (points, float(converged.mean()))
    outcomes = {
        name: reached(metric, sample(points, FINE), points, share)
        for name, (points, share) in results.items()
    }
    if has_stochman():
        curve, success = sides["stochman"]()
        outcomes["stochman"] = reached(
            metric,
            jnp.asarray(stochman_points(curve, FINE)),
            jnp.asarray(stochman_points(curve, config.points)),
            float(success),
        )
    compile_seconds = {OURS: seconds, "GEORCE": their_seconds}
    name = f"{config.pairs} geodesics of a decoder, scale {scale:g}"
    return _results(name, {"scale": scale}, taken, outcomes, compile_seconds)


def compare_bare(config: Config) -> Results:
    """The library and GEORCE for metrics that are only known as matrices."""
    decode = decoder(jax.random.key(0), 2, config.widths, 3.0)
    hidden = pullback(decode)
    metrics: dict[str, tuple[Metric, Callable]] = {
        "half-plane": (
            conformal(lambda z: 1 / z[1] ** 2),
            lambda z: z.at[:, 1].set(jnp.exp(z[:, 1])),
        ),
        "sphere": (
            lambda z: jnp.diag(jnp.stack([jnp.ones(()), jnp.sin(z[0]) ** 2])),
            lambda z: z / 3 + 1.5,
        ),
        # A callable that does not show its immersion.
        "decoder, scale 3": (hidden.__call__, lambda z: z),
    }
    results = Results()
    for name, (metric, place) in metrics.items():
        pairs = tuple(map(place, ends(jax.random.key(1), config.pairs, 2)))
        segments = config.points - 1
        ours, seconds = compiled(
            partial(
                geodesic_batch, metric, segments=segments, tolerance=TOLERANCE, batch_size=AT_ONCE
            ),
            *pairs,
        )
        theirs, their_seconds = compiled(many(partial(georce, metric, segments=segments)), *pairs)
        both = {OURS: ours, "GEORCE": theirs}
        taken = turns(both, pairs, config.repeats, patience=config.patience)
        found, (points, converged, _) = ours(*pairs), theirs(*pairs)
        outcomes = {
            OURS: reached(
                metric, sample(found.points, FINE), found.points, float(found.converged.mean())
            ),
            "GEORCE": reached(metric, sample(points, FINE), points, float(converged.mean())),
        }
        compile_seconds = {OURS: seconds, "GEORCE": their_seconds}
        what = f"{config.pairs} geodesics of a metric known as matrices, {name}"
        results += _results(what, {"metric": name}, taken, outcomes, compile_seconds)
    return results


def costs(config: Config, latent: int) -> Results:
    """One metric in forward-mode passes, one iteration in evaluations of the Jacobian."""
    decode = decoder(jax.random.key(0), latent, config.widths, 1.0)
    metric, segments = pullback(decode), config.points - 1
    z0, z1 = ends(jax.random.key(1), config.pairs, latent)
    points = jax.vmap(partial(straight, segments=segments))(z0, z1)[:, 1:-1]
    directions = jnp.eye(latent)

    def passes(z: Latent) -> Array:
        return jax.vmap(lambda v: jax.jvp(decode, (z,), (v,))[1])(directions)

    def iteration(z0, z1, inner):
        _, advance, blank, _ = _discrete_energy.model(metric, z0, z1, segments)
        step = _newton.propose(advance(inner, inner, blank)[0], jnp.zeros(()))
        return step

    def both(z: Latent) -> tuple[Array, Array]:
        x, push = jax.linearize(decode, z)
        return x, jax.vmap(push)(directions)

    def jacobian(z0, z1, inner):
        return jax.vmap(both)(inner)

    sides = {
        "metric": lambda z0, z1, inner: jax.vmap(metric)(inner),
        "passes": lambda z0, z1, inner: jax.vmap(passes)(inner),
        "jacobian": jacobian,
        "iteration": iteration,
    }
    ready = {name: compiled(jax.vmap(side), z0, z1, points)[0] for name, side in sides.items()}
    taken = turns(ready, (z0, z1, points), 3 * config.repeats)
    floors = {
        "metric": ("passes", f"M(z), d = {latent}", "d passes along a direction"),
        "iteration": ("jacobian", f"an iteration, d = {latent}", "image and Jacobian"),
    }
    ratios = [
        row
        for ours, (floor, name, against) in floors.items()
        for row in compared(name, {ours: taken[ours], against: taken[floor]}, ours=ours)
    ]
    metric_ratio, iteration_ratio = (1 / row.ratio for row in ratios)
    row = {
        "latent": latent,
        "metric_over_passes": metric_ratio,
        "iteration_over_jacobian": iteration_ratio,
        "jacobian_seconds": median(taken["jacobian"]),
    }
    return Results([row], ratios)


def grow(config: Config, name: str, value: int) -> dict[str, Any]:
    """The library alone, at one size."""
    sizes = {"pairs": config.pairs, "points": config.points, "latent": 2} | {name: value}
    metric = pullback(decoder(jax.random.key(0), sizes["latent"], config.widths, 1.0))
    pairs = ends(jax.random.key(1), sizes["pairs"], sizes["latent"])
    run = partial(geodesic_batch, metric, segments=sizes["points"] - 1)
    both, seconds = compiled(run, *pairs)
    taken = medians({"": both}, pairs, config.repeats)[""]
    share = float(both(*pairs).converged.mean())
    return {
        "changed": name,
        "value": value,
        "seconds": taken,
        "converged": share,
        "compile_seconds": seconds,
    }


def trained(folder: str, pairs: int) -> tuple[Generator, tuple[jax.Array, jax.Array]]:
    """The decoder of a run of train_vae, and pairs of codes of its held-out images."""
    generator = load_generator(folder)
    dataset = load_data(generator, "test")
    chosen = np.random.default_rng(0).permutation(dataset.length)[: 2 * pairs]
    codes, _ = encoded(generator, jnp.asarray(dataset.examples(chosen)["image"]))
    return generator.decode, (codes[:pairs], codes[pairs:])


def thousand(pairs: int, widths: tuple[int, ...], generator: str) -> dict[str, Any]:
    """Many geodesics in one decoder; to be called in a process of their own."""
    no_cached_programs()
    if generator:
        decode, both = trained(generator, pairs)
    else:
        decode = decoder(jax.random.key(0), 10, widths, 1.0)
        both = ends(jax.random.key(1), pairs, 10)
    metric = pullback(decode)
    run, seconds = compiled(partial(geodesic_batch, metric), *both)
    start = time.perf_counter()
    found = jax.block_until_ready(run(*both))
    taken = time.perf_counter() - start
    return {
        "pairs": pairs,
        "seconds": taken,
        "converged": float(found.converged.mean()),
        "peak_mib": peak_mib(),
        "compile_seconds": seconds,
    }


def _results(
    name: str,
    what: dict[str, Any],
    taken: dict[str, list[float]],
    outcomes: dict[str, Reached],
    compile_seconds: dict[str, float],
) -> Results:
    """One row a side, compared with the library's."""
    ours = outcomes[OURS].energy
    ratios = compared(name, taken, ours=OURS)
    by_side = {row.against: row.ratio for row in ratios}
    # Of those that stop before they are there it has to be said.
    ratios = [
        row._replace(against=f"{row.against}, {outcomes[row.against].converged:.0%} converged")
        for row in ratios
    ]
    rows = [
        what
        | {
            "side": side,
            "seconds": median(seconds),
            "ratio": by_side.get(side, 1.0),
            "energy": float(outcomes[side].energy.mean()),
            "energy_over_ours": float((outcomes[side].energy / ours).mean()),
            "lower_than_ours": float((outcomes[side].energy < ours * (1 - 1e-3)).mean()),
            "gradient": float(np.median(outcomes[side].gradient)),
            "converged": outcomes[side].converged,
            "compile_seconds": compile_seconds.get(side),
        }
        for side, seconds in taken.items()
    ]
    return Results(rows, ratios)


def main(config: Config) -> Results:
    """Measure and print."""
    no_cached_programs()
    if config.quick:
        config = replace(config, pairs=4, points=9, widths=(16, 16, 20), repeats=3, scales=(1.0,))
    console, results = table.console(), Results()
    title = (
        f"{config.pairs} pairs, curves of {config.points} points, decoder "
        f"d-{'-'.join(map(str, config.widths))}; {jax.devices()[0].device_kind}, "
        f"JAX {jax.__version__}"
    )
    if "peers" in config.parts:
        if not has_stochman():
            console.print(NO_STOCHMAN, markup=False)
        found = Results()
        for scale in config.scales:
            found += compare(config, scale)
        console.print(_compared(f"d = 2; {title}", "scale", found.rows))
        results += found
    if "bare" in config.parts:
        found = compare_bare(config)
        console.print(_compared(f"metrics without an immersion; {title}", "metric", found.rows))
        results += found
    if "cost" in config.parts:
        shown = table.empty(
            title, "latent, M(z) / d passes, iteration / (generator and Jacobian), ms of the latter"
        )
        for latent in (2, 4) if config.quick else (2, 8, 32, 128):
            few = replace(config, pairs=max(2, min(config.pairs, 400 // latent)))
            found = costs(few, latent)
            [row] = found.rows
            shown.add_row(
                str(latent),
                f"{row['metric_over_passes']:.2f}",
                f"{row['iteration_over_jacobian']:.2f}",
                f"{1e3 * row['jacobian_seconds']:.1f}",
            )
            results += found
        console.print(shown)
    if "growth" in config.parts:
        shown = table.empty(title, "changed*, value, ms, converged, compile s")
        sweeps = {"pairs": (10, 100, 1000), "points": (9, 20, 33, 65), "latent": (2, 8, 32, 128)}
        if config.quick:
            sweeps = {"pairs": (2, 4), "points": (5, 9), "latent": (2, 4)}
        for name, values in sweeps.items():
            for value in values:
                few = replace(config, pairs=min(config.pairs, 20)) if name == "latent" else config
                row = grow(few, name, value)
                shown.add_row(
                    name,
                    str(value),
                    f"{1e3 * row['seconds']:.1f}",
                    f"{row['converged']:.0%}",
                    f"{row['compile_seconds']:.1f}",
                )
                results.rows.append(row)
            shown.add_section()
        console.print(shown)
    if "memory" in config.parts:
        size = (8, (16, 16, 20)) if config.quick else (1000, (512, 512, 784))
        row = in_own_process(thousand, *size, config.generator)
        where = config.generator or "a random decoder, d = 10"
        shown = table.empty(
            f"geodesics of 33 points through {where}", "pairs, s, converged, peak MiB, compile s"
        )
        shown.add_row(
            str(row["pairs"]),
            f"{row['seconds']:.2f}",
            f"{row['converged']:.1%}",
            f"{row['peak_mib']:.0f}",
            f"{row['compile_seconds']:.1f}",
        )
        results.rows.append(row)
        console.print(shown)
    return results


def _compared(title: str, first: str, rows: list[dict[str, Any]]) -> Table:
    shown = table.empty(
        title,
        f"{first}*, side*, ms, times ours, energy / ours, pairs lower, gradient, converged, "
        "compile s",
    )
    for row in rows:
        seconds = row["compile_seconds"]
        shown.add_row(
            str(row[first]),
            row["side"],
            f"{1e3 * row['seconds']:.1f}",
            f"{row['ratio']:.1f}",
            f"{row['energy_over_ours']:.5f}",
            f"{row['lower_than_ours']:.0%}",
            f"{row['gradient']:.0e}",
            f"{row['converged']:.0%}",
            "" if seconds is None else f"{seconds:.1f}",
        )
    return shown


if __name__ == "__main__":
    command(main, __doc__, Config)

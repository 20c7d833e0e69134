"""What the geometry of a large GAN costs: seconds and memory, at published size and random weights.

Run as `python -m benchmarks.gan_geometry`. Of a StyleGAN2 of 256 pixels, in its `z` of 512 numbers:

- product: one product of the pull-back metric with a vector, pushed forward and pulled back
- directions: its principal directions at one latent
- geodesic: a shortest path between two draws, a spline of some knots, by
  `geometry.spline_geodesic`, which is what the library takes for latents this long

Each runs in a process of its own, whose peak memory is the part's: of the accelerator where there
is one, else of the process. A part that is not done in time is ended, and it is said how far it
came: for a gradient of a path as many images are made as it has chords, and one more, and made
again on the way back. Seconds are of the clock, and of a core, which say much the same on a busy
machine.
"""

import multiprocessing
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import Flags, Results, command
from benchmarks.own_process import peak_mib
from benchmarks.turns import both_clocks, no_cached_programs
from latent_flows.generators import stylegan2
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.geometry import principal_directions
from latent_flows.geometry.curves import measure, straight
from latent_flows.geometry.metrics import pullback
from latent_flows.geometry.splines import spline_geodesic
from latent_flows.typing import Generator, Latent

Part: TypeAlias = Literal["product", "directions", "geodesic"]


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    parts: tuple[Part, ...] = ("product", "directions", "geodesic")
    """Which of the three."""
    resolution: int = 256
    """Pixels along each side of an image, a power of two from 8."""
    channels: tuple[int, ...] = ()
    """Features at 4, 8, ... pixels; none: the published ones."""
    latent: int = 512
    """Numbers of a latent."""
    directions: int = 10
    """Principal directions."""
    knots: int = 8
    """Parts of the spline."""
    segments: int = 16
    """Chords whose lengths it makes least."""
    batch_size: int = 1
    """Images of a path that are made at once."""
    iterations: int = 200
    """The most gradients of a path, at each of two numbers of chords."""
    tolerance: float = 1e-3
    """Relative change at which the search for a path stops."""
    minutes: float = 10.0
    """After which a part is ended, making its program included."""
    repeats: int = 3
    """Timed products, of which the median counts."""
    seed: int = 0
    """Of the weights, and of the latents."""

    def __post_init__(self) -> None:
        for name in ("directions", "knots", "segments", "batch_size", "iterations", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.segments < self.knots:
            raise ValueError(
                f"segments must be at least knots, got {self.segments} and {self.knots}"
            )
        if not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")


Tell = Callable[..., None]
"""From a name and a number: what is known so far."""


def network(config: Config) -> StyleGAN2:
    """The generator that the flags describe, without weights."""
    return StyleGAN2(config.resolution, latent_dim=config.latent, channels=config.channels or None)


def timed(function: Callable[..., Any], *args: Any, tell: Tell) -> tuple[Any, Callable[[], Any]]:
    """The result of a function, once compiled, and what computes it again; both times are told."""
    program, seconds, cpu = both_clocks(lambda: jax.jit(function).lower(*args).compile())
    tell("compiling_s", seconds)
    tell("compiling_cpu_s", cpu)
    found, seconds, cpu = both_clocks(program, *args)
    tell("seconds", seconds)
    tell("cpu_s", cpu)
    return found, lambda: program(*args)


def product(config: Config, net: StyleGAN2, variables: Any, zs: jax.Array, tell: Tell) -> None:
    """One product of the metric with a vector."""

    def times(variables: Any, z: Latent, v: Latent) -> Latent:
        _, push = jax.linearize(stylegan2.generator(net, variables), z)
        return jax.linear_transpose(push, z)(push(v))[0]

    _, again = timed(times, variables, *zs, tell=tell)
    clocked = [both_clocks(again)[1:] for _ in range(config.repeats)]
    seconds, cpu = map(float, np.median(np.array(clocked), axis=0))
    tell("seconds", seconds)
    tell("cpu_s", cpu)


def directions(config: Config, net: StyleGAN2, variables: Any, zs: jax.Array, tell: Tell) -> None:
    """The leading directions of one latent."""

    def leading(variables: Any, z: Latent) -> Any:
        return principal_directions(stylegan2.generator(net, variables), z, config.directions)

    found, _ = timed(leading, variables, zs[0], tell=tell)
    tell("largest_gain", float(found.gains[0]))
    tell("smallest_gain", float(found.gains[-1]))


def geodesic(config: Config, net: StyleGAN2, variables: Any, zs: jax.Array, tell: Tell) -> None:
    """A shortest path between two latents, beside the straight line."""
    made = 0

    def count(_: Any) -> None:
        nonlocal made
        made += 1
        tell("images", made)

    def counted(variables: Any) -> Generator:
        generator = stylegan2.generator(net, variables)

        def decode(z: Latent) -> jax.Array:
            jax.debug.callback(count, z[0])
            return generator(z)

        return decode

    def connect(variables: Any, z0: Latent, z1: Latent) -> Any:
        return spline_geodesic(
            pullback(counted(variables)),
            z0,
            z1,
            knots=config.knots,
            segments=config.segments,
            tolerance=config.tolerance,
            max_iterations=config.iterations,
            batch_size=config.batch_size,
        )

    def length(variables: Any, z0: Latent, z1: Latent) -> jax.Array:
        metric = pullback(stylegan2.generator(net, variables))
        line = straight(z0, z1, config.knots)
        return measure(metric, line, batch_size=config.batch_size).length

    found, _ = timed(connect, variables, *zs, tell=tell)
    tell("converged", float(found.converged))
    line = jax.jit(length)(variables, *zs)
    tell("of_straight", float(found.length / line))


PARTS: dict[Part, Callable[..., None]] = {
    "product": product,
    "directions": directions,
    "geodesic": geodesic,
}


def peak_memory() -> float:
    """The most memory that this process has taken, in MiB: of the accelerator, or its own."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else peak_mib()


def work(config: Config, part: Part, results: Any) -> None:
    """One part, which tells all that it knows as soon as it does."""

    def tell(name: str, value: Any) -> None:
        results.put((name, value))

    no_cached_programs()
    net = network(config)
    key, other = jax.random.split(jax.random.key(config.seed))
    variables = jax.jit(net.init)(key, jnp.ones(config.latent))
    zs = jax.random.normal(other, (2, config.latent))
    tell("device", jax.devices()[0].device_kind)
    PARTS[part](config, net, variables, zs, tell)
    tell("peak_mib", peak_memory())
    tell("done", True)


def measured(config: Config, part: Part) -> dict[str, Any]:
    """What a part has told by its end, or until it was ended; whether it was `done`."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=work, args=(config, part, results), daemon=True)
    row: dict[str, Any] = {"part": part, "done": False}
    began = time.perf_counter()
    process.start()
    while not row["done"] and time.perf_counter() < began + 60 * config.minutes:
        try:
            name, value = results.get(timeout=0.2)
            row[name] = value
        except queue.Empty:
            if not process.is_alive() and results.empty():
                break
    row["whole_s"] = time.perf_counter() - began
    process.kill()
    process.join()
    return row


def said(config: Config, row: dict[str, Any]) -> str:
    """A row in words."""
    what = {
        "product": "a product of the metric with a vector",
        "directions": f"{config.directions} principal directions",
        "geodesic": f"a path of {config.knots} knots and {config.segments} chords",
    }[row["part"]]
    rest = {k: v for k, v in row.items() if k not in ("part", "done", "device", "whole_s")}
    told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in rest.items())
    if not row["done"]:
        told = f"not done after {row['whole_s'] / 60:.1f} minutes ({told or 'nothing known yet'})"
    return f"{what}: {told}"


def main(config: Config) -> Results:
    """Measure and print."""
    net = network(config)
    print(
        f"StyleGAN2 of {config.resolution} pixels, features {', '.join(map(str, net.widths))}, "
        f"{config.latent} latents; each part at most {config.minutes:g} minutes",
        flush=True,
    )
    found = Results()
    for part in config.parts:
        found.rows.append(row := measured(config, part))
        print(f"{row.get('device', 'no device')}, {said(config, row)}", flush=True)
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)

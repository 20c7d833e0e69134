"""Laplacians of a potential network: one propagated pass against the trace of a Hessian.

Run as `python -m benchmarks.laplacian --dims 8 32 128 512`. Every method gets the same network, the
same latents and the same batch; calls of the methods alternate, so that a change in the load of
the machine meets all of them. Compilation is timed apart. Nothing is saved.
"""

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from latent_flows.calculus import laplacian
from latent_flows.potentials import PotentialNet


@dataclass(frozen=True)
class Config:
    """What is measured."""

    dims: tuple[int, ...] = (8, 32, 128)
    """Latent dimensions."""
    widths: tuple[int, ...] = (64, 128)
    """Units of a hidden layer; 64 is the default of the library."""
    depth: int = 2
    """Hidden layers."""
    batch: int = 64
    """Latents per call."""
    repeats: int = 15
    """Timed calls of each method, of which the median counts."""
    samples: tuple[int, ...] = (1, 16)
    """Probes of the Hutchinson estimates."""
    initial: str = "exact"
    """The initial condition of the network; "exact", its default, evaluates it at two times."""
    gradient: bool = True
    """Also time the gradient of a mean squared Laplacian in the parameters."""


def methods(samples: tuple[int, ...]) -> Mapping[str, Callable[[Callable, Any], Any]]:
    """Each method as `(f, z) -> scalar`."""
    key = jax.random.key(0)
    exact = {
        name: partial(lambda name, f, z: laplacian(f, method=name)(z), name)
        for name in ("hessian", "forward")
    }
    estimates = {
        f"hutchinson, {m}": partial(
            lambda m, f, z: laplacian(f, method="hutchinson", samples=m)(key, z), m
        )
        for m in samples
    }
    return exact | estimates


def compiled(function: Callable, *args: Any) -> tuple[Callable, float]:
    """The compiled function, and the seconds that tracing and compiling took."""
    start = time.perf_counter()
    ready = jax.jit(function).lower(*args).compile()
    return ready, time.perf_counter() - start


def medians(functions: dict[str, Callable], args: tuple, repeats: int) -> dict[str, float]:
    """The median seconds of a call of each, taken in turns, the first turn not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*args))
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken[1:])) for name, taken in seconds.items()}


def difference(a: Any, b: Any) -> float:
    """The largest difference of two pytrees, relative to the largest entry of the second."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    largest = max(float(jnp.abs(y).max()) for _, y in pairs)
    return max(float(jnp.abs(x - y).max()) for x, y in pairs) / largest


def measure(config: Config, width: int, dim: int, table: Table) -> None:
    """Add the rows of one width and one dimension."""
    net = PotentialNet(width=width, depth=config.depth, initial=config.initial)
    zs = jax.random.normal(jax.random.key(1), (config.batch, dim))
    ts = jnp.linspace(1.0, 9.0, config.batch)
    params = net.init(jax.random.key(2), ts[0], zs[0])

    def values(method, params, ts, zs):
        return jax.vmap(lambda t, z: method(lambda y: net.apply(params, t, y), z))(ts, zs)

    def loss(method, params, ts, zs):
        return jnp.square(values(method, params, ts, zs)).mean()

    works = {
        "value": values,
        "gradient": lambda method, *args: jax.grad(partial(loss, method))(*args),
    }
    for work, build in works.items():
        if work == "gradient" and not config.gradient:
            continue
        args = (params, ts, zs)
        ready, seconds = {}, {}
        for name, method in methods(config.samples).items():
            ready[name], seconds[name] = compiled(partial(build, method), *args)
        taken = medians(ready, args, config.repeats)
        reference = ready["hessian"](*args)
        for name, function in ready.items():
            table.add_row(
                str(width),
                str(dim),
                work,
                name,
                f"{1e3 * taken[name]:.2f}",
                f"{taken['hessian'] / taken[name]:.2f}",
                f"{seconds[name]:.2f}",
                f"{difference(function(*args), reference):.1e}",
            )
        table.add_section()


def main(config: Config) -> None:
    """Measure and print."""
    table = Table(
        title=f"PotentialNet, depth {config.depth}, {config.initial}, batch {config.batch}, "
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}"
    )
    figures = ("ms", "times faster", "compile s", "max rel. difference")
    for column in ("width", "d", "work", "method", *figures):
        table.add_column(column, justify="left" if column in ("work", "method") else "right")
    for width, dim in itertools.product(config.widths, config.dims):
        measure(config, width, dim, table)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Config))

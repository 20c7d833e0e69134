"""Laplacians of a potential network: one propagated pass against the trace of a Hessian.

Run as `python -m benchmarks.laplacian --dims 8 32 128 512`. Every method gets the same network, the
same latents and the same batch; calls of the methods alternate, so that a change in the load of
the machine meets all of them. Compilation is timed apart. Nothing is saved.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks.command import Flags, Results, command
from benchmarks.ratio import compared
from benchmarks.table import console, empty
from benchmarks.turns import compiled, median, turns
from latent_flows.calculus import laplacian
from latent_flows.potentials import PotentialNet


@dataclass(frozen=True)
class Config(Flags):
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


def difference(a: Any, b: Any) -> float:
    """The largest difference of two pytrees, relative to the largest entry of the second."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    largest = max(float(jnp.abs(y).max()) for _, y in pairs)
    return max(float(jnp.abs(x - y).max()) for x, y in pairs) / largest


def measure(config: Config, width: int, dim: int, table: Table) -> Results:
    """One width and one dimension; adds rows to the table."""
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
    found = Results()
    for work, build in works.items():
        if work == "gradient" and not config.gradient:
            continue
        args = (params, ts, zs)
        ready, seconds = {}, {}
        for name, method in methods(config.samples).items():
            ready[name], seconds[name] = compiled(partial(build, method), *args)
        taken = turns(ready, args, config.repeats)
        of = f"forward Laplacian, {work}: d = {dim}, width {width}"
        ratios = compared(of, taken, ours="forward")
        by_method = {row.against: row.ratio for row in ratios}
        found.ratios += ratios
        reference = ready["hessian"](*args)
        for name, function in ready.items():
            row: dict[str, Any] = {
                "width": width,
                "d": dim,
                "work": work,
                "method": name,
                "seconds": median(taken[name]),
                "over_forward": by_method.get(name, 1.0),
                "compile_seconds": seconds[name],
                "difference": difference(function(*args), reference),
            }
            found.rows.append(row)
            table.add_row(
                str(width),
                str(dim),
                work,
                name,
                f"{1e3 * row['seconds']:.2f}",
                f"{row['over_forward']:.2f}",
                f"{row['compile_seconds']:.2f}",
                f"{row['difference']:.1e}",
            )
        table.add_section()
    return found


def main(config: Config) -> Results:
    """Measure and print."""
    table = empty(
        f"PotentialNet, depth {config.depth}, {config.initial}, batch {config.batch}, "
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}",
        "width, d, work*, method*, ms, times forward, compile s, max rel. difference",
    )
    found = Results()
    for width, dim in itertools.product(config.widths, config.dims):
        found += measure(config, width, dim, table)
    console().print(table)
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)

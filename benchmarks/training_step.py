"""One training step, and the same step on other sides: compared first, then timed in turns."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from rich.console import Console

from benchmarks.command import MismatchError, Results
from benchmarks.matmul import PRODUCT, Product, operations, said, share_of_product
from benchmarks.ratio import compared
from benchmarks.turns import compiled, median, patient_turns

LEARNING_RATE = 1e-4
TOLERANCE = 1e-3
"""Largest relative difference of losses and gradient norms that counts as the same step."""
OURS = "JAX"
"""The side of the library."""


class Step:
    """One compiled training step a call; returns the loss and gradient norm before it.

    Args:
        work: a problem with a loss `value(params)`, `params` to start from, and the `passes` of its
            generator that it cannot do without.
    """

    def __init__(self, work: Any):
        optimiser = optax.adam(LEARNING_RATE)

        def update(params, state):
            total, gradient = jax.value_and_grad(work.value)(params)
            change, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, change), state, total, optax.global_norm(gradient)

        self.params, self.state = work.params, jax.jit(optimiser.init)(work.params)
        self.operations = operations(*work.passes)
        self.update, self.compile_seconds = compiled(update, self.params, self.state)

    def __call__(self) -> tuple[float, float]:
        self.params, self.state, *report = self.update(self.params, self.state)
        total, norm = map(float, report)
        return total, norm


def difference(ours: tuple[float, float], theirs: tuple[float, float]) -> float:
    """The larger relative difference of two sides' losses and gradient norms.

    >>> difference((1.0, 2.0), (1.0, 2.5))
    0.25
    """
    return max(abs(b - a) / abs(a) for a, b in zip(ours, theirs, strict=True))


def compare(
    name: str,
    step: Any,
    peers: Mapping[str, Any],
    *,
    repeats: int,
    patience: float,
    other_losses: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    threads: int = 0,
) -> Results:
    """A step of JAX, the same in other ways, and a matrix product beside them, in turns.

    Args:
        name: of the step.
        step: that of JAX, with its `operations` and `compile_seconds`.
        peers: the same by name, each with its number of `threads`.
        repeats: turns.
        patience: seconds after which fewer do, but at least three.
        other_losses: names of peers that are known to do something else.
        tolerance: largest difference of losses and gradient norms.
        threads: of peers; 0: one or one a core, whichever is faster.

    Returns:
        A row a side, with seconds, ratio, difference and threads; of the ratios the last is the
        share of the product's rate that JAX reaches, counting what no method can do without.

    Raises:
        MismatchError: the first steps do not have the same loss and gradient.
    """
    if threads:
        for other in peers.values():
            other.threads = threads
    ours = step()
    differences = {peer: difference(ours, other()) for peer, other in peers.items()}
    for peer, found in differences.items():
        if peer in other_losses:
            differences[peer] = math.nan
        elif not found < tolerance:
            raise MismatchError(f"{peer}: loss or gradient differs from JAX by {found:.1e}")
    product = Product()
    product()
    sides = {OURS: step, **peers, PRODUCT: product}
    seconds = patient_turns(sides, repeats, patience, choose=not threads)
    beside = seconds.pop(PRODUCT)
    ratios = compared(name, seconds, ours=OURS)
    by_peer = {row.against: row.ratio for row in ratios}
    rows = [
        {
            "side": side,
            "seconds": median(taken),
            "ratio": by_peer.get(side, 1.0),
            "difference": differences.get(side, 0.0),
            "threads": getattr(peers.get(side), "threads", None),
        }
        for side, taken in seconds.items()
    ]
    rows[0]["compile_seconds"] = step.compile_seconds
    own = f"{name}, the generator's own passes"
    ratios.append(share_of_product(own, step.operations, seconds[OURS], product, beside))
    return Results(rows, ratios)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Side, ms, times JAX, threads, seconds to compile and difference of a compared step."""
    compiling, apart = row.get("compile_seconds"), row["difference"]
    return (
        row["side"],
        f"{1e3 * row['seconds']:.1f}",
        f"{row['ratio']:.2f}",
        str(row["threads"] or ""),
        "" if compiling is None else f"{compiling:.1f}",
        "other loss" if math.isnan(apart) else f"{apart:.0e}",
    )


def show_shares(console: Console, found: Results) -> None:
    """Print how well JAX uses the device."""
    for row in found.ratios:
        if row.unit == "operations/s":
            console.print(said(row), markup=False, soft_wrap=True)

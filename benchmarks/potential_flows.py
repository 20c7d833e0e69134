"""One training step of potential flows: JAX against eager PyTorch, and how it grows.

Run as `python -m benchmarks.potential_flows`. The step is a loss, its gradient and an update by
Adam. The loss is the published one in the bounded form that the experiments use: naming the
potential, the wave equation's residual with an exact Laplacian at every point of every path, the
initial condition, and movement in data space. Both sides hold the same parameters and the same
draws; their losses and gradients are compared before any clock starts. Their steps then take
turns, so that a change in the load of the machine meets both.

Rows of PyTorch: a loop over the K potentials, or all stacked as batched products; the Laplacian by
one backward pass a coordinate, or as the trace of `vmap(hessian)`. "Row sums" does what the
published code does in place of a Laplacian: another loss and much less work, so no row to win
against, but the time of what people run today.
"""

import importlib
import importlib.util
import json
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.laplacian import compiled, medians
from latent_flows import objectives, pde
from latent_flows.classifiers import PairClassifier, pair_features
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.objectives import FlowSample, PotentialFlowWeights
from latent_flows.potentials import PotentialNet, init_stack
from latent_flows.traversals import climbing
from latent_flows.typing import Generator, Scalar

IMAGE = (28, 28, 1)
LEARNING_RATE = 1e-4
PACE = 1.0
BOX = 2.0
"""Half the width of the box that paths should stay in."""
TOLERANCE = 1e-3
"""Largest relative difference of losses and gradient norms that counts as the same step."""
NO_TORCH = "PyTorch is not installed, so JAX is measured alone: pip install 'latent-flows[peers]'"
PEERS = {
    "torch loop, columns": ("columns", False),
    "torch loop, hessian": ("hessian", False),
    "torch stacked, columns": ("columns", True),
    "torch stacked, hessian": ("hessian", True),
    "torch loop, row sums": ("row sums", False),
}
"""PyTorch's ways, and the arguments of `torch_step.Step` for each."""
STACKED_UP_TO = 128
"""Latents above this length are left to the loops: autograd keeps gigabytes for a stack."""


@dataclass(frozen=True)
class Size:
    """How large the step is."""

    latent: int = 64
    """Length of a latent."""
    count: int = 16
    """Number of potentials, K."""
    batch: int = 64
    """Starting points, over all potentials together."""
    horizon: int = 10
    """Steps of a path, T."""
    width: int = 0
    """Units of a hidden layer of a potential; 0: as many as the latent is long, at least 64."""
    decoder: Literal["mlp", "conv"] = "mlp"
    """Decoder of the generator, to 28 x 28 pixels."""


@dataclass(frozen=True)
class Config:
    """What is measured."""

    size: Size = Size()
    """Size of a step, where nothing else is said."""
    latents: tuple[int, ...] = (64, 324)
    """Latent lengths at which JAX and PyTorch are compared."""
    parts: tuple[Literal["peers", "memory", "growth"], ...] = ("peers", "memory", "growth")
    """peers: against PyTorch; memory: peak of each in a process of its own; growth: JAX alone
    against K, latent length and batch."""
    repeats: int = 21
    """Timed steps of each, of which the median counts."""
    patience: float = 40.0
    """Seconds after which a comparison makes do with fewer repeats, but at least 3."""
    quick: bool = False
    """Small sizes, in seconds: to see that it runs."""
    json: str = ""
    """File for the rows, as JSON."""


class Problem(NamedTuple):
    """One step to make, with all it needs."""

    net: PotentialNet
    generator: Generator
    params: Any
    """Of the potentials, their coefficients and the classifier."""
    key: jax.Array
    starts: jax.Array
    horizon: int
    at_once: int = 0
    """Image pairs that the generator makes at once; 0: all."""
    decoder: Any = None
    """The generator's parameters, and which it is, for PyTorch."""

    @property
    def members(self) -> int:
        """Number of potentials, K."""
        return len(self.params["coefficients"])

    def value(self, params: Any) -> Scalar:
        """The loss."""
        share = self.starts.reshape(-1, self.members, self.starts.shape[1])
        box = jnp.full(self.starts.shape[1], BOX)
        field, apply = climbing(self.net), self.net.apply

        def sample(key: jax.Array, own: Any, raw: Any, starts: jax.Array) -> FlowSample:
            u: Any = partial(apply, own)
            return objectives.sample_flow(
                key,
                partial(field, own),
                starts,
                -box,
                box,
                horizon=self.horizon,
                equation=partial(pde.wave, u, pde.coefficient(raw)),
                at_rest=False,
            )

        def classify(before: jax.Array, after: jax.Array) -> Any:
            return classifier(self.members).apply(
                params["classifier"], pair_features(before, after)
            )

        samples = jax.vmap(sample, in_axes=(0, 0, 0, 1))(
            jax.random.split(self.key, self.members),
            params["potentials"],
            params["coefficients"],
            share,
        )
        terms = objectives.potential_flow_terms(
            samples, self.generator, classify, pace=PACE, at_once=self.at_once
        )
        return objectives.weighted_sum(PotentialFlowWeights(), terms)


# --- JAX ---


def classifier(count: int) -> PairClassifier:
    """What names the potential from an image pair."""
    return PairClassifier(width=16, classes=count)


def initial(net: PotentialNet, key: jax.Array, count: int, dim: int, image: jax.Array) -> Any:
    """Fresh parameters of potentials, coefficients and classifier."""
    potential_key, classifier_key = jax.random.split(key)
    return {
        "potentials": init_stack(net, potential_key, count, dim),
        "coefficients": jnp.full((count,), 0.5),
        "classifier": classifier(count).init(classifier_key, pair_features(image, image)),
    }


def problem(size: Size) -> Problem:
    """A step at random parameters, from random starting points."""
    vae_key, start_key, init_key, key = jax.random.split(jax.random.key(0), 4)
    vae = VAE(VAEConfig(latent_dim=size.latent, decoder=size.decoder), IMAGE)
    params: Any = vae.init(vae_key, jnp.zeros(IMAGE))
    net = PotentialNet(
        width=size.width or max(64, size.latent), horizon=float(size.horizon), initial="free"
    )
    return Problem(
        net=net,
        generator=vaes.generator(vae, params),
        params=initial(net, init_key, size.count, size.latent, jnp.zeros(IMAGE)),
        key=key,
        starts=jax.random.normal(start_key, (size.batch, size.latent)),
        horizon=size.horizon,
        decoder=(size.decoder, params["params"]["decoder"]),
    )


class Step:
    """One compiled training step a call; returns the loss and gradient norm before it.

    Args:
        work: a problem with a loss `value(params)`, and `params` to start from.
    """

    def __init__(self, work: Any):
        optimiser = optax.adam(LEARNING_RATE)

        def update(params, state):
            total, gradient = jax.value_and_grad(work.value)(params)
            change, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, change), state, total, optax.global_norm(gradient)

        self.params, self.state = work.params, jax.jit(optimiser.init)(work.params)
        self.update, self.compile_seconds = compiled(update, self.params, self.state)

    def __call__(self) -> tuple[float, float]:
        self.params, self.state, *report = self.update(self.params, self.state)
        total, norm = map(float, report)
        return total, norm


# --- PyTorch ---


def torch_step() -> Any | None:
    """The module with PyTorch's side, if PyTorch is installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    # Read when PyTorch loads OpenMP, whose idle threads would otherwise spin, and take the cores
    # from the JAX steps in between.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    return importlib.import_module("benchmarks.torch_step")


def draws(work: Problem) -> tuple[jax.Array, jax.Array]:
    """The signs and steps, `[K, n]`, that the loss draws from the key."""
    count, share = work.members, len(work.starts) // work.members

    def draw(key):
        sign_key, step_key, _ = jax.random.split(key, 3)
        signs = jax.random.rademacher(sign_key, (share,), jnp.float32)
        return signs, jax.random.randint(step_key, (share,), 0, work.horizon)

    return jax.vmap(draw)(jax.random.split(work.key, count))


def peers(size: Size) -> list[str]:
    """The PyTorch variants that run at a size; none without PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return []
    return [
        name for name, (_, stacked) in PEERS.items() if not stacked or size.latent <= STACKED_UP_TO
    ]


def peer(work: Problem, name: str, decoder: Any = None, weights: Any = None) -> Any:
    """The same step in PyTorch, from the same parameters.

    Args:
        work: the step.
        name: a key of `PEERS`.
        decoder: the generator in PyTorch, `(weights, z) -> images`; that of the VAE by default.
        weights: its parameters.
    """
    torch_side: Any = torch_step()
    starts = work.starts
    signs, chosen = draws(work)

    def tensors(tree):
        return jax.tree.map(lambda leaf: torch_side.torch.tensor(np.asarray(leaf)), tree)

    numbers = torch_side.Numbers(
        potentials=tensors(work.params["potentials"]["params"]),
        coefficients=tensors(work.params["coefficients"]),
        classifier=tensors(work.params["classifier"]["params"]),
        decoder=tensors(weights or work.decoder[1]),
        starts=tensors(starts.reshape(-1, work.members, starts.shape[1]).swapaxes(0, 1)),
        signs=tensors(signs),
        chosen=tensors(chosen).long(),
    )
    setting = torch_side.Setting(
        decoder=decoder or partial(torch_side.decode, work.decoder[0]),
        horizon=work.horizon,
        pace=PACE,
        weights=asdict(PotentialFlowWeights()),
        learning_rate=LEARNING_RATE,
    )
    return torch_side.Step(numbers, setting, *PEERS[name])


def difference(ours: tuple[float, float], theirs: tuple[float, float]) -> float:
    """The larger relative difference of two sides' losses and gradient norms.

    >>> difference((1.0, 2.0), (1.0, 2.5))
    0.25
    """
    return max(abs(b - a) / abs(a) for a, b in zip(ours, theirs, strict=True))


# --- measurements ---


def compare(config: Config, size: Size, table: Table) -> list[dict[str, Any]]:
    """JAX and every PyTorch variant at one size, in turns.

    Raises:
        AssertionError: the first steps do not have the same loss and gradient.
    """
    work = problem(size)
    step = Step(work)
    steps = {"JAX": step} | {name: peer(work, name) for name in peers(size)}
    first = {name: step() for name, step in steps.items()}
    differences = {name: difference(first["JAX"], found) for name, found in first.items()}
    for name, found in differences.items():
        if PEERS.get(name, ("",))[0] == "row sums":
            differences[name] = math.nan
        elif not found < TOLERANCE:
            raise AssertionError(f"{name}: loss or gradient differs from JAX by {found:.1e}")
    for name in peers(size):
        choose_threads(steps[name])
    taken = medians(steps, (), repeats(steps, config))
    rows = []
    for name, seconds in taken.items():
        row = {"side": name, "latent": size.latent, "seconds": seconds}
        row |= {"ratio": seconds / taken["JAX"], "difference": _finite(differences[name])}
        row["threads"] = getattr(steps[name], "threads", None)
        rows.append(row)
        table.add_row(
            str(size.latent),
            name,
            f"{1e3 * seconds:.1f}",
            f"{row['ratio']:.2f}",
            str(row["threads"] or ""),
            f"{step.compile_seconds:.1f}" if name == "JAX" else "",
            "other loss" if math.isnan(differences[name]) else f"{differences[name]:.0e}",
        )
    rows[0]["compile_seconds"] = step.compile_seconds
    table.add_section()
    return rows


def choose_threads(step: Any) -> None:
    """Give a PyTorch step one thread or one a core, whichever is faster.

    Its operations are small: where another process takes a core, every one of them waits for a
    thread that does not run, and a step on two threads was ten times slower than on one.
    """
    seconds = {}
    for step.threads in {1, os.cpu_count() or 1}:
        seconds[step.threads] = medians({"": step}, (), 2)[""]
    step.threads = min(seconds, key=seconds.__getitem__)


def repeats(steps: Mapping[str, Callable[[], Any]], config: Config) -> int:
    """How many turns the patience allows, by the time of one."""
    start = time.perf_counter()
    for step in steps.values():
        step()
    return max(3, min(config.repeats, int(config.patience / (time.perf_counter() - start))))


def peak_memory(size: Size, side: str) -> float:
    """Peak memory in MiB of a process that makes three steps, and nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory, size, side).result()


def _peak_memory(size: Size, side: str) -> float:
    prepare()
    work = problem(size)
    step = Step(work) if side == "JAX" else peer(work, side)
    for _ in range(3):
        step()
    status = Path("/proc/self/status")
    if status.exists():
        # Linux carries ru_maxrss over from the process that started this one.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def sweeps(config: Config) -> dict[str, list[Size]]:
    """Sizes that differ from the usual one in one number each."""
    counts, latents, batches = (2, 4, 16, 64), (8, 64, 324), (16, 64, 256)
    if config.quick:
        counts, latents, batches = (2, 4), (4, 8), (8, 16)  # type: ignore[assignment]
    return {
        "count": [replace(config.size, count=k, batch=max(config.size.batch, k)) for k in counts],
        "latent": [replace(config.size, latent=d) for d in latents],
        "batch": [replace(config.size, batch=b) for b in batches],
    }


def prepare() -> None:
    """No programs from a cache, so that compiling is timed."""
    jax.config.update("jax_enable_compilation_cache", False)


def main(config: Config) -> None:
    """Measure and print."""
    prepare()
    if config.quick:
        small = replace(config.size, latent=8, count=4, batch=16, horizon=4, width=16)
        config = replace(config, size=small, latents=(8,), repeats=3)
    console, rows = Console(), []
    if torch_step() is None:
        console.print(NO_TORCH, markup=False)
    if "peers" in config.parts:
        table = _table(
            config,
            "latent, side*, ms, times JAX, threads, compile s, difference",
        )
        for latent in config.latents:
            rows += compare(config, replace(config.size, latent=latent), table)
        console.print(table)
    if "memory" in config.parts:
        table = _table(config, "latent, side*, peak MiB of the process")
        for latent in config.latents:
            for side in ("JAX", *peers(replace(config.size, latent=latent))):
                peak = peak_memory(replace(config.size, latent=latent), side)
                rows.append({"side": side, "latent": latent, "peak_mib": peak})
                table.add_row(str(latent), side, f"{peak:.0f}")
            table.add_section()
        console.print(table)
    if "growth" in config.parts:
        table = _table(config, "changed*, value, ms a step, compile s")
        for name, sizes in sweeps(config).items():
            for size in sizes:
                step = Step(problem(size))
                seconds = medians({"JAX": step}, (), repeats({"JAX": step}, config))["JAX"]
                rows.append({"side": "JAX", **asdict(size), "seconds": seconds})
                value = str(getattr(size, name))
                table.add_row(name, value, f"{1e3 * seconds:.1f}", f"{step.compile_seconds:.1f}")
            table.add_section()
        console.print(table)
    if config.json:
        Path(config.json).write_text(json.dumps(rows, indent=2) + "\n")


def _finite(number: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(number) else number


def _table(config: Config, columns: str) -> Table:
    """An empty table; a column whose name ends in * holds words."""
    size = config.size
    table = Table(
        title=f"One training step: K = {size.count}, batch {size.batch}, T = {size.horizon}, "
        f"{size.decoder} decoder; {jax.devices()[0].device_kind}, JAX {jax.__version__}"
    )
    for column in columns.split(", "):
        table.add_column(
            column.rstrip("*"),
            no_wrap="*" not in column,
            justify="left" if "*" in column else "right",
        )
    return table


if __name__ == "__main__":
    main(tyro.cli(Config))

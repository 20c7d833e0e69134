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

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks import table, training_step
from benchmarks.command import Flags, Results, command
from benchmarks.own_process import in_own_process, peak_mib
from benchmarks.passes import images_and_gradients
from benchmarks.peers import NO_TORCH, has, tensors, torch_module
from benchmarks.ratio import compared
from benchmarks.training_step import LEARNING_RATE, OURS, Step
from benchmarks.turns import median, no_cached_programs, patient_turns
from latent_flows import objectives, pde
from latent_flows.classifiers import PairClassifier, pair_features
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.objectives import FlowSample, PotentialFlowWeights
from latent_flows.potentials import PotentialNet, init_stack
from latent_flows.traversals import climbing
from latent_flows.typing import Generator, Scalar

IMAGE = (28, 28, 1)
PACE = 1.0
BOX = 2.0
"""Half the width of the box that paths should stay in."""
Way: TypeAlias = Literal[
    "torch loop, columns",
    "torch loop, hessian",
    "torch stacked, columns",
    "torch stacked, hessian",
    "torch loop, row sums",
]
PEERS: dict[str, tuple[str, bool]] = {
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
class Config(Flags):
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
    processes: int = 3
    """Of each side, whose peaks are measured."""
    weighed: tuple[Way, ...] = get_args(Way)
    """PyTorch's ways whose peaks are measured beside that of JAX."""
    quick: bool = False
    """Small sizes, in seconds: to see that it runs."""


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

    @property
    def passes(self) -> tuple[Any, ...]:
        """What no way of training could do without, and its arguments: two images a start."""
        zs = jnp.concatenate([self.starts, self.starts])
        images = jax.eval_shape(jax.vmap(self.generator), zs)
        return partial(images_and_gradients, self.generator), zs, images


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


# --- PyTorch ---


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
    if not has("torch"):
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
    torch_side: Any = torch_module("benchmarks.torch_step")
    starts = work.starts
    signs, chosen = draws(work)

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


# --- measurements ---


def compare(config: Config, size: Size) -> Results:
    """JAX and every PyTorch variant at one size, in turns."""
    work = problem(size)
    return training_step.compare(
        f"potential-flow step, latent {size.latent}",
        Step(work),
        {name: peer(work, name) for name in peers(size)},
        repeats=config.repeats,
        patience=config.patience,
        other_losses=[name for name, (way, _) in PEERS.items() if way == "row sums"],
    )


def peak(size: Size, side: str) -> float:
    """Peak memory in MiB of a process that makes three steps, and nothing else."""
    no_cached_programs()
    work = problem(size)
    step = Step(work) if side == OURS else peer(work, side)
    for _ in range(3):
        step()
    return peak_mib()


def peaks(config: Config, size: Size) -> Results:
    """Peak memory of JAX and of every PyTorch variant, each in processes of its own, in turns."""
    sides = (OURS, *(name for name in peers(size) if name in config.weighed))
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(config.processes):
        for side in sides:
            found[side].append(in_own_process(peak, size, side))
    rows = [
        {"side": side, "latent": size.latent, "peak_mib": median(each)}
        for side, each in found.items()
    ]
    name = f"potential-flow step, latent {size.latent}: peak memory"
    return Results(rows, compared(name, found, ours=OURS, unit="MiB"))


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


def main(config: Config) -> Results:
    """Measure and print."""
    no_cached_programs()
    if config.quick:
        small = replace(config.size, latent=8, count=4, batch=16, horizon=4, width=16)
        config = replace(config, size=small, latents=(8,), repeats=3)
    console, found = table.console(), Results()
    if not has("torch"):
        console.print(NO_TORCH, markup=False)
    if "memory" in config.parts:
        # First, while this process has none of an accelerator's memory.
        each = {n: peaks(config, replace(config.size, latent=n)) for n in config.latents}
        shown = _table(config, "latent, side*, peak MiB of the process")
        for latent, here in each.items():
            for row in here.rows:
                shown.add_row(str(latent), row["side"], f"{row['peak_mib']:.0f}")
            shown.add_section()
            found += here
        console.print(shown)
    if "peers" in config.parts:
        shown = _table(config, "latent, side*, ms, times JAX, threads, compile s, difference")
        for latent in config.latents:
            here = compare(config, replace(config.size, latent=latent))
            for row in here.rows:
                row["latent"] = latent
                shown.add_row(str(latent), *training_step.cells(row))
            shown.add_section()
            found += here
        console.print(shown)
        training_step.show_shares(console, found)
    if "growth" in config.parts:
        shown = _table(config, "changed*, value, ms a step, compile s")
        for name, sizes in sweeps(config).items():
            for size in sizes:
                step = Step(problem(size))
                step()
                taken = patient_turns({OURS: step}, config.repeats, config.patience)
                seconds = median(taken[OURS])
                found.rows.append({"side": OURS, **asdict(size), "seconds": seconds})
                value = str(getattr(size, name))
                shown.add_row(name, value, f"{1e3 * seconds:.1f}", f"{step.compile_seconds:.1f}")
            shown.add_section()
        console.print(shown)
    return found


def _table(config: Config, columns: str) -> Table:
    size = config.size
    return table.empty(
        f"One training step: K = {size.count}, batch {size.batch}, T = {size.horizon}, "
        f"{size.decoder} decoder; {jax.devices()[0].device_kind}, JAX {jax.__version__}",
        columns,
    )


if __name__ == "__main__":
    command(main, __doc__, Config)

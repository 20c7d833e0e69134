"""One training step of a VAE trained with potentials: JAX against eager PyTorch, and its growth.

Run as `python -m benchmarks.joint_step`. The step is the loss of `objectives.joint_terms`, of known
factors, its gradient and an update by Adam: both images of each pair encoded and decoded, the flow
by the midpoint rule from one code to the other, the change of density along it, and the wave
equation's residual, with exact Laplacians. Both sides hold the same parameters, images and draws;
losses and gradients are compared before any clock starts, and the steps take turns.

Rows of PyTorch: a loop over the K potentials, or all stacked as batched products; the Laplacian by
one backward pass a coordinate, or as the trace of `vmap(hessian)`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks import table, training_step
from benchmarks.command import Flags, Results, command
from benchmarks.passes import bound_and_gradient
from benchmarks.peers import NO_TORCH, has, tensors, torch_module
from benchmarks.potential_flows import PEERS as ALL_PEERS
from benchmarks.training_step import LEARNING_RATE, OURS, Step
from benchmarks.turns import median, no_cached_programs, patient_turns
from latent_flows import objectives, pde
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.potentials import PotentialNet, init_stack
from latent_flows.typing import Scalar

IMAGE = (28, 28, 1)
WEIGHTS = {"transport": 0.5, "matching": 0.02, "residual": 1.0}
PEERS = {name: way for name, way in ALL_PEERS.items() if "row sums" not in way}
"""PyTorch's ways, and the arguments of `torch_joint.Step` for each."""


@dataclass(frozen=True)
class Size:
    """How large the step is."""

    latent: int = 64
    """Length of a latent."""
    count: int = 16
    """Number of potentials, K."""
    batch: int = 64
    """Pairs of images, over all potentials together."""
    frames: int = 11
    """Images of a sequence: the flow runs for up to one less units of time."""
    steps: int = 3
    """Steps of the midpoint rule."""
    width: int = 64
    """Units of a hidden layer of a potential; the VAE's have eight times half as many."""
    prior: Literal["flowed", "standard"] = "flowed"
    """Prior of the later code: with the change of density along the flow, or without a flow."""


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    size: Size = Size()
    """Size of a step, where nothing else is said."""
    parts: tuple[Literal["peers", "growth"], ...] = ("peers", "growth")
    """peers: against PyTorch; growth: JAX alone against K, at the same batch."""
    counts: tuple[int, ...] = (1, 4, 16, 64)
    """Numbers of potentials for growth."""
    repeats: int = 21
    """Timed steps of each, of which the median counts."""
    patience: float = 40.0
    """Seconds after which a comparison makes do with fewer repeats, but at least 3."""


class Problem(NamedTuple):
    """One step to make, with all it needs."""

    size: Size
    vae: VAE
    net: PotentialNet
    params: Any
    key: jax.Array
    before: jax.Array
    after: jax.Array
    t: jax.Array

    def value(self, params: Any) -> Scalar:
        """The loss, per pixel."""
        vae, own = self.vae, params["vae"]
        apply: Any = vae.apply
        net: Any = self.net.apply
        first, second, _ = jax.random.split(self.key, 3)
        codes = objectives.encode_pairs(
            (first, second),
            lambda x: apply(own, x, method=vae.encode),
            self.before,
            self.after,
        )
        moved = objectives.transport_codes(
            lambda own, t, z: net(own[0], t, z),
            (params["potentials"], params["coefficients"]),
            codes,
            self.t,
            equation=lambda own, u: pde.wave(u, pde.coefficient(own[1])),
            flowed=self.size.prior == "flowed",
            steps=self.size.steps,
        )
        terms = objectives.joint_terms(
            lambda x, z: apply(own, x, z, method=vae.log_likelihood),
            self.before,
            self.after,
            codes,
            moved,
        )
        return objectives.joint_sum(terms, **WEIGHTS) / self.before[0, 0].size

    @property
    def passes(self) -> tuple[Any, ...]:
        """What no way of training could do without, and its arguments: the bound of both images."""
        images = jnp.stack([self.before, self.after]).reshape(-1, *self.vae.image_shape)
        return partial(bound_and_gradient, self.vae), self.params["vae"], self.key, images


def problem(size: Size) -> Problem:
    """A step at random parameters, on random images."""
    keys = jax.random.split(jax.random.key(0), 5)
    width = max(size.width // 2, 1)
    vae = VAE(VAEConfig(latent_dim=size.latent, encoder="mlp", decoder="mlp", width=width), IMAGE)
    net = PotentialNet(width=size.width, horizon=size.frames - 1.0)
    share = size.batch // size.count
    before, after = jax.random.uniform(keys[0], (2, share, size.count, *IMAGE))
    t = jax.random.randint(keys[1], (share, size.count), 1, size.frames).astype(float)
    params = {
        "vae": vae.init(keys[2], jnp.zeros(IMAGE)),
        "potentials": init_stack(net, keys[4], size.count, size.latent),
        "coefficients": jnp.full((size.count,), 0.5),
    }
    return Problem(size, vae, net, params, keys[3], before, after, t)


def peer(work: Problem, name: str) -> Any:
    """The same step in PyTorch, from the same parameters, images and draws.

    Args:
        work: the step.
        name: a key of `PEERS`.
    """
    torch_joint: Any = torch_module("benchmarks.torch_joint")

    def by_factor(leaf):
        leaf = jnp.swapaxes(leaf, 0, 1)
        return leaf.reshape(*leaf.shape[:2], -1) if leaf.ndim > 2 else leaf

    shape = (*work.t.shape, work.size.latent)
    draw_keys = jax.random.split(work.key, 3)[:2]
    numbers = torch_joint.Numbers(
        vae=tensors(work.params["vae"]["params"]),
        potentials=tensors(work.params["potentials"]["params"]),
        coefficients=tensors(work.params["coefficients"]),
        before=tensors(by_factor(work.before)),
        after=tensors(by_factor(work.after)),
        t=tensors(by_factor(work.t)),
        noise=tuple(tensors(by_factor(jax.random.normal(key, shape))) for key in draw_keys),
    )
    setting = torch_joint.Setting(
        horizon=work.size.frames - 1,
        steps=work.size.steps,
        flowed=work.size.prior == "flowed",
        weights=WEIGHTS,
        learning_rate=LEARNING_RATE,
    )
    return torch_joint.Step(numbers, setting, *PEERS[name])


def compare(config: Config) -> Results:
    """JAX and every PyTorch variant, in turns."""
    work = problem(config.size)
    names = [*PEERS] if has("torch") else []
    return training_step.compare(
        f"joint step, latent {config.size.latent}, K = {config.size.count}",
        Step(work),
        {name: peer(work, name) for name in names},
        repeats=config.repeats,
        patience=config.patience,
    )


def growth(config: Config, shown: Table) -> Results:
    """JAX alone at several K, with the same batch shared out among the potentials, in turns."""
    steps = {k: Step(problem(replace(config.size, count=k))) for k in config.counts}
    named = {str(k): step for k, step in steps.items()}
    for step in steps.values():
        step()
    taken = patient_turns(named, config.repeats, config.patience)
    first = median(taken[str(config.counts[0])])
    rows: list[dict[str, Any]] = []
    for k, step in steps.items():
        seconds = median(taken[str(k)])
        rows.append({"side": OURS, "count": k, "seconds": seconds})
        cells = f"{1e3 * seconds:.1f}", f"{seconds / first:.2f}", f"{step.compile_seconds:.1f}"
        shown.add_row(str(k), *cells)
    return Results(rows)


def main(config: Config) -> Results:
    """Measure and print."""
    no_cached_programs()
    console, found = table.console(), Results()
    size = config.size
    about = (
        f"latent {size.latent}, batch {size.batch}, {size.prior} prior; "
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}"
    )
    if not has("torch"):
        console.print(NO_TORCH, markup=False)
    if "peers" in config.parts:
        shown = table.empty(
            f"One joint training step: K = {size.count}, {about}",
            "side*, ms, times JAX, threads, compile s, difference",
        )
        found += compare(config)
        for row in found.rows:
            shown.add_row(*training_step.cells(row))
        console.print(shown)
        training_step.show_shares(console, found)
    if "growth" in config.parts:
        shown = table.empty(
            f"One joint training step against K: {about}", "K, ms, times the first, compile s"
        )
        found += growth(config, shown)
        console.print(shown)
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)

"""One training step of potential flows on SNGAN at 64 pixels: JAX against eager PyTorch, memory.

Run as `python -m benchmarks.gan_step`. The step is that of `benchmarks.potential_flows`, with the
published generator in place of a decoder: loss, gradient, update; the same parameters and draws on
both sides, compared before any clock starts, and steps in turns. `--model
stylegan2-1024 --no-run` gives what a step needs by the compiler's account, without running it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from rich.table import Table

from benchmarks import potential_flows as decoders
from benchmarks import table, training_step
from benchmarks.command import Flags, Results, command
from benchmarks.matmul import operations
from benchmarks.peers import NO_TORCH, has
from benchmarks.training_step import LEARNING_RATE, OURS, TOLERANCE
from benchmarks.turns import compiled, no_cached_programs
from experiments.runtime.memory import needs
from latent_flows.generators import sngan, stylegan2
from latent_flows.generators.memory import cast_and_remat, remat_layers
from latent_flows.potentials import PotentialNet
from latent_flows.typing import Generator

Model: TypeAlias = Literal["sngan-mnist", "sngan-animefaces", "stylegan2-256", "stylegan2-1024"]
NETS: dict[str, Any] = sngan.PRESETS | stylegan2.PRESETS


@dataclass(frozen=True)
class Size:
    """How large the step is; as published by default."""

    count: int = 32
    """Number of potentials, K."""
    batch: int = 32
    """Starting points, over all potentials together; twice as many images are made."""
    horizon: int = 20
    """Steps of a path, T."""
    width: int = 128
    """Units of a hidden layer of a potential."""


@dataclass(frozen=True)
class Thrift:
    """What saves memory."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the generator computes in."""
    checkpoint: bool = False
    """Compute the generator's features again on the way back."""
    at_once: int = 0
    """Image pairs that the generator makes at once; 0: all."""


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    model: Model = "sngan-animefaces"
    """The published generator, at random weights."""
    size: Size = Size()
    """Size of a step."""
    thrift: Thrift = Thrift()
    """What saves memory."""
    peer: decoders.Way | Literal[""] = "torch stacked, columns"
    """The PyTorch variant; "": none. See `benchmarks.potential_flows`."""
    run: bool = True
    """Run the step and not only compile it."""
    repeats: int = 7
    """Timed steps of each side, of which the median counts."""
    patience: float = 120.0
    """Seconds after which fewer repeats do, but at least 3."""
    threads: int = 0
    """Threads of PyTorch; 0: one or one a core, whichever is faster."""
    channels: tuple[int, ...] = ()
    """Features of the generator, instead of the published ones: to see that it runs."""


class Work(NamedTuple):
    """One step to make, of which the arrays may be shapes only."""

    net: PotentialNet
    size: Size
    at_once: int
    generator: Callable[[Any], Generator]
    """From the network's variables."""
    image_shape: tuple[int, ...]
    variables: Any
    starts: Any

    def problem(self, variables: Any, starts: Any, params: Any) -> decoders.Problem:
        """The step, from parameters of what is learnt."""
        return decoders.Problem(
            net=self.net,
            generator=self.generator(variables),
            params=params,
            key=jax.random.key(2),
            starts=starts,
            horizon=self.size.horizon,
            at_once=self.at_once,
        )


def network(config: Config) -> Any:
    """The generator's module."""
    net = NETS[config.model]
    return net.clone(channels=config.channels) if config.channels else net


def prepared(config: Config) -> Work:
    """The step, with shapes in place of arrays."""
    net, size, thrift = network(config), config.size, config.thrift
    if thrift.checkpoint:
        net = remat_layers(net)

    def generator(variables: Any) -> Generator:
        apply: Any = net.apply
        return cast_and_remat(apply, variables, dtype=thrift.dtype, recompute=thrift.checkpoint)

    latent = jax.ShapeDtypeStruct((net.latent_dim,), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), latent)
    flows = PotentialNet(width=size.width, horizon=float(size.horizon), initial="free")
    image = jax.eval_shape(lambda v, z: generator(v)(z), variables, latent)
    starts = jax.ShapeDtypeStruct((size.batch, net.latent_dim), jnp.float32)
    return Work(flows, size, thrift.at_once, generator, image.shape, variables, starts)


def filled(config: Config) -> Work:
    """The step, with arrays."""
    work, net = prepared(config), network(config)
    first, second = jax.random.split(jax.random.key(0))
    # One layer after the other: as a single program it takes minutes to compile.
    variables = net.init(first, jnp.zeros(net.latent_dim))
    return work._replace(variables=variables, starts=jax.random.normal(second, work.starts.shape))


def begin(work: Work) -> tuple[Any, Any]:
    """Parameters of potentials and classifier, and the optimiser's state."""
    image, dim = jnp.zeros(work.image_shape), work.starts.shape[1]
    params = decoders.initial(work.net, jax.random.key(1), work.size.count, dim, image)
    return params, optax.adam(LEARNING_RATE).init(params)


def update(work: Work) -> Callable:
    """`(variables, starts, params, state) -> (params, state, loss, gradient norm)`."""

    def step(variables: Any, starts: jax.Array, params: Any, state: Any) -> tuple:
        value = work.problem(variables, starts, params).value
        total, gradient = jax.value_and_grad(value)(params)
        change, state = optax.adam(LEARNING_RATE).update(gradient, state, params)
        return optax.apply_updates(params, change), state, total, optax.global_norm(gradient)

    return step


class Step:
    """One compiled training step a call; returns the loss and gradient norm before it."""

    def __init__(self, work: Work):
        self.fixed = (work.variables, work.starts)
        self.learnt = jax.jit(lambda: begin(work))()
        self.operations = operations(*work.problem(*self.fixed, self.learnt[0]).passes)
        self.update, self.compile_seconds = compiled(update(work), *self.fixed, *self.learnt)

    def __call__(self) -> tuple[float, float]:
        *self.learnt, total, norm = self.update(*self.fixed, *self.learnt)  # type: ignore[assignment]
        return float(total), float(norm)


def compile_only(config: Config) -> tuple[Any, float]:
    """The compiled step, of shapes alone."""
    work = prepared(config)
    learnt = jax.eval_shape(lambda: begin(work))
    return compiled(update(work), work.variables, work.starts, *learnt)


def torch_side(config: Config, work: Work, step: Step) -> Any:
    """The same step in PyTorch, from the same parameters."""
    from benchmarks import torch_sngan  # only where PyTorch is

    problem = work.problem(work.variables, work.starts, step.learnt[0])
    return decoders.peer(problem, config.peer, torch_sngan.images, work.variables)


def measure(config: Config) -> Results:
    """The rows of one configuration."""
    if not config.run:
        program, seconds = compile_only(config)
        row = {"side": OURS, **asdict(config.thrift), "compile_seconds": seconds}
        return Results([row | {"memory": needs(program)}])
    work = filled(config)
    step = Step(work)
    size = config.size
    found = training_step.compare(
        f"potential-flow step on {config.model}, K = {size.count}, batch {size.batch}",
        step,
        {config.peer: torch_side(config, work, step)} if config.peer and has("torch") else {},
        repeats=config.repeats,
        patience=config.patience,
        threads=config.threads,
        # What is computed in fewer digits differs by them.
        tolerance=TOLERANCE if config.thrift.dtype == "float32" else float("inf"),
    )
    found.rows = [row | asdict(config.thrift) for row in found.rows]
    found.rows[0]["memory"] = needs(step.update)
    return found


def _show(shown: Table, config: Config, row: dict[str, Any]) -> None:
    taken = row.get("memory", {})
    shown.add_row(
        config.model,
        row["side"],
        *(f"{row[name]:.2f}" if name in row else "" for name in ("seconds", "ratio")),
        *(f"{row[name]:.1f}" if name in row else "" for name in ("compile_seconds",)),
        *(f"{taken[name]:.2f}" if name in taken else "" for name in ("temp", "total")),
        f"{row['difference']:.0e}" if "difference" in row else "",
    )


def main(config: Config) -> Results:
    """Measure and print."""
    no_cached_programs()
    console = table.console()
    if config.model.startswith("stylegan2"):
        config = replace(config, peer="")
    if config.run and config.peer and not has("torch"):
        console.print(NO_TORCH, markup=False)
    size, thrift = config.size, config.thrift
    shown = table.empty(
        f"K = {size.count}, batch {size.batch}, T = {size.horizon}, width {size.width}; "
        f"{thrift.dtype}, checkpoint {thrift.checkpoint}, at once {thrift.at_once or 'all'}",
        "model*, side*, s a step, times JAX, compile s, GiB of features, GiB, difference",
    )
    found = measure(config)
    for row in found.rows:
        _show(shown, config, row)
    console.print(shown)
    training_step.show_shares(console, found)
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)

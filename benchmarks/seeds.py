"""How several seeds of a training are best run: in turn, as one vmapped program, or side by side.

Run as `python -m benchmarks.seeds`. Each seed makes the same training steps of potential flows,
from parameters and draws of its own: one seed after the other on all cores; all of them as one
program, vmapped over their parameters; and each in a process of its own, on its share of the cores,
as `experiments.table run --at-once` does it.
"""

import multiprocessing
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks import potential_flows as decoders
from benchmarks import table
from benchmarks.command import Flags, Results, command
from benchmarks.ratio import compared
from benchmarks.training_step import LEARNING_RATE
from benchmarks.turns import compiled, median, no_cached_programs, patient_turns
from experiments.results.workers import available_cores, keep_to, shares

IN_TURN, VMAPPED, BESIDE = "one after the other", "one vmapped program", "processes side by side"


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    seeds: int = 2
    """Seeds; as many processes, each of which needs a core."""
    size: decoders.Size = field(
        default_factory=lambda: decoders.Size(latent=6, count=4, batch=32, decoder="conv")
    )
    """Size of a step."""
    steps: int = 20
    """Training steps of each seed in a turn."""
    repeats: int = 7
    """Turns."""
    patience: float = 60.0
    """Seconds after which fewer turns do, but at least 3."""


class Seeds:
    """Training steps of some seeds, vmapped over them where there are several."""

    def __init__(self, config: Config, seeds: range):
        work, optimiser = decoders.problem(config.size), optax.adam(LEARNING_RATE)
        image = jnp.zeros(decoders.IMAGE)

        def initial(key: jax.Array) -> Any:
            params = decoders.initial(work.net, key, config.size.count, config.size.latent, image)
            return params, optimiser.init(params), key

        def step(params: Any, state: Any, key: jax.Array) -> Any:
            key, draws = jax.random.split(key)
            gradient = jax.grad(work._replace(key=draws).value)(params)
            change, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, change), state, key

        keys = jax.vmap(jax.random.key)(jnp.arange(seeds.start, seeds.stop))
        one = len(seeds) == 1
        # As one program: on a GPU the hundreds that it would be otherwise take minutes to compile.
        self.carried = jax.jit(initial if one else jax.vmap(initial))(keys[0] if one else keys)
        self.update, _ = compiled(step if one else jax.vmap(step), *self.carried)
        self.steps = config.steps

    def __call__(self) -> None:
        for _ in range(self.steps):
            self.carried = self.update(*self.carried)
        jax.block_until_ready(self.carried)


def serve(config: Config, seed: int, cores: set[int], line: Connection) -> None:
    """Make the steps of a seed once, and each time that the line says so, until it is closed."""
    keep_to(0, cores)
    no_cached_programs()
    train = Seeds(config, range(seed, seed + 1))
    with suppress(EOFError, BrokenPipeError):  # whoever asks has ended
        while True:
            train()
            line.send(seed)
            line.recv()


class Beside:
    """A process for each seed, on its share of the cores."""

    def __init__(self, config: Config, stack: ExitStack):
        spawn = multiprocessing.get_context("spawn")
        self.lines = []
        for seed, cores in enumerate(shares(available_cores(), config.seeds)):
            own, other = spawn.Pipe()
            process = spawn.Process(target=serve, args=(config, seed, cores, other), daemon=True)
            process.start()
            stack.callback(process.terminate)
            self.lines.append(own)
        self.wait()

    def wait(self) -> None:
        """Until each has made its steps."""
        for line in self.lines:
            line.recv()

    def __call__(self) -> None:
        for line in self.lines:
            line.send(True)
        self.wait()


def main(config: Config) -> Results:
    """Measure and print."""
    cores = len(available_cores())
    if not 2 <= config.seeds <= cores:
        raise ValueError(f"seeds must lie in [2, {cores}], a core for each, got {config.seeds}")
    no_cached_programs()
    each = [Seeds(config, range(seed, seed + 1)) for seed in range(config.seeds)]

    def in_turn() -> None:
        for train in each:
            train()

    with ExitStack() as stack:
        sides: dict[str, Callable[[], None]] = {
            BESIDE: Beside(config, stack),
            IN_TURN: in_turn,
            VMAPPED: Seeds(config, range(config.seeds)),
        }
        for side in sides.values():
            side()
        taken = patient_turns(sides, config.repeats, config.patience)
    shown = table.empty(
        f"{config.steps} training steps of each of {config.seeds} seeds, {cores} cores; "
        f"{jax.devices()[0].device_kind}",
        "seeds*, ms a step and seed",
    )
    rows = []
    for name, seconds in taken.items():
        milliseconds = 1e3 * median(seconds) / config.steps / config.seeds
        rows.append({"side": name, "ms": milliseconds})
        shown.add_row(name, f"{milliseconds:.1f}")
    table.console().print(shown)
    return Results(rows, compared("several seeds", taken, ours=BESIDE))


if __name__ == "__main__":
    command(main, __doc__, Config)

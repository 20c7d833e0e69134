"""The one training loop: data-parallel, resumable to the bit, and stopped by the first NaN."""

import contextlib
import itertools
import math
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from experiments.runtime import checkpoints, interrupts, memory, multihost
from experiments.runtime.checks import check_shares
from experiments.runtime.errors import Failure, UsageError
from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Folder
from latent_flows import data
from latent_flows._validation import at_least, fractions
from latent_flows.data import Dataset
from latent_flows.typing import Scalar

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

Params: TypeAlias = PyTree
Batch: TypeAlias = Mapping[str, Array]
Init: TypeAlias = Callable[[PRNGKeyArray], Params]
Loss: TypeAlias = Callable[
    [Params, PRNGKeyArray, Int[Array, ""], Batch], tuple[Scalar, dict[str, Scalar]]
]
Batches: TypeAlias = Callable[[int, NamedSharding], Iterable[Mapping[str, Any]]]

LAG = 4  # steps the host may run ahead of the device before it looks at their metrics


@dataclass(frozen=True)
class Training:
    """How to optimise."""

    steps: int = 1000
    """Number of optimiser steps. With more of them and the same other flags a finished run goes on,
    unless its step size decays; what was made of it is made anew."""
    batch_size: int = 64
    """Examples per step, over all devices together."""
    learning_rate: float = 1e-3
    """Step size of Adam, at its peak."""
    warmup: int = 0
    """Steps over which the step size rises from zero to its peak."""
    decay: Literal["none", "cosine"] = "none"
    """How the step size falls after the warm-up: not at all, or to zero along a cosine."""
    b1: float = 0.9
    """How much of the mean gradient a step of Adam keeps."""
    b2: float = 0.999
    """How much of the mean squared gradient a step of Adam keeps: with less, large gradients of the
    first steps shorten those that follow for a shorter time."""
    clip: float = 1.0
    """Largest norm of the gradient; a longer one is shortened to it. 0 turns this off."""
    log_every: int = 50
    """Steps between two rows of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between two checkpoints."""

    def __post_init__(self) -> None:
        at_least(self, steps=1, batch_size=1, log_every=1, checkpoint_every=1, clip=0)
        if not 0 <= self.warmup <= self.steps:
            raise ValueError(f"warmup must lie in [0, steps={self.steps}], got {self.warmup}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        fractions(self, "", "b1", "b2")


class State(NamedTuple):
    """What a step changes, and a checkpoint holds.

    step: number of steps done.
    params: what is being learnt.
    opt_state: all else: the optimiser's memory.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: PyTree


Begin: TypeAlias = Callable[[PRNGKeyArray], State]
Update: TypeAlias = Callable[[State, PRNGKeyArray, Batch], tuple[State, dict[str, Scalar]]]


def optimizer(config: Training) -> optax.GradientTransformation:
    """Adam with a clipped gradient, a warm-up and, if asked for, a cosine decay.

    Args:
        config: how to optimise.

    >>> optimizer(Training()).init({"w": jnp.zeros(2)}) is not None
    True
    """
    rate: optax.ScalarOrSchedule = config.learning_rate
    if config.decay == "cosine":
        rate = optax.warmup_cosine_decay_schedule(
            0.0 if config.warmup else config.learning_rate,
            config.learning_rate,
            config.warmup,
            # optax wants the decay to be longer than the warm-up.
            max(config.steps, config.warmup + 1),
        )
    elif config.warmup:
        rate = optax.linear_schedule(0.0, config.learning_rate, config.warmup)
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(clip, optax.adam(rate, b1=config.b1, b2=config.b2))


def shuffled(dataset: Dataset, config: Training, seed: int) -> Batches:
    """The batches of a data set, as `fit` and `advance` ask for them."""

    def batches(start: int, sharding: NamedSharding) -> Iterator[dict[str, Any]]:
        return data.batches(
            dataset, batch_size=config.batch_size, seed=seed, start=start, sharding=sharding
        )

    return batches


def drawn(rows: Mapping[str, np.ndarray], size: int, seed: int) -> Batches:
    """Batches of rows that are drawn with replacement, as `fit` and `advance` ask for them.

    Args:
        rows: arrays in memory that share their first axis.
        size: of a batch.
        seed: of what is drawn, together with the step.

    >>> rows = {"z": np.arange(4)}
    >>> later, sooner = (iter(drawn(rows, 3, 0)(start, None)) for start in (1, 0))
    >>> _ = next(sooner)
    >>> bool((next(later)["z"] == next(sooner)["z"]).all())
    True
    """
    count = len(next(iter(rows.values())))

    def batches(start: int, sharding: NamedSharding) -> Iterator[dict[str, Any]]:
        del sharding
        for step in itertools.count(start):
            # A step takes milliseconds: threads that fetch ahead would cost more than they save.
            chosen = np.random.default_rng([seed, step]).integers(count, size=size)
            yield {name: values[chosen] for name, values in rows.items()}

    return batches


def fit(
    folder: Folder,
    phase: str,
    *,
    init: Init,
    loss: Loss,
    batches: Batches,
    config: Training,
    seed: int,
    describe: str | None = None,
) -> Params:
    r"""Minimises a loss, or goes on minimising it from the last checkpoint in the folder.

    It is `advance` with steps of Adam: step `s` uses the batch `s` and the key `fold_in(key, s)`.
    A row of metrics has `loss`, its terms and `grad_norm`, which is taken before clipping.

    Args:
        folder: the run folder; checkpoints go to `checkpoints/PHASE`.
        phase: name of what is being trained, unique in the folder.
        init: `key -> params`.
        loss: `(params, key, step, batch) -> (scalar, {name: scalar})`, averaged over the batch. Of
            a `jax.tree_util.Partial` what is bound is an argument of the compiled step, and no
            constant that the program holds a copy of.
        batches: `(start, sharding) -> iterable of dicts`, from the batch of step `start` on;
            every array has a leading axis of `config.batch_size`.
        config: how to optimise.
        seed: the source of all randomness, together with `phase`.
        describe: what the progress line calls the phase; its name by default.

    Returns:
        The parameters after `config.steps` steps; at once if the folder holds them.

    Raises:
        Failure: a metric was not finite, or the batches ended.
        UsageError: the batch cannot be split evenly, or the checkpoints hold another model.
        ValueError: `loss` does not return a scalar and a dict of scalars.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint of the step just done.
    """
    method = optimizer(config)

    def begin(key: PRNGKeyArray) -> State:
        params = jax.tree.map(_strong, init(key))
        return State(jnp.zeros((), jnp.int32), params, method.init(params))

    update = Partial(partial(_update, method), _bound(loss))
    return advance(
        folder,
        phase,
        begin=begin,
        update=update,
        batches=batches,
        config=config,
        seed=seed,
        describe=describe,
    ).params


def advance(
    folder: Folder,
    phase: str,
    *,
    begin: Begin,
    update: Update,
    batches: Batches,
    config: Training,
    seed: int,
    describe: str | None = None,
) -> State:
    r"""Takes steps of any kind, or goes on from the last checkpoint in the folder.

    Step `s` gets the batch `s` and the same key as every other step, from which and `state.step`
    it makes its own. So a run that was stopped at any moment and started again ends in the same
    state, bit for bit, as one that was not. The batch is split over all devices of all processes;
    the state is copied to each. A run may go on with another number of devices.

    Every `config.log_every` steps a row `{"phase", "step", "loss", ...}` is written to
    `metrics.jsonl`: the values that step `step`, counted from 0, saw before its update. The same
    numbers and the rate in steps per second go to TensorBoard events under `tensorboard/PHASE`.

    Args:
        folder: the run folder; checkpoints go to `checkpoints/PHASE`.
        phase: name of what is being trained, unique in the folder.
        begin: `key -> state`; `params` is what `restore` will find, `opt_state` all else.
        update: `(state, key, batch) -> (state, {name: scalar})`, with one name `"loss"`; may be a
            `Partial`, as the loss of `fit`.
        batches: `(start, sharding) -> iterable of dicts`, from the batch of step `start` on;
            every array has a leading axis of `config.batch_size`.
        config: how long, and how often to log and save.
        seed: the source of all randomness, together with `phase`.
        describe: what the progress line calls the phase; its name by default.

    Returns:
        The state after `config.steps` steps; at once if the folder holds it.

    Raises:
        Failure: a metric was not finite, or the batches ended.
        UsageError: the batch cannot be split evenly, or the checkpoints hold another model.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, after a checkpoint of the step just done.
            Of several processes each stops at once.
    """
    mesh = Mesh(np.array(jax.devices()), ("data",))
    check_shares(config.batch_size, mesh.size, "--training.batch-size")
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    # Two phases of one seed must not share their randomness.
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(phase.encode()))
    init_key, step_key = jax.random.split(key)

    def strong(key: PRNGKeyArray) -> State:
        return jax.tree.map(_strong, begin(key))

    path = folder.path / "checkpoints" / phase
    like = memory.checked_state(jax.eval_shape(strong, init_key), phase)
    found = _newest(path, like)
    if found is not None:
        state = multihost.place(found, whole)
    start = 0 if found is None else int(found.step)
    if start >= config.steps:
        return multihost.own(state)
    folder.truncate_rows(phase, start)

    with contextlib.ExitStack() as stack:
        manager = None
        if multihost.is_first():
            manager = stack.enter_context(checkpoints.open_manager(path))
        events = stack.enter_context(_open_events(folder.path / "tensorboard" / phase, start))
        report = stack.enter_context(progress(describe or phase, start, config.steps))
        report(start, "compiling")
        if found is None:
            state = jax.jit(strong, out_shardings=whole)(init_key)
        source = iter(batches(start, split))
        if hasattr(source, "close"):
            stack.callback(source.close)

        batch = _next(source, start, config.batch_size, split)
        begun = time.monotonic()
        bound = multihost.place(_bound(update), whole)
        step = (
            jax.jit(
                lambda bound, state, key, batch: bound(state, key, batch),
                in_shardings=(whole, whole, whole, split),
                out_shardings=(whole, whole),
                donate_argnums=1,
            )
            .lower(bound, state, step_key, batch)
            .compile()
        )
        step_key = jax.jit(lambda: step_key, out_shardings=whole)()
        report(
            start,
            f"compiled in {time.monotonic() - begun:.1f} s, a step takes "
            f"{memory.text(memory.checked_needs(step, phase))}",
        )

        watch = _Watch(
            folder, phase, config, events, path, lambda: manager and manager.latest_step(), start
        )
        stopped = stack.enter_context(_interrupts())
        for done in range(start + 1, config.steps + 1):
            state, metrics = step(bound, state, step_key, batch)
            watch.push(done - 1, metrics)
            if done < config.steps:
                batch = _next(source, done, config.batch_size, split)
            halt = stopped.is_set()
            if halt or done % config.checkpoint_every == 0 or done == config.steps:
                # Nothing is saved before all that led to it is known to be finite.
                watch.drain()
                if manager is not None:
                    checkpoints.save(manager, done, {**state._asdict(), "total": config.steps})
            report(done, watch.text)
            if manager is not None and (halt or done == config.steps):
                manager.wait_until_finished()
            if halt:
                raise interrupts.Interrupted
    return multihost.own(state)


def _newest(path: Path, like: State) -> State | None:
    """The state of the newest whole checkpoint, as the first process finds it."""

    def read() -> State | None:
        found = checkpoints.newest(path)
        checkpoints.tidy(path, found)
        missing = found.step is None
        return None if missing else checkpoints.unflatten(found.flat, like, str(path))

    state = multihost.together(read)
    if not multihost.from_first(np.asarray(state is not None), np.zeros((), bool)):
        return None
    return multihost.from_first(state, like)


def restore(folder: Folder | str | Path, phase: str, init: Init) -> Params:
    """Loads what a finished phase has learnt, for instance in the folder of another experiment.

    Args:
        folder: the run folder.
        phase: the name that `fit` was given.
        init: the `init` that `fit` was given; tells the structure and is not computed.

    Raises:
        UsageError: no checkpoint of that phase, an unfinished phase, or another model.
    """
    root = folder.path if isinstance(folder, Folder) else Path(folder).expanduser().absolute()
    like = jax.eval_shape(init, jax.random.key(0))
    params = multihost.from_first(multihost.together(lambda: _finished(root, phase, like)), like)
    return jax.tree.map(jnp.asarray, params)


def _finished(root: Path, phase: str, like: Params) -> Params:
    path = root / "checkpoints" / phase
    step, flat, damaged = checkpoints.newest(path)
    if step is None and damaged:
        raise UsageError(
            f"{path}: every checkpoint of {phase!r} is damaged (step "
            f"{', '.join(map(str, damaged[::-1]))}); what is left of the phase is to be trained "
            "again: run the command that made the folder"
        )
    if step is None:
        raise UsageError(f"{root} holds no checkpoint of {phase!r}; train it there first")
    total = int(flat["total"])
    if damaged:
        raise UsageError(
            f"{path}: the checkpoint of {phase!r} at step {damaged[0]} is damaged, the last good "
            f"one is at step {step} of {total}; run the command that made the folder "
            "to go on from there"
        )
    if step < total:
        raise UsageError(
            f"{phase!r} in {root} is at step {step} of {total}; run it to its end first"
        )
    return checkpoints.unflatten(flat, {"params": like}, str(path))["params"]


def _open_events(path: Path, step: int) -> "SummaryWriter":
    """What writes the events of a phase from a step on, and forgets those after it."""
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(path), purge_step=step)


def _bound(function: Callable[..., Any]) -> Partial:
    """A function as a pytree of what is bound to it; plain ones hold nothing that is seen."""
    return function if isinstance(function, Partial) else Partial(function)


def _update(
    method: optax.GradientTransformation,
    loss: Loss,
    state: State,
    key: PRNGKeyArray,
    batch: Batch,
) -> tuple[State, dict[str, Scalar]]:
    def checked(params: Params, key: PRNGKeyArray, step: Array, batch: Batch) -> Any:
        result = loss(params, key, step, batch)
        shapes = jax.tree.map(jnp.shape, result)
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
            raise ValueError(f"loss must return (scalar, dict of scalars), got {shapes}")
        value, terms = result
        if any(jnp.shape(leaf) for leaf in [value, *terms.values()]):
            raise ValueError(f"loss must return (scalar, dict of scalars), got {shapes}")
        if taken := {"loss", "grad_norm", "step", "phase", "rate"} & set(terms):
            raise ValueError(f"a term of the loss cannot be called {' or '.join(sorted(taken))}")
        return value, terms

    key = jax.random.fold_in(key, state.step)
    gradient = jax.value_and_grad(checked, has_aux=True)
    (value, terms), grads = gradient(state.params, key, state.step, batch)
    updates, opt_state = method.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": value, **terms, "grad_norm": optax.global_norm(grads)}
    return State(state.step + 1, params, opt_state), metrics


@dataclass
class _Watch:
    """Looks at the metrics of the steps a little after they were launched, and writes them."""

    folder: Folder
    phase: str
    config: Training
    events: "SummaryWriter"
    path: Path
    last_good: Callable[[], int | None]
    start: int
    text: str = ""

    def __post_init__(self) -> None:
        self._pending: deque[tuple[int, dict[str, Array]]] = deque()
        self._rows: list[dict[str, float]] = []
        self._written = self._marked = time.monotonic()
        self._marked_step = self.start - 1
        self._rate = 0.0

    def push(self, step: int, metrics: dict[str, Array]) -> None:
        for value in metrics.values():
            value.copy_to_host_async()
        self._pending.append((step, metrics))
        while len(self._pending) > LAG:
            self._look()
        if time.monotonic() - self._written > 1.0:
            self._write()

    def drain(self) -> None:
        while self._pending:
            self._look()
        self._write()
        self.events.flush()

    def _look(self) -> None:
        step, arrays = self._pending.popleft()
        values = {name: float(np.asarray(value)) for name, value in arrays.items()}
        if not all(map(math.isfinite, values.values())):
            self._fail(step, values)
        if step % self.config.log_every == 0 or step == self.config.steps - 1:
            self._rows.append({"step": step, **values})
            for name, value in {**values, "rate": self._rate}.items():
                self.events.add_scalar(name, value, step)
        now = time.monotonic()
        if now - self._marked > 0.5:
            self._rate = (step - self._marked_step) / (now - self._marked)
            self._marked, self._marked_step = now, step
        speed = f", {self._rate:.3g} steps/s" if self._rate else ""
        self.text = f"loss {values['loss']:.4g}{speed}"

    def _write(self) -> None:
        self.folder.append_rows(self.phase, self._rows)
        self._rows.clear()
        self._written = time.monotonic()

    def _fail(self, step: int, values: dict[str, float]) -> None:
        self._write()
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        # The terms say more than their sum, and the sum more than its gradient.
        name = next((n for n in bad if n not in ("loss", "grad_norm")), next(iter(bad)))
        what = {"loss": "the loss", "grad_norm": "the gradient's norm"}.get(name, f"term {name!r}")
        good = self.last_good()
        last = (
            "there is no checkpoint yet"
            if good is None
            else (f"the last good checkpoint is step {good} ({self.path / str(good)})")
        )
        raise Failure(
            f"{self.phase}: loss became non-finite at step {step}: {what} is {bad[name]}; {last}; "
            "try a smaller --training.learning-rate or --training.clip in a new --run"
        )


def _next(
    source: Iterator[Mapping[str, Any]], step: int, size: int, sharding: NamedSharding
) -> dict[str, Array]:
    try:
        batch = next(source)
    except StopIteration:
        raise Failure(f"the batches ended before step {step}") from None
    for name, value in batch.items():
        if np.shape(value)[:1] != (size,):
            raise ValueError(
                f"batch entry {name!r} has shape {np.shape(value)}, expected ({size}, ...)"
            )
    placed = {
        name: value if isinstance(value, jax.Array) else multihost.place(value, sharding)
        for name, value in batch.items()
    }
    return jax.device_put(placed, sharding)


def _strong(leaf: Any) -> Array:
    # The compiled step takes strong types only, which is what it returns.
    return jnp.asarray(leaf, dtype=jnp.result_type(leaf))


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that no step is torn apart; a second Ctrl-C stops at once."""
    if multihost.several():
        yield threading.Event()  # each would stop after another step
        return
    with interrupts.deferred() as asked:
        yield asked

"""Trajectories a second: JAX against the same algorithm in eager PyTorch.

Run as `python -m benchmarks.trajectories`. A trajectory follows one image through a translation:
for each amount, outwards from 0 on both sides, so many steps of projected Adam on the blurred
error between the decoded latent and the translated image, warm-started from the last. Both sides
hold the same decoder, starts, optimiser and number of steps, and end at the same latents; that is
checked before any clock starts. They then take turns, so that a change in the load of the machine
meets both.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from benchmarks import table, training_step
from benchmarks.command import Flags, MismatchError, Results, command
from benchmarks.matmul import PRODUCT, Product, operations, share_of_product
from benchmarks.peers import NO_TORCH, has, tensors, torch_module
from benchmarks.ratio import compared
from benchmarks.training_step import OURS
from benchmarks.turns import choose_threads, compiled, median, no_cached_programs, patient_turns
from experiments.runtime import tables
from latent_flows import directions
from latent_flows.directions.losses import blurred_error
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig

SIGMA = 3.0
RATE = 0.05
TOLERANCE = 2e-2
"""Largest difference of the latents at the ends, in units of how far they went, that counts as the
same result. Adam divides by the gradient's size, so that rounding is not forgotten on the way."""


@dataclass(frozen=True)
class Size:
    """How large the work is."""

    decoder: Literal["mlp", "conv", "broadcast"] = "mlp"
    """Of the VAE."""
    latent: int = 10
    """Length of a latent."""
    side: int = 64
    """Pixels along each side."""
    width: int = 32
    """Units of a hidden layer, of which mlp has eight times as many."""
    batch: int = 64
    """Trajectories at once."""
    amounts: int = 5
    """Values of t on each side of 0."""
    steps: int = 50
    """Of Adam, at each of them."""


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    size: Size = Size()
    """Size of the work, where nothing else is said."""
    decoders: tuple[Literal["mlp", "conv", "broadcast"], ...] = ("mlp", "conv", "broadcast")
    """Each is measured."""
    repeats: int = 7
    """Timed calls of each side, of which the median counts."""
    patience: float = 60.0
    """Seconds after which a comparison makes do with fewer repeats, but at least 3."""
    quick: bool = False
    """Small sizes, in seconds: to see that it runs."""


@dataclass(frozen=True)
class Problem:
    """One call to make, with all it needs."""

    size: Size
    vae: VAE
    params: Any
    starts: Float[Array, "n d"]

    @property
    def ts(self) -> Float[np.ndarray, "T"]:
        """The amounts, increasing."""
        side = np.linspace(0, 0.2, self.size.amounts + 1)[1:]
        return np.concatenate([-side[::-1], side])


def problem(size: Size) -> Problem:
    """A decoder at random parameters, and random starts.

    The parameters are made larger, so that its images are not all the same grey.
    """
    vae = VAE(
        VAEConfig(latent_dim=size.latent, decoder=size.decoder, width=size.width),
        (size.side, size.side, 1),
    )
    init_key, start_key = jax.random.split(jax.random.key(0))
    params = vae.init(init_key, jnp.zeros(vae.image_shape))
    params = jax.tree.map(lambda leaf: 1.5 * leaf, params)
    return Problem(
        vae=vae,
        size=size,
        params=params,
        starts=jax.random.normal(start_key, (size.batch, size.latent)),
    )


def search(work: Problem) -> Callable[[Any, Array], Float[Array, "n T d"]]:
    """The library's trajectories, from the decoder's parameters and starts."""

    def find(params: Any, starts: Array) -> Array:
        found = directions.trajectories(
            jax.random.key(0),
            vaes.generator(work.vae, params),
            directions.translate_x,
            work.ts,
            starts=starts,
            loss=partial(blurred_error, sigma=SIGMA),
            optimizer=optax.adam(RATE),
            steps=work.size.steps,
            batch_size=work.size.batch,
        )
        return found.zs

    return find


def ours(work: Problem) -> tuple[Callable[[], Float[Array, "n T d"]], float]:
    """The library's trajectories as a compiled call, and the seconds that compiling took."""
    call, seconds = compiled(search(work), work.params, work.starts)
    return lambda: call(work.params, work.starts), seconds


def peers(work: Problem) -> dict[str, Any]:
    """The same in PyTorch, in each of its ways; none without PyTorch."""
    side = torch_module("benchmarks.torch_trajectories")
    if side is None:
        return {}
    size = work.size
    setting = side.Setting(
        decoder=size.decoder,
        side=size.side,
        ts=work.ts,
        steps=size.steps,
        learning_rate=RATE,
        sigma=SIGMA,
    )
    decoder, starts = tensors((work.params["params"]["decoder"], work.starts))
    return {
        f"PyTorch, blur by {blur}": side.Trajectories(decoder, starts, setting, blur)
        for blur in side.BLURS
    }


def difference(ours: Any, theirs: Any, starts: Any) -> float:
    """The median distance of two sides' latents, as a share of how far they are from the starts."""
    a, b, start = (np.asarray(array, float) for array in (ours, theirs, starts))
    apart = np.linalg.norm(a - b, axis=-1)
    return float(np.median(apart) / np.median(np.linalg.norm(a - start[:, None], axis=-1)))


def compare(config: Config, size: Size) -> Results:
    """JAX and every PyTorch variant at one size, in turns.

    Raises:
        MismatchError: the trajectories are not the same.
    """
    work = problem(size)
    call, compiling = ours(work)
    sides: dict[str, Any] = {OURS: call} | peers(work)
    found = {name: side() for name, side in sides.items()}
    differences = {
        name: difference(found[OURS], other, work.starts) for name, other in found.items()
    }
    for name, value in differences.items():
        if not value < TOLERANCE:
            raise MismatchError(f"{name}: latents differ from those of JAX by {value:.1e}")
    for name, side in sides.items():
        if name != OURS:
            whole, side.setting = side.setting, side.setting._replace(steps=2)
            choose_threads(side)
            side.setting = whole
    product = Product()
    product()
    seconds = patient_turns(
        sides | {PRODUCT: product}, config.repeats, config.patience, choose=False
    )
    beside = seconds.pop(PRODUCT)
    name = f"{size.batch} trajectories, {size.decoder} decoder"
    ratios = compared(name, seconds, ours=OURS)
    by_side = {row.against: row.ratio for row in ratios}
    rows = [
        {
            "decoder": size.decoder,
            "side": side,
            "trajectories/s": size.batch / median(taken),
            "s a call": median(taken),
            "times JAX": by_side.get(side, 1.0),
            "threads": getattr(sides[side], "threads", None),
            "compile s": compiling if side == OURS else None,
            "difference": differences[side],
        }
        for side, taken in seconds.items()
    ]
    done = operations(search(work), work.params, work.starts)
    return Results(rows, [*ratios, share_of_product(name, done, seconds[OURS], product, beside)])


def main(config: Config) -> Results:
    """Measure and print."""
    no_cached_programs()
    if config.quick:
        small = replace(config.size, latent=3, side=16, width=4, batch=4, amounts=2, steps=5)
        config = replace(config, size=small, repeats=3)
    if not has("torch"):
        print(NO_TORCH)
    size, found = config.size, Results()
    for decoder in config.decoders:
        found += compare(config, replace(size, decoder=decoder))
    title = (
        f"{size.batch} trajectories of {2 * size.amounts} amounts with {size.steps} steps each, "
        f"{size.side} x {size.side} pixels, latent {size.latent}, width {size.width}; "
        f"{jax.devices()[0].device_kind}, JAX {jax.__version__}"
    )
    tables.show(title, found.rows)
    training_step.show_shares(table.console(), found)
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)

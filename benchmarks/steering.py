"""What steering costs: seconds, and passes of the generator as counted from the compiled program.

Run as `python -m benchmarks.steering`. Trajectories of a decoder at random parameters are led by
amounts of a translation on both sides. Seconds are of the clock, and of one core: the latter say
much the same on a busy machine. Memory is that of the program beside its arguments. The operations
of a field are in units of an image's.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.command import Flags, Results, command
from benchmarks.ratio import Ratio, less
from benchmarks.turns import both_clocks, no_cached_programs
from latent_flows import directions, steering
from latent_flows._compiled import operations
from latent_flows.generators import vae as vaes
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.typing import Generator


@dataclass(frozen=True)
class Config(Flags):
    """What is measured."""

    decoder: Literal["mlp", "conv", "broadcast"] = "broadcast"
    """Of the VAE."""
    latents: tuple[int, ...] = (6, 10, 64, 512)
    """Lengths of a latent, each measured: up to 96 the Jacobian is formed."""
    side: int = 64
    """Pixels along each side."""
    width: int = 64
    """Units of a hidden layer of the decoder."""
    batch: int = 64
    """Trajectories at once."""
    amounts: int = 5
    """Values of t on each side of 0."""
    repeats: int = 5
    """Timed calls, of which the median counts."""


def measured(config: Config, latent: int) -> dict[str, float]:
    """Seconds to compile and to run, and generator passes an amount, for one length of latents."""
    shape = (config.side, config.side, 1)
    vae = VAE(VAEConfig(latent_dim=latent, decoder=config.decoder, width=config.width), shape)
    params = vae.init(jax.random.key(0), jnp.zeros(shape))
    starts = jax.random.normal(jax.random.key(1), (config.batch, latent))
    side = np.linspace(0, 0.2, config.amounts + 1, dtype=np.float32)[1:]
    ts = np.concatenate([-side[::-1], side])

    def lead(params: Any, z: jax.Array) -> jax.Array:
        generator: Generator = vaes.generator(vae, params)
        return steering.steer(generator, directions.translate_x, z, ts, corrections=1).zs

    def together(params: Any, starts: jax.Array) -> jax.Array:
        return jax.lax.map(lambda z: lead(params, z), starts, batch_size=8)

    no_cached_programs()
    program, compiling, compiling_cpu = both_clocks(
        lambda: jax.jit(together).lower(params, starts).compile()
    )
    times = [both_clocks(program, params, starts)[1:] for _ in range(config.repeats + 1)][1:]
    seconds, cpu = map(float, np.median(np.array(times), axis=0))
    memory = program.memory_analysis()
    # Loops are counted once by the compiler, whatever their length: a step is compared by itself.
    field = operations(
        lambda params, z: steering.transformation_field(
            vaes.generator(vae, params), directions.translate_x
        )(jnp.zeros(()), z),
        params,
        starts[0],
    )
    once = operations(lambda params, z: vaes.generator(vae, params)(z), params, starts[0])
    return {
        "latent": latent,
        "compiling_s": compiling,
        "compiling_cpu_s": compiling_cpu,
        "seconds": seconds,
        "cpu_s": cpu,
        "memory_mib": memory.temp_size_in_bytes / 2**20 if memory else float("nan"),
        "operations_a_field": field,
        "operations_an_image": once,
        "passes_a_field": field / once,
    }


def ratio(config: Config, row: dict[str, float]) -> Ratio:
    """The operations of a field against those of an image."""
    name = f"field of a translation, {config.decoder} decoder, d = {row['latent']}"
    both = row["operations_a_field"], row["operations_an_image"]
    return less(name, "one image", "operations", *both)


def main(config: Config) -> Results:
    """Print a row for each length of latents."""
    print(f"{config.batch} trajectories of {2 * config.amounts} amounts, {config.decoder} decoder")
    found = Results()
    for latent in config.latents:
        row = measured(config, latent)
        print(
            f"d = {latent}: compiling {row['compiling_s']:.1f} s ({row['compiling_cpu_s']:.1f} of "
            f"a core), leading {row['seconds']:.2f} s ({row['cpu_s']:.2f} of a core), "
            f"{row['memory_mib']:.0f} MiB, {row['passes_a_field']:.0f} passes of the generator a "
            "field",
            flush=True,
        )
        found.rows.append(row)
        found.ratios.append(ratio(config, row))
    return found


if __name__ == "__main__":
    command(main, __doc__, Config)

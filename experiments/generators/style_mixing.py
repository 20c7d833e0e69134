"""Which layers of a StyleGAN2 move: what a run learnt, seen in some of them alone."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from experiments.runtime.cli import UsageError
from latent_flows._transforms import closure_convert_at
from latent_flows.generators import FrozenGenerator, GeneratorSpec, stored
from latent_flows.generators.load import GENERATOR, is_function, reference
from latent_flows.generators.pretrained import style_mixing
from latent_flows.generators.style_layers import check_layers
from latent_flows.generators.stylegan2 import StyleGAN2

__all__ = ["check_moved_layers", "mixing"]


def check_moved_layers(layers: str) -> None:
    """Whether a flag names layers, before anything is loaded.

    Args:
        layers: the text of `--layers`; empty: all of them.

    Raises:
        ValueError: it does not.
    """
    if layers:
        check_layers(layers, "--layers")


def mixing(run: str, frozen: FrozenGenerator, layers: str) -> Partial:
    """What makes a sample of the latent that it started from and the one where it is now.

    Args:
        run: a run folder.
        frozen: the generator that the run is about.
        layers: those of its StyleGAN2 that move; empty: all of any generator.

    Returns:
        `(z0, z) -> x`, a pytree.

    Raises:
        UsageError: the generator has no such layers.
    """
    if not layers:
        return Partial(lambda decode, _, z: decode(z), frozen.decode)
    found = reference(GeneratorSpec(str(run)), 0, Path.cwd())
    spec = GeneratorSpec(**found["spec"])
    kept = None
    if not is_function(spec.path):
        place = Path(spec.path)
        kept = stored.read(place / GENERATOR if place.is_dir() else place)
    if kept is None or not isinstance(kept.net, StyleGAN2):
        raise UsageError(
            f"--layers {layers} is of a StyleGAN2; {frozen.name} has no layers that take a style: "
            "leave it out"
        )
    try:
        mixed = style_mixing(kept.net, kept.variables, spec, found["seed"], layers)
    except ValueError as error:
        raise UsageError(str(error)) from None
    z = jax.ShapeDtypeStruct((frozen.latent_dim,), jnp.result_type(float))
    return closure_convert_at(mixed, z, z)

"""Where a generator comes from: a run folder, or any function that gives an image.

A VAE's run is left to the experiments, which use its encoder and its data as well; everything else
is brought into one form here.
"""

import importlib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.generators import import_weights, train_gan, train_vae, vae_runs
from experiments.generators.pretrained import published
from experiments.generators.spec import Source, Supply, Usual, check_changes, draws
from experiments.generators.user_function import own, what
from experiments.runtime import budget
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError, module_name
from experiments.runtime.run_dir import made_by, read_config
from experiments.runtime.training import restore
from latent_flows import data
from latent_flows._transforms import closure_convert
from latent_flows.generators.sngan import SNGAN
from latent_flows.typing import Generator

Study = TypeVar("Study", bound=Any)

PROBES = 4
"""Draws from the prior whose images are looked at before a generator is taken."""
SLACK = 0.25
"""Of the width of `range`: how far beyond it the pixels of a user's images may lie."""
VAE_FIELDS = ("vae", "vae_objective", "vae_training")
"""What a configuration says of the VAE that it trains."""
GANS = (module_name(train_gan.Config), module_name(import_weights.Config))
"""Experiments whose run folders hold a generator alone."""
STUDIES = tuple(f"experiments.{name}" for name in ("flow_config", "direction_config", "geodesics"))
"""Modules of configurations with the fields `generator`, `source` and `seed`, about a generator
that they do not hold."""


def named(run: str, source: Source) -> tuple[str, Source, int | None]:
    """The generator that the flags of an experiment name: where it is, and how to use it.

    A run of one of `STUDIES` stands for the generator that it was about, and brings its own seed.

    Raises:
        UsageError: flags of a generator that has its own.
    """
    if source.path or not run or (maker := made_by(run)) not in STUDIES:
        return run, source, None
    if source != Source():
        raise UsageError(
            f"--generator {run} is a run of {maker}, which has its own generator; "
            "leave out the other flags of the generator"
        )
    earlier: Any = read_config(run, importlib.import_module(maker).Config)
    run, source, seed = named(earlier.generator, earlier.source)
    return run, source, earlier.seed if seed is None else seed


def resolved(config: Study) -> Study:
    """The configuration of an experiment that says of its generator what is true of it.

    Where a generator is given, data and architecture are that one's, whatever a preset says of the
    one that it would train; a word is said where the data are others.

    Args:
        config: as the command line gave it.

    Raises:
        UsageError: two generators are named, or there is none where one is.
    """
    source = getattr(config, "source", Source())
    if source.path:
        if config.generator and not isinstance(config.generator, Usual):
            raise UsageError(
                f"--generator {config.generator} and --generator.path {source.path} name two "
                "generators; leave one of them out"
            )
        return replace(config, generator="", data="")
    if not config.generator:
        return config
    run, source, _ = named(config.generator, source)
    true: dict[str, Any] = {"data": "", "image_size": None}
    if run and not source.path and made_by(run) == module_name(train_gan.Config):
        gan = read_config(run, train_gan.Config)
        true = {"data": gan.data, "image_size": gan.image_size}
    elif not is_given(run, source):
        _, vae = vae_runs.source(config)
        outer = replace(train_vae.with_vae(config, vae), run=config.run)
        true = {name: getattr(outer, name) for name in ("data", "image_size", *VAE_FIELDS)}
        if hasattr(config, "labels"):
            true["labels"] = vae.labels
        if vae.data != config.data:
            print(
                f"warning: the generator of {config.generator} was trained on {vae.data}, and so "
                f"the data are {vae.data}, not {config.data}",
                file=sys.stderr,
                flush=True,
            )
    return replace(config, **true)


def is_supplied(run: str, source: Source) -> bool:
    """Whether the flags of an experiment name a generator that is no VAE's."""
    run, source, _ = named(run, source)
    return is_given(run, source)


def supplied(run: str, source: Source, seed: int) -> Supply | None:
    """The generator that the flags of an experiment name, or None where it is that of a VAE.

    Raises:
        UsageError: there is no such generator, or flags of one that are of no account.
    """
    run, source, own = named(run, source)
    if is_given(run, source):
        with announced(f"loading the generator {source.path or run}"):
            return supply(run, source, seed if own is None else own)
    if source != Source():
        raise UsageError(
            "flags such as --generator.prior and --generator.space are for a generator without "
            "an encoder: name one by --generator.path, or by --generator and its run folder"
        )
    return None


def supply(run: str, source: Source, seed: int) -> Supply:
    """The generator of a run folder that holds no VAE, or of the user.

    Args:
        run: the run folder; of no account where `source` has a path.
        source: the rest of the flags.
        seed: of the class, if BigGAN's is left open.

    Raises:
        UsageError: the folder or the function does not give a generator, or what that makes are
            no images.
    """
    if source.path:
        return _checked(own(source), source)
    for flag in ("checkpoint", "latent_dim", "range"):
        if getattr(source, flag) != getattr(Source(), flag):
            raise UsageError(
                f"--generator.{flag.replace('_', '-')} belongs to --generator.path; the generator "
                f"of {run} has its own"
            )
    if made_by(run) == module_name(train_gan.Config):
        return _checked(_trained(run, source), source)
    net, variables = import_weights.load(run)
    return _checked(published(Path(run).name, net, variables, source, seed), source)


def is_given(run: str, source: Source) -> bool:
    """Whether the flags name a generator that `supply` loads, and no VAE."""
    return bool(source.path) or (bool(run) and made_by(run) in GANS)


def _trained(run: str, source: Source) -> Supply:
    config = read_config(run, train_gan.Config)
    networks = config.networks
    net = SNGAN(networks.generator, _colours(run), networks.latent_dim)
    variables = restore(run, train_gan.PHASE, partial(train_gan.initial, net))
    found = published(f"SNGAN trained on {config.data}", net, variables, source, config.seed)
    if config.data != "sprites":
        return found
    return found._replace(data=data.load("sprites", split="train", size=config.image_size))


def _colours(run: str) -> int:
    """The colours of a trained GAN's images, from its weights: its data need not be there."""

    import orbax.checkpoint as ocp

    path = Path(run).expanduser().absolute() / "checkpoints" / train_gan.PHASE
    steps = [child for child in path.glob("*") if child.name.isdigit()]
    if not steps:
        return 1  # for `restore` to say what is missing
    with ocp.StandardCheckpointer() as reader:
        # The shapes alone, not the arrays.
        found = reader.metadata(max(steps, key=lambda step: int(step.name)) / "default")
    return int(found.item_metadata["params/params/conv/bias"].shape[0])


def _checked(found: Supply, source: Source) -> Supply:
    """The same, once images of a few draws were found to be finite, in their range and different.

    Raises:
        UsageError: they are not.
    """
    budget.check_images(
        PROBES, found.image_shape, f"a few images of {found.name}", "make them smaller"
    )
    latents = draws(found.prior, jax.random.key(0), PROBES)
    try:
        # Programs take its parameters as arguments: as constants they would each hold a copy.
        found = found._replace(generator=closure_convert(found.generator, found.latent_dim))
        images = np.asarray(jax.jit(jax.lax.map)(found.generator, latents))
    except Exception as error:
        raise UsageError(f"{found.name} cannot make an image: {what(error)}") from None
    if not np.isfinite(images).all():
        raise UsageError(f"{found.name} makes images that are not finite")
    if source.path and (images.min() < -SLACK or images.max() > 1 + SLACK):
        low, high = source.range
        seen = [low + (high - low) * float(v) for v in (images.min(), images.max())]
        raise UsageError(
            f"{found.name} makes pixels from {seen[0]:.3g} to {seen[1]:.3g}, far beyond "
            f"--generator.range {low:g} {high:g}; give their black and white"
        )
    check_changes(found.name, images)
    if source.path:
        _check_slopes(found, latents)
    return found


def _check_slopes(found: Supply, latents: Array) -> None:
    """Whether images have derivatives that say how they change.

    Raises:
        UsageError: they are zero, as of rounded numbers, or not finite.
    """

    @jax.jit
    def slopes(generator: Generator, latents: Array) -> Array:
        def slope(z: Array) -> Array:
            return jax.jvp(generator, (z,), (jnp.ones_like(z),))[1]

        return jax.lax.map(slope, latents)

    try:
        made = np.asarray(slopes(found.generator, latents))
    except TypeError:
        return  # a function with a derivative of its own that goes backwards only
    if not np.isfinite(made).all():
        raise UsageError(f"{found.name} makes images whose derivatives are not finite")
    if not made.any():
        raise UsageError(
            f"{found.name} makes images whose derivatives by the latent are zero, as if they never "
            "changed: is something rounded, or held by stop_gradient?"
        )

"""Find the latents of pictures of your own: from there every other command goes on.

A generator's encoder first, where it has one, then descent from many starts at once, on pixels, on
blurred pixels, and on what a network of your own sees. A GAN is searched in its Z; StyleGAN2 also
in W or W+, from the mean of W.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.generators import spec
from experiments.inversion.config import Config, home, settings
from experiments.inversion.targets import ARRAY, Target, check_files, read_targets
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Folder
from latent_flows import plots
from latent_flows._validation import what
from latent_flows.directions.losses import blurred_error, dssim
from latent_flows.generators import FrozenGenerator, stored
from latent_flows.generators.load import GENERATOR, reference
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.stylegan2_noise import NoiseLatents, noise_latents
from latent_flows.generators.user_function import import_function
from latent_flows.inversion import (
    Features,
    InversionSettings,
    Inverted,
    init_inversion,
    inversion_result,
    inversion_step,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Config", "run"]

PICTURE = "reconstructions"
LATENTS = "latents.npy"
"""All of them, one a row, in the order of the pictures."""
CHUNK = 10
"""Steps between two reports."""
NEAR = 1.1
"""Of the least error: starts up to here count as having found the same."""


def run(config: Config) -> int | None:
    """Invert picture by picture; measure, draw."""
    check_files(config)
    config = replace(config, run=home(config))
    generator = spec.load(config)
    targets = read_targets(config, generator)
    features = read_features(config, targets)
    noisy = with_noise(config, generator) if config.noise else None
    folder = spec.open_study(config)
    how = replace(settings(config), features=features if config.feature_weight else None)
    if noisy is not None:
        how = replace(how, penalty=noisy.penalty, project=noisy.project)
    found = [
        remembered(folder, config, how, generator, noisy, place, target)
        for place, target in enumerate(targets)
    ]
    latents = np.array([one["z"] for one in found], np.float32)
    write_latents(folder, targets, latents)
    samples = decoded(generator, jnp.asarray(latents))
    rows = [
        measured(config, generator, features, target, sample, one)
        for target, sample, one in zip(targets, samples, found, strict=True)
    ]
    folder.write_json("metrics.json", {"pictures": rows})
    draw = partial(side_by_side, generator, targets, samples)
    failed = tables.save_figures(folder, {PICTURE: draw})
    tables.show(f"Nearest samples of {generator.name}", rows)
    for target, one in zip(targets, found, strict=True):
        if one["message"]:
            print(f"{target.name}: {one['message']}")
    print(f"latents: {folder.path / LATENTS}")
    code = tables.where(folder, failed)
    return 1 if any(one["error"] is None for one in found) else code


def read_features(config: Config, targets: Sequence[Target]) -> Features | None:
    """The network that the flags name, once it was seen to take the pictures.

    Raises:
        UsageError: it fails, or gives no finite floats.
        ValueError: there is none.
    """
    if not config.features:
        return None
    function = import_function(config.features, "--features")

    def features(image: Array) -> Array:
        return jnp.asarray(function(image))

    try:
        with announced(f"trying {config.features}"):
            seen = np.asarray(jax.jit(features)(jnp.asarray(targets[0].sample)))
    except Exception as error:
        raise UsageError(
            f"--features {config.features} fails on an image of shape {targets[0].sample.shape}, "
            f"one at a time and traced by JAX: {what(error)}"
        ) from None
    if seen.dtype.kind != "f" or not seen.size or not np.isfinite(seen).all():
        raise UsageError(
            f"--features {config.features} gives {seen.dtype} of shape {seen.shape}; expected "
            "finite floating-point numbers"
        )
    return features


def with_noise(config: Config, generator: FrozenGenerator) -> NoiseLatents:
    """The generator with its noise maps in its latents.

    Raises:
        UsageError: it has none.
    """
    whole = reference(spec.named(config), config.seed, Path(config.run).absolute())["spec"]
    place = Path(whole["path"])
    file = place / GENERATOR if place.is_dir() else place
    kept = stored.read(file) if file.is_file() and file.suffix == Path(GENERATOR).suffix else None
    if kept is None or not isinstance(kept.net, StyleGAN2):
        raise UsageError(f"--noise is of StyleGAN2's noise maps, and {generator.name} has none")
    return noise_latents(
        kept.net,
        kept.variables,
        generator,
        space=whole["space"],
        truncation=whole["truncation"],
    )


def remembered(
    folder: Folder,
    config: Config,
    how: InversionSettings,
    generator: FrozenGenerator,
    noisy: NoiseLatents | None,
    place: int,
    target: Target,
) -> dict[str, Any]:
    """What was found for a picture, by this run or an earlier one of the same settings.

    Raises:
        UsageError: the file holds another picture by now.
    """
    name = f"found/{place}.json"
    if not (folder.path / name).exists():
        key = jax.random.fold_in(jax.random.key(config.seed), place)
        searched = generator if noisy is None else noisy.generator
        found = inverted(how, key, searched, target)
        error = float(found.error)
        if noisy is not None:
            file = io.BytesIO()
            maps = noisy.maps(found.z[noisy.latent_dim :])
            arrays: Any = {name: np.asarray(one) for name, one in maps.items()}
            np.savez(file, **arrays)
            folder.write_bytes(f"noise/{place}-{Path(target.name).stem}.npz", file.getvalue())
        kept = {
            "digest": target.digest,
            "z": np.asarray(found.z[: generator.latent_dim], float),
            "error": error if np.isfinite(error) else None,
            "errors": np.asarray(found.errors, float),
            "message": found.message,
        }
        folder.write_json(name, kept)
    with folder.understood(name):
        kept = folder.read_object(name)
        if kept["digest"] != target.digest:
            raise UsageError(
                f"{target.name} is another picture than the one that {folder.path} is about; "
                "choose another --run"
            )
        return {**kept, "z": [float(number) for number in kept["z"]]}


def inverted(
    how: InversionSettings, key: Array, generator: FrozenGenerator, target: Target
) -> Inverted:
    """The latent of one picture, with its progress."""
    image = jnp.asarray(target.sample)
    with progress(target.name, 0, how.steps) as report:
        report(0, f"looking for {how.starts} starts")
        state = init_inversion(key, generator, image, how)
        while int(state.step) < how.steps:
            state = inversion_step(generator, image, state, how, count=CHUNK)
            report(int(state.step), f"error {float(state.errors.min()):.4g}")
    return inversion_result(generator, image, state, how)


def write_latents(folder: Folder, targets: Sequence[Target], latents: np.ndarray) -> None:
    """All latents in one file, and each in one of its own."""
    names = [f"{Path(target.name).stem}{ARRAY}" for target in targets]
    contents: dict[str, np.ndarray] = {LATENTS: latents}
    for place, (name, latent) in enumerate(zip(names, latents, strict=True)):
        is_clear = names.count(name) == 1 and name != LATENTS
        contents[f"latents/{name if is_clear else f'{place}-{name}'}"] = latent
    for name, content in contents.items():
        file = io.BytesIO()
        np.save(file, content)
        folder.write_bytes(name, file.getvalue())


def decoded(generator: FrozenGenerator, latents: Array) -> np.ndarray:
    """Their samples, one at a time."""
    return np.asarray(jax.jit(lambda g, zs: jax.lax.map(g.decode, zs))(generator, latents))


def measured(
    config: Config,
    generator: FrozenGenerator,
    features: Features | None,
    target: Target,
    sample: np.ndarray,
    found: dict[str, Any],
) -> dict[str, Any]:
    """How near a sample is to its picture."""
    x, y = jnp.asarray(target.sample), jnp.asarray(sample)
    row: dict[str, Any] = {"picture": target.name, "pixels": float(jnp.mean((x - y) ** 2))}
    if plots.are_pictures(x.shape):
        whole = jnp.ones(x.shape[:2])
        sigma = min(x.shape[:2]) / 16 if config.sigma is None else config.sigma
        row["blurred"] = float(blurred_error(x, y, whole, sigma=sigma))
        unlike = dssim(jnp.clip(x, 0, 1), jnp.clip(y, 0, 1), whole)
        row["ssim"] = float(1 - 2 * unlike)
    if features is not None:
        seen, other = features(x), features(y)
        row["features"] = float(jnp.mean((seen - other) ** 2) / jnp.mean(seen**2))
    if generator.encode is not None:
        code = generator.encode(x)[0]
        row["pixels of code"] = float(jnp.mean((generator.decode(code) - x) ** 2))
    if config.noise:
        row["pixels with its noise"] = found["error"]
    errors = np.array([np.inf if one is None else one for one in found["errors"]])
    row["starts that agree"] = int((errors <= NEAR * errors.min()).sum())
    return row


def side_by_side(
    generator: FrozenGenerator, targets: Sequence[Target], samples: np.ndarray
) -> "Figure":
    """The pictures above their nearest samples."""
    caption = f"Pictures, and the nearest samples of {generator.name} that were found."
    originals = np.stack([target.sample for target in targets])
    if not plots.are_pictures(generator.event_shape):
        return plots.vector_reconstructions(originals, samples, caption)
    both = plots.sample_pictures(np.stack([originals, samples]), generator.event_shape)
    caption = f"{caption} {plots.how_drawn(generator.event_shape)}".strip()
    return plots.reconstructions(both[0], both[1], caption)

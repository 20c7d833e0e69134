"""Where the VAE is that an experiment is about: in its own run folder, or in an earlier run's."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from experiments.generators import train_vae
from experiments.generators.spec import check_changes
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder, made_by, read_config
from experiments.runtime.training import Params, restore
from latent_flows.data import Dataset
from latent_flows.generators.vae import VAE

STUDIES = tuple(
    f"experiments.{name}"
    for name in (
        "flow_config",
        "direction_config",
        "guided_config",
        "geodesics",
        "clustering",
        "land",
        "random_walk",
    )
)
"""Modules of configurations whose runs are about a VAE: one that they train, or another run's."""


PROBES = 4
"""Latents whose images are looked at before a VAE of another run is taken."""


class Study(Protocol):
    """The configuration of an experiment on a VAE."""

    @property
    def run(self) -> str:
        """The run folder."""

    @property
    def generator(self) -> str:
        """A run folder whose VAE is used; empty: a VAE is trained."""

    def own_vae(self) -> train_vae.Config:
        """The VAE that is trained."""


def source(config: Study) -> tuple[Path, train_vae.Config]:
    """The run folder that holds the VAE, and the VAE's configuration.

    Raises:
        UsageError: the run named is about no VAE.
    """
    own = getattr(config, "source", None)
    if own is not None and own.path:
        raise UsageError(
            f"{config.run} is about the generator {own.path}, which is no VAE's; "
            "an encoder is needed here"
        )
    if not config.generator:
        return Path(config.run), config.own_vae()
    maker = made_by(config.generator)
    if maker in STUDIES:
        earlier: Any = read_config(config.generator, importlib.import_module(maker).Config)
        return source(earlier)
    return Path(config.generator), read_config(config.generator, train_vae.Config)


def check(config: Study, dataset: Dataset) -> None:
    """Rejects a run whose VAE is not there to be taken, before anything is computed.

    Raises:
        UsageError: it is not trained to its end, or damaged.
    """
    if config.generator:
        home, settings = source(config)
        vae = train_vae.model(settings, dataset)
        restore(home, train_vae.PHASE, partial(train_vae.initial, vae))


def load_vae(folder: Folder, config: Study, dataset: Dataset) -> tuple[VAE, Params]:
    """The VAE, trained in the run's folder or taken from where it is.

    Args:
        folder: of the run.
        config: of the experiment.
        dataset: the training images.
    """
    home, settings = source(config)
    vae = train_vae.model(settings, dataset)
    if config.generator:
        with announced(f"loading the VAE of {home}"):
            params = restore(home, train_vae.PHASE, partial(train_vae.initial, vae))
            latents = jax.random.normal(jax.random.key(0), (PROBES, vae.config.latent_dim))
            made = train_vae.in_chunks(partial(vae.apply, params, method=vae.decode))(latents)
            check_changes(f"the VAE of {home}", np.asarray(made))
        return vae, params
    return vae, train_vae.train(folder, settings, dataset)

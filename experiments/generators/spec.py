"""The flags by which an experiment names its generator, and loading what they name."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Protocol

import tyro

from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.defaults import FLAG, SUFFIX
from experiments.runtime.run_dir import Folder, open_folder
from latent_flows.generators import FrozenGenerator, GeneratorSpec, load_generator
from latent_flows.generators.load import REFERENCE, reference

Flags = Annotated[GeneratorSpec, tyro.conf.arg(name="generator")]
"""As a field of a configuration: `--generator.prior` and so on, beside `--generator SPEC`."""


class Usual(str):
    """A preset's run folder of a generator, which knows the command that makes it.

    A folder that was given as a flag is a plain string.

    >>> Usual("runs/vae-digits", "train_vae digits").command
    'train_vae digits'
    """

    command: str
    has_quick: bool
    """Whether the command has short runs: an import has none."""

    def __new__(cls, run: str, command: str = "", *, has_quick: bool = True) -> "Usual":
        self = super().__new__(cls, run)
        self.command, self.has_quick = command, has_quick
        return self

    def quick(self) -> "Usual":
        """The folder of a short run of the same command, or this one where there are none."""
        return Usual(f"{self}{SUFFIX}", f"{self.command} {FLAG}") if self.has_quick else self


class Study(Protocol):
    """The configuration of an experiment on a generator."""

    @property
    def run(self) -> str:
        """The run folder."""

    @property
    def seed(self) -> int:
        """Source of all randomness."""

    @property
    def generator(self) -> str:
        """A run folder, package.module:function or file.py:function."""

    @property
    def source(self) -> GeneratorSpec:
        """The rest of the flags."""


def named(config: Study) -> GeneratorSpec:
    """The specification that the flags of an experiment make.

    Raises:
        UsageError: none is named, two are, or a preset's own has not been made yet.
    """
    usual = config.generator if isinstance(config.generator, Usual) else None
    if config.source.path:
        if config.generator and usual is None:
            raise UsageError(
                f"--generator {config.generator} and --generator.path {config.source.path} name "
                "two generators; leave one of them out"
            )
        return config.source
    if not config.generator:
        raise UsageError(
            "no generator is named: give --generator and the run folder of train_vae, train_gan or "
            "import_weights, package.module:function, or file.py:function"
        )
    if usual is not None and usual.command and not Path(usual).expanduser().exists():
        raise UsageError(
            f"the generator of this preset, {usual}, is not there yet: make it with `python -m "
            f"experiments.{usual.command}`, or name another by --generator"
        )
    return replace(config.source, path=str(config.generator))


def load(config: Study) -> FrozenGenerator:
    """The generator that the flags of an experiment name.

    Raises:
        UsageError: as `named`.
        ValueError: there is no such generator, or it cannot be used.
    """
    spec = named(config)
    with announced(f"loading the generator {spec.path}"):
        return load_generator(spec, seed=config.seed)


def open_study(config: Study) -> Folder:
    """The run folder of an experiment, in which it is written which generator it is about."""
    home = Path(config.run).expanduser().absolute()
    given = {REFERENCE: reference(named(config), config.seed, home)}
    return open_folder(config.run, config, given=given)


def of_run(run: str | Path) -> FrozenGenerator:
    """The generator that a run holds, or was about.

    Raises:
        ValueError: there is none.
    """
    with announced(f"loading the generator of {run}"):
        return load_generator(GeneratorSpec(str(run)))

"""The flags of the explorer."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from experiments.generators.spec import Flags
from experiments.runtime.cli import UsageError
from latent_flows._validation import at_least
from latent_flows.generators import GeneratorSpec

LOOPBACK = "127.0.0.1"
PORT = 5006


@dataclass(frozen=True)
class Config:
    """Explore a latent space in the browser."""

    run: Annotated[str, tyro.conf.Positional] = ""
    """Run folder of any finished experiment; leave it out for a --generator alone."""
    seed: int = 0
    """Which examples the map shows, and which draws the prior gives."""
    generator: str = ""
    """Instead of a run: package.module:function or file.py:function, or a folder that holds a
    generator."""
    source: Flags = field(default_factory=GeneratorSpec)
    """How to use it."""
    codes: int = 1000
    """Codes of data, or draws of the prior, that the map shows."""
    host: str = LOOPBACK
    """Address that the page is served on. Anybody who reaches another one than the loopback may
    use the page."""
    port: int = PORT
    """Port; 0: any that is free."""
    origins: tuple[str, ...] = ()
    """Further HOST:PORT by which browsers reach the page, as through a proxy."""

    def __post_init__(self) -> None:
        at_least(self, seed=0, codes=16)
        if not 0 <= self.port < 65536:
            raise ValueError(f"port must lie in [0, 65535], got {self.port}")
        if self.run and self.generator:
            raise UsageError(
                f"{self.run} and --generator {self.generator} name two generators; leave one out"
            )
        if not self.host:
            raise ValueError("host must be an address, such as 127.0.0.1")

    def is_kept(self) -> bool:
        """Nothing is kept."""
        return False

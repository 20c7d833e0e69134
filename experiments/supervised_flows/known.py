"""What sequences are made of in which one factor changes, and what shows that it does."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from experiments.runtime.cli import Failure
from latent_flows.data import Dataset, Measures


@dataclass(frozen=True)
class Known(ABC):
    """Samples of which some factors can be changed by known amounts."""

    measures: Measures
    """What shows a change in a sample."""

    @abstractmethod
    def own(self, names: Sequence[str]) -> list[int]:
        """For each factor, which of the measured attributes shows it."""

    @abstractmethod
    def frames(
        self, names: Sequence[str], key: Array, k: Int[Array, ""], share: Float[Array, "t"]
    ) -> Any:
        """What the samples of one sequence are made from, in which factor `k` of these changes.

        Args:
            names: of the factors.
            key: chooses everything that stays.
            k: the factor that changes.
            share: where it is at each time, from 0 to 1 in its range.

        Returns:
            A named tuple of arrays `[t]`.
        """

    @abstractmethod
    def render(self, frame: Any) -> tuple[Array, Array]:
        """The true sample of one frame, and weights from 0 on of what of it is known."""

    @abstractmethod
    def ranges(self, dataset: Dataset, seed: int) -> Float[Array, "f"]:
        """How far each attribute goes over the samples, the unit of its changes."""

    def held_out(self) -> "Known":
        """The same of samples that are not learnt from."""
        return self

    def labels(self, names: Sequence[str]) -> list[str]:
        """What the factors are called in tables and pictures."""
        return list(names)

    def others(self, names: Sequence[str]) -> Float[np.ndarray, "k f"]:
        """For each factor, 1 for every attribute that it should not change."""
        return 1.0 - np.eye(len(self.measures.factors))[self.own(names)]

    def beside(
        self, names: Sequence[str], changes: Float[Array, "n k t f"], true: Float[Array, "n k t f"]
    ) -> Float[Array, "n k t f"]:
        """Changes of a factor's own attribute, and unwanted ones of all others.

        Args:
            names: of the factors.
            changes: of every attribute.
            true: of the sequence that was asked for.
        """
        del names, true
        return changes

    @property
    def damping(self) -> float:
        """Of a Gauss-Newton step, in squares of what a sample changes by along a unit of the frame.

        One squared pixel, where a unit of the frame is worth some hundred.
        """
        return 1.0

    def measure(self, sample: Array) -> Float[Array, "f"]:
        """Every attribute of one sample."""
        return jnp.stack([factor.measure(sample) for factor in self.measures.factors])

    def is_valid(self, sample: Array) -> Bool[Array, ""]:
        """Whether a sample is one of such data, as far as that can be seen."""
        return self.measures.is_valid(sample)

    def changes(self, values: Float[Array, "*n t f"]) -> Float[Array, "*n t f"]:
        """How far measured attributes have come along sequences.

        What begins anew, as a hue does after one turn, has come as far as its steps add up to.

        Args:
            values: of every attribute of every sample.

        Returns:
            Their differences to those of the first sample.

        >>> from experiments.supervised_flows.factors import KNOWN
        >>> hues = jnp.array([0.8, 0.95, 0.1])
        >>> values = jnp.stack([hues] + 5 * [jnp.zeros(3)], axis=-1)
        >>> print(KNOWN["scenes"].changes(values)[:, 0].round(3))
        [0.   0.15 0.3 ]
        """
        periods = np.array([factor.period for factor in self.measures.factors])
        turns = np.isfinite(periods)
        whole = np.where(turns, periods, 1.0).astype(values.dtype)
        passed = jnp.where(turns, jnp.round(jnp.diff(values, axis=-2) / whole), 0)
        along = jnp.cumsum(passed, axis=-2)
        first = jnp.zeros_like(values[..., :1, :])
        return values - whole * jnp.concatenate([first, along], axis=-2) - values[..., :1, :]


def check_finite(known: Known, values: Float[Array, "*n f"], noun: str) -> None:
    """Reject values of attributes that no number stands for.

    Args:
        known: the samples.
        values: of every attribute.
        noun: what they are, as the beginning of a sentence.

    Raises:
        Failure: some are not finite, with the name of their attribute.
    """
    is_finite = np.isfinite(np.asarray(values)).reshape(-1, values.shape[-1])
    for factor, column in zip(known.measures.factors, is_finite.T, strict=True):
        if not column.all():
            raise Failure(
                f"{noun} {factor.name}, is not finite for {np.sum(~column)} of {column.size} "
                "samples of the generator: mend its measure, such that it is of any sample"
            )

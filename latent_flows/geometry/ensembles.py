"""The geometry of several decoders of one latent, which agree where data are and nowhere else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows._validation import choose
from latent_flows.geometry import _discrete_energy
from latent_flows.geometry.metrics import Pullback
from latent_flows.typing import Generator, Latent, Scalar

__all__ = [
    "Decoders",
    "Draws",
    "EnsemblePullback",
    "ensemble_energy",
    "ensemble_pullback",
    "ensemble_variance",
    "stacked",
]

Decoders: TypeAlias = Any
"""At least two members, `z -> x`, of one event shape; or one function `z -> [M, *event]`, a stack
of `M`; or what has such a function as its attribute `members`, as a frozen generator does."""

Draws: TypeAlias = Literal["one", "independent"]
"""How members are drawn along a curve: one for all of it, or one at each of its points."""


@dataclass(frozen=True)
class EnsemblePullback(Pullback):
    """The expected metric of a decoder that is drawn from several; see `ensemble_pullback`.

    The immersion is `z -> [M, n]`: the mean, then `M - 1` contrasts of the members, so scaled that
    the sum of their squares is the variance over members.
    """

    draws: Draws = "one"
    """How members are drawn along a curve that is known at points."""

    @property
    def is_drawn(self) -> bool:
        """Whether a member is drawn anew at every point of a discretised curve."""
        return self.draws == "independent"

    def split(self, images: Float[Array, "*k n"], z: Latent) -> tuple[Array, Array]:
        """The mean, and the contrasts if they are drawn anew at every point; see `Pullback`."""
        if not self.is_drawn:
            return super().split(images, z)
        size = jax.eval_shape(self.immersion, z).shape[1]
        return images[..., :size], images[..., size:]


def ensemble_pullback(decoders: Decoders, *, draws: Draws = "one") -> EnsemblePullback:
    r"""The expected metric of a decoder drawn from an ensemble.

    $$M(z) = \frac1M \sum_m J_m^\top J_m
      = \bar J^\top \bar J + \frac1M \sum_m (J_m - \bar J)^\top (J_m - \bar J)$$

    Members agree where there were data to learn from. Elsewhere their derivatives differ, and the
    metric is larger than that of their mean. It is pulled back through the stacked decoders over
    $\sqrt M$, so that all that takes a metric takes it, and solvers use its immersion.

    What `draws` changes is the energy that `geodesic`, `geodesic_batch`, `distance` and
    `spline_geodesic` make least. With `"one"` a member is drawn for a whole curve, whose energy
    then is that of this metric: curves are geodesics of it. With `"independent"` one is drawn
    at each point of the curve, and the energy is that of `ensemble_energy`: curves keep to where
    members agree, also where their derivatives do. That is no metric's energy: the variance counts
    in it as the square of `segments`, points gather where it is low, and the curve of least energy
    depends on their number. `length`, `energy` and `residual` of a `Geodesic` are those of the
    expected metric in either case, and `converged` then says that the energy is least. Of few
    segments the mean's part counts, of many the variance is all. Where points leave a gap that they
    cannot show, the result says that they are too few; more of them weigh the variance more, so
    that here it can be fewer that help. What needs no discretised curve, such as `exponential_map`,
    is of the expected metric whatever `draws` says; `frechet_mean`, `kmeans` and `fit_land` follow
    curves from their first velocity, and refuse such curves.

    Args:
        decoders: at least two members `z -> x` of one event shape; or one function
            `z -> [M, *event]` of all, such as a `vmap` over stacked parameters; or a frozen
            generator that has members.
        draws: `"one"` or `"independent"`, as above.

    Returns:
        The metric, with an immersion.

    Raises:
        ValueError: fewer than two members, or what is no function; another word for `draws`. When
            called: members of different shapes, or a stack without an axis of members.

    References:
        Syrota, Moreno-Munoz and Hauberg, *Decoder ensembling for learned latent geometries*, 2024.

    >>> metric = ensemble_pullback([lambda z: z, lambda z: 3.0 * z])
    >>> print(metric(jnp.zeros(2)))  # (1 + 9) / 2
    [[5. 0.]
     [0. 5.]]
    """
    choose("draws", draws, {"one": 0, "independent": 0})
    stack = stacked(decoders)

    def immersion(z: Latent) -> Float[Array, "members n"]:
        samples = stack(z)
        rows = samples.reshape(len(samples), -1)
        return jnp.asarray(_contrasts(len(rows)), rows.dtype) @ rows

    return EnsemblePullback(immersion, draws=draws)


def ensemble_energy(decoders: Decoders, points: Float[Array, "k d"]) -> Scalar:
    r"""The expected energy of a chain of points, with a member drawn at each independently.

    $$\mathbb E\, E = \frac n2 \sum_{i=1}^{n} \mathbb E\, |f_{m_i}(z_i) - f_{m_{i-1}}(z_{i-1})|^2
      = \frac n2 \sum_{i=1}^{n} |\bar f(z_i) - \bar f(z_{i-1})|^2 + V(z_i) + V(z_{i-1})$$

    with the mean over members and `ensemble_variance`: exact, where drawing members is noisy. It is
    what `ensemble_pullback(decoders, draws="independent")` makes least. The part of the variance
    grows as $n^2$, so that energies are to be compared at one number of points.

    Args:
        decoders: as in `ensemble_pullback`.
        points: `[n + 1, d]`, both ends included.

    Returns:
        The energy.

    Raises:
        ValueError: as `ensemble_pullback` does; points that are no matrix of at least two rows.

    References:
        Syrota, Moreno-Munoz and Hauberg, *Decoder ensembling for learned latent geometries*, 2024.

    >>> members = [lambda z: z - 1.0, lambda z: z + 1.0]  # a variance of 1 at each point
    >>> print(ensemble_energy(members, jnp.array([[0.0], [3.0]])))  # (9 + 1 + 1) / 2
    5.5
    """
    points = jnp.asarray(points)
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(
            f"points must be a matrix [n + 1, d] of at least two rows, got shape {points.shape}"
        )
    return _discrete_energy.total(ensemble_pullback(decoders, draws="independent"))(points)


def ensemble_variance(decoders: Decoders) -> Callable[[Latent], Scalar]:
    r"""How much the members of an ensemble disagree.

    $$V(z) = \frac1M \sum_m |f_m(z) - \bar f(z)|^2$$

    summed over all numbers of a sample: the mean squared distance of one draw from the mean.

    Args:
        decoders: as in `ensemble_pullback`.

    Returns:
        `z -> scalar`.

    Raises:
        ValueError: as `ensemble_pullback` does.

    >>> print(ensemble_variance([lambda z: z, lambda z: 3.0 * z])(jnp.ones(2)))
    2.0
    """
    stack = stacked(decoders)

    def variance(z: Latent) -> Scalar:
        samples = stack(z)
        return ((samples - samples.mean(0)) ** 2).sum() / len(samples)

    return variance


def stacked(decoders: Decoders) -> Generator:
    """All members of an ensemble as one function.

    Args:
        decoders: as in `ensemble_pullback`.

    Returns:
        `z -> [M, *event]`.

    Raises:
        ValueError: as `ensemble_pullback` does.

    >>> print(stacked([jnp.sin, jnp.cos])(jnp.zeros(1)))
    [[0.]
     [1.]]
    """
    if hasattr(decoders, "members"):
        stack = decoders.members
        if stack is None:
            name = getattr(decoders, "name", "the generator")
            raise ValueError(
                f"{name} has one decoder, and an ensemble needs at least two: train one by "
                "train_vae with --vae.decoders 8, or give a list of decoders"
            )
    elif callable(decoders):
        stack = decoders
    else:
        return _list(decoders)

    def checked(z: Latent) -> Float[Array, "members *event"]:
        samples = stack(z)
        shape = getattr(samples, "shape", None)
        if shape is None or len(shape) < 2 or 0 in shape:
            got = f"shape {shape}" if shape is not None else type(samples).__name__
            raise ValueError(
                "one function of an ensemble must give [M, *event], a sample of each of M members, "
                f"got {got}; give a list of functions z -> x where the members are functions"
            )
        if shape[0] < 2:
            raise ValueError(f"an ensemble needs at least two members, got {shape[0]}")
        return samples

    return checked


def _list(decoders: Any) -> Generator:
    """The stack of functions that are given one by one."""
    if not isinstance(decoders, Sequence) or isinstance(decoders, str):
        raise ValueError(
            "decoders must be a list of functions z -> x, or one function z -> [M, *event], got "
            f"{type(decoders).__name__}"
        )
    members = tuple(decoders)
    if wrong := [place for place, member in enumerate(members) if not callable(member)]:
        raise ValueError(
            f"every member of an ensemble must be a function z -> x, and member {wrong[0]} is "
            f"{type(members[wrong[0]]).__name__}"
        )
    if len(members) < 2:
        raise ValueError(f"an ensemble needs at least two members, got {len(members)}")

    def stack(z: Latent) -> Float[Array, "members *event"]:
        samples = [jnp.asarray(member(z)) for member in members]
        if len({sample.shape for sample in samples}) > 1:
            raise ValueError(
                "all members of an ensemble must give samples of one shape, got "
                + ", ".join(str(sample.shape) for sample in samples)
            )
        return jnp.stack(samples)

    return stack


def _contrasts(count: int) -> Float[np.ndarray, "m m"]:
    """The Helmert matrix over the root of `m`: first the mean, then what is orthogonal to it."""
    place = np.arange(1, count)[:, None]
    other = np.arange(count)[None]
    rows = np.where(other < place, 1.0, np.where(other == place, -place, 0.0))
    rows = rows / np.sqrt(place * (place + 1.0))
    return np.concatenate([np.full((1, count), 1 / np.sqrt(count)), rows]) / np.sqrt(count)

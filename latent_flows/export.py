r"""Take it with you: what was learnt as one file, or as a function that needs nothing but JAX.

The file is safetensors: arrays by name, and texts in its header that say what they are. The
function is a program of `jax.export`, from which all that is learnt about a generator can be used
without this library. `docs/export.md` has the layout, and how to read either.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from jaxtyping import Array, ArrayLike, Float, PyTree

from latent_flows import _safetensors, potentials, traversals
from latent_flows._validation import choose
from latent_flows.coordinates import AffineCoordinates
from latent_flows.directions import control
from latent_flows.directions.model import DirectionModel, FittedDirection, PotentialModel
from latent_flows.generators.rbf import RBF
from latent_flows.potentials import PotentialNet
from latent_flows.traversals import Motion
from latent_flows.typing import Latent, Metric, Scalar, VectorField

__all__ = [
    "FORMAT",
    "PLATFORMS",
    "VERSION",
    "Directions",
    "Learnt",
    "Motion",
    "Potentials",
    "dim",
    "load",
    "motion",
    "rows",
    "save",
    "serialize_metric",
    "serialize_motion",
    "straight",
    "to_bytes",
]

FORMAT = "latent_flows"
"""What the header's `format` says."""
VERSION = 1
"""Of the layout; a file with a greater one is refused."""
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What a serialised function runs on."""

STEPS = 64
"""Steps of a path; over the trained horizon the error is that of single precision."""
CORRECTIONS = 2
"""Newton steps at the end of a path whose end has a known value."""
_NETWORK = ("width", "depth", "time_features", "horizon", "initial")


class Potentials(NamedTuple):
    """A stack of potentials, in a frame of the generator's latent space."""

    net: PotentialNet
    """The network that they share."""
    params: PyTree
    """Its variables, with a leading axis of length `K`."""
    frame: AffineCoordinates
    """The coordinates that they are functions of."""
    coefficients: Float[Array, "k"]
    """Of the equation: wave speeds or diffusivities, positive."""
    pde: str = "wave"
    """Name of the equation that they were trained on."""


class Directions(NamedTuple):
    """Ways of changing one factor each, in the generator's latent space."""

    names: tuple[str, ...]
    """The transformation that each performs; a name may stand for several models."""
    models: tuple[FittedDirection, ...]
    """As many, straight or curved."""


Learnt: TypeAlias = Potentials | Directions | RBF
"""What a file can hold. An RBF network is the noise of a generator, which decides its metric."""


# --- as a function ---


def motion(learnt: Potentials | Directions) -> Motion:
    r"""What was learnt, as a map of the generator's own latent space.

    For potentials, with `z = origin + B s` in the frame's coordinates,

    $$\frac{ds}{d\tau} = \operatorname{sign}(t)\, \nabla u_k(\tau, s), \quad 0 \le \tau \le |t|,
      \qquad z \mapsto z + B\, \bigl(s(|t|) - s(0)\bigr)$$

    so that a negative time follows the reversed flow, and what of `z` lies outside the frame's
    span stays. For directions, the factor that direction `k` changes is shifted by `t`. A path has
    a fixed number of steps, which is too few for one many times longer than the trained horizon.

    Args:
        learnt: potentials or directions.

    Returns:
        `(k, t, z) -> z`, for `k` from 0, which may be traced.

    Raises:
        ValueError: when called, for a `z` of another length than the latent space has, or a `k`
            known to be out of range.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, eq. (4).

    >>> line = jnp.array([0.0, 1.0])
    >>> model = DirectionModel(jnp.array([0.6, 0.8]), line, 2 * line, 2 * line, *jnp.ones(2))
    >>> print(motion(Directions(("zoom",), (model,)))(0, 1.0, jnp.zeros(2)))
    [0.3 0.4]
    """
    size = dim(learnt)
    move: Motion
    if isinstance(learnt, Potentials):
        field = traversals.climbing(learnt.net)
        move = traversals.motion(field, learnt.params, learnt.frame, solve=_unit_time)
    else:
        move = _shift(learnt)

    def checked(k: ArrayLike, t: ArrayLike, z: Latent) -> Latent:
        if jnp.shape(z) != (size,):
            raise ValueError(f"z must have shape [{size}], got {list(jnp.shape(z))}")
        return move(k, jnp.asarray(t, z.dtype), z)

    return checked


def dim(learnt: Learnt) -> int:
    """The length of the latents that something was learnt about.

    Args:
        learnt: potentials, directions or a metric.

    Returns:
        The length `d`.
    """
    if isinstance(learnt, Potentials):
        return learnt.frame.origin.shape[0]
    if isinstance(learnt, Directions):
        return learnt.models[0].latent_dim
    return learnt.centres.shape[1]


def straight(learnt: Learnt) -> Float[np.ndarray, "k d"]:
    """The unit vectors of what is straight.

    Args:
        learnt: potentials, directions or a metric.

    Returns:
        One row a straight direction; none where there are none.

    >>> knots = jnp.array([0.0, 1.0])
    >>> model = DirectionModel(jnp.array([0.6, 0.8]), knots, 2 * knots, 2 * knots, *jnp.ones(2))
    >>> print(straight(Directions(("zoom",), (model,))))
    [[0.6 0.8]]
    """
    models = learnt.models if isinstance(learnt, Directions) else ()
    vectors = [np.asarray(m.direction) for m in models if isinstance(m, DirectionModel)]
    return np.stack(vectors) if vectors else np.zeros((0, dim(learnt)), np.float32)


def rows(learnt: Learnt) -> list[dict[str, Any]]:
    """What the numbers `k` of a `motion` stand for, as rows of a table.

    Args:
        learnt: potentials, directions or a metric.

    Returns:
        A row for each potential or direction; one of a metric.

    >>> knots = jnp.array([0.0, 1.0])
    >>> model = DirectionModel(jnp.array([0.6, 0.8]), knots, 2 * knots, 2 * knots, *jnp.ones(2))
    >>> rows(Directions(("zoom",), (model,)))[0]["to"]
    2.0
    """
    length = dim(learnt)
    if isinstance(learnt, Potentials):
        return [
            {"k": k, "potential of": learnt.pde, "coefficient": float(value), "latent": length}
            for k, value in enumerate(learnt.coefficients)
        ]
    if isinstance(learnt, Directions):
        return [
            {
                "k": k,
                "direction": name,
                "shape": "straight" if isinstance(model, DirectionModel) else "curved",
                "from": float(model.limits[0]),
                "to": float(model.limits[1]),
                "held-out R2": float(model.r2),
                "latent": length,
            }
            for k, (name, model) in enumerate(zip(learnt.names, learnt.models, strict=True))
        ]
    count, *event = learnt.log_weights.shape
    return [{"metric": "RBF deviation", "kernels": count, "sample": event, "latent": length}]


def _shift(learnt: Directions) -> Motion:
    # How far one may go is not known while it is traced, so it is not limited at all.
    ways = [
        partial(control.shift, model, extrapolate=True)
        if isinstance(model, DirectionModel)
        else partial(_climb, model)
        for model in learnt.models
    ]

    def move(k: ArrayLike, t: ArrayLike, z: Latent) -> Latent:
        if not isinstance(k, jax.core.Tracer) and not 0 <= np.asarray(k) < len(ways):
            raise ValueError(f"k must be in [0, {len(ways)}), got {k}")
        return jax.lax.switch(k, ways, z, t)

    return move


def _climb(model: PotentialModel, z: Latent, dt: Scalar) -> Latent:
    """`control.shift` for a curved direction, in a form that can be serialised."""

    def velocity(y: Latent) -> Latent:
        slope = jax.grad(model)(y)
        return slope / jnp.maximum(slope @ slope, model.floor)

    target = model(z) + dt
    z = _unit_time(lambda _, y: dt * velocity(y), z)
    for _ in range(CORRECTIONS):
        z = z + (target - model(z)) * velocity(z)
    return z


def _unit_time(field: VectorField, z: Latent) -> Latent:
    """The end of a path over times 0 to 1, by equal steps of the classical Runge-Kutta method.

    `flows.integrate` checks its times with calls back to Python, which no program can take along.
    """
    h = 1 / STEPS

    def step(i: Array, z: Latent) -> Latent:
        t = i * h
        k1 = field(t, z)
        k2 = field(t + h / 2, z + h / 2 * k1)
        k3 = field(t + h / 2, z + h / 2 * k2)
        k4 = field(t + h, z + h * k3)
        return z + h / 6 * (k1 + 2 * (k2 + k3) + k4)

    return jax.lax.fori_loop(0, STEPS, step, z)


def serialize_motion(function: Motion, dim: int, *, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """A motion as a program that `jax.export.deserialize` reads, in float32.

    The program takes `k` (int32), `t` (float32) and one latent, or several of them end to end: its
    `z` is `float32[n * dim]`. A program of JAX cannot be mapped over a batch from outside.

    Args:
        function: `(k, t, z) -> z`.
        dim: the length of a latent.
        platforms: what it shall run on.

    Returns:
        The program.

    Raises:
        ValueError: for a platform that JAX does not know.
    """

    def many(k: Array, t: Array, z: Array) -> Array:
        return jax.vmap(partial(function, k, t))(z.reshape(-1, dim)).reshape(z.shape)

    whole = jax.ShapeDtypeStruct((), jnp.int32)
    time = jax.ShapeDtypeStruct((), jnp.float32)
    return _serialize(many, (whole, time, _latents(dim)), platforms)


def serialize_metric(metric: Metric, dim: int, *, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """A metric as a program that `jax.export.deserialize` reads, in float32.

    The program takes one latent, or several of them end to end, `float32[n * dim]`, and returns
    their matrices one below the other, `float32[n * dim, dim]`.

    Args:
        metric: `z -> M(z)`.
        dim: the length of a latent.
        platforms: what it shall run on.

    Returns:
        The program.

    Raises:
        ValueError: for a platform that JAX does not know.
    """

    def many(z: Array) -> Array:
        return jax.vmap(metric)(z.reshape(-1, dim)).reshape(-1, dim)

    return _serialize(many, (_latents(dim),), platforms)


def _latents(dim: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(export.symbolic_shape(f"{dim}*n"), jnp.float32)


def _serialize(function: Callable, inputs: tuple, platforms: Sequence[str]) -> bytes:
    for name in platforms:
        choose("platform", name, dict.fromkeys(PLATFORMS))
    return bytes(export.export(jax.jit(function), platforms=tuple(platforms))(*inputs).serialize())


# --- as a file ---


def save(path: str | Path, learnt: Learnt, *, about: Mapping[str, Any] | None = None) -> None:
    """Writes what was learnt as one file; see `to_bytes`.

    Args:
        path: of the file, which is replaced if it is there.
        learnt: potentials, directions or a metric.
        about: what else to say of it, as JSON.
    """
    Path(path).expanduser().write_bytes(to_bytes(learnt, about=about))


def to_bytes(learnt: Learnt, *, about: Mapping[str, Any] | None = None) -> bytes:
    """What was learnt as the content of a file, which `load` reads.

    Args:
        learnt: potentials, directions, or the RBF network of a metric.
        about: anything that JSON can hold about where it comes from; kept, and of no effect.

    Returns:
        The content of a safetensors file.

    Raises:
        ValueError: for a network of potentials that is not a `PotentialNet`, or arrays of
            parameters that do not fit each other.

    >>> rbf = RBF(jnp.zeros((3, 2)), jnp.ones(3), jnp.zeros((3, 5)), jnp.array(0.1))
    >>> from safetensors.numpy import load as arrays_of
    >>> sorted(arrays_of(to_bytes(rbf)))
    ['bandwidths', 'centres', 'log_weights', 'zeta']
    """
    kind = next(name for name, (type_, *_) in _KINDS.items() if isinstance(learnt, type_))
    _, describe, rebuild = _KINDS[kind]
    model, arrays = describe(learnt)
    stored = {name: np.asarray(leaf, np.float32) for name, leaf in sorted(arrays.items())}
    rebuild(model, stored)
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "kind": kind,
        "model": json.dumps({"latent_dim": dim(learnt), **model}),
        "about": json.dumps(dict(about or {})),
    }
    return _safetensors.save(stored, header)


def load(path: str | Path) -> Learnt:
    """Reads what `save` wrote.

    Args:
        path: the file.

    Returns:
        The potentials, directions or RBF network in it.

    Raises:
        ValueError: no such file, truncated or corrupt, of another kind, written by a newer version
            of this library, or with arrays that are missing or of another shape.
    """
    header, arrays = _read(Path(path).expanduser())
    try:
        _, _, rebuild = _KINDS[header["kind"]]
        model = json.loads(header["model"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: its header makes no sense ({error})") from None
    try:
        return rebuild(model, arrays)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: {error}") from None


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    header, arrays = _safetensors.read(path)
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not one of {FORMAT}")
    version = header.get("version", "")
    if version not in map(str, range(1, VERSION + 1)):
        raise ValueError(
            f"{path} has version {version or 'nothing'} of the layout, and this {FORMAT} reads "
            f"versions up to {VERSION}; a newer one is needed"
        )
    return header, arrays


def _network(net: PotentialNet) -> dict[str, Any]:
    if not isinstance(net, PotentialNet):
        raise ValueError(f"expected potentials of a PotentialNet, got {type(net).__name__}")
    return {name: getattr(net, name) for name in _NETWORK}


def _describe_potentials(learnt: Potentials) -> tuple[dict, dict[str, Array]]:
    model = {
        "count": learnt.coefficients.shape[0],
        "network": _network(learnt.net),
        "pde": learnt.pde,
    }
    arrays = {
        "frame/origin": learnt.frame.origin,
        "frame/basis": learnt.frame.basis,
        "coefficients": learnt.coefficients,
    }
    return model, arrays | _flat("potentials", learnt.params)


def _rebuild_potentials(model: Mapping, arrays: Mapping[str, np.ndarray]) -> Potentials:
    net = PotentialNet(**model["network"])
    basis = _take(arrays, "frame/basis", (None, None))
    like = jax.eval_shape(
        lambda key: potentials.init_stack(net, key, model["count"], basis.shape[1]),
        jax.random.key(0),
    )
    return Potentials(
        net=net,
        params=_unflat(arrays, "potentials", like),
        frame=AffineCoordinates(_take(arrays, "frame/origin", basis.shape[:1]), basis),
        coefficients=_take(arrays, "coefficients", (model["count"],)),
        pde=model["pde"],
    )


def _describe_directions(learnt: Directions) -> tuple[dict, dict[str, Array]]:
    if not learnt.models or len(learnt.names) != len(learnt.models):
        raise ValueError(
            f"expected one name for each of at least one direction, got {len(learnt.names)} names "
            f"and {len(learnt.models)} directions"
        )
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for i, (name, found) in enumerate(zip(learnt.names, learnt.models, strict=True)):
        curved = isinstance(found, PotentialModel)
        network = {"network": _network(found.net)} if isinstance(found, PotentialModel) else {}
        rows.append({"name": name, "shape": "curved" if curved else "straight"} | network)
        for field in fields(found):
            value = getattr(found, field.name)
            if field.name == "params":
                arrays |= _flat(f"{i}/params", value)
            elif field.name != "net":
                arrays[f"{i}/{field.name}"] = value
    return {"directions": rows}, arrays


def _rebuild_directions(model: Mapping, arrays: Mapping[str, np.ndarray]) -> Directions:
    rows = model["directions"]
    models = tuple(_rebuild_direction(f"{i}", row, arrays) for i, row in enumerate(rows))
    lengths = sorted({found.latent_dim for found in models})
    if len(lengths) != 1:
        raise ValueError(f"directions must be of one latent space, got lengths {lengths}")
    return Directions(tuple(row["name"] for row in rows), models)


def _rebuild_direction(at: str, row: Mapping, arrays: Mapping[str, np.ndarray]) -> FittedDirection:
    take = lambda name, *shape: _take(arrays, f"{at}/{name}", shape)  # noqa: E731
    scores = {"limits": take("limits", 2), "r2": take("r2"), "train_r2": take("train_r2")}
    if row["shape"] == "straight":
        knots = take("knots", None)
        values = take("values", *knots.shape)
        return DirectionModel(take("direction", None), knots, values, **scores)
    net = PotentialNet(**row["network"])
    linear = take("linear", None)
    like = jax.eval_shape(lambda key: net.init(key, 0.0, linear), jax.random.key(0))
    return PotentialModel(
        linear=linear,
        params=_unflat(arrays, f"{at}/params", like),
        **{name: take(name) for name in ("scale", "offset", "floor")},
        **scores,
        net=net,
    )


def _describe_rbf(learnt: RBF) -> tuple[dict, dict[str, Array]]:
    return {"event_shape": list(learnt.log_weights.shape[1:])}, learnt._asdict()


def _rebuild_rbf(model: Mapping, arrays: Mapping[str, np.ndarray]) -> RBF:
    centres = _take(arrays, "centres", (None, None))
    count = centres.shape[0]
    return RBF(
        centres,
        _take(arrays, "bandwidths", (count,)),
        _take(arrays, "log_weights", (count, *model["event_shape"])),
        _take(arrays, "zeta", ()),
    )


def _take(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...]) -> Array:
    """An array of a shape, in which None is any length."""
    found = arrays[name]
    fits = len(found.shape) == len(shape) and all(
        wanted in (None, got) for wanted, got in zip(shape, found.shape, strict=True)
    )
    if not fits:
        wanted = ["any" if size is None else size for size in shape]
        raise ValueError(f"{name} has shape {list(found.shape)}, expected {wanted}")
    return jnp.asarray(found)


def _flat(prefix: str, tree: PyTree) -> dict[str, Array]:
    return {f"{prefix}/{name}": leaf for name, leaf in flatten_dict(tree, sep="/").items()}


def _unflat(arrays: Mapping[str, np.ndarray], prefix: str, like: PyTree) -> PyTree:
    wanted = flatten_dict(like, sep="/")
    found = {name: _take(arrays, f"{prefix}/{name}", leaf.shape) for name, leaf in wanted.items()}
    return unflatten_dict(found, sep="/")


_KINDS: dict[str, tuple[Any, Callable, Callable]] = {
    "potentials": (Potentials, _describe_potentials, _rebuild_potentials),
    "directions": (Directions, _describe_directions, _rebuild_directions),
    "metric": (RBF, _describe_rbf, _rebuild_rbf),
}
"""What a header's `kind` stands for: its type, and how it goes into arrays and comes out."""

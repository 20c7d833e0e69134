"""A user's function and its parameters, found by the names on the command line."""

import dataclasses
import functools
import inspect
import operator
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors.numpy import load_file

from latent_flows._named_function import import_function
from latent_flows._validation import what
from latent_flows.generators.frozen import FrozenGenerator, freeze
from latent_flows.generators.memory import cast_and_remat
from latent_flows.generators.spec import GeneratorSpec, log_prior, prior

__all__ = ["read_checkpoint", "user_function"]


def user_function(spec: GeneratorSpec) -> FrozenGenerator:
    """The generator that a function of your own and its parameters make.

    Args:
        spec: its `path` is package.module:function or file.py:function. A `FrozenGenerator` of that
            name is taken as it is, with its encoder if it has one; a PyTorch module, or what builds
            one without arguments, by `from_torch`.

    Returns:
        The generator, of samples of any shape; images are scaled from `spec.range` to [0, 1].

    Raises:
        ValueError: there is no such function or checkpoint, they do not fit, or what it gives is
            no array of floats.
    """
    function = import_function(spec.path)
    if isinstance(function, FrozenGenerator):
        if dataclasses.replace(spec, path="") != GeneratorSpec():
            raise ValueError(
                f"{spec.path} is a FrozenGenerator, which says all of itself; leave out the other "
                "settings of the generator"
            )
        return function
    module = _torch_module(spec, function)
    function = function if module is None else module
    params = read_checkpoint(spec.checkpoint) if spec.checkpoint and module is None else None
    told = {"generator.latent_dim": spec.latent_dim}
    owner = getattr(function, "__self__", None)  # of a method
    told[spec.path] = getattr(function, "latent_dim", getattr(owner, "latent_dim", None))
    if isinstance(params, dict):
        told[spec.checkpoint] = params.pop("latent_dim", None)
    dims = {who: _dimensions(who, said) for who, said in told.items() if said is not None}
    if len(set(dims.values())) > 1:
        raise ValueError(
            "the latent's dimensions differ: "
            + ", ".join(f"{dim} by {who}" for who, dim in dims.items())
            + "; leave generator.latent_dim out, or mend the other"
        )
    dim = next(iter(dims.values()), None)
    if dim is None:
        raise ValueError(
            f"generator {spec.path}: give generator.latent_dim, or the function an attribute "
            "latent_dim"
        )
    if spec.space != "z" or spec.label is not None:
        raise ValueError("generator.space and generator.label are for published generators")
    if spec.layers or spec.base:
        raise ValueError(
            f"generator.layers and generator.base are StyleGAN2's; {spec.path} has no layers that "
            "take a style"
        )
    if module is not None:
        return _from_torch(spec, module, dim)
    _check_arguments(spec, function)
    names = getattr(function, "output_names", ())
    function = _contained(function)
    if params is None:
        apply = lambda _, z: function(z)  # noqa: E731
    else:
        apply, params = function, jax.tree.map(jnp.asarray, params)
    call = cast_and_remat(apply, params, dtype=spec.dtype, recompute=spec.recompute)
    _check_sample(spec, call, dim)
    if params is None:
        _check_dtype(spec, function, dim)
    low, high = spec.range
    decode = call if spec.range == (0.0, 1.0) else lambda z: (call(z) - low) / (high - low)
    return freeze(
        decode,
        dim,
        name=spec.path,
        prior=prior(spec, dim),
        log_prior=log_prior(spec),
        output_names=names,
    )


def _torch_module(spec: GeneratorSpec, function: Any) -> Any:
    """The PyTorch module that a name stands for, or a method of one; None if it is none.

    Raises:
        ValueError: it should build one and fails.
    """
    torch = sys.modules.get("torch")  # where it was not imported there is no module of it
    if torch is None or not hasattr(torch, "nn"):
        return None
    built = function
    if not isinstance(function, torch.nn.Module) and _takes(function):
        try:
            built = function()
        except (Exception, SystemExit) as error:
            if _takes(function, "z"):
                return None  # a generator whose latent has a default
            raise ValueError(
                f"generator {spec.path} fails to build a module ({what(error)})"
            ) from None
    owner = getattr(built, "__self__", built)
    return built if isinstance(owner, torch.nn.Module) else None


def _takes(function: Any, *args: Any) -> bool:
    """Whether a function can be called with these arguments, and says so."""
    try:
        inspect.signature(function).bind(*args)
    except (TypeError, ValueError):
        return False
    return True


def _from_torch(spec: GeneratorSpec, module: Any, dim: int) -> FrozenGenerator:
    """A PyTorch module, or a method of one, with its state out of a file if one is named."""
    from latent_flows.generators._torch.checkpoint import load_state
    from latent_flows.generators.torch_module import from_torch

    if spec.checkpoint:
        try:
            load_state(getattr(module, "__self__", module), spec.checkpoint)
        except ValueError as error:
            raise ValueError(f"generator.checkpoint: {error}") from None
    return from_torch(
        module,
        dim,
        range=spec.range,
        prior=prior(spec, dim),
        name=spec.path,
        dtype=spec.dtype,
        recompute=spec.recompute,
    )


def _dimensions(who: str, said: Any) -> int:
    """A number of dimensions, as somebody wrote it.

    Raises:
        ValueError: it is no whole number from 1 on.
    """
    try:
        number = operator.index(np.asarray(said).item())
    except (TypeError, ValueError):
        number = 0
    if np.ndim(said) or np.asarray(said).dtype == bool or not 1 <= number < 2**31:
        raise ValueError(f"{who}: latent_dim must be a whole number from 1 on, got {said!r}")
    return number


def _contained(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but one that does not end the program without a word."""

    @functools.wraps(function, updated=())
    def contained(*args: Any) -> Any:
        try:
            return function(*args)
        except SystemExit as error:
            raise RuntimeError(f"it calls SystemExit({error.code})") from None

    return contained


def _check_arguments(spec: GeneratorSpec, function: Callable[..., Any]) -> None:
    """Whether the function takes what it will be given."""
    given = ("params", "z") if spec.checkpoint else ("z",)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some callables do not tell
    try:
        signature.bind(*given)
    except TypeError as error:
        hint = "" if spec.checkpoint else "; with generator.checkpoint it gets (params, z)"
        raise ValueError(
            f"generator {spec.path} cannot be called with ({', '.join(given)}): {error}{hint}"
        ) from None


def _check_sample(spec: GeneratorSpec, call: Callable[[Array], Any], dim: int) -> None:
    """Whether what a user's function gives is a sample.

    Raises:
        ValueError: it fails on a latent, or gives no array of floats, or an empty one.
    """
    told = f"generator {spec.path}"
    try:
        made = jax.eval_shape(call, jax.ShapeDtypeStruct((dim,), jnp.float32))
    except Exception as error:
        raise ValueError(f"{told} fails on a latent of shape ({dim},): {what(error)}") from None
    shape, dtype = getattr(made, "shape", None), getattr(made, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(f"{told} gives {type(made).__name__}, not an array")
    if not shape or 0 in shape:
        raise ValueError(f"{told} gives shape {shape}, in which there is nothing to change")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{told} gives {dtype}, not floating-point numbers")


def _check_dtype(spec: GeneratorSpec, function: Callable[[Array], Any], dim: int) -> None:
    """Whether a function without a checkpoint computes in a narrow dtype if its latent has that.

    Raises:
        ValueError: numbers of its own are wider.
    """
    made = jax.eval_shape(function, jax.ShapeDtypeStruct((dim,), spec.dtype))
    if made.dtype != jnp.dtype(spec.dtype):
        raise ValueError(
            f"generator {spec.path} makes {made.dtype} of latents in {spec.dtype}, so "
            "numbers of its own are wider; pass them by generator.checkpoint, or leave out "
            "generator.dtype"
        )


def read_checkpoint(path: str) -> Any:
    """The parameters in an orbax folder, a .npz or a .safetensors file, as nested dictionaries.

    Args:
        path: of the folder or file.

    Returns:
        A pytree of arrays of numbers.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise ValueError(f"generator.checkpoint: {place} does not exist")
    if not place.is_dir() and place.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"generator.checkpoint must be an orbax folder, .npz or .safetensors, got {place.name}"
        )
    # A damaged file or folder can fail in any way at all, and it means one thing here.
    try:
        params = _read(place)
        kinds = {np.asarray(leaf).dtype for leaf in jax.tree.leaves(params)}
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"generator.checkpoint: {place} cannot be read ({what(error)})") from None
    for kind in kinds:
        if not (jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, jnp.bool_)):
            raise ValueError(f"generator.checkpoint: {place} holds {kind}, not numbers alone")
    return params


def _read(place: Path) -> Any:
    import orbax.checkpoint as ocp

    if place.is_dir():
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(_orbax_folder(place))
    if place.suffix == ".npz":
        with np.load(place, allow_pickle=False) as file:
            return _nested(dict(file))
    return _nested(load_file(place))


def _orbax_folder(place: Path) -> Path:
    """A checkpoint itself, or the newest that an orbax manager keeps below this folder."""
    steps = [int(child.name) for child in place.iterdir() if child.name.isdigit()]
    if steps:
        place = place / str(max(steps))
    return place / "default" if (place / "default").is_dir() else place


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Names with slashes as nested dictionaries.

    Raises:
        ValueError: a name is that of an array and of what holds others.

    >>> _nested({"a/b": 1, "a/c": 2, "d": 3})
    {'a': {'b': 1, 'c': 2}, 'd': 3}
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise ValueError(f"{name} lies in {folder}, which is an array itself")
        if last in place:
            raise ValueError(f"{name} is an array, and others lie in it")
        place[last] = value
    return tree

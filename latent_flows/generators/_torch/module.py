"""A PyTorch module at rest: what it takes and gives, its exported graph, what it computes.

PyTorch is imported where it is used, and nothing of the module is changed once this is done.
"""

import contextlib
import functools
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from latent_flows._validation import what
from latent_flows.generators._torch import aten, graph

__all__ = ["Layout", "Source", "at_rest", "chosen", "differ", "export", "layout", "source", "takes"]

SAME = 1e-6
"""Of the largest number: what two runs of a function without randomness may differ by."""


class Source(NamedTuple):
    """A function of PyTorch's tensors, and the modules that it is made of."""

    name: str
    """For messages."""
    call: Callable[..., Any]
    """The module, a method of one, or a function."""
    modules: tuple[Any, ...]
    """Whose parameters it uses."""


class Layout(NamedTuple):
    """How PyTorch's samples lie, and ours in them."""

    batched: bool
    """A first axis of length one."""
    channels_first: bool
    """Channels before rows and columns."""

    def event(self, x: Any) -> Any:
        """Our sample, of PyTorch's; of NumPy or JAX."""
        x = x[0] if self.batched else x
        return x.transpose(1, 2, 0) if self.channels_first else x

    def sample(self, event: Any) -> Any:
        """PyTorch's sample, of ours; of NumPy or JAX."""
        x = event.transpose(2, 0, 1) if self.channels_first else event
        return x[None] if self.batched else x


def source(function: Any, name: str | None = None) -> Source:
    """A module, a method of one, or a function, with the modules whose parameters it uses.

    Args:
        function: any of them.
        name: what it is called; by default what its class or itself is called.

    Returns:
        All three.

    Raises:
        ValueError: it is a class, or nothing that can be called.
    """
    import torch

    # What other modules are wrapped in to be compiled, or copied to several devices.
    while isinstance(function, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        function = function.module
    function = getattr(function, "_orig_mod", function)
    called = str(name or getattr(function, "__name__", type(function).__name__))
    if isinstance(function, type):
        raise ValueError(f"{called} is a class: give a module, {called}(...)")
    if not callable(function):
        raise ValueError(f"a {called} is no module of PyTorch, nor a function")
    return Source(called, function, tuple(_modules(function)))


def _modules(function: Any) -> list[Any]:
    """The modules that a function is, belongs to, or mentions."""
    import torch

    if isinstance(function, torch.nn.Module):
        return [function]
    if isinstance(function, functools.partial):
        inner: list[Any] = [function.func, *function.args, *function.keywords.values()]
    elif inspect.ismethod(function):
        inner = [function.__self__, function.__func__]
    elif inspect.isfunction(function):
        seen = inspect.getclosurevars(function)
        inner = [*seen.nonlocals.values(), *seen.globals.values(), *(function.__defaults__ or ())]
    else:
        inner = list(getattr(function, "__dict__", {}).values())
    nested = (each for each in inner if inspect.ismethod(each) or type(each) is functools.partial)
    found = [each for each in inner if isinstance(each, torch.nn.Module)]
    return list(dict.fromkeys([*found, *(module for each in nested for module in _modules(each))]))


@contextlib.contextmanager
def at_rest(modules: Sequence[Any]) -> Iterator[Any]:
    """Modules in evaluation mode, on the CPU, in float32 or float64; afterwards as they were.

    Args:
        modules: of one function.

    Returns:
        A context with the dtype of what they take.

    Raises:
        ValueError: one has no numbers yet.
    """
    import torch

    every = list({id(m): m for root in modules for m in root.modules()}.values())
    parameters = [p for m in every for p in m._parameters.values() if p is not None]
    buffers = [b for m in every for b in m._buffers.values() if b is not None]
    for tensor in (*parameters, *buffers):
        if tensor.is_meta or torch.nn.parameter.is_lazy(tensor):
            raise ValueError("has parameters without numbers: load its state, or run it once")
    modes = [(m, m.training) for m in every]
    kept_buffers = [(m, dict(m._buffers)) for m in every]
    kept = {id(t): (t, t.data) for t in (*parameters, *buffers)}
    floats = [t.dtype for t in parameters if t.is_floating_point()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        for m in every:
            m.training = False
        for tensor, data in kept.values():
            tensor.data = _plain(data)
        for tensor in buffers:  # those are written to by some
            tensor.data = tensor.data.clone()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield torch.float64 if floats and floats[0] == torch.float64 else torch.float32
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for tensor, data in kept.values():
            tensor.data = data
        for m, were in kept_buffers:
            m._buffers.clear()
            m._buffers.update(were)
        for m, mode in modes:
            m.training = mode


def _plain(data: Any) -> Any:
    """On the CPU, and no half precision, in which few operators run there."""
    import torch

    half = data.dtype in (torch.float16, torch.bfloat16)
    return data.to("cpu", torch.float32 if half else data.dtype)


def takes(
    given: Source, z: Any, latent_shape: Sequence[int] | None, output: int | str | None
) -> tuple[tuple[int, ...], Any]:
    """The shape in which a function takes a latent, found by trying.

    Args:
        given: the function, at rest.
        z: a latent `[d]`.
        latent_shape: of a latent without its batch, if it is known.
        output: which of several tensors is the sample.

    Returns:
        The shape with its batch of one, if it has one, and the sample that it gives.

    Raises:
        ValueError: it takes none of them, or does not give one tensor of floats.
    """
    d = len(z)
    shapes = [(1, d), (1, d, 1, 1), (d,)]
    if latent_shape is not None:
        shapes = [(1, *latent_shape), tuple(latent_shape)]
    trouble = []
    for shape in shapes:
        try:
            made = given.call(z.reshape(shape))
        except Exception as error:
            trouble.append(f"{list(shape)}: {what(error)}")
        else:
            return shape, chosen(made, output)
    for shape in (shape for shape in shapes if shape[0] == 1):
        with contextlib.suppress(Exception):
            given.call(z.reshape(shape).repeat(2, *[1] * (len(shape) - 1)))
            trouble = []
    if not trouble:
        raise ValueError(
            "takes no single latent, only a batch of two and more: give a function that repeats "
            "the latent and keeps the first sample"
        )
    raise ValueError(f"takes no latent of {d} numbers: {'; '.join(trouble)}")


def chosen(made: Any, output: int | str | None) -> Any:
    """The one tensor of what a module gives.

    Args:
        made: a tensor, or several with numbers or names.
        output: which of several.

    Returns:
        The tensor.

    Raises:
        ValueError: there are several and none is chosen, or there is none like this.
    """
    import torch

    if output is None and isinstance(made, list | tuple) and len(made) == 1:
        made = made[0]
    if isinstance(made, torch.Tensor):
        if output is not None:
            raise ValueError(f"gives one tensor, so that there is no output {output!r} to take")
        return made
    parts = _parts(made)
    tensors = {k: v for k, v in parts.items() if isinstance(v, torch.Tensor)}
    if output in tensors:
        return tensors[output]  # type: ignore[index]
    listed = ", ".join(f"{k!r} {list(v.shape)}" for k, v in tensors.items())
    said = f"no output {output!r}" if output is not None else "not one tensor"
    kind = type(made).__name__
    raise ValueError(
        f"gives a {kind} with {said}; take one of {listed} by output=, or by a function of your own"
        if tensors
        else f"gives {'None' if made is None else f'a {kind}'} and no tensor"
    )


def _parts(made: Any) -> Mapping[int | str, Any]:
    if isinstance(made, Mapping):
        return dict(made)
    if isinstance(made, list | tuple):
        return dict(enumerate(made))
    return {k: v for k, v in getattr(made, "__dict__", {}).items() if not k.startswith("_")}


def layout(
    given: Source, z: Any, x: Any, output: int | str | None, channels_first: bool | None
) -> Layout:
    """How the sample `x` of the latent `z` lies.

    Args:
        given: the function, at rest.
        z: a latent in the shape in which the function takes it.
        x: its sample.
        output: which of several tensors is the sample.
        channels_first: whether images begin with their channels; None: where there are three axes
            of which the first has 1, 3 or 4 entries.

    Returns:
        The layout.

    Raises:
        ValueError: a sample that is no array of floats, or without channels to move.
    """
    batched = _is_batched(given, z, x, output)
    shape = tuple(x.shape[1:] if batched else x.shape)
    if not x.is_floating_point():
        raise ValueError(f"gives {str(x.dtype).removeprefix('torch.')}, not floating-point numbers")
    if not shape or 0 in shape:
        raise ValueError(f"gives shape {shape}, in which there is nothing to change")
    if channels_first and len(shape) != 3:
        raise ValueError(f"gives shape {shape}, which is no image whose channels are first")
    if channels_first is None:
        channels_first = len(shape) == 3 and shape[0] in (1, 3, 4)
    return Layout(batched, channels_first)


def _is_batched(given: Source, z: Any, x: Any, output: int | str | None) -> bool:
    """Whether the first axis of a sample counts latents: two of them tell."""
    if z.ndim == 1 or x.ndim == 0 or x.shape[0] != 1:
        return False
    try:
        two = chosen(given.call(z.repeat(2, *[1] * (z.ndim - 1))), output)
    except Exception:
        return True  # it takes one at a time, and gives a batch of one
    return two.ndim == x.ndim


def differ(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two runs of a function gave different tensors.

    Args:
        first: of one run.
        second: of the other.

    Returns:
        Whether any differs by more than rounding.
    """
    for a, b in zip(first, second, strict=True):
        scale = max(float(a.abs().max()), 1e-30)
        if not float((a - b).abs().max()) <= SAME * scale:
            return True
    return False


def export(
    call: Callable[..., Any], modules: Sequence[Any], example: Any
) -> tuple[graph.Program, dict[str, np.ndarray]]:
    """The graph of a function of one tensor, and the numbers of its tensors.

    Args:
        call: from a tensor to a tensor, or to a tuple of them; its modules are at rest.
        modules: whose parameters it uses.
        example: what it is called with.

    Returns:
        The program, and its tensors by name.

    Raises:
        ValueError: PyTorch cannot export it, or operators have no rule.
    """
    import torch

    logged = logging.root.manager.disable

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(modules)

        def forward(self, given: Any) -> Any:
            return call(given)

    try:
        logging.disable(logging.ERROR)  # what it says to its developers
        aside = io.StringIO()
        with contextlib.redirect_stdout(aside), contextlib.redirect_stderr(aside):
            exported = torch.export.export(Whole().eval(), (example,), strict=False)
        table = torch.export.default_decompositions()
        for spelt in [op for op in table if _base(op) in aten.KEPT]:
            table.pop(spelt)
        core = exported.run_decompositions(table)
    except Exception as error:
        if type(error).__name__ in ("GuardOnDataDependentSymNode", "DataDependentOutputException"):
            raise ValueError(
                "decides by the values of its numbers what it computes (an if, a while, a check), "
                "which no compiled function can"
            ) from None
        raise ValueError(f"cannot be exported by PyTorch ({what(error)})") from None
    finally:
        logging.disable(logged)
    program, tensors = graph.from_export(core, str(example.dtype).removeprefix("torch."))
    return program, {name: _numbers(tensor) for name, tensor in tensors.items()}


def _base(operator: Any) -> str:
    return str(operator).removeprefix("aten.").partition(".")[0]


def _numbers(tensor: Any) -> np.ndarray:
    """A copy, so that training the module further changes nothing here."""
    return np.array(_plain(tensor.detach()).numpy())

"""An exported graph of PyTorch as a function of JAX, an operator a step.

Steps that depend on no input, such as what makes weights of others, are done once beforehand.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from latent_flows._validation import what
from latent_flows.generators._torch.aten import RANDOM, RULES

__all__ = ["Program", "Step", "Tensors", "folded", "from_export", "run"]

Tensors = Mapping[str, Array]
"""Parameters, buffers and other constants, by their names in the graph."""


class Ref(NamedTuple):
    """What another step gave, as an argument."""

    name: str


class Kind(NamedTuple):
    """A dtype as an argument, by PyTorch's name."""

    name: str


class Step(NamedTuple):
    """One operator of the graph."""

    name: str
    """What its result is called."""
    rule: str
    """The operator's name without namespace and overload, or `"getitem"`."""
    args: tuple[Any, ...]
    """Its arguments, with `Ref` and `Kind` in them."""
    kwargs: Mapping[str, Any]
    """Those by name."""


class Program(NamedTuple):
    """A graph without its tensors."""

    inputs: tuple[str, ...]
    """Names of what it is given."""
    steps: tuple[Step, ...]
    """In an order in which they can be done."""
    outputs: tuple[str, ...]
    """Names of what it gives."""
    floating: str
    """The dtype, by PyTorch's name, which stands for that of the first input."""


def from_export(exported: Any, floating: str) -> tuple[Program, dict[str, Any]]:
    """The graph of an `ExportedProgram`, and the names of its tensors.

    Args:
        exported: by `torch.export`, in the core set of operators.
        floating: the dtype that stands for that of the first input, such as `"float32"`.

    Returns:
        The program of what its outputs need, and where each tensor is in `exported`: from the name
        in the graph to PyTorch's tensor.

    Raises:
        ValueError: operators without rule, all of which it names.
    """
    signature = exported.graph_signature
    live = _live(exported.graph, signature.user_outputs)
    _check_known(live)
    inputs, tensors = [], {}
    for spec in signature.input_specs:
        name, target = spec.arg.name, spec.target
        if spec.kind.name == "USER_INPUT":
            inputs.append(name)
        elif target in exported.state_dict:
            tensors[name] = exported.state_dict[target]
        elif target in exported.constants:
            tensors[name] = exported.constants[target]
    steps = [step for node in live if node.op == "call_function" for step in _steps(node)]
    used = {ref for step in steps for ref in _refs((step.args, step.kwargs))}
    used |= set(signature.user_outputs)
    program = Program(tuple(inputs), tuple(steps), tuple(signature.user_outputs), floating)
    return program, {name: tensor for name, tensor in tensors.items() if name in used}


def _live(graph: Any, outputs: Sequence[str]) -> list[Any]:
    """The nodes that the outputs need, in their order."""
    by_name = {node.name: node for node in graph.nodes}
    wanted, found = [by_name[name] for name in outputs if name in by_name], set()
    while wanted:
        node = wanted.pop()
        if node not in found:
            found.add(node)
            wanted += node.all_input_nodes
    return [node for node in graph.nodes if node in found]


def _operator(node: Any) -> str:
    """Its name without namespace and overload, if it is one of PyTorch's own."""
    if node.target is operator.getitem:
        return "getitem"
    space, _, rest = str(node.target).partition(".")
    return rest.partition(".")[0] if space == "aten" else str(node.target)


def _check_known(nodes: Sequence[Any]) -> None:
    """Whether every operator has a rule.

    Raises:
        ValueError: some have none.
    """
    calls = [node for node in nodes if node.op not in ("placeholder", "output")]
    random = {_full_name(node) for node in calls if _operator(node) in RANDOM}
    if random:
        raise ValueError(
            f"draws random numbers ({', '.join(sorted(random))}), and a generator is a function of "
            "its latent: switch the noise or dropout off, or make it a constant"
        )
    unknown = {
        _full_name(node) for node in calls if _operator(node) not in RULES and not _is_item(node)
    }
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise ValueError(
            f"has {len(unknown)} operator{plural} that cannot be run in JAX: "
            + ", ".join(sorted(unknown))
        )


def _is_item(node: Any) -> bool:
    return node.target is operator.getitem


def _full_name(node: Any) -> str:
    return f"{node.op} {node.target}" if node.op != "call_function" else str(node.target)


_IGNORED = ("device", "layout", "pin_memory", "memory_format", "non_blocking")


def _steps(node: Any) -> list[Step]:
    """The steps of a node: one, but a convolution's weights are made ready in one of their own."""
    rule = _operator(node)
    args = tuple(_argument(arg) for arg in node.args)
    kwargs = {k: _argument(arg) for k, arg in node.kwargs.items() if k not in _IGNORED}
    if rule != "convolution":
        return [Step(node.name, rule, args, kwargs)]
    ready = f"{node.name} kernel"
    weights = Step(ready, "kernel", (args[1], args[6], args[8]), {})
    return [weights, Step(node.name, rule, (args[0], Ref(ready), *args[2:]), kwargs)]


def _argument(arg: Any) -> Any:
    if isinstance(arg, list | tuple):
        return [_argument(each) for each in arg]
    if hasattr(arg, "all_input_nodes"):
        return Ref(arg.name)
    if type(arg).__name__ == "dtype":
        return Kind(str(arg).removeprefix("torch."))
    return arg


def _refs(arguments: Any) -> set[str]:
    if isinstance(arguments, Ref):
        return {arguments.name}
    if isinstance(arguments, Mapping):
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        return {name for each in arguments for name in _refs(each)}
    return set()


def folded(program: Program, tensors: Tensors) -> tuple[Program, dict[str, Array]]:
    """The program with everything done that depends on no input.

    Args:
        program: the graph.
        tensors: its tensors.

    Returns:
        What is left of it, and the tensors that this needs.
    """
    moving = set(program.inputs)
    for step in program.steps:
        if _refs((step.args, step.kwargs)) & moving:
            moving.add(step.name)
    first = tuple(step for step in program.steps if step.name not in moving)
    rest = tuple(step for step in program.steps if step.name in moving)
    needed = {name for step in rest for name in _refs((step.args, step.kwargs))}
    needed |= set(program.outputs)
    made = sorted(needed & {step.name for step in first})
    before = program._replace(inputs=(), steps=first, outputs=tuple(made))
    values = jax.jit(lambda tensors: run(before, tensors))(tensors) if made else ()
    kept = {name: tensor for name, tensor in tensors.items() if name in needed}
    return program._replace(steps=rest), kept | dict(zip(made, values, strict=True))


def run(program: Program, tensors: Tensors, *inputs: Array) -> tuple[Array, ...]:
    """What the graph makes of its inputs.

    Args:
        program: the graph.
        tensors: its tensors.
        *inputs: one array for each of `program.inputs`.

    Returns:
        An array for each of `program.outputs`.

    Raises:
        ValueError: a rule cannot do what a step asks for.
    """
    known: dict[str, Any] = {**tensors, **dict(zip(program.inputs, inputs, strict=True))}
    like = inputs[0].dtype if inputs else jnp.result_type(float)

    def value(arg: Any) -> Any:
        if isinstance(arg, Ref):
            return known[arg.name]
        if isinstance(arg, Kind):
            return like if arg.name == program.floating else jax.dtypes.canonicalize_dtype(arg.name)
        return [value(each) for each in arg] if isinstance(arg, list) else arg

    for step in program.steps:
        rule = operator.getitem if step.rule == "getitem" else RULES[step.rule]
        args = [value(arg) for arg in step.args]
        kwargs = {name: value(arg) for name, arg in step.kwargs.items()}
        try:
            known[step.name] = rule(*args, **kwargs)
        except Exception as error:
            raise ValueError(f"has aten.{step.rule}, which fails in JAX ({what(error)})") from error
    return tuple(jnp.asarray(known[name]) for name in program.outputs)

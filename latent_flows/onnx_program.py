r"""Functions of arrays as ONNX programs, for whatever is no Python.

A function is traced, rewritten into the operations that exporters know, and exported by jax2onnx.
`docs/export.md` shows how to run what comes out.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jaxtyping import Array

from latent_flows._extras import extra
from latent_flows._operations import INLINED, bind, body_of, evaluate
from latent_flows.traversals import Motion
from latent_flows.typing import Metric

__all__ = [
    "TOLERANCE",
    "check_program",
    "metric_to_onnx",
    "motion_to_onnx",
    "require",
    "to_onnx",
]

TOLERANCE = 1e-5
"""Largest difference of a program from its function, in units of the largest number."""
MOST_BYTES = 2**31
"""Of an ONNX file."""
PART = 300
"""Operations of a part of a large program."""
UNROLLED = 16
"""Steps of a loop up to which it is written out: runtimes stumble over loops within loops."""


def require() -> None:
    """Whether what makes and runs ONNX programs is installed, before anything is computed.

    Raises:
        MissingExtra: it is not.
    """
    for name in ("jax2onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            with extra("onnx"):
                raise ModuleNotFoundError(name=name)


def motion_to_onnx(motion: Motion, dim: int, *, batched: bool = True) -> bytes:
    """A motion as an ONNX program of `k` (int32), `t` (float32) and latents `z` (float32 [n, d]).

    Args:
        motion: `(k, t, z) -> z`, of what was learnt or of steering.
        dim: the length `d` of a latent.
        batched: whether `z` are several latents. The least-squares problems of steering are known
            to exporters one at a time, so there it has to be one, [d].

    Returns:
        The content of an .onnx file. Its output `moved` has the shape of `z`.

    Raises:
        ValueError: an operation that ONNX, or its exporter, does not have.
        MissingExtra: the extra `onnx` is not installed.
    """

    def many(k: Array, t: Array, z: Array) -> Array:
        move = partial(motion, k, t)
        return jax.vmap(move)(z) if batched else move(z)

    shape: tuple[Any, ...] = (*export.symbolic_shape("n"), dim) if batched else (dim,)
    inputs = {
        "k": jax.ShapeDtypeStruct((), jnp.int32),
        "t": jax.ShapeDtypeStruct((), jnp.float32),
        "z": jax.ShapeDtypeStruct(shape, jnp.float32),
    }
    return to_onnx(many, inputs, "moved")


def metric_to_onnx(metric: Metric, dim: int) -> bytes:
    """A metric as an ONNX program of latents `z` (float32 [n, d]).

    Args:
        metric: `z -> M(z)`.
        dim: the length `d` of a latent.

    Returns:
        The content of an .onnx file. Its output `metric` has shape [n, d, d].

    Raises:
        ValueError: an operation that ONNX, or its exporter, does not have.
        MissingExtra: the extra `onnx` is not installed.
    """
    several = jax.ShapeDtypeStruct((*export.symbolic_shape("n"), dim), jnp.float32)
    return to_onnx(jax.vmap(metric), {"z": several}, "metric")


def to_onnx(
    function: Callable[..., Array], inputs: Mapping[str, jax.ShapeDtypeStruct], output: str
) -> bytes:
    """Any traceable function of arrays as an ONNX program.

    Args:
        function: of as many arrays as there are inputs, in their order.
        inputs: shapes and dtypes by name; a dimension of `jax.export.symbolic_shape` is left open.
        output: name of the result.

    Returns:
        The content of an .onnx file.

    Raises:
        ValueError: an operation that ONNX, or its exporter, does not have.
        MissingExtra: the extra `onnx` is not installed.
    """
    with extra("onnx"):
        import jax2onnx
        from google.protobuf.message import EncodeError

    shapes = list(inputs.values())
    # The exporter patches JAX's functions while it traces; of operations there is nothing to patch.
    program = _rewritten(function, shapes)
    if (size := _weight(program)) > MOST_BYTES:
        raise ValueError(_too_large(f"at least {size / 2**30:.1f} GiB"))
    call = jaxpr_as_fun(_in_parts(program))
    try:
        model: Any = jax2onnx.to_onnx(
            lambda *args: call(*args)[0],
            shapes,
            model_name=output,
            input_names=list(inputs),
            output_names=[output],
        )
        return model.SerializeToString()
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"this function has no ONNX program: {reason}") from None
    except EncodeError:
        raise ValueError(_too_large("more than 2 GiB")) from None


def check_program(
    content: bytes, function: Callable[..., Array], examples: Sequence[Mapping[str, np.ndarray]]
) -> float:
    """How far a program is from its function, run by onnxruntime.

    Args:
        content: of an .onnx file.
        function: that it was made of.
        examples: inputs by name.

    Returns:
        The largest difference, in units of the largest number of the function's.

    Raises:
        ValueError: it cannot be run, or the difference is more than `TOLERANCE`.
        MissingExtra: the extra `onnx` is not installed.
    """
    with extra("onnx"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every constant that nothing uses
    worst, largest = 0.0, 0.0
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        for example in examples:
            (found,) = session.run(None, dict(example))
            expected = np.asarray(function(*map(jnp.asarray, example.values())))
            worst = max(worst, float(np.abs(found - expected).max()))
            largest = max(largest, float(np.abs(expected).max()))
    except Exception as error:  # its own kinds are not public
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"onnxruntime cannot run the program: {reason}") from None
    share = worst / largest if largest else worst
    if not share <= TOLERANCE:
        raise ValueError(
            f"the ONNX program differs from its function by {share:.1e} of the largest number, and "
            f"{TOLERANCE:g} is allowed"
        )
    return share


def _weight(program: ClosedJaxpr) -> int:
    """Bytes of the constants of a program."""
    return sum(np.size(const) * np.dtype(const.dtype).itemsize for const in program.consts)


def _too_large(size: str) -> str:
    return (
        f"this function has no ONNX program: it takes {size}, and an ONNX file holds 2 GiB; take a "
        "smaller generator, or the function in JAX"
    )


# --- rewriting ---


def _rewritten(function: Callable[..., Any], shapes: Sequence[Any]) -> ClosedJaxpr:
    """The operations of a function, without those that exporters or runtimes stumble over."""
    traced = jax.make_jaxpr(function)(*shapes)
    # The second time leaves out what the first no longer needs.
    for _ in range(2):
        traced = jax.make_jaxpr(partial(_evaluated, traced))(*shapes)
    return traced


def _in_parts(closed: ClosedJaxpr) -> ClosedJaxpr:
    """A large program as a sequence of small ones.

    For each operation the exporter looks through all others of its graph, which takes an hour where
    there are tens of thousands. The branches of a choice have graphs of their own, so each part is
    a choice that is always made the same way; runtimes see that beforehand.
    """
    equations = _needed(closed.jaxpr)
    made: list[Any] = [atom.aval for equation in equations for atom in equation.outvars]
    is_fixed = all(isinstance(n, int) for one in made for n in one.shape)
    if len(equations) <= 2 * PART or not is_fixed:
        return closed
    parts = [equations[i : i + PART] for i in range(0, len(equations), PART)]
    return jax.make_jaxpr(partial(_evaluated_in_parts, closed, parts))(*closed.in_avals)


def _evaluated_in_parts(
    closed: ClosedJaxpr, parts: Sequence[Sequence[JaxprEqn]], *args: Any
) -> list[Any]:
    jaxpr = closed.jaxpr
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *args], strict=True))
    is_constant = set(jaxpr.constvars).__contains__
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    outputs = []
    for part in reversed(parts):
        outputs.append([atom for one in part for atom in one.outvars if atom in wanted])
        wanted |= {atom for one in part for atom in one.invars if not isinstance(atom, Literal)}
    for part, results in zip(parts, reversed(outputs), strict=True):
        used = {atom: None for one in part for atom in one.invars if not isinstance(atom, Literal)}
        # One that is not known beforehand comes first, see `_zeros_of_part`.
        given = sorted((atom for atom in used if atom in known), key=is_constant)
        made = partial(_values_of_part, part, given, results)
        nothing = partial(_zeros_of_part, results)
        found = jax.lax.cond(jnp.asarray(True), made, nothing, *(known[atom] for atom in given))
        known.update(zip(results, found, strict=True))
    return [atom.val if isinstance(atom, Literal) else known[atom] for atom in jaxpr.outvars]


def _values_of_part(
    part: Sequence[JaxprEqn], given: Sequence[Any], results: Sequence[Any], *values: Any
) -> list[Any]:
    known = dict(zip(given, values, strict=True))
    for one in part:
        args = [atom.val if isinstance(atom, Literal) else known[atom] for atom in one.invars]
        known.update(zip(one.outvars, bind(one, args), strict=True))
    return [known[atom] for atom in results]


def _zeros_of_part(results: Sequence[Any], *values: Any) -> list[Any]:
    # Of a number that is not known: the exporter writes known arrays out, number by number.
    zero = jnp.ravel(values[0])[0] * 0 if values else jnp.zeros(())
    return [jnp.broadcast_to(zero.astype(atom.aval.dtype), atom.aval.shape) for atom in results]


def _evaluated(closed: ClosedJaxpr, *args: Any) -> list[Any]:
    return _evaluate(closed.jaxpr, closed.consts, args)


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The values of a program's results, its operations replaced where there is a rule."""
    return evaluate(jaxpr, consts, args, _applied, _needed(jaxpr))


def _applied(equation: JaxprEqn, values: list[Any]) -> Sequence[Any]:
    name = equation.primitive.name
    shapes: list[Any] = [atom.aval for atom in equation.outvars]
    if all(map(_is_empty, shapes)):
        return [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    if name in _RULES:
        return _RULES[name](equation.params, *values)
    if name in INLINED or name == "custom_jvp_call":
        return _evaluate(*body_of(equation), values)
    return bind(equation, values)


def _needed(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """The operations that a result depends on, in their order."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    found = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            found.append(equation)
            wanted.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return found[::-1]


def _is_empty(x: Any) -> bool:
    """Whether there is nothing in an array, which runtimes have no operations for."""
    return any(isinstance(n, int) and n == 0 for n in np.shape(x))


def _concatenate(params: Mapping[str, Any], *values: Any) -> list[Any]:
    filled = [value for value in values if not _is_empty(value)]
    return [jax.lax.concatenate(filled, params["dimension"])]


def _split(params: Mapping[str, Any], value: Any) -> list[Any]:
    ends = np.cumsum(params["sizes"]).tolist()
    cut = partial(jax.lax.slice_in_dim, value, axis=params["axis"])
    return [cut(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True)]


def _scanned(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many values a scan leaves alone, and how many it carries."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # since JAX 0.12
    return len(consts), len(carry)


def _scan(params: Mapping[str, Any], *values: Any) -> list[Any]:
    body, length = params["jaxpr"], params["length"]
    consts, count = _scanned(params)
    fixed, rest = values[:consts], values[consts:]
    carry, xs = list(rest[:count]), rest[count:]

    def step(carry: list[Any], x: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        found = _evaluated(body, *fixed, *carry, *x)
        return found[:count], found[count:]

    if length == 0:
        shapes: list[Any] = [atom.aval for atom in body.jaxpr.outvars[count:]]
        return [*carry, *(jnp.zeros((0, *shape.shape), shape.dtype) for shape in shapes)]
    carry, ys = _looped(step, carry, list(xs), length, params["reverse"])
    return [*carry, *ys]


def _looped(
    step: Callable[[list[Any], Sequence[Any]], tuple[list[Any], list[Any]]],
    carry: list[Any],
    xs: list[Any],
    length: Any = None,
    reverse: bool = False,
) -> tuple[list[Any], list[Any]]:
    """`jax.lax.scan`, written out where there are few steps."""
    length = len(xs[0]) if length is None else length
    if not isinstance(length, int) or length > UNROLLED:
        return jax.lax.scan(step, carry, xs, length, reverse)
    rows = []
    for i in reversed(range(length)) if reverse else range(length):
        carry, row = step(carry, [x[i] for x in xs])
        rows.append(row)
    rows = rows[::-1] if reverse else rows
    return carry, [jnp.stack(column) for column in zip(*rows, strict=True)]


def _while(params: Mapping[str, Any], *values: Any) -> list[Any]:
    first, second = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body = values[:first], values[first : first + second]
    return list(
        jax.lax.while_loop(
            lambda state: _evaluated(params["cond_jaxpr"], *of_test, *state)[0],
            lambda state: tuple(_evaluated(params["body_jaxpr"], *of_body, *state)),
            tuple(values[first + second :]),
        )
    )


def _cond(params: Mapping[str, Any], index: Any, *values: Any) -> list[Any]:
    branches = [partial(_evaluated, branch) for branch in params["branches"]]
    if platforms := params.get("branches_platforms"):
        # What is made for no platform in particular; None names it.
        return branches[platforms.index(None)](*values)
    *others, last = branches
    choose = last
    # Exporters know choices between two.
    for i, branch in reversed(list(enumerate(others))):
        choose = partial(jax.lax.cond, jnp.asarray(index, jnp.int32) <= i, branch, choose)
    return list(choose(*values))


def _pad(params: Mapping[str, Any], value: Any, filling: Any) -> list[Any]:
    """Zeros between numbers are columns that follow them."""
    edges = [(low, high, 0) for low, high, _ in params["padding_config"]]
    for axis, (_, _, between) in enumerate(params["padding_config"]):
        if not between or value.shape[axis] == 0:
            continue
        length = value.shape[axis]
        wide = jnp.expand_dims(value, axis + 1)
        widths = [(0, between if i == axis + 1 else 0, 0) for i in range(wide.ndim)]
        wide = jax.lax.pad(wide, filling, widths)
        shape = (*value.shape[:axis], length * (between + 1), *value.shape[axis + 1 :])
        value = jax.lax.slice_in_dim(
            wide.reshape(shape), 0, length * (between + 1) - between, axis=axis
        )
    return [jax.lax.pad(value, filling, edges)]


def _cholesky(params: Mapping[str, Any], matrix: Any) -> list[Any]:
    """A column a step: exporters write a step for each product of two numbers, n^3 / 6 of them."""
    units = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)

    def step(left: list[Any], x: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        unit, below = x
        column = left[0] @ unit
        column = column * below / jnp.sqrt(column @ unit)[..., None]
        return [left[0] - column[..., :, None] * column[..., None, :]], [column]

    _, (columns,) = _looped(step, [matrix], [units, jnp.triu(jnp.ones_like(units))])
    return [jnp.moveaxis(columns, 0, -1)]


def _triangular_solve(params: Mapping[str, Any], matrix: Any, right: Any) -> list[Any]:
    """A row a step, of a matrix that stands on the left of its unknowns."""
    turn = partial(jnp.swapaxes, axis1=-1, axis2=-2)
    on_left = params["left_side"]
    is_turned = bool(params["transpose_a"]) == bool(on_left)
    matrix = turn(matrix) if is_turned else matrix
    right = right if on_left else turn(right)
    units = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)

    def step(found: list[Any], x: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        (unit,) = x
        row = unit @ matrix
        pivot = 1 if params["unit_diagonal"] else (row @ unit)[..., None]
        known = (row[..., None, :] @ found[0])[..., 0, :]
        value = (unit @ right - known) / pivot
        return [found[0] + unit[:, None] * value[..., None, :]], []

    order = units[::-1] if bool(params["lower"]) == is_turned else units
    (found,), _ = _looped(step, [jnp.zeros_like(right)], [order])
    return [found if on_left else turn(found)]


_RULES: dict[str, Callable[..., Sequence[Array]]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "concatenate": _concatenate,
    "split": _split,
    "pad": _pad,
    "platform_index": lambda params: [jnp.zeros((), jnp.int32)],
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
    # Of numbers that are ordered the total order is the order.
    "lt_to": lambda params, a, b: [a < b],
    "le_to": lambda params, a, b: [a <= b],
}

"""The operations of a traced program, one at a time."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.extend.core as jex

__all__ = ["INLINED", "bind", "body_of", "evaluate"]

INLINED = frozenset(
    {
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "core_closed_call",
        "checkpoint",
        "remat",
        "remat2",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "custom_vmap_call",
    }
)
"""Operations that are a program of their own, and nothing besides."""


def body_of(equation: jex.JaxprEqn) -> tuple[jex.Jaxpr, Sequence[Any]]:
    """The program inside a call, with its constants."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")
    inner = next(equation.params[name] for name in names if name in equation.params)
    return (inner.jaxpr, inner.consts) if isinstance(inner, jex.ClosedJaxpr) else (inner, ())


def bind(equation: jex.JaxprEqn, args: Sequence[Any]) -> Sequence[Any]:
    """The operation itself, on plain arrays."""
    bound = equation.primitive.get_bind_params(equation.params)
    # Older JAX keeps the functions among the parameters apart, newer does not.
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    with equation.ctx.manager:
        out = equation.primitive.bind(*functions, *args, **params)
    return out if equation.primitive.multiple_results else [out]


def evaluate(
    jaxpr: jex.Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Any],
    apply: Callable[[jex.JaxprEqn, list[Any]], Iterable[Any]],
    equations: Sequence[jex.JaxprEqn] | None = None,
) -> list[Any]:
    """The values of a program's results, each of its operations done by `apply`.

    Args:
        jaxpr: the program.
        consts: its constants.
        args: its arguments, of any type that `apply` takes.
        apply: from an operation and the values of its arguments to those of its results.
        equations: operations that are done, in their order; all by default.

    Returns:
        The values.
    """
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else known[atom]

    for equation in jaxpr.eqns if equations is None else equations:
        found = apply(equation, [read(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

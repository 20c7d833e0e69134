"""The operations of a traced program, one at a time."""

from collections.abc import Sequence
from typing import Any

import jax.extend.core as jex

__all__ = ["INLINED", "bind", "body_of"]

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
    }
)
"""Operations that are a program of their own, and nothing besides."""


def body_of(equation: jex.JaxprEqn) -> tuple[jex.Jaxpr, Sequence[Any]]:
    """The program inside a call, with its constants."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
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

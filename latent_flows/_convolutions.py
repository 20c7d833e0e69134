"""Convolutions in the one layout that XLA has a fast program for on a CPU, also within loops.

The derivative of a convolution by its image has a kernel whose channels are exchanged. XLA brings
it into the usual layout, for which there is a fast program, where it stands by itself; within a
loop (`jax.lax.while_loop`, `scan`, `map`) it does not, and takes several times as long.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxpr_as_fun, jaxprs_in_params
from jaxtyping import Array

__all__ = ["channels_last"]

_CALLS = {"pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr"}
"""Primitives that do nothing but call a program, and the parameter that holds it."""
_CONVOLUTION = "conv_general_dilated"


def channels_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose convolutions have channels last in images, and first out in kernels.

    For what is differentiated already, such as `jax.value_and_grad` of a function, and to be
    computed within a loop. Loops within it stay as they are.

    Args:
        function: of pytrees of arrays.

    Returns:
        The function; the very same computation where there is no convolution.

    >>> import jax.numpy as jnp
    >>> slope = jax.grad(lambda x: jnp.convolve(x, jnp.array([1.0, 2.0, 4.0]))[2])
    >>> print(channels_last(slope)(jnp.ones(3)))
    [4. 2. 1.]
    """

    def apply(*args: Any) -> Any:
        traced, made = jax.make_jaxpr(function, return_shape=True)(*args)
        given = jax.tree.leaves(args)
        if _convolves(traced.jaxpr):
            found = _evaluate(traced.jaxpr, traced.consts, given)
        else:
            found = jaxpr_as_fun(traced)(*given)
        return jax.tree.unflatten(jax.tree.structure(made), found)

    return apply


def _convolves(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name == _CONVOLUTION or any(map(_convolves, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    known: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        given = [read(atom) for atom in eqn.invars]
        name, params = eqn.primitive.name, eqn.params
        if name == _CONVOLUTION:
            made: Sequence[Any] = [_convolve(*given, **params)]
        elif name in _CALLS:
            called = params[_CALLS[name]]
            made = _evaluate(called.jaxpr, called.consts, given)
        else:
            made = _bind(eqn, given)
        known.update(zip(eqn.outvars, made, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(eqn: JaxprEqn, given: Sequence[Any]) -> Sequence[Any]:
    settings: Any = eqn.primitive.get_bind_params(eqn.params)
    functions: Sequence[Any] = ()
    if isinstance(settings, tuple):  # as before JAX 0.10
        functions, settings = settings
    with eqn.ctx.manager:
        made = eqn.primitive.bind(*functions, *given, **settings)
    return made if eqn.primitive.multiple_results else [made]


def _convolve(image: Array, kernel: Array, *, dimension_numbers: Any, **settings: Any) -> Array:
    """The convolution of the same arrays with their axes in the usual order."""
    (batch, channels, *places), (out, into, *across), (b, f, *at) = dimension_numbers
    rank = image.ndim
    last = (0, rank - 1, *range(1, rank - 1))
    usual = lax.ConvDimensionNumbers(last, (rank - 1, rank - 2, *range(rank - 2)), last)
    found = lax.conv_general_dilated_p.bind(
        image.transpose(batch, *places, channels),
        kernel.transpose(*across, into, out),
        dimension_numbers=usual,
        **settings,
    )
    return found.transpose(np.argsort((b, *at, f)))

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
from jax.extend.core import Jaxpr, JaxprEqn, jaxpr_as_fun, jaxprs_in_params
from jaxtyping import Array

from latent_flows._operations import bind, body_of, evaluate

__all__ = ["channels_last"]

_CALLS = ("pjit", "jit", "closed_call")
"""Primitives that do nothing but call a program; others say how it is differentiated or kept."""
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
            found = evaluate(traced.jaxpr, traced.consts, given, _applied)
        else:
            found = jaxpr_as_fun(traced)(*given)
        return jax.tree.unflatten(jax.tree.structure(made), found)

    return apply


def _convolves(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name == _CONVOLUTION or any(map(_convolves, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _applied(eqn: JaxprEqn, given: list[Any]) -> Sequence[Any]:
    if eqn.primitive.name == _CONVOLUTION:
        return [_convolve(*given, **eqn.params)]
    if eqn.primitive.name in _CALLS:
        return evaluate(*body_of(eqn), given, _applied)
    return bind(eqn, given)


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

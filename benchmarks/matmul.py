"""How well a program uses its device: its operations a second over those of a matrix product."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from benchmarks.ratio import Ratio, rate

PRODUCT = "matrix product"
"""The side of `Product` among others that take turns."""


class Product:
    """One large product of float32 matrices at each call.

    Args:
        size: rows and columns; by default enough to keep the device busy.
    """

    def __init__(self, size: int = 0):
        self.size = size or (1024 if jax.default_backend() == "cpu" else 8192)
        keys = jax.random.split(jax.random.key(0))
        self.matrices = [jax.random.normal(key, (self.size, self.size)) for key in keys]
        self.product = jax.jit(jnp.matmul).lower(*self.matrices).compile()

    def __call__(self) -> jax.Array:
        return self.product(*self.matrices)

    @property
    def operations(self) -> float:
        """Of floating-point numbers."""
        return 2.0 * self.size**3


def share_of_product(
    name: str,
    operations: float,
    seconds: Sequence[float],
    product: Product,
    product_seconds: Sequence[float],
) -> Ratio:
    """A program's operations a second over those of a product, in the same turns.

    Args:
        name: of the program.
        operations: of one run of it; see `operations`.
        seconds: that it took.
        product: beside it.
        product_seconds: that this took.

    Returns:
        The row; 1 would be as busy as the product.
    """
    against = f"float32 matrix product, {product.size} x {product.size}"
    ours, theirs = (
        [work / taken for taken in each]
        for work, each in ((operations, seconds), (product.operations, product_seconds))
    )
    return rate(name, against, "operations/s", ours, theirs)


def said(share: Ratio) -> str:
    """A share in words."""
    return (
        f"{share.name}: {share.ours:.2e} operations a second, {share.ratio:.0%} "
        f"({share.low:.0%} to {share.high:.0%}) of those of a {share.against}"
    )


def operations(function: Callable, *args: Any) -> float:
    r"""Floating-point operations of a function's matrix products and convolutions, as traced.

    A product counts $2 m k n$, a convolution twice for each entry of the kernel that an output
    sees, up to those at the border. Loops count as often as they go round.

    Args:
        function: of arrays.
        *args: its arguments, or their shapes.

    Returns:
        The number; NaN where a loop does not say how often it goes round.

    >>> import jax.numpy as jnp
    >>> operations(lambda a, b: jnp.tanh(a @ b), jnp.ones((2, 3)), jnp.ones((3, 5)))
    60.0
    """
    return _operations(jax.make_jaxpr(function)(*args).jaxpr)


def _operations(program: jex.Jaxpr) -> float:
    return float(sum(map(_of, program.eqns)))


def _of(equation: jex.JaxprEqn) -> float:
    kind, params = equation.primitive.name, equation.params
    if kind == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape  # type: ignore[attr-defined]
        summed = math.prod(shape[axis] for axis in contracted)
        return 2.0 * summed * _size(equation.outvars[0])
    if kind == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape  # type: ignore[attr-defined]
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        # Of the pixels that a stretched image has between its own no product is made.
        seen = math.prod(kernel) / outputs / math.prod(params["lhs_dilation"])
        return 2.0 * seen * _size(equation.outvars[0])
    inner = [_operations(program) for program in _programs([*params.values()])]
    if kind == "scan":
        return params["length"] * sum(inner)
    if kind == "while":
        return math.nan if sum(inner) else 0.0
    return max(inner, default=0.0) if kind == "cond" else sum(inner)


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _programs(values: Sequence[Any]) -> Iterator[jex.Jaxpr]:
    for value in values:
        if isinstance(value, jex.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, jex.Jaxpr):
            yield value
        elif isinstance(value, list | tuple):
            yield from _programs(value)

"""The type checker of the tests: beartype, which speaks after the function itself.

jaxtyping checks a call twice: its arguments before, and all of it with the result after. Here the
first is left out. A function that refuses an argument with an error of its own is thus heard, as it
is by a user; one that takes an argument which its annotations exclude, and returns, is an error.

An array of NumPy is taken where one of JAX is asked for, as JAX does itself.

What is made of a dataclass is not checked: JAX makes those that are pytrees anew, of batches, of
shapes or of nothing, where their fields describe one.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation

_CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """What jaxtyping calls for each signature, without the result and with it.

    Args:
        function: of that signature; the result is one more argument, called `ret0`.

    Returns:
        It, checked if it takes a result and makes no dataclass.
    """
    names = inspect.signature(function).parameters
    takes_result = any(re.fullmatch(r"ret\d", name) for name in names)
    if not takes_result or function.__name__ == "__init__":
        return function
    checked = _CHECK(function)

    @functools.wraps(function)
    def either(*args: Any, **kwargs: Any) -> Any:
        try:
            return checked(*args, **kwargs)
        except BeartypeCallHintViolation:
            given = {name: _of_jax(value) for name, value in kwargs.items()}
            return checked(*map(_of_jax, args), **given)

    return either


def _of_jax(value: Any) -> Any:
    is_numbers = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc"
    return jnp.asarray(value) if is_numbers else value

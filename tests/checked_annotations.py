"""The type checker of the tests: beartype, which speaks after the function itself.

jaxtyping checks a call twice: its arguments before, and all of it with the result after. Here the
first is left out. A function that refuses an argument with an error of its own is thus heard, as it
is by a user; one that takes an argument which its annotations exclude, and returns, is an error.

What is made of a dataclass is not checked: JAX makes those that are pytrees anew, of batches, of
shapes or of nothing, where their fields describe one.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

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
    return _CHECK(function) if takes_result and function.__name__ != "__init__" else function

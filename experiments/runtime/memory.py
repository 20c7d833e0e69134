"""How much memory a training needs, and refusing it where there is less."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from latent_flows import _memory


def needs(program: Any) -> dict[str, float]:
    """What a compiled program needs by the compiler's account, in GiB; nothing where it has none.

    `argument`, `output` and `temp`, which are features and other numbers in between, and `total`.
    What is given to be written over counts once.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> found = needs(jax.jit(lambda x: x + 1).lower(jnp.ones(2**18)).compile())
    >>> found["argument"] * 2**10, found["total"] * 2**10
    (1.0, 2.0)
    """
    with contextlib.suppress(Exception):  # not every backend keeps account
        found = program.memory_analysis()
        parts = {
            name: getattr(found, f"{name}_size_in_bytes") / 2**30
            for name in ("argument", "output", "temp")
        }
        shared = found.alias_size_in_bytes / 2**30
        return {**parts, "total": sum(parts.values()) - shared}
    return {}


def text(found: Mapping[str, float]) -> str:
    """What a program needs, in words.

    >>> text({"temp": 0.25, "total": 1.5})
    '1.5 GiB of memory, 0.25 of them for features'
    """
    if not found:
        return "an unknown amount of memory"
    return f"{found['total']:.2g} GiB of memory, {found['temp']:.2g} of them for features"


def checked_state(state: Any, phase: str) -> Any:
    """A state of training, or its shapes, if it fits beside a gradient of its `params`.

    Args:
        state: all that a step changes.
        phase: what is trained.

    Raises:
        ValueError: there is less memory than that.
    """
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    _memory.require(
        _memory.size_of(state) + _memory.size_of(state.params),
        f"{phase}: training {count:,} numbers",
        "lower the latent dimensions, the widths or --image-size",
    )
    return state


def checked_needs(step: Any, phase: str) -> dict[str, float]:
    """What a compiled step needs, in GiB, if its features fit into what is left.

    Raises:
        ValueError: there is less memory than that.
    """
    found = needs(step)
    if found:
        _memory.require(
            found["temp"] * 2**30,
            f"{phase}: a step",
            "lower --training.batch-size, --image-size or the widths",
        )
    return found


def check_init(init: Callable[[Any], PyTree], copies: int, what: str, remedy: str) -> None:
    """Rejects parameters of which so many more copies do not fit; nothing is computed.

    Raises:
        ValueError: there is less memory than that.
    """
    shapes = jax.eval_shape(init, jax.random.key(0))
    _memory.require((1 + copies) * _memory.size_of(shapes), f"training {what}", remedy)

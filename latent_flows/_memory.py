"""How much memory there is, so that what cannot fit is refused before it is allocated."""

import contextlib
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latent_flows._extras import extra

__all__ = ["available", "require", "size_of", "text"]

# How control groups limit a container, of the second and of the first version.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def available() -> int:
    """Bytes that can still be allocated where arrays live: on the accelerator, or in the host.

    Of the host that is what the system has free, swap included, within the limits that a container
    or the shell sets.

    Returns:
        The number of bytes.
    """
    with contextlib.suppress(Exception):  # not every backend keeps account
        found = jax.local_devices()[0].memory_stats()
        if found and jax.default_backend() != "cpu":
            return max(0, found["bytes_limit"] - found["bytes_in_use"])
    with extra("data"):
        import psutil
    free = [psutil.virtual_memory().available + psutil.swap_memory().free]
    for limit, used in _GROUPS:
        with contextlib.suppress(OSError, ValueError):
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        limit_as, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit_as != resource.RLIM_INFINITY:
            free.append(limit_as - psutil.Process().memory_info().vms)
    return max(0, min(free))


def size_of(tree: Any) -> int:
    """Bytes of all arrays, or `jax.ShapeDtypeStruct`s, of a pytree.

    Args:
        tree: a pytree.

    Returns:
        The number of bytes.

    >>> size_of({"a": jax.ShapeDtypeStruct((10**6, 10**6), np.float32), "b": np.ones(2)})
    4000000000016
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) * np.dtype(_stored(leaf.dtype)).itemsize for leaf in leaves)


def require(size: float, what: str, remedy: str) -> None:
    """Refuses what takes more bytes than are available.

    Args:
        size: the bytes, or a bound below them.
        what: takes them.
        remedy: what to do about it.

    Raises:
        ValueError: that many are not there.

    >>> require(2**80, "a batch", "lower its size")
    Traceback (most recent call last):
    ...
    ValueError: a batch takes at least 1.07e+09 PiB of memory, and ... are free; lower its size
    """
    if size > (free := available()):
        raise ValueError(
            f"{what} takes at least {text(size)} of memory, and {text(free)} are free; {remedy}"
        )


def text(size: float) -> str:
    """A number of bytes in words.

    Args:
        size: a number of bytes.

    Returns:
        The number with its unit.

    >>> text(5 * 2**29), text(300), text(2**52), text(2**80)
    ('2.5 GiB', '300 B', '4 PiB', '1.07e+09 PiB')
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = min((max(int(size), 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{size / 2 ** (10 * power):.3g} {units[power]}"


def _stored(dtype: Any) -> Any:
    # Random keys hold two words each.
    return np.uint64 if jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else dtype

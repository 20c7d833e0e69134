"""Move through, steer and measure the latent spaces of generative models, in JAX.

Modules are imported when they are first asked for:

>>> import jax.numpy as jnp
>>> import latent_flows as lf
>>> print(lf.geometry.distance(lambda z: 4 * jnp.eye(2), [0.0, 0.0], [3.0, 4.0]).round(3))
10.0
"""

import importlib
from typing import Any

__all__ = [
    "__version__",
    "calculus",
    "classifiers",
    "coordinates",
    "data",
    "directions",
    "evaluation",
    "export",
    "flows",
    "generators",
    "geometry",
    "guidance",
    "inversion",
    "objectives",
    "pde",
    "plots",
    "potentials",
    "steering",
    "traversals",
    "typing",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("latent-flows")
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

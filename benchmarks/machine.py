"""What benchmarks run on: a ratio says nothing of another device or other versions.

Run as `python -m benchmarks.machine`, which prints it as JSON: in a process of its own, as whoever
asks JAX for its devices keeps memory of an accelerator.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "torch", "stochman", "diffusers")
ROOT = Path(__file__).parents[1]


def machine() -> dict[str, Any]:
    """Device, cores and versions."""
    import jax

    devices = jax.devices()
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: installed(name) for name in PACKAGES},
    }


def installed(package: str) -> str | None:
    """The version of a package, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def sources() -> str:
    """A digest of the code that is measured and of what measures it."""
    digest = hashlib.sha256()
    for room in ("latent_flows", "benchmarks"):
        for path in sorted((ROOT / room).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps(machine()))

"""What the tests of whole experiments share: a way to call them, and compiled programs."""

import gc
import os
import weakref

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.runtime import announcements, cli, run_dir

# A run folder is held until its object is gone, which waits for the collector where an error or a
# closure refers to itself. To collect takes a third of a second once programs are kept: `call` does
# so only while some folder is held.
_held = []
_lock = run_dir._lock


def _noted(folder):
    _lock(folder)
    _held.append(weakref.ref(folder))


run_dir._lock = _noted


def release_folders():
    """Lets go of the folders of runs that have ended."""
    if any(folder() is not None for folder in _held):
        gc.collect()
    _held[:] = [folder for folder in _held if folder() is not None]


@pytest.fixture(scope="session")
def compiling(tmp_path_factory):
    """Options of JAX with which to compile quickly, and each program once for all processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": jax.config.jax_compilation_cache_dir
        or str(shared / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }


@pytest.fixture(scope="module")
def compile_quickly(compiling):
    """Compile the programs of a module with those options."""
    before = {name: jax.config.values[name] for name in compiling}
    for name, value in compiling.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls an experiment as its command line would: exit code, stdout, stderr."""
    monkeypatch.setattr(cli, "setup", lambda: None)
    monkeypatch.setattr(announcements, "MOMENT", 60.0)  # however slow the machine is

    def run(module, *argv):
        release_folders()
        presets = getattr(module, "PRESETS", None) or getattr(module, "Drawing", module.Config)
        code = cli.main(module.run, presets, [str(word) for word in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

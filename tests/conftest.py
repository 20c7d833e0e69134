"""What the tests share: both precisions, a random key."""

import ctypes.util
import gc
import sys
import threading
from contextlib import ExitStack

import jax
import jax.numpy as jnp
import psutil
import pytest
from jax._src.interpreters import mlir

from latent_flows import _captured

collect_ignore_glob = ["generators/record_*.py", "geometry/record_*.py"]
"""Scripts that recorded arrays with PyTorch are no tests."""


LONG_EXAMPLES = [
    f"latent_flows.{name}"
    for name in (
        *("geometry.land.fit_land", "geometry.kmeans.kmeans", "geometry.geodesics.distance"),
        *("geometry.exponential.logarithm_map", "geometry.exponential.exponential_map"),
        *("geometry.exponential.geodesic_flow", "geometry.splines.spline_geodesic"),
        *("geometry.principal_directions.local_traversals", "geometry.kmeans.plus_plus"),
        *("data.scenes.is_valid", "data.scenes.dataset", "directions.model.fit_direction"),
        *("generators.prior_flow.through_noise", "generators.prior_flow.with_prior"),
        *("generators.stylegan2_noise.noise_latents", "generators.vae.VAE"),
        *("generators.data_flow.restore_data_flow", "objectives.joint_flows.origins"),
        *("generators.flow_generator.denoiser_velocity", "steering.distilled.form"),
        *("objectives.guided_flows.guided_flow_terms", "steering.fields.velocity"),
        *("objectives.flow_matching.flow_matching_loss", "steering.follow.steer_attribute"),
        *("geometry._spokes.spokes", "geometry.exponential.logarithm"),
        *("geometry.frechet_mean.frechet_mean", "evaluation.vp.vp_score"),
        *("geometry.diffusion.brownian_motion", "geometry.geodesics.geodesic_batch"),
        *("generators.prior_flow.fit_prior_flow", "generators.prior_flow.init_prior_flow"),
        *("generators.unet.UNet", "objectives.flow_vae.flow_vae_loss"),
        *("objectives.joint_flows.transport_codes", "objectives.potential_flows.sample_flow"),
        *("objectives.potential_flows.potential_flow_terms", "directions.model.fit_potential"),
        *("steering.learnt.fit_attributes", "traversals.motion"),
        *("evaluation.traversals.both_ways", "evaluation.correlation.correlation"),
    )
]
"""Examples of docstrings that compile for a second or more; what they show has quick tests too."""


def pytest_collection_modifyitems(items):
    """Runs the long examples among the slow tests."""
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name in LONG_EXAMPLES:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """What has been imported stays: nobody looks through it for garbage again.

    A collection takes a tenth of a second otherwise, and every call of an experiment makes one.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # tracing makes objects by the ten thousand, and keeps them


# Programs of tests are not asked which lines they come from, which takes a thirtieth of the time.
jax.config.update("jax_traceback_in_locations_limit", 0)


# Nobody changes what the functions of the library are wrapped in here.
_captured._TRUSTED.add("checked_annotations")


def double_precision(on: bool):
    """A context in which 64-bit numbers are kept, or not."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(on)
    from jax.experimental import enable_x64

    return enable_x64(on)


@pytest.fixture(name="double_precision")
def _double_precision():
    """What keeps 64-bit numbers within a test, for tests that switch in the middle."""
    return double_precision


@pytest.fixture(params=["float32", pytest.param("float64", marks=pytest.mark.slow)])
def dtype(request):
    """Each floating dtype, with the mode that it needs switched on.

    What holds in one seldom fails in the other, so quick tests do with single precision. A test
    that is about precision asks for both by `parametrize("dtype", [...], indirect=True)`.
    """
    with ExitStack() as stack:
        stack.enter_context(double_precision(request.param == "float64"))
        yield jnp.dtype(request.param)


@pytest.fixture
def x64():
    """64-bit numbers, for tests that need them and no others."""
    with ExitStack() as stack:
        stack.enter_context(double_precision(True))
        yield jnp.dtype("float64")


ENOUGH = 1.0e9
"""Bytes of a process from which on it forgets what it has compiled."""

# JAX makes a new context of MLIR, with all its dialects, for each program that it lowers: that is a
# fifth of the time of tens of thousands of small programs. A thread of the tests keeps one for each
# file. A program that is lowered in the middle of another needs one of its own.
_lowering = threading.local()
_new_context = getattr(mlir, "make_ir_context", None)  # JAX's own: another version may lack it


def _kept_context():
    if mlir.ir.Context.current is not None:
        return _new_context()
    if not hasattr(_lowering, "context"):
        _lowering.context = _new_context()
    return _lowering.context


if _new_context is not None:
    mlir.make_ir_context = _kept_context


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Compiled programs of one file serve the next ones, until they fill the memory."""
    yield
    if psutil.Process().memory_info().rss < ENOUGH:
        return
    if (kept := sys.modules.get("latent_flows._compiled")) is not None:
        kept._kept.clear()
    vars(_lowering).clear()
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux" and (libc := ctypes.util.find_library("c")):
        trim = getattr(ctypes.CDLL(libc), "malloc_trim", None)  # of glibc alone
        if trim is not None:
            trim(0)


@pytest.fixture
def key():
    """A random key, the same for every test."""
    return jax.random.key(0)

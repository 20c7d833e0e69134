"""Write what a run has learnt: a file, a function that needs nothing but JAX, or a page to look at.

RUN is the folder of a finished run of potential_flows or directions; or one that holds, or was
about, a generator whose noise has a deviation of its own, the metric of which is then written; or a
run of steer, whose exact fields are then written as a program; or a file that was written here
before, of which then to make a function. docs/export.md and docs/onnx.md show how to read what
comes out.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, ArrayLike

from experiments.directions import config as direction_config
from experiments.directions.learn import learnt_directions
from experiments.generators.spec import of_run
from experiments.generators.style_mixing import check_moved_layers
from experiments.potential_flows import config as flow_config
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import flow_space
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.cli import Failure, UsageError, module_name
from experiments.runtime.run_dir import (
    Folder,
    made_by,
    read_config,
    read_header,
    writable,
)
from experiments.steer import config as steer_config
from latent_flows import export, onnx_program, steering
from latent_flows._validation import at_least, choose
from latent_flows.directions import transformation
from latent_flows.directions.transformations import alike
from latent_flows.export import Directions, Learnt, Motion, Potentials
from latent_flows.generators import GeneratorSpec, stored
from latent_flows.generators.load import GENERATOR, reference
from latent_flows.generators.rbf import RBF
from latent_flows.geometry.metrics import stochastic_pullback
from latent_flows.onnx_program import check_program, metric_to_onnx, motion_to_onnx
from latent_flows.pde import coefficient
from latent_flows.typing import Latent, Metric, Scalar


@dataclass(frozen=True)
class Config:
    """Take what was learnt out of a run folder."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder, or a file that was written here before."""
    to: str = ""
    """File for what was learnt: safetensors."""
    function: str = ""
    """File for it as a serialised function: (k, t, z) -> z of potentials and directions, z -> M(z)
    of a metric."""
    npy: str = ""
    """File for straight directions as an array [n, d] of NumPy."""
    page: str = ""
    """File for a page that opens in any browser, without a server or a network: every flow,
    direction or steered factor with a slider, from a few starts, and the measured tables. Of
    potential_flows, guided, flow_vae, directions and steer."""
    starts: int = 4
    """Of the page: samples that are moved."""
    frames: int = 12
    """Of the page: frames on each side of a start."""
    layers: str = ""
    """Of the page: layers of a StyleGAN2 that are moved, from 0, such as 2-4 or 0,5-6; empty: all.
    """
    latent: str = ""
    """Of the page: start from these latents instead, an .npy file such as experiments.invert
    writes."""
    onnx: str = ""
    """File for it as an ONNX program: (k, t, z) -> z of potentials and directions, on latents
    [n, d]; of steering on one latent [d]; z -> M(z) of a metric. Needs the extra `onnx`."""
    platforms: tuple[str, ...] = export.PLATFORMS
    """What the function shall run on: cpu, cuda, rocm, tpu."""

    def __post_init__(self) -> None:
        at_least(self, starts=1, frames=1)
        if self.latent and not self.page:
            raise ValueError("--latent is of the page: name its file by --page")
        check_moved_layers(self.layers)
        if self.layers and not self.page:
            raise ValueError("--layers is of the page: name its file by --page")


class Found(NamedTuple):
    """What a run holds."""

    learnt: Learnt | None
    metric: Metric | None = None
    """With the generator, which the file of a metric does not hold."""
    steering: Motion | None = None
    """The fields of a generator, `(k, t, z) -> z`; nothing was learnt."""
    names: tuple[str, ...] = ()
    """What the numbers `k` of steering stand for."""
    dim: int = 0
    """The length of a latent of steering."""


def read(run: str) -> Found:
    """What there is in a run folder, or in a file.

    Raises:
        UsageError: no such run, one of another kind, or one that was not finished.
        ValueError: a file that is truncated or of another kind.
    """
    if Path(run).expanduser().is_file():
        return Found(export.load(run))
    readers: dict[str, Callable[[str], Found]] = {
        module_name(flow_config.Config): _potentials,
        module_name(direction_config.Config): _directions,
        module_name(steer_config.Config): _steering,
    }
    return readers.get(made_by(run), _metric)(run)


def _potentials(run: str) -> Found:
    config, _, space, params = flow_space.load_run(run)
    if config.flows.gradient == "natural":
        raise UsageError(
            f"{run} climbs its potentials in the metric of its generator, which no file holds"
        )
    return Found(
        Potentials(
            net=flow_families.potential_network(config.flows),
            params=params["potentials"],
            frame=space.frame,
            coefficients=coefficient(params["coefficients"]),
            pde=config.flows.pde,
        )
    )


def _directions(run: str) -> Found:
    """All directions of the first loss; whether they were measured as well is of no account."""
    return Found(learnt_directions(run))


def _metric(run: str) -> Found:
    """The metric of the generator with the deviation of an RBF network."""
    nothing = f"{run} holds a run of {made_by(run)}, of which there is nothing to export"
    try:
        frozen = of_run(run)
    except ValueError as error:
        raise UsageError(f"{nothing}: {error}") from None
    if (std := frozen.noise_std.get("rbf")) is None:
        raise UsageError(
            f"{nothing}: it is of {frozen.name}, and nothing was learnt of where its data are; "
            "expected potential_flows, directions, or a generator of train_vae --variance rbf"
        )
    home = reference(GeneratorSpec(str(run)), 0, Path(run))["spec"]["path"]
    params = stored.read(Path(home) / GENERATOR).noise_std["rbf"].params
    return Found(params, stochastic_pullback(frozen.decode, std))


def _steering(run: str) -> Found:
    """The exact fields of the run's transformations, which hold nothing."""
    config = read_config(run, steer_config.Config)
    frozen = of_run(run)

    sample = jax.ShapeDtypeStruct(frozen.event_shape, jnp.float32)
    ways = alike([transformation(kind) for kind in config.transformations], sample)

    def move(k: ArrayLike, t: ArrayLike, z: Latent) -> Latent:
        # One program of the generator for all of them: it is by far the largest part.
        def chosen(image: Array, amount: Scalar) -> tuple[Array, Array]:
            return jax.lax.switch(k, ways, image, amount)

        found = steering.steer(
            frozen.decode,
            chosen,
            z,
            jnp.asarray(t, z.dtype)[None],
            blur=config.blur,
            damping=config.damping,
            corrections=config.corrections,
            tolerance=config.tolerance,
        )
        return found.zs[0]

    return Found(None, steering=move, names=config.transformations, dim=frozen.latent_dim)


def serialized(found: Found, platforms: tuple[str, ...]) -> bytes:
    """What was found as a program.

    Raises:
        UsageError: of a metric only the RBF network is at hand.
        ValueError: an unknown platform.
    """
    if found.learnt is None:
        raise UsageError("--function is for what was learnt; of steering there is --onnx")
    dim = export.dim(found.learnt)
    if not isinstance(found.learnt, RBF):
        return export.serialize_motion(export.motion(found.learnt), dim, platforms=platforms)
    if found.metric is None:
        raise UsageError("the file of a metric holds no generator; give its run to get a function")
    return export.serialize_metric(found.metric, dim, platforms=platforms)


def program(found: Found) -> bytes:
    """What was found as an ONNX program that onnxruntime runs as JAX does.

    Raises:
        UsageError: of a metric only the RBF network is at hand.
        Failure: there is no such program.
    """
    latents = np.random.default_rng(0).normal(size=(3, _dim(found))).astype(np.float32)
    make: Callable[[], bytes]
    function: Callable[..., Array]
    if isinstance(found.learnt, RBF):
        metric = found.metric
        if metric is None:
            raise UsageError(
                "the file of a metric holds no generator; give its run to get a program"
            )
        make, function = partial(metric_to_onnx, metric, _dim(found)), jax.vmap(metric)
        examples: list[dict[str, np.ndarray]] = [{"z": latents}]
    else:
        move = export.motion(found.learnt) if found.learnt is not None else found.steering
        assert move is not None
        batched = found.steering is None
        make = partial(motion_to_onnx, move, _dim(found), batched=batched)

        @jax.jit
        def function(k: Array, t: Array, z: Array) -> Array:
            return jax.vmap(partial(move, k, t))(z) if batched else move(k, t, z)

        examples = [
            {
                "k": np.asarray(k, np.int32),
                "t": np.asarray(t, np.float32),
                "z": latents if batched else latents[0],
            }
            for k, t in enumerate(_amounts(found))
        ]
    try:
        with announced("making an ONNX program"):
            content = make()
        with announced("comparing it with JAX"):
            check_program(content, function, examples)
    except ValueError as error:
        raise Failure(str(error)) from None
    return content


def _dim(found: Found) -> int:
    return found.dim if found.learnt is None else export.dim(found.learnt)


def _amounts(found: Found) -> list[float]:
    """For each way an amount that it is made for."""
    if isinstance(found.learnt, Potentials):
        horizon = float(found.learnt.net.horizon)
        return [horizon, *[-horizon] * (len(found.learnt.coefficients) - 1)]
    if isinstance(found.learnt, Directions):
        return [float(np.ptp(np.asarray(model.limits))) / 4 for model in found.learnt.models]
    return [0.05] * len(found.names)


def straight(learnt: Learnt | None) -> bytes:
    """The unit vectors of straight directions, as the content of a .npy file.

    Raises:
        UsageError: there are none.
    """
    if learnt is None or not len(vectors := export.straight(learnt)):
        raise UsageError("--npy is for straight directions, and there are none")
    content = io.BytesIO()
    np.save(content, vectors)
    return content.getvalue()


def run(config: Config) -> None:
    """Read, write what is asked for, say what it is."""
    for name in config.platforms:
        choose("platform", name, dict.fromkeys(export.PLATFORMS))
    places = targets(config)
    if config.page:
        write_page(config, places.pop("page"))
        if not places:
            return
    if config.onnx:
        onnx_program.require()
    with announced(f"reading {config.run}"):
        found = read(config.run)
    make: dict[str, Callable[[], bytes]] = {
        "to": lambda: file_of(found, config.run),
        "function": lambda: serialized(found, config.platforms),
        "npy": lambda: straight(found.learnt),
        "onnx": lambda: program(found),
    }
    # All or nothing is written, as far as what was asked for makes sense.
    files = {flag: make[flag]() for flag in places}
    for flag, content in files.items():
        Folder(places[flag].parent).write_bytes(places[flag].name, content)
    if found.learnt is None:
        rows = [
            {"k": k, "steered": name, "latent": found.dim} for k, name in enumerate(found.names)
        ]
        tables.show(f"Steered by {config.run}", rows)
    else:
        tables.show(f"Learnt by {config.run}", export.rows(found.learnt))
    for flag, content in files.items():
        print(f"{getattr(config, flag)}: {len(content)} bytes")


def write_page(config: Config, place: Path) -> None:
    """Write the page of a run, and say how large it is.

    Raises:
        UsageError: there is nothing to move in it.
    """
    from experiments.page.contents import Wish, contents
    from experiments.page.document import document

    if Path(config.run).expanduser().is_file():
        raise UsageError("--page is of a run folder: a file holds no generator to draw with")
    shown = contents(
        config.run, Wish(config.starts, config.frames, config.latent, layers=config.layers)
    )
    header = read_header(config.run)
    name = header["experiment"].rpartition(".")[2]
    command = f"python -m experiments.export RUN --page {place.name}"
    footer = (
        f"A run of latent_flows' {name}, seed {header['config'].get('seed', 0)}. Made by: {command}"
    )
    with announced("writing the page"):
        content, sheets = document(shown, footer)
    Folder(place.parent).write_bytes(place.name, content)
    width, height = sheets.size
    print(
        f"{config.page}: {len(content) / 2**20:.1f} MiB, {len(shown.starts)} starts, "
        f"{len(shown.moves)} sliders of {2 * config.frames + 1} frames of {width} x {height} pixels"
    )


def file_of(found: Found, run: str) -> bytes:
    """What was learnt, with where it comes from.

    Raises:
        UsageError: nothing was.
    """
    if found.learnt is None:
        raise UsageError("--to is for what was learnt; of steering there is --onnx")
    return export.to_bytes(found.learnt, about=about(run))


def targets(config: Config) -> dict[str, Path]:
    """Where what is asked for shall be written, by flag.

    Raises:
        UsageError: two files in one place, in that of what is read, or where a run's own are.
    """
    found: dict[str, Path] = {}
    source = Path(config.run).expanduser().resolve()
    for flag in ("to", "function", "npy", "page", "onnx"):
        if not (name := getattr(config, flag)):
            continue
        path = writable(name, f"--{flag}")
        for other, place in found.items():
            if place.resolve() == path.resolve():
                raise UsageError(f"--{other} and --{flag} name the same file, {name}")
        if path.resolve() == source:
            raise UsageError(f"--{flag} {name} is the file that is read; choose another")
        found[flag] = path
    return found


def about(run: str) -> dict[str, Any]:
    """What the file says of the run that it comes from."""
    path = Path(run).expanduser()
    if path.is_file():
        return {"file": path.name}
    return {"run": path.absolute().name, **read_header(path)}

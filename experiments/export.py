"""Write what a run has learnt: a file, a function that needs nothing but JAX, or a page to look at.

RUN is the folder of a finished run of potential_flows or directions; or one that holds, or was
about, a generator whose noise has a deviation of its own, the metric of which is then written; or a
file that was written here before, of which then to make a function. docs/export.md shows how to
read what comes out.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro

from experiments.directions import config as direction_config
from experiments.directions.learn import check_finished, learnt_directions
from experiments.generators.spec import of_run
from experiments.potential_flows import config as flow_config
from experiments.potential_flows import families as flow_families
from experiments.potential_flows import subject as flow_subject
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError, main, module_name
from experiments.runtime.run_dir import Folder, made_by, read_header, writable
from latent_flows import export
from latent_flows._validation import at_least, choose
from latent_flows.export import Learnt, Potentials
from latent_flows.generators import GeneratorSpec, stored
from latent_flows.generators.load import GENERATOR, reference
from latent_flows.generators.rbf import RBF
from latent_flows.geometry.metrics import stochastic_pullback
from latent_flows.pde import coefficient
from latent_flows.typing import Metric

RESULT = "metrics.json"
"""The file that a run writes when everything is learnt."""


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
    potential_flows, directions and steer."""
    starts: int = 4
    """Of the page: samples that are moved."""
    frames: int = 12
    """Of the page: frames on each side of a start."""
    latent: str = ""
    """Of the page: start from these latents instead, an .npy file such as experiments.invert
    writes."""
    platforms: tuple[str, ...] = export.PLATFORMS
    """What the function shall run on: cpu, cuda, rocm, tpu."""

    def __post_init__(self) -> None:
        at_least(self, starts=1, frames=1)
        if self.latent and not self.page:
            raise ValueError("--latent is of the page: name its file by --page")


class Found(NamedTuple):
    """What a run holds."""

    learnt: Learnt
    metric: Metric | None = None
    """With the generator, which the file of a metric does not hold."""


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
    }
    return readers.get(made_by(run), _metric)(run)


def _potentials(run: str) -> Found:
    config, _, subject, params = flow_subject.load_run(run)
    if config.flows.gradient == "natural":
        raise UsageError(
            f"{run} climbs its potentials in the metric of its generator, which no file holds"
        )
    return Found(
        Potentials(
            net=flow_families.potential_network(config.flows),
            params=params["potentials"],
            frame=subject.frame,
            coefficients=coefficient(params["coefficients"]),
            pde=config.flows.pde,
        )
    )


def _directions(run: str) -> Found:
    """All directions of the first loss, of a run whose scores were measured as well."""
    check_finished(Path(run).expanduser().absolute(), RESULT)
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


def serialized(found: Found, platforms: tuple[str, ...]) -> bytes:
    """What was found as a program.

    Raises:
        UsageError: of a metric only the RBF network is at hand.
        ValueError: an unknown platform.
    """
    dim = export.dim(found.learnt)
    if not isinstance(found.learnt, RBF):
        return export.serialize_motion(export.motion(found.learnt), dim, platforms=platforms)
    if found.metric is None:
        raise UsageError("the file of a metric holds no generator; give its run to get a function")
    return export.serialize_metric(found.metric, dim, platforms=platforms)


def straight(learnt: Learnt) -> bytes:
    """The unit vectors of straight directions, as the content of a .npy file.

    Raises:
        UsageError: there are none.
    """
    if not len(vectors := export.straight(learnt)):
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
    with announced(f"reading {config.run}"):
        found = read(config.run)
    make: dict[str, Callable[[], bytes]] = {
        "to": lambda: export.to_bytes(found.learnt, about=about(config.run)),
        "function": lambda: serialized(found, config.platforms),
        "npy": lambda: straight(found.learnt),
    }
    # All or nothing is written, as far as what was asked for makes sense.
    files = {flag: make[flag]() for flag in places}
    for flag, content in files.items():
        Folder(places[flag].parent).write_bytes(places[flag].name, content)
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
    shown = contents(config.run, Wish(config.starts, config.frames, config.latent))
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


def targets(config: Config) -> dict[str, Path]:
    """Where what is asked for shall be written, by flag.

    Raises:
        UsageError: two files in one place, in that of what is read, or where a run's own are.
    """
    found: dict[str, Path] = {}
    source = Path(config.run).expanduser().resolve()
    for flag in ("to", "function", "npy", "page"):
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


if __name__ == "__main__":
    raise SystemExit(main(run, Config))

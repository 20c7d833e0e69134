"""What takes long to import is not imported before it is used."""

import subprocess
import sys

import pytest

HEAVY = ("sklearn", "scipy.stats", "matplotlib", "orbax", "tensorboardX", "grain", "PIL")
EXPERIMENTS = (
    "clustering",
    "directions",
    "evaluate",
    "export",
    "flow_vae",
    "geodesics",
    "guided",
    "import_weights",
    "land",
    "potential_flows",
    "random_walk",
    "summary",
    "table",
    "train_gan",
    "train_vae",
    "traverse",
)


def loaded(code):
    """The heavy modules that a program has imported at its end."""
    end = "import sys; print(*(n for n in sys.argv[1:] if n in sys.modules))"
    command = [
        sys.executable,
        "-c",
        f"{code}\n{end}",
        *HEAVY,
        "jax",
        "diffrax",
        "tensorflow_datasets",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_the_package_imports_nothing_before_it_is_asked_for_something():
    assert loaded("import latent_flows as lf; dir(lf)") == []
    assert loaded("from latent_flows import plots; dir(plots)") == []
    assert "jax" in loaded("import latent_flows as lf; lf.geometry.geodesic")


def test_the_library_computes_without_what_evaluates_and_draws():
    names = "evaluation, directions, flows, traversals, generators, geometry, pde"
    assert set(loaded(f"from latent_flows import {names}")) <= {"jax", "diffrax"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_that_is_asked_for_help_imports_no_more_than_jax(name):
    code = (
        "import contextlib, io, runpy, sys\n"
        f"sys.argv = ['{name}', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    runpy.run_module('experiments.{name}', run_name='__main__')\n"
        "import sys\n"
        f"sys.argv = ['x', {', '.join(map(repr, HEAVY))}]\n"
    )
    assert loaded(code) == []


def test_what_is_not_there_is_named():
    import latent_flows

    with pytest.raises(AttributeError, match="has no attribute 'geometri'"):
        _ = latent_flows.geometri
    assert latent_flows.__version__[0].isdigit()
    assert "geometry" in dir(latent_flows)

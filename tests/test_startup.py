"""What takes long to import is not imported before it is used."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("sklearn", "scipy.stats", "matplotlib", "orbax", "tensorboardX", "grain", "PIL", "torch")
EXPERIMENTS = (
    "clustering",
    "directions",
    "evaluate",
    "explore",
    "export",
    "flow_vae",
    "geodesics",
    "guided",
    "import_weights",
    "invert",
    "land",
    "potential_flows",
    "random_walk",
    "retraining",
    "steer",
    "summary",
    "table",
    "train_flow",
    "train_gan",
    "train_vae",
    "traverse",
)

# No array is made at import: that would choose a device before several processes have met.
NOWHERE = {**os.environ, "JAX_PLATFORMS": "nowhere"}


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
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=NOWHERE)
    return done.stdout.split()


def test_the_package_imports_nothing_before_it_is_asked_for_something():
    assert loaded("import latent_flows as lf; dir(lf)") == []
    assert loaded("from latent_flows import plots; dir(plots)") == []
    assert "jax" in loaded("import latent_flows as lf; lf.geometry.geodesic")


def test_the_library_computes_without_what_evaluates_and_draws():
    names = "evaluation, directions, flows, traversals, generators, geometry, pde, steering"
    assert set(loaded(f"from latent_flows import {names}")) <= {"jax", "diffrax"}


def test_loading_a_generator_needs_nothing_that_follows_flows():
    assert loaded("from latent_flows.generators import load_generator") == ["jax"]


@pytest.fixture(scope="module")
def help_of_each():
    """The heavy modules that there are once each experiment was asked for help, one by one."""
    code = (
        "import contextlib, io, json, runpy, sys\n"
        "found = {}\n"
        f"for name in {EXPERIMENTS}:\n"
        "    sys.argv, wrong = [name, '--help'], ['it goes on after its end']\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(io.StringIO()):\n"
        "            runpy.run_module(f'experiments.{name}', run_name='__main__')\n"
        "    except SystemExit as ended:\n"
        "        wrong = [] if ended.code in (0, None) else [f'exit code {ended.code}']\n"
        "    except Exception as error:\n"
        "        wrong = [repr(error)]\n"
        f"    found[name] = wrong + [heavy for heavy in {HEAVY} if heavy in sys.modules]\n"
        "print(json.dumps(found))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=NOWHERE)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_that_is_asked_for_help_imports_no_more_than_jax(name, help_of_each):
    assert help_of_each[name] == []


def test_what_is_not_there_is_named():
    import latent_flows

    with pytest.raises(AttributeError, match="has no attribute 'geometri'"):
        _ = latent_flows.geometri
    assert latent_flows.__version__[0].isdigit()
    assert "geometry" in dir(latent_flows)

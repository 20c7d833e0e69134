"""The wheel, and what it needs: installed alone, and with nothing but its core."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from latent_flows._extras import MissingExtra, extra

ROOT = Path(__file__).parents[1]
NOT_IN_THE_CORE = ["sklearn", "matplotlib", "tensorflow_datasets", "grain", "psutil", "PIL", "tyro"]
"""Some of what extras bring and no package of the core does: flax needs rich and orbax."""
ALONE = """
import sys

class Absent:
    def find_spec(self, name, *args):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Packages that are named on the command line are as if they were not installed."""


def without(packages, code):
    command = [sys.executable, "-c", ALONE + code, *packages]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def first_example():
    """The first block of Python in README."""
    return (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without asking any index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    built = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_the_library_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "latent_flows",
    }
    assert "latent_flows/py.typed" in names


def test_the_wheel_runs_the_first_example_with_the_core_alone(wheel, tmp_path):
    """Unpacked elsewhere, with every package hidden that the core does not ask for."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"sys.path.insert(0, {str(tmp_path)!r})\n{first_example()}\n"
    code += "import latent_flows; assert latent_flows.__file__.startswith(sys.path[0])"
    command = [sys.executable, "-c", ALONE + code, *NOT_IN_THE_CORE]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_the_wheel_installs_into_a_clean_environment(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True, cwd=tmp_path)
    listed = subprocess.check_output([python, "-m", "pip", "list"], text=True)
    installed = {line.split()[0].lower() for line in listed.splitlines()}
    assert not installed & {"scikit-learn", "matplotlib", "tensorflow-datasets", "tyro"}
    ran = subprocess.run(
        [python, "-c", first_example()], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("package", "code", "name"),
    [
        (
            "sklearn",
            "from latent_flows import evaluation as e; e.sap([[0.], [1.]] * 50, [[0], [1]] * 50)",
            "evaluation",
        ),
        ("matplotlib", "from latent_flows import plots; plots.strips", "plots"),
        ("tensorflow_datasets", "from latent_flows import data; data.load('mnist')", "data"),
        pytest.param(
            "torch",
            "from latent_flows.generators import from_torch; from_torch(abs, 2)",
            "torch",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_extra_that_is_missing_is_named(package, code, name):
    ran = without([package], code)
    assert ran.returncode == 1
    line = ran.stderr.splitlines()[-1]
    assert line.startswith("latent_flows._extras.MissingExtra: this needs ")
    assert line.endswith(f"pip install 'latent-flows[{name}]'")


@pytest.mark.parametrize("package", ["tyro", "orbax", "rich"])
def test_experiments_without_their_extra_are_one_line(package):
    ran = without([package], "import experiments.summary")
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "pip install 'latent-flows[experiments]'" in ran.stderr


def test_other_errors_of_an_import_stay_what_they_are():
    with pytest.raises(ImportError, match="cannot import name") as raised, extra("plots"):
        from json import no_such_name  # noqa: F401
    assert not isinstance(raised.value, MissingExtra)

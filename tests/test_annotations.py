"""The annotations of the library hold when its tests run, and its own errors come first."""

import ast
import importlib.util
import pkgutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

import latent_flows
from latent_flows import coordinates
from latent_flows.evaluation.frechet import frechet_distance
from latent_flows.guidance import guidance


@pytest.fixture(autouse=True)
def checks(request):
    """They are checked by `make test`; `make test-all` runs what users do."""
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("annotations are not checked in this run: `make test` does")


MODULES = [found.name for found in pkgutil.walk_packages(latent_flows.__path__, "latent_flows.")]


def test_every_module_that_the_settings_name_is_checked(request):
    *named, checker = request.config.getoption("--jaxtyping-packages").split(",")
    assert checker == "checked_annotations.check"
    for name in MODULES:
        is_named = any(f"{name}.".startswith(f"{package}.") for package in named)
        loader = importlib.util.find_spec(name).loader
        assert (type(loader).__module__ == "jaxtyping._import_hook") == is_named, name


def test_a_function_with_annotated_arguments_has_an_annotated_result():
    """Or it would not be checked."""
    for name in MODULES:
        source = Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.returns is None:
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert not any(each.annotation for each in taken), f"{name}.{node.name}"


def test_a_wrong_argument_or_result_that_a_function_lets_pass_is_an_error():
    with pytest.raises(TypeCheckError, match="to_latent"):
        coordinates.to_latent(coordinates.identity(2), jnp.zeros((2, 2)))
    with pytest.raises(TypeCheckError, match="to_latent"):
        coordinates.to_latent(coordinates.identity(2)._replace(origin=0.0), jnp.zeros(2, int))


def test_a_refusal_by_the_function_itself_comes_before_that_of_its_annotations():
    with pytest.raises(ValueError, match=r"expected two finite sets of features, \[n, d\]"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="did you mean 'data'"):
        guidance(jnp.sin, jnp.sum, space="date")

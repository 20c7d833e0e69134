"""A graph of operators, walked without PyTorch."""

import operator
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators._torch.graph import (
    Kind,
    Program,
    Ref,
    Step,
    folded,
    from_export,
    run,
)


def node(name, target, *args):
    """One of a graph, as `torch.fx` has it."""
    before = [arg for arg in args if isinstance(arg, SimpleNamespace)]
    return Node(name=name, target=target, op="call_function", args=args, kwargs={}, before=before)


class Node(SimpleNamespace):
    """Hashed by what it is, as one of `torch.fx`."""

    __hash__ = object.__hash__

    @property
    def all_input_nodes(self):
        return self.before


def exported(*nodes, output):
    z = Node(name="z", target="z", op="placeholder", args=(), kwargs={}, before=[])
    made = [z]
    for name, target, *args in nodes:
        by_name = {each.name: each for each in made}
        known = [by_name[arg] if isinstance(arg, str) else arg for arg in args]
        made.append(node(name, target, *known))
    spec = SimpleNamespace(arg=SimpleNamespace(name="z"), kind=SimpleNamespace(name="USER_INPUT"))
    spec.target = None
    signature = SimpleNamespace(user_outputs=(output,), input_specs=[spec])
    graph = SimpleNamespace(nodes=made)
    return SimpleNamespace(graph=graph, graph_signature=signature, state_dict={}, constants={})


def test_a_graph_is_run_and_what_nobody_needs_is_left_out():
    given = exported(
        ("noise", "aten.randn_like.default", "z"),
        ("parts", "aten.split_with_sizes.default", "z", [1, 2]),
        ("second", operator.getitem, "parts", 1),
        ("moved", "aten.add.Tensor", "second", 1.0),
        output="moved",
    )
    program, tensors = from_export(given, "float32")
    assert [step.rule for step in program.steps] == ["split_with_sizes", "getitem", "add"]
    assert not tensors
    np.testing.assert_array_equal(run(program, {}, jnp.arange(3.0))[0], [2.0, 3.0])


def test_every_unknown_operator_is_named_before_anything_is_run():
    given = exported(
        ("a", "aten.mystery.default", "z"),
        ("b", "mine.special.default", "a"),
        ("c", "aten.add.Tensor", "b", "z"),
        output="c",
    )
    message = r"has 2 operators .* in JAX: aten.mystery.default, mine.special.default$"
    with pytest.raises(ValueError, match=message):
        from_export(given, "float32")


def test_noise_is_named():
    given = exported(("a", "aten.randn_like.default", "z"), output="a")
    with pytest.raises(ValueError, match=r"draws random numbers \(aten.randn_like.default\)"):
        from_export(given, "float32")


STEPS = (
    Step("turned", "permute", (Ref("w"), [1, 0]), {}),
    Step("y", "mm", (Ref("z"), Ref("turned")), {}),
    Step("cast", "_to_copy", (Ref("y"),), {"dtype": Kind("float32")}),
)


def test_what_depends_on_no_input_is_done_once():
    program = Program(("z",), STEPS, ("cast",), "float32")
    rest, tensors = folded(program, {"w": jnp.ones((3, 2)), "unused": jnp.ones(1)})
    assert [step.name for step in rest.steps] == ["y", "cast"]
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"turned": (2, 3)}
    assert run(rest, tensors, jnp.ones((1, 2)))[0].tolist() == [[2.0, 2.0, 2.0]]


def test_the_precision_of_the_module_stands_for_that_of_the_input():
    program = Program(("z",), STEPS, ("cast",), "float32")
    made = run(program, {"w": jnp.ones((3, 2), jnp.bfloat16)}, jnp.ones((1, 2), jnp.bfloat16))
    assert made[0].dtype == jnp.bfloat16
    exact = program._replace(floating="float64")
    assert run(exact, {"w": jnp.ones((3, 2))}, jnp.ones((1, 2), jnp.bfloat16))[0].dtype == "float32"


def test_a_step_that_fails_is_named():
    program = Program(("z",), STEPS, ("cast",), "float32")
    with pytest.raises(ValueError, match=r"has aten.mm, which fails in JAX \(TypeError: "):
        run(program, {"w": jnp.ones((3, 5))}, jnp.ones((1, 2)))

"""Experiments on generators of vectors, sequences, and images of many channels."""

import json
import shlex
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.directions import train as directions
from experiments.evaluate import evaluate
from experiments.latent_oddity import clustering, geodesics, land, random_walk
from experiments.potential_flows import flow_space, traverse
from experiments.potential_flows import train as potential_flows
from experiments.potential_flows.config import GAN
from experiments.steer import train as steer
from experiments.supervised_flows import train as guided
from latent_flows.generators import freeze, load_generator
from tests.experiments.small_generators import small_vae

FLOWS = shlex.split(
    "gan --flows.count 2 --flows.horizon 2 --flows.width 4 --flows.depth 1 --flows.codes 32 "
    "--flows.bank 16 --training.steps 2 --training.warmup 0 --training.batch-size 8 "
    "--training.log-every 1 --training.checkpoint-every 2"
)
SCORES = shlex.split(
    "--scores.starts 4 --scores.pairs 20 --scores.fractions 0.2 --scores.seeds 1 "
    "--scores.vp-steps 5 --scores.closed-form"
)
OWN = """
import jax.numpy as jnp


def vector(z):
    return jnp.array([100.0, 1.0, 0.0, 0.0]) + jnp.stack(
        [30 * z[0], jnp.sin(z[1]), z[0] * z[1], 0 * z[0]]
    )


def sequence(z):
    t = jnp.linspace(0, 6, 20)
    return jnp.stack([jnp.sin(t + z[0]), 3 * jnp.cos(t * (1 + 0.1 * z[1]))], axis=1)


def bands(z):
    y, x = jnp.mgrid[-1:1:6j, -1:1:9j]
    blob = jnp.exp(-((x - z[0]) ** 2) - (y - z[1]) ** 2)
    return 7 * jnp.stack([blob * (i + 1 + 0.1 * z[0]) for i in range(5)], axis=-1)


def number(z):
    return jnp.sin(z[:1]) + z[1]


def film(z):
    t, y, x = jnp.mgrid[0:1:2j, -1:1:4j, -1:1:4j]
    return jnp.exp(-((x - z[0]) ** 2) - (y - z[1] * t) ** 2)[..., None]


for made in (vector, sequence, bands, number, film):
    made.latent_dim = 2
"""
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def _quick(compile_quickly):
    pass


@pytest.fixture
def own(tmp_path):
    """A file of generators."""
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["sequence", "bands", "number", "film"])
def test_flows_of_samples_of_any_shape_are_learnt_and_drawn(shape, own, tmp_path, call):
    flags = (*FLOWS, "--no-scores", "--generator", f"{own}:{shape}", "--run", tmp_path / "run")
    code, _, err = call(potential_flows, *flags)
    assert (code, err) == (0, "")
    assert (tmp_path / "run" / "traversals.png").read_bytes().startswith(PNG)
    assert (tmp_path / "run" / "traversals.gif").read_bytes().startswith(b"GIF")


@pytest.mark.slow
def test_flows_of_vectors_are_measured_beside_directions_and_drawn_again(own, tmp_path, call):
    flags = [*FLOWS, *SCORES, "--generator", f"{own}:vector", "--run", tmp_path / "run"]
    code, _, err = call(potential_flows, *flags)
    assert (code, err) == (0, "")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    rows = {row["method"]: row for row in metrics["comparison"]}
    assert {"potentials", "GANSpace", "most visible axes"} <= {*rows}
    for row in rows.values():
        assert 0 <= row["vp@20%"] <= 1
        assert row["length"] > 0
        assert "winners" not in row, "factors are measured on images"
    before = (tmp_path / "run" / "traversals.png").read_bytes()
    assert call(traverse, tmp_path / "run", "--start", "3")[0] == 0
    assert (tmp_path / "run" / "traversals.png").read_bytes() != before


def space_of(scale):
    """A generator of vectors in some unit, and the flows to be learnt on it."""
    weights = jax.random.normal(jax.random.key(0), (5, 3)) * jnp.array([[1, 1, 10, 0.1, 0]]).T
    generator = freeze(lambda z: scale * (jnp.sin(weights @ z) + 2), 3)
    settings = replace(GAN.flows, count=2, horizon=3, width=4, depth=1, codes=64, bank=64)
    config = replace(GAN, flows=settings)
    return config, flow_space.load_space(settings, 0, generator, None)


@pytest.mark.slow
def test_the_loss_of_vectors_does_not_depend_on_their_unit(key):
    def value(scale, of=lambda loss: loss):
        config, space = space_of(scale)
        batch = potential_flows.latents(config, space).examples(np.arange(16))
        params = flow_space.initial(config.flows, space, key)
        step = jnp.array(0)
        loss = lambda params: potential_flows.loss(config, space, params, key, step, batch)[0]  # noqa: E731
        return jax.jit(of(loss))(params)

    (loss, slopes), other = value(1.0, jax.value_and_grad), value(1000.0)
    np.testing.assert_allclose(loss, other, rtol=1e-3)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(slopes["classifier"]))
    assert any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(slopes["potentials"]))


def test_at_pace_1_a_flow_goes_as_far_as_two_vectors_are_apart():
    config, space = space_of(7.0)
    draws = jax.vmap(jax.vmap(space.frozen))(jax.random.normal(jax.random.key(1), (2, 4000, 3)))
    apart = jnp.sqrt(jnp.mean(jnp.sum((draws[0] - draws[1]) ** 2, axis=-1)))
    length = flow_space.pace(config.flows, space.spread) * config.flows.horizon
    np.testing.assert_allclose(length, apart, rtol=0.2)
    assert flow_space.pace(config.flows, None) == config.flows.pace


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (potential_flows, ["gan", "--flows.classifier", "lenet"], "flows.classifier lenet sees"),
        (directions, ["gan"], "directions perform transformations of images"),
        (steer, ["gan"], "directions perform transformations of images"),
        (guided, ["sprites"], "a guided flow is about codes of data"),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else "",
)
def test_what_vectors_cannot_do_is_one_line_and_code_2(module, flags, message, own, tmp_path, call):
    named = ("--generator", f"{own}:vector", "--run", tmp_path / "run")
    code, out, err = call(module, *flags, *named)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module", params=[2, 3])
def vae(request, tmp_path_factory):
    """A VAE of labelled vectors, with both deviations."""
    path, dim = tmp_path_factory.mktemp("vectors"), request.param
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 6))
    np.savez(path / "x.npz", x=x.astype(np.float32), label=np.arange(120) % 3)
    stds, kind = ("rbf", "network"), {"likelihood": "gaussian"}
    return small_vae(path / "vae", str(path / "x.npz"), latent_dim=dim, stds=stds, **kind)


GEOMETRY = {
    geodesics: (
        "--geodesics.pairs 3 --geodesics.segments 4 --geodesics.off 5 --geodesics.shown 2 "
        "--geodesics.strips 1 --geodesics.neighbours 4 --classifier.steps 2 "
        "--classifier.batch-size 16",
        {"latent"},
        {"strips", "losses_classifier"},
    ),
    clustering: (
        "--clustering.points 12 --clustering.restarts 0 --clustering.segments 4 "
        "--clustering.table 8 --clustering.iterations 2",
        {"labels", "clusters_rbf", "clusters_network", "clusters_euclidean"},
        {"samples"},
    ),
    random_walk: (
        "--walks.walks 3 --walks.steps 4 --walks.substeps 1 --classifier.steps 2 "
        "--classifier.batch-size 16",
        {"walks"},
        {"samples"},
    ),
    land: (
        "--fit.components 1 --fit.points 12 --fit.test-points 4 --fit.samples 16 "
        "--fit.final-samples 16 --fit.segments 4 --fit.table 8 --fit.iterations 1 "
        "--fit.resolution 4",
        {"densities"},
        {"means"},
    ),
}
"""Flags of each experiment, its pictures of latents in a plane, and its others."""


@pytest.mark.slow
@pytest.mark.parametrize("module", GEOMETRY, ids=lambda module: module.__name__)
def test_the_geometry_of_vectors_is_studied_to_its_pictures(module, vae, tmp_path, call):
    flags, of_planes, others = GEOMETRY[module]
    words = ["digits", "--codes", 60, *shlex.split(flags), "--generator", vae]
    code, _, err = call(module, *words, "--run", tmp_path / "run")
    assert (code, err) == (0, "")
    assert (tmp_path / "run" / "metrics.json").exists()
    plane = load_generator(vae).latent_dim == 2
    found = {path.stem for path in (tmp_path / "run").glob("*.png")}
    # In a plane, clusters and densities are drawn there instead.
    instead = module in (clustering, land)
    assert found == (of_planes | (set() if instead else others) if plane else others)


@pytest.mark.slow
def test_vectors_of_a_vae_are_traversed_measured_and_evaluated(vae, tmp_path, call):
    flags = [*FLOWS, *SCORES, "--flows.frame", "identity", "--generator", vae]
    code, _, err = call(potential_flows, *flags, "--run", tmp_path / "run")
    assert (code, err) == (0, "")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert np.isfinite(metrics["generator"]["elbo"])
    few = ("--sizes.images", 8, "--sizes.iwae-samples", 2)
    code, out, err = call(evaluate, tmp_path / "run", *few)
    assert (code, err) == (0, "")
    assert "attributes are measured on images, and this generator makes none" in out
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert np.isfinite(scores["scores"]["iwae"]["mean"])

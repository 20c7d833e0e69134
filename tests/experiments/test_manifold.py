"""Experiments on the geometry of a generator: what they share, and the first of them."""

import json
import shlex
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generators import noise_std, spec
from experiments.latent_oddity import (
    clustering,
    densities,
    gan_geodesics,
    geodesics,
    land,
    random_walk,
    setup,
)
from experiments.latent_oddity.paths import TIMES, Geodesics, joined, straight
from experiments.runtime import cli
from experiments.runtime.run_dir import Folder, made_by, read_config
from latent_flows import data
from latent_flows.generators import FrozenGenerator, freeze, load_generator
from latent_flows.geometry.metrics import pullback
from tests.experiments.small_generators import small_gan, small_vae

MODULES = (geodesics, clustering, land, random_walk)
FEW = shlex.split("--codes 60")
JUDGED = shlex.split("--classifier.steps 2 --classifier.batch-size 16")
PATHS = shlex.split(
    "--geodesics.pairs 3 --geodesics.segments 4 --geodesics.off 5 --geodesics.shown 2 "
    "--geodesics.strips 1"
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A run folder of train_vae with two latents and both deviations."""
    path = tmp_path_factory.mktemp("vae") / "run"
    return small_vae(path, "digits", latent_dim=2, stds=("rbf", "network"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, plane, compile_quickly):
    path = tmp_path_factory.mktemp("geodesics") / "run"
    flags = ["digits", "--generator", plane, *FEW, *JUDGED, *PATHS, "--run", path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(geodesics.run, geodesics.PRESETS, [str(flag) for flag in flags]) == 0
    return path


def results(path):
    """The files of what a run has computed."""
    return sorted(file for file in path.glob("*.json") if file.name != "generator.json")


def numbers(path):
    """Everything in metrics.json."""
    return json.loads((path / "metrics.json").read_text())


@pytest.mark.slow
def test_a_run_leaves_its_numbers_and_pictures(whole):
    metrics = numbers(whole)
    assert metrics["pairs"] == 3
    assert 0 <= metrics["classifier_accuracy"] <= 1
    rows = {row["path"]: row for row in metrics["paths"]}
    assert list(rows) == ["RBF geodesic", "ordinary geodesic", "straight line"]
    for row in rows.values():
        # No classifier is less sure than of a label drawn at random.
        assert 0.1 <= row["lowest_confidence"] <= row["confidence"] <= 1
        assert row["lowest_log_density"] <= row["log_density"]
        # The deviation adds to the length of a path.
        assert row["length"] <= min(row["length_rbf"], row["length_network"])
        assert row["gap"] > 0
    # A path is shortest in the metric that it was made for.
    for name in ("rbf", "network"):
        column = [row[f"length_{name}"] for row in rows.values()]
        assert column[("rbf", "network").index(name)] <= min(column) * 1.01
    assert [row["deviation"] for row in metrics["volume"]] == [*geodesics.TITLES.values()]
    for row in metrics["volume"]:
        assert 0 <= row["border_above"] <= 1
    for kind in ("rbf", "network"):
        times = json.loads((whole / "times.json").read_text())[f"paths_{kind}"]
        assert [*times] == [*TIMES]
        assert all(seconds >= 0 for seconds in times.values())
    for picture in ("latent", "strips", "losses_classifier"):
        assert (whole / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_same_command_computes_nothing_again(whole, plane, tmp_path, call, monkeypatch):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    for name in ("measure", "joined"):
        monkeypatch.setattr(geodesics, name, lambda *_: pytest.fail("computed again"))
    flags = ("digits", "--generator", plane, *FEW, *JUDGED, *PATHS, "--run", path)
    code, out, err = call(geodesics, *flags)
    assert code == 0, err
    assert "RBF geodesic" in out
    assert (path / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


@pytest.mark.slow
def test_a_run_stands_for_the_generator_that_it_is_about(whole, plane):
    first = read_config(whole, geodesics.Config)
    assert made_by(whole) == "experiments.geodesics"
    kept, again = load_generator(str(plane)), load_generator(str(whole))
    assert again.name == kept.name
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(one, other)
    # The same seed joins the same codes.
    paths = json.loads((whole / "paths_rbf.json").read_text())["points"]
    found = geodesics.ends(first, setup.load_manifold(first))
    np.testing.assert_allclose(found[:, 0], np.array(paths)[:, 0])


@pytest.mark.slow
def test_each_deviation_makes_a_metric_larger_than_that_of_the_mean(plane):
    manifold = setup.load_manifold(setup.Config(generator=str(plane), codes=16))
    assert set(manifold.metrics) == set(setup.METHODS)
    z = manifold.test.codes[0]
    np.testing.assert_array_equal(manifold.metrics["euclidean"](z), np.eye(2))
    for kind in ("rbf", "network"):
        extra = manifold.metrics[kind](z) - pullback(manifold.generator.decode)(z)
        assert np.linalg.eigvalsh(extra).min() > -1e-4


@pytest.mark.parametrize("module", MODULES)
def test_every_experiment_has_the_shared_flags_and_presets(module):
    assert issubclass(module.Config, setup.Config)
    shared = {name: module.PRESETS[name][1] for name in setup.GENERATORS}
    assert [*module.PRESETS][: len(shared)] == [*shared]
    runs = [config.run for _, config in module.PRESETS.values()]
    assert len(set(runs)) == len(runs)
    assert shared["digits"].generator == "runs/vae-digits-plane"
    assert shared["digits"].generator.command == "train_vae digits-plane"


@pytest.mark.parametrize("module", MODULES)
def test_a_preset_says_how_its_generator_is_made(module, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for quick in ([], ["--quick"]):
        code, out, err = call(module, "digits", *quick, "--run", tmp_path / "run")
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert " ".join(["python -m experiments.train_vae digits-plane", *quick]) + "`" in err
    assert not (tmp_path / "run").exists()


FEWER = [(), ("rbf",), ("network",)]
"""Deviations that a generator may have without having both."""


@pytest.mark.parametrize(
    "stds", [FEWER[0], *(pytest.param(s, marks=pytest.mark.slow) for s in FEWER[1:])]
)
def test_geodesics_of_a_generator_without_both_deviations_are_refused(stds, tmp_path, call):
    generator = small_vae(tmp_path / "vae", "digits", latent_dim=2, stds=stds)
    code, out, err = call(geodesics, "digits", "--generator", generator, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    missing = " and ".join(kind for kind in ("rbf", "network") if kind not in stds)
    assert f"the VAE of digits has no deviation of its noise ({missing})" in err
    assert "python -m experiments.train_vae` with --variance both" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stds", "kinds"), [((), ["pullback"]), (("rbf",), ["rbf"]), (("network",), ["network"])]
)
def test_what_a_vae_knows_of_its_noise_is_its_metric(stds, kinds, tmp_path, capsys):
    generator = small_vae(tmp_path / "vae", "digits", latent_dim=2, stds=stds)
    manifold = setup.load_manifold(setup.Config(generator=str(generator), codes=16))
    assert manifold.kinds == kinds
    assert ("that of the mean alone" in capsys.readouterr().out) == (not stds)


def test_samples_are_random_and_bounded():
    images = np.random.default_rng(0).random((40, 2, 2, 1)).astype(np.float32)
    dataset = data.from_arrays("noise", image=images)
    generator = freeze(
        lambda z: jnp.tile(z, 2).reshape(2, 2, 1), 2, encode=lambda x: (x[0, :, 0], x[1, :, 0])
    )
    found = setup.sample(setup.Config(codes=16), generator, dataset)
    assert found.images.shape == (16, 2, 2, 1)
    assert found.codes.shape == (16, 2)
    assert found.labels is None
    np.testing.assert_array_equal(found.codes, found.images[:, 0, :, 0])
    rows = {image.tobytes() for image in images}
    assert len({np.asarray(image).tobytes() for image in found.images} & rows) == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--codes", "3"], "codes must be at least 16, got 3"),
        (["--seed", "-1"], "seed must not be negative, got -1"),
        (["--geodesics.pairs", "0"], "geodesics.pairs must be at least 1, got 0"),
        (["--geodesics.neighbours", "60", "--codes", "60"], "must be less than the 60 training"),
        (["--classifier.batch-size", "1440"], "classifier.batch_size (1440) is more than the 1437"),
        (["--generator", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, plane, tmp_path, call):
    flags = ["--generator", plane, *flags] if "--generator" not in flags else flags
    code, out, err = call(geodesics, "digits", *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_run_of_something_else_is_no_generator(tmp_path, call):
    path = tmp_path / "flows"
    path.mkdir()
    content = {"experiment": "experiments.potential_flows", "config": {}}
    (path / "config.json").write_text(json.dumps(content))
    code, _, err = call(geodesics, "digits", "--generator", path, "--run", tmp_path / "run")
    assert code == 2
    assert f"{path} holds no generator and was about none" in err
    assert err.count("\n") == 1


OWN = """
import jax.numpy as jnp


def bowl(z):
    image = jnp.stack([z[0], z[1], (z @ z) / 2, jnp.ones(())])
    return 0.5 + 0.1 * image.reshape(2, 2, 1)


bowl.latent_dim = 2
"""
VECTOR = """
import jax.numpy as jnp


def helix(z):
    return jnp.stack([jnp.cos(z[0]), jnp.sin(z[0]), z[0] + z[1]])


helix.latent_dim = 2
"""
SUPPLIED = shlex.split(
    "--geodesics.pairs 4 --geodesics.segments 8 --geodesics.shown 2 --geodesics.strips 1 "
    "--generator.prior truncated --generator.truncation 2"
)


@pytest.mark.slow
def test_draws_of_a_generator_of_ones_own_are_joined(tmp_path, call):
    (tmp_path / "own.py").write_text(OWN)
    flags = [*SUPPLIED, "--generator.path", f"{tmp_path / 'own.py'}:bowl", "--run", tmp_path / "a"]
    code, out, err = call(geodesics, *flags)
    assert code == 0, err
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    ours, straight, arc = metrics["paths"]
    named = [row["path"] for row in metrics["paths"]]
    assert named == ["geodesic", "straight line", "great circle"]
    assert ours["length"] < arc["length"]
    assert ours["converged"] == 1
    assert 0.5 < ours["of_straight"] < 1 == straight["of_straight"]
    assert ours["length"] < straight["length"]
    for picture in ("latent", "strips"):
        assert (tmp_path / "a" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    # The same command computes nothing again, and its run stands for the generator.
    kept = (tmp_path / "a" / "metrics.json").stat().st_mtime_ns
    code, shown, _ = call(geodesics, *flags)
    assert (code, "geodesics: step" in shown) == (0, False)
    assert out.endswith(shown)
    assert (tmp_path / "a" / "metrics.json").stat().st_mtime_ns == kept
    again = geodesics.Config(generator=str(tmp_path / "a"))
    assert spec.load(again).name.endswith("own.py:bowl")


@pytest.mark.slow
def test_a_gan_and_a_function_that_makes_vectors_are_joined_as_well(tmp_path, call):
    (tmp_path / "own.py").write_text(VECTOR)
    small_gan(tmp_path / "gan", latent_dim=2)
    few = ["gan", *PATHS, "--run"]
    code, _, err = call(geodesics, *few, tmp_path / "a", "--generator", tmp_path / "gan")
    assert code == 0, err
    assert (tmp_path / "a" / "strips.png").exists()
    vectors = f"{tmp_path / 'own.py'}:helix"
    code, _, err = call(geodesics, *few, tmp_path / "b", "--generator", vectors)
    assert code == 0, err
    assert {path.stem for path in (tmp_path / "b").glob("*.png")} == {"latent", "strips"}


def sheet():
    """A plane of images."""
    return freeze(lambda z: jnp.concatenate([z, 2 * z]).reshape(2, 2, 1), 2, name="plane")


def test_of_a_plane_geodesics_are_the_straight_lines(tmp_path):
    generator, settings = sheet(), Geodesics(pairs=3, segments=4)
    metric = gan_geodesics.seen_through(generator, settings)
    paths = gan_geodesics.find(Folder(tmp_path), generator, metric, settings, 0)
    rows = gan_geodesics.measure(generator, metric, settings, paths)["paths"]
    np.testing.assert_allclose(paths["geodesic"].points, paths["straight line"].points, atol=1e-4)
    assert [row["path"] for row in rows] == ["geodesic", "straight line", "great circle"]
    assert rows[2]["of_straight"] > 1
    norms = np.linalg.norm(paths["great circle"].points, axis=-1)
    np.testing.assert_allclose(norms.min(1), norms[:, [0, -1]].min(1), rtol=1e-5)
    ends = paths["geodesic"].points[:, [0, -1]]
    wanted = np.sqrt(5) * np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    assert rows[0]["length"] == pytest.approx(wanted.mean(), rel=1e-4)
    assert rows[0]["of_straight"] == pytest.approx(1, abs=1e-4)
    assert rows[0]["smallest_norm"] <= rows[0]["norm_of_ends"]


def test_lengths_may_be_measured_through_a_network_of_ones_own(tmp_path, call):
    own = tmp_path / "own.py"
    own.write_text(
        OWN + "\n\ndef third(x):\n    return 3 * x.ravel()[:2]\n"
        "\n\ndef nothing(x):\n    return x.ravel()[0] / 0\n"
    )
    few = ["gan", *PATHS, "--generator", f"{own}:bowl"]
    plain = gan_geodesics.seen_through(sheet(), Geodesics())
    seen = gan_geodesics.seen_through(sheet(), Geodesics(features=f"{own}:third"))
    z = jnp.array([0.3, -0.2])
    np.testing.assert_allclose(plain(z), 5 * np.eye(2), atol=1e-5)
    np.testing.assert_allclose(seen(z), 9 * np.eye(2), atol=1e-5)
    for name, message in [("fourth", "has no 'fourth'"), ("nothing", "gives float32 of shape")]:
        flag = ["--geodesics.features", f"{own}:{name}", "--run", tmp_path / name]
        code, _, err = call(geodesics, *few, *flag)
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err
        assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_metrics_and_paths_are_the_same_to_the_last_bit_whatever_time_they_took(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        settings = Geodesics(pairs=3, segments=4, shown=1, strips=1)
        gan_geodesics.run(Folder(tmp_path / name), sheet(), pullback(sheet().decode), settings, 0)
    for file in ("metrics.json", "paths.json"):
        first, second = ((tmp_path / name / file).read_bytes() for name in "ab")
        assert first == second
        assert not any(word.encode() in first for word in TIMES)
    assert set(json.loads((tmp_path / "a" / "times.json").read_text())["paths"]) == {*TIMES}


def test_seconds_are_shown_beside_the_scores_of_clusters_and_are_none_of_them(tmp_path, capsys):
    folder = Folder(tmp_path)
    codes = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    labels = np.repeat([0, 1], 10)
    solve = partial(clustering.euclidean, clustering.Config(), codes, 2)
    kept, times = folder.remember_timed("clusters_euclidean", solve)
    assert {*times} == {"seconds", "compiling"}
    found = {"euclidean": {**kept, "times": times}}
    metrics = clustering.measure(found, labels, 2)
    assert not {*metrics["methods"][0]} & {*TIMES}
    clustering.show(metrics, found)
    assert "seconds" in capsys.readouterr().out


def test_fewer_pairs_at_once_of_large_images():
    small, large = (
        FrozenGenerator("", None, 512, (side, side, 3), prior=None) for side in (8, 1024)
    )
    newton, spline = Geodesics(method="newton"), Geodesics(method="spline")
    assert gan_geodesics.at_once(small, newton) > gan_geodesics.at_once(large, newton) == 1
    assert gan_geodesics.at_once(large, spline) == 1


def test_splines_join_latents_that_are_long():
    assert [Geodesics().by_splines(dim) for dim in (2, 16, 17)] == [False, False, True]
    pairs = jax.random.normal(jax.random.key(0), (3, 2, 20))
    found = joined(lambda z: jnp.eye(20), pairs, Geodesics(segments=8, knots=4), batch_size=2)
    assert found.converged.all()
    np.testing.assert_allclose(found.points, straight(pairs, 8).points, atol=1e-5)


DRAWN = {
    "clustering": (
        clustering,
        "--clustering.points 6 --clustering.clusters 2 --clustering.restarts 0 "
        "--clustering.segments 2 --clustering.table 0 --clustering.iterations 1",
        ["geodesic, pull-back", "Euclidean"],
        ["clusters_pullback", "clusters_euclidean"],
    ),
    "land": (
        land,
        "--fit.components 1 --fit.points 8 --fit.test-points 2 --fit.samples 16 --fit.table 0 "
        "--fit.final-samples 16 --fit.segments 2 --fit.iterations 1 --fit.resolution 2",
        ["LAND, pull-back, volume", "LAND, pull-back, lebesgue", "Gaussian mixture"],
        ["densities"],
    ),
    "random_walk": (
        random_walk,
        "--walks.walks 2 --walks.steps 3 --walks.substeps 1 --walks.drawn 1",
        ["Brownian, pull-back", "Euclidean"],
        ["walks", "samples"],
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "random_walk")) for n in DRAWN]
)
def test_without_an_encoder_draws_from_the_prior_take_the_place_of_codes(name, tmp_path, call):
    module, flags, methods, pictures = DRAWN[name]
    (tmp_path / "own.py").write_text(OWN)
    own = ("--generator.path", f"{tmp_path / 'own.py'}:bowl", "--codes", "24")
    code, out, err = call(module, "gan", *own, *shlex.split(flags), "--run", tmp_path / "run")
    assert code == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [next(iter(row.values())) for row in metrics["methods"]] == methods
    for picture in pictures:
        assert (tmp_path / "run" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert "draws" in out


@pytest.mark.slow
def test_latents_of_a_file_take_the_place_of_draws(tmp_path, call):
    (tmp_path / "own.py").write_text(OWN)
    latents = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    np.save(tmp_path / "found.npy", latents)
    own = ("--generator.path", f"{tmp_path / 'own.py'}:bowl", "--run", tmp_path / "run")
    given = (*own, "--latents", tmp_path / "found.npy")
    flags = shlex.split(DRAWN["random_walk"][1])
    code, out, err = call(random_walk, "gan", *given, *flags)
    assert code == 0, err
    assert "from latents" in out
    kept = json.loads((tmp_path / "run" / "given.json").read_text())
    np.testing.assert_allclose(kept, [*latents[::2], *latents[1::2]], rtol=1e-6)
    # The same command goes on; with other latents in the file it says so.
    np.save(tmp_path / "found.npy", latents + 1)
    code, _, err = call(random_walk, "gan", *given, *flags)
    assert (code, err.count("\n")) == (2, 1), err
    assert "other latents than those that the file of --latents" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((7, 2)), "holds 7 latents; at least 8 are needed"),
        (np.zeros((9, 3)), "latents of 3 numbers, and those of this generator have 2"),
        (None, "there is no such file"),
    ],
)
def test_latents_that_are_none_or_too_few_are_one_line(content, message, tmp_path, call):
    (tmp_path / "own.py").write_text(OWN)
    if content is not None:
        np.save(tmp_path / "found.npy", content)
    own = ("--generator.path", f"{tmp_path / 'own.py'}:bowl", "--run", tmp_path / "run")
    code, out, err = call(random_walk, "gan", *own, "--latents", tmp_path / "found.npy")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


def test_codes_are_not_replaced_by_latents_of_a_file(plane, tmp_path, call):
    np.save(tmp_path / "found.npy", np.zeros((9, 2)))
    words = ("--generator", plane, "--latents", tmp_path / "found.npy", "--run", tmp_path / "run")
    code, _, err = call(random_walk, "digits", *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert "has an encoder, and its codes are studied" in err


def test_draws_are_those_of_the_prior_and_their_metric_is_nowhere_singular(key):
    flat = freeze(lambda z: z[:1] * jnp.ones(3), 2, prior=lambda key: jnp.array([5.0, 1.0]))
    manifold = setup.of_draws(setup.Config(codes=16), flat)
    np.testing.assert_array_equal(manifold.test.codes, np.tile([5.0, 1.0], (16, 1)))
    assert (manifold.data, manifold.kinds, manifold.train.labels) == (None, ["pullback"], None)
    np.testing.assert_allclose(
        manifold.metrics["pullback"](jnp.zeros(2)), np.diag([2.01, 0.01]), rtol=1e-5, atol=1e-6
    )


def test_several_decoders_have_the_metric_of_their_ensemble_without_any_deviation():
    both = freeze(lambda z: 2 * z, 2, members=lambda z: jnp.stack([z, 3 * z]))
    metric = setup.own_metrics(both)["ensemble"]
    np.testing.assert_allclose(metric(jnp.ones(2)), 5 * np.eye(2), rtol=1e-6)


def test_long_latents_are_no_more_of_a_mixture_than_there_are_numbers(tmp_path, call):
    (tmp_path / "own.py").write_text(VECTOR.replace("latent_dim = 2", "latent_dim = 30"))
    own = ("--generator.path", f"{tmp_path / 'own.py'}:helix", "--run", tmp_path / "run")
    code, out, err = call(land, "gan", *own, "--fit.points", "30")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "fit.points: 30 draws are too few for latents of 30 numbers; at least 31" in err
    code, out, err = call(land, "gan", *own)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "fit.samples: 64 are too few for latents of 30 numbers" in err
    assert "at least 465 are needed, or a generator of fewer latents" in err


@pytest.mark.slow
def test_a_density_of_codes_makes_a_metric_that_is_larger_where_they_are_not(plane):
    density = densities.Density("kernel", table=24)
    manifold = setup.load_manifold(setup.Config(generator=str(plane), codes=60, density=density))
    assert [*manifold.metrics] == ["rbf", "network", "density", "euclidean"]
    assert manifold.kinds[-1] == "density"
    own, metric = pullback(manifold.generator.decode), manifold.metrics["density"]
    codes = np.asarray(manifold.train.codes)
    low, _ = densities.corners(codes)

    def factor(z):
        return float(jnp.linalg.det(metric(z)) / jnp.linalg.det(own(z))) ** 0.5

    assert factor(jnp.asarray(low)) == pytest.approx(100, rel=0.2)
    middle = jnp.asarray(codes[np.argmax(jax.vmap(densities.kernel_density(codes))(codes))])
    assert factor(middle) < 3


@pytest.mark.slow
def test_of_draws_a_density_makes_one_as_well_and_clusters_are_found_in_it(tmp_path, call):
    module, flags, methods, _ = DRAWN["clustering"]
    (tmp_path / "own.py").write_text(OWN)
    own = ("--generator.path", f"{tmp_path / 'own.py'}:bowl", "--codes", "24")
    density = shlex.split("--density.kind kernel --density.table 16 --density.base euclidean")
    words = [*own, *shlex.split(flags), *density, "--run", tmp_path / "run"]
    code, _, err = call(module, "gan", *words)
    assert code == 0, err
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["methods"]
    found = [row["method"] for row in rows]
    assert found == [methods[0], "geodesic, density of codes", methods[1]]


@pytest.mark.slow
def test_geodesics_and_the_volume_of_a_density_are_beside_those_of_deviations(
    plane, tmp_path, call
):
    flags = ["digits", "--generator", plane, *FEW, *JUDGED, *PATHS, "--run", tmp_path / "run"]
    flow = shlex.split("--density.kind flow --density.steps 20 --density.table 16")
    code, _, err = call(geodesics, *flags, *flow)
    assert code == 0, err
    metrics = numbers(tmp_path / "run")
    rows = {row["path"]: row for row in metrics["paths"]}
    names = ["RBF geodesic", "ordinary geodesic", "density geodesic", "straight line"]
    assert [*rows] == names
    column = [row["length_density"] for row in rows.values()]
    assert column[2] <= min(column) * 1.01
    assert [row["deviation"] for row in metrics["volume"]][-1] == "density of codes"


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (geodesics, "gan --density.kind kernel", "--density.kind kernel: here that is for codes"),
        (clustering, "gan --density.far 1", "density.far must be more than 1, got 1.0"),
        (random_walk, "gan --density.rare 1", "density.rare must lie in (0, 1), got 1.0"),
        (land, "gan --density.table 4", "density.table must be 0 or at least 8, got 4"),
    ],
)
def test_a_density_that_cannot_be_is_refused(module, words, message, tmp_path, call):
    (tmp_path / "own.py").write_text(OWN)
    own = ("--generator.path", f"{tmp_path / 'own.py'}:bowl", "--run", tmp_path / "run")
    code, out, err = call(module, *shlex.split(words), *own)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", MODULES)
def test_there_are_presets_with_the_metric_of_a_density(module):
    for name in setup.BESIDE:
        config, plain = (module.PRESETS[n][1] for n in (f"{name}-density", name))
        assert config.density.kind == "kernel"
        assert config.generator == plain.generator
        assert config.run == f"{plain.run}-density"


def test_names_of_kinds_are_names_of_metrics():
    assert {*noise_std.KINDS["both"]} == {*geodesics.TITLES}
    assert {*geodesics.NAMES} <= {*setup.METHODS, *setup.OTHERS}
    assert {*setup.METHODS} <= {*geodesics.NAMES}


def of_deviations(titles):
    """Those of a generator whose noise has both, and no other metric."""
    return [title for name, title in titles.items() if name.partition("_")[0] not in setup.OTHERS]


OTHERS = {
    "clustering": (
        clustering,
        "--clustering.points 20 --clustering.clusters 2 --clustering.restarts 1 "
        "--clustering.segments 3 --clustering.table 8 --clustering.iterations 2",
        of_deviations(clustering.TITLES),
        ["labels", "clusters_rbf", "clusters_network", "clusters_euclidean"],
    ),
    "land": (
        land,
        "--fit.components 1 --fit.points 12 --fit.test-points 5 --fit.samples 16 "
        "--fit.final-samples 16 --fit.segments 3 --fit.table 8 --fit.iterations 1",
        of_deviations(land.TITLES),
        ["densities"],
    ),
    "random_walk": (
        random_walk,
        "--walks.walks 3 --walks.steps 4 --walks.substeps 1 --walks.drawn 1 "
        "--classifier.steps 2 --classifier.batch-size 16",
        of_deviations(random_walk.TITLES),
        ["walks", "samples"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_others_run_on_the_same_generator_and_compute_nothing_twice(
    name, whole, tmp_path, call
):
    module, flags, methods, pictures = OTHERS[name]
    arguments = ("digits", "--generator", whole, *FEW, *shlex.split(flags), "--run", tmp_path / "a")
    code, out, err = call(module, *arguments)
    assert code == 0, err
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert [next(iter(row.values())) for row in metrics["methods"]] == methods
    for picture in pictures:
        assert (tmp_path / "a" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    # What took long the first time was announced then, and takes no time now.
    made = {file: file.stat().st_mtime_ns for file in results(tmp_path / "a")}
    code, again, _ = call(module, *arguments)
    assert code == 0
    assert out.endswith(again)
    assert made == {file: file.stat().st_mtime_ns for file in results(tmp_path / "a")}


@pytest.mark.parametrize(
    ("module", "flag", "message"),
    [
        (clustering, "--clustering.points=1", "clustering.points must be at least 2, got 1"),
        (clustering, "--clustering.iterations=0", "clustering.iterations must be at least 1"),
        (land, "--fit.points=7", "fit.points must be at least 8, got 7"),
        (land, "--fit.samples=15", "fit.samples must be at least 16, got 15"),
        (random_walk, "--seed=-1", "seed must not be negative, got -1"),
        (clustering, "--clustering.clusters=301", "clustering.clusters (301) is more than the 300"),
        (land, "--fit.components=301", "fit.components: 301 are more than the 300 codes"),
        (random_walk, "--classifier.batch-size=1440", "is more than the 1437 examples of digits"),
    ],
)
def test_the_others_refuse_what_cannot_be_done_too(module, flag, message, plane, tmp_path, call):
    flags = ("digits", "--generator", plane, flag)
    code, out, err = call(module, *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()

"""The second stage of a generator: its loss in closed form, and its place in a run."""

import json
import shlex
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generators import noise_std, train_vae
from experiments.generators.noise_std import Deviation
from experiments.runtime import cli
from experiments.runtime.run_dir import read_config
from experiments.runtime.training import restore
from latent_flows.generators import load_generator
from latent_flows.generators.vae import VAEConfig
from latent_flows.objectives import noisy_negative_log_likelihood

FLAGS = shlex.split(
    "digits-plane --vae.width 2 --vae.depth 1 --training.steps 3 --training.warmup 0 "
    "--training.batch-size 16 --test-images 20 --iwae-samples 2 --variance both "
    "--deviation.centres 5 --deviation.codes 60 --deviation.width 4 --deviation.training.steps 4 "
    "--deviation.training.warmup 0 --deviation.training.batch-size 16 "
    "--deviation.training.log-every 1 --deviation.training.checkpoint-every 2 --labels 0 1"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    path = tmp_path_factory.mktemp("deviation") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(train_vae.run, train_vae.PRESETS, [*FLAGS, "--run", str(path)]) == 0
    return path


class Mirror:
    """A VAE that decodes every latent to 1, and encodes every image to (2, 0)."""

    image_shape = (1, 1, 2)
    config = VAEConfig(latent_dim=2)
    encode, decode = "encode", "decode"

    def apply(self, params, point, *, method):
        del params
        if method == self.encode:
            return jnp.array([2.0, 0.0]), jnp.zeros(2)
        return jnp.ones(self.image_shape)


def mirror():
    """Its encoder and its decoder."""
    apply = partial(Mirror().apply, None)
    return partial(apply, method=Mirror.encode), partial(apply, method=Mirror.decode)


def test_the_loss_is_the_likelihood_of_a_gaussian(key):
    image = jnp.array([[[0.5, 1.0]]])
    std = lambda z: jnp.array([[[z[0], 0.5]]])  # noqa: E731
    evaluate = jax.jit(partial(noisy_negative_log_likelihood, *mirror(), std, 0.1))
    value, sigma = evaluate(key, image)
    np.testing.assert_allclose(sigma, [[[2.0, 0.5]]])
    squared, sigma = np.array([0.25 + 0.01, 0.01]), np.array([2.0, 0.5])
    expected = np.mean(squared / (2 * sigma**2) + np.log(sigma) + np.log(2 * np.pi) / 2)
    assert value == pytest.approx(expected, rel=1e-6)


def test_it_is_least_where_the_deviation_is_that_of_the_errors(key):
    images = 1.0 + 0.3 * jax.random.normal(key, (4000, 1, 1, 2))

    def mean(sigma):
        std = lambda z: jnp.full((1, 1, 2), sigma)  # noqa: E731
        evaluate = partial(noisy_negative_log_likelihood, *mirror(), std, 1e-3)
        return jax.vmap(evaluate, in_axes=(None, 0))(key, images)[0].mean()

    slope = jax.jit(jax.grad(mean))
    assert abs(slope(0.3)) < 0.2
    assert slope(0.25) < -0.2
    assert slope(0.35) > 0.2


def test_only_the_weights_of_the_kernels_learn(key):
    config = Deviation(centres=3)
    codes = np.random.default_rng(0).standard_normal((30, 2))
    params = noise_std.initial("rbf", config, Mirror(), codes, 0, key)
    batch = {"image": jnp.full((4, 1, 1, 2), 0.5)}
    loss = partial(noise_std.loss, "rbf", config, Mirror(), None)
    gradient, terms = jax.grad(loss, has_aux=True)(params, key, jnp.array(0), batch)
    assert jnp.abs(gradient.log_weights).max() > 0
    assert not any(leaf.any() for leaf in (gradient.centres, gradient.bandwidths, gradient.zeta))
    assert terms["deviation"] > 0


@pytest.mark.slow
def test_a_run_fits_and_measures_both(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for phase in ("rbf", "network"):
        assert [row["step"] for row in rows if row["phase"] == phase] == [0, 1, 2, 3]
        assert (whole / f"losses_{phase}.png").exists()
    metrics = json.loads((whole / "metrics.json").read_text())
    assert {"log_likelihood_rbf", "log_likelihood_network"} < set(metrics)
    assert all(np.isfinite(list(metrics.values())))


def test_the_fitted_deviations_belong_to_the_generator_of_the_folder(whole):
    config = read_config(whole, train_vae.Config)
    dataset = train_vae.load(config, "train")
    vae = train_vae.model(config, dataset)
    params = restore(whole, train_vae.PHASE, partial(train_vae.initial, vae))
    codes = train_vae.kernel_codes(config, dataset, vae, params)
    assert codes.shape == (60, 2)
    init = partial(noise_std.initial, "rbf", config.deviation, vae, codes, config.seed)
    fitted, fresh = restore(whole, "rbf", init), init(jax.random.key(0))
    np.testing.assert_array_equal(fitted.centres, fresh.centres)
    np.testing.assert_array_equal(fitted.bandwidths, fresh.bandwidths)
    assert jnp.abs(fitted.log_weights - fresh.log_weights).max() > 0
    generator = load_generator(str(whole))
    assert generator.labels == (0, 1)
    assert {*generator.noise_std} == {"rbf", "network"}
    std = noise_std.close("rbf", config.deviation, vae, fitted)
    np.testing.assert_allclose(generator.noise_std["rbf"](codes[0]), std(codes[0]), rtol=1e-5)
    far = generator.noise_std["rbf"](jnp.full(2, 1e3))
    assert far == pytest.approx(np.full((8, 8, 1), 100.0), rel=1e-3)


@pytest.mark.slow
def test_a_run_that_was_stopped_in_the_second_stage_goes_on(whole, tmp_path, call):
    path = tmp_path / "run"
    few = [*FLAGS, "--run", path]
    # As if it had been killed after the first checkpoint of the RBF network.
    shutil.copytree(whole, path)
    shutil.rmtree(path / "checkpoints" / "rbf" / "4")
    shutil.rmtree(path / "checkpoints" / "network")
    (path / "metrics.json").unlink()
    assert call(train_vae, *few)[0] == 0
    for name in ("metrics.json", "config.json"):
        assert (path / name).read_bytes() == (whole / name).read_bytes()
    one, other = (jax.tree.leaves(load_generator(str(run))) for run in (path, whole))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--deviation.zeta", "0"], "deviation.zeta must be positive, got 0"),
        (["--deviation.noise", "-1"], "deviation.noise must be positive"),
        (["--deviation.centres", "0"], "deviation.centres must be at least 1, got 0"),
        (["--deviation.training.batch-size", "9999"], "a batch of 9999 is more than the 288"),
        (["--variance", "rdf"], "did you mean 'rbf'?"),
        (["--labels", "0", "12"], "labels must be among those of digits, which lacks [12]"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, call):
    code, out, err = call(train_vae, *FLAGS, *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err


def test_more_centres_than_codes_say_so(tmp_path, call):
    code, _, err = call(train_vae, *FLAGS, "--deviation.centres", "60", "--run", tmp_path / "run")
    assert code == 2
    assert "centres must be at least 1 and fewer than the 60 different codes, got 60" in err

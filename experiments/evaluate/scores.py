"""Every score that `experiments.evaluate` knows: what it needs, and how it is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.evaluate.confidence import confidence
from experiments.evaluate.readers import Evaluated, HeldOut, is_normal
from experiments.potential_flows.flow_space import is_image
from experiments.runtime.cli import UsageError
from latent_flows import evaluation
from latent_flows._transforms import in_chunks
from latent_flows._validation import at_least
from latent_flows.inversion import Features

AT_ONCE = 1000
"""Images that are made and encoded at once."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured. More samples than the data have are refused."""

    images: int = 0
    """Held-out images of the bounds; 0: 1000, or all there are."""
    iwae_samples: int = 64
    """Samples of the importance-weighted bound."""
    codes: int = 0
    """Held-out images whose codes the scores with factors look at, one third of them to be judged
    on; 0: 15,000 as in disentanglement_lib, or all there are."""
    tree_codes: int = 3000
    """As many of these, at most, for DCI, whose trees take minutes for 15,000."""
    trees: int = 100
    """Rounds of DCI's gradient boosting."""
    points: int = 15_000
    """Points (votes) of the beta-VAE and FactorVAE scores, one third of them to be judged on."""
    batch: int = 64
    """Pairs (examples) of each of these points."""
    classifier_steps: int = 1000
    """Steps of the classifier of labelled images, which says of which draws it is sure."""
    paths: int = 1000
    """Pairs of draws of the perceptual path length."""

    def __post_init__(self) -> None:
        at_least(self, "sizes.", images=0, iwae_samples=1, codes=0, tree_codes=3, trees=1)
        at_least(self, "sizes.", points=3, batch=2, classifier_steps=1)
        at_least(self, "sizes.", paths=2)


class Labelled(NamedTuple):
    """Codes of held-out images, and the true factors of these."""

    codes: Float[np.ndarray, "n d"]
    factors: Float[np.ndarray, "n f"]


@dataclass(frozen=True)
class Material:
    """What scores are computed from; codes are made once, when they are first asked for.

    Raises:
        UsageError: more held-out images are asked for than there are.
    """

    found: Evaluated
    sizes: Sizes
    seed: int
    features: Features | None = None
    """What the perceptual path length sees of samples."""

    def __post_init__(self) -> None:
        if (held_out := self.found.held_out) is None:
            return
        for flag in ("images", "codes"):
            if (asked := getattr(self.sizes, flag)) > held_out.length:
                raise UsageError(
                    f"--sizes.{flag} {asked} is more than the {held_out.length} held-out images "
                    f"of {held_out.name}"
                )

    @property
    def held_out(self) -> HeldOut:
        assert self.found.held_out is not None
        return self.found.held_out

    def rows(self, asked: int, default: int) -> np.ndarray:
        """Random held-out examples; as many as by default, or there are, if none are asked for."""
        there = self.held_out.length
        return np.random.default_rng(self.seed).permutation(there)[: asked or default]

    @cached_property
    def labelled(self) -> Labelled:
        """Means of the posterior, and factors."""
        rows = self.rows(self.sizes.codes, 15_000)
        assert self.found.encode is not None
        assert self.held_out.factors is not None
        encode = in_chunks(self.found.encode)
        parts = np.array_split(rows, -(-len(rows) // AT_ONCE))
        codes = [np.asarray(encode(self.held_out.images(part))[0]) for part in parts]
        truth = [self.held_out.factors(part) for part in parts]
        return Labelled(np.concatenate(codes), np.concatenate(truth))

    def bounds(self, bound: Callable[..., Array]) -> dict[str, float | None]:
        """Mean of a bound over held-out images, with its standard error."""
        images = self.held_out.images(self.rows(self.sizes.images, 1000))
        keys = jax.random.split(jax.random.key(self.seed), len(images))
        values = np.asarray(in_chunks(bound)(keys, images), np.float64)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
        return {"mean": float(values.mean()), "standard_error": error, "images": len(values)}


class Score(NamedTuple):
    """One score."""

    about: str
    """What it is, in a few words."""
    needs: tuple[str, ...]
    """Of the keys of `NEEDS`."""
    compute: Callable[[Material], Any]
    """A number, or a dict of numbers and lists."""


def lacks(found: Evaluated, score: Score) -> str | None:
    """Why a score does not apply to a run, or None where it does."""
    missing = (NEEDS[need].otherwise for need in score.needs if not NEEDS[need].is_there(found))
    reason = next(missing, None)
    return reason and reason.format(run=found)


def _has_factors(found: Evaluated) -> bool:
    return found.held_out is None or found.held_out.factors is not None


class Need(NamedTuple):
    """What a score may need."""

    is_there: Callable[[Evaluated], bool]
    otherwise: str
    """Why a score does not apply; `{run}` stands for what is evaluated."""


NEEDS: dict[str, Need] = {
    "encoder": Need(
        lambda run: run.encode is not None, "the generator has no encoder, so data have no codes"
    ),
    "likelihood": Need(
        lambda run: run.log_likelihood is not None,
        "the generator says nothing of the noise of its data",
    ),
    "factors": Need(
        _has_factors,
        "{run.held_out.name} has no ground-truth factors of variation (labels of classes are none)",
    ),
    "labels": Need(
        lambda run: run.held_out is not None and run.held_out.labels is not None,
        "the data are no images with labels of classes",
    ),
    "generator": Need(
        lambda run: run.generator is not None, "a run of {run.experiment} is about no generator"
    ),
    "flows": Need(lambda run: run.paths is not None, "a run of {run.experiment} has no traversals"),
    "images": Need(
        lambda run: run.generator is None or is_image(run.generator),
        "attributes are measured on images, and this generator makes none",
    ),
    "comparison": Need(
        lambda run: run.paths is None or bool(run.metrics),
        "the run has no metrics.json; run it to its end first, with --scores",
    ),
    "measured factors": Need(
        lambda run: _own(run.metrics, "long", "share") is not None,
        "factors are measured only on images of data that are drawn from theirs",
    ),
    "sequences": Need(
        lambda run: "equivariance" in run.metrics,
        "no sequences with known factors belong to this run",
    ),
    "realism": Need(
        lambda run: "frechet" in run.metrics,
        "the run has not compared samples with data by a classifier",
    ),
}
"""What scores may need."""


# --- bounds ---


def _elbo(material: Material) -> dict[str, float | None]:
    encode, likelihood = material.found.encode, material.found.log_likelihood
    assert encode is not None
    assert likelihood is not None
    prior = material.found.log_prior
    return material.bounds(
        lambda key, x: evaluation.elbo(key, encode, likelihood, x, log_prior=prior)
    )


def _iwae(material: Material) -> dict[str, float | None]:
    encode, likelihood = material.found.encode, material.found.log_likelihood
    samples = material.sizes.iwae_samples
    assert encode is not None
    assert likelihood is not None
    prior = material.found.log_prior
    return material.bounds(
        lambda key, x: evaluation.iwae_bound(
            key, encode, likelihood, x, samples=samples, log_prior=prior
        )
    )


# --- draws ---


def _confident(material: Material) -> dict[str, float]:
    assert material.found.generator is not None
    return confidence(
        material.found.generator,
        material.held_out,
        material.rows(material.sizes.images, 1000),
        is_normal=material.found.log_prior is None,
        steps=material.sizes.classifier_steps,
        seed=material.seed,
    )


# --- codes and factors ---


def _mig(material: Material) -> float:
    # As published, of the part that the other scores learn from.
    codes, factors = material.labelled
    count = max(2 * len(codes) // 3, 1)
    return evaluation.mig(codes[:count], factors[:count])


def _dci(material: Material) -> dict[str, Any]:
    from sklearn.ensemble import GradientBoostingClassifier

    count = material.sizes.tree_codes
    codes, factors = (values[:count] for values in material.labelled)
    trees = GradientBoostingClassifier(
        n_estimators=material.sizes.trees, random_state=material.seed
    )
    found = evaluation.dci(codes, factors, model=trees, seed=material.seed)
    return {**found._asdict(), "importance": found.importance.tolist(), "codes": len(codes)}


def _sap(material: Material) -> float:
    return evaluation.sap(*material.labelled, seed=material.seed)


def _modularity(material: Material) -> dict[str, float]:
    return evaluation.modularity(*material.labelled, seed=material.seed)._asdict()


def _beta_vae(material: Material) -> dict[str, float]:
    return _shared(material, evaluation.beta_vae_score)


def _factor_vae(material: Material) -> dict[str, float]:
    return _shared(material, evaluation.factor_vae_score)


def _shared(material: Material, score: Callable[..., Any]) -> dict[str, float]:
    sampler = evaluation.sampler_of_examples(*material.labelled)
    test = material.sizes.points // 3
    return score(
        jax.random.key(material.seed),
        sampler,
        batch_size=material.sizes.batch,
        train=material.sizes.points - test,
        test=test,
    )._asdict()


# --- flows ---


def _own(metrics: Any, displacement: str, column: str) -> dict[str, Any] | None:
    """The row of a run's own flows, the first of each displacement, if it has such a column."""
    rows = [row for row in metrics.get("comparison", ()) if row["displacement"] == displacement]
    return rows[0] if rows and column in rows[0] else None


def _vp(material: Material) -> dict[str, float]:
    found: dict[str, float] = {}
    for displacement in ("long", "short"):
        row = _own(material.found.metrics, displacement, "length") or {}
        found |= {
            f"{name} {displacement}": value for name, value in row.items() if name.startswith("vp@")
        }
    return found


def _share(material: Material) -> dict[str, Any]:
    row = _own(material.found.metrics, "long", "share") or {}
    kept = ("share", "sign", "valid", "winners", "shares", "signs")
    return {name: row[name] for name in kept if name in row}


def _path_length(material: Material) -> dict[str, Any]:
    lengths = material.found.metrics["potentials"]["length"]
    return {"mean": float(np.mean(lengths)), "each": lengths}


def _correlation(material: Material) -> dict[str, Any]:
    assert material.found.paths is not None
    paths = material.found.paths()
    result: dict[str, Any] = {"attributes": list(paths.names)}
    for method in ("pearson", "spearman"):
        found = evaluation.correlation(paths.ts, paths.attributes, method=method, valid=paths.valid)
        result[method] = {
            "signed": jnp.asarray(found.signed).tolist(),
            "absolute": jnp.asarray(found.absolute).tolist(),
        }
        result["counted"] = jnp.asarray(found.counted).tolist()
    return result


def _equivariance(material: Material) -> dict[str, float]:
    return {
        name.removeprefix("equivariance_"): value
        for name, value in material.found.metrics.items()
        if name.startswith("equivariance") and value is not None
    }


def _perceptual_path_length(material: Material) -> dict[str, float]:
    generator = material.found.generator
    assert generator is not None
    found = evaluation.perceptual_path_length(
        jax.random.key(material.seed),
        generator.decode,
        generator.prior,
        features=material.features,
        count=material.sizes.paths,
        along="great circle" if is_normal(generator) else "line",
    )
    return {name: float(value) for name, value in found._asdict().items()}


def _realism(material: Material) -> dict[str, float]:
    metrics = material.found.metrics
    return {name: metrics[name] for name in ("frechet", "frechet_of_training_images")}


_CODES = ("encoder", "factors")
_OWN = ("flows", "comparison")

SCORES: dict[str, Score] = {
    "elbo": Score("evidence lower bound, nats an image", ("encoder", "likelihood"), _elbo),
    "iwae": Score("importance-weighted bound, nats an image", ("encoder", "likelihood"), _iwae),
    "confident": Score("share of draws a classifier is sure of", ("encoder", "labels"), _confident),
    "mig": Score("mutual information gap", _CODES, _mig),
    "dci": Score("disentanglement, completeness, informativeness", _CODES, _dci),
    "sap": Score("separated attribute predictability", _CODES, _sap),
    "modularity": Score("modularity, and explicitness (area under ROC)", _CODES, _modularity),
    "beta_vae": Score("accuracy of naming the factor that pairs share", _CODES, _beta_vae),
    "factor_vae": Score("the same, by the code that varies least", _CODES, _factor_vae),
    "vp": Score("variation predictability at equal length", _OWN, _vp),
    "share": Score("share of the largest change", (*_OWN, "measured factors"), _share),
    "path_length": Score("length of traversals in data space, pixels", _OWN, _path_length),
    "correlation": Score("of measured attributes with time", ("flows", "images"), _correlation),
    "equivariance": Score("error of moved codes, pixels a frame", ("sequences",), _equivariance),
    "ppl": Score(
        "perceptual path length: squared speed of what is seen between draws",
        ("generator",),
        _perceptual_path_length,
    ),
    "frechet": Score("distance of samples from held-out data", ("realism",), _realism),
}
"""Every score by its name."""

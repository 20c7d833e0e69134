"""Evaluate a finished run by all scores that apply: bounds, disentanglement, traversals.

RUN is the folder of a finished run that holds a generator or was about one, or of flow_vae. Scores
are printed and written into it as evaluation.json, which is all that changes there; those that a
run has measured itself are taken from its metrics.json. Scores that were computed with the same
settings before are kept, so that an interrupted evaluation goes on.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments.evaluate.readers import METRICS, Evaluated, read
from experiments.evaluate.scores import SCORES, Material, Sizes, lacks
from experiments.generators.features import read_features
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder, jsonable, read_header, understood
from latent_flows._validation import choose
from latent_flows.inversion import Features

RESULT = "evaluation.json"
OWN = {"comparison", "sequences", "realism"}
"""What scores need that are taken from the run's own metrics."""


@dataclass(frozen=True)
class Config:
    """Evaluate a finished run."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder."""
    scores: tuple[str, ...] = ()
    """Scores to compute, such as mig dci; none: all that apply."""
    seed: int = 0
    """Source of all randomness: which images, splits, draws."""
    features: str = ""
    """Network through which ppl sees samples: package.module:function or file.py:function, from a
    sample to an array; none: the numbers of the sample."""
    sizes: Sizes = field(default_factory=Sizes)
    """How much is measured."""

    def __post_init__(self) -> None:
        for name in self.scores:
            choose("score", name, SCORES)
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    def is_kept(self) -> bool:
        """Whether scores were computed that need not be computed again."""
        return (Path(self.run).expanduser() / RESULT).exists()


def wanted(config: Config, found: Evaluated) -> tuple[list[str], dict[str, str]]:
    """The scores to compute, and why those that do not apply do not.

    Raises:
        UsageError: one that was asked for does not apply.
    """
    with understood(Path(found.run).expanduser() / METRICS):
        found_lacking = ((name, lacks(found, score)) for name, score in SCORES.items())
        reasons = {name: reason for name, reason in found_lacking if reason}
    for name in config.scores:
        if name in reasons:
            raise UsageError(f"{name} cannot be computed for {config.run}: {reasons[name]}")
    return [name for name in config.scores or SCORES if name not in reasons], reasons


def seen_through(config: Config, found: Evaluated, names: list[str]) -> Features | None:
    """The network through which samples are seen, if there is one.

    Raises:
        UsageError: no score looks through it, or it does not take a sample.
        ValueError: there is none of that name.
    """
    if not config.features:
        return None
    if found.generator is None or "ppl" not in names:
        raise UsageError(f"--features is what ppl sees, which is not among the scores: {names}")
    sample = found.generator(found.generator.prior(jax.random.key(config.seed)))
    return read_features(config.features, "--features", sample)


def begin(folder: Folder, config: Config, found: Evaluated) -> dict[str, Any]:
    """What an earlier evaluation with the same settings has left, or an empty one."""
    fresh: dict[str, Any] = {
        "experiment": found.experiment,
        "version": read_header(folder.path).get("version"),
        "settings": jsonable(
            {"seed": config.seed, "features": config.features, "sizes": config.sizes}
        ),
        "scores": {},
    }
    kept = folder.read_object(RESULT) if (folder.path / RESULT).exists() else {}
    same = all(kept.get(name) == fresh[name] for name in ("experiment", "version", "settings"))
    with folder.understood(RESULT):
        return fresh | {"scores": {**kept["scores"]}} if same else fresh


def evaluate(
    folder: Folder,
    config: Config,
    material: Material,
    names: list[str],
    reasons: dict[str, str],
) -> dict[str, Any]:
    """Compute the scores that are not there yet; each is written as it is done."""
    result = begin(folder, config, material.found) | {"not_applicable": reasons}
    for name in names:
        if name not in result["scores"]:
            print(f"{name}: {SCORES[name].about}", flush=True)
            result["scores"][name] = jsonable(compute(name, material))
            result["scores"] = _ordered(result["scores"])
            folder.write_json(RESULT, result)
    folder.write_json(RESULT, result)
    return result


def compute(name: str, material: Material) -> Any:
    """A score; those that a run has measured itself are only as good as its metrics.json."""
    if not OWN & {*SCORES[name].needs}:
        return SCORES[name].compute(material)
    with understood(Path(material.found.run).expanduser() / METRICS):
        return SCORES[name].compute(material)


def _ordered(scores: dict[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in SCORES if name in scores}


def show(run: str, scores: dict[str, Any]) -> None:
    """Print scores as a table, and correlations as others."""
    rows = []
    for name, value in scores.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        rows += [
            {"score": name, "part": part, "value": number, "about": SCORES[name].about}
            for part, number in parts
            if not _is_table(number)
        ]
    tables.show(f"Scores of {run}", rows)
    if "correlation" in scores:
        for method in ("pearson", "spearman"):
            tables.show(
                f"Correlation with time, {method} (mean of absolute values in brackets)",
                _correlations(scores["correlation"], method),
            )


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], list)
    )


def _correlations(found: dict[str, Any], method: str) -> list[dict[str, Any]]:
    both = zip(found[method]["signed"], found[method]["absolute"], strict=True)
    return [
        {
            "traversal": str(k),
            **{
                name: f"{one:.2f} ({other:.2f})"
                for name, one, other in zip(found["attributes"], signed, absolute, strict=True)
            },
        }
        for k, (signed, absolute) in enumerate(both)
    ]


def run(config: Config) -> None:
    """Read, compute, write, print."""
    with announced(f"reading {config.run}"):
        found = read(config.run)
    names, reasons = wanted(config, found)
    folder = Folder(Path(config.run).expanduser().absolute())
    material = Material(found, config.sizes, config.seed, seen_through(config, found, names))
    result = evaluate(folder, config, material, names, reasons)
    with folder.understood(RESULT):
        show(config.run, {name: result["scores"][name] for name in names})
    if reasons and not config.scores:
        rows = [{"score": name, "why it does not apply": why} for name, why in reasons.items()]
        tables.show("Not computed", rows)
    print(f"results: {folder.path / RESULT}")

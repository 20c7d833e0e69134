"""Measure how well guided flows do what they are asked, and what else they change."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.potential_flows.families import EQUATIONS, coefficient
from experiments.runtime import tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params
from experiments.supervised_flows.config import Config, network, progress
from experiments.supervised_flows.framed_vae import FramedVAE, measured, true_attributes
from experiments.supervised_flows.known import Known, check_finite
from experiments.supervised_flows.sequences import Taught, held_out
from latent_flows import flows, pde
from latent_flows.evaluation.control import sequence_control
from latent_flows.traversals import climbing

METRICS = "metrics.json"
FLOW, DIRECTION, CODES = "flow", "constant direction", "codes of the truth"


class Outcome(NamedTuple):
    """What became of held-out starting points, in units of each attribute's range."""

    asked: Float[Array, "n k t"]
    """Change of the factor's own attribute in the true sequence."""
    changes: Float[Array, "n k t f"]
    """Change of every attribute of the generated samples; unwanted change of what is not own."""
    valid: Bool[Array, "n k t"]


def flow_paths(config: Config, params: Params, asked: Taught) -> Float[Array, "n k t m"]:
    """Where the flows go from the starting points, at the times of the frames."""
    field = climbing(network(config))
    ts = jnp.arange(float(asked.codes.shape[2]))

    def path(params: Params, z: Array, sign: Array) -> Array:
        return flows.integrate(lambda t, z: sign * field(params, t, z), z, ts).zs

    each = jax.vmap(jax.vmap(path), in_axes=(None, 0, 0))
    return jax.jit(each)(params["potentials"], asked.codes[:, :, 0], asked.sign)


def straight_paths(
    config: Config, directions: Float[Array, "k m"], asked: Taught
) -> Float[Array, "n k t m"]:
    """Where constant directions go."""
    passed = progress(config, jnp.arange(float(asked.codes.shape[2])))
    moved = asked.sign[..., None, None] * passed[:, None] * directions[:, None]
    return asked.codes[:, :, :1] + moved


def outcome(
    config: Config, framed: FramedVAE, asked: Taught, paths: Array, ranges: Float[Array, "f"]
) -> Outcome:
    """Measure the samples along paths against the sequences asked for.

    Raises:
        Failure: an attribute of one is no number.
    """
    known, names = framed.known, config.sequences.factors
    found, valid = measured(framed, paths)
    check_finite(known, found, "what is measured,")
    true = known.changes(true_attributes(framed, asked.factors)) / ranges
    own = known.own(names)
    wanted = jnp.stack([true[:, k, :, i] for k, i in enumerate(own)], axis=1)
    return Outcome(wanted, known.beside(names, known.changes(found) / ranges, true), valid)


def scores(config: Config, known: Known, found: Outcome) -> list[dict[str, Any]]:
    """One row a factor; without a leakage where nothing else is measured that could change."""
    rows = []
    names = config.sequences.factors
    for k, (name, own) in enumerate(zip(known.labels(names), known.own(names), strict=True)):
        asked, changes, valid = (np.asarray(part[:, k]) for part in found)
        judged = sequence_control(asked, changes, valid, own, config.sequences.horizon)
        rows.append({"factor": name, **judged})
    return rows


def potentials_alone(
    config: Config, known: Known, params: Params, paths: Float[Array, "n k t m"]
) -> list[dict[str, Any]]:
    """The clock and the equation of each potential along its own paths up to the horizon."""
    net, horizon = network(config), config.sequences.horizon
    equation = EQUATIONS[config.flows.pde]
    apply: Any = net.apply  # flax types its result as a pair as well
    ts = jnp.arange(1.0, horizon + 1)
    rows = []
    for k, name in enumerate(known.labels(config.sequences.factors)):
        own = jax.tree.map(lambda leaf, k=k: leaf[k], params["potentials"])
        row: dict[str, Any] = {"factor": name}
        points = paths[:, k, 1 : horizon + 1]
        if equation is not None:
            c = coefficient(params["coefficients"][k])
            residual = pde.relative_residual(
                equation(partial(apply, own), c),
                jnp.tile(ts, len(points)),
                points.reshape(-1, points.shape[-1]),
            )
            row |= {"residual": float(residual), "coefficient": float(c)}
        speeds = jax.vmap(jax.vmap(partial(climbing(net), own)), in_axes=(None, 0))(ts, points)
        lengths = jnp.linalg.norm(speeds, axis=-1).mean(0)
        row["speed_ratio"] = float(lengths[-1] / lengths[0])
        if config.flows.initial == "standing":
            found = zip(("frequency", "phase"), net.clock(own), strict=True)
            row |= {part: float(value) for part, value in found}
        rows.append(row)
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The worst of the factors, and the flow's leakage beside that of the constant direction."""
    flow, line = ([row for row in rows if row["method"] == name] for name in (FLOW, DIRECTION))
    leaks, of_line = ([row["leakage"] for row in of if "leakage" in row] for of in (flow, line))
    found = {"worst_r2": min(row["r2"] for row in flow)}
    if leaks:
        found |= {
            "worst_leakage": max(leaks),
            "mean_leakage": float(np.mean(leaks)),
            "relative_leakage": sum(leaks) / max(sum(of_line), 1e-12),
        }
    return found | {"worst_far_error": max(row["far_error"] for row in flow)}


class Followed(NamedTuple):
    """Held-out sequences, and where each method goes from their starts."""

    asked: Taught
    paths: Mapping[str, Float[Array, "n k t m"]]


def follow(
    config: Config, framed: FramedVAE, params: Params, directions: Float[Array, "k m"]
) -> Followed:
    """Follow flows and constant directions; beside them, the codes of the truth."""
    with announced("making and encoding held-out sequences"):
        asked = held_out(config, framed)
    with announced("following the flows"):
        paths = {
            FLOW: flow_paths(config, params, asked),
            DIRECTION: straight_paths(config, directions, asked),
            CODES: asked.codes,
        }
    return Followed(asked, paths)


def measure(
    folder: Folder,
    config: Config,
    framed: FramedVAE,
    params: Params,
    followed: Followed,
    ranges: Float[Array, "f"],
) -> dict[str, Outcome]:
    """Measure what became of each method, and write the scores."""
    with announced("measuring scores"):
        found = {
            name: outcome(config, framed, followed.asked, points, ranges)
            for name, points in followed.paths.items()
        }
        rows = [
            {"method": name, **row}
            for name, result in found.items()
            for row in scores(config, framed.known, result)
        ]
        metrics = {
            "summary": summary(rows),
            "control": rows,
            "potentials": potentials_alone(config, framed.known, params, followed.paths[FLOW]),
        }
    folder.write_json(METRICS, metrics)
    return found


def tabulated(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The results as rows of tables, by their titles."""
    return {
        "Control of known factors, held out": metrics["control"],
        "Potentials": metrics["potentials"],
        "Guided flows": [metrics["summary"]],
    }


def show(metrics: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    for title, rows in tabulated(metrics).items():
        tables.show(title, rows)

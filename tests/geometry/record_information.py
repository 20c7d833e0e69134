"""Metrics and distances of geomstats, as `known_information.json` has them.

    pip install geomstats "numpy<2.4"
    python tests/geometry/record_information.py

Parameters are those of geomstats: of a normal distribution mean and deviation, of a gamma
distribution shape and rate turned into its shape and mean, and so on.
"""

import json
from pathlib import Path

import numpy as np
from geomstats.information_geometry.beta import BetaDistributions
from geomstats.information_geometry.binomial import BinomialDistributions
from geomstats.information_geometry.categorical import CategoricalDistributions
from geomstats.information_geometry.dirichlet import DirichletDistributions
from geomstats.information_geometry.exponential import ExponentialDistributions
from geomstats.information_geometry.gamma import GammaDistributions
from geomstats.information_geometry.normal import NormalDistributions
from geomstats.information_geometry.poisson import PoissonDistributions

SPACES = {
    "bernoulli": (BinomialDistributions(n_draws=1), [[[0.2], [0.7]], [[0.01], [0.5]]]),
    "categorical": (
        CategoricalDistributions(dim=2),
        [[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], [[0.1, 0.1, 0.8], [0.4, 0.5, 0.1]]],
    ),
    "poisson": (PoissonDistributions(), [[[2.0], [9.0]], [[0.1], [30.0]]]),
    "exponential": (ExponentialDistributions(), [[[2.0], [9.0]], [[0.1], [3.0]]]),
    "gaussian": (NormalDistributions(1), [[[0.0, 1.0], [1.5, 2.0]], [[-1.0, 0.5], [1.0, 0.7]]]),
    "beta": (BetaDistributions(), [[[1.5, 2.0], [3.0, 4.0]], [[2.0, 5.0], [4.0, 2.0]]]),
    "dirichlet": (
        DirichletDistributions(dim=3),
        [[[1.5, 2.0, 3.0], [3.0, 2.0, 4.0]], [[2.0, 1.0, 5.0], [4.0, 3.0, 2.0]]],
    ),
    "gamma": (GammaDistributions(), [[[2.0, 3.0], [4.0, 2.0]], [[1.5, 1.0], [2.5, 4.0]]]),
}


def main():
    found = {}
    for name, (space, pairs) in SPACES.items():
        rows = []
        for first, second in pairs:
            a, b = np.array(first), np.array(second)
            row = {"first": first, "second": second}
            row["metric"] = np.asarray(space.metric.metric_matrix(a)).tolist()
            row["distance"] = float(np.ravel(space.metric.dist(a, b))[0])
            rows.append(row)
        found[name] = rows
    path = Path(__file__).with_name("known_information.json")
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

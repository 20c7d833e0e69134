"""Distances on surfaces without a closed form, by shooting, as `known_distances.json` has them.

    python tests/geometry/record_distances.py

Nothing of the library is used: derivatives are written out, SciPy's DOP853 solves the geodesic
equation, and the shortest of the geodesics that arrive, from several first velocities, is taken.
"""

import itertools
import json
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import root


def torus(z, w):
    """Radii 2 and 1: the Jacobian, and the second derivative along `w` twice."""
    (u, v), (a, b) = z, w
    rho, cu, su, cv, sv = 2 + np.cos(v), np.cos(u), np.sin(u), np.cos(v), np.sin(v)
    jacobian = np.array([[-rho * su, -sv * cu], [rho * cu, -sv * su], [0, cv]])
    bend = [
        -rho * cu * a * a + 2 * sv * su * a * b - cv * cu * b * b,
        -rho * su * a * a - 2 * sv * cu * a * b - cv * su * b * b,
        -sv * b * b,
    ]
    return jacobian, np.array(bend)


def ellipsoid(z, w):
    """Half-axes 3, 2, 1, with polar angle and longitude."""
    (u, v), (a, b) = z, w
    cu, su, cv, sv = np.cos(u), np.sin(u), np.cos(v), np.sin(v)
    jacobian = np.array([[3 * cu * cv, -3 * su * sv], [2 * cu * sv, 2 * su * cv], [-su, 0]])
    bend = [
        3 * (-su * cv * (a * a + b * b) - 2 * cu * sv * a * b),
        2 * (-su * sv * (a * a + b * b) + 2 * cu * cv * a * b),
        -cu * a * a,
    ]
    return jacobian, np.array(bend)


PAIRS = {
    "torus": [([0, 0], [2.5, 0]), ([0, 0], [2.5, 1e-3]), ([0.3, -1], [2, 2]), ([0, 3], [1, 3.5])],
    "ellipsoid": [([0.6, 0.2], [2.2, 1.4]), ([1, 0], [1.9, 2.6]), ([1.5, 0.1], [1.7, 1])],
}
SURFACES = {"torus": torus, "ellipsoid": ellipsoid}


def arrival(surface, z0, v):
    """Where a geodesic is after one unit of time."""

    def field(_, y):
        jacobian, bend = surface(y[:2], y[2:])
        return [*y[2:], *-np.linalg.solve(jacobian.T @ jacobian, jacobian.T @ bend)]

    return solve_ivp(field, (0, 1), [*z0, *v], method="DOP853", rtol=1e-11, atol=1e-11).y[:2, -1]


def distance(surface, z0, z1):
    """The length of the shortest geodesic that is found."""
    lengths = []
    for share, turn in itertools.product((1, 0.6), (-3, -2, -1, 0, 1, 2, 3)):
        guess = share * np.subtract(z1, z0) + [0, turn]
        found = root(lambda v: arrival(surface, z0, v) - z1, guess, tol=1e-11)
        if np.abs(found.fun).max() < 1e-8:
            jacobian, _ = surface(z0, found.x)
            lengths.append(float(np.linalg.norm(jacobian @ found.x)))
    return min(lengths)


if __name__ == "__main__":
    rows = [
        {"surface": name, "z0": z0, "z1": z1, "distance": distance(SURFACES[name], z0, z1)}
        for name, pairs in PAIRS.items()
        for z0, z1 in pairs
    ]
    target = Path(__file__).with_name("known_distances.json")
    target.write_text("[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n]\n")
    print(target.read_text())

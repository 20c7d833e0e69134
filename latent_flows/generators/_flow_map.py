"""Following a velocity field from one time to another, in steps that a setting names.

diffrax is imported by what is followed: most who load a generator follow nothing.
"""

from typing import Any

import jax.numpy as jnp

from latent_flows.typing import Latent, VectorField

MOST = 256
"""Steps of a solver that chooses them."""
TOLERANCE = 1e-5
"""Of a solver that chooses its steps, relative and absolute."""


def check_steps(steps: int | None, solver: str) -> None:
    """Rejects what cannot be followed.

    Raises:
        ValueError: no step, an unknown solver, or one that cannot choose its steps and has to.

    >>> check_steps(None, "euler")
    Traceback (most recent call last):
    ...
    ValueError: euler cannot choose its steps: say how many, or take tsit5
    """
    import diffrax

    from latent_flows import flows

    method = flows.solver(solver)
    if steps is None and not isinstance(method, diffrax.AbstractAdaptiveSolver):
        raise ValueError(f"{solver} cannot choose its steps: say how many, or take tsit5")
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, or None to choose them, got {steps}")


def stepping(t0: float, t1: float, steps: int | None, solver: str) -> dict[str, Any]:
    """Settings of `flows.integrate` and `flows.log_density`: so many equal steps, or chosen ones.

    Derivatives go through the steps in both modes: geometry pushes tangents through a generator.
    """
    import diffrax

    from latent_flows import flows

    controller: diffrax.AbstractStepSizeController = (
        diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE)
        if steps is None
        else diffrax.StepTo(ts=jnp.linspace(t0, t1, steps + 1))
    )
    return {
        "solver": flows.solver(solver),
        "stepsize_controller": controller,
        "adjoint": diffrax.DirectAdjoint(),
        "max_steps": MOST if steps is None else steps,
    }


def followed(
    field: VectorField, z: Latent, t0: float, t1: float, steps: int | None, solver: str
) -> Latent:
    """Where a velocity field leads a point from one time to another."""
    from latent_flows import flows

    along = stepping(t0, t1, steps, solver)
    return flows.integrate(field, z, jnp.array([t0, t1]), **along).zs[-1]

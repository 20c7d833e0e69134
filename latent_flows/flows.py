"""Flows: vector fields, what moves along them, and what happens to a density on the way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from latent_flows import calculus
from latent_flows._compiled import keep_compiled, unjitted
from latent_flows._factors import inverse_of, log_volume
from latent_flows._results import Result, first_failure, message_of
from latent_flows._validation import choose
from latent_flows.calculus import Number
from latent_flows.typing import Latent, Metric, Potential, Scalar, VectorField

__all__ = [
    "Origin",
    "Result",
    "Trajectory",
    "carry",
    "check_times",
    "combine",
    "gradient",
    "integrate",
    "log_density",
    "natural_gradient",
    "origin",
    "reverse",
    "solenoidal",
    "solver",
    "stepped_log_density",
]

# --- vector fields ---


def gradient(u: Potential) -> VectorField:
    r"""The field that climbs a potential.

    $$v(t, z) = \nabla_z u(t, z)$$

    Args:
        u: `(t, z) -> scalar`.

    Returns:
        `(t, z) -> vector`.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, eq. (4).

    >>> import jax.numpy as jnp
    >>> print(gradient(lambda t, z: t * z @ z)(0.5, jnp.array([1.0, 2.0])))
    [1. 2.]
    """
    return jax.grad(u, argnums=1)


def natural_gradient(u: Potential, metric: Metric) -> VectorField:
    r"""The direction in which a potential climbs fastest, as a metric measures length.

    $$v(t, z) = M(z)^{-1} \nabla_z u(t, z)$$

    Args:
        u: `(t, z) -> scalar`.
        metric: `z -> M(z)`, symmetric positive definite. Where it is singular the result is not
            finite, which `integrate` reports as not `ok`.

    Returns:
        `(t, z) -> vector`.

    References:
        Amari, *Natural Gradient Works Efficiently in Learning*, 1998, theorem 1.

    >>> import jax.numpy as jnp
    >>> field = natural_gradient(lambda t, z: z @ z, lambda z: 4.0 * jnp.eye(2))
    >>> print(field(0.0, jnp.array([2.0, 4.0])))
    [1. 2.]
    """
    climb = gradient(u)
    return lambda t, z: inverse_of(metric(z))(climb(t, z))


def solenoidal(a: Callable[[Scalar, Latent], Float[Array, "d d"]]) -> VectorField:
    r"""A field without divergence, from any matrix-valued function.

    $$v_i(t, z) = \sum_j \partial_j A_{ij}(t, z), \qquad A = \tfrac12 (a - a^\top)$$

    Its divergence is a symmetric sum over an antisymmetric matrix, hence zero by construction, and
    every field without divergence has this form. The cost is `d` Jacobian-vector products.

    Args:
        a: `(t, z) -> [d, d]`; only its antisymmetric part matters.

    Returns:
        `(t, z) -> vector`.

    Raises:
        ValueError: if `a` returns anything but a square matrix as wide as the latent.

    References:
        Richter-Powell et al., *Neural Conservation Laws*, 2022, section 3.

    >>> import jax.numpy as jnp
    >>> turn = lambda t, z: jnp.array([[0.0, z @ z], [0.0, 0.0]])
    >>> print(solenoidal(turn)(0.0, jnp.array([1.0, 2.0])))
    [ 2. -1.]
    """

    def field(t: Number, z: Latent) -> Latent:
        dim = z.shape[0]

        def column(z: Latent, e: Latent) -> Latent:
            full = a(jnp.asarray(t, z.dtype), z)
            if jnp.shape(full) != (dim, dim):
                raise ValueError(
                    f"a must return shape {(dim, dim)} at a latent of length {dim}, "
                    f"got {jnp.shape(full)}"
                )
            return (full - full.T) @ e / 2

        def push(e: Latent) -> Latent:
            return jax.jvp(lambda y: column(y, e), (z,), (e,))[1]

        return jax.vmap(push)(jnp.eye(dim, dtype=z.dtype)).sum(0)

    return field


def combine(
    fields: Sequence[VectorField], weights: ArrayLike | Sequence[float | int]
) -> VectorField:
    r"""A weighted sum of fields.

    $$v(t, z) = \sum_i w_i\, v_i(t, z)$$

    Args:
        fields: at least one.
        weights: one number a field; may be traced.

    Returns:
        `(t, z) -> vector`.

    Raises:
        ValueError: if there are no fields, or not as many weights as fields.

    >>> import jax.numpy as jnp
    >>> field = combine([lambda t, z: z, lambda t, z: jnp.ones(2)], [2.0, 1.0])
    >>> print(field(0.0, jnp.array([1.0, 2.0])))
    [3. 5.]
    """
    fields = tuple(fields)
    weights = jnp.asarray(weights)
    if not fields or weights.shape != (len(fields),):
        raise ValueError(
            f"expected one weight for each of at least one field, got {len(fields)} fields and "
            f"weights of shape {weights.shape}"
        )
    return lambda t, z: sum(
        w.astype(z.dtype) * field(t, z) for w, field in zip(weights, fields, strict=True)
    )


def reverse(field: VectorField) -> VectorField:
    r"""The same field with the opposite sign: the factor that it changes, the other way.

    $$(t, z) \mapsto -v(t, z)$$

    To retrace a path of a field that depends on time, integrate over decreasing times instead.

    Args:
        field: `(t, z) -> vector`.

    Returns:
        `(t, z) -> vector`.

    >>> import jax.numpy as jnp
    >>> print(reverse(lambda t, z: z)(0.0, jnp.array([1.0, 2.0])))
    [-1. -2.]
    """
    return lambda t, z: -field(t, z)


# --- integration ---


class Trajectory(NamedTuple):
    """The path of one latent along a field."""

    ts: Float[Array, "n"]
    """The times asked for."""
    zs: Float[Array, "n d"]
    """The latents at these times; not finite where the solver did not get to."""
    ok: Bool[Array, ""]
    """Whether the solver reached the last time and every number in `zs` is finite."""
    num_steps: Int[Array, ""]
    """The steps that the solver took, rejected ones included."""
    result: Result
    """Why it is not `ok`, if it is not; `message` says it in words."""

    @property
    def message(self) -> Any:
        """Why it is not `ok`; empty if it is. Of a batch, an array of such."""
        return message_of(self.result)


_SOLVERS: dict[str, Callable[[], diffrax.AbstractSolver]] = {
    "euler": diffrax.Euler,
    "heun": diffrax.Heun,
    "midpoint": diffrax.Midpoint,
    "ralston": diffrax.Ralston,
    "bosh3": diffrax.Bosh3,
    "tsit5": diffrax.Tsit5,
    "dopri5": diffrax.Dopri5,
    "dopri8": diffrax.Dopri8,
    "implicit_euler": diffrax.ImplicitEuler,
    "kvaerno3": diffrax.Kvaerno3,
    "kvaerno5": diffrax.Kvaerno5,
}
# Low-order solvers, used for their simplicity: they step on the times asked for.
_ON_THE_GRID = (
    diffrax.Euler,
    diffrax.Heun,
    diffrax.Midpoint,
    diffrax.Ralston,
    diffrax.ImplicitEuler,
)


def solver(name: str) -> diffrax.AbstractSolver:
    """A solver by its name, for flags and configurations.

    Args:
        name: `"euler"`, `"heun"`, `"midpoint"`, `"ralston"`, `"bosh3"`, `"tsit5"`, `"dopri5"`,
            `"dopri8"`, or for stiff fields `"implicit_euler"`, `"kvaerno3"`, `"kvaerno5"`.

    Returns:
        The diffrax solver.

    Raises:
        ValueError: for an unknown name, with the nearest valid one.

    >>> solver("euler")
    Euler()
    """
    return choose("solver", name, _SOLVERS)()


def check_times(z0: ArrayLike, ts: ArrayLike, **_: Any) -> None:
    """Raise a `ValueError` if times, as floats like those of `z0`, neither increase nor decrease.

    Args:
        z0: a latent.
        ts: times, known before the program runs; where they are traced nothing is checked.
    """
    ts = jnp.asarray(ts).astype(_floating(jnp.asarray(z0)).dtype)
    if isinstance(ts, jax.core.Tracer):
        return
    steps = np.diff(np.asarray(ts))
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"expected times that only increase or only decrease, got {ts}")


@keep_compiled(arrays=["z0", "ts"], check=check_times)
def integrate(
    field: VectorField,
    z0: ArrayLike | Sequence[float | int],
    ts: ArrayLike | Sequence[float | int],
    *,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 4096,
) -> Trajectory:
    r"""Follow a field from one latent.

    $$\frac{dz}{dt} = v(t, z), \qquad z(t_0) = z_0$$

    A solver of low order (Euler, Heun, midpoint, Ralston, implicit Euler) without a controller
    steps exactly on `ts`, so that Euler on whole numbers gives $z_{n+1} = z_n + v(n, z_n)$. Any
    other chooses its steps, to tolerances `rtol=1e-3, atol=1e-6` unless a controller is given.

    Args:
        field: `(t, z) -> vector`.
        z0: the latent at `ts[0]`. Whole numbers are taken as floats.
        ts: at least two times, increasing or decreasing, of which the first is where it starts.
        solver: any of diffrax; `Tsit5` by default.
        stepsize_controller: any of diffrax that needs no first step size.
        adjoint: how reverse mode goes through the solver; by default
            `RecursiveCheckpointAdjoint`. On the grid `ts` it keeps every step, which takes no more
            memory than `zs` does and saves recomputation: the gradient of ten Euler steps of 16
            potentials of width 64 took 5 ms, against 8 with diffrax's default number of
            checkpoints and 14 with `DirectAdjoint`. Forward mode needs `diffrax.ForwardMode()` or
            `diffrax.DirectAdjoint()`.
        max_steps: the most steps an adaptive solver may take.

    Returns:
        A `Trajectory`. A solver that runs out of steps, or a field that stops being finite, gives
        `ok=False` and never raises; the parts of `zs` it did not reach are infinite, and
        `message` says why.

    Raises:
        ValueError: for a `z0` that is not one vector, `ts` that are not at least two monotone
            times, a field that returns another shape than that of `z0`.

    >>> import jax.numpy as jnp
    >>> path = integrate(lambda t, z: -z, jnp.ones(2), jnp.array([0.0, 1.0]))
    >>> print(jnp.allclose(path.zs[-1], jnp.exp(-1.0), rtol=1e-3), path.ok)
    True True
    >>> path = integrate(lambda t, z: z, jnp.ones(1), jnp.arange(3.0), solver=diffrax.Euler())
    >>> print(path.zs[:, 0])
    [1. 2. 4.]
    """
    z0, ts = _check_start(field, z0, ts)
    solution = _solve(
        lambda t, z, _: field(t, z).astype(z.dtype),
        z0,
        ts,
        diffrax.SaveAt(ts=ts),
        solver=solver,
        stepsize_controller=stepsize_controller,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=False,
    )
    zs = jnp.asarray(solution.ys)
    result = first_failure(
        (solution.result != diffrax.RESULTS.max_steps_reached, Result.max_steps_reached),
        (solution.result == diffrax.RESULTS.successful, Result.step_failed),
        (jnp.isfinite(zs).all(), Result.nonfinite),
    )
    return Trajectory(ts, zs, result == Result.successful, solution.stats["num_steps"], result)


@keep_compiled(
    arrays=["z1", "t0", "t1"],
    check=lambda z1, t0, t1, **_: check_times(z1, jnp.stack([t1, t0])),
)
def log_density(
    field: VectorField,
    log_prob0: Callable[[Latent], Scalar],
    z1: ArrayLike | Sequence[float | int],
    t0: Number,
    t1: Number,
    *,
    divergence: Callable[[Callable], Callable[[Latent], Scalar]] = calculus.divergence,
    solver: diffrax.AbstractSolver | None = None,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 4096,
) -> Scalar:
    r"""The log-density that a flow gives to a point, by change of variables.

    $$\log p_{t_1}(z_1) = \log p_{t_0}(z_0) - \int_{t_0}^{t_1} \nabla \cdot v(t, z(t))\,dt$$

    where `z` is the path of the field that ends in `z1`. It is followed backwards, together with
    the integral.

    Args:
        field: `(t, z) -> vector`.
        log_prob0: `z -> scalar`, the log-density at time `t0`.
        z1: where the density is wanted, at time `t1`.
        t0: the time at which the density is known.
        t1: the time at which it is wanted; may be the earlier one.
        divergence: any operator `v -> (z -> scalar)`.
        solver: as in `integrate`; one of low order takes a single step here, unless given a
            controller.
        stepsize_controller: as in `integrate`.
        adjoint: as in `integrate`.
        max_steps: as in `integrate`.

    Returns:
        The log-density, a scalar.

    Raises:
        ValueError: as `integrate` does.
        RuntimeError: when run, if the solver does not get from `t1` to `t0` in `max_steps`. A
            number alone could not say so.

    References:
        Chen et al., *Neural Ordinary Differential Equations*, 2018, theorem 1.

    >>> import jax.numpy as jnp
    >>> standard = lambda z: -z @ z / 2 - jnp.log(2 * jnp.pi) / 2
    >>> print(log_density(lambda t, z: jnp.ones(1), standard, jnp.array([3.0]), 0.0, 3.0).round(3))
    -0.919
    """
    z1, ts = _check_start(field, z1, jnp.stack([jnp.asarray(t1), jnp.asarray(t0)]))

    def augmented(t, state, _):
        z, _ = state
        return field(t, z).astype(z.dtype), divergence(lambda y: field(t, y))(z).astype(z.dtype)

    solution = _solve(
        augmented,
        (z1, jnp.zeros((), z1.dtype)),
        ts,
        diffrax.SaveAt(t1=True),
        solver=solver,
        stepsize_controller=stepsize_controller,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=True,
    )
    z0, gained = jax.tree.map(lambda leaf: leaf[0], solution.ys)
    return log_prob0(z0) + gained


def carry(
    field: VectorField, z: Latent, t0: Number, t1: Number, *, steps: int = 4
) -> Float[Array, "d"]:
    """Where a flow takes a latent, in a few equal steps of the midpoint rule.

    The cheap companion of `integrate`, for a loss: no error is controlled.

    Args:
        field: `(t, z) -> vector`.
        z: the latent at time `t0`.
        t0: when it sets out.
        t1: when it arrives; may be earlier.
        steps: how many.

    Returns:
        The latent at time `t1`.

    >>> import jax.numpy as jnp
    >>> print(carry(lambda t, z: 2 * t + 0 * z, jnp.zeros(1), 0.0, 3.0))
    [9.]
    """
    return _midpoint(field, z, _times(t0, t1, steps))[-1]


class Origin(NamedTuple):
    """Where a latent comes from, see `origin`."""

    z: Float[Array, "d"]
    """The latent at time 0 that the flow takes to it."""
    log_density: Scalar
    """The log-density at the later latent of the prior carried along the flow."""


def origin(
    u: Potential,
    log_prob0: Callable[[Latent], Scalar],
    z: Latent,
    t: Number,
    *,
    steps: int = 4,
    exact: bool = False,
) -> Origin:
    r"""Follows the gradient of a potential backwards to time 0, with the change of density.

    $$\log p_t(z) = \log p_0(z_0) - \int_0^t \Delta u(s, z(s))\,ds$$

    The path is taken in steps of the midpoint rule; the integral is the trapezoidal sum over them,
    of the same order, for which all Laplacians are computed at once. The cheap companion of
    `log_density`, for a loss; but where the flow becomes too steep for its steps, the sum is no
    density, and a loss can fall without end.

    Args:
        u: `(t, z) -> scalar`.
        log_prob0: `z -> scalar`, the log-density at time 0.
        z: the latent at time `t`.
        t: how far back time 0 is.
        steps: how many.
        exact: whether the density is that which just these steps give to a point, as in
            `stepped_log_density`; several times the cost.

    Returns:
        The latent at time 0, and the log-density at `z`.

    References:
        Chen et al., *Neural Ordinary Differential Equations*, 2018, theorem 1.

    >>> import jax.numpy as jnp
    >>> found = origin(lambda t, z: z.sum(), lambda z: -z @ z / 2, jnp.array([3.0]), 2.0)
    >>> print(found.z, found.log_density)
    [1.] -0.5
    """
    if exact:
        return _stepped_back(gradient(u), log_prob0, z, 0.0, t, steps)
    ts = _times(t, 0.0, steps)
    zs = _midpoint(gradient(u), z, ts)
    gained = jax.vmap(lambda s, y: calculus.laplacian(lambda x: u(s, x))(y))(ts, zs)
    return Origin(zs[-1], log_prob0(zs[-1]) - jnp.trapezoid(gained[::-1], ts[::-1]))


def stepped_log_density(
    field: VectorField,
    log_prob0: Callable[[Latent], Scalar],
    z1: Latent,
    t0: Number,
    t1: Number,
    *,
    steps: int = 4,
) -> Scalar:
    r"""The log-density that a few equal steps of the midpoint rule give to a point.

    $$\log p_{t_1}(z_1) = \log p_{t_0}(B(z_1)) + \log |\det \nabla B(z_1)|$$

    where `B` takes the steps from `t1` back to `t0`. However coarse they are, this is a density of
    total mass 1 as long as `B` is one to one, which an integral of the divergence along the path
    is not: the one to bound likelihoods with. It costs two Jacobians of the field a step.

    Args:
        field: `(t, z) -> vector`.
        log_prob0: `z -> scalar`, the log-density at time `t0`.
        z1: where the density is wanted, at time `t1`.
        t0: the time at which the density is known.
        t1: the time at which it is wanted; may be the earlier one.
        steps: how many.

    Returns:
        The log-density, a scalar.

    >>> import jax.numpy as jnp
    >>> standard = lambda z: -z @ z / 2
    >>> field = lambda t, z: jnp.array([1.0])
    >>> print(stepped_log_density(field, standard, jnp.array([3.0]), 0.0, 3.0))
    0.0
    """
    return _stepped_back(field, log_prob0, z1, t0, t1, steps).log_density


def _stepped_back(
    field: VectorField,
    log_prob0: Callable[[Latent], Scalar],
    z1: Latent,
    t0: Number,
    t1: Number,
    steps: int,
) -> Origin:
    """Midpoint steps from `t1` to `t0`, and the density by the Jacobian of just these steps."""
    ts = _times(t1, t0, steps)
    zs = _midpoint(field, z1, ts)
    begun, z, taken = ts[:-1], zs[:-1], jnp.diff(ts)
    middle = begun + taken / 2, z + taken[:, None] / 2 * jax.vmap(field)(begun, z)
    # Those of all steps at once: of one step it is 1 + h A(middle) (1 + h/2 A(start)).
    slope = jax.vmap(lambda t, z: jax.jacfwd(lambda y: field(t, y))(z))
    one, h = jnp.eye(len(z1), dtype=z1.dtype), taken[:, None, None]
    jacobians = one + h * slope(*middle) @ (one + h / 2 * slope(begun, z))
    gained = jnp.sum(jax.vmap(log_volume)(jacobians))
    return Origin(zs[-1], log_prob0(zs[-1]) + gained)


def _times(t0: Number, t1: Number, steps: int) -> Float[Array, "n"]:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    share = jnp.linspace(0, 1, steps + 1)
    return (1 - share) * t0 + share * t1


def _midpoint(
    field: VectorField,
    z: Latent,
    ts: Float[Array, "n"],
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Float[Array, "n d"]:
    return integrate(field, z, ts, solver=solver("midpoint"), adjoint=adjoint).zs


def _solve(
    field: Callable,
    y0: Any,
    ts: Float[Array, "n"],
    saveat: diffrax.SaveAt,
    *,
    solver: diffrax.AbstractSolver | None,
    stepsize_controller: diffrax.AbstractStepSizeController | None,
    adjoint: diffrax.AbstractAdjoint | None,
    max_steps: int,
    throw: bool,
) -> diffrax.Solution:
    """`diffeqsolve` with the defaults that `integrate` documents."""
    solver = diffrax.Tsit5() if solver is None else solver
    adaptive = isinstance(solver, diffrax.AbstractAdaptiveSolver)
    checkpoints = None
    if stepsize_controller is None:
        if isinstance(solver, _ON_THE_GRID) or not adaptive:
            stepsize_controller = diffrax.StepTo(ts=ts)
            max_steps = checkpoints = len(ts) - 1
        else:
            stepsize_controller = diffrax.PIDController(rtol=1e-3, atol=1e-6)
    if adjoint is None:
        adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints)
    return unjitted(diffrax.diffeqsolve)(
        diffrax.ODETerm(field),
        solver,
        ts[0],
        ts[-1],
        None,
        y0,
        saveat=saveat,
        stepsize_controller=stepsize_controller,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=throw,
    )


def _check_start(
    field: VectorField, z0: ArrayLike | Sequence[float | int], ts: ArrayLike | Sequence[float | int]
) -> tuple[Latent, Array]:
    """The start and the times as floats of one dtype, once they are known to make sense."""
    z0, ts = _floating(jnp.asarray(z0)), jnp.asarray(ts)
    if z0.ndim != 1 or not jnp.issubdtype(z0.dtype, jnp.floating):
        raise ValueError(
            f"expected one latent, a vector of numbers, got shape {z0.shape} and dtype {z0.dtype}; "
            "use jax.vmap for a batch"
        )
    if ts.ndim != 1 or ts.size < 2 or jnp.issubdtype(ts.dtype, jnp.complexfloating):
        raise ValueError(
            f"expected a vector of at least two times, got shape {ts.shape} and dtype {ts.dtype}"
        )
    ts = ts.astype(z0.dtype)
    check_times(z0, ts)
    got = jax.eval_shape(field, ts[0], z0)
    if getattr(got, "shape", None) != z0.shape:
        raise ValueError(
            f"the field must return the shape of its latent, {z0.shape}, "
            f"got {getattr(got, 'shape', got)}"
        )
    return z0, ts


def _floating(z: Array) -> Array:
    """Whole numbers as floats; others as they are."""
    whole = jnp.issubdtype(z.dtype, jnp.integer)
    return z.astype(jnp.result_type(float)) if whole else z

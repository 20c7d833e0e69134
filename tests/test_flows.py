import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import flows
from latent_flows.calculus import divergence
from latent_flows.objectives import log_normal

TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-11)


def matrix(dtype, dim=3):
    return jnp.asarray(np.random.default_rng(1).normal(size=(dim, dim)) / 2, dtype)


def curl(t, z):
    """Some matrix, neither symmetric nor antisymmetric."""
    return jnp.outer(jnp.sin(z + t), jnp.cos(2 * z)) * (z @ z)


# --- fields ---


def test_gradient_of_a_quadratic(dtype):
    a, z = matrix(dtype), jnp.arange(3, dtype=dtype)
    field = jax.jit(flows.gradient(lambda t, z: t * (z @ a @ z)))
    np.testing.assert_allclose(field(2.0, z), 2 * (a + a.T) @ z, rtol=1e-5, atol=1e-6)


def test_natural_gradient_does_not_depend_on_coordinates(x64):
    """In coordinates y with z = B y the metric is B'B, and B v_y is the gradient in z."""
    b, z = matrix(x64) + 2 * jnp.eye(3), jnp.arange(1.0, 4.0)
    u = lambda t, z: jnp.sin(z).sum() * t  # noqa: E731
    field = flows.natural_gradient(lambda t, y: u(t, b @ y), lambda y: b.T @ b)
    got = b @ field(2.0, jnp.linalg.solve(b, z))
    np.testing.assert_allclose(got, flows.gradient(u)(2.0, z), rtol=1e-9)


def test_solenoidal_field_has_no_divergence(x64):
    field = flows.solenoidal(curl)
    zs = jax.random.normal(jax.random.key(0), (5, 4), x64)
    values = jax.vmap(lambda z: field(0.3, z))(zs)
    assert jnp.abs(values).max() > 0.1
    assert jnp.abs(jax.vmap(divergence(lambda z: curl(0.3, z)[0]))(zs)).max() > 0.1
    for method in ("forward", "reverse"):
        free = jax.jit(jax.vmap(divergence(lambda z: field(0.3, z), method=method)))(zs)
        np.testing.assert_allclose(free, 0, atol=1e-12)


def test_solenoidal_field_is_the_row_divergence_of_the_antisymmetric_part(x64):
    z = jax.random.normal(jax.random.key(0), (4,), x64)
    jacobian = jax.jacfwd(lambda z: (curl(0.3, z) - curl(0.3, z).T) / 2)(z)
    np.testing.assert_allclose(
        flows.solenoidal(curl)(0.3, z), jnp.einsum("ijj->i", jacobian), rtol=1e-10
    )


def test_combine_is_linear_and_reverse_is_minus_one(dtype):
    z = jnp.arange(3, dtype=dtype)
    one, two = (lambda t, z: t * z), (lambda t, z: jnp.sin(z))
    both = jax.jit(lambda w: flows.combine([one, two], w)(2.0, z))
    np.testing.assert_allclose(both(jnp.asarray([3.0, -1.0])), 6 * z - jnp.sin(z), rtol=1e-6)
    np.testing.assert_allclose(flows.reverse(one)(2.0, z), -2 * z)
    assert both(jnp.asarray([3.0, -1.0])).dtype == dtype


# --- integration ---


@pytest.mark.parametrize(
    "name", ["dopri5", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dopri8", "kvaerno5"))]
)
def test_linear_field_gives_the_matrix_exponential(name, x64):
    a, z0 = matrix(x64), jnp.asarray([1.0, -2.0, 0.5])
    ts = jnp.asarray([0.0, 0.7, 2.0])
    path = jax.jit(
        lambda z0: flows.integrate(
            lambda t, z: a @ z,
            z0,
            ts,
            solver=flows.solver(name),
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-8),
        )
    )(z0)
    expected = jnp.stack([jax.scipy.linalg.expm(a * t) @ z0 for t in ts])
    assert path.ok
    np.testing.assert_allclose(path.zs, expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_default_solver_is_good_to_its_tolerance_in_both_precisions(dtype):
    a, z0 = matrix(dtype), jnp.asarray([1.0, -2.0, 0.5], dtype)
    path = flows.integrate(lambda t, z: a @ z, z0, [0.0, 2.0])
    assert path.ok
    assert path.zs.dtype == path.ts.dtype == dtype
    assert 0 < path.num_steps < 50
    np.testing.assert_allclose(path.zs[-1], jax.scipy.linalg.expm(2 * a) @ z0, rtol=1e-2)


def test_there_and_back_is_the_identity(x64):
    z0 = jnp.asarray([1.0, -2.0, 0.5])
    field = lambda t, z: jnp.sin(z[::-1] * t) + jnp.cos(z)  # noqa: E731
    ts = jnp.linspace(0.0, 3.0, 4)
    there = flows.integrate(field, z0, ts, stepsize_controller=TIGHT)
    back = flows.integrate(field, there.zs[-1], ts[::-1], stepsize_controller=TIGHT)
    assert jnp.linalg.norm(there.zs[-1] - z0) > 0.5
    np.testing.assert_allclose(back.zs, there.zs[::-1], atol=1e-7)


@pytest.mark.slow
def test_the_reversed_static_field_retraces_the_path(x64):
    z0 = jnp.asarray([1.0, -2.0, 0.5])
    field = lambda t, z: jnp.sin(z[::-1]) + jnp.cos(z)  # noqa: E731
    there = flows.integrate(field, z0, [0.0, 2.0], stepsize_controller=TIGHT)
    back = flows.integrate(
        flows.reverse(field), there.zs[-1], [0.0, 2.0], stepsize_controller=TIGHT
    )
    np.testing.assert_allclose(back.zs[-1], z0, atol=1e-7)


def test_euler_steps_exactly_on_the_times(dtype):
    field = lambda t, z: jnp.sin(z) + t  # noqa: E731
    z = jnp.asarray([1.0, -2.0], dtype)
    path = jax.jit(
        lambda z: flows.integrate(field, z, jnp.arange(4), solver=flows.solver("euler"))
    )(z)
    assert path.num_steps == 3
    assert path.ok
    for n in range(3):
        np.testing.assert_allclose(path.zs[n], z, rtol=1e-6)
        z = z + field(n, z)
    np.testing.assert_allclose(path.zs[3], z, rtol=1e-6)


@pytest.mark.parametrize("name", ["midpoint", pytest.param("heun", marks=pytest.mark.slow)])
def test_second_order_solvers_step_on_the_times_with_second_order(name, x64):
    def error(n):
        path = flows.integrate(
            lambda t, z: -z, jnp.ones(1), jnp.linspace(0, 1, n + 1), solver=flows.solver(name)
        )
        assert path.num_steps == n
        return abs(path.zs[-1, 0] - jnp.exp(-1.0))

    np.testing.assert_allclose(error(20) / error(40), 4, rtol=0.1)


@pytest.mark.parametrize("name", ["euler", pytest.param("tsit5", marks=pytest.mark.slow)])
def test_reverse_mode_through_a_batch_of_paths_is_the_derivative(name, x64):
    zs = jax.random.normal(jax.random.key(0), (2, 3), x64)
    solver = flows.solver(name)

    def loss(scale):
        def end(z0):
            u = lambda t, z: scale * jnp.sin(z * t).sum() / 4  # noqa: E731
            return flows.integrate(flows.gradient(u), z0, jnp.arange(5.0), solver=solver).zs[-1]

        return jnp.square(jax.vmap(end)(zs)).sum()

    both = jax.jit(jax.value_and_grad(loss))
    difference = (both(1.0 + 1e-4)[0] - both(1.0 - 1e-4)[0]) / 2e-4
    # The steps of an adaptive solver depend on the scale as well.
    np.testing.assert_allclose(both(1.0)[1], difference, rtol=1e-6 if name == "euler" else 2e-2)


def test_a_solver_that_runs_out_of_steps_says_so():
    path = flows.integrate(lambda t, z: -50 * z, jnp.ones(2), [0.0, 100.0], max_steps=5)
    assert not path.ok
    assert path.num_steps == 5


@pytest.mark.parametrize("name", [pytest.param("euler", marks=pytest.mark.slow), "tsit5"])
def test_a_field_that_stops_being_finite_is_not_ok(name):
    solver = flows.solver(name)

    def run(z0):
        return flows.integrate(
            lambda t, z: jnp.sqrt(1 - z), z0, jnp.arange(4.0), solver=solver, max_steps=64
        ).ok

    ok = jax.jit(jax.vmap(run))(jnp.asarray([[0.999], [3.0]]))
    # One path leaves the domain of the field at once, the other does not spoil it.
    assert not ok[1]


def test_whole_numbers_start_as_floats(dtype):
    path = flows.integrate(lambda t, z: z, jnp.asarray([1, 2]), [0, 1, 2], solver=diffrax.Euler())
    assert path.zs.dtype == dtype
    np.testing.assert_array_equal(path.zs[:, 0], [1, 2, 4])


FIELD = lambda t, z: z  # noqa: E731


@pytest.mark.parametrize(
    ("field", "z0", "ts", "message"),
    [
        (FIELD, jnp.ones((2, 3)), [0.0, 1.0], r"one latent.*\(2, 3\)"),
        (FIELD, jnp.ones(2, bool), [0.0, 1.0], "bool"),
        (FIELD, jnp.ones(2), [0.0], r"at least two times.*\(1,\)"),
        (FIELD, jnp.ones(2), 1.0, "at least two times"),
        (FIELD, jnp.ones(2), [0.0, 2.0, 1.0], "only increase"),
        (FIELD, jnp.ones(2), [0.0, 0.0], "only increase"),
        (lambda t, z: z.sum(), jnp.ones(2), [0.0, 1.0], r"shape of its latent, \(2,\), got \(\)"),
        (lambda t, z: (z, z), jnp.ones(2), [0.0, 1.0], "shape of its latent"),
    ],
)
def test_what_cannot_be_integrated_is_refused(field, z0, ts, message):
    with pytest.raises(ValueError, match=message):
        flows.integrate(field, z0, ts)


def test_other_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"did you mean 'euler'.*'dopri5'.*'tsit5'"):
        flows.solver("eulr")
    with pytest.raises(ValueError, match="1 fields and weights of shape"):
        flows.combine([FIELD], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one field"):
        flows.combine([], [])
    with pytest.raises(ValueError, match=r"must return shape \(2, 2\)"):
        flows.solenoidal(lambda t, z: z)(0.0, jnp.ones(2))


# --- density ---


def standard_normal(z):
    return -z @ z / 2 - z.size * jnp.log(2 * jnp.pi) / 2


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.5), (2.0, 0.5)])
def test_density_under_a_linear_flow_is_gaussian(t0, t1, x64):
    a = matrix(x64)
    z1 = jnp.asarray([0.3, -0.5, 1.0])
    push = jax.scipy.linalg.expm(a * (t1 - t0))
    got = jax.jit(
        lambda z1: flows.log_density(
            lambda t, z: a @ z, standard_normal, z1, t0, t1, stepsize_controller=TIGHT
        )
    )(z1)
    expected = jax.scipy.stats.multivariate_normal.logpdf(z1, jnp.zeros(3), push @ push.T)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_density_under_a_nonlinear_flow_integrates_to_one(x64):
    zs = jnp.linspace(-8, 8, 801)
    log_p = jax.jit(
        jax.vmap(
            lambda z: flows.log_density(
                lambda t, z: jnp.sin(2 * z) + t, standard_normal, z[None], 0.0, 1.0
            )
        )
    )(zs)
    np.testing.assert_allclose(jnp.exp(log_p).sum() * (zs[1] - zs[0]), 1, atol=2e-3)
    assert jnp.abs(log_p - jax.vmap(lambda z: standard_normal(z[None]))(zs)).max() > 0.5


@pytest.mark.slow
def test_a_solenoidal_flow_carries_density_along(x64):
    field = flows.solenoidal(lambda t, z: jnp.outer(jnp.sin(z), jnp.cos(2 * z)))
    z0 = jnp.asarray([0.3, -0.5, 1.0])
    z1 = flows.integrate(field, z0, [0.0, 1.0], stepsize_controller=TIGHT).zs[-1]
    got = flows.log_density(field, standard_normal, z1, 0.0, 1.0, stepsize_controller=TIGHT)
    assert abs(standard_normal(z1) - standard_normal(z0)) > 0.01
    np.testing.assert_allclose(got, standard_normal(z0), rtol=1e-7)


def test_a_density_that_cannot_be_computed_raises():
    with pytest.raises(Exception, match="maximum number of solver steps"):
        flows.log_density(lambda t, z: -50 * z, standard_normal, jnp.ones(2), 0.0, 9.0, max_steps=3)


@pytest.mark.slow
def test_a_linear_flow_stretches_the_prior_as_it_should():
    rates, t = jnp.array([0.3, -0.5]), jnp.array(1.5)

    def u(s, z):
        return 0.5 * jnp.sum(rates * z**2)

    z = jnp.array([0.4, -1.0])
    end = flows.carry(jax.grad(u, argnums=1), z, 0.0, t, steps=20)
    np.testing.assert_allclose(end, jnp.exp(rates * t) * z, rtol=1e-3)
    back = flows.carry(jax.grad(u, argnums=1), end, t, 0.0, steps=20)
    np.testing.assert_allclose(back, z, rtol=1e-3)
    found = flows.origin(u, log_normal, z, t, steps=20)
    np.testing.assert_allclose(found.z, jnp.exp(-rates * t) * z, rtol=1e-3)
    exact = jax.scipy.stats.norm.logpdf(z, 0, jnp.exp(rates * t)).sum()
    assert float(found.log_density) == pytest.approx(float(exact), abs=2e-3)


def test_an_exact_origin_has_the_density_of_its_own_coarse_steps():
    """And its gradient, which losses need: against the Jacobian of the path, taken as a whole."""

    def u(s, z):
        return 0.5 * jnp.sin(2 * z[0]) * jnp.cos(0.3 * s) + z[1] * jnp.sum(jnp.sin(z))

    def whole(z):
        back = lambda z: flows.origin(u, log_normal, z, t, steps=2).z  # noqa: E731
        return log_normal(back(z)) + jnp.linalg.slogdet(jax.jacrev(back)(z))[1]

    def found(z):
        return flows.origin(u, log_normal, z, t, steps=2, exact=True).log_density

    z, t = jnp.array([0.3, -0.5]), jnp.array(2.0)
    np.testing.assert_allclose(found(z), whole(z), rtol=1e-5)
    ahead = lambda z: (whole(z + 1e-2) - whole(z - 1e-2)) / 2e-2  # noqa: E731
    np.testing.assert_allclose(jax.grad(found)(z).sum(), ahead(z), rtol=1e-2)
    cheap = flows.origin(u, log_normal, z, t, steps=2).log_density
    assert abs(float(cheap - whole(z))) > 0.1


@pytest.mark.slow
def test_the_density_of_a_curved_flow_integrates_to_one():
    def u(s, z):
        return jnp.sin(z[0]) * jnp.cos(0.7 * s) + 0.1 * z[0] ** 2

    grid = jnp.linspace(-9, 9, 1801)[:, None]
    along = lambda z: flows.origin(u, log_normal, z, jnp.array(2.0), steps=40)  # noqa: E731
    log_density = jax.vmap(along)(grid).log_density
    total = float(jnp.trapezoid(jnp.exp(log_density), grid[:, 0]))
    assert total == pytest.approx(1, abs=3e-3)


@pytest.mark.slow
def test_the_density_of_few_steps_integrates_to_one_where_an_integral_of_the_laplacian_does_not():
    def u(s, z):
        return 0.5 * jnp.sin(2 * z[0])

    grid, t = jnp.linspace(-9, 9, 1801)[:, None], 2.0
    stepped = jax.vmap(
        lambda z: flows.stepped_log_density(flows.gradient(u), log_normal, z, 0.0, t, steps=6)
    )(grid)
    integral = jax.vmap(lambda z: flows.origin(u, log_normal, z, t, steps=6).log_density)(grid)
    mass = [float(jnp.trapezoid(jnp.exp(log), grid[:, 0])) for log in (stepped, integral)]
    assert mass[0] == pytest.approx(1, abs=1e-3)
    assert abs(mass[1] - 1) > 0.01


@pytest.mark.slow
def test_the_density_of_steps_tends_to_that_of_the_flow():
    field = lambda t, z: jnp.array([-0.5 * z[0] + z[1], -z[0] + 0.2 * t])  # noqa: E731
    z = jnp.array([0.4, -1.0])
    exact = flows.log_density(field, log_normal, z, 0.0, 1.5)
    found = flows.stepped_log_density(field, log_normal, z, 0.0, 1.5, steps=40)
    assert float(found) == pytest.approx(float(exact), abs=2e-3)


def test_a_path_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        flows.carry(lambda t, z: z, jnp.ones(2), 0.0, 1.0, steps=0)

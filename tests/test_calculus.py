import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latent_flows import calculus
from latent_flows.calculus import divergence, laplacian, time_derivative
from latent_flows.potentials import PotentialNet
from tests.rest_slow import rest_slow

DIM = 4


def mixer(dtype):
    return jnp.asarray(np.random.default_rng(0).normal(size=(DIM, DIM)) / 2, dtype)


@jax.custom_jvp
def cubed(x):
    """Its rule is not what its body would give: methods must follow the rule."""
    return x


@cubed.defjvp
def _(primals, tangents):
    (x,), (v,) = primals, tangents
    return cubed(x), 3 * x**2 * v


@jax.custom_jvp
def summed(x):
    """A rule of its own for something that is not elementwise."""
    return x.sum()


@summed.defjvp
def _(primals, tangents):
    (x,), (v,) = primals, tangents
    return summed(x), jnp.sin(x) @ v


@jax.custom_vjp
def clipped(x):
    return jnp.sin(x)


clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (g * jnp.cos(x),))


def scanned(a, z):
    def body(c, row):
        return jnp.tanh(a @ c + row), (c**2).sum()

    last, sums = jax.lax.scan(body, z, a)
    return last.sum() + sums.sum()


FUNCTIONS = {
    "tanh layer": lambda a, z: jnp.tanh(a @ z + 1).sum(),
    "two tanh layers": lambda a, z: jnp.tanh(a @ jnp.tanh(a @ z)).sum(),
    "gelu": lambda a, z: jax.nn.gelu(a @ jax.nn.gelu(a @ z)).sum(),
    "exact gelu": lambda a, z: jax.nn.gelu(a @ z, approximate=False).sum(),
    "softplus": lambda a, z: jax.nn.softplus(a @ jax.nn.softplus(a @ z)).sum(),
    "softplus at zero": lambda a, z: jax.nn.softplus(z - jax.lax.stop_gradient(z)).sum(),
    "silu": lambda a, z: jax.nn.silu(a @ z).sum(),
    "relu": lambda a, z: (jax.nn.relu(a @ z) ** 2).sum(),
    "logsumexp": lambda a, z: jax.scipy.special.logsumexp(a @ z),
    "softmax": lambda a, z: jax.nn.softmax(a @ z) @ z,
    "norm": lambda a, z: jnp.linalg.norm(a @ z),
    "sine of a product": lambda a, z: jnp.sin(z[0] * z[1] * z[2]) * z[3],
    "quotient": lambda a, z: (z[0] / (1 + z @ z)) / z[1],
    "power of both": lambda a, z: jnp.sum((1 + z**2) ** (a @ z)),
    "matmul of both sides": lambda a, z: jnp.trace((z[:, None] * a) @ (jnp.sin(z) * a) @ a),
    "outer product": lambda a, z: jnp.sum(jnp.outer(z, z) @ jnp.outer(jnp.cos(z), z)),
    "where": lambda a, z: jnp.where(a @ z > 0, z**3, jnp.sin(z)).sum(),
    "sort": lambda a, z: (jnp.sort(z) ** 3 * jnp.arange(DIM)).sum(),
    "take along": lambda a, z: (z[jnp.argsort(z)][1:] * z[:-1] ** 2).sum(),
    "log determinant": lambda a, z: jnp.linalg.slogdet(3 * jnp.eye(DIM) + jnp.outer(z, z))[1],
    "convolution": lambda a, z: jnp.convolve(jnp.sin(z), z).sum(),
    "scan": scanned,
    "loop": lambda a, z: jax.lax.fori_loop(0, 3, lambda i, c: jnp.tanh(a @ c), z).sum(),
    "branch": lambda a, z: jax.lax.cond(
        z[0] > 0, lambda z: jnp.sin(z).sum(), lambda z: (z**4).sum(), z
    ),
    "remat": lambda a, z: jax.checkpoint(lambda z: jnp.sin(a @ z).sum())(z),
    "custom jvp": lambda a, z: cubed(a @ z).sum(),
    "custom jvp, not elementwise": lambda a, z: summed(a @ z),
    "absolute value of a complex number": lambda a, z: jnp.abs((z + 1j * (a @ z) ** 2).sum()),
    "amplitudes": lambda a, z: jnp.abs(jnp.fft.fft(a @ z**2)).sum(),
    "power spectrum": lambda a, z: (jnp.abs(jnp.fft.rfft(jnp.sin(a @ z))) ** 4).sum(),
    "complex norm": lambda a, z: jnp.linalg.norm(jnp.exp(1j * z) * (a @ z)),
    "angle": lambda a, z: jnp.angle(a @ z + 1j * z**2).sum(),
    "real and imaginary part": lambda a, z: (
        jnp.real(jnp.exp(1j * z)) @ jnp.imag(jnp.sin(z + 1j * (a @ z)))
    ),
    "conjugate": lambda a, z: jnp.imag(jnp.conj(jnp.exp(1j * z)) * (a @ z + 1j * z) ** 3).sum(),
    "silu of a complex number": lambda a, z: jax.nn.silu((1 + 1j) * (a @ z)).real.sum(),
    "complex numbers sorted": lambda a, z: jnp.abs(jnp.sort(z + 1j * z**2)[1:] + z[:-1]).sum(),
    "product of complex numbers": lambda a, z: jnp.abs(jnp.cumprod(z + 1j * (a @ z))).sum(),
    "linear": lambda a, z: (a @ z).sum(),
    "constant": lambda a, z: a.sum(),
}


def check_against_the_hessian(f, dtype, tolerance, *, gradients):
    """The Laplacian, and perhaps its gradients in what `f` closes over and in the point."""
    a, z = mixer(dtype), jnp.asarray([0.3, -1.2, 0.7, 1.6], dtype)

    def by(method):
        value = lambda a, z: laplacian(lambda y: f(a, y), method=method)(z)  # noqa: E731
        return jax.value_and_grad(value, (0, 1)) if gradients else value

    got, expected = jax.jit(lambda *x: [by(method)(*x) for method in ("forward", "hessian")])(a, z)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance),
        got,
        expected,
    )


@pytest.mark.parametrize("name", rest_slow(FUNCTIONS, every=3))
def test_forward_laplacian_is_the_trace_of_the_hessian(name, x64):
    check_against_the_hessian(FUNCTIONS[name], x64, 1e-9, gradients=False)


def test_complex_values_have_complex_derivatives(x64):
    z, ones = jnp.array([0.3, -0.7], x64), jnp.ones(2, x64)
    wave = lambda z: jnp.exp((1 + 2j) * z[0] + 3j * z[1])  # noqa: E731
    expected = ((1 + 2j) ** 2 - 9) * wave(z)
    for method in ("forward", "hessian"):
        np.testing.assert_allclose(laplacian(wave, method=method)(z), expected)
    some = laplacian(wave, method="hutchinson", samples=4000)(jax.random.key(0), z)
    np.testing.assert_allclose(some, expected, atol=1.0)
    field = lambda z: jnp.exp(1j * z) * z[::-1]  # noqa: E731
    for method in ("forward", "reverse"):
        got = divergence(field, method=method)(z)
        np.testing.assert_allclose(got, (1j * field(z)) @ ones)


def test_the_sign_of_a_complex_number_turns_with_it(x64):
    # The angle of z is harmonic, so the Laplacian of its cosine is -cos / |z|^2.
    z = jnp.array([0.3, -0.4], x64)
    got = laplacian(lambda z: jnp.sign(z[0] + 1j * z[1]).real)(z)
    np.testing.assert_allclose(got, -0.6 / 0.25)


# One for each rule of propagation.
WITH_GRADIENTS = ("gelu", "softplus", "relu", "matmul of both sides", "power of both", "branch")


@pytest.mark.parametrize(
    "name",
    [n if n in WITH_GRADIENTS else pytest.param(n, marks=pytest.mark.slow) for n in FUNCTIONS],
)
def test_the_gradients_of_the_forward_laplacian_are_those_of_the_trace(name, x64):
    check_against_the_hessian(FUNCTIONS[name], x64, 1e-9, gradients=True)


@pytest.mark.parametrize("name", ["gelu", "softplus", "quotient", "matmul of both sides"])
def test_forward_laplacian_in_single_precision(name):
    check_against_the_hessian(FUNCTIONS[name], jnp.float32, 2e-4, gradients=False)


def test_forward_laplacian_goes_through_the_body_of_a_custom_vjp(x64):
    a, z = mixer(x64), jnp.asarray([0.3, -1.2, 0.7, 1.6], x64)
    np.testing.assert_allclose(
        laplacian(lambda z: clipped(a @ z).sum())(z), -(a**2).sum(1) @ jnp.sin(a @ z), rtol=1e-12
    )


@pytest.mark.parametrize("method", ["forward", "hessian"])
def test_laplacian_of_closed_forms(method, x64):
    z = jnp.asarray([0.5, -1.0, 2.0], x64)
    r2 = z @ z
    cases = [
        (lambda z: jnp.exp(-z @ z / 2), (r2 - 3) * jnp.exp(-r2 / 2)),
        (lambda z: 1 / jnp.linalg.norm(z), 0.0),  # harmonic away from 0 in three dimensions
        (jnp.linalg.norm, 2 / jnp.sqrt(r2)),
        (lambda z: jnp.sin(z @ jnp.asarray([1.0, 2.0, 2.0])), -9 * jnp.sin(0.5 - 2.0 + 4.0)),
        (lambda z: z[0] * z[1] * z[2], 0.0),
    ]
    for f, expected in cases:
        np.testing.assert_allclose(laplacian(f, method=method)(z), expected, atol=1e-12)


square = arrays(np.float32, (DIM, DIM), elements=st.floats(-2, 2, width=16))
vector = arrays(np.float32, (DIM,), elements=st.floats(-2, 2, width=16))


@settings(deadline=None, max_examples=20)
@given(q=square, b=vector, z=vector)
def test_laplacian_of_a_quadratic_form_is_twice_its_trace(q, b, z):
    got = QUADRATIC(q, b, z)
    np.testing.assert_allclose(got, 2 * np.trace(q), rtol=1e-5, atol=1e-5)


QUADRATIC = jax.jit(lambda q, b, z: laplacian(lambda y: y @ q @ y + b @ y + 1)(z))


def test_forward_laplacian_under_vmap_jit_and_itself(x64):
    zs = jax.random.normal(jax.random.key(1), (5, 3), x64)
    batched = jax.jit(jax.vmap(laplacian(lambda z: (z @ z) ** 2)))(zs)
    np.testing.assert_allclose(batched, (8 + 4 * 3) * (zs**2).sum(1), rtol=1e-12)
    # Laplacian of (n + 2) 4 |z|^2 is 8 n (n + 2).
    twice = jax.vmap(laplacian(laplacian(lambda z: (z @ z) ** 2)))(zs)
    np.testing.assert_allclose(twice, 8 * 3 * 5, rtol=1e-12)
    mixed = jax.vmap(jax.hessian(laplacian(lambda z: (z @ z) ** 2)))(zs)
    np.testing.assert_allclose(mixed, 40 * np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-12)


@pytest.mark.slow
def test_forward_laplacian_of_a_potential_network(x64):
    net = PotentialNet(width=8)
    z = jax.random.normal(jax.random.key(1), (6,), x64)
    params = net.init(jax.random.key(2), 0.0, z)

    def of(method):
        value = lambda params: laplacian(lambda y: net.apply(params, 2.0, y), method=method)(z)  # noqa: E731
        return jax.jit(jax.value_and_grad(value))(params)

    # The parameters are in single precision, and so are their gradients.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        of("forward"),
        of("hessian"),
    )


# --- a point that enters through one matrix of few columns ---

TALL = 9
ENTRIES = {
    "point first": lambda w, z: z @ w,
    "matrix first": lambda w, z: w.T @ z,
    "two axes of columns": lambda w, z: jnp.einsum("d,dij->ji", z, w.reshape(TALL, 2, 2)).ravel(),
    "inside jit": jax.jit(lambda w, z: z @ w),
    "remat": lambda w, z: jax.checkpoint(jnp.matmul)(z, w),
    "used twice": lambda w, z: z @ w + jnp.sin(z @ w)[::-1],
}
# Where fewer probes would be wrong, or cannot be shown to be right.
OTHER_ENTRIES = {
    "skip connection": lambda w, z: z @ w + z[:4] ** 2,
    "two matrices": lambda w, z: (z @ w) * (z @ jnp.cos(w)),
    "one function with two matrices": lambda w, z: (
        jax.jit(lambda z, k: z @ (k * w))(z, 1.0) * jax.jit(lambda z, k: z @ (k + w))(z, 2.0)
    ),
    "the point itself": lambda w, z: (z @ z) * w[0],
    "the point itself, in a call": lambda w, z: jax.jit(jnp.dot)(z, z) * w[0],
    "a matrix made of the point": lambda w, z: z @ (w * z[:, None]),
    "a matrix met before": lambda w, z: z @ jnp.outer(jnp.cos(w[:, 0]), jnp.sin(z @ w)),
    "outer product": lambda w, z: jnp.outer(z, w[0]).sum(0) ** 2,
}
MATRICES = {
    "full rank": lambda w: w,
    "equal columns": lambda w: w.at[:, 1].set(w[:, 0]),
    "zero": jnp.zeros_like,
}


def entering(entry, w, z):
    """A function with a full Hessian of what the point and the matrix come to."""
    y = entry(w, z)
    return jnp.exp(jnp.tanh(y + jnp.arange(4)) @ jnp.sin(y[::-1] + 1) / 2)


def tall(dtype, *shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=(*shape, TALL, 4)) / 2, dtype)


def laplacian_in(method, entry, w, z):
    return laplacian(lambda y: entering(entry, w, y), method=method)(z)


def check_both(work, *args, tolerance, entry=ENTRIES["point first"]):
    """`work` on the Laplacian as a function of the matrix and the point, by both methods."""
    got, expected = jax.jit(
        lambda *args: [
            work(functools.partial(laplacian_in, m, entry))(*args) for m in ("forward", "hessian")
        ]
    )(*args)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), got, expected
    )


@pytest.mark.parametrize("name", rest_slow([*ENTRIES, *OTHER_ENTRIES], every=3))
def test_laplacian_however_the_point_enters(name, x64):
    entry = (ENTRIES | OTHER_ENTRIES)[name]
    w, z = tall(x64), jnp.linspace(-1, 1, TALL, dtype=x64)
    check_both(lambda f: f, w, z, tolerance=1e-9, entry=entry)


@pytest.mark.parametrize("name", [*ENTRIES, *OTHER_ENTRIES])
def test_probes_are_saved_exactly_where_one_matrix_is_all_the_point_meets(name, monkeypatch):
    factored = []
    monkeypatch.setattr(calculus, "_root", lambda w: factored.append(w.shape) or jnp.zeros((4, 4)))
    laplacian_in("forward", (ENTRIES | OTHER_ENTRIES)[name], tall("float32"), jnp.ones(TALL))
    assert set(factored) == ({(TALL, 4)} if name in ENTRIES else set())


@pytest.mark.parametrize("rank", MATRICES)
def test_laplacian_and_gradients_for_a_matrix_of_any_rank(rank, dtype):
    w, z = MATRICES[rank](tall(dtype)), jnp.linspace(-1, 1, TALL, dtype=dtype)
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-10
    check_both(lambda f: jax.value_and_grad(f, (0, 1)), w, z, tolerance=tolerance)
    check_both(
        lambda f: lambda w, z: jax.jvp(f, (w, z), (jnp.cos(w), z)), w, z, tolerance=tolerance
    )


@pytest.mark.slow
def test_second_and_third_derivatives_in_the_matrix(x64):
    w, z = tall(x64), jnp.linspace(-1, 1, TALL, dtype=x64)
    check_both(
        lambda f: jax.grad(lambda w, z: (jax.grad(f)(w, z) ** 2).sum()), w, z, tolerance=1e-9
    )

    def third(f):
        for _ in range(3):
            f = functools.partial(
                lambda f, w, z: jax.jvp(lambda w: f(w, z), (w,), (jnp.cos(3 * w),))[1], f
            )
        return f

    check_both(third, w, z, tolerance=1e-9)


@pytest.mark.parametrize("rank", ["equal columns", "zero"])
def test_second_derivatives_of_dependent_columns_are_not_silently_wrong(rank, x64):
    w, z = MATRICES[rank](tall(x64)), jnp.linspace(-1, 1, TALL, dtype=x64)
    f = functools.partial(laplacian_in, "forward", ENTRIES["point first"])
    slope = jax.jit(jax.grad(f))
    assert jnp.isnan(jax.jvp(slope, (w, z), (jnp.cos(w), z))[1]).any()
    assert jnp.isnan(jax.jit(jax.grad(lambda w: (slope(w, z) * jnp.cos(w + 1)).sum()))(w)).any()


@pytest.mark.slow
def test_derivatives_under_vmap_over_points_and_over_matrices(x64):
    zs = jax.random.normal(jax.random.key(0), (3, TALL), x64)

    def gradients(f):
        return jax.vmap(jax.value_and_grad(f))

    def hessians(f):
        return jax.vmap(jax.hessian(f), (None, 0))

    check_both(gradients, tall(x64, 3), zs, tolerance=1e-9)
    check_both(hessians, tall(x64), zs, tolerance=1e-9)


def test_one_factorization_serves_a_batch_of_points():
    f = functools.partial(laplacian_in, "forward", ENTRIES["point first"])
    text = str(jax.make_jaxpr(jax.vmap(f, (None, 0)))(tall("float32"), jnp.ones((7, TALL))))
    shapes = re.findall(r"f32\[([\d,]+)\] \w+:f32\[[\d,]+\] = qr", text)
    assert shapes == [f"{TALL},4"]


def test_hutchinson_laplacian_is_unbiased(x64, key):
    a = mixer(x64)
    z = jnp.asarray([0.3, -1.2, 0.7, 1.6], x64)

    def f(z):
        return jnp.tanh(a @ z).sum() + z @ a @ z

    estimate = laplacian(f, method="hutchinson", samples=4)
    draws = jax.vmap(lambda k: estimate(k, z))(jax.random.split(key, 4000))
    assert draws.std() > 0
    error = draws.mean() - laplacian(f)(z)
    assert abs(error) < 4 * draws.std() / jnp.sqrt(4000)
    # Random signs make it exact where the Hessian is diagonal.
    diagonal = laplacian(lambda z: (z**4).sum(), method="hutchinson", samples=1)
    np.testing.assert_allclose(diagonal(key, z), 12 * (z**2).sum())


def test_hutchinson_divergence_is_unbiased(x64, key):
    a = mixer(x64)
    z = jnp.asarray([0.3, -1.2, 0.7, 1.6], x64)
    estimate = divergence(lambda z: jnp.tanh(a @ z), method="hutchinson", samples=4)
    draws = jax.vmap(lambda k: estimate(k, z))(jax.random.split(key, 4000))
    error = draws.mean() - divergence(lambda z: jnp.tanh(a @ z))(z)
    assert 0 < abs(error) < 4 * draws.std() / jnp.sqrt(4000)


@pytest.mark.parametrize("method", ["forward", "reverse"])
def test_divergence_of_closed_forms(method, dtype):
    a = mixer(dtype)
    z = jnp.asarray([0.3, -1.2, 0.7, 1.6], dtype)
    of = lambda v: jax.jit(divergence(v, method=method))(z)  # noqa: E731
    np.testing.assert_allclose(of(lambda z: a @ z), jnp.trace(a), rtol=1e-5)
    np.testing.assert_allclose(of(lambda z: z * (z @ z)), (DIM + 2) * (z @ z), rtol=1e-5)
    np.testing.assert_allclose(of(lambda z: (a - a.T) @ z), 0, atol=1e-6)
    assert of(lambda z: a @ z).dtype == dtype


def test_the_divergence_of_a_gradient_is_the_laplacian(x64):
    z = jnp.asarray([0.3, -1.2, 0.7, 1.6], x64)

    def f(z):
        return jnp.sin(z[0] * z[1]) + jnp.exp(z[2] * z[3])

    np.testing.assert_allclose(divergence(jax.grad(f))(z), laplacian(f)(z), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_time_derivative_of_an_exponential(order, dtype):
    z = jnp.asarray([1.0, 2.0], dtype)
    got = jax.jit(time_derivative(lambda t, z: jnp.exp(2 * t) * z.sum(), order))(0.5, z)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, 2**order * 3 * np.exp(1.0), rtol=1e-5)


def test_time_derivative_is_per_sample():
    ts, zs = jnp.arange(3.0), jnp.arange(6.0).reshape(3, 2)
    got = jax.vmap(time_derivative(lambda t, z: t**2 * z[0], 2))(ts, zs)
    np.testing.assert_allclose(got, 2 * zs[:, 0])


def test_errors_say_what_was_expected():
    z = jnp.ones(3)
    with pytest.raises(ValueError, match=r"'forwards'.*'forward'.*'hessian', 'hutchinson'"):
        laplacian(jnp.sum, method="forwards")
    with pytest.raises(ValueError, match="did you mean 'reverse'"):
        divergence(jnp.sin, method="revers")
    with pytest.raises(ValueError, match="samples"):
        laplacian(jnp.sum, method="hutchinson")
    with pytest.raises(ValueError, match="samples"):
        laplacian(jnp.sum, samples=3)
    for method in ("forward", "hessian"):
        with pytest.raises(ValueError, match=r"shape \(\), got \(3,\)"):
            laplacian(jnp.sin, method=method)(z)
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(\)"):
        divergence(jnp.sum)(z)
    with pytest.raises(ValueError, match="order"):
        time_derivative(lambda t, z: t, 0)

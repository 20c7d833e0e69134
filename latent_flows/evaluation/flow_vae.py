"""What a VAE trained with flows explains of held-out samples, and how well its flows move them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from latent_flows import flows
from latent_flows._normal import log_normal
from latent_flows._transforms import vmap_chunked
from latent_flows.data.sequences import Sequences
from latent_flows.evaluation.equivariance import equivariance_error
from latent_flows.evaluation.likelihood import iwae_bound
from latent_flows.generators.vae import generator
from latent_flows.objectives.flow_vae import WITH_FLOW, FlowVAE
from latent_flows.potentials import select
from latent_flows.typing import Latent, Potential, Scalar

__all__ = [
    "HeldOut",
    "factor_directions",
    "factor_equivariance",
    "follow_frames",
    "follower",
    "frame_bounds",
    "held_out_sequences",
    "sample_bounds",
    "sequence_bound",
]

AT_ONCE = 10
"""Samples, or sequences, whose bounds are computed at once: each takes all its draws' memory."""
CHECKED = 24
"""Codes at which the flow's change of density is computed a second time, by another solver."""

Follow = Callable[[Array, Array, Latent, Float[Array, "t"]], Float[Array, "t d"]]


class HeldOut(NamedTuple):
    """Held-out sequences, the same for every kind and seed: `[N, K, T + 1, h, w, c]`."""

    sequences: Float[Array, "N K T1 h w c"]
    """Every sample of them."""
    t: Float[Array, "N K"]
    """One time from 1 to T for each: that of the image `x_t` that is looked at alone."""

    @property
    def plain(self) -> Float[Array, "N h w c"]:
        """`x_0`."""
        return self.sequences[:, 0, 0]

    @property
    def transformed(self) -> Float[Array, "N K h w c"]:
        """`x_t`."""
        return jax.vmap(jax.vmap(lambda frames, t: frames[t.astype(int)]))(self.sequences, self.t)


def held_out_sequences(sequences: Sequences, count: int) -> HeldOut:
    """The sequences of all factors from that many examples.

    Args:
        sequences: what makes them, of held-out data.
        count: how many.

    Returns:
        The sequences, and a time of each.
    """
    rows = np.random.default_rng(0).permutation(sequences.dataset.length)[:count]
    examples = jnp.asarray(sequences.dataset.examples(rows)["example"])
    shape = (len(rows), len(sequences.factors))
    t = jax.random.randint(jax.random.key(0), shape, 1, sequences.frames)
    return HeldOut(_all_sequences(sequences, examples), t.astype(float))


def _all_sequences(
    sequences: Sequences, examples: Float[Array, "N ..."]
) -> Float[Array, "N K T1 h w c"]:
    """The sequences of every factor from each example."""
    made = [
        jax.jit(jax.vmap(partial(sequences.sequence, k=k)))(examples)
        for k in range(len(sequences.factors))
    ]
    return jnp.stack(made, 1)


def sample_bounds(
    model: FlowVAE,
    params: PyTree,
    found: HeldOut,
    *,
    flowed: bool = True,
    samples: int = 64,
    steps: int = 16,
) -> dict[str, float]:
    """Importance-weighted bounds of `x_0` and `x_t`, in nats, each a mean over held-out samples.

    A model whose codes of `x_t` have a prior of their own is taken as what it was trained as, a
    mixture: half of the images are plain, the others share out evenly among factors and times.
    For `plain` and `transformed` it has to pay for this: `p(x)` is at least the part of the
    mixture that belongs to the image's own time. `..._given` is the bound when the time, and the
    factor if it was known in training, are given.

    Args:
        model: the networks.
        params: their parameters.
        found: the sequences.
        flowed: whether the codes of `x_t` were given that prior; of a kind that has one.
        samples: of each bound.
        steps: of the midpoint rule along each path.

    Returns:
        The bounds by name, of the model that moves in these steps, and in `log_prior_error` by how
        much its priors differ from those of an adaptive solver on average.

    References:
        Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016.
    """
    count, own = len(found.t), flowed and model.kind in ("flow", "hamilton-jacobi")
    factors, times = model.members, found.sequences.shape[2] - 1
    bound = partial(_bound, model, params, samples)

    def priors(z: Latent, t: Scalar) -> Float[Array, "K"]:
        """The log-density at time `t` along each of the flows."""
        return jax.vmap(lambda own: _prior(model.one(own), z, t, steps))(params["potentials"])

    def of_mixture(z: Latent, t: Scalar) -> Scalar:
        return jax.nn.logsumexp(priors(z, t)) - jnp.log(2.0 * factors * times)

    keys = jax.random.split(jax.random.key(1), (2, count, found.t.shape[1]))
    each = jax.jit(vmap_chunked(lambda key, x: bound(key, x, log_normal), AT_ONCE))
    plain = each(keys[0, :, 0], found.plain)
    flat, flat_t = found.transformed.reshape(-1, *found.plain.shape[1:]), found.t.reshape(-1)
    flat_keys = keys[1].reshape(-1)
    if not own:
        transformed = each(flat_keys, flat)
        return _row(plain=plain, transformed=transformed)
    along = jax.jit(
        vmap_chunked(lambda key, x, t: bound(key, x, lambda z: of_mixture(z, t)), AT_ONCE)
    )
    transformed = along(flat_keys, flat, flat_t)
    result = _row(
        plain=plain - jnp.log(2.0),
        transformed=transformed,
        plain_given=plain,
        as_standard=each(flat_keys, flat),
    )
    if model.kind == "flow":
        known = jnp.tile(jnp.arange(factors), count)

        def of_factor(key: Array, x: Array, t: Scalar, k: Array) -> Scalar:
            u = select(model.potential, params["potentials"], k)
            return bound(key, x, lambda z: _prior(u, z, t, steps))

        given = jax.jit(vmap_chunked(of_factor, AT_ONCE))
        result |= _row(transformed_given=given(flat_keys, flat, flat_t, known))
    few = slice(0, CHECKED)
    result["log_prior_error"] = _density_error(
        model, params, jax.vmap(model.encoder(params))(flat[few])[0], flat_t[few], steps
    )
    return result


def frame_bounds(
    model: FlowVAE,
    params: PyTree,
    found: HeldOut,
    *,
    flowed: bool = True,
    samples: int = 64,
    steps: int = 16,
) -> dict[str, float]:
    r"""Importance-weighted bounds of single frames of sequences, none told its factor or time.

    A model of sequences has a density of single frames: that of a random frame of a random one,

    $$p(x) = \frac{1}{K (T + 1)} \sum_{k, t} \int p(x \mid z)\, p_{k, t}(z)\, dz$$

    with `p_{k, t}` the N(0, I) of the first frame, carried along flow `k` for a time `t`.

    Args:
        model: the networks.
        params: their parameters.
        found: the sequences, of each of which a frame at a random time is taken.
        flowed: whether the model was trained with that prior; of a kind that has one.
        samples: of each bound.
        steps: of the midpoint rule along each path.

    Returns:
        Means in nats: `iwae_frame_standard` under N(0, I), which is all that a model without a flow
        has, and `iwae_frame_marginal` under the density above, where it has one.

    References:
        Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016.
    """
    shape = found.sequences.shape
    which = jax.random.randint(jax.random.key(4), shape[:2], 0, shape[2])
    picked = jax.vmap(jax.vmap(lambda frames, t: frames[t]))(found.sequences, which)
    xs = picked.reshape(-1, *shape[3:])
    keys = jax.random.split(jax.random.key(5), len(xs))
    later = jnp.arange(1.0, shape[2])

    def marginal(z: Latent) -> Scalar:
        def of(own: PyTree) -> Float[Array, "t"]:
            moved = jax.vmap(lambda t: _prior(model.one(own), z, t, steps))(later)
            return jnp.append(moved, log_normal(z))

        each = jax.vmap(of)(params["potentials"])
        return jax.nn.logsumexp(each) - jnp.log(float(each.size))

    def mean(log_prior: Callable[[Latent], Scalar]) -> Array:
        one = partial(_bound, model, params, samples, log_prior=log_prior)
        return jax.jit(vmap_chunked(one, AT_ONCE))(keys, xs)

    result = _row(frame_standard=mean(log_normal))
    if flowed and model.kind in ("flow", "hamilton-jacobi"):
        result |= _row(frame_marginal=mean(marginal))
    return result


def _bound(
    model: FlowVAE,
    params: PyTree,
    samples: int,
    key: Array,
    x: Array,
    log_prior: Callable[[Latent], Scalar],
) -> Scalar:
    """The importance-weighted bound of one sample under a prior of one's own."""
    likelihood = model.log_likelihood(params)

    def joint(x: Array, z: Latent) -> Scalar:
        return likelihood(x, z) + log_prior(z) - log_normal(z)

    return iwae_bound(key, model.encoder(params), joint, x, samples=samples)


def _density_error(
    model: FlowVAE, params: PyTree, zs: Float[Array, "n d"], ts: Float[Array, "n"], steps: int
) -> float:
    """By how much the priors are off, in nats: the mean difference from an adaptive solver's."""

    def error(own: Any, z: Latent, t: Scalar) -> Scalar:
        u = model.one(own)
        exact = flows.log_density(
            flows.gradient(u),
            log_normal,
            z,
            0.0,
            t,
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-6),
        )
        return jnp.abs(_prior(u, z, t, steps) - exact)

    each = jax.vmap(lambda own: jax.vmap(partial(error, own))(zs, ts))
    return float(jnp.mean(jax.jit(each)(params["potentials"])))


def _prior(u: Potential, z: Latent, t: Scalar, steps: int) -> Scalar:
    """The log-density at time `t` of N(0, I) carried along the flow of a potential, in steps."""
    return flows.stepped_log_density(flows.gradient(u), log_normal, z, 0.0, t, steps=steps)


def _row(**values: Array) -> dict[str, float]:
    return {f"iwae_{name}": float(jnp.mean(value)) for name, value in values.items()}


def sequence_bound(
    model: FlowVAE, params: PyTree, found: HeldOut, *, samples: int = 64, steps: int = 16
) -> float | None:
    """Importance-weighted bound of whole sequences, in nats a frame.

    Without a flow, frames are independent. With one, all follow from `z_0` and the factor: given,
    if it was known in training; otherwise summed over.

    Args:
        model: the networks.
        params: their parameters.
        found: the sequences.
        samples: of each bound.
        steps: of the midpoint rule along a sequence.

    Returns:
        The mean over sequences; None for inferred gates, whose prior has no density.

    References:
        Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016.
    """
    if model.kind == "sparse":
        return None
    encode, likelihood = model.encoder(params), model.log_likelihood(params)
    keys = jax.random.split(jax.random.key(2), found.t.shape)
    frames = found.sequences.shape[2]
    if model.kind not in WITH_FLOW:

        def independent(key: Array, xs: Array) -> Scalar:
            one = partial(iwae_bound, encode=encode, log_likelihood=likelihood, samples=samples)
            return jnp.mean(
                jax.lax.map(lambda a: one(a[0], x=a[1]), (jax.random.split(key, frames), xs))
            )

        values = jax.jit(vmap_chunked(jax.vmap(independent), AT_ONCE))(keys, found.sequences)
        return float(jnp.mean(values))

    def joint(xs: Array, weights: Array, z: Latent) -> Scalar:
        field = flows.gradient(model.mixture(params, weights))
        zs = follow_frames(field, z, jnp.arange(float(frames)), steps)
        return jnp.sum(jax.vmap(likelihood)(xs, zs))

    def of_factor(key: Array, xs: Array, weights: Array) -> Scalar:
        return iwae_bound(
            key,
            lambda xs: encode(xs[0]),
            lambda xs, z: joint(xs, weights, z),
            xs,
            samples=samples,
        )

    def dependent(key: Array, xs: Array, k: Array) -> Scalar:
        if model.kind == "flow":
            return of_factor(key, xs, jax.nn.one_hot(k, model.members)) / frames
        each = jax.vmap(partial(of_factor, key, xs))(jnp.eye(model.members))
        return (jax.nn.logsumexp(each) - jnp.log(model.members)) / frames

    known = jnp.tile(jnp.arange(found.t.shape[1]), (len(found.t), 1))
    values = jax.jit(vmap_chunked(jax.vmap(dependent), AT_ONCE))(keys, found.sequences, known)
    return float(jnp.mean(values))


def follow_frames(
    field: Callable[[Any, Latent], Latent], z: Latent, ts: Float[Array, "t"], steps: int
) -> Float[Array, "t d"]:
    """The codes along a flow, at the times of frames, in at least `steps` steps altogether.

    Args:
        field: `(t, z) -> vector`.
        z: the code of the first frame.
        ts: the times, evenly spaced from 0.
        steps: of the midpoint rule.

    Returns:
        The codes.

    >>> print(follow_frames(lambda t, z: 2 * t + 0 * z, jnp.zeros(1), jnp.arange(3.0), 4).T)
    [[0. 1. 4.]]
    """
    between = -(-steps // (len(ts) - 1))
    fine = jnp.interp(jnp.arange((len(ts) - 1) * between + 1) / between, jnp.arange(len(ts)), ts)
    return flows.integrate(field, z, fine, solver=flows.solver("midpoint")).zs[::between]


def follower(model: FlowVAE, params: PyTree, *, steps: int = 16) -> Follow | None:
    """The kind's own flow, its factor given or read off the first and the last sample.

    Args:
        model: the networks.
        params: their parameters.
        steps: of the midpoint rule along a path.

    Returns:
        `(k, x_T, z_0, ts) -> codes`; None for a kind without a flow.
    """
    if model.kind not in WITH_FLOW:
        return None
    encode = model.encoder(params)
    apply: Any = model.recogniser.apply

    def follow(which: Array, last: Array, z: Latent, ts: Float[Array, "t"]) -> Float[Array, "t d"]:
        if model.kind == "flow":
            weights = jax.nn.one_hot(which, model.members)
        else:
            read = apply(params["recogniser"], z, encode(last)[0])
            weights = jax.nn.one_hot(jnp.argmax(read), model.members)
        if model.kind == "sparse":
            logits, mean, _ = jnp.split(read, 3)
            opened = jnp.where(logits > 0, mean, 0.0)
            horizon = model.potential.horizon

            def end(t: Scalar) -> Latent:
                field = model.acting(params, opened * t / horizon)
                return flows.carry(field, z, 0.0, horizon, steps=steps)

            return jax.vmap(end)(ts)
        return follow_frames(flows.gradient(model.mixture(params, weights)), z, ts, steps)

    return follow


def factor_directions(
    model: FlowVAE, params: PyTree, train: Sequences, *, count: int = 1000, seed: int = 0
) -> Float[Array, "K d"]:
    """For each factor the change of the code in a unit of time, by least squares on training data.

    The best that one straight direction a factor can do in the latent space.

    Args:
        model: the networks.
        params: their parameters.
        train: what makes sequences.
        count: examples, at most, whose sequences are looked at.
        seed: which.

    Returns:
        The directions.
    """
    count = min(count, train.dataset.length)
    rows = np.random.default_rng(seed).permutation(train.dataset.length)[:count]
    examples = jnp.asarray(train.dataset.examples(rows)["example"])
    encode, ts = model.encoder(params), jnp.arange(float(train.frames))

    def moments(k: int, example: Array) -> Array:
        codes = jax.vmap(lambda x: encode(x)[0])(train.sequence(example, k))
        return ts @ (codes - codes[0]) / jnp.sum(ts**2)

    slopes = [
        jnp.mean(jax.jit(vmap_chunked(partial(moments, k), 100))(examples), 0)
        for k in range(len(train.factors))
    ]
    return jnp.stack(slopes)


def factor_equivariance(
    model: FlowVAE,
    params: PyTree,
    found: HeldOut,
    straight: Float[Array, "K d"],
    names: tuple[str, ...],
    *,
    steps: int = 16,
) -> dict[str, Any]:
    """Errors of flows, of straight directions, and of nothing at all, in pixels a frame.

    Args:
        model: the networks.
        params: their parameters.
        found: the sequences.
        straight: a direction for each factor, see `factor_directions`.
        names: of the factors.
        steps: of the midpoint rule along a path.

    Returns:
        Means by name, and those of each factor as rows in `factors`. `equivariance` is that of
        what the kind has, a flow or straight directions.

    References:
        Song, Keller, Sebe and Welling, *Flow Factorized Representation Learning*, 2023, section 4.
    """
    encode = model.encoder(params)
    decode = generator(model.vae, params["vae"])
    own = follower(model, params, steps=steps)
    frames = found.sequences.shape[2]
    ts = jnp.arange(float(frames))

    def errors(xs: Array, k: Array) -> dict[str, Scalar]:
        def of(follow: Callable[[Latent, Array], Array]) -> Any:
            return equivariance_error(lambda x: encode(x)[0], decode, follow, xs, ts)

        line = of(lambda z, ts: z + ts[:, None] * straight[k])
        result = {
            "straight": line.total / (frames - 1),
            "still": line.still / (frames - 1),
            "rebuilt": line.rebuilt / (frames - 1),
        }
        if own is not None:
            result["flow"] = of(partial(own, k, xs[-1])).total / (frames - 1)
        return result

    known = jnp.tile(jnp.arange(len(straight)), (len(found.t), 1))
    each = jax.jit(vmap_chunked(jax.vmap(errors), AT_ONCE))(found.sequences, known)
    means = {name: np.asarray(value.mean(0)) for name, value in each.items()}
    best = means.get("flow", means["straight"])
    rows = [
        {"factor": name, **{key: float(value[k]) for key, value in means.items()}}
        for k, name in enumerate(names)
    ]
    overall = {f"equivariance_{key}": float(value.mean()) for key, value in means.items()}
    return {"equivariance": float(best.mean()), **overall, "factors": rows}

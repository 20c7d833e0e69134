"""What a VAE trained with flows explains of held-out images, and how well its flows move them."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.flow_vae.config import PHASE, WITH_FLOW, Config
from experiments.flow_vae.model import (
    Model,
    acting,
    encoder,
    log_likelihood,
    mixture,
    potential,
)
from experiments.runtime import tables
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params
from latent_flows import flows, plots
from latent_flows._transforms import vmap_chunked
from latent_flows.data.sequences import Sequences
from latent_flows.evaluation import equivariance_error, iwae_bound
from latent_flows.generators.vae import generator
from latent_flows.objectives import log_normal
from latent_flows.potentials import select
from latent_flows.typing import Latent, Potential, Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_ONCE = 10
"""Images, or sequences, whose bounds are computed at once: each takes all its samples' memory."""
FITTED_ON = 1000
"""Training sequences that straight directions are fitted to."""

CHECKED = 24
"""Codes at which the flow's change of density is computed a second time, by another solver."""

Follow = Callable[[Array, Array, Latent, Float[Array, "t"]], Float[Array, "t d"]]


class HeldOut(NamedTuple):
    """Held-out sequences, the same for every kind and seed: `[N, K, T + 1, h, w, c]`."""

    sequences: Float[Array, "N K T1 h w c"]
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


def held_out(sequences: Sequences, count: int) -> HeldOut:
    """The sequences of all factors from that many examples."""
    rows = np.random.default_rng(0).permutation(sequences.dataset.length)[:count]
    examples = jnp.asarray(sequences.dataset.examples(rows)["example"])
    shape = (len(rows), len(sequences.factors))
    t = jax.random.randint(jax.random.key(0), shape, 1, sequences.frames)
    return HeldOut(all_sequences(sequences, examples), t.astype(float))


def all_sequences(
    sequences: Sequences, examples: Float[Array, "N ..."]
) -> Float[Array, "N K T1 h w c"]:
    """The sequences of every factor from each example."""
    made = [
        jax.jit(jax.vmap(partial(sequences.sequence, k=k)))(examples)
        for k in range(len(sequences.factors))
    ]
    return jnp.stack(made, 1)


def measure(
    model: Model, config: Config, params: Params, train: Sequences, test: Sequences
) -> dict[str, Any]:
    """All numbers of a run, each a mean over the held-out images; bounds are in nats an image."""
    found = held_out(test, min(config.scores.images, test.dataset.length))
    result: dict[str, Any] = {
        "kind": model.kind,
        "test_images": len(found.t),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }
    result |= bounds(model, config, params, found)
    few = jax.tree.map(lambda leaf: leaf[: config.scores.sequences], found)
    result["iwae_sequence"] = of_sequences(model, config, params, few)
    straight = straight_directions(model, params, train, config.seed)
    result |= equivariance(model, config, params, few, straight, test)
    return result


# --- bounds ---


def bounds(model: Model, config: Config, params: Params, found: HeldOut) -> dict[str, float]:
    """Importance-weighted bounds of `x_0` and `x_t`.

    A model whose codes of `x_t` have a prior of their own is taken as what it was trained as, a
    mixture: half of the images are plain, the others share out evenly among factors and times.
    For `plain` and `transformed` it has to pay for this: `p(x)` is at least the part of the
    mixture that belongs to the image's own time. `..._given` is the bound when the time, and the
    factor if it was known in training, are given.
    """
    count, own = len(found.t), flowed(model, config)
    encode, likelihood = encoder(model, params), log_likelihood(model, params)
    samples, steps = config.scores.samples, config.scores.steps
    factors, times = model.members, config.frames - 1

    def bound(key: Array, x: Array, log_prior: Callable[[Latent], Scalar]) -> Scalar:
        def joint(x: Array, z: Latent) -> Scalar:
            return likelihood(x, z) + log_prior(z) - log_normal(z)

        return iwae_bound(key, encode, joint, x, samples=samples)

    def priors(z: Latent, t: Scalar) -> Float[Array, "K"]:
        """The log-density at time `t` along each of the flows."""
        return jax.vmap(lambda own: prior(potential(model, own), z, t, steps))(params["potentials"])

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
            return bound(key, x, lambda z: prior(u, z, t, steps))

        given = jax.jit(vmap_chunked(of_factor, AT_ONCE))
        result |= _row(transformed_given=given(flat_keys, flat, flat_t, known))
    few = slice(0, CHECKED)
    result["log_prior_error"] = density_error(
        model, config, params, jax.vmap(encode)(flat[few])[0], flat_t[few]
    )
    return result


def density_error(
    model: Model, config: Config, params: Params, zs: Float[Array, "n d"], ts: Float[Array, "n"]
) -> float:
    """By how much the priors are off, in nats: the mean difference from an adaptive solver's.

    A bound is one only as far as the flow's change of density is known.
    """

    def error(own: Any, z: Latent, t: Scalar) -> Scalar:
        u = potential(model, own)
        exact = flows.log_density(
            flows.gradient(u),
            log_normal,
            z,
            0.0,
            t,
            stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-6),
        )
        return jnp.abs(prior(u, z, t, config.scores.steps) - exact)

    each = jax.vmap(lambda own: jax.vmap(partial(error, own))(zs, ts))
    return float(jnp.mean(jax.jit(each)(params["potentials"])))


def prior(u: Potential, z: Latent, t: Scalar, steps: int) -> Scalar:
    """The log-density at time `t` of N(0, I) carried along the flow of a potential."""
    return flows.origin(u, log_normal, z, t, steps=steps).log_density


def flowed(model: Model, config: Config) -> bool:
    """Whether codes of transformed images have a prior of their own."""
    return model.kind in WITH_FLOW and model.kind != "sparse" and config.objective.prior == "flowed"


def _row(**values: Array) -> dict[str, float]:
    return {f"iwae_{name}": float(jnp.mean(value)) for name, value in values.items()}


def of_sequences(model: Model, config: Config, params: Params, found: HeldOut) -> float | None:
    """Importance-weighted bound of whole sequences, in nats a frame.

    Without a flow, frames are independent. With one, all follow from `z_0` and the factor: given,
    if it was known in training; otherwise summed over. None for inferred gates, whose prior has
    no density.
    """
    if model.kind == "sparse":
        return None
    encode, likelihood = encoder(model, params), log_likelihood(model, params)
    samples, steps = config.scores.samples, config.scores.steps
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
        field = flows.gradient(mixture(model, params, weights))
        zs = path(field, z, jnp.arange(float(frames)), steps)
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


def path(
    field: Callable[[Any, Latent], Latent], z: Latent, ts: Float[Array, "t"], steps: int
) -> Float[Array, "t d"]:
    """The codes along a flow, at the times of frames, in at least `steps` steps altogether."""
    between = -(-steps // (len(ts) - 1))
    fine = jnp.interp(jnp.arange((len(ts) - 1) * between + 1) / between, jnp.arange(len(ts)), ts)
    return flows.integrate(field, z, fine, solver=flows.solver("midpoint")).zs[::between]


# --- equivariance ---


def follower(model: Model, config: Config, params: Params) -> Follow | None:
    """`(x_0, x_T, z_0, ts) -> codes` by the kind's own flow, its factor given or read off both."""
    if model.kind not in WITH_FLOW:
        return None
    encode = encoder(model, params)
    apply: Any = model.recogniser.apply
    steps = config.scores.steps

    def follow(which: Array, last: Array, z: Latent, ts: Float[Array, "t"]) -> Float[Array, "t d"]:
        if model.kind == "flow":
            weights = jax.nn.one_hot(which, model.members)
        else:
            read = apply(params["recogniser"], z, encode(last)[0])
            weights = jax.nn.one_hot(jnp.argmax(read), model.members)
        if model.kind == "sparse":
            logits, mean, _ = jnp.split(read, 3)
            opened = jnp.where(logits > 0, mean, 0.0)
            horizon = config.frames - 1.0

            def end(t: Scalar) -> Latent:
                field = acting(model, params, opened * t / horizon)
                return flows.carry(field, z, 0.0, horizon, steps=steps)

            return jax.vmap(end)(ts)
        return path(flows.gradient(mixture(model, params, weights)), z, ts, steps)

    return follow


def straight_directions(
    model: Model, params: Params, train: Sequences, seed: int
) -> Float[Array, "K d"]:
    """For each factor the change of the code in a unit of time, by least squares on training data.

    The best that one straight direction a factor can do in the latent space.
    """
    count = min(FITTED_ON, train.dataset.length)
    rows = np.random.default_rng(seed).permutation(train.dataset.length)[:count]
    examples = jnp.asarray(train.dataset.examples(rows)["example"])
    encode, ts = encoder(model, params), jnp.arange(float(train.frames))

    def moments(k: int, example: Array) -> Array:
        codes = jax.vmap(lambda x: encode(x)[0])(train.sequence(example, k))
        return ts @ (codes - codes[0]) / jnp.sum(ts**2)

    slopes = [
        jnp.mean(jax.jit(vmap_chunked(partial(moments, k), 100))(examples), 0)
        for k in range(len(train.factors))
    ]
    return jnp.stack(slopes)


def equivariance(
    model: Model,
    config: Config,
    params: Params,
    found: HeldOut,
    straight: Float[Array, "K d"],
    test: Sequences,
) -> dict[str, Any]:
    """Errors of flows, of straight directions, and of nothing at all, in pixels a frame.

    `equivariance` is that of what the kind has, a flow or straight directions.
    """
    encode = encoder(model, params)
    decode = generator(model.vae, params["vae"])
    own = follower(model, config, params)
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
        for k, name in enumerate(test.factors)
    ]
    overall = {f"equivariance_{key}": float(value.mean()) for key, value in means.items()}
    return {"equivariance": float(best.mean()), **overall, "factors": rows}


# --- pictures ---


def draw(
    folder: Folder, model: Model, config: Config, params: Params, test: Sequences
) -> list[str]:
    """Save sequences and losses; gives the files of those that could not be drawn."""
    figures: dict[str, Callable[[], Figure]] = {
        "sequences": partial(draw_sequences, model, config, params, test),
        "losses_vae": lambda: plots.loss_curves(
            folder.rows(PHASE), caption="Loss per pixel, and its terms in nats per image."
        ),
    }
    return tables.save_figures(folder, figures)


def draw_sequences(model: Model, config: Config, params: Params, test: Sequences) -> "Figure":
    """True sequences, what becomes of `x_0` by the flow, and reconstructions."""
    found = held_out(test, 1)
    encode, decode = encoder(model, params), generator(model.vae, params["vae"])
    own = follower(model, config, params)
    ts = jnp.arange(float(config.frames))
    rows, labels = [], []
    for k, name in enumerate(test.factors):
        xs = found.sequences[0, k]
        rows.append(xs)
        labels.append(f"{name}: true")
        if own is not None:
            codes = own(jnp.asarray(k), xs[-1], encode(xs[0])[0], ts)
            rows.append(jax.vmap(decode)(codes))
            labels.append("by the flow, from the first")
        rows.append(jax.vmap(lambda x: decode(encode(x)[0]))(xs))
        labels.append("each reconstructed")
    return plots.strips(
        np.asarray(jnp.stack(rows)),
        row_labels=labels,
        axis="time",
        caption=f"Held-out sequences of {test.dataset.name}; kind: {model.kind}.",
    )

# %% [markdown]
# # A potential flow
#
# Four potentials $u_k(t, z)$ are learnt on the latent space of a generator. Each obeys the wave
# equation, and its gradient flow $\dot z = \nabla_z u_k$ is a traversal. Nothing is labelled: the
# flows are only asked to move, each along few axes, and no two along the same one, *as the
# generator's metric sees it*. The training loop is `optax`'s, in the open.

# %%
import sys
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from latent_flows import flows, geometry, pde, potentials

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")

# %% [markdown]
# ## The generator
#
# Any differentiable function from one latent to one sample. This one draws a soft ellipse; its
# latents move it across and down, enlarge it and stretch it.


# %%
def generator(z):
    y, x = jnp.mgrid[-1:1:32j, -1:1:32j]
    size, stretch = 0.3 * jnp.exp(0.25 * z[2]), jnp.exp(0.3 * z[3])
    u, v = (x - 0.3 * z[0]) / (size * stretch), (y - 0.3 * z[1]) / (size / stretch)
    return jax.nn.sigmoid(6 * (1 - u**2 - v**2))[..., None]


NAMES = ("across", "down", "size", "elongation")
DIM = COUNT = 4
metric = geometry.pullback(generator)  # J'J: squared lengths of images, at latents

# %% [markdown]
# ## The loss
#
# One latent, one time. `contributions[k, i]` is how far flow `k` moves the image by way of latent
# axis `i`. From it come three terms, beside the residual of the equation:
#
# - *sparse*: each flow moves along few axes;
# - *apart*: no two flows move along the same axis;
# - *pace*: every flow moves the image about as far per unit of time.

# %%
net = potentials.PotentialNet(width=32, horizon=8.0)
HORIZON, SPEED, PACE = 8.0, 0.3, 1.0


def sample_terms(params, t, z):
    def member(k):
        u = potentials.select(net, params, k)
        terms = jnp.stack(pde.wave(u, SPEED).terms(t, z))  # u_tt and -c^2 Laplacian u
        return terms, flows.gradient(u)(t, z)

    terms, velocity = jax.vmap(member)(jnp.arange(COUNT))
    contributions = velocity * jnp.sqrt(jnp.diagonal(metric(z)) + 1e-9)
    return terms, contributions


def loss(params, key):
    key_t, key_z = jax.random.split(key)
    ts = jax.random.uniform(key_t, (32,), maxval=HORIZON)
    zs = jax.random.normal(key_z, (32, DIM))
    terms, moves = jax.vmap(sample_terms, (None, 0, 0))(params, ts, zs)
    # A residual is small only compared with its terms.
    residual = jnp.mean(terms.sum(-1) ** 2) / jnp.mean((terms**2).sum(-1))
    square = jnp.mean(moves**2, axis=0)  # [k, axis]
    share = square / square.sum(1, keepdims=True)
    sparse = -jnp.mean(jnp.sum(share * jnp.log(share + 1e-9), axis=1)) / jnp.log(DIM)
    apart = jnp.sum(share @ share.T * (1 - jnp.eye(COUNT))) / (COUNT * (COUNT - 1))
    pace = jnp.mean((0.5 * jnp.log(square.sum(1) + 1e-9) - jnp.log(PACE)) ** 2)
    # The same way from every latent: the mean over latents is as long as the moves are.
    steady = 1 - jnp.mean(jnp.sum(moves.mean(0) ** 2, axis=1) / square.sum(1))
    return residual + sparse + 4 * apart + pace + steady


# %% [markdown]
# ## The loop

# %%
params = potentials.init_stack(net, jax.random.key(0), count=COUNT, dim=DIM)
STEPS = 800
optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))
state = optimizer.init(params)


@jax.jit
def step(params, state, key):
    value, gradient = jax.value_and_grad(loss)(params, key)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, value


for i, key in enumerate(jax.random.split(jax.random.key(1), STEPS)):
    params, state, value = step(params, state, key)
    if i % 200 == 0 or i == STEPS - 1:
        print(f"step {i:4d}  loss {value:.3f}")

# %% [markdown]
# ## The traversals
#
# Each flow is followed from the same latent by an adaptive solver, forwards and backwards.


# %%
@jax.jit
def traverse(k, z0):
    field = flows.gradient(potentials.select(net, params, k))
    adjoint = diffrax.ForwardMode()
    ahead = flows.integrate(field, z0, jnp.linspace(0.0, HORIZON, 5), adjoint=adjoint)
    back = flows.integrate(flows.reverse(field), z0, jnp.linspace(0.0, HORIZON, 5), adjoint=adjoint)
    return jnp.concatenate([back.zs[:0:-1], ahead.zs])


paths = jax.vmap(traverse, (0, None))(jnp.arange(COUNT), jnp.zeros(DIM))
images = jax.vmap(jax.vmap(generator))(paths)
figure, axes = plt.subplots(COUNT, 9, figsize=(9, 4.4), layout="constrained")
for k in range(COUNT):
    change = jnp.abs(paths[k, -1] - paths[k, 0])
    most = int(change.argmax())
    print(f"flow {k}: {NAMES[most]}, {change[most] / change.sum():.0%} of the change of its latent")
    axes[k, 0].set_ylabel(f"flow {k}\n{NAMES[most]}", fontsize=9)
    for column, image in enumerate(images[k]):
        axes[k, column].imshow(
            image[..., 0], cmap="magma", vmin=0, vmax=1, interpolation="bilinear"
        )
        axes[k, column].set(xticks=[], yticks=[])
for column, t in enumerate(jnp.linspace(-HORIZON, HORIZON, 9)):
    axes[0, column].set_title(f"t = {t:.0f}", fontsize=9)
pictures.mkdir(parents=True, exist_ok=True)
figure.savefig(pictures / "potential_flow.png", dpi=110)

# %% [markdown]
# # A geodesic
#
# A small VAE with two latents is trained on handwritten digits, its decoder is taken as a surface,
# and codes are joined by the shortest paths on that surface. A straight line may go where there
# are no data; the shortest path keeps to the codes.

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn

from latent_flows import data, geometry

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")

# %% [markdown]
# ## A generator
#
# The digits 0, 1, 4 and 6 of scikit-learn, 8 by 8 pixels. The network is flax's here; the library
# only ever sees a closed function `z -> x`.

# %%
digits = data.load("digits", split="train")
rows = digits.examples(np.arange(digits.length))
kept = np.isin(rows["label"], [0, 1, 4, 6])
images, labels = jnp.asarray(rows["image"][kept]), rows["label"][kept]


class VAE(nn.Module):
    def setup(self):
        self.encoder = nn.Sequential([nn.Dense(96), jnp.tanh, nn.Dense(4)])
        self.decoder = nn.Sequential([nn.Dense(96), jnp.tanh, nn.Dense(64)])

    def encode(self, x):
        return jnp.split(self.encoder(x.reshape(64)), 2)

    def decode(self, z):
        return nn.sigmoid(self.decoder(z)).reshape(8, 8, 1)

    def __call__(self, x, noise):  # -ELBO
        mean, log_var = self.encode(x)
        logits = self.decoder(mean + jnp.exp(log_var / 2) * noise)
        error = optax.sigmoid_binary_cross_entropy(logits, x.reshape(64)).sum()
        return error + 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - log_var - 1)


vae = VAE()
params = vae.init(jax.random.key(0), images[0], jnp.zeros(2))
STEPS = 3000
optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, STEPS))


@jax.jit
def step(carry, key):
    params, state = carry
    batch = jax.random.choice(key, images, (64,))
    noise = jax.random.normal(jax.random.fold_in(key, 1), (64, 2))

    def loss(params):
        return jax.vmap(vae.apply, (None, 0, 0))(params, batch, noise).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state, params)
    return (optax.apply_updates(params, updates), state), value


keys = jax.random.split(jax.random.key(1), STEPS)
(params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), keys)
print(f"-ELBO in nats an image: {losses[:100].mean():.1f} at first, {losses[-100:].mean():.1f} now")

# %% [markdown]
# ## Its metric
#
# A decoder's mean says nothing of where data are. As in *Latent Space Oddity*, a deviation that
# grows away from the codes makes the way through empty space long; `stochastic_pullback` gives
# the expected metric.

# %%
codes = jax.vmap(lambda x: vae.apply(params, x, method="encode")[0])(images)


def decode(z):
    return vae.apply(params, z, method="decode")


def deviation(z):
    near = jnp.exp(-jnp.sum((codes - z) ** 2, axis=1) / (2 * 0.25**2)).sum()
    return jnp.full(64, 1 / jnp.sqrt(near + 0.05))


metric = geometry.stochastic_pullback(decode, deviation)

# %% [markdown]
# ## The shortest paths
#
# Of 40 pairs of codes, all joined at once by `jax.vmap`, the one is drawn that the straight line
# serves worst.


# %%
def line(a, b):
    return lambda s: a + s * (b - a)


@jax.jit
@jax.vmap
def join(a, b):
    return geometry.geodesic(metric, a, b), geometry.length(metric, line(a, b))


ends = jax.random.choice(jax.random.key(2), codes, (2, 40), replace=False)
paths, straight = join(*ends)
ratios = jnp.where(paths.converged, paths.length / straight, 1.0)
print(f"{paths.converged.mean():.0%} converged; {jnp.median(ratios):.2f} of the straight lengths")
worst = ratios.argmin()
path = jax.tree.map(lambda leaf: leaf[worst], paths)
assert path.length < straight[worst]

# %% [markdown]
# Left, the latents: dark where the volume element is large. Right, what lies along both ways.

# %%
s = jnp.linspace(0.0, 1.0, 9)
ways = {"geodesic": jax.vmap(path)(s), "straight": jax.vmap(line(*ends[:, worst]))(s)}
low, high = codes.min(0) - 0.5, codes.max(0) + 0.5
grid = jnp.stack(jnp.meshgrid(*(jnp.linspace(low[i], high[i], 80) for i in (0, 1))), -1)
volume = jax.jit(jax.vmap(jax.vmap(geometry.log_volume(metric))))(grid)
figure = plt.figure(figsize=(11, 3.4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1, 1.7))
plane = left.subplots()
plane.pcolormesh(grid[..., 0], grid[..., 1], volume, cmap="Greys")
plane.scatter(*codes.T, c=labels, cmap="tab10", s=5)
plane.plot(*jax.vmap(path)(jnp.linspace(0, 1, 200)).T, "tab:red", lw=2, label="geodesic")
plane.plot(*ways["straight"].T, "tab:blue", lw=2, label="straight")
plane.legend(fontsize=8)
lengths = (path.length, straight[worst])
for row, length, (name, zs) in zip(right.subplots(2, 9), lengths, ways.items(), strict=True):
    for axis, image in zip(row, jax.vmap(decode)(zs), strict=True):
        axis.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)
        axis.axis("off")
    row[4].set_title(f"{name}: length {length:.1f}", fontsize=11)
pictures.mkdir(parents=True, exist_ok=True)
figure.savefig(pictures / "geodesic.png", dpi=110)

# %% [markdown]
# # Counts on a circle
#
# Cells that go through a cycle are seen by the counts of their genes. A VAE with a
# negative-binomial likelihood, as single-cell analysts use, puts them on a plane that is bent by
# chance. The Fisher-Rao metric of the likelihood measures that plane in the units of the counts:
# how far apart two cells are is how well their genes tell them apart.

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn
from scipy.stats import spearmanr

from latent_flows import geometry
from latent_flows.geometry import families

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")

# %% [markdown]
# ## Cells whose cycle is known
#
# Each of 200 genes is on for a part of the cycle; counts have more variance than Poisson's.

# %%
GENES, CELLS, DISPERSION = 200, 2000, 5.0
random = np.random.default_rng(0)
phase = random.uniform(0, 2 * np.pi, CELLS)
peak, strength = random.uniform(0, 2 * np.pi, GENES), random.gamma(2.0, 0.5, GENES)
rate = np.exp(random.normal(0.5, 0.7, GENES) + strength * np.cos(phase[:, None] - peak))
counts = jnp.asarray(random.poisson(random.gamma(DISPERSION, rate / DISPERSION)), jnp.float32)

# %% [markdown]
# ## A VAE of counts
#
# The decoder gives the logarithm of each gene's mean. Half of the cells are held out.


# %%
class VAE(nn.Module):
    def setup(self):
        self.encoder = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(4)])
        self.decoder = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(GENES)])

    def encode(self, x):
        return jnp.split(self.encoder(jnp.log1p(x)), 2)

    def decode(self, z):
        return self.decoder(z)

    def __call__(self, x, noise):  # -ELBO, but for a constant
        mean, log_var = self.encode(x)
        log_mean = self.decoder(mean + jnp.exp(log_var / 2) * noise)
        spread = jnp.logaddexp(log_mean, jnp.log(DISPERSION))
        error = jnp.sum((x + DISPERSION) * spread - x * log_mean)
        return error + 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - log_var - 1)


vae, train, held_out = VAE(), counts[: CELLS // 2], counts[CELLS // 2 :]
params = vae.init(jax.random.key(0), counts[0], jnp.zeros(2))
STEPS = 2000
optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))


@jax.jit
def step(carry, key):
    params, state = carry
    rows = jax.random.choice(key, train, (64,))
    noise = jax.random.normal(jax.random.fold_in(key, 1), (64, 2))

    def loss(params):
        return jax.vmap(vae.apply, (None, 0, 0))(params, rows, noise).mean()

    gradient = jax.grad(loss)(params)
    updates, state = optimizer.update(gradient, state, params)
    return (optax.apply_updates(params, updates), state), None


keys = jax.random.split(jax.random.key(1), STEPS)
(params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
codes = jax.vmap(lambda x: vae.apply(params, x, method="encode")[0])(held_out)

# %% [markdown]
# ## How far apart are two cells?
#
# Of 200 pairs of held-out cells: the distance in the metric of the counts, and the straight one
# between codes. Both are ranked beside the arc of the cycle that lies between the cells.


# %%
def decode(z):
    return vae.apply(params, z, method="decode")


metric = geometry.fisher_rao(decode, families.negative_binomial(DISPERSION))
first, second = random.choice(len(codes), (2, 200), replace=False)
turn = np.abs(phase[CELLS // 2 :][first] - phase[CELLS // 2 :][second])
arc = np.minimum(turn, 2 * np.pi - turn)
join = jax.jit(lambda a, b: geometry.geodesic_batch(metric, a, b, segments=16))
paths = join(codes[first], codes[second])
straight = jnp.linalg.norm(codes[first] - codes[second], axis=1)
follows = {
    "Fisher-Rao": spearmanr(arc, paths.length).statistic,
    "straight in the latent": spearmanr(arc, straight).statistic,
}
print(f"{paths.converged.mean():.0%} of the geodesics converged")
for name, value in follows.items():
    print(f"rank correlation with the arc, {name}: {value:.3f}")
assert follows["Fisher-Rao"] >= 0.95

# %% [markdown]
# Left, the codes by their phase, over the volume of the metric (dark: large), with some of the
# geodesics; right, both distances beside the arc.

# %%
figure, (plane, ranks) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
low, high = codes.min(0) - 0.3, codes.max(0) + 0.3
grid = jnp.stack(jnp.meshgrid(*(jnp.linspace(low[i], high[i], 60) for i in (0, 1))), -1)
volume = jax.jit(jax.vmap(jax.vmap(geometry.log_volume(metric))))(grid)
plane.pcolormesh(grid[..., 0], grid[..., 1], volume, cmap="Greys", alpha=0.6)
seen = plane.scatter(*codes.T, c=phase[CELLS // 2 :], cmap="twilight", s=6)
figure.colorbar(seen, label="phase of the cycle")
for points in paths.points[:12]:
    plane.plot(*points.T, "tab:red", lw=1.2)
plane.set(title="codes, and geodesics of the counts", xlabel="$z_1$", ylabel="$z_2$")
for name, values, colour in [
    ("Fisher-Rao", paths.length, "tab:red"),
    ("straight in the latent", straight, "tab:gray"),
]:
    shown = values / values.max()
    ranks.scatter(arc, shown, s=9, color=colour, label=f"{name}: {follows[name]:.3f}")
ranks.set(
    title="distance and arc: rank correlation",
    xlabel="arc of the cycle",
    ylabel="distance, largest 1",
)
ranks.legend()
pictures.mkdir(parents=True, exist_ok=True)
figure.savefig(pictures / "counts.png", dpi=110)

# %% [markdown]
# # A generator of your own
#
# All that the library asks of a generator is that it is a function of one latent, written with
# `jax.numpy`. Nothing is registered, no class is derived from, and the sample may have any shape.
# This one paints a flower in colour.

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from latent_flows import flows, geometry

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")


def flower(z):
    """Five petals: z is how deep they are cut, how large they are, how turned, and their hue."""
    depth, size, turn, hue = z
    y, x = jnp.mgrid[1:-1:48j, -1:1:48j]
    radius, angle = jnp.sqrt(x**2 + y**2 + 1e-4), jnp.arctan2(y, x)
    petals = 1 + 0.6 * jnp.tanh(depth) * jnp.cos(5 * (angle - 0.4 * turn))
    edge = 0.5 * jnp.exp(0.3 * size) * petals
    inside = jax.nn.sigmoid(25 * (edge - radius))[..., None]
    heart = jax.nn.sigmoid(25 * (0.16 - radius))[..., None]
    colour = 0.5 + 0.5 * jnp.cos(hue + jnp.array([0.0, 2.1, 4.2]))
    petal = colour * (0.6 + 0.4 * radius[..., None])
    flower = inside * petal + (1 - inside) * jnp.array([0.95, 0.97, 0.93])
    return heart * jnp.array([1.0, 0.85, 0.2]) + (1 - heart) * flower


# %% [markdown]
# ## A metric, and what is visible
#
# `pullback` turns it into a surface. The eigenvectors of $M(z) = J^\top J$ are the directions in
# which the image changes most and least; their roots say by how much, in units of pixels.

# %%
metric = geometry.pullback(flower)
z0 = jnp.array([0.1, -0.3, 0.0, 0.0])
values, vectors = jnp.linalg.eigh(metric(z0))
for value, vector in zip(values[::-1], vectors.T[::-1], strict=True):
    name = ("depth", "size", "turn", "hue")[int(jnp.abs(vector).argmax())]
    print(f"{jnp.sqrt(value):6.2f} pixels per unit, mostly along {name}")

# %% [markdown]
# ## A geodesic
#
# Between a pale round flower and a deeply cut one that is turned and has another hue. The straight
# line turns petals while they are already cut, which changes many pixels; the shortest path turns
# them while the flower is round, when nobody can see it.

# %%
z1 = jnp.array([1.6, 0.6, 1.4, 2.5])


def line(s):
    return z0 + s * (z1 - z0)


path = jax.jit(lambda a, b: geometry.geodesic(metric, a, b))(z0, z1)
straight = geometry.length(metric, line)
print(f"geodesic {path.length:.2f} pixels, straight line {straight:.2f}; {path.converged=}")
assert path.converged
assert path.length < straight

# %% [markdown]
# ## A traversal
#
# Any field `(t, z) -> dz/dt` can be followed. This one climbs the greenness of the picture, by its
# gradient in latent space and by its natural gradient, which weighs a step by what it changes.


# %%
def green(t, z):
    image = flower(z)
    return 10 * jnp.mean(image[..., 1] - image[..., 0])


def damped(z):
    return metric(z) / 100 + 0.05 * jnp.eye(4)  # no step is large where nothing is visible


ts = jnp.linspace(0.0, 2.0, 9)
fields = {"gradient": flows.gradient(green), "natural": flows.natural_gradient(green, damped)}
climbs = {name: flows.integrate(field, z0, ts) for name, field in fields.items()}

# %% [markdown]
# ## The picture

# %%
s = jnp.linspace(0.0, 1.0, 9)
rows = {
    f"geodesic\n{path.length:.1f}": jax.vmap(path)(s),
    f"straight\n{straight:.1f}": jax.vmap(line)(s),
} | {f"greener\n{name}": climb.zs for name, climb in climbs.items()}
figure, axes = plt.subplots(len(rows), 9, figsize=(10, 4.6), layout="constrained")
for row, (name, zs) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(name, fontsize=9)
    for axis, image in zip(row, jax.vmap(flower)(zs), strict=True):
        axis.imshow(jnp.clip(image, 0, 1))
        axis.set(xticks=[], yticks=[])
pictures.mkdir(parents=True, exist_ok=True)
figure.savefig(pictures / "own_generator.png", dpi=110)

# %% [markdown]
# # The three, composed
#
# A flow, a direction and a geodesic of one generator, on one ruler: the length of the way in data
# space, in units of pixels. All four ways move the same image as far to the right.
#
# - A **flow** climbs a potential, here how far right the mass of the image lies, by its gradient.
# - The same potential is climbed by its **natural gradient**, in the generator's own metric.
# - A **direction** was fitted to shifted images, with no potential.
# - A **geodesic** joins the two ends of the direction.

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from latent_flows import directions, flows, geometry

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")

# %% [markdown]
# ## One generator
#
# A soft ellipse that turns and grows as it moves, unless another latent makes up for it.

# %%
DIM = 4
mixing = jnp.array([[1.0, 0.3, 0.2, 0.0], [0, 1, 0.3, 0.2], [0.8, 0, 1, 0], [0.9, 0.2, 0, 1]])


def generator(z):
    across, down, size, turn = mixing @ z
    y, x = jnp.mgrid[-1:1:32j, -1:1:32j]
    x, y = x - 0.5 * jnp.tanh(0.6 * across), y - 0.2 * down
    cos, sin = jnp.cos(0.9 * turn), jnp.sin(0.9 * turn)
    scale = 0.28 * jnp.exp(0.3 * jnp.tanh(size))
    u, v = (cos * x + sin * y) / (1.5 * scale), (cos * y - sin * x) / (0.8 * scale)
    return jax.nn.sigmoid(6 * (1 - u**2 - v**2))[..., None]


metric = geometry.pullback(generator)
z0 = jnp.linalg.solve(mixing, jnp.array([-0.9, 0.1, 0.0, 0.5]))


def barycentre(z):
    mass = generator(z)[..., 0].sum(0)
    return mass @ jnp.linspace(0.0, 1.0, mass.size) / mass.sum()


# %% [markdown]
# ## A direction
#
# It knows images alone, and sets how far everything here goes.

# %%
found = directions.trajectories(
    jax.random.key(0), generator, "translate_x", [-0.2, -0.1, 0.1, 0.2], count=24, latent_dim=DIM
)
model = directions.fit_direction(jax.random.key(1), found)
s = jnp.linspace(0.0, 1.0, 65)
shifted = jax.vmap(lambda dt: directions.shift(model, z0, dt, extrapolate=True))(0.35 * s)
goal = barycentre(shifted[-1])

# %% [markdown]
# ## Two flows of one potential
#
# Both are followed for longer than needed and cut where they are as far right as the direction.
# The natural gradient is that of steepest ascent for the change it makes in the image.


# %%
def potential(t, z):
    return barycentre(z)


def damped(z):
    return metric(z) + 0.01 * jnp.eye(DIM)


def climb(field, horizon):
    path = flows.integrate(field, z0, jnp.linspace(0.0, horizon, 200))
    end = jnp.searchsorted(jax.vmap(barycentre)(path.zs), goal)
    assert path.ok
    assert end < 200
    return path.zs[jnp.round(s * end).astype(int)]


gradient = climb(flows.gradient(potential), 40.0)
natural = climb(flows.natural_gradient(potential, damped), 2000.0)

# %% [markdown]
# ## A geodesic, and the ruler
#
# The geodesic has the direction's ends. Lengths are sums of distances between images along a way.

# %%
path = geometry.geodesic(metric, z0, shifted[-1], initial=shifted)
assert path.converged
ways = {
    "flow": gradient,
    "natural flow": natural,
    "direction": shifted,
    "geodesic": jax.vmap(path)(s),
}


@jax.jit
def measure(zs):
    images = jax.vmap(generator)(zs)
    length = jnp.sqrt(jnp.sum(jnp.diff(images, axis=0) ** 2, axis=(1, 2, 3))).sum()
    return images[::8], length, barycentre(zs[-1]) - barycentre(zs[0])


figure, axes = plt.subplots(len(ways), 9, figsize=(10, 4.6), layout="constrained")
for row, (name, zs) in zip(axes, ways.items(), strict=True):
    images, length, gained = measure(zs)
    print(f"{name:12}  {length:5.2f} pixels long, {gained:.3f} image widths to the right")
    row[0].set_ylabel(f"{name}\n{length:.1f} pixels", fontsize=9)
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image[..., 0], cmap="magma", vmin=0, vmax=1, interpolation="bilinear")
        axis.set(xticks=[], yticks=[])
pictures.mkdir(parents=True, exist_ok=True)
figure.savefig(pictures / "composed.png", dpi=110)

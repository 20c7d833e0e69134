# %% [markdown]
# # A direction
#
# Which way is *right*? Nobody tells the generator's latents apart, but anybody can shift an image.
# Images of random latents are shifted, the latents of the results are found by descent, and one
# direction $u$ with a monotone function $g$ is fitted to these, so that $t = g(\langle z, u
# \rangle)$ is how far to the right a latent's image lies.

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from latent_flows import directions

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")

# %% [markdown]
# ## The generator
#
# Six latents, turned by a random rotation so that no axis is a factor, draw a soft ellipse: four of
# them are its place, size and elongation, one its orientation, one does nothing.

# %%
DIM = 6
rotation = jnp.linalg.qr(jax.random.normal(jax.random.key(7), (DIM, DIM)))[0]


def generator(z):
    across, down, size, stretch, turn, _ = rotation @ z
    y, x = jnp.mgrid[-1:1:32j, -1:1:32j]
    x, y = x - 0.5 * jnp.tanh(0.5 * across), y - 0.2 * down
    cos, sin = jnp.cos(0.6 * turn), jnp.sin(0.6 * turn)
    size, stretch = 0.3 * jnp.exp(0.15 * size), jnp.exp(0.25 + 0.1 * stretch)
    u, v = (cos * x + sin * y) / (size * stretch), (cos * y - sin * x) / (size / stretch)
    return jax.nn.sigmoid(6 * (1 - u**2 - v**2))[..., None]


# %% [markdown]
# ## Trajectories, and the direction
#
# The amounts are in image widths. From each start, descents go outwards in small steps, each from
# the result of the one before; the loss compares blurred images, where both are known.

# %%
ts = jnp.linspace(-0.15, 0.15, 7)
found = directions.trajectories(
    jax.random.key(0), generator, "translate_x", ts, count=64, latent_dim=DIM
)
model = directions.fit_direction(jax.random.key(1), found)
truth = rotation[0]  # the latent direction that this generator moves across along
print(f"held-out R2 {model.r2:.3f}; cosine with the truth {model.direction @ truth:.3f}")
assert model.r2 > 0.9

# %% [markdown]
# ## Control
#
# New latents are shifted by what is asked for, and what came of it is measured on their images.

# %%
starts = 0.6 * jax.random.normal(jax.random.key(2), (32, DIM))
asked = jnp.linspace(-0.12, 0.12, 9)


def barycentre(image):
    """How far to the right the mass of an image lies, in image widths."""
    mass = image[..., 0].sum(0)
    return mass @ jnp.linspace(0.0, 1.0, mass.size) / mass.sum()


@jax.jit
@jax.vmap
def control(z):
    moved = jax.vmap(lambda dt: directions.shift(model, z, dt, extrapolate=True))(asked)
    images = jax.vmap(generator)(moved)
    return images, jax.vmap(barycentre)(images) - barycentre(generator(z))


images, measured = control(starts)
error = jnp.abs(measured - asked).mean()
print(f"asked for shifts of up to {asked[-1]:.2f} image widths, missed by {error:.3f} on average")

# %% [markdown]
# ## The picture
#
# Left, four of the latents, shifted. Right, what was asked for against what was measured, on all.

# %%
figure = plt.figure(figsize=(11, 3.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(2.4, 1))
axes = left.subplots(4, len(asked))
for row in range(4):
    for column, dt in enumerate(asked):
        axis = axes[row, column]
        axis.imshow(images[row, column, ..., 0], cmap="magma", vmin=0, vmax=1)
        axis.axvline(15.5, color="white", lw=0.5, alpha=0.6)
        axis.set(xticks=[], yticks=[])
        if row == 0:
            axis.set_title(f"{dt:+.2f}", fontsize=9)
chart = right.subplots()
chart.plot(asked, measured.T, color="tab:blue", alpha=0.25)
chart.plot(asked, asked, "k--", lw=1, label="asked = measured")
chart.set(xlabel="asked, image widths", ylabel="measured")
chart.legend(fontsize=8)
pictures.mkdir(parents=True, exist_ok=True)
figure.savefig(pictures / "direction.png", dpi=110)

# %% [markdown]
# # Scenes, one factor at a time
#
# Data whose factors are known, drawn from real numbers by a differentiable renderer: what a method
# claims to have found can be compared with what is there.

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from latent_flows import data, geometry
from latent_flows.data import scenes

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")

# %% [markdown]
# ## From factors to images
#
# Each row changes one factor over its range, and leaves the others.

# %%
SWEPT = {
    "floor_hue": (0.0, 0.9, scenes.Factors(0.0, 0.55, 0.95, 1.0, 0.0, 0.0)),
    "wall_hue": (0.0, 0.9, scenes.Factors(0.7, 0.0, 0.95, 1.0, 1.0, 0.0)),
    "object_hue": (0.0, 0.9, scenes.Factors(0.6, 0.1, 0.0, 1.0, 2.0, 0.0)),
    "scale": (0.75, 1.25, scenes.Factors(0.05, 0.7, 0.3, 1.0, 1.0, 0.0)),
    "shape": (0.0, 3.0, scenes.Factors(0.1, 0.4, 0.7, 1.0, 0.0, -8.0)),
    "orientation": (-30.0, 30.0, scenes.Factors(0.5, 0.85, 0.15, 1.0, 0.0, 0.0)),
}
COLUMNS = 10


def sweep(name):
    low, high, scene = SWEPT[name]
    values = jnp.linspace(low, high, COLUMNS)
    return jax.vmap(lambda value: scenes.render(scene._replace(**{name: value})))(values)


rows = {name: sweep(name) for name in SWEPT}

# %% [markdown]
# ## And back
#
# All but the shape can be read off an image. The renderer is a generator like any other, so the
# library's metric says how many pixels a change of each factor moves.

# %%
measures = data.measures("scenes")
names = measures.factor_names
found = jax.vmap(measures.measure)(rows["scale"])
scales = found[:, names.index("scale")]
print("scales read off the fourth row:", *(f"{scale:.2f}" for scale in scales))

metric = geometry.pullback(lambda z: scenes.render(scenes.Factors(*z)))
speeds = jnp.sqrt(jnp.diagonal(metric(jnp.array(SWEPT["scale"][2]))))
for name, speed in zip(scenes.Factors._fields, speeds, strict=True):
    print(f"{speed:6.1f} pixels per unit of {name}")

# %%
figure, axes = plt.subplots(len(rows), COLUMNS, figsize=(COLUMNS, len(rows) + 0.2))
for row, (name, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image.clip(0, 1), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
    label = name.replace("_", " ")
    row[0].set_ylabel(label, rotation=0, ha="right", va="center")
figure.subplots_adjust(left=0.13, right=0.995, top=0.995, bottom=0.005, wspace=0.03, hspace=0.03)
pictures.mkdir(parents=True, exist_ok=True)
figure.savefig(pictures / "scenes.png", dpi=100)

# %% [markdown]
# # Counts of genes
#
# A generator need not make images. This one makes the means of 2,000 counts, as a model of single
# cells does: what is seen of a gene $g$ is negative binomial, with mean $\mu_g(z)$ and variance
# $\mu_g + \mu_g^2 / r$. Between two cells the natural distance is how well their counts can be told
# apart, which is the Fisher information of that noise, pulled back by the generator.

# %%
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from latent_flows import directions, evaluation, flows, generators, geometry, plots

pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")

# %% [markdown]
# ## The generator
#
# Two latents. The first switches a programme of 60 genes on, as a switch does; the second is a
# cycle of 200 genes, one after the other. The rest hardly changes. In place of these lines stands
# the decoder of your model.

# %%
GENES, SWITCHED, CYCLING, SIZE = 2000, 60, 200, 4.0
rng = np.random.default_rng(0)
base = jnp.asarray(rng.normal(0.0, 1.0, GENES))
names = [f"switch{i}" for i in range(SWITCHED)] + [f"cycle{i}" for i in range(CYCLING)]
names += [f"gene{i}" for i in range(GENES - len(names))]


def mean_counts(z):
    on = jnp.where(jnp.arange(GENES) < SWITCHED, 3.0 * jax.nn.sigmoid(4 * z[0]), 0.0)
    phase = jnp.linspace(0.0, 2 * jnp.pi, CYCLING)
    wave = jnp.zeros(GENES).at[SWITCHED : SWITCHED + CYCLING].set(0.3 * jnp.sin(2 * z[1] - phase))
    return jnp.exp(base + on + wave)


generator = generators.freeze(mean_counts, 2, name="counts", output_names=names)


noise = geometry.families.negative_binomial(SIZE, log=False)
metric = geometry.fisher_rao(generator, noise)

# %% [markdown]
# ## A geodesic
#
# From a cell without the programme to one with it, and half a cycle on. The switch is where cells
# are told apart best, so the way through it is the long one.

# %%
ends = jnp.array([-1.5, -0.6]), jnp.array([1.5, 0.6])
path = geometry.geodesic(metric, *ends)
line = geometry.length(metric, lambda s: (1 - s) * ends[0] + s * ends[1])
print(f"geodesic {float(path.length):.1f} deviations of noise, straight line {float(line):.1f}")
assert path.converged
assert path.length <= line * 1.001

# %% [markdown]
# ## A supervised direction
#
# A change that somebody has asked for: counts of the programme grow by a factor `exp(t)`, and all
# others stay. It is a transformation of the sample as those of images are, `(x, t) -> (x, mask)`,
# where the mask says which numbers are compared.

# %%
programme = jnp.arange(GENES) < SWITCHED


def induce(x, t):
    return jnp.where(programme, x * jnp.exp(t), x), jnp.ones_like(x)


def log_error(x, target, mask):
    return jnp.mean(mask * (jnp.log1p(x) - jnp.log1p(target)) ** 2)


starts = 0.3 * generators.draw_latents(generator.prior, jax.random.key(0), 24)
found = directions.trajectories(
    jax.random.key(1), generator, induce, [-0.4, 0.4], starts=starts, loss=log_error
)
direction = directions.fit_direction(jax.random.key(2), found).direction
print(f"direction {np.round(np.asarray(direction), 2)}: the switch is the first latent")
assert abs(direction[0]) > 0.9

# %% [markdown]
# ## A flow
#
# It climbs the programme in the metric of the counts, so that it moves what tells the programme.


# %%
def level(t, z):
    return jnp.mean(jnp.log(generator(z)[:SWITCHED]))


climb = flows.integrate(flows.natural_gradient(level, metric), ends[0] / 3, jnp.linspace(0, 400, 9))
grown = level(0.0, climb.zs[-1]) - level(0.0, climb.zs[0])
print(f"the flow induces the programme {float(jnp.exp(grown)):.1f} times")
assert grown > 0.5

# %% [markdown]
# ## Clusters
#
# Cells with the programme off and on, which in the latent space differ less than the phases of the
# cycle do. Geodesics of counts tell the states apart, straight distances of latents need not.

# %%
key = jax.random.key(3)
spread = jax.random.normal(key, (12, 2)) * jnp.array([0.1, 0.8])
cells = spread + jnp.tile(jnp.array([[-0.5, 0.0], [0.5, 0.0]]), (6, 1))
scores = {}
for kind, ruler in {"latent": lambda z: jnp.eye(2), "counts": metric}.items():
    found = geometry.kmeans(key, ruler, cells, 2, segments=4, max_iterations=5)
    scores[kind] = evaluation.pairwise_f_measure(np.tile([0, 1], 6), np.asarray(found.labels))
    print(f"clusters by {kind}: F {scores[kind]:.2f}")
assert scores["counts"] > scores["latent"]

# %%
pictures.mkdir(parents=True, exist_ok=True)
shares = jnp.linspace(0, 1, 7)
ways = {"geodesic": jax.vmap(path)(shares), "flow": climb.zs[jnp.arange(7)]}
figure = plots.vector_traversals(
    jnp.stack([jnp.log1p(jax.vmap(generator)(zs)) for zs in ways.values()]),
    places=shares,
    row_labels=list(ways),
    axis="along the path",
    names=names,
    caption="log(1 + mean count) of 2,000 genes along paths; the start is in black.",
)
figure.savefig(pictures / "gene_counts.png", dpi=120)

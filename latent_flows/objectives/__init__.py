"""Loss terms, as functions that experiments add up.

Terms of variational autoencoders, of latent sequences, and of potential flows. Each is normalised,
or bounded, so that no weighted sum of them is unbounded below.
"""

from latent_flows.objectives.autoencoders import (
    density_ratio_loss,
    gaussian_kl,
    gaussian_kl_between,
    gaussian_total_correlation,
    permuted,
    total_correlation,
)
from latent_flows.objectives.sequences import (
    categorical_kl,
    concrete_gates,
    gumbel_softmax,
    mismatch,
    spike_and_slab_kl,
)
from latent_flows.objectives.traversals import (
    inconsistency,
    off_pace,
    outside,
    overlap,
    relative_start,
    sparsity,
    stillness,
    unit_contributions,
)

__all__ = [
    "categorical_kl",
    "concrete_gates",
    "density_ratio_loss",
    "gaussian_kl",
    "gaussian_kl_between",
    "gaussian_total_correlation",
    "gumbel_softmax",
    "inconsistency",
    "mismatch",
    "off_pace",
    "outside",
    "overlap",
    "permuted",
    "relative_start",
    "sparsity",
    "spike_and_slab_kl",
    "stillness",
    "total_correlation",
    "unit_contributions",
]

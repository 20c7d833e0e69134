"""Loss terms, as functions that experiments add up.

Terms of variational autoencoders, of latent sequences, of potential flows, and of both trained
together. Each is normalised, or bounded, so that no weighted sum of them is unbounded below.
"""

from latent_flows._normal import log_normal
from latent_flows.objectives.autoencoders import (
    density_ratio_loss,
    gaussian_kl,
    gaussian_kl_between,
    gaussian_total_correlation,
    noisy_negative_log_likelihood,
    permuted,
    total_correlation,
)
from latent_flows.objectives.flow_vae import (
    FlowVAE,
    FlowVAEObjective,
    Pairs,
    flow_vae,
    flow_vae_loss,
    sample_pairs,
)
from latent_flows.objectives.guided_flows import GuidedBatch, GuidedTerms, guided_flow_terms
from latent_flows.objectives.joint_flows import (
    JointTerms,
    PairCodes,
    Transported,
    encode_pairs,
    joint_sum,
    joint_terms,
    origins,
    transport_codes,
)
from latent_flows.objectives.potential_flows import (
    FlowSample,
    PotentialFlowTerms,
    PotentialFlowWeights,
    potential_flow_terms,
    sample_flow,
    weighted_sum,
)
from latent_flows.objectives.sequences import (
    categorical_kl,
    concrete_gates,
    gumbel_softmax,
    latent_matching,
    spike_and_slab_kl,
)
from latent_flows.objectives.traversals import (
    direction_consistency,
    outside,
    overlap,
    relative_start,
    share_along,
    sparsity,
    speed_loss,
    unit_contributions,
    variation_loss,
)

__all__ = [
    "FlowSample",
    "FlowVAE",
    "FlowVAEObjective",
    "GuidedBatch",
    "GuidedTerms",
    "JointTerms",
    "PairCodes",
    "Pairs",
    "PotentialFlowTerms",
    "PotentialFlowWeights",
    "Transported",
    "categorical_kl",
    "concrete_gates",
    "density_ratio_loss",
    "direction_consistency",
    "encode_pairs",
    "flow_vae",
    "flow_vae_loss",
    "gaussian_kl",
    "gaussian_kl_between",
    "gaussian_total_correlation",
    "guided_flow_terms",
    "gumbel_softmax",
    "joint_sum",
    "joint_terms",
    "latent_matching",
    "log_normal",
    "noisy_negative_log_likelihood",
    "origins",
    "outside",
    "overlap",
    "permuted",
    "potential_flow_terms",
    "relative_start",
    "sample_flow",
    "sample_pairs",
    "share_along",
    "sparsity",
    "speed_loss",
    "spike_and_slab_kl",
    "total_correlation",
    "transport_codes",
    "unit_contributions",
    "variation_loss",
    "weighted_sum",
]

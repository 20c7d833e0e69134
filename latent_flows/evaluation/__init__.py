"""Scores: how well flows can be told apart, how likely a model finds data, what its codes know."""

from latent_flows.evaluation._sampler import (
    Recognition,
    Sampler,
    sampler_of_examples,
    sampler_of_model,
)
from latent_flows.evaluation.beta_vae_score import beta_vae_score
from latent_flows.evaluation.comparison import Family, compare_at_length
from latent_flows.evaluation.control import ControlScore, control_score, reach, sequence_control
from latent_flows.evaluation.correlation import Correlation, correlation
from latent_flows.evaluation.dci import DCI, dci
from latent_flows.evaluation.equivariance import EquivarianceError, equivariance_error
from latent_flows.evaluation.factor_vae_score import factor_vae_score
from latent_flows.evaluation.flow_vae import (
    factor_directions,
    factor_equivariance,
    held_out_sequences,
    sample_bounds,
    sequence_bound,
)
from latent_flows.evaluation.image_control import image_control, joint_control
from latent_flows.evaluation.labelled import discretise
from latent_flows.evaluation.likelihood import elbo, iwae_bound
from latent_flows.evaluation.mig import mig, mutual_information
from latent_flows.evaluation.modularity import Modularity, modularity
from latent_flows.evaluation.pairwise_f_measure import pairwise_f_measure
from latent_flows.evaluation.perceptual_path_length import (
    PerceptualPathLength,
    perceptual_path_length,
)
from latent_flows.evaluation.plausibility import (
    path_plausibility,
    volume_contrast,
    walk_plausibility,
)
from latent_flows.evaluation.sap import sap
from latent_flows.evaluation.traversals import path_length
from latent_flows.evaluation.vp import VPScore, vp_score

__all__ = [
    "DCI",
    "ControlScore",
    "Correlation",
    "EquivarianceError",
    "Family",
    "Modularity",
    "PerceptualPathLength",
    "Recognition",
    "Sampler",
    "VPScore",
    "beta_vae_score",
    "compare_at_length",
    "control_score",
    "correlation",
    "dci",
    "discretise",
    "elbo",
    "equivariance_error",
    "factor_directions",
    "factor_equivariance",
    "factor_vae_score",
    "held_out_sequences",
    "image_control",
    "iwae_bound",
    "joint_control",
    "mig",
    "modularity",
    "mutual_information",
    "pairwise_f_measure",
    "path_length",
    "path_plausibility",
    "perceptual_path_length",
    "reach",
    "sample_bounds",
    "sampler_of_examples",
    "sampler_of_model",
    "sap",
    "sequence_bound",
    "sequence_control",
    "volume_contrast",
    "vp_score",
    "walk_plausibility",
]

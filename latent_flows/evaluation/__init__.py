"""Scores: how well flows can be told apart, how likely a model finds data."""

from latent_flows.evaluation.control import ControlScore, control_score
from latent_flows.evaluation.likelihood import elbo, iwae_bound
from latent_flows.evaluation.vp import VPScore, vp_score

__all__ = ["ControlScore", "VPScore", "control_score", "elbo", "iwae_bound", "vp_score"]

"""How far are two latents, and what is straight? The Riemannian geometry of a generator.

A metric is a callable `z -> M(z)`: `pullback` of a generator, `stochastic_pullback` of one with
noise, or any other. Everything else takes a metric and points.
"""

from latent_flows._results import Result
from latent_flows.geometry import families
from latent_flows.geometry.curvature import (
    acceleration,
    christoffel,
    geodesic_curvature,
    ricci,
    riemann,
    scalar_curvature,
    sectional_curvature,
)
from latent_flows.geometry.curves import Geodesic, energy, length, resample_by_length
from latent_flows.geometry.density_metric import density_metric
from latent_flows.geometry.diffusion import Walk, brownian_motion
from latent_flows.geometry.ensembles import (
    EnsemblePullback,
    ensemble_energy,
    ensemble_pullback,
    ensemble_variance,
)
from latent_flows.geometry.exponential import (
    GeodesicFlow,
    Logarithm,
    exponential_map,
    geodesic_flow,
    logarithm,
    logarithm_map,
)
from latent_flows.geometry.fisher_rao import fisher_rao
from latent_flows.geometry.frechet_mean import FrechetMean, frechet_mean
from latent_flows.geometry.geodesics import distance, geodesic, geodesic_batch
from latent_flows.geometry.kmeans import KMeans, kmeans
from latent_flows.geometry.land import Land, fit_land, land_log_prob, normalise_land, sample_land
from latent_flows.geometry.metrics import (
    Pullback,
    conformal,
    inner,
    local_pca,
    log_volume,
    pullback,
    pullback_metrics,
    squared_norm,
    stochastic_pullback,
    unit_metric,
    volume,
)
from latent_flows.geometry.operators import laplace_beltrami
from latent_flows.geometry.principal_directions import (
    LocalTraversals,
    PrincipalDirections,
    local_traversals,
    principal_directions,
)
from latent_flows.geometry.splines import spline_geodesic
from latent_flows.geometry.transport import parallel_transport

__all__ = [
    "EnsemblePullback",
    "FrechetMean",
    "Geodesic",
    "GeodesicFlow",
    "KMeans",
    "Land",
    "LocalTraversals",
    "Logarithm",
    "PrincipalDirections",
    "Pullback",
    "Result",
    "Walk",
    "acceleration",
    "brownian_motion",
    "christoffel",
    "conformal",
    "density_metric",
    "distance",
    "energy",
    "ensemble_energy",
    "ensemble_pullback",
    "ensemble_variance",
    "exponential_map",
    "families",
    "fisher_rao",
    "fit_land",
    "frechet_mean",
    "geodesic",
    "geodesic_batch",
    "geodesic_curvature",
    "geodesic_flow",
    "inner",
    "kmeans",
    "land_log_prob",
    "laplace_beltrami",
    "length",
    "local_pca",
    "local_traversals",
    "log_volume",
    "logarithm",
    "logarithm_map",
    "normalise_land",
    "parallel_transport",
    "principal_directions",
    "pullback",
    "pullback_metrics",
    "resample_by_length",
    "ricci",
    "riemann",
    "sample_land",
    "scalar_curvature",
    "sectional_curvature",
    "spline_geodesic",
    "squared_norm",
    "stochastic_pullback",
    "unit_metric",
    "volume",
]

"""The metrics of a generator of two latents as tables, for experiments that need many geodesics."""

import numpy as np

from experiments.generators.noise_std import KINDS
from experiments.latent_oddity.geodesics import box
from experiments.latent_oddity.setup import Subject
from latent_flows.geometry.interpolation import tabulate
from latent_flows.typing import Metric

REACH = 1.4
"""Half the side of the table, in halves of the box of the training codes and a margin."""


def metrics(subject: Subject, resolution: int) -> dict[str, Metric]:
    """The metric of each deviation, tabulated if that is possible and asked for.

    Args:
        subject: the generator.
        resolution: points on each side of the table; 0 for the metrics themselves, which are also
            what a generator has whose latents are not two.
    """
    if not resolution or subject.vae.config.latent_dim != 2:
        return {kind: subject.metrics[kind] for kind in KINDS["both"]}
    low, high = box(np.asarray(subject.train.codes))
    centre, half = (low + high) / 2, REACH * (high - low) / 2
    return {
        kind: tabulate(subject.metrics[kind], centre - half, centre + half, resolution=resolution)
        for kind in KINDS["both"]
    }

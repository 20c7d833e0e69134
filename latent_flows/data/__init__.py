"""Data to learn from: sprites and scenes, digits, prepared TFDS sets, your own; one pipeline."""

from latent_flows.data import digits as digits
from latent_flows.data import scenes as scenes
from latent_flows.data import sprites as sprites
from latent_flows.data import surface as surface
from latent_flows.data import tfds as tfds
from latent_flows.data.dataset import Dataset as Dataset
from latent_flows.data.dataset import from_arrays as from_arrays
from latent_flows.data.image_factors import ImageFactor as ImageFactor
from latent_flows.data.image_factors import Measures as Measures
from latent_flows.data.loading import DRAWN as DRAWN
from latent_flows.data.loading import is_own as is_own
from latent_flows.data.loading import load as load
from latent_flows.data.loading import locate as locate
from latent_flows.data.loading import measures as measures
from latent_flows.data.parts import load_part as load_part
from latent_flows.data.pipeline import batches as batches
from latent_flows.data.subset import take as take
from latent_flows.data.subset import with_labels as with_labels

__all__ = [
    "DRAWN",
    "Dataset",
    "ImageFactor",
    "Measures",
    "batches",
    "digits",
    "from_arrays",
    "is_own",
    "load",
    "load_part",
    "locate",
    "measures",
    "scenes",
    "sprites",
    "surface",
    "take",
    "tfds",
    "with_labels",
]

"""Which way is left, bigger, brighter? Directions of a generator that perform a transformation.

Transform the images of random latents, find the latents of the results (`trajectories`), fit a
direction to these (`fit_direction`, or `fit_potential` for a curved one), then `shift`, `place` or
`sample` the factor.
"""

from latent_flows.directions.closed_form import ganspace, random_directions, sefa
from latent_flows.directions.control import (
    check_reach,
    place,
    place_many,
    sample,
    shift,
    shift_many,
)
from latent_flows.directions.inversion import Inversion, gauss_newton, invert, to_ball
from latent_flows.directions.losses import Loss, blurred_error, dssim, loss, mse
from latent_flows.directions.model import (
    Direction,
    DirectionModel,
    FittedDirection,
    PotentialModel,
    calibrate,
    fit_direction,
    fit_potential,
)
from latent_flows.directions.sequences import constant_direction
from latent_flows.directions.trajectories import Trajectories, trajectories
from latent_flows.directions.transformations import (
    Transformation,
    brightness,
    contrast,
    hue,
    registered,
    rotate,
    rotate_object,
    saturation,
    transformation,
    translate_x,
    translate_y,
    zoom,
    zoom_object,
)

__all__ = [
    "Direction",
    "DirectionModel",
    "FittedDirection",
    "Inversion",
    "Loss",
    "PotentialModel",
    "Trajectories",
    "Transformation",
    "blurred_error",
    "brightness",
    "calibrate",
    "check_reach",
    "constant_direction",
    "contrast",
    "dssim",
    "fit_direction",
    "fit_potential",
    "ganspace",
    "gauss_newton",
    "hue",
    "invert",
    "loss",
    "mse",
    "place",
    "place_many",
    "random_directions",
    "registered",
    "rotate",
    "rotate_object",
    "sample",
    "saturation",
    "sefa",
    "shift",
    "shift_many",
    "to_ball",
    "trajectories",
    "transformation",
    "translate_x",
    "translate_y",
    "zoom",
    "zoom_object",
]

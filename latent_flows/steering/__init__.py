"""Which way does the *image* move? Fields that perform a transformation, or set an attribute.

A transformation says how the image should move, the generator's Jacobian how it can: the field that
does it is a damped least-squares solution at every latent, without training, inversion or labels.
"""

from latent_flows.steering import distilled
from latent_flows.steering._equations import Attributes
from latent_flows.steering.fields import attribute_field, dual_frame, transformation_field
from latent_flows.steering.follow import Steered, steer, steer_attribute
from latent_flows.steering.learnt import AttributeNet, LearntAttributes, fit_attributes
from latent_flows.steering.model import SteeredModel, steered_model

__all__ = [
    "AttributeNet",
    "Attributes",
    "LearntAttributes",
    "Steered",
    "SteeredModel",
    "attribute_field",
    "distilled",
    "dual_frame",
    "fit_attributes",
    "steer",
    "steer_attribute",
    "steered_model",
    "transformation_field",
]

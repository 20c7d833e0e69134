"""Which way the flow of each potential runs, kept in the run folder.

Training follows flows forwards and backwards alike, and where `u` solves a linear equation so does
`-u`: which of both is the potential is for us to say. It is the one whose flow goes where the
encoder recognises more of what the generator makes, as it does where there are data.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.generators.training_data import encoded
from experiments.potential_flows import families
from experiments.potential_flows.flags import Flows
from experiments.runtime.run_dir import Folder
from experiments.runtime.training import Params
from latent_flows import coordinates
from latent_flows.evaluation.comparison import Family, follow_family, mean_of_ended

if TYPE_CHECKING:
    from experiments.potential_flows.flow_space import FlowSpace

WAYS = "ways.json"
"""The file of a run folder that holds them: 1, or -1 for a potential that is turned."""
STARTS = 128
"""Starting points from which flows are followed both ways."""


def settled(folder: Folder, settings: Flows, space: "FlowSpace", params: Params) -> Params:
    """The parameters with each potential turned, if that is asked for and can be told.

    Raises:
        UsageError: what the folder holds are no ways.
    """
    if not (settings.turned and families.is_odd(settings)) or space.frozen.encode is None:
        return params
    folder.remember(WAYS, lambda: better(settings, space, params))
    return kept(folder.path, params)


def kept(path: Path, params: Params) -> Params:
    """The parameters with each potential turned as a run folder says, if it does.

    Raises:
        UsageError: what the folder holds are no ways.
    """
    if not (path / WAYS).exists():
        return params
    folder = Folder(path)
    found = folder.read_json(WAYS)
    count = len(jax.tree.leaves(params["potentials"])[0])
    with folder.understood(WAYS):
        if len(found) != count or not {*found} <= {1, -1}:
            raise ValueError(f"{found} are no ways of {count} potentials")
    return {**params, "potentials": _turn(params["potentials"], jnp.asarray(found, float))}


def better(settings: Flows, space: "FlowSpace", params: Params) -> Int[np.ndarray, "k"]:
    """For each potential 1 or -1, whichever leads where the encoder comes nearer to the latent."""
    starts = jnp.broadcast_to(space.starts[:STARTS], (settings.count, *space.starts[:STARTS].shape))
    flows = Family(
        families.describe(settings),
        space.generator,
        families.field(settings, space.metric),
        params["potentials"],
        starts,
    )
    onwards, backwards = (_missed(flows, settings, space, sign) for sign in (1.0, -1.0))
    return np.where(np.asarray(backwards < onwards), -1, 1)


def _missed(flows: Family, settings: Flows, space: "FlowSpace", sign: float) -> Float[Array, "k"]:
    """Mean squared distance of the codes of samples to the latents that they are made of."""
    scale = sign * jnp.ones(settings.count)
    paths = follow_family(flows, float(settings.horizon), scale, flows.starts.shape[1])
    zs, samples = (x[:, :, -1].reshape(-1, *x.shape[3:]) for x in (paths.zs, paths.samples))
    latents = jax.vmap(partial(coordinates.to_latent, space.frame))(zs)
    squares = jnp.sum((encoded(space.frozen, samples)[0] - latents) ** 2, axis=-1)
    return mean_of_ended(squares.reshape(paths.ok.shape), paths.ok)


def _turn(members: Params, signs: Float[Array, "k"]) -> Params:
    """Potentials times a sign each: they are linear in their last layer."""
    last = members["params"]["potential"]["kernel"]
    turned = {"kernel": last * signs[:, None, None]}
    return {**members, "params": {**members["params"], "potential": turned}}

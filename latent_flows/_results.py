"""Why a solver did not get there: what every result that can fail says of itself."""

from typing import Any, cast

import equinox as eqx
import jax
import numpy as np

__all__ = ["Result", "first_failure", "message_of"]


class Result(eqx.Enumeration):
    """How a search or an integration ended; an integer that can be mapped and compiled.

    >>> import jax, jax.numpy as jnp
    >>> ended = jax.jit(lambda ok: Result.where(ok, Result.successful, Result.nonfinite))
    >>> print(ended(True) == Result.successful, Result[ended(False)][:16])
    True A number was not
    """

    successful = ""
    max_steps_reached = (
        "The steps that it may take ran out: allow more by max_steps or max_iterations, or ask for "
        "less by tolerance. Where even small steps fail, what it follows is not finite, or grows "
        "without end."
    )
    nonfinite = (
        "A number was not finite: the function, or the metric, is not on the way, or what follows "
        "it grows without end."
    )
    step_failed = (
        "A step could not be taken: the equation of an implicit one has no solution near, or it "
        "became too small."
    )
    indefinite = (
        "The metric is not finite, or not positive, on the way or at an end, so that no length is "
        "known there."
    )
    stalled = (
        "The search ended at no minimum, yet no step gains anything: the points are too few for "
        "what lies between them (raise segments), or it is a saddle (start elsewhere by initial)."
    )
    undersampled = (
        "The points are too few to show the curve between them, which is longer or less evenly "
        "fast than they say: raise segments, or the knots of a spline."
    )
    undersampled_draws = (
        "The points are too few to show how the members differ between them. More segments weigh "
        "the difference more, so that fewer may help, or a start where they agree (initial); "
        'draws="one" needs no such choice.'
    )
    left_manifold = (
        "It did not keep its speed, as a geodesic does: it ran into where the metric degenerates, "
        "such as a border of the manifold, or took too long steps (tolerance)."
    )
    missed = (
        "No velocity was found whose geodesic arrives: raise segments or max_shots, or the ends "
        "are farther apart than one geodesic reaches."
    )
    detour = (
        "The geodesic that was found arrives by a detour: a shorter curve is known; raise segments."
    )
    unsolved = (
        "None of the geodesics between the points was found: the metric may not be finite or "
        "positive there, or segments too few."
    )
    unknown_constants = (
        "The constants of the densities are not known, their estimates differ by more than half: "
        "raise final_samples, or samples in normalise_land; latents of many numbers may need more "
        "than can be had."
    )
    unfinished = "It was stopped before its last step: what was found so far may come nearer."
    unlike = (
        "The nearest sample that was found is another one: the generator makes nothing like this, "
        "or more starts are needed."
    )


# Type checkers take the members of an enumeration of equinox for the strings that they are made of.
def first_failure(*checks: tuple[Any, Any]) -> Any:
    """The reason of the first check that failed, and success where none did.

    Args:
        *checks: whether something is as it should be, and what it means if it is not.

    Returns:
        The result.

    >>> import jax.numpy as jnp
    >>> yes, no = jnp.array(True), jnp.array(False)
    >>> result = first_failure((yes, Result.nonfinite), (no, Result.detour), (no, Result.missed))
    >>> print(result == Result.detour, first_failure((yes, Result.missed)) == Result.successful)
    True True
    """
    found: Any = Result.successful
    for good, reason in reversed(checks):
        found = Result.where(good, found, reason)
    return found


def message_of(result: Any) -> Any:
    """What a result says, in words.

    Args:
        result: of one problem, or of a batch.

    Returns:
        A sentence, empty where it was successful; of a batch an array of such. Within `jax.jit`
        nothing is known yet, which it says.

    >>> print(message_of(Result.detour))
    The geodesic that was found arrives by a detour: a shorter curve is known; raise segments.
    """
    (code,), kind = jax.tree.leaves(result), cast(Any, Result)
    if isinstance(code, jax.core.Tracer):
        return kind[result]
    return np.array(kind._index_to_message, dtype=object)[np.asarray(code)]

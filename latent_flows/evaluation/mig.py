"""Mutual information between codes and factors, and the gap between the two best codes."""

import numpy as np
from jaxtyping import Float, Int

from latent_flows.evaluation.labelled import Labelled, Table, discretise, labelled

__all__ = ["informed", "mig", "mutual_information"]


def mutual_information(
    codes: Int[np.ndarray, "n d"], factors: Int[np.ndarray, "n f"]
) -> Float[np.ndarray, "d f"]:
    r"""Mutual information of every pair of columns, from their joint frequencies, in nats.

    $$ I_{ij} = \sum_{a, b} p_{ij}(a, b) \log \frac{p_{ij}(a, b)}{p_i(a)\, p_j(b)} $$

    Args:
        codes: whole numbers of at least 0, such as those of `discretise`.
        factors: the same.

    Returns:
        One row a code and one column a factor.

    >>> bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> mutual_information(bits, bits).round(3).tolist()
    [[0.693, 0.0], [0.0, 0.693]]
    """
    return np.array([[_of_pair(a, b) for b in factors.T] for a in codes.T])


def _of_pair(a: Int[np.ndarray, "n"], b: Int[np.ndarray, "n"]) -> float:
    rows, columns = a.max() + 1, b.max() + 1
    counts = np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns)
    joint = counts / len(a)
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return max(float(np.sum(joint[seen] * np.log(joint[seen] / apart[seen]))), 0.0)


def informed(both: Labelled, bins: int) -> Float[np.ndarray, "d f"]:
    """Mutual information of codes in bins and of factors.

    Args:
        both: codes and factors.
        bins: bins of each code.

    Returns:
        One row a code and one column a factor, in nats.
    """
    return mutual_information(discretise(both.codes, bins), both.factors)


def mig(codes: Table, factors: Table, *, bins: int = 20) -> float:
    r"""Mutual information gap: is there one code that knows each factor, and knows it alone?

    $$ \mathrm{MIG} = \frac1f \sum_j \frac{1}{H_j} \Big( I_{i_1 j} - I_{i_2 j} \Big) $$

    with `i_1`, `i_2` the two codes that know most of factor `j`, whose entropy is `H_j`. Codes are
    put in bins of equal width between their extremes. 1: one code determines a factor and no other
    knows of it; 0: two codes know as much. Few samples make every information too large.

    Args:
        codes: `[n, d]`, at least two columns.
        factors: the true ones, `[n, f]`, discrete.
        bins: of a code; 20 as in disentanglement_lib, which takes 10,000 samples.

    Returns:
        The gap, in [0, 1].

    Raises:
        ValueError: see `labelled`; also a single code.

    References:
        Chen, Li, Grosse and Duvenaud, *Isolating Sources of Disentanglement in VAEs*, 2018,
        section 4.1; bins as in Locatello et al., *Challenging Common Assumptions*, 2019.

    >>> factors = np.stack(np.meshgrid(range(5), range(4)), -1).reshape(-1, 2)
    >>> round(mig(3.0 * factors - 1, factors), 6)
    1.0
    """
    both = labelled(codes, factors, least_codes=2)
    second, first = np.sort(informed(both, bins), axis=0)[-2:]
    entropies = np.diag(mutual_information(both.factors, both.factors))
    return float(np.mean((first - second) / entropies))

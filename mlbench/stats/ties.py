"""All pairs of methods, and the letters that say which of them cannot be told apart.

References:
    Westfall and Young, Resampling-Based Multiple Testing (1993): step-down maxima of resampled statistics.
    Romano and Wolf, Econometrica 73 (2005): why the step-down holds with signs that all hypotheses share.
    Piepho, J. Comput. Graph. Stat. 13 (2004) 456: letters for all pairwise comparisons.
"""

from __future__ import annotations

from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from mlbench.stats.exact import SAME
from mlbench.stats.paired import flip_share, flip_signs
from mlbench.stats.rates import FloatArray, batches


def all_pairs(parts: FloatArray, *, resamples: int = 10_000, seed: int = 0) -> FloatArray:
    """Return p-values of all pairs of methods, adjusted together, (methods, methods), 1 on the diagonal.

    A pair is tested by sign flips of whole clusters, and every flip is shared by all pairs. They are corrected by
    step-down max-T, not Holm: 18 methods have 153 pairs but only 17 free differences, which Holm cannot know, and
    Holm needs a p-value of 0.05 / 153, which few flips cannot give.

    Args:
        parts: Each cluster's part in each method's rate, (methods, clusters).
    """
    methods = len(parts)
    one, two = np.triu_indices(methods, k=1)
    differences = parts[one] - parts[two]
    differences[np.abs(differences) <= SAME] = 0
    differences = differences[:, differences.any(axis=0)]
    table = np.ones((methods, methods))
    if differences.size:
        table[one, two] = table[two, one] = _step_down(differences, resamples, seed)
    return table


def _step_down(differences: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Return adjusted p-values of rows, (rows,), from differences of clusters, (rows, clusters)."""
    # As in `sign_flip`: sqrt(Σ d²) is the null standard deviation of Σ ± d, and no flip changes it.
    scale = np.sqrt((differences**2).sum(axis=1))
    table = differences / np.where(scale > 0, scale, 1)[:, None]
    statistics = np.abs(table.sum(axis=1)) - 1e-9 * np.abs(table).sum(axis=1)
    # Smallest first: the maximum over a pair and all pairs below it is then a running one.
    order = np.argsort(statistics, kind="stable")
    table, observed = table[order].T, statistics[order]
    size, rows = table.shape
    hits = np.zeros(rows)
    for signs in flip_signs(size, resamples, seed):
        start = 0
        for step in batches(len(signs), rows):
            flipped = np.abs(signs[start : start + step] @ table)
            hits += (np.maximum.accumulate(flipped, axis=1) >= observed).sum(axis=0)
            start += step
    p = np.empty(rows)
    # A pair is never more significant than one with a larger statistic.
    p[order] = np.maximum.accumulate(flip_share(hits, size, resamples)[::-1])[::-1]
    return np.where(scale > 0, p, 1.0)


def letters(differ: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the letters of each method, separated by blanks: two share one exactly when they do not differ.

    Args:
        differ: Which pairs differ, symmetric, (methods, methods), the best method first; it has the letter "a".
    """
    groups = _groups(differ)
    return tuple(
        " ".join(_name(place) for place, group in enumerate(groups) if method in group) for method in range(len(differ))
    )


def _groups(differ: NDArray[np.bool_]) -> list[list[int]]:
    """Return sets of methods that do not differ and that cover all pairs that do not, best first.

    Inserting a split for every pair that differs and absorbing what is contained elsewhere, as in the paper, ends at
    the largest sets without such a pair: the maximal cliques of the graph of pairs that do not differ.
    """
    import networkx

    alike = ~differ & ~np.eye(len(differ), dtype=bool)
    found = sorted(sorted(group) for group in networkx.find_cliques(networkx.from_numpy_array(alike)))
    covered = np.zeros(differ.shape, dtype=int)
    for group in found:
        covered[np.ix_(group, group)] += 1
    kept = []
    # The sweep: a set goes if every pair in it, and every method, is in another one; small ones go first.
    for group in sorted(found, key=len):
        inside = np.ix_(group, group)
        if covered[inside].min() > 1:
            covered[inside] -= 1
        else:
            kept.append(group)
    return sorted(kept)


def _name(place: int) -> str:
    """Return the name of a set by its place: a, b, ..., z, aa, ab, ..."""
    before, letter = divmod(place, len(ascii_lowercase))
    return (_name(before - 1) if before else "") + ascii_lowercase[letter]

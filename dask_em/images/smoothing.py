"""Neighbours agree: labels made smooth, and regions of a few pixels given to their surroundings.

    q_i(k)  is proportional to  p_i(k) exp(strength * sum over the four neighbours j of q_j(k))        q = p to begin with

is the mean field of a Potts prior over the pixels' own posterior p (Zhang, Modestino and Langan 1994), a fixed number of times: so a pixel depends on those within
that distance and no others, and a window with such a border gives what the whole picture gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ITERATIONS = 8
"""Times that neighbours are asked: a label travels as many pixels."""

MISSING = 255
"""The label of a pixel in which nothing is observed."""

TINY = np.float32(1e-30)


def mean_field(posterior: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """The smoothed posterior (k, h, w) of a posterior, which is 0 for every component where a pixel is missing."""
    own = np.maximum(posterior, TINY)
    there = posterior.sum(axis=0) > 0
    q = posterior
    for _ in range(ITERATIONS):
        around = np.zeros_like(q)
        around[:, 1:] += q[:, :-1]
        around[:, :-1] += q[:, 1:]
        around[:, :, 1:] += q[:, :, :-1]
        around[:, :, :-1] += q[:, :, 1:]
        around *= np.float32(strength)
        around -= around.max(axis=0)
        np.exp(around, out=around)
        around *= own
        around *= there / around.sum(axis=0)
        q = around
    return q


def absorb(labels: NDArray[np.uint8], smallest: int) -> NDArray[np.uint8]:
    """Labels (h, w) in which regions of fewer than `smallest` pixels have the label that most of their neighbours in larger regions have.

    A region is connected along rows and columns. One without such a neighbour stays, as do missing pixels. A pixel depends on those within 2 * smallest.
    """
    from scipy.ndimage import label as connected  # it takes long to import, and most pictures need none of it

    regions = np.zeros(labels.shape, dtype=np.int32)
    n = 0
    for own in np.unique(labels):
        if own == MISSING:
            continue
        found, count = connected(labels == own)
        sizes = np.bincount(found.ravel(), minlength=count + 1)
        few = sizes < smallest
        few[0] = False
        number = np.zeros(count + 1, dtype=np.int32)
        number[few] = n + np.arange(1, few.sum() + 1)
        regions += number[found]
        n += int(few.sum())
    if not n:
        return labels
    small: NDArray[np.bool_] = np.asarray(regions > 0)
    votes = []
    for a, b in _neighbours(labels.shape):
        for here, there in ((a, b), (b, a)):
            voting = small[here] & ~small[there] & (labels[there] != MISSING)
            votes.append(regions[here][voting].astype(np.int64) * (MISSING + 1) + labels[there][voting])
    told, times = np.unique(np.concatenate(votes), return_counts=True)
    region, label = np.divmod(told, MISSING + 1)
    # The last of a region's entries in this order is its label with most votes, the smallest of several.
    order = np.lexsort((-label, times, region))
    winner = np.full(n + 1, MISSING, dtype=np.uint8)
    winner[region[order]] = label[order]
    winning = winner[regions]
    out: NDArray[np.uint8] = np.where(winning != MISSING, winning, labels)
    return out


def _neighbours(shape: tuple[int, ...]) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of views: every pixel beside the next in its row, and in its column."""
    everything = slice(None)
    return [
        ((slice(None, -1), everything), (slice(1, None), everything)),
        ((everything, slice(None, -1)), (everything, slice(1, None))),
    ]


def edges(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels (h, w) whose right or lower neighbour has another label."""
    out = np.zeros(labels.shape, dtype=bool)
    for a, b in _neighbours(labels.shape):
        out[a] |= labels[a] != labels[b]
    return out

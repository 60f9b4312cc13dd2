"""Random numbers by counter: a pure function of (seed, purpose, row key, column, count), never of a generator carried along.

So a row draws the same numbers wherever it is, in whatever company, and as often as it is computed. Words are mixed by the finaliser of
splitmix64 (Steele, Lea and Flood 2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_ONE, _TWO = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

BOOTSTRAP, DRAW, DONOR, SIMULATION, FOLD = range(5)
"""Purposes: numbers for one are independent of those for another."""


def mix(words: Words, *others: Any) -> Words:
    """Mix further words (arrays or integers) into 64-bit words, one after the other."""
    h = words ^ np.uint64(_GOLDEN)
    for other in others:
        h = h ^ (other if isinstance(other, np.ndarray) else word_of(other))
        h = (h ^ (h >> np.uint64(30))) * _ONE
        h = (h ^ (h >> np.uint64(27))) * _TWO
        h = h ^ (h >> np.uint64(31))
    return h


def word_of(number: int) -> np.uint64:
    """A word of an integer, such as a seed or a count."""
    return np.uint64((int(number) * _GOLDEN + _GOLDEN) % 2**64)


def uniforms(words: Words) -> NDArray[np.float64]:
    """Numbers strictly between 0 and 1, with 52 random bits: with 53 the largest would round to 1."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _poisson_limits() -> Words:
    """Where the uniform 64-bit words of a Poisson(1) count change from one count to the next."""
    limits, cumulative, term = [], 0.0, float(np.exp(-1.0))
    for count in range(1, 18):
        cumulative += term
        limits.append(min(int(cumulative * 2.0**64), 2**64 - 1))
        term /= count
    return np.array(limits, dtype=np.uint64)


POISSON_LIMITS = _poisson_limits()


def bootstrap_counts(keys: Words, seed: int, replicates: Any) -> NDArray[np.uint8]:
    """How often each row counts in each bootstrap replicate: (m, n) Poisson(1) counts.

    Poisson counts stand for drawing n of n rows with replacement where rows come in a stream (Chamandy, Muralidharan, Najmi and Naidu 2012).
    """
    out = np.empty((len(replicates), len(keys)), dtype=np.uint8)
    base = mix(keys, seed, BOOTSTRAP)
    for own, replicate in zip(out, replicates):
        own[:] = np.searchsorted(POISSON_LIMITS, mix(base, replicate), side="right")
    return out

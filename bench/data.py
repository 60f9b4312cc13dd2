"""Synthetic tables with a fixed seed, and a start that every contestant takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Start:
    """Where EM starts: equal weights, jittered true means, one pooled covariance."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


def mixture(
    rows: int, dim: int, k: int, missing: float = 0.0, seed: int = 7, spread: float = 2.0, diagonal: bool = False
) -> tuple[np.ndarray, Start]:
    """Rows of a mixture of overlapping normals, correlated unless `diagonal`, some cells missing at random, and a start."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(k, 5.0))
    means = spread * rng.normal(size=(k, dim))
    roots = rng.normal(size=(k, dim, dim)) / np.sqrt(dim)
    covariances = roots @ np.swapaxes(roots, 1, 2) + 0.3 * np.eye(dim)
    if diagonal:
        covariances *= np.eye(dim)
    component = rng.choice(k, size=rows, p=weights)
    X = np.empty((rows, dim))
    for j in range(k):
        own = np.flatnonzero(component == j)
        X[own] = means[j] + rng.normal(size=(len(own), dim)) @ np.linalg.cholesky(covariances[j]).T
    if missing:
        X[rng.random(X.shape) < missing] = np.nan
    pooled = covariances.mean(axis=0) + 0.5 * np.eye(dim)
    jittered = means + 0.5 * rng.normal(size=means.shape)
    return X, Start(np.full(k, 1.0 / k), jittered, np.repeat(pooled[None], k, axis=0))


def answers(
    rows: int, items: int, levels: int, k: int, missing: float, seed: int = 12
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Answers 0, 1, ... of latent classes to some items, -1 where missing at random; and a start, drawn by itself."""
    rng = np.random.default_rng(seed)
    weights, chances = rng.dirichlet(np.full(k, 5.0)), rng.dirichlet(np.full(levels, 0.7), size=(k, items))
    own = chances.cumsum(axis=2)[rng.choice(k, size=rows, p=weights)]
    X = (rng.random((rows, items, 1)) > own[:, :, :-1]).sum(axis=2).astype(np.int8)
    X[rng.random(X.shape) < missing] = -1
    return X, {"weights": np.full(k, 1.0 / k), "probabilities": rng.dirichlet(np.full(levels, 2.0), size=(k, items))}

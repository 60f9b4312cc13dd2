"""Intel's oneDAL, through daal4py, as a contestant."""

from __future__ import annotations

from typing import Any

import daal4py
import numpy as np
from serve import serve


def prepare(X: np.ndarray, settings: dict[str, Any], start: dict[str, np.ndarray]) -> tuple[Any, ...]:
    daal4py.daalinit(settings["threads"])
    covariances = list(start["covariances"])
    if settings["model"] == "diag":
        covariances = [np.diagonal(c)[None].copy() for c in covariances]
    return X, settings, start["weights"][None], start["means"], covariances


def fit(task: tuple[Any, ...], steps: int) -> Any:
    X, settings, *start = task
    # It stops where the log-likelihood does not rise, even at a threshold of 0: the steps it took are counted, not those asked for.
    storage = {"full": "full", "diag": "diagonal"}[settings["model"]]
    algorithm = daal4py.em_gmm(
        nComponents=settings["k"], maxIterations=steps, accuracyThreshold=0.0, covarianceStorage=storage
    )
    return algorithm.compute(X, *start)


def found(result: Any) -> tuple[int, dict[str, np.ndarray]]:
    covariances = np.array([np.asarray(c) for c in result.covariances])
    if covariances.shape[1] == 1:
        covariances = covariances[:, 0]
    parameters = {"weights": np.ravel(result.weights), "means": np.asarray(result.means), "covariances": covariances}
    return int(np.ravel(result.nIterations)[0]), parameters


if __name__ == "__main__":
    serve("daal4py", prepare, fit, found)

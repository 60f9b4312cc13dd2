"""scikit-learn's GaussianMixture as a contestant."""

from __future__ import annotations

from typing import Any

import numpy as np
from serve import serve
from sklearn.mixture import GaussianMixture


def prepare(X: np.ndarray, settings: dict[str, Any], start: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, Any]]:
    covariances = start["covariances"]
    full = settings["model"] == "full"
    return X, {
        "n_components": settings["k"],
        "covariance_type": settings["model"],
        "reg_covar": 0.0,
        "tol": 0.0,
        "weights_init": start["weights"],
        "means_init": start["means"],
        "precisions_init": np.linalg.inv(covariances) if full else 1 / np.diagonal(covariances, axis1=1, axis2=2),
    }


def fit(task: tuple[np.ndarray, dict[str, Any]], steps: int) -> GaussianMixture:
    X, settings = task
    return GaussianMixture(max_iter=steps, **settings).fit(X)


def found(model: GaussianMixture) -> tuple[int, dict[str, np.ndarray]]:
    return model.n_iter_, {"weights": model.weights_, "means": model.means_, "covariances": model.covariances_}


if __name__ == "__main__":
    serve("scikit-learn", prepare, fit, found)

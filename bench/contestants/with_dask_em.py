"""dask_em as a contestant: a normal mixture, or latent classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from serve import serve

from dask_em import GaussianMixture, LatentClassAnalysis
from dask_em.execution.local import LocalExecutor


def prepare(X: np.ndarray, settings: dict[str, Any], start: dict[str, np.ndarray]) -> tuple[Any, type, dict[str, Any]]:
    common = {
        "n_components": settings["k"],
        "prior": None,
        "tol": 0.0,
        "executor": LocalExecutor(settings["threads"]),
        "weights_init": start["weights"],
        "compress": settings.get("compress", "auto"),
    }
    if settings["model"] == "classes":
        names = [f"q{j}" for j in range(X.shape[1])]
        frame = pd.DataFrame(X, columns=names).astype("Int8").mask(X < 0)
        chances = dict(zip(names, np.moveaxis(start["probabilities"], 1, 0)))
        return frame, LatentClassAnalysis, {**common, "probabilities_init": chances}
    centres = {"means_init": start["means"], "covariances_init": start["covariances"]}
    return X, GaussianMixture, {**common, **centres, "covariance_type": settings["model"]}


def fit(task: tuple[Any, type, dict[str, Any]], steps: int) -> Any:
    table, estimator, settings = task
    return estimator(max_iter=steps, **settings).fit(table)


def found(model: Any) -> tuple[int, dict[str, np.ndarray]]:
    if isinstance(model, LatentClassAnalysis):
        chances = np.stack([frame.to_numpy() for frame in model.probabilities_.values()], axis=1)
        return model.n_iter_, {"weights": model.weights_, "probabilities": chances}
    return model.n_iter_, {"weights": model.weights_, "means": model.means_, "covariances": model.covariances_}


if __name__ == "__main__":
    serve("dask-em", prepare, fit, found)

"""stepmix's latent classes as a contestant; it takes no start, so it draws its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from serve import serve
from stepmix import StepMix


def prepare(X: np.ndarray, settings: dict[str, Any], start: dict[str, np.ndarray]) -> tuple[np.ndarray, int]:
    return np.where(X < 0, np.nan, X), settings["k"]


def fit(task: tuple[np.ndarray, int], steps: int) -> StepMix:
    X, k = task
    holes = "_nan" if np.isnan(X).any() else ""
    model = StepMix(
        k, measurement=f"categorical{holes}", max_iter=steps, abs_tol=0.0, rel_tol=0.0, random_state=3, progress_bar=0
    )
    return model.fit(X)


def found(model: StepMix) -> tuple[int, dict[str, np.ndarray]]:
    chances = model.get_parameters()["measurement"]["pis"].reshape(model.n_components, model.n_features_in_, -1)
    return model.n_iter_, {"weights": model.weights_, "probabilities": chances}


if __name__ == "__main__":
    serve("stepmix", prepare, fit, found)

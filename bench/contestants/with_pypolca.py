"""pypolca's latent classes as a contestant (the package polca: poLCA in C++)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pypolca
from serve import serve


def prepare(X: np.ndarray, settings: dict[str, Any], start: dict[str, np.ndarray]) -> tuple[Any, ...]:
    columns = {f"q{j}": [None if v < 0 else v + 1 for v in column.tolist()] for j, column in enumerate(X.T)}
    return pl.DataFrame(columns), settings["k"], np.ravel(start["probabilities"])


def fit(task: tuple[Any, ...], steps: int) -> Any:
    frame, k, chances = task
    return pypolca.fit(
        f"cbind({', '.join(frame.columns)}) ~ 1",
        frame,
        nclass=k,
        maxiter=steps,
        tol=1e-300,
        na_rm=False,
        probs_start=chances,
        seed=3,
        calc_se=False,
    )


def found(result: Any) -> tuple[int, dict[str, np.ndarray]]:
    return result.iterations, {"weights": np.asarray(result.P), "probabilities": np.stack(result.probs, axis=1)}


if __name__ == "__main__":
    serve("polca", prepare, fit, found)

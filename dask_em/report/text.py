"""A fitted model in words, for a terminal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dask_em.data.columns import undo
from dask_em.model import FittedMixture


def describe(estimator: Any) -> str:
    """What was fitted, how it ended, and the parameters by component, in the table's units.

    A gaussian column with a transform is shown by its median, the transform of the mean undone.
    """
    imputation = getattr(estimator, "imputation_", None)
    model: FittedMixture = estimator.model_ if imputation is None else imputation.model
    segments = getattr(estimator, "notes_", {}).get("segments", range(model.n_components))
    table = pd.DataFrame(dict(_parameters(model)), index=list(segments)).T
    heading = (
        f"{type(estimator).__name__} with {model.n_components} components, {model.n_parameters} free parameters\n"
        f"log-likelihood {estimator.log_likelihood_:.6g} on {estimator.n_rows_:,} rows (sum of weights "
        f"{estimator.sum_of_weights_:,.6g}), BIC "
        f"{-2 * estimator.log_likelihood_ + model.n_parameters * np.log(estimator.sum_of_weights_):.6g}\n"
        f"{estimator.stopped_because_}; {estimator.n_iter_} iterations, {estimator.n_scans_} scans\n"
    )
    if imputation is not None:
        heading += f"{len(imputation.replicates)} bootstrap replicates; random numbers hang on {_key(imputation.key)}\n"
        heading += "".join(f"{name} is left alone: {why}\n" for name, why in estimator.roles_.other)
    return heading + "\n" + table.to_string(float_format=lambda v: f"{v:.4g}")


def _key(names: tuple[str, ...]) -> str:
    return "the key " + ", ".join(names) if names else "the position of a row"


def _parameters(model: FittedMixture) -> list[tuple[str, Any]]:
    design = model.schema.design
    scores = {name for name, _ in design.ordered}
    rows: list[tuple[str, Any]] = [("weight", model.parameters.weights)]
    if model.means is not None:
        for name, mean in zip(design.gaussian, model.means.T):
            how = design.transform(name)
            what = "score" if name in scores else "median" if how else "mean"
            rows.append((f"{name} ({what})", undo(mean, how)))
    if model.rates is not None:
        rows += [(f"{name} (rate)", rate) for name, rate in zip(design.poisson, model.rates.T)]
    if model.success_probabilities is not None:
        rows += [(f"{name} (probability)", p) for (name, _), p in zip(design.binomial, model.success_probabilities.T)]
    for (name, p), levels in zip(model.category_probabilities.items(), model.schema.levels):
        rows += [(f"{name} = {level}", own) for level, own in zip(levels, p.T)]
    return rows

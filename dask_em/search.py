"""Choosing the number of components: every number, and every restart of it, in the same scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dask_em.em.loop import Progress
from dask_em.errors import ConfigurationError
from dask_em.fitting import Fit


@dataclass(frozen=True)
class Selection:
    """The outcome of a search.

    Attributes
    ----------
    table : one row for each number of components that could be fitted: n_components, log_likelihood, n_parameters, bic, aic, converged, starts
    best : the fitted estimator with the smallest criterion
    fit : all candidates
    """

    table: pd.DataFrame
    best: Any
    fit: Fit


def choose_n_components(
    X: Any,
    estimator: Any,
    n_components: Sequence[int],
    *,
    criterion: str = "bic",
    sample_weight: Any = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Selection:
    """Fit a mixture with every number of components in the same scans and choose among them.

    Parameters
    ----------
    X : table, as in `fit`
    estimator : unfitted mixture; its n_components is not used, everything else is
    n_components : numbers to try
    criterion : "bic" (default) or "aic"; smaller is better
    sample_weight : as in `fit`
    on_progress : called after every scan

    Returns
    -------
    Selection

    Raises
    ------
    ConfigurationError
        The estimator starts from given values or labels, which fit one number only.
    ConvergenceWarning
        (as a warning) some number cannot be fitted to this table and is left out of the choice.
    """
    sizes = list(dict.fromkeys(n_components))
    if not sizes:
        raise ConfigurationError("n_components is empty: name at least one number to try")
    if criterion not in ("bic", "aic"):
        raise ConfigurationError("criterion must be 'bic' or 'aic'")
    if sizes != [estimator.n_components] and (given := _starts(estimator)):
        raise ConfigurationError(
            f"{given[0]} starts {estimator.n_components} components and no other number: leave it out, or try that number only"
        )
    found = estimator.fit_candidates(X, sizes, sample_weight=sample_weight, on_progress=on_progress)
    rows = []
    for k in found.sizes:
        best = found.best(k)
        log_likelihood, n_parameters = best.log_likelihoods[-1], found.mixture.n_free(k)
        rows.append(
            {
                "n_components": k,
                "log_likelihood": log_likelihood,
                "n_parameters": n_parameters,
                "bic": -2 * log_likelihood + n_parameters * np.log(found.profile.weight),
                "aic": -2 * log_likelihood + 2 * n_parameters,
                "converged": best.verdict.converged,
                "starts": sum(c.n_components == k for c in found.candidates),
            }
        )
    table = pd.DataFrame(rows)
    k = found.sizes[int(np.argmin(table[criterion].to_numpy()))]
    chosen = type(estimator)(**{**estimator.get_params(deep=False), "n_components": k})
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(estimator, name):
            setattr(chosen, name, getattr(estimator, name))
    return Selection(table, chosen.adopt(found, found.best(k)), found)


def _starts(estimator: Any) -> list[str]:
    """The arguments that hold starting values or labels."""
    settings = estimator.get_params(deep=False)
    given = [
        name for name, value in settings.items() if name.endswith("_init") and name != "n_init" and value is not None
    ]
    return given + ([] if settings["init"] is None or isinstance(settings["init"], str) else ["init"])

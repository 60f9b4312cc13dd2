"""Coverage by simulation: how often a nominal 95 % interval of a mean covers the truth, after imputation and after listwise deletion."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from bench.measure import report
from dask_em import Imputer
from dask_em.execution.local import LocalExecutor

TRUTH = 10.0 + 0.03 * 45.0
"""Mean of log income: of 10 + 0.03 age + noise, with ages of 45 on average."""


def survey(rows: int, missing: float, rng: np.random.Generator) -> pd.DataFrame:
    """Age, schooling and log income; income is missing at random given age, more often for the old, who earn more."""
    age = rng.normal(45.0, 12.0, rows)
    schooling = rng.normal(12.0, 3.0, rows)
    income = 10.0 + 0.03 * age + 0.05 * (schooling - 12.0) + rng.normal(0.0, 0.5, rows)
    chance = 1 / (1 + np.exp(-(age - 45.0) / 8.0))
    hole = rng.random(rows) < missing * chance / chance.mean()
    return pd.DataFrame({"age": age, "schooling": schooling, "income": np.where(hole, np.nan, income)})


def covered(surveys: int, rows: int, missing: float, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For every survey, whether the interval covered: imputed (surveys,), complete rows only (surveys,)."""
    rng = np.random.default_rng(seed)
    imputed, listwise = np.empty(surveys, dtype=bool), np.empty(surveys, dtype=bool)
    for s in range(surveys):
        frame = survey(rows, missing, rng)
        imputer = Imputer("normal", n_replicates=m, random_state=s, executor=LocalExecutor(1)).fit(frame)
        pooled = imputer.pooled(lambda t: (t["income"].mean(), t["income"].var() / len(t)), frame)
        low, high = pooled.interval()
        imputed[s] = low <= TRUTH <= high
        seen = frame["income"].dropna()
        reach = norm.ppf(0.975) * seen.std() / np.sqrt(len(seen))
        listwise[s] = abs(seen.mean() - TRUTH) <= reach
    return imputed, listwise


def run(surveys: int, rows: int, missing: float, m: int) -> None:
    """Print both coverages."""
    imputed, listwise = covered(surveys, rows, missing, m, seed=1)
    out = [
        {"who": f"dask_em, {m} imputations", "coverage %": 100 * imputed.mean()},
        {"who": "listwise deletion", "coverage %": 100 * listwise.mean()},
    ]
    report("coverage", out, surveys=surveys, rows=rows, missing=missing)

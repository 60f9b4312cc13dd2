"""Priors for the covariance of a multivariate normal: so many pseudo-rows of a given covariance, inside the objective.

A prior of a0 pseudo-rows with covariance S0 adds  -a0/2 [log|Σ| + tr(Σ⁻¹ S0)]  to the log-likelihood, so the M-step is (W + a0 S0) / (n + a0). The weak prior is one
pseudo-row of uncorrelated columns.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dask_em.errors import ConfigurationError


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and bool(np.isfinite(float(value)))


@dataclass(frozen=True)
class Ridge:
    """`df` pseudo-rows of uncorrelated columns with the variances of the table: correlations shrink towards 0 (Schafer 1997, section 5.2.3).

    Parameters
    ----------
    df : float
        Pseudo-rows, 0 or more; one per cent of the rows steadies most tables (Honaker and King 2010).
    """

    df: float

    def __post_init__(self) -> None:
        if not (_is_number(self.df) and self.df >= 0):
            raise ConfigurationError("Ridge needs df, the number of pseudo-rows, of 0 or more")


@dataclass(frozen=True, eq=False)
class InverseWishart:
    """Σ ~ inverse Wishart: density proportional to |Σ|^(-(df + d + 1)/2) exp(-tr(Σ⁻¹ scale) / 2).

    Parameters
    ----------
    df : float
        Degrees of freedom, more than d - 1.
    scale : (d, d) array
        Symmetric and positive definite, in the units of the table after its transforms.
    """

    df: float
    scale: Any

    def pseudo_rows(self, column_scale: Any) -> tuple[float, tuple[tuple[float, ...], ...]]:
        """How many pseudo-rows this is, and their covariance for columns divided by `column_scale`."""
        s = np.asarray(column_scale, dtype=np.float64)
        if not _is_number(self.df):
            raise ConfigurationError("the df of InverseWishart must be a finite number")
        try:
            given = np.asarray(self.scale, dtype=np.float64)
        except (TypeError, ValueError):
            raise ConfigurationError("the scale of InverseWishart must be a (d, d) array of numbers") from None
        if given.shape != (len(s), len(s)):
            raise ConfigurationError(
                f"the scale of InverseWishart must have the shape {(len(s), len(s))}, not {given.shape}"
            )
        if not np.isfinite(given).all() or not np.allclose(given, given.T) or np.linalg.eigvalsh(given)[0] <= 0:
            raise ConfigurationError("the scale of InverseWishart must be symmetric and positive definite")
        if not self.df > len(s) - 1:
            raise ConfigurationError(f"InverseWishart on {len(s)} columns needs df above {len(s) - 1}")
        rows = float(self.df) + len(s) + 1
        return rows, tuple(map(tuple, (given / (rows * s[:, None] * s)).tolist()))


Prior = Literal["weak"] | Ridge | InverseWishart | None

WEAK = 1.0
"""Pseudo-rows of the weak prior."""


def check_prior(prior: Any) -> None:
    """Raise ConfigurationError for what is no prior."""
    weak = isinstance(prior, str) and prior == "weak"
    if not (weak or prior is None or isinstance(prior, (Ridge, InverseWishart))):
        raise ConfigurationError("prior must be 'weak', None, Ridge(df) or InverseWishart(df, scale)")


def pseudo_rows(prior: Prior, column_scale: Any) -> tuple[float, tuple[tuple[float, ...], ...] | None]:
    """How many pseudo-rows a prior is, and their covariance where it is not that of uncorrelated columns."""
    if isinstance(prior, InverseWishart):
        return prior.pseudo_rows(column_scale)
    return (0.0 if prior is None else WEAK if prior == "weak" else float(prior.df)), None

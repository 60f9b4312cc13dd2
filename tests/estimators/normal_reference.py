"""What other programs find on small tables with missing cells, lavaan, norm2 and naniar of R and the SAS manual; and made-up tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tests.estimators.normal_data import CHOLESTEROL, table


def frame(values: np.ndarray, names: str) -> pd.DataFrame:
    return pd.DataFrame(values, columns=names.split())


def symmetric(*rows: tuple[float, ...]) -> np.ndarray:
    """A symmetric matrix from the rows of its upper triangle."""
    d = len(rows)
    out = np.zeros((d, d))
    out[np.triu_indices(d)] = np.concatenate(rows)
    return out + np.triu(out, 1).T


# --- cholesterol (Schafer and Olsen 1998): estimates by norm2, standard errors by lavaan ---------------------------

CHOLESTEROL_FRAME = frame(CHOLESTEROL, "Y1 Y2 Y3")
CHOLESTEROL_MEAN = [253.928571, 230.642857, 222.237170]
CHOLESTEROL_COVARIANCE = symmetric((2194.994898, 1454.617347, 835.397937), (2127.158163, 1515.467237), (1952.232578,))
CHOLESTEROL_LOG_LIKELIHOOD = -376.915465
CHOLESTEROL_WITHOUT_2PI = -307.995075
CHOLESTEROL_WORST = (0.462, 0.466)
CHOLESTEROL_MEAN_ERRORS = [8.854, 8.716, 9.222]
CHOLESTEROL_COVARIANCE_ERRORS = symmetric((586.637, 492.262, 458.373), (568.507, 526.315), (632.048,))
CHOLESTEROL_REGRESSION = (74.0236337, -0.1673990, 0.8269102, 838.9239)
"""Of Y3 on Y1 and Y2: intercept, slopes, residual variance."""
CHOLESTEROL_REGRESSION_DEVIANCE = 146.9102
"""-2 log-likelihood of Y3 given Y1 and Y2 in the 19 rows that have it, without 2 pi."""

# --- Fitness1 (SAS/STAT, PROC MI, example 1): estimates by norm2 ---------------------------------------------------

FITNESS = frame(
    table(
        """44.609 11.37 178; 45.313 10.07 185; 54.297 8.65 156; 59.571 . .; 49.874 9.22 .; 44.811 11.63 176; . 11.95 176;
        . 10.85 .; 39.442 13.08 174; 60.055 8.63 170; 50.541 . .; 37.388 14.03 186; 44.754 11.12 176; 47.273 . .;
        51.855 10.33 166; 49.156 8.95 180; 40.836 10.95 168; 46.672 10.00 .; 46.774 10.25 .; 50.388 10.08 168;
        39.407 12.63 174; 46.080 11.17 156; 45.441 9.63 164; . 8.92 .; 45.118 11.08 .; 39.203 12.88 168; 45.790 10.47 186;
        50.545 9.93 148; 48.673 9.40 186; 47.920 11.50 170; 47.467 10.50 170"""
    ),
    "Oxygen RunTime RunPulse",
)
FITNESS_MEAN = [47.10407643, 10.5548569, 171.3816388]
FITNESS_COVARIANCE = symmetric((27.797921, -6.457980, -18.031416), (2.015517, 3.516328), (97.766958,))
FITNESS_LOG_LIKELIHOOD = -198.918606
FITNESS_DEVIANCE_WITHOUT_2PI = 254.482800

# --- airquality (New York, May to September 1973; R's datasets): Little's test by naniar ---------------------------


def _airquality() -> pd.DataFrame:
    measured = frame(table(_AIRQUALITY), "Ozone Solar.R Wind Temp")
    days = pd.date_range("1973-05-01", "1973-09-30")
    return measured.assign(Month=days.month.astype(float), Day=days.day.astype(float))


_AIRQUALITY = """
41 190 7.4 67; 36 118 8 72; 12 149 12.6 74; 18 313 11.5 62; . . 14.3 56; 28 . 14.9 66; 23 299 8.6 65;
19 99 13.8 59; 8 19 20.1 61; . 194 8.6 69; 7 . 6.9 74; 16 256 9.7 69; 11 290 9.2 66; 14 274 10.9 68;
18 65 13.2 58; 14 334 11.5 64; 34 307 12 66; 6 78 18.4 57; 30 322 11.5 68; 11 44 9.7 62; 1 8 9.7 59;
11 320 16.6 73; 4 25 9.7 61; 32 92 12 61; . 66 16.6 57; . 266 14.9 58; . . 8 57; 23 13 12 67; 45 252 14.9 81;
115 223 5.7 79; 37 279 7.4 76; . 286 8.6 78; . 287 9.7 74; . 242 16.1 67; . 186 9.2 84; . 220 8.6 85;
. 264 14.3 79; 29 127 9.7 82; . 273 6.9 87; 71 291 13.8 90; 39 323 11.5 87; . 259 10.9 93; . 250 9.2 92;
23 148 8 82; . 332 13.8 80; . 322 11.5 79; 21 191 14.9 77; 37 284 20.7 72; 20 37 9.2 65; 12 120 11.5 73;
13 137 10.3 76; . 150 6.3 77; . 59 1.7 76; . 91 4.6 76; . 250 6.3 76; . 135 8 75; . 127 8 78; . 47 10.3 73;
. 98 11.5 80; . 31 14.9 77; . 138 8 83; 135 269 4.1 84; 49 248 9.2 85; 32 236 9.2 81; . 101 10.9 84;
64 175 4.6 83; 40 314 10.9 83; 77 276 5.1 88; 97 267 6.3 92; 97 272 5.7 92; 85 175 7.4 89; . 139 8.6 82;
10 264 14.3 73; 27 175 14.9 81; . 291 14.9 91; 7 48 14.3 80; 48 260 6.9 81; 35 274 10.3 82; 61 285 6.3 84;
79 187 5.1 87; 63 220 11.5 85; 16 7 6.9 74; . 258 9.7 81; . 295 11.5 82; 80 294 8.6 86; 108 223 8 85;
20 81 8.6 82; 52 82 12 86; 82 213 7.4 88; 50 275 7.4 86; 64 253 7.4 83; 59 254 9.2 81; 39 83 6.9 81;
9 24 13.8 81; 16 77 7.4 82; 78 . 6.9 86; 35 . 7.4 85; 66 . 4.6 87; 122 255 4 89; 89 229 10.3 90; 110 207 8 90;
. 222 8.6 92; . 137 11.5 86; 44 192 11.5 86; 28 273 11.5 82; 65 157 9.7 80; . 64 11.5 79; 22 71 10.3 77;
59 51 6.3 79; 23 115 7.4 76; 31 244 10.9 78; 44 190 10.3 78; 21 259 15.5 77; 9 36 14.3 72; . 255 12.6 75;
45 212 9.7 79; 168 238 3.4 81; 73 215 8 86; . 153 5.7 88; 76 203 9.7 97; 118 225 2.3 94; 84 237 6.3 96;
85 188 6.3 94; 96 167 6.9 91; 78 197 5.1 92; 73 183 2.8 93; 91 189 4.6 93; 47 95 7.4 87; 32 92 15.5 84;
20 252 10.9 80; 23 220 10.3 78; 21 230 10.9 75; 24 259 9.7 73; 44 236 14.9 81; 21 259 15.5 76; 28 238 6.3 77;
9 24 10.9 71; 13 112 11.5 71; 46 237 6.9 78; 18 224 13.8 67; 13 27 10.3 76; 24 238 10.3 68; 16 201 8 82;
13 238 12.6 64; 23 14 9.2 71; 36 139 10.3 81; 7 49 10.3 69; 14 20 16.6 63; 30 193 6.9 70; . 145 13.2 77;
14 191 14.3 75; 18 131 8 76; 20 223 11.5 68
"""
AIRQUALITY = _airquality()
AIRQUALITY_LITTLE = (35.106, 14)

# --- made-up tables ------------------------------------------------------------------------------------------------


def holes(n: int = 60, d: int = 3, share: float = 0.25, seed: int = 0) -> pd.DataFrame:
    """Correlated columns of different sizes with cells missing anywhere, and rows of which nothing is observed."""
    rng = np.random.default_rng(seed)
    mix = np.eye(d) + 0.7 * np.tri(d, k=-1)
    X = rng.normal(size=(n, d)) @ mix.T * 10.0 ** np.arange(d) + np.arange(d)
    X[rng.random((n, d)) < share] = np.nan
    X[[3, n // 2]] = np.nan
    return pd.DataFrame(X, columns=[f"c{j}" for j in range(d)])


def never_together(n: int = 200, d: int = 3, seed: int = 0) -> np.ndarray:
    """Columns 0 and 1 are never observed in the same row."""
    X = np.random.default_rng(seed).normal(size=(n, d))
    X[: n // 2, 0] = np.nan
    X[n // 2 :, 1] = np.nan
    return X


def vector(mean: Any, covariance: Any) -> np.ndarray:
    """The free parameters, or one number for each, in one vector."""
    return np.concatenate([mean, np.asarray(covariance)[np.triu_indices(len(mean))]])

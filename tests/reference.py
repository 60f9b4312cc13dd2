"""Small data sets and their answers, printed by others or computed from closed formulas.

Sources: Do and Batzoglou 2008 (two coins); Hasselblad 1969 (deaths; answers of R's flexmix); Fisher's iris (answers of
R's mclust from the M-step on the species, tolerance 1e-14); carcinoma and cheating (R's poLCA, best of 20 starts).

At the end, where nobody has published anything: made-up tables with holes and weights, whose answers the oracle works out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import load_iris

from tests.oracle import Data, Params

# --- coins -------------------------------------------------------------------------------------------------------

ONE_COIN_ITERATES = {1: 0.58333333, 2: 0.59722222, 3: 0.59953704, 4: 0.59992284}
"""6 heads in 10 seen flips, 2 flips missing and expected, started at 1/2; the rate of convergence is 2/12."""
ONE_COIN_LIMIT = 0.6

TWO_COINS = pd.DataFrame({"heads": [5, 9, 8, 4, 7]})
"""Heads of 10 flips each. Started at .6 and .5."""
TWO_COINS_ITERATES = {
    1: (0.71301224, 0.58133931),
    2: (0.74529204, 0.56925575),
    5: (0.79105525, 0.52628117),
    10: (0.79674415, 0.51965866),
}
TWO_COINS_LIMIT = (0.79678907, 0.51958312)
TWO_COINS_LOG_LIKELIHOOD = -9.79692429
TWO_COINS_FREE_LIMIT = (0.79336765, 0.51391659)
TWO_COINS_FREE_WEIGHT = 0.52275132
TWO_COINS_FREE_LOG_LIKELIHOOD = -9.79541896
TWO_COINS_FIRST_RESPONSIBILITIES = (0.4491, 0.8050, 0.7335, 0.3522, 0.6472)

# --- counts ------------------------------------------------------------------------------------------------------

DEATHS = pd.DataFrame({"deaths": np.arange(10)})
"""Deaths of women over 80 reported per day: counts 0..9 and on how many days each was seen."""
DEATHS_DAYS = np.array([162, 267, 271, 185, 111, 61, 27, 8, 3, 1])
DEATHS_WEIGHT, DEATHS_RATES, DEATHS_LOG_LIKELIHOOD = 0.35988540, (1.25609510, 2.66340436), -1989.945860
DEATHS_ONE_RATE, DEATHS_ONE_LOG_LIKELIHOOD = 2.15693431, -2001.397847

# --- normal ------------------------------------------------------------------------------------------------------


class Mclust(NamedTuple):
    """BIC as printed: 2 LL - df log n, larger is better."""

    model: str
    name: str
    log_likelihood: float
    bic: float


IRIS_ANSWERS = [
    Mclust("EII", "EII", -401.802176, -878.7639),
    Mclust("VII", "spherical", -384.314095, -853.8090),
    Mclust("EEE", "tied", -256.354043, -632.9633),
    Mclust("VVI", "diag", -306.860461, -743.9974),
    Mclust("VVV", "full", -180.185477, -580.8389),
]

IRIS_MORE_ANSWERS = [
    Mclust("EEI", "EEI", -361.425522, -813.0425),
    Mclust("VEI", "VEI", -339.468727, -779.1502),
    Mclust("EVI", "EVI", -340.085581, -800.4264),
    Mclust("VEE", "VEE", -237.560163, -605.3968),
    Mclust("EVE", "EVE", -234.140235, -618.5995),
    Mclust("EEV", "EEV", -214.850379, -610.0836),
    Mclust("VEV", "VEV", -186.073283, -562.5507),
    Mclust("EVV", "EVV", -205.535881, -621.5184),
]

IRIS_VVE_LOG_LIKELIHOOD = -215.240870
"""What mclust prints. Its algorithm, run to its end, comes to -214.053208 from the same start, as ours does."""

IRIS_WEIGHTED_PROPORTIONS = (0.333333, 0.306022, 0.360644)
"""Rows weighted 1, 2, 1, 2, ...; VVV."""
IRIS_WEIGHTED_MEANS = {
    1: (5.89779117, 2.77266152, 4.19155803, 1.29274320),
    2: (6.57967375, 2.96615198, 5.49375000, 1.97779536),
}


def iris() -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Measurements and species, as shipped by scikit-learn."""
    bunch = load_iris(as_frame=True)
    return bunch.data, bunch.target.to_numpy().astype(np.int64)


# --- latent classes ----------------------------------------------------------------------------------------------


class PoLCA(NamedTuple):
    data: str
    n_components: int
    log_likelihood: float
    n_parameters: int
    aic: float
    bic: float
    g2: float
    shares: tuple[float, ...]


LATENT_CLASS_ANSWERS = [
    PoLCA("carcinoma", 2, -317.256837, 15, 664.5137, 706.0739, 62.3654, (0.498788, 0.501212)),
    PoLCA("carcinoma", 3, -293.704979, 23, 633.4100, 697.1357, 15.2617, (0.181708, 0.373564, 0.444728)),
    PoLCA("cheating", 2, -440.027112, 9, 898.0542, 931.9409, 7.7642, (0.160568, 0.839432)),
]

CHEATING_SMALL_CLASS = (0.576932, 0.589085, 0.216047, 0.376361)
"""Probability of answer 2 to each of the four questions in the class of share .160568."""
CARCINOMA_ITEM_B = 0.137943
"""Probability of rating 2 by pathologist B in the class of share .373564 of three."""

_CELLS = {
    "carcinoma": (
        "ABCDEFG",
        """1111111:34 1111211:2 1211111:6 1211112:1 1211211:4 1211212:5 2111111:2 2121212:1 2211111:2 2211112:1
        2211211:2 2211212:7 2211222:1 2212112:1 2212212:2 2212222:3 2221212:13 2221222:5 2222212:10 2222222:16""",
    ),
    "cheating": (
        ["lie_exam", "lie_paper", "fraud", "copy_exam"],
        """1111:207 1112:46 1121:7 1122:5 1211:13 1212:4 1221:1 1222:2 2111:10 2112:3 2121:1 2122:2 2211:11 2212:4
        2221:1 2222:2""",
    ),
}


def latent_class_cells(name: str) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The distinct answer patterns of a questionnaire (integers 1 and 2), and how many people gave each."""
    columns, text = _CELLS[name]
    patterns, counts = zip(*(cell.split(":") for cell in text.split()), strict=True)
    rows: list[Any] = [[int(answer) for answer in pattern] for pattern in patterns]
    return pd.DataFrame(rows, columns=list(columns)), np.array(counts, dtype=np.int64)


# --- made up: the oracle has the answers ---------------------------------------------------------------------------

ROWS = 40
COVARIANCE_TYPES = ["full", "tied", "diag", "spherical", "EII"]


@dataclass(frozen=True)
class Problem:
    """Two components of one family on a table with holes and weights, for an estimator and for the oracle.

    Attributes
    ----------
    estimator, keywords : name in the package, and keywords that start it at `start`
    X, data : the table, for either
    start : where EM starts
    settings : of the oracle's steps
    """

    estimator: str
    keywords: dict[str, Any]
    X: pd.DataFrame
    data: Data
    start: Params
    settings: dict[str, Any] = field(default_factory=dict)


def holes(rng: np.random.Generator, values: Any, share: float = 0.2) -> NDArray[np.float64]:
    """Knock out a share of the cells, and one whole row."""
    out = np.array(values, dtype=np.float64)
    out[rng.random(out.shape) < share] = np.nan
    out[7] = np.nan
    return out


def row_weights(rng: np.random.Generator) -> NDArray[np.float64]:
    """Fractions, whole numbers and a zero."""
    weight = rng.choice([0.0, 0.25, 1.0, 2.0, 3.5], ROWS)
    weight[:2] = 0.0, 1.0
    return weight


def gaussian_problem(covariance_type: str) -> Problem:
    """Three correlated columns in very different units, far from the origin."""
    rng = np.random.default_rng(3)
    side = rng.integers(0, 2, ROWS)
    root = np.array([[1.0, 0.0, 0.0], [0.6, 1.0, 0.0], [-0.4, 0.5, 1.0]])
    x = (rng.standard_normal((ROWS, 3)) @ root + 1.2 * side[:, None]) * [1.0, 30.0, 400.0] + [5.0, -100.0, 2000.0]
    x = holes(rng, x)
    middle, spread = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    means = middle + np.outer([0.4, -0.4], spread)
    if covariance_type in ("spherical", "EII"):
        spread = np.full(3, spread.mean())
    covariances = np.repeat([np.diag(spread**2)], 2, axis=0)
    start = Params(np.array([0.4, 0.6]), means, covariances)
    keywords = {
        "covariance_type": covariance_type,
        "weights_init": start.weights,
        "means_init": means,
        "covariances_init": covariances,
    }
    data = Data(gaussian=x, weight=row_weights(rng))
    frame = pd.DataFrame(x, columns=["a", "b", "c"])
    return Problem("GaussianMixture", keywords, frame, data, start, {"covariance_type": covariance_type})


def category_problem() -> Problem:
    """Three questions of two, three and two levels."""
    rng = np.random.default_rng(4)
    levels = {"asked": ["no", "yes"], "grade": ["high", "low", "mid"], "side": ["x", "y"]}
    codes = holes(rng, np.column_stack([rng.integers(0, len(names), ROWS) for names in levels.values()]))
    start = tuple(rng.dirichlet(np.full(len(names), 4.0), 2) for names in levels.values())
    frame = pd.DataFrame({c: text(code, names) for (c, names), code in zip(levels.items(), codes.T, strict=True)})
    init = {c: pd.DataFrame(p, columns=names) for (c, names), p in zip(levels.items(), start, strict=True)}
    data = Data(categorical=codes, weight=row_weights(rng))
    params = Params(np.full(2, 0.5), probabilities=start)
    return Problem("LatentClassAnalysis", {"probabilities_init": init}, frame, data, params)


def text(codes: NDArray[np.float64], names: list[str]) -> list[str | None]:
    """Codes as level names, None where missing."""
    return [None if np.isnan(code) else names[int(code)] for code in codes]


def count_problem() -> Problem:
    """Two columns of counts."""
    rng = np.random.default_rng(5)
    y = holes(rng, rng.poisson(np.where(rng.random((ROWS, 1)) < 0.5, [1.0, 6.0], [4.0, 2.0])))
    rates = np.array([[1.5, 5.0], [3.0, 2.5]])
    data = Data(poisson=y, weight=row_weights(rng))
    frame = pd.DataFrame(y, columns=["visits", "calls"])
    return Problem("PoissonMixture", {"rates_init": rates}, frame, data, Params(np.full(2, 0.5), rates=rates))


def coin_problem(missing: str) -> Problem:
    """Heads out of as many flips as a column says; what is expected of unseen flips shows best with fixed mixing."""
    rng = np.random.default_rng(6)
    flips = rng.integers(1, 12, ROWS).astype(np.float64)
    chance = np.where(rng.random(ROWS) < 0.5, 0.3, 0.7)
    heads = holes(rng, rng.binomial(flips.astype(np.int64), chance)[:, None])[:, 0]
    flips[[7, 11]] = np.nan
    settings = {"missing": missing, "fix_weights": missing == "expected"}
    keywords = {"successes": "heads", "trials": "flips", "probabilities_init": [0.4, 0.55], **settings}
    data = Data(successes=heads[:, None], trials=flips[:, None], weight=row_weights(rng))
    start = Params(np.full(2, 0.5), chances=np.array([[0.4], [0.55]]))
    return Problem("BinomialMixture", keywords, pd.DataFrame({"heads": heads, "flips": flips}), data, start, settings)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    **{name: partial(gaussian_problem, name) for name in COVARIANCE_TYPES},
    "categories": category_problem,
    "counts": count_problem,
    "coins": partial(coin_problem, "ignored"),
    "coins, expected": partial(coin_problem, "expected"),
}

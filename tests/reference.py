"""Small data sets and their answers, printed by others or computed from closed formulas.

Sources: Do and Batzoglou 2008 (two coins); Hasselblad 1969 (deaths; answers of R's flexmix); Fisher's iris (answers of
R's mclust from the M-step on the species, tolerance 1e-14); carcinoma and cheating (R's poLCA, best of 20 starts).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import load_iris

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

"""When EM is done, and why, as a sentence.

EM converges linearly, so after three objectives the gain still to come can be predicted (Aitken): with the ratio
a = (l2 - l1) / (l1 - l0), what remains is (l2 - l1) a / (1 - a). The last change alone says little: on a slow problem
it is small long before the optimum. Everything is per unit of weight, so that the rule does not depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

ROUNDING = float(np.finfo(np.float64).eps)
"""A gain below this share of the objective's size, or none at all, is noise of the summation; of sums over rows in double precision."""

DECREASE = 1e-9
"""A drop of the objective beyond this share of its size cannot be rounding, nor ten times the noise."""


class Verdict(StrEnum):
    """The state of a candidate; the text is what a reader is told."""

    RUNNING = "still improving"
    TOLERANCE = "converged: the last change and the predicted remaining gain per row are within tol"
    ANTICIPATED = "converged: the gain per row that a sample of the rows predicts is within tol"
    ROUNDING = "converged: further changes are lost in rounding"
    OUTRUN = "stopped early: another candidate is better by more than this one can still gain"
    MAX_ITER = "stopped at max_iter before the stopping rule was met"
    COLLAPSED = "dropped: a component collapsed"

    @property
    def converged(self) -> bool:
        return self in (Verdict.TOLERANCE, Verdict.ANTICIPATED, Verdict.ROUNDING)


def decreased(objectives: Sequence[float], rounding: float = ROUNDING) -> bool:
    """Whether the last step lowered the objective by more than rounding can."""
    if len(objectives) < 2:
        return False
    before, now = objectives[-2:]
    return not now >= before - max(DECREASE, 10 * rounding) * (1 + abs(before))


def judge(
    objectives: Sequence[float], n_weight: float, tol: float, max_iter: int, rounding: float = ROUNDING
) -> Verdict:
    """Decide after a scan.

    Parameters
    ----------
    objectives : the objective of the start and after every EM step, in order
    n_weight : total weight of the rows
    tol : bound on both the last change and the predicted remaining gain, per unit of weight
    max_iter : most EM steps
    rounding : share of the objective's size that is noise
    """
    if len(objectives) >= 2:
        change = objectives[-1] - objectives[-2]
        if change <= rounding * (abs(objectives[-1]) + n_weight):
            return Verdict.ROUNDING
        if len(objectives) >= 3:
            earlier = objectives[-2] - objectives[-3]
            if 0 <= change < earlier:
                remaining = change * change / (earlier - change)
                if max(change, remaining) <= tol * n_weight:
                    return Verdict.TOLERANCE
    return Verdict.MAX_ITER if len(objectives) > max_iter else Verdict.RUNNING

"""What another scan of all rows would say, anticipated on a sample of them.

    S(θ) = c S_sample(θ) + [ S_all(θ0) - c S_sample(θ0) ],    c = weight of all rows over that of the sample

A scan at θ0 tells the statistics of all rows there; elsewhere they are taken to be the sample's, corrected by what they differ at θ0. EM with these statistics reads no table. It climbs
c l_sample(θ) + Q(θ; correction) + log prior, which has the gradient of the objective of all rows at θ0, and it is run to its end. What remains shrinks by the relative error of the sample's curvature
with every scan of all rows, so that a handful are enough: the full approximation scheme of multigrid methods (Brandt 1977), with the control variate of stochastic EM (Chen, Zhu, Teh and Zhang 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from dask_em.em.acceleration import Accelerator, Daarem
from dask_em.em.stopping import judge
from dask_em.families.base import Array
from dask_em.mixture import Mixture, Parameters
from dask_em.scan import Block, Sums

N_MAPS = 256
"""Evaluations on the sample at most: where they do not end, the next scan of all rows corrects them again."""

SHORTER, LONGER, LEAST = 4, 2, 4
"""Where a solution on the sample lowered the objective of all rows it went too far in directions of which they say little: the next one has a quarter of the evaluations, at least 4, and
after each success twice as many again."""

FINER, ENOUGH = 0.01, 0.01
"""The sample is solved until two steps gained, and the rule of stopping predicts, less than a hundredth of the tolerance (accelerated steps are uneven, and must not pass for the end), or of
what was gained: more than the sample's own error is not worth it."""


@dataclass(frozen=True)
class Coarse:
    """A sample of the rows.

    blocks : encoded as all rows are; share : total weight over that of the sample; each : `map`, or one that has threads
    """

    blocks: tuple[Block, ...]
    share: float
    each: Callable[..., Iterable[Any]] = map

    def sums(self, mixture: Mixture, parameters: Parameters) -> Sums:
        """Statistics of the sample, scaled to all rows."""
        sizes = [len(parameters.weights)]
        total = reduce(add, self.each(mixture.e_step(parameters, sizes), self.blocks))
        return mixture.lift(total, parameters, sizes).scaled(self.share)


@dataclass(frozen=True)
class Ahead:
    """Where the sample says that EM will end, and how much the objective will have gained by then; unless solved it may go on from there."""

    parameters: Parameters
    gain: float
    solved: bool


def anticipate(
    coarse: Coarse, mixture: Mixture, start: Parameters, sums: Sums, tol: float, n_maps: int = N_MAPS
) -> Ahead | None:
    """Solve on the sample for one candidate whose statistics over all rows are known at `start`.

    `tol` is the gain of the objective that no longer matters. None where the sample says nothing, such as where a component is too tight for it.
    """
    correction = sums - coarse.sums(mixture, start)
    parameters, way, fallback, weight = start, _first(), None, float(sums.weight.sum())
    objectives: list[float] = []
    best, solved = start, False
    for _ in range(n_maps):
        seen = coarse.sums(mixture, parameters)
        expected = mixture.expected(correction, parameters)
        if expected is None:
            return None
        objective = float((seen.log_likelihood + mixture.log_prior(parameters, [len(start.weights)]))[0]) + expected
        if fallback is not None and not objective >= objectives[-1]:
            parameters, way, fallback = fallback, way.rejected(), None
            continue
        objectives.append(objective)
        best = parameters
        if len(objectives) > 2:
            close = max(FINER * tol, ENOUGH * (objectives[-1] - objectives[0]))
            even = objectives[-2] - objectives[-3] <= close
            solved = even and judge(objectives, weight, close / weight, n_maps).converged
            if solved:
                break
        after = _em_step(mixture, seen + correction, parameters)
        if after is None:
            break  # too far from the scan for its correction to hold
        way, proposal = _proposed(mixture, way, parameters, after)
        parameters, fallback = (after, None) if proposal is None else (proposal, after)
    return Ahead(best, objectives[-1] - objectives[0], solved) if len(objectives) > 1 else None


def _first() -> Accelerator:
    return Daarem()


def _em_step(mixture: Mixture, sums: Sums, parameters: Parameters) -> Parameters | None:
    if not (sums.weight > 0).all():
        return None
    with np.errstate(all="ignore"):
        after = mixture.m_step(sums, parameters, [len(parameters.weights)])
    if mixture.collapsed(after).any() or not all(f.possible(p) for f, p in zip(mixture.families, after.parts)):
        return None
    return after


def _proposed(
    mixture: Mixture, way: Accelerator, here: Parameters, mapped: Parameters
) -> tuple[Accelerator, Parameters | None]:
    sizes: Sequence[int] = [len(here.weights)]
    x: Array = mixture.coordinates(here, sizes)
    way, wanted = way.told(x.ravel(), mixture.coordinates(mapped, sizes).ravel())
    if wanted is None:
        return way, None
    there = mixture.at(wanted.reshape(x.shape), mapped, sizes)
    return way, None if mixture.collapsed(there).any() else there

"""The only EM loop, as a pure state machine.

    state = start(...)
    while not state.done:
        step  = ask(state)                       # function from a block to sums; the caller adds them over all blocks
        state = tell(state, total)               # M-step, judge, retire finished candidates

All candidates advance in the same scans. A candidate that stops leaves the stack with the parameters that were just evaluated, so that
what is reported belongs together. Nothing here knows where blocks are or who adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dask_em.em.acceleration import Acceleration, Accelerator, make_accelerator
from dask_em.em.coarse import LEAST, LONGER, N_MAPS, SHORTER, Coarse, anticipate
from dask_em.em.stopping import Verdict, decreased, judge
from dask_em.errors import ObjectiveDecreasedError
from dask_em.mixture import Mixture, Parameters, Step
from dask_em.scan import PatternSums, Sums

MARGIN = 4.0
"""By how much the gain that is expected may be too small."""

SAMPLE_WEIGHT = 4096.0
"""Rows that a start on a sample has seen at least."""

OTHERS = 32
"""Evaluations on the sample for a candidate that does not lead."""


@dataclass(frozen=True)
class Settings:
    """What does not change during a fit.

    n_weight is the total weight of the rows; tol is per unit of weight; max_iter bounds the evaluations of the EM map for each candidate. `replicates` says
    to which replicate of the rows each candidate is fitted; `acceleration` how states are proposed that are not EM's own.
    """

    mixture: Mixture
    n_weight: float
    tol: float
    max_iter: int
    replicates: tuple[int, ...] | None = None
    acceleration: Acceleration | None = None


@dataclass(frozen=True)
class Rivals:
    """What candidates compete for: the smallest -2 log-likelihood plus `penalty` a free parameter, `best` so far; with None those of the same size, by `rank`."""

    penalty: float | None
    best: float


@dataclass(frozen=True)
class Rejected:
    """A proposal that lowered the objective: after how many accepted states it was looked at, and what it had."""

    after: int
    objective: float
    log_likelihood: float


@dataclass(frozen=True)
class Candidate:
    """One model under way: its size, the objective and log-likelihood of every accepted state, and where it stands.

    parameters is set when the candidate has stopped; it holds those of the last entry of `objectives`. fallback is the EM step that was passed over for the
    proposal that is evaluated next; reach is how many evaluations a solution on a sample may take, promised the gain that the last one predicted, and trust how much of
    what was promised before has come true. A fragile candidate has been so close to a collapse that rounding may have lowered its objective.
    """

    n_components: int
    objectives: tuple[float, ...] = ()
    log_likelihoods: tuple[float, ...] = ()
    verdict: Verdict = Verdict.RUNNING
    parameters: Parameters | None = None
    accelerator: Accelerator | None = None
    fallback: Parameters | None = None
    rejected: tuple[Rejected, ...] = ()
    reach: int = N_MAPS
    promised: float = 0.0
    trust: float = 1.0
    fragile: bool = False

    @property
    def n_maps(self) -> int:
        """Evaluations of the EM map: scans in which this candidate took part."""
        return len(self.objectives) + len(self.rejected)

    @property
    def n_iter(self) -> int:
        """Steps that led to the parameters, those that were taken back among them."""
        return max(self.n_maps - 1, 0)


@dataclass(frozen=True)
class State:
    """All candidates, and the stacked parameters of the running ones (None until a label step has made them)."""

    settings: Settings
    candidates: tuple[Candidate, ...]
    parameters: Parameters | None
    n_scans: int = 0

    @property
    def running(self) -> tuple[int, ...]:
        return tuple(i for i, c in enumerate(self.candidates) if c.verdict is Verdict.RUNNING)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.candidates[i].n_components for i in self.running)

    @property
    def done(self) -> bool:
        return not self.running


@dataclass(frozen=True)
class Progress:
    """The small record that the driver sees after each scan."""

    scan: int
    candidates: int
    objective: float
    change: float
    done: bool

    @property
    def message(self) -> str:
        best = f"objective per row {self.objective:.6f}" if np.isfinite(self.objective) else "started from labels"
        gain = f", gain {self.change:.1e}" if np.isfinite(self.change) else ""
        return f"scan {self.scan}: {self.candidates} running, {best}{gain}"


def start(settings: Settings, sizes: Sequence[int], parameters: Parameters | None) -> State:
    """Begin with stacked parameters, or with None: the first scan is then an M-step on the labels of the blocks."""
    way = make_accelerator(settings.acceleration)
    state = State(settings, tuple(Candidate(k, accelerator=way) for k in sizes), parameters)
    return state if parameters is None else _drop_collapsed(state)


def ask(state: State) -> Step:
    """What to evaluate on every block in the next scan."""
    mixture = state.settings.mixture
    if state.parameters is None:
        return mixture.label_step(state.sizes)
    replicates = state.settings.replicates
    own = None if replicates is None else [replicates[i] for i in state.running]
    return mixture.e_step(state.parameters, state.sizes, own)


def tell(state: State, total: PatternSums | Sums, coarse: Coarse | None = None, rivals: Rivals | None = None) -> State:
    """Take the sums over all rows: record objectives, retire who is done, and do one M-step for the others.

    With a sample of the rows at hand it is asked first where that step leads in the end; a candidate that will not beat its rivals even with MARGIN times the gain that is
    to be expected is stopped.

    Raises
    ------
    ObjectiveDecreasedError
        A step lowered the objective beyond rounding, which EM cannot do but on its way to a collapse.
    """
    mixture, sizes, old = state.settings.mixture, state.sizes, state.parameters
    sums = mixture.lift(total, old, sizes)
    state = replace(state, n_scans=state.n_scans + 1)
    new = mixture.m_step(sums, old, sizes)
    if old is None:
        return _drop_collapsed(replace(state, parameters=new))
    objectives = sums.log_likelihood + mixture.log_prior(old, sizes)
    candidates, running = list(state.candidates), state.running
    for c, index in enumerate(running):
        candidates[index] = _judged(state, index, float(objectives[c]), float(sums.log_likelihood[c]), _own(sizes, c))
        fallback = state.candidates[index].fallback
        if len(candidates[index].rejected) > len(state.candidates[index].rejected) and fallback is not None:
            new = new.put(_own(sizes, c), fallback)
    state = _keep(replace(state, candidates=tuple(candidates), parameters=new), running)
    if state.settings.acceleration is None:
        return _drop_collapsed(state)
    stay = [_own(sizes, c) for c, i in enumerate(running) if state.candidates[i].verdict is Verdict.RUNNING]
    old = old.take(np.concatenate([np.empty(0, dtype=np.int64), *stay]))
    seen = {i: sums.take(c, _own(sizes, c)) for c, i in enumerate(running)}
    running = state.running
    return _drop_collapsed(_keep(_proposed(state, old, seen, coarse, rivals), running))


def _proposed(
    state: State,
    old: Parameters,
    seen: dict[int, Sums],
    coarse: Coarse | None,
    rivals: Rivals | None,
) -> State:
    """Put the accelerators' proposals in the place of EM steps, which are kept to fall back to."""
    settings, candidates, em = state.settings, list(state.candidates), state.parameters
    mixture = settings.mixture
    assert em is not None
    proposed = em
    bad = mixture.collapsed(em)
    for c, index in enumerate(state.running):
        own, candidate = _own(state.sizes, c), candidates[index]
        if candidate.fallback is not None:  # just rejected: the EM step before is looked at next
            candidates[index] = replace(candidate, fallback=None)
            continue
        if bad[own].any() or candidate.accelerator is None:
            continue
        here, step = old.take(own), em.take(own)
        target = step
        if coarse is not None:
            tol = settings.tol * settings.n_weight
            short = 0.0 if rivals is None else _shortfall(state, candidate, rivals)
            if len(candidate.objectives) == 1 and short > MARGIN * _sampling_gain(state, candidate):
                candidates[index] = replace(candidate, verdict=Verdict.OUTRUN, parameters=here)
                continue
            reach = candidate.reach if short <= 0 else min(candidate.reach, OTHERS)
            ahead = anticipate(coarse, mixture, here, seen[index], tol, reach)
            if ahead is not None and ahead.solved and ahead.gain <= tol and len(candidate.objectives) > 1:
                candidates[index] = replace(candidate, verdict=Verdict.ANTICIPATED, parameters=here)
                continue
            if ahead is not None:
                candidate = candidates[index] = replace(candidate, promised=ahead.gain)
            if ahead is not None and short > MARGIN * candidate.trust * ahead.gain:
                candidates[index] = replace(candidate, verdict=Verdict.OUTRUN, parameters=here)
                continue
            target = step if ahead is None else ahead.parameters
        x, mapped = (mixture.coordinates(p, [len(own)]) for p in (here, target))
        assert candidate.accelerator is not None
        way, move = candidate.accelerator.told(x.ravel(), mapped.ravel())
        candidates[index] = replace(candidate, accelerator=way)
        there = target if move is None else mixture.at(move.reshape(x.shape), target, [len(own)])
        if there is not step and not mixture.collapsed(there).any():
            proposed = proposed.put(own, there)
            candidates[index] = replace(candidates[index], fallback=step)
    return replace(state, candidates=tuple(candidates), parameters=proposed)


def rank(candidate: Candidate) -> tuple[bool, float]:
    """By which the candidates of one size are compared: the highest objective, but who was stopped early comes after all others."""
    return candidate.verdict is not Verdict.OUTRUN, candidate.objectives[-1]


def ranked(candidates: Sequence[Candidate], n_components: int) -> list[Candidate]:
    """Those of one size that have not collapsed, the best first."""
    own = [
        c for c in candidates if c.n_components == n_components and c.objectives and c.verdict is not Verdict.COLLAPSED
    ]
    return sorted(own, key=rank, reverse=True)


def best_cost(state: State, penalty: float | None) -> float:
    """The smallest -2 log-likelihood plus penalties among the candidates so far."""
    n_free = state.settings.mixture.n_free
    return min(
        (
            (penalty or 0.0) * n_free(c.n_components) - 2 * c.log_likelihoods[-1]
            for c in state.candidates
            if c.log_likelihoods and c.verdict is not Verdict.COLLAPSED
        ),
        default=np.inf,
    )


def _shortfall(state: State, candidate: Candidate, rivals: Rivals) -> float:
    """How much a candidate lacks to be the best of those that it competes with."""
    if rivals.penalty is None:
        return ranked(state.candidates, candidate.n_components)[0].objectives[-1] - candidate.objectives[-1]
    own = candidate.log_likelihoods[-1]
    best = min(rivals.best, best_cost(state, rivals.penalty))
    return 0.5 * (rivals.penalty * state.settings.mixture.n_free(candidate.n_components) - best) - own


def _sampling_gain(state: State, candidate: Candidate) -> float:
    """What a fit to the sample of the starts has to gain from all rows: half a unit a parameter and row weight of the sample (Wilks)."""
    return 0.5 * state.settings.mixture.n_free(candidate.n_components) * state.settings.n_weight / SAMPLE_WEIGHT


def _judged(state: State, index: int, objective: float, log_likelihood: float, own: np.ndarray) -> Candidate:
    """The candidate after a scan; one whose proposal lost keeps its fallback."""
    settings, candidate = state.settings, state.candidates[index]
    assert state.parameters is not None
    if candidate.fallback is not None:
        if not objective >= candidate.objectives[-1]:
            assert candidate.accelerator is not None
            lost = Rejected(len(candidate.objectives), objective, log_likelihood)
            return replace(
                candidate,
                rejected=(*candidate.rejected, lost),
                accelerator=candidate.accelerator.rejected(),
                reach=max(candidate.reach // SHORTER, LEAST),
                trust=candidate.trust / SHORTER,
            )
        candidate = replace(candidate, fallback=None, reach=min(candidate.reach * LONGER, N_MAPS))
        if candidate.promised > 0:
            kept = (objective - candidate.objectives[-1]) / candidate.promised
            candidate = replace(candidate, trust=float(np.clip(kept, 1 / N_MAPS, 1.0)))
    objectives = (*candidate.objectives, objective)
    fragile = candidate.fragile or settings.mixture.fragile(state.parameters.take(own))
    if decreased(objectives, settings.mixture.rounding):
        if fragile:
            return replace(candidate, verdict=Verdict.COLLAPSED)
        raise ObjectiveDecreasedError(
            f"the objective of candidate {index} ({candidate.n_components} components) fell from {objectives[-2]!r} to "
            f"{objective!r} in scan {state.n_scans}: EM cannot do this, so please report it as a bug"
        )
    max_iter = settings.max_iter - len(candidate.rejected)
    verdict = judge(objectives, settings.n_weight, settings.tol, max_iter, settings.mixture.rounding)
    if verdict is Verdict.TOLERANCE and settings.acceleration is not None and not _settled(objectives, settings):
        verdict = Verdict.RUNNING
    return replace(
        candidate,
        fragile=fragile,
        objectives=objectives,
        log_likelihoods=(*candidate.log_likelihoods, log_likelihood),
        verdict=verdict,
        parameters=None if verdict is Verdict.RUNNING else state.parameters.take(own),
    )


def _settled(objectives: Sequence[float], settings: Settings) -> bool:
    """Whether the last two gains were within tol: accelerated steps are uneven, so a single small one says little."""
    return objectives[-2] - objectives[-3] <= settings.tol * settings.n_weight


def _own(sizes: Sequence[int], c: int) -> np.ndarray:
    """Where candidate c's components stand on the stacked axis."""
    return np.arange(sizes[c]) + sum(sizes[:c])


def _keep(state: State, before: Sequence[int]) -> State:
    """Take the candidates that stopped running off the stack, which still holds those of `before`."""
    sizes = [state.candidates[i].n_components for i in before]
    stay = [_own(sizes, c) for c, i in enumerate(before) if state.candidates[i].verdict is Verdict.RUNNING]
    assert state.parameters is not None
    return replace(state, parameters=state.parameters.take(np.concatenate([np.empty(0, dtype=np.int64), *stay])))


def _drop_collapsed(state: State) -> State:
    if state.done:
        return state
    assert state.parameters is not None
    bad, candidates, running = (
        state.settings.mixture.collapsed(state.parameters),
        list(state.candidates),
        state.running,
    )
    for c, index in enumerate(running):
        if bad[_own(state.sizes, c)].any():
            candidates[index] = replace(candidates[index], verdict=Verdict.COLLAPSED)
    return _keep(replace(state, candidates=tuple(candidates)), running)


def progress(state: State) -> Progress:
    """Look at a state from afar: the best candidate that has not collapsed."""
    alive = [c.objectives for c in state.candidates if c.objectives and c.verdict is not Verdict.COLLAPSED]
    best = max(alive, key=lambda o: o[-1], default=(np.nan,))
    change = best[-1] - best[-2] if len(best) > 1 else np.nan
    n = state.settings.n_weight
    return Progress(state.n_scans, len(state.running), best[-1] / n, change / n, state.done)

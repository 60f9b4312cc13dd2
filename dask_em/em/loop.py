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


@dataclass(frozen=True)
class Settings:
    """What does not change during a fit.

    n_weight is the total weight of the rows; tol is per unit of weight; max_iter bounds the evaluations of the EM map for each candidate. `replicated` says
    that candidate c is fitted to bootstrap replicate c of the rows; `acceleration` how states are proposed that are not EM's own.
    """

    mixture: Mixture
    n_weight: float
    tol: float
    max_iter: int
    replicated: bool = False
    acceleration: Acceleration | None = None


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
    proposal that is evaluated next; reach is how many evaluations a solution on a sample may take.
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
    return mixture.e_step(state.parameters, state.sizes, state.running if state.settings.replicated else None)


def tell(state: State, total: PatternSums | Sums, coarse: Coarse | None = None) -> State:
    """Take the sums over all rows: record objectives, retire who is done, and do one M-step for the others.

    With a sample of the rows at hand it is asked first where that step leads in the end.

    Raises
    ------
    ObjectiveDecreasedError
        A step lowered the objective beyond rounding, which EM cannot do.
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
    return _drop_collapsed(_keep(_proposed(state, old, seen, coarse), running))


def _proposed(state: State, old: Parameters, seen: dict[int, Sums], coarse: Coarse | None) -> State:
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
            ahead = anticipate(coarse, mixture, here, seen[index], tol, candidate.reach)
            if ahead is not None and ahead.gain <= tol and len(candidate.objectives) > 1:
                candidates[index] = replace(candidate, verdict=Verdict.ANTICIPATED, parameters=here)
                continue
            target = step if ahead is None else ahead.parameters
        x, mapped = (mixture.coordinates(p, [len(own)]) for p in (here, target))
        way, wanted = candidate.accelerator.told(x.ravel(), mapped.ravel())
        candidates[index] = replace(candidate, accelerator=way)
        there = target if wanted is None else mixture.at(wanted.reshape(x.shape), target, [len(own)])
        if there is not step and not mixture.collapsed(there).any():
            proposed = proposed.put(own, there)
            candidates[index] = replace(candidates[index], fallback=step)
    return replace(state, candidates=tuple(candidates), parameters=proposed)


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
            )
        candidate = replace(candidate, fallback=None, reach=min(candidate.reach * LONGER, N_MAPS))
    objectives = (*candidate.objectives, objective)
    if decreased(objectives):
        raise ObjectiveDecreasedError(
            f"the objective of candidate {index} ({candidate.n_components} components) fell from {objectives[-2]!r} to "
            f"{objective!r} in scan {state.n_scans}: EM cannot do this, so please report it as a bug"
        )
    verdict = judge(objectives, settings.n_weight, settings.tol, settings.max_iter - len(candidate.rejected))
    if verdict is Verdict.TOLERANCE and settings.acceleration is not None and not _settled(objectives, settings):
        verdict = Verdict.RUNNING
    return replace(
        candidate,
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

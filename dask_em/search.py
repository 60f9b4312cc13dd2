"""Choosing a model: every number of components, every covariance model and every restart of each, in the same scans."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import entr

from dask_em import fitting, specification
from dask_em.data.gather import NO_REPLICATES, Folds
from dask_em.em import loop
from dask_em.em.loop import Candidate, Progress
from dask_em.em.stopping import Verdict
from dask_em.errors import ConfigurationError
from dask_em.estimators.arguments import Criterion, check_criterion, checked_number, seed_of
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.gaussian import GaussianMixture
from dask_em.families.base import Array
from dask_em.fitting import Fit, Table
from dask_em.mixture import Mixture, stacked
from dask_em.scan import Block

WAVE_BYTES = 1 << 28
"""Natural parameters and sums of all candidates of a scan (256 MB); what needs more goes in waves, each with scans of its own."""

TIE = 1e-6
"""Difference of BIC within which candidates are equal, and the first one of the grid is chosen: such as of models that are the same with one component."""


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """The outcome of a search.

    Attributes
    ----------
    table : one row for each model and number of components: covariance_type, n_components, log_likelihood, n_parameters, bic, icl, aic, entropy,
        held_out (per row, where asked for), converged, outcome ("stopped early" is who could not win any more, "dropped" whose starts all collapsed), starts
    best : the fitted estimator that the criterion chose; its n_scans_ counts every pass of the search
    criterion : which; bic, icl and aic are smaller where they are better, the held-out log density is larger
    fit : the candidates of the chosen model
    """

    table: pd.DataFrame
    best: Any
    criterion: str
    fit: Fit

    def figure(self) -> str:
        """The criterion by number of components, a line for each covariance model, as SVG."""
        from dask_em.report.figures import criterion_lines

        return criterion_lines(self.table, self.criterion, self.best.n_components, _shape(self.best))

    def _repr_html_(self) -> str:
        column, rising = _column(self.criterion)
        ranked = self.table.sort_values(column, ascending=not rising, ignore_index=True)
        return self.figure() + ranked.to_html(index=False, float_format="{:,.3f}".format, na_rep="")

    def __repr__(self) -> str:
        k, kind = self.best.n_components, _shape(self.best)
        own, all_ = (
            f"{n} {what}{'s' if n > 1 else ''}" for n, what in ((k, "component"), (len(self.table), "candidate"))
        )
        return f"Selection({own}{'' if kind is None else f' of {kind}'}, by {self.criterion} of {all_})"


def select_model(
    X: Any,
    n_components: Sequence[int] = range(1, 11),
    covariance_type: str | Sequence[str] | None = None,
    *,
    estimator: Any = None,
    criterion: Criterion = "bic",
    n_init: int | None = None,
    folds: int = 5,
    sample_weight: Any = None,
    compress: bool | str | None = None,
    random_state: Any = None,
    executor: Any = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Selection:
    """Fit a whole grid of mixtures in the same scans and choose among them.

    Parameters
    ----------
    X : table, as in `fit`
    n_components : numbers to try, by default 1 to 10
    covariance_type : one or more covariance models to try; by default that of the estimator. Of models that are the same on a single column only the first is tried.
    estimator : unfitted mixture, by default an accelerated `GaussianMixture`; its n_components is not used, everything else is
    criterion : "bic" (default; its n is the sum of all row weights, those of rows in which nothing is observed among them), "icl" (BIC plus twice the entropy of the assignments: prefers components that stand apart; Biernacki, Celeux and Govaert 2000),
        "aic", or "held-out" (log density of rows that the fit did not see, over `folds` parts by a hash of the row). Where candidates are equal the first one of the grid is chosen.
    n_init : starts of every candidate; by default 5, or the estimator's where one is given
    folds : parts of the rows for "held-out"; every part costs further candidates in the same scans. The fit to the other parts starts from that to all rows, so it finds the
        same optimum rather than the best one for these parts: the scores compare optima, and do not count how easily they are found.
    sample_weight : as in `fit`
    compress, random_state, executor : as in the estimator, whose own are used by default
    on_progress : called after every scan

    Returns
    -------
    Selection

    Raises
    ------
    ConfigurationError
        The grid is empty, or the estimator starts from given values or labels, which fit one number only.
    DataError
        No candidate can be fitted.
    ConvergenceWarning
        (as a warning) some number or covariance model cannot be fitted to this table and is left out of the choice.
    """
    sizes = _sizes(n_components)
    check_criterion(criterion)
    folds = checked_number("folds", folds, numbers.Integral)
    if folds < 2:
        raise ConfigurationError("folds must be at least 2")
    given = {"n_init": n_init, "compress": compress, "random_state": random_state, "executor": executor}
    estimators = _estimators(estimator, covariance_type, given)
    first = estimators[0]
    if sizes != [first.n_components] and (starts := _starts(first)):
        raise ConfigurationError(
            f"{starts[0]} starts one number of components and no other: leave it out, or try that number only"
        )
    parts = Folds(2 * folds) if criterion == "held-out" else NO_REPLICATES
    with first.ready(X, sizes, estimators, sample_weight, parts, on_progress) as (table, settings):
        found: dict[tuple[int, int], Fit] = {}
        fitted: list[tuple[specification.Settings, Fit]] = []
        for wave in _waves(table, settings, sizes):
            penalty = {"bic": float(np.log(table.profile.weight)), "aic": 2.0}.get(criterion)
            fits = table.fit([(settings[i], own) for i, own in wave.items()], penalty)
            fitted += zip([settings[i] for i in wave], fits)
            found |= {(i, k): fit for (i, own), fit in zip(wave.items(), fits) for k in own}
        fitting.judge(fitted, sizes)
        grid = sorted(found)
        best = [(i, found[i, k], found[i, k].best(k)) for i, k in grid if k in found[i, k].sizes]
        entropies = _entropies(table, best)
        held_out = _held_out(table, settings, best, folds) if criterion == "held-out" else np.full(len(best), np.nan)
    told = {(i, c.n_components): own for (i, _, c), *own in zip(best, entropies, held_out)}
    frame = pd.DataFrame([_row(estimators[i], found[i, k], k, *told.get((i, k), (np.nan, np.nan))) for i, k in grid])
    if criterion != "held-out":
        del frame["held_out"]
    model, k = grid[_chosen(frame, criterion, table.profile.weight)]
    fit = found[model, k]
    candidate = fit.best(k)
    chosen = type(first)(**{**estimators[model].get_params(deep=False), "n_components": candidate.n_components})
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(first, name):
            setattr(chosen, name, getattr(first, name))
    fit = replace(fit, n_scans=table.passes.total())
    return Selection(frame, chosen.adopt(fit, candidate), criterion, fit)


def _column(criterion: str) -> tuple[str, bool]:
    """The column of a criterion, and whether larger is better."""
    return ("held_out", True) if criterion == "held-out" else (criterion, False)


def _row(estimator: Any, fit: Fit, k: int, entropy: float, held_out: float) -> dict[str, Any]:
    """What the table says of one candidate; of one that was dropped only that."""
    n_parameters, dropped = fit.mixture.n_free(k), k not in fit.sizes
    log_likelihood = np.nan if dropped else fit.best(k).log_likelihoods[-1]
    verdict = Verdict.COLLAPSED if dropped else fit.best(k).verdict
    bic = -2 * log_likelihood + n_parameters * np.log(fit.profile.weight)
    return {
        "covariance_type": _shape(estimator),
        "n_components": k,
        "log_likelihood": log_likelihood,
        "n_parameters": n_parameters,
        "bic": bic,
        "icl": bic + 2 * entropy,
        "aic": -2 * log_likelihood + 2 * n_parameters,
        "entropy": entropy,
        "held_out": held_out,
        "converged": verdict.converged,
        "outcome": str(verdict).split(":")[0],
        "starts": sum(c.n_components == k for c in fit.sampled or fit.candidates),
    }


def _chosen(table: pd.DataFrame, criterion: str, weight: float) -> int:
    """The best row of the candidates' table, the first one of equals; who was stopped early has not been fitted to its end."""
    column, rising = _column(criterion)
    cost = -2 * weight * table[column] if rising else table[column]
    finished = cost[table["outcome"] != "stopped early"].dropna()
    cost = cost.dropna() if finished.empty else finished
    return int(cost.index[cost <= cost.min() + TIE][0])


def _shape(estimator: Any) -> str | None:
    """The covariance model of an estimator, None for one that has none."""
    kind = estimator.get_params(deep=False).get("covariance_type")
    return None if kind is None else specification.covariance_model(kind)


def _estimators(estimator: Any, covariance_type: str | Sequence[str] | None, given: Mapping[str, Any]) -> list[Any]:
    """One unfitted estimator for each covariance model, with the arguments that are given in the place of its own."""
    base = GaussianMixture(1, n_init=5, acceleration="daarem") if estimator is None else estimator
    if not isinstance(base, BaseMixture):
        raise ConfigurationError("estimator must be an unfitted mixture, such as GaussianMixture(1)")
    settings = {**base.get_params(deep=False), **{name: own for name, own in given.items() if own is not None}}
    settings["random_state"] = seed_of(settings["random_state"])  # the same starts for every model
    if covariance_type is None:
        return [type(base)(**settings)]
    if "covariance_type" not in settings:
        raise ConfigurationError(f"{type(base).__name__} has no covariance_type: leave it out")
    listed = isinstance(covariance_type, Iterable) and not isinstance(covariance_type, str)
    kinds = list(covariance_type) if listed else [covariance_type]
    kinds = list(dict.fromkeys(specification.covariance_model(kind) for kind in kinds))
    if not kinds:
        raise ConfigurationError("covariance_type is empty: name at least one covariance model to try")
    return [type(base)(**{**settings, "covariance_type": kind}) for kind in kinds]


def _sizes(n_components: Any) -> list[int]:
    """The numbers of components to try."""
    if isinstance(n_components, str) or not isinstance(n_components, Iterable):
        raise ConfigurationError("n_components must be a list of whole numbers, such as range(1, 11)")
    sizes = list(dict.fromkeys(checked_number("every one of n_components", k, numbers.Integral) for k in n_components))
    if not sizes:
        raise ConfigurationError("n_components is empty: name at least one number to try")
    return sizes


def _waves(
    table: Table, settings: Sequence[specification.Settings], sizes: Sequence[int]
) -> list[dict[int, list[int]]]:
    """The grid in parts that stay within WAVE_BYTES: numbers of components by model."""
    waves: list[dict[int, list[int]]] = [{}]
    filled, models = 0, _different(settings, len(table.schema.design.gaussian))
    for k in sizes:
        for i, own in models.items():
            size = table.candidate_bytes(own, k) * (1 if table.few(own) else own.n_init)
            if filled and filled + size > WAVE_BYTES:
                waves.append({})
                filled = 0
            waves[-1].setdefault(i, []).append(k)
            filled += size
    return waves


def _different(settings: Sequence[specification.Settings], d: int) -> dict[int, specification.Settings]:
    """The models that differ on d columns: on one there is no shape and no orientation, and on none no volume."""
    letters = 3 if d > 1 else d
    first: dict[str, int] = {}
    for i, own in enumerate(settings):
        first.setdefault(specification.covariance_model(own.covariance_type)[:letters], i)
    return {i: settings[i] for i in first.values()}


def _entropies(table: Table, best: Sequence[tuple[int, Fit, Candidate]]) -> Array:
    """Entropy of the assignments under each candidate, in one scan for all; rows of which nothing is seen are in no block, and are assigned by the weights alone."""
    models: list[tuple[Mixture, Any]] = [(fit.mixture, candidate.parameters) for _, fit, candidate in best]
    *found, weight = table.once(partial(_entropy_step, models))
    empty = max(table.profile.weight - weight, 0.0)
    return np.array([own + empty * entr(parameters.weights).sum() for own, (_, parameters) in zip(found, models)])


def _entropy_step(models: Sequence[tuple[Mixture, Any]], state: None) -> Callable[[Block], Array]:
    """Of a block the entropies, and the weight of its rows."""
    steps = [mixture.entropy(parameters) for mixture, parameters in models]
    return lambda block: np.array([*(step(block) for step in steps), block.weight.sum()])


def _held_out(
    table: Table, settings: Sequence[specification.Settings], best: Sequence[tuple[int, Fit, Candidate]], folds: int
) -> Array:
    """Log density per unit of weight of the rows of each part under the fit to the others: all candidates and parts in the same scans."""
    states, places = [], []
    for i, fit in {i: fit for i, fit, _ in best}.items():
        own = [c for j, _, c in best if j == i]
        start = stacked([c.parameters for c in own for _ in range(folds)])
        sizes = [c.n_components for c in own for _ in range(folds)]
        rules = replace(
            table.rules(fit.mixture, settings[i]), replicates=tuple(range(folds)) * len(own), acceleration="daarem"
        )
        states.append(loop.start(rules, sizes, start))
        places.append((fit.mixture, i))
    done = table.scan(states)
    models = []
    for (mixture, _), state in zip(places, done):
        lost = [c.verdict is Verdict.COLLAPSED for c in state.candidates]
        models.append((mixture, [c.parameters for c in state.candidates], lost))
    found: Array = table.once(partial(_score_step, models, folds))
    return found.reshape(-1, folds).sum(axis=1) / table.profile.weight


def _score_step(
    models: Sequence[tuple[Mixture, list[Any], list[bool]]], folds: int, state: None
) -> Callable[[Block], Array]:
    steps = []
    for mixture, parameters, lost in models:
        part = [folds + c % folds for c, gone in enumerate(lost) if not gone]
        alive = [p for p in parameters if p is not None]
        steps.append(
            (
                mixture.e_step(stacked(alive), [len(p.weights) for p in alive], part),
                np.flatnonzero(~np.array(lost)),
                len(lost),
            )
        )

    def score(block: Block) -> Array:
        out = []
        for step, alive, n in steps:
            own = np.full(n, -np.inf)
            own[alive] = step(block).log_likelihood
            out.append(own)
        return np.concatenate(out)

    return score


def _starts(estimator: Any) -> list[str]:
    """The arguments that hold starting values or labels."""
    settings = estimator.get_params(deep=False)
    given = [
        name for name, value in settings.items() if name.endswith("_init") and name != "n_init" and value is not None
    ]
    plain = settings["init"] is None or (
        isinstance(settings["init"], str) and settings["init"] in ("kmeans++", "random")
    )
    return given + ([] if plain else ["init"])

"""Mixtures of coins: numbers of successes out of known numbers of trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dask_em.data.schema import Design, Schema
from dask_em.errors import ConfigurationError
from dask_em.estimators.arguments import checked_names, checked_trials, given_array, numbers_of
from dask_em.estimators.base import BaseMixture
from dask_em.estimators.doc import documented
from dask_em.model import FittedMixture


@documented
class BinomialMixture(BaseMixture):
    """Mixture of independent binomials.

    Parameters
    ----------
    n_components : int
        Number of components, k.
    successes : str or sequence of str, optional
        The columns of successes; by default all columns but the trials.
    trials : int, str, or sequence of them
        Number of trials of every cell, or the column that holds it: one for all, or one for each column of successes. 1 by default: single tosses.
    fix_weights : bool, default False
        Keep the mixing weights as they start (equal, or weights_init).
    missing : "ignored" or "expected", default "ignored"
        "ignored" leaves missing cells out: exact, and the fewest steps. "expected" counts the trials of a missing cell and takes its successes at
        their expectation, as textbooks show EM; the optimum is the same.
    weights_init : (k,), probabilities_init : (k,) for one column, or (k, d) : optional
        Where to start.
    {shared}

    Attributes
    ----------
    probabilities_ : (k,) for one column of successes, otherwise (k, d)
    {fitted}
    """

    def __init__(
        self,
        n_components: int,
        *,
        successes: Any = None,
        trials: Any = 1,
        fix_weights: bool = False,
        missing: str = "ignored",
        prior: str | None = "weak",
        tol: float = 1e-6,
        max_iter: int = 1000,
        acceleration: str | None = None,
        n_init: int = 1,
        init: Any = "kmeans++",
        weights_init: Any = None,
        probabilities_init: Any = None,
        compress: bool | str = "auto",
        random_state: Any = None,
        executor: Any = None,
    ) -> None:
        self._keep(locals())

    def _design(self, names: tuple[str, ...]) -> Design:
        if self.missing not in ("ignored", "expected"):
            raise ConfigurationError("missing must be 'ignored' or 'expected'")
        several = isinstance(self.trials, Iterable) and not isinstance(self.trials, str)
        trials = [checked_trials(t) for t in (self.trials if several else [self.trials])]
        successes: Sequence[str]
        if self.successes is None:
            successes = [name for name in names if name not in trials]
        else:
            one = isinstance(self.successes, str)
            successes = [self.successes] if one else checked_names("successes", self.successes)
        if len(trials) == 1:
            trials = trials * len(successes)
        if len(trials) != len(successes):
            raise ConfigurationError(
                f"trials has {len(trials)} entries for {len(successes)} columns of successes: give one for all or one each"
            )
        return Design(binomial=tuple(zip(successes, trials)))

    def _settings(self) -> dict[str, Any]:
        return {"fix_weights": bool(self.fix_weights), "missing": self.missing}

    def _given_parts(self, schema: Schema, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.probabilities_init is None:
            return parts
        shape = (self.n_components, len(schema.design.binomial))
        given = numbers_of("probabilities_init", self.probabilities_init)
        given = given[:, None] if given.ndim == 1 and shape[1] == 1 else given
        probabilities = given_array("probabilities_init", given, shape)
        if (probabilities < 0).any() or (probabilities > 1).any():
            raise ConfigurationError("probabilities_init must be between 0 and 1")
        return (replace(parts[0], probabilities=probabilities),)

    def _publish(self, model: FittedMixture) -> None:
        super()._publish(model)
        probabilities = model.success_probabilities
        assert probabilities is not None
        self.probabilities_ = probabilities[:, 0] if probabilities.shape[1] == 1 else probabilities

"""The mixture of a picture: a table of its colours or its pixels, fitted.

One number of segments is fitted without scikit-learn, which takes longer to import than a photograph to segment; whoever asks for the model gets an estimator all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em import fitting, specification
from dask_em.data.columns import WEIGHT
from dask_em.data.compact import Distinct, Pile
from dask_em.data.pixels import SEED, Extent, View, distinct_colours, extent_of
from dask_em.data.raster import Window
from dask_em.data.schema import Design
from dask_em.data.sources import Source, open_source, with_columns
from dask_em.em.loop import Candidate
from dask_em.errors import DataError
from dask_em.estimators.arguments import seed_of
from dask_em.execution.base import Executor
from dask_em.execution.local import LocalExecutor
from dask_em.families.covariance import FULL
from dask_em.model import FittedMixture

if TYPE_CHECKING:
    from dask_em.search import Selection

log = logging.getLogger("dask_em")

MAX_COLOURS = 1 << 24
"""Distinct colours that are kept in memory (256 MB with their weights): all that 8 bits in three channels have. A picture with more, such as one of 16 bits and noise, is scanned."""

OnProgress = Callable[[Any], None] | None


def colours(view: View, executor: Executor) -> Distinct | None:
    """The distinct colours of a picture and how many pixels have each, in one scan; None where pixels are no words, or colours too many to keep."""
    if view.word is None:
        return None
    total: Colours = executor.reduce(view.raster.windows(), partial(_colours_of, view))
    if total.pile is None:
        log.info("more than %s distinct colours: every pixel is a row", f"{MAX_COLOURS:,}")
        return None
    distinct = total.pile.together()
    log.info("%s distinct colours of %s pixels", f"{len(distinct):,}", f"{view.raster.n_pixels:,}")
    return distinct


@dataclass(frozen=True)
class Colours:
    """Colours of some windows, nothing where they are too many; adds up, in any order alike: pixels are whole numbers."""

    pile: Pile | None
    exact: ClassVar[bool] = True

    def __add__(self, other: Colours) -> Colours:
        if self.pile is None or other.pile is None:
            return Colours(None)
        both = self.pile + other.pile
        if sum(map(len, both.distinct)) > MAX_COLOURS:
            both = Pile((both.together(),))
        return Colours(None if sum(map(len, both.distinct)) > MAX_COLOURS else both)


def _colours_of(view: View, i: int, window: Window) -> Colours:
    return Colours(distinct_colours(view, i, window))


@dataclass(frozen=True)
class Rows:
    """What the mixture is fitted to: all pixels, or distinct colours with their weights, which are in this process."""

    source: Source
    weight: NDArray[np.float64] | None = None

    @property
    def seeded(self) -> bool:
        return SEED in self.source.columns

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that are modelled."""
        return tuple(name for name in self.source.columns if name != SEED)

    def where(self, executor: Executor) -> Executor:
        """Where they are scanned."""
        return executor if self.weight is None else LocalExecutor()


def rows_of(view: View, distinct: Distinct | None, executor: Executor, k: int) -> Rows:
    """The columns that vary, of the distinct colours or of all pixels.

    Raises
    ------
    DataError
        Nothing is observed, or there is nothing to split into k segments.
    """
    where = view.raster.where
    if distinct is None:
        extent = executor.reduce(view.source().pieces, partial(extent_of, view))
    else:
        assert view.word is not None
        values = view.coloured(view.word.unpack(distinct.words[0]))
        extent = Extent.of(values)
    if not extent.seen:
        raise DataError(f"nothing is observed in {where}: every pixel is transparent or nodata")
    names = [name for name, varies in zip(view.columns, extent.varies) if varies]
    if not set(names) & set(view.channels):
        raise DataError(f"{where} has a single colour: there is nothing to split")
    for name in view.columns:
        if name not in names:
            log.info("%s of %s is the same everywhere and was left out", name, where)
    if distinct is None:
        return Rows(view.source([*names, SEED] if view.seeds else names))
    assert view.word is not None
    seed, colour = np.divmod(distinct.words[0], np.uint64(view.word.n_words))
    n = len(np.unique(colour)) if view.seeds else len(colour)
    if k > n:
        raise DataError(f"{where} has {n} colours, fewer than n_segments={k}: ask for fewer segments")
    own = {name: pa.array(v, from_pandas=True) for name, v in zip(view.columns, values) if name in names}
    if view.seeds:
        own[SEED] = view.named(seed)
    return Rows(open_source(pa.table(own)), distinct.weights[0])


@dataclass(frozen=True)
class Fitted:
    """The mixture of a picture.

    Attributes
    ----------
    model : fitted
    estimator : gives the estimator that has a model, which is this one with its components in some order
    selection : the search for the number of segments, if there was one
    """

    model: FittedMixture
    estimator: Callable[[FittedMixture], Any]
    selection: Selection | None = None


def fit(rows: Rows, k: int, settings: dict[str, Any], executor: Executor, on_progress: OnProgress) -> Fitted:
    """Fit one number of segments; settings are those of the estimator."""
    weighted = rows.weight is not None
    design = Design(
        gaussian=rows.columns,
        categorical=(SEED,) if rows.seeded else (),
        known=SEED if rows.seeded else None,
        pattern=specification.covariance_model(settings["covariance_type"]) in FULL,
        weight=WEIGHT if weighted else None,
    )
    source = with_columns(rows.source, **{WEIGHT: rows.weight}) if weighted else rows.source
    own = {name: value for name, value in settings.items() if name != "random_state"}
    how = specification.Settings(seed=seed_of(settings["random_state"]), **own)
    found = fitting.fit(source, design, how, [k], rows.where(executor), on_progress)
    candidate = found.best(k)
    model = found.fitted(candidate)
    order = np.argsort(-model.parameters.weights, kind="stable")
    return Fitted(
        model.reordered(order), partial(_adopted, rows.columns, rows.source.columns, settings, found, candidate)
    )


def search(
    rows: Rows,
    sizes: Sequence[int],
    settings: dict[str, Any],
    criterion: Any,
    executor: Executor,
    on_progress: OnProgress,
) -> Fitted:
    """Fit several numbers of segments in the same scans, and take the best."""
    from dask_em.search import select_model

    selection = select_model(
        rows.source,
        sizes,
        estimator=_unfitted(rows.columns, rows.seeded, max(sizes), settings),
        criterion=criterion,
        sample_weight=rows.weight,
        executor=rows.where(executor),
        on_progress=on_progress,
    )
    best = selection.best.set_params(executor=None)
    return Fitted(best.model_, partial(_renumbered, best), selection)


def _unfitted(columns: tuple[str, ...], seeded: bool, k: int, settings: dict[str, Any]) -> Any:
    from dask_em.estimators import GaussianMixture, MixtureModel

    if seeded:
        return MixtureModel(k, gaussian=columns, known=SEED, **settings)
    return GaussianMixture(k, **settings)


def _adopted(
    columns: tuple[str, ...],
    names: tuple[str, ...],
    settings: dict[str, Any],
    found: fitting.Fit,
    candidate: Candidate,
    model: FittedMixture,
) -> Any:
    """The estimator that would have fitted these columns of a table with these names."""
    estimator = _unfitted(columns, SEED in names, candidate.n_components, settings)
    estimator.n_features_in_, estimator.feature_names_in_ = len(names), np.array(names, dtype=object)
    return _renumbered(estimator.adopt(found, candidate), model)


def _renumbered(estimator: Any, model: FittedMixture) -> Any:
    """A fitted estimator with its components in the order of a model."""
    estimator.model_ = model
    estimator._publish(model)
    return estimator

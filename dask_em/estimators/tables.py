"""Kinds of tables at the door of an estimator: opening them for a fit, and giving back what was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.sources import FramePiece, Source, open_source, with_columns
from dask_em.errors import ConfigurationError, DataError
from dask_em.execution.base import Executor
from dask_em.execution.choose import is_dask_frame

WEIGHT, LABELS = "#weight", "#labels"


def to_source(
    X: Any, columns: tuple[str, ...] | None, weight: Any, labels: Any
) -> tuple[Source, str | None, str | None]:
    """Open a table with its row weights and starting labels.

    Weights and labels are the name of a column, or one entry a row: a Dask series for a Dask dataframe, anything else for a table in memory.

    Returns
    -------
    source, and the names of the columns that hold the weights and the labels
    """
    extra = {}
    weight_name = weight if isinstance(weight, str) else None
    if weight is not None and weight_name is None:
        extra[WEIGHT], weight_name = weight, WEIGHT
    labels_name = None
    if labels is not None:
        extra[LABELS], labels_name = labels, LABELS
    if is_dask_frame(X):
        source = _dask_source(X, columns, extra)
    else:
        source = open_source(X)
        if extra:
            source = with_columns(source, **{name: _vector(v, X, name) for name, v in extra.items()})
    return source, weight_name, labels_name


def _dask_source(X: Any, columns: tuple[str, ...] | None, extra: dict[str, Any]) -> Source:
    from dask_em.execution.dask import frame_pieces

    frame = X.to_frame() if not hasattr(X, "columns") else X
    for name, values in extra.items():
        if not is_dask_frame(values):
            raise ConfigurationError(
                "weights and labels of a Dask dataframe must be a Dask series with the same partitions, or the name of a column"
            )
        frame = frame.assign(**{name: values})
    names = tuple(str(c) for c in frame.columns)
    if columns is not None:
        wanted = [c for c, name in zip(frame.columns, names) if name in columns or name in extra]
        frame, names = frame[wanted], tuple(str(c) for c in wanted)
    return Source(names, frame_pieces(frame, partial(FramePiece, names=names)))


def _vector(values: Any, X: Any, name: str) -> NDArray[Any]:
    """One number for each row of a table in memory."""
    what = "sample_weight" if name == WEIGHT else "init"
    array = np.asarray(values)
    if array.ndim != 1:
        raise ConfigurationError(f"{what} must be one-dimensional, one entry a row")
    n = _n_rows(X)
    if n is None:
        raise ConfigurationError(f"{what} of a table in files must be the name of a column")
    if len(array) != n:
        raise ConfigurationError(f"{what} has {len(array)} entries for {n} rows: give one entry a row")
    if name == LABELS and (array.dtype.kind not in "iub"):
        raise ConfigurationError("init labels must be integers from 0 to n_components - 1")
    if array.dtype.kind not in "iufb":
        raise DataError(f"{what} must be numeric")
    return array


def _n_rows(X: Any) -> int | None:
    return len(X) if hasattr(X, "__len__") and not isinstance(X, str) else getattr(X, "num_rows", None)


def score_rows(
    X: Any,
    function: Callable[[pa.Table], NDArray[Any]],
    columns: tuple[str, ...],
    names: list[str] | str,
    executor: Executor,
) -> Any:
    """Apply a function of rows and give back the kind of thing that was given.

    pandas in, pandas out with its index; Arrow in, Arrow out; arrays and paths give an array.

    Parameters
    ----------
    function : from an Arrow table of `columns` to an (n,) or (n, m) array
    names : name of the result, or names of its columns
    """
    source = open_source(X)
    parts = executor.map(source.pieces, partial(_score_piece, function, columns))
    values = np.concatenate(parts) if parts else function(pa.table({c: pa.array([], pa.null()) for c in columns}))
    if isinstance(X, (pd.DataFrame, pd.Series)):
        return _like_pandas(values, X.index, names)
    if isinstance(X, pa.Table):
        if values.ndim == 1:
            return pa.array(values)
        return pa.table({name: pa.array(v) for name, v in zip(names, values.T)})
    return values


def score_lazily(
    X: Any, function: Callable[[pa.Table], NDArray[Any]], columns: tuple[str, ...], names: list[str] | str
) -> Any:
    """The same for a Dask dataframe: a lazy Dask result with its partitions."""
    from dask_em.execution.dask import map_frame

    empty = function(pa.table({c: pa.array([], pa.null()) for c in columns}))
    frame = X.to_frame() if not hasattr(X, "columns") else X
    meta = _like_pandas(empty, pd.RangeIndex(0), names)
    return map_frame(frame, partial(_score_frame, function, columns, names), meta)


def _like_pandas(values: NDArray[Any], index: Any, names: list[str] | str) -> Any:
    if values.ndim == 1:
        return pd.Series(values, index=index, name=names)
    return pd.DataFrame(values, index=index, columns=names)


def _score_piece(function: Callable[[pa.Table], NDArray[Any]], columns: tuple[str, ...], i: int, piece: Any) -> Any:
    return function(piece.read(columns))


def _score_frame(
    function: Callable[[pa.Table], NDArray[Any]], columns: tuple[str, ...], names: list[str] | str, frame: pd.DataFrame
) -> Any:
    piece = FramePiece(frame, tuple(str(c) for c in frame.columns))
    return _like_pandas(function(piece.read(columns)), frame.index, names)

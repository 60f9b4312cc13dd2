"""Kinds of tables at the door of an estimator: opening them for a fit, and giving back what was given."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.columns import LABELS, WEIGHT
from dask_em.data.sources import FramePiece, Partition, Source, as_array, open_source, unique, with_columns
from dask_em.data.sources import renamed as renamed_source
from dask_em.errors import ConfigurationError, DataError
from dask_em.estimators.arguments import checked_labels, wrong_labels
from dask_em.execution.base import Executor
from dask_em.execution.choose import is_dask_frame


def opened(X: Any) -> Any:
    """A table as it is passed on inside: a Dask dataframe stays one, everything else is opened, once.

    Files are then listed once, and a stream that can be read only once serves every question about the table.
    """
    if hasattr(X, "toarray"):
        raise TypeError("sparse matrices are not supported: pass a dense array or a dataframe")
    return _dask_table(X) if is_dask_frame(X) else open_source(X)


def to_source(
    X: Any, columns: tuple[str, ...] | None, weight: Any, labels: Any, *, n_labels: int = 0
) -> tuple[Source, str | None, str | None]:
    """Open a table with its row weights and starting labels.

    Weights and labels are the name of a column, or one entry a row: a Dask series for a Dask dataframe, anything else for a table in memory.
    Labels must be integers from 0 to `n_labels` - 1, and those of a table in memory must all occur.

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
        source = _dask_source(X, columns, extra, n_labels)
    else:
        source = open_source(X)
        if extra:
            source = with_columns(source, **{name: _vector(v, source, name, n_labels) for name, v in extra.items()})
    return source, weight_name, labels_name


def _dask_source(X: Any, columns: tuple[str, ...] | None, extra: dict[str, Any], n_labels: int) -> Source:
    from dask_em.execution.frames import frame_pieces, map_frame

    frame = _dask_table(X)
    for name, values in extra.items():
        if not is_dask_frame(values):
            raise ConfigurationError(
                "weights and labels of a Dask dataframe must be a Dask series with the same partitions, or the name of a column"
            )
        if name == LABELS:
            values = map_frame(values, partial(_labels_of_part, n_labels), pd.Series(dtype=np.int64))
        frame = frame.assign(**{name: values})
    names = unique([str(c) for c in frame.columns])
    if columns is not None:
        wanted = [c for c, name in zip(frame.columns, names) if name in columns or name in extra]
        frame, names = frame[wanted], tuple(str(c) for c in wanted)
    return Source(names, frame_pieces(frame, partial(Partition, names=names)), token=str(frame._name))


def _labels_of_part(n_labels: int, values: pd.Series) -> pd.Series:
    return pd.Series(checked_labels(values, n_labels), index=values.index)


def _vector(values: Any, source: Source, name: str, n_labels: int) -> NDArray[Any]:
    """One number for each row of a table in memory."""
    what = "sample_weight" if name == WEIGHT else "init"
    array = as_array(values)
    if array.ndim != 1:
        raise ConfigurationError(f"{what} must be one-dimensional: give one entry a row")
    if source.n_rows is None:
        raise ConfigurationError(
            "sample_weight of a table in files must be given as the name of one of its columns"
            if name == WEIGHT
            else "init labels go with a table in memory or a Dask dataframe: read the files into one and give that"
        )
    if len(array) != source.n_rows:
        raise ConfigurationError(f"{what} has {len(array)} entries for {source.n_rows} rows: give one entry a row")
    if name == LABELS:
        labels = checked_labels(array, n_labels)
        if len(np.unique(labels)) != n_labels:
            raise wrong_labels()
        return labels
    if array.dtype.kind not in "iufb":
        raise DataError(f"{what} is not numeric: give numbers that are 0 or more")
    return array


def has_names(X: Any) -> bool:
    """Whether the columns of a table have names of their own, as opposed to positions or numbers."""
    if isinstance(X, pd.DataFrame) or is_dask_frame(X):
        return all(isinstance(c, str) for c in _dask_table(X).columns)
    if isinstance(X, Source):
        return X.named
    return isinstance(X, (str, os.PathLike, pd.Series)) or hasattr(X, "__arrow_c_stream__")


def column_names(X: Any) -> tuple[str, ...]:
    """Column names of any table; x0, x1, ... for arrays."""
    X = opened(X)
    return X.columns if isinstance(X, Source) else unique([str(c) for c in X.columns])


def renamed(X: Any, names: Sequence[str]) -> Any:
    """An opened table with other column names, in the order of its columns; nothing is read or copied."""
    if isinstance(X, Source):
        return X if X.columns == tuple(names) else renamed_source(X, names)
    return X.rename(columns=dict(zip(X.columns, names)))


def _dask_table(X: Any) -> Any:
    """A Dask series as a dataframe of one column."""
    return X.to_frame() if X.ndim == 1 else X


def score_rows(
    X: Any, function: Callable[[pa.Table], NDArray[Any]], columns: tuple[str, ...], executor: Executor
) -> NDArray[Any]:
    """A function of rows, from an Arrow table of `columns` to an (n,) or (n, m) array, for a table that is not lazy."""
    parts = executor.map(open_source(X).pieces, partial(_score_piece, function, columns))
    return np.concatenate(parts) if parts else function(_no_rows(columns))


def like(X: Any, values: NDArray[Any], names: list[str] | str) -> Any:
    """Values in the kind of container that X is: pandas with its index, Arrow, or else an array; what is lazy stays as it is."""
    if is_dask_frame(X):
        return values
    if isinstance(X, (pd.DataFrame, pd.Series)):
        return _like_pandas(values, X.index, names)
    if hasattr(X, "__arrow_c_stream__"):
        return (
            pa.array(values) if values.ndim == 1 else pa.table({name: pa.array(v) for name, v in zip(names, values.T)})
        )
    return values


def _no_rows(columns: tuple[str, ...]) -> pa.Table:
    return pa.table({c: pa.array([], pa.null()) for c in columns})


def score_lazily(
    X: Any, function: Callable[[pa.Table], NDArray[Any]], columns: tuple[str, ...], names: list[str] | str
) -> Any:
    """The same for a Dask dataframe: a lazy Dask result with its partitions."""
    from dask_em.execution.frames import map_frame

    meta = _like_pandas(function(_no_rows(columns)), pd.RangeIndex(0), names)
    return map_frame(X, partial(_score_frame, function, columns, names), meta)


def _like_pandas(values: NDArray[Any], index: Any, names: list[str] | str) -> Any:
    if isinstance(names, str):
        return pd.Series(values, index=index, name=names)
    return pd.DataFrame(values, index=index, columns=pd.Index(names))


def _score_piece(function: Callable[[pa.Table], NDArray[Any]], columns: tuple[str, ...], i: int, piece: Any) -> Any:
    return function(piece.read(columns))


def _score_frame(
    function: Callable[[pa.Table], NDArray[Any]], columns: tuple[str, ...], names: list[str] | str, frame: pd.DataFrame
) -> Any:
    piece = FramePiece(frame, tuple(str(c) for c in frame.columns))
    return _like_pandas(function(piece.read(columns)), frame.index, names)

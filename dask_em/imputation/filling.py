"""Pieces of a table to completed pieces: the functions that run where the rows are.

They take a fitted model, never an estimator; a replicate of None stands for expected values, a number for a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.keys import row_keys
from dask_em.data.sources import FramePiece, Source, open_source
from dask_em.errors import ConfigurationError
from dask_em.execution.base import Executor
from dask_em.imputation.complete import complete_arrow, complete_pandas
from dask_em.imputation.model import Cells, ImputationModel
from dask_em.imputation.roles import types_of


def cells_of_piece(model: ImputationModel, replicate: int | None, i: int, piece: Any) -> dict[str, Cells]:
    """What goes into the holes of a piece."""
    table = piece.read(tuple(dict.fromkeys((*model.schema.design.columns, *model.key))))
    return cells_of(model, replicate, table, piece.origin)


def cells_of(
    model: ImputationModel, replicate: int | None, table: pa.Table, origin: tuple[str, int]
) -> dict[str, Cells]:
    """What goes into the holes of a table that starts at `origin`: expected values, or the draw of a replicate."""
    if replicate is None:
        return model.mean(table)
    return model.draw(table, row_keys(table, model.key, origin), replicate)


def types_for(model: ImputationModel, source: Source, executor: Executor) -> dict[str, pa.DataType]:
    """Types for columns that some piece has no cell of."""
    return types_of(source, model.schema.design.features, model.integer, executor)


def complete_piece(
    model: ImputationModel,
    columns: tuple[str, ...],
    types: dict[str, pa.DataType],
    replicate: int | None,
    i: int,
    piece: Any,
) -> pa.Table:
    """A piece with these columns, completed."""
    table = piece.read(columns)
    return complete_arrow(table, cells_of(model, replicate, table, piece.origin), types)


def complete_frame(model: ImputationModel, replicate: int | None, frame: pd.DataFrame, i: int) -> pd.DataFrame:
    """A partition of a Dask dataframe, completed."""
    piece = FramePiece(frame, tuple(str(c) for c in frame.columns), (f"partition {i}", 0))
    return complete_pandas(frame, cells_of_piece(model, replicate, i, piece))


def joined(parts: Sequence[dict[str, Cells]]) -> dict[str, Cells]:
    """The cells of consecutive pieces as those of one table."""
    return {
        name: Cells(np.concatenate([p[name].mask for p in parts]), np.concatenate([p[name].values for p in parts]))
        for name in parts[0]
    }


def probabilities_of_piece(
    model: ImputationModel, column: str, columns: tuple[str, ...], i: int, piece: Any
) -> NDArray[np.float64]:
    """(n, levels) of a categorical or ordered column."""
    return model.probabilities(piece.read(columns), column)[1]


def probabilities_of_frame(
    model: ImputationModel, column: str, columns: tuple[str, ...], frame: pd.DataFrame
) -> pd.DataFrame:
    """The same of a partition of a Dask dataframe."""
    piece = FramePiece(frame, tuple(str(c) for c in frame.columns))
    values = probabilities_of_piece(model, column, columns, 0, piece)
    return pd.DataFrame(values, index=frame.index, columns=[str(level) for level in model.levels(column)])


def statistic_of_draw(
    model: ImputationModel,
    table: pd.DataFrame | Source,
    types: dict[str, pa.DataType],
    statistic: Callable[[pd.DataFrame], Any],
    i: int,
    replicate: int,
) -> tuple[Any, Any, int]:
    """Estimate and variance of a statistic of one completed table, and its rows."""
    if isinstance(table, pd.DataFrame):
        cells = [cells_of_piece(model, replicate, i, piece) for piece in open_source(table).pieces]
        frame = complete_pandas(table, joined(cells))
    else:
        parts = [complete_piece(model, table.columns, types, replicate, i, piece) for piece in table.pieces]
        frame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    found = statistic(frame)
    if hasattr(found, "params") and hasattr(found, "cov_params"):
        return found.params, found.cov_params(), len(frame)
    try:
        estimate, variance = found
    except (TypeError, ValueError):
        raise ConfigurationError(
            "the statistic must return (estimate, variance), or a fitted model with params and cov_params()"
        ) from None
    return estimate, variance, len(frame)

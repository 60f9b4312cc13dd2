"""Pieces that harm whoever reads them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.data.sources import Source


@dataclass(frozen=True)
class Harmful:
    """A piece that crashes its reader, or takes so many bytes of memory on the way."""

    piece: Any
    megabytes: int = 0

    @property
    def origin(self) -> tuple[str, int]:
        return self.piece.origin

    def as_large(self) -> tuple[str, str]:
        return self.piece.as_large()

    def read(self, columns: Sequence[str]) -> Any:
        if not self.megabytes:
            ctypes.string_at(0)
        table = self.piece.read(columns)
        taken = [np.ones(1 << 17) for _ in range(self.megabytes)]
        return table if taken else None


def with_harmful(source: Source, position: int, megabytes: int = 0) -> Source:
    """The table, with one piece that is harmful."""
    pieces = list(source.pieces)
    pieces[position] = Harmful(pieces[position], megabytes)
    return Source(source.columns, tuple(pieces), source.where)

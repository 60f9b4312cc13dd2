"""What the segments of a picture are like: pixels, share and mean colour; sums over windows, which add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dask_em.data.raster import Patch, Raster
from dask_em.disclosure import hidden_in_line


@dataclass(frozen=True)
class RegionSums:
    """Sums over pixels by segment; adds up.

    Attributes
    ----------
    pixels : (k,)
    seen, sums : (k, c) pixels in which a channel is observed, and its sum
    """

    pixels: NDArray[np.float64]
    seen: NDArray[np.float64]
    sums: NDArray[np.float64]

    @staticmethod
    def of(labels: NDArray[np.uint8], patch: Patch, k: int) -> RegionSums:
        """Of the pixels of a window, which have these labels (h, w)."""
        flat = labels.ravel()
        channels = patch.pixels.reshape(flat.size, -1).T
        if patch.missing is None:
            pixels = _by_label(flat, None, k)
            sums = [_by_label(flat, own, k) for own in channels]
            return RegionSums(pixels, np.tile(pixels[:, None], len(channels)), np.stack(sums, axis=1))
        there = ~patch.missing.reshape(flat.size, -1).T
        seen = [_by_label(flat[own], None, k) for own in there]
        sums = [_by_label(flat[own], values[own], k) for own, values in zip(there, channels)]
        return RegionSums(_by_label(flat, None, k), np.stack(seen, axis=1), np.stack(sums, axis=1))

    def __add__(self, other: RegionSums) -> RegionSums:
        return RegionSums(self.pixels + other.pixels, self.seen + other.seen, self.sums + other.sums)

    @property
    def means(self) -> NDArray[np.float64]:
        """(k, c) mean of every channel, NaN where it is never observed."""
        return self.sums / np.where(self.seen > 0, self.seen, np.nan)


def _by_label(labels: NDArray[np.uint8], values: NDArray | None, k: int) -> NDArray[np.float64]:
    return np.bincount(labels, weights=values, minlength=256)[:k].astype(np.float64)


def region_table(sums: RegionSums, raster: Raster, names: Sequence[str], swatches: Sequence[str]) -> pd.DataFrame:
    """One row a segment, the largest first; see `Segmentation.regions`."""
    total = sums.pixels.sum()
    table = pd.DataFrame({"segment": np.arange(len(names)), "name": names, "pixels": sums.pixels.astype(np.int64)})
    table["share"] = sums.pixels / total if total else 0.0
    table["colour"] = swatches
    for name, own in zip(raster.channels, sums.means.T):
        table[name] = own
    return table.sort_values("pixels", ascending=False, kind="stable", ignore_index=True)


def published(table: pd.DataFrame, smallest: int) -> pd.DataFrame:
    """A table of regions without the numbers of those of few pixels, and of those from which they would follow."""
    hidden = hidden_in_line(table["pixels"], smallest)
    if not hidden.any():
        return table
    out = table.astype({"pixels": "Int64", "colour": object})
    out.loc[hidden, [name for name in out if name not in ("segment", "name")]] = None
    return out

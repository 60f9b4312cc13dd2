"""One pass over a picture for everything that is made of it: labels, what segments are like, and a preview.

    window -> pixels, labels, posterior -> sums by segment
                                        -> every n-th row and column, for people to look at
                                        -> what each map needs of it (maps.py), made where the window was read

Only these small things travel; windows go in batches, so that they never meet all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dask_em.data.raster import Raster, Window
from dask_em.execution.base import Executor
from dask_em.images.labels import Labeller
from dask_em.images.regions import RegionSums
from dask_em.images.smoothing import MISSING

PREVIEW = 2_000_000
"""Pixels that are shown at most."""

BATCH = 64
"""Windows that are asked for at once: enough for some threads or workers."""


class Map(Protocol):
    """Something that is made of all labels or posteriors of a picture, window by window."""

    grid: int
    """Corners of windows are multiples of it."""

    posterior: bool
    """Whether it is made of posteriors (k, h, w) rather than of labels (h, w)."""

    @property
    def encode(self) -> Callable[[Window, Any], Any]:
        """What makes of a window's values what the map needs; pure, and called by workers, so it must not hold the map."""

    def keep(self, window: Window, encoded: Any) -> None:
        """Take what a worker made; done here."""


@dataclass(frozen=True)
class Overview:
    """What a picture and its segments look like.

    Attributes
    ----------
    sums : over all pixels, by segment
    pixels : (h, w, c) of every n-th row and column
    labels : (h, w) of the same
    """

    sums: RegionSums
    pixels: NDArray[Any]
    labels: NDArray[np.uint8]


def look(labeller: Labeller, maps: Sequence[Map], executor: Executor) -> Overview:
    """Pass over the picture once, and make the maps."""
    raster = labeller.view.raster
    step = thinned(raster.n_pixels)
    shape = (-(-raster.height // step), -(-raster.width // step))
    pixels = np.zeros((*shape, len(raster.channels)), dtype=raster.dtype)
    labels = np.full(shape, MISSING, dtype=np.uint8)
    windows = raster.windows(max((own.grid for own in maps), default=1))
    function = partial(_look, labeller, step, [(own.posterior, own.encode) for own in maps])
    total: RegionSums | None = None
    for start in range(0, len(windows), BATCH):
        own = windows[start : start + BATCH]
        for window, (sums, shown, shown_labels, encoded) in zip(own, executor.map(own, function)):
            total = sums if total is None else total + sums
            at = places(window, step)[1]
            pixels[at], labels[at] = shown, shown_labels
            for one, value in zip(maps, encoded):
                one.keep(window, value)
    assert total is not None
    return Overview(total, pixels, labels)


def _look(labeller: Labeller, step: int, encoders: Sequence[tuple[bool, Any]], i: int, window: Window) -> Any:
    patch, labels, posterior = labeller.look(window, any(wanted for wanted, _ in encoders))
    inside = places(window, step)[0]
    encoded = [encode(window, posterior if wanted else labels) for wanted, encode in encoders]
    sums = RegionSums.of(labels, patch, labeller.model.n_components)
    return sums, patch.pixels[inside].copy(), labels[inside].copy(), encoded


def thinned(n_pixels: int) -> int:
    """Every how many rows and columns are shown."""
    return int(np.ceil(np.sqrt(n_pixels / PREVIEW))) if n_pixels > PREVIEW else 1


def places(window: Window, step: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The rows and columns of a window that are shown, in it and in the preview."""
    inside, outside = [], []
    for start, size in ((window.top, window.height), (window.left, window.width)):
        first = -start % step
        inside.append(slice(first, None, step))
        outside.append(slice((start + first) // step, (start + first) // step + len(range(first, size, step))))
    return (inside[0], inside[1]), (outside[0], outside[1])


@dataclass
class LabelsInMemory:
    """All labels as one array."""

    labels: NDArray[np.uint8]
    grid = 1
    posterior = False

    @staticmethod
    def of(raster: Raster) -> LabelsInMemory:
        return LabelsInMemory(np.empty((raster.height, raster.width), dtype=np.uint8))

    @staticmethod
    def encode(window: Window, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return values

    def keep(self, window: Window, encoded: NDArray[np.uint8]) -> None:
        self.labels[window.top : window.top + window.height, window.left : window.left + window.width] = encoded

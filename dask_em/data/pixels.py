"""Pixels as rows of a table: channels in a colour space, and what surrounds them.

    8 and 16 bits, channels alone    a pixel is a word of its channels; equal pixels collapse to weighted distinct colours in one scan
    otherwise                        a window is a piece of a table, with a column for each channel and feature

Features look at their surroundings through a halo, so that a window gives the same numbers as the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data.compact import Pile
from dask_em.data.raster import Patch, Raster, Window
from dask_em.data.sources import Source
from dask_em.errors import ConfigurationError, DataError

Floats = NDArray[np.float64]

COLOUR_SPACES = ("rgb", "lab")
FEATURES = ("position", "local_mean", "gradient")

RADIUS = 2
"""Pixels around one that its local mean takes in, in each direction: a square of 5 by 5."""

SEED = "seed"
"""The column with the names of pixels whose segment is known."""

SEED_BITS = 8

# CIE 1931, D65: IEC 61966-2-1 (sRGB) and CIE 15 (L*a*b*).
_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])


def lab(rgb: Floats) -> Floats:
    """CIELAB (3, n) of sRGB (3, n) between 0 and 1."""
    linear = np.where(rgb > 0.04045, ((np.maximum(rgb, 0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _TO_XYZ @ linear
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)])


@dataclass(frozen=True)
class View:
    """How the pixels of a picture become rows.

    Attributes
    ----------
    raster : the picture
    space : "rgb" for the channels as they are, "lab" for CIELAB
    features : further columns, of FEATURES
    seeds : pairs (window, name): pixels whose segment is known; the column `SEED` has the names
    """

    raster: Raster
    space: str = "rgb"
    features: tuple[str, ...] = ()
    seeds: tuple[tuple[Window, str], ...] = ()

    def __post_init__(self) -> None:
        if self.space not in COLOUR_SPACES:
            raise ConfigurationError("colour_space must be 'rgb' or 'lab'")
        for name in self.features:
            if name not in FEATURES:
                raise ConfigurationError(f"features must be of {', '.join(FEATURES)}")
        if self.space == "lab" and self.raster.channels != ("red", "green", "blue"):
            raise ConfigurationError(
                f"colour_space='lab' needs red, green and blue; {self.raster.where} has {', '.join(self.raster.channels)}: use 'rgb'"
            )

    @property
    def channels(self) -> tuple[str, ...]:
        return ("lightness", "a", "b") if self.space == "lab" else self.raster.channels

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are modelled."""
        more: list[str] = []
        if "position" in self.features:
            more += ["x", "y"]
        if "local_mean" in self.features:
            more += [f"mean {name}" for name in self.channels]
        if "gradient" in self.features:
            more.append("gradient")
        return (*self.channels, *more)

    @property
    def halo(self) -> int:
        return max(RADIUS if "local_mean" in self.features else 0, 1 if "gradient" in self.features else 0)

    @cached_property
    def word(self) -> Word | None:
        """How a pixel is one word, if it can be."""
        bits, n = 8 * self.raster.dtype.itemsize, len(self.raster.channels)
        bits += self.raster.nodata is not None
        if self.features or self.raster.dtype.kind != "u" or n * bits + (SEED_BITS if self.seeds else 0) > 63:
            return None
        return Word(n, bits, self.raster.nodata is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the segments that have seeds; the number of a seed is the place of its name, counted from 1."""
        return tuple(sorted({name for _, name in self.seeds}))

    def seeded(self, window: Window) -> NDArray[np.uint8]:
        """(h, w) number of the seed that pixels belong to, 0 where there is none."""
        out = np.zeros((window.height, window.width), dtype=np.uint8)
        for box, name in self.seeds:
            out[box.shared(window).inside(window)] = self.names.index(name) + 1
        return out

    def named(self, numbers: NDArray[Any]) -> pa.Array:
        """The names of seeds, null for 0."""
        return pa.array([None, *self.names], pa.string()).take(pa.array(numbers.astype(np.int64)))

    def coloured(self, channels: Floats) -> Floats:
        """Channels (c, n) in the colour space; NaN where missing."""
        if self.space != "lab":
            return channels
        kind = self.raster.dtype
        top = float(np.iinfo(kind).max) if kind.kind in "ui" else 1.0
        if kind.kind == "f" and np.nanmax(channels, initial=0.0) > 1.0:
            raise DataError(f"{self.raster.where} holds numbers above 1, which are no sRGB colours: scale it to 0 to 1")
        return lab(channels / top)

    def values(self, patch: Patch, window: Window) -> Floats:
        """(columns, h * w) of the pixels of a window, row by row, from a patch that is wider by the halo; NaN where missing."""
        inside = window.inside(patch.window)
        channels = np.moveaxis(patch.pixels, -1, 0).astype(np.float64)
        if patch.missing is not None:
            channels[np.moveaxis(patch.missing, -1, 0)] = np.nan
        c, h, w = channels.shape
        channels = self.coloured(channels.reshape(c, h * w)).reshape(-1, h, w)
        parts = [channels]
        if "position" in self.features:
            top, left = patch.window.top, patch.window.left
            y, x = np.mgrid[top : top + h, left : left + w].astype(np.float64)
            seen = ~np.isnan(channels).all(axis=0)
            parts.append(np.where(seen, np.stack([x, y]), np.nan))
        if "local_mean" in self.features:
            parts.append(np.stack([_local_mean(own) for own in channels]))
        if "gradient" in self.features:
            parts.append(_gradient(channels.mean(axis=0))[None])
        out = np.concatenate(parts)[:, inside[0], inside[1]]
        return out.reshape(len(out), -1)

    def words(self, patch: Patch) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """The pixels of a patch as words (h, w), and which are missing; None where none is."""
        assert self.word is not None
        return self.word.pack(patch.pixels, patch.missing)

    def source(self, names: Sequence[str] | None = None) -> Source:
        """The pixels as a table of windows, of all columns or these."""
        pieces = tuple(PixelPiece(self, window) for window in self.raster.windows())
        return Source(tuple(names or self.columns), pieces, self.raster.where, n_rows=self.raster.n_pixels)


def _box(values: Floats) -> Floats:
    from scipy.ndimage import correlate1d  # it takes long to import, and most pictures need none of it

    ones = np.ones(2 * RADIUS + 1)
    return np.asarray(correlate1d(correlate1d(values, ones, axis=0, mode="nearest"), ones, axis=1, mode="nearest"))


def _local_mean(values: Floats) -> Floats:
    """Mean over the square around each pixel, over those that are there."""
    seen = ~np.isnan(values)
    counts = _box(seen.astype(np.float64))
    means = _box(np.where(seen, values, 0.0)) / np.maximum(counts, 1.0)
    return np.where(seen, means, np.nan)


def _gradient(values: Floats) -> Floats:
    """Length of the gradient by central differences."""
    from scipy.ndimage import correlate1d

    across, down = (correlate1d(values, [-0.5, 0.0, 0.5], axis=axis, mode="nearest") for axis in (1, 0))
    return np.hypot(across, down)


@dataclass(frozen=True)
class PixelPiece:
    """The pixels of a window, row by row, as a piece of a table."""

    view: View
    window: Window

    @property
    def origin(self) -> tuple[str, int]:
        return f"row {self.window.top} column {self.window.left}", 0

    def values(self) -> Floats:
        patch = self.view.raster.read(self.window.widened(self.view.halo, self.view.raster))
        return self.view.values(patch, self.window)

    def read(self, columns: Sequence[str]) -> pa.Table:
        values = dict(zip(self.view.columns, self.values()))
        if SEED in columns:
            seeds = self.view.named(self.view.seeded(self.window).ravel())
            return pa.table({n: seeds if n == SEED else pa.array(values[n], from_pandas=True) for n in columns})
        return pa.table({name: pa.array(values[name], from_pandas=True) for name in columns})


@dataclass(frozen=True)
class Word:
    """A pixel as one number: its channels side by side.

    Attributes
    ----------
    n_channels, bits : of each channel
    holes : whether channels can be missing one by one, which takes a bit each
    """

    n_channels: int
    bits: int
    holes: bool

    @property
    def n_words(self) -> int:
        return 1 << self.seed_shift

    @property
    def seed_shift(self) -> int:
        """Where the number of a seed stands, above all channels."""
        return self.n_channels * self.bits

    def pack(
        self, pixels: NDArray[Any], missing: NDArray[np.bool_] | None
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Words (h, w) of pixels (h, w, c), and which pixels are missing altogether; None where none is."""
        kind: Any = np.uint32 if self.n_channels * self.bits <= 32 else np.uint64
        out: Any = np.zeros(pixels.shape[:2], dtype=kind)
        for c in reversed(range(self.n_channels)):
            np.left_shift(out, kind(self.bits), out=out)
            np.bitwise_or(out, pixels[:, :, c], out=out)
            if self.holes and missing is not None:
                np.bitwise_or(out, missing[:, :, c].astype(kind) << kind(self.bits - 1), out=out)
        return out, None if missing is None else np.asarray(missing.all(axis=2))

    def unpack(self, words: NDArray[Any]) -> Floats:
        """Channels (c, n); NaN where missing."""
        words = words.astype(np.uint64)
        depth = self.bits - self.holes
        out = np.empty((self.n_channels, len(words)))
        for c in range(self.n_channels):
            own = words >> np.uint64(c * self.bits)
            out[c] = own & np.uint64((1 << depth) - 1)
            if self.holes:
                out[c, (own >> np.uint64(depth)) & np.uint64(1) == 1] = np.nan
        return out


def distinct_colours(view: View, i: int, window: Window) -> Pile:
    """The colours of a window, those of each seed apart, for a sum over windows."""
    words, missing = view.words(view.raster.read(window))
    if view.seeds and view.word is not None:
        words = words.astype(np.uint64) | view.seeded(window).astype(np.uint64) << np.uint64(view.word.seed_shift)
    own = words.ravel() if missing is None else words[~missing]
    return Pile(rows=(own,))


@dataclass(frozen=True)
class Extent:
    """Smallest and largest value of every column, (inf, -inf) where none is observed; adds up."""

    low: Floats
    high: Floats

    @staticmethod
    def of(values: Floats) -> Extent:
        return Extent(np.fmin.reduce(values, axis=1, initial=np.inf), np.fmax.reduce(values, axis=1, initial=-np.inf))

    def __add__(self, other: Extent) -> Extent:
        return Extent(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def seen(self) -> bool:
        return bool((self.low <= self.high).any())

    @property
    def varies(self) -> NDArray[np.bool_]:
        return self.low < self.high


def extent_of(view: View, i: int, piece: PixelPiece) -> Extent:
    """Of the columns in a window, for a sum over windows."""
    return Extent.of(piece.values())

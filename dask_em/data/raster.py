"""Pictures of any size, read window by window.

A `Raster` says what a picture is and who reads it; a `Window` is a rectangle of its pixels. Readers are small values that can be sent to other processes, and what a file says
about its colours and its orientation is undone by readers around readers. How files are opened is told in raster_files.py.

A pixel is missing where its alpha is 0, where it has the nodata value, or where it is no finite number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dask_em.errors import ConfigurationError, DataError

WINDOW = 1024
"""Rows and columns of a window: a million pixels, some 100 MB while they are worked on with all their features."""

CHECK = "check that it is a whole picture in PNG, JPEG, TIFF or Zarr"


class Reader(Protocol):
    """What gives the pixels of a window, (h, w) or (h, w, c); it can be sent to another process."""

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: rows top to top + height - 1, columns left to left + width - 1."""

    top: int
    left: int
    height: int
    width: int

    def widened(self, halo: int, picture: Raster) -> Window:
        """The window with a border, as far as the picture goes."""
        top, left = max(self.top - halo, 0), max(self.left - halo, 0)
        bottom = min(self.top + self.height + halo, picture.height)
        right = min(self.left + self.width + halo, picture.width)
        return Window(top, left, bottom - top, right - left)

    def inside(self, other: Window) -> tuple[slice, slice]:
        """Where its pixels stand in a window that holds it."""
        top, left = self.top - other.top, self.left - other.left
        return slice(top, top + self.height), slice(left, left + self.width)

    def shared(self, other: Window) -> Window:
        """The pixels that both have; of no height or width where there are none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom = min(self.top + self.height, other.top + other.height)
        right = min(self.left + self.width, other.left + other.width)
        return Window(top, left, max(bottom - top, 0), max(right - left, 0))

    def overlaps(self, other: Window) -> bool:
        both = self.shared(other)
        return both.height > 0 and both.width > 0


@dataclass(frozen=True)
class Patch:
    """Pixels (h, w, c) of a window, and which cells are missing, of the same shape; None where no cell is."""

    window: Window
    pixels: NDArray[Any]
    missing: NDArray[np.bool_] | None

    def cut(self, window: Window) -> Patch:
        """Those of a window inside."""
        own = window.inside(self.window)
        return Patch(window, self.pixels[own], None if self.missing is None else self.missing[own])


@dataclass(frozen=True)
class Raster:
    """A picture that is read when it is needed.

    Attributes
    ----------
    where : what messages call it
    height, width : pixels
    dtype : of a channel
    channels : their names: grey; red, green, blue; or band1, band2, ...
    reader : gives windows, with the alpha channel last if there is one
    alpha : whether there is one
    nodata : the value that means missing
    tile : rows and columns of the file's own tiles, which windows respect
    window : rows and columns of a window, about
    form : how it is kept: "picture" (one file, or memory), "tiff" or "zarr"
    notes : sentences about what was done to the colours
    tags : TIFF tags that hold the georeference, as tifffile writes them
    attributes : of a Zarr array, which hold its georeference
    """

    where: str
    height: int
    width: int
    dtype: np.dtype[Any]
    channels: tuple[str, ...]
    reader: Reader
    alpha: bool = False
    nodata: float | None = None
    tile: tuple[int, int] = (1, 1)
    window: int = WINDOW
    form: str = "picture"
    notes: tuple[str, ...] = ()
    tags: tuple[tuple[Any, ...], ...] = field(default=(), repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def n_pixels(self) -> int:
        return self.height * self.width

    @property
    def whole(self) -> Window:
        return Window(0, 0, self.height, self.width)

    @property
    def in_memory(self) -> bool:
        return isinstance(self.reader, ArrayReader)

    def windows(self, grid: int = 1) -> list[Window]:
        """The picture cut into windows of about window x window pixels, row by row: along its own tiles, with corners at multiples of `grid`."""
        tall, wide = self.tile
        columns = min(_multiple(max(self.window // wide, 1) * wide, grid), self.width)
        wanted = min(self.window, self.window**2 // columns)  # strips are as wide as the picture
        rows = _multiple(max(wanted // tall, 1) * tall, grid)
        return [
            Window(top, left, min(rows, self.height - top), min(columns, self.width - left))
            for top in range(0, self.height, rows)
            for left in range(0, self.width, columns)
        ]

    def read(self, window: Window) -> Patch:
        """The pixels of a window.

        Raises
        ------
        DataError
            The file is damaged.
        """
        with one_sentence(self.where):
            pixels = self.reader.read(window.top, window.left, window.height, window.width)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        missing: NDArray[np.bool_] | None = None
        if self.alpha:
            clear = pixels[:, :, -1:] == 0
            pixels = pixels[:, :, :-1]
            missing = np.broadcast_to(clear, pixels.shape)
        if pixels.dtype.kind == "f":
            absent = ~np.isfinite(pixels)
            missing = absent if missing is None else missing | absent
        if self.nodata is not None:
            absent = pixels == self.nodata
            missing = absent if missing is None else missing | absent
        return Patch(window, pixels, missing if missing is not None and missing.any() else None)


def _multiple(size: int, grid: int) -> int:
    """The smallest multiple of `grid` that is not below."""
    return -(-size // grid) * grid


class one_sentence:  # noqa: N801  # reads as a statement
    """A block that reads a picture; whatever a codec raises becomes one sentence."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, (DataError, ConfigurationError, MemoryError)):
            raise damaged(self.where) from None


def damaged(where: str) -> DataError:
    return DataError(f"{where} cannot be read, it is damaged or cut short: {CHECK}")


def described(
    where: str, shape: tuple[int, ...], dtype: Any, reader: Reader, *, alpha: bool = False, **more: Any
) -> Raster:
    """The raster of an (h, w) or (h, w, c) array that somebody reads.

    Raises
    ------
    DataError
        It has no pixels, no channel of colour, or holds no numbers.
    """
    if len(shape) not in (2, 3):
        raise DataError(f"{where} has {len(shape)} dimension(s): give rows x columns, or rows x columns x channels")
    if 0 in shape:
        raise DataError(f"{where} has no pixels: give a picture of at least one")
    dtype = np.dtype(dtype)
    if dtype.kind not in "buif":
        raise DataError(f"{where} does not hold numbers: {CHECK}")
    n = (1 if len(shape) == 2 else shape[2]) - alpha
    names = {1: ("grey",), 3: ("red", "green", "blue")}.get(n, tuple(f"band{i + 1}" for i in range(n)))
    return Raster(where, int(shape[0]), int(shape[1]), dtype, names, reader, alpha, **more)


@dataclass(frozen=True)
class ArrayReader:
    """Pixels in memory."""

    pixels: NDArray[Any]

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        return self.pixels[top : top + height, left : left + width]


@dataclass(frozen=True)
class TurnedReader:
    """A picture turned as its EXIF orientation (1 to 8) says: its rows from below, its columns from the right, rows and columns exchanged.

    Attributes
    ----------
    reader : of the picture as it is stored
    height, width : as it is stored
    orientation : tag 274 of TIFF 6.0
    """

    reader: Reader
    height: int
    width: int
    orientation: int

    @property
    def exchanged(self) -> bool:
        return self.orientation > 4

    def read(self, top: int, left: int, height: int, width: int) -> NDArray[Any]:
        up = self.orientation in (3, 4, 7, 8)
        back = self.orientation in (2, 3, 6, 7)
        tall, wide = (self.width, self.height) if self.exchanged else (self.height, self.width)
        # Of the turned picture, counted from the other side where that is where the stored one begins.
        first = tall - top - height if up else top
        second = wide - left - width if back else left
        stored = (second, first, width, height) if self.exchanged else (first, second, height, width)
        pixels = self.reader.read(*stored)
        if self.exchanged:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if up else 1, :: -1 if back else 1]


def turned(raster: Raster, orientation: int) -> Raster:
    """The picture as it is meant to be seen. Where it lies on Earth is not kept, for it was told of the stored one."""
    if orientation not in range(2, 9):
        return raster
    reader = TurnedReader(raster.reader, raster.height, raster.width, orientation)
    height, width = raster.height, raster.width
    if reader.exchanged:
        height, width = width, height
    return replace(
        raster,
        reader=reader,
        height=height,
        width=width,
        tile=raster.tile[::-1] if reader.exchanged else raster.tile,
        tags=(),
        notes=(*raster.notes, f"{raster.where} was turned as its EXIF orientation says."),
    )

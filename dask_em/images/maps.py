"""Maps of labels and posteriors as files: PNG with a palette, tiled TIFF that keeps the georeference, Zarr.

Tiles of a TIFF are compressed where the window was read, and wait in a file of their own until all are there, for TIFF wants them in order. Chunks of Zarr are written by the workers.

    labels       uint8, 255 where nothing is observed
    posteriors   uint16, 0 to 1000: per mille, 65535 where nothing is observed
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.raster import Raster, Window
from dask_em.data.raster_files import NODATA_TAG
from dask_em.images.drawing import palette
from dask_em.images.overview import LabelsInMemory
from dask_em.images.smoothing import MISSING

TILE = 256
"""Rows and columns of a tile."""

CHUNK = 512
"""Rows and columns of a Zarr chunk."""

LEVEL = 4
"""Of deflate: a tenth larger than with the usual 6, in a third of the time."""

PER_MILLE, NO_POSTERIOR = 1000, 65535

CLASSIC = 4 * 10**9
"""Bytes beyond which a TIFF has to be a BigTIFF."""


def per_mille(posterior: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(k, h, w) posteriors as they are written."""
    out = np.rint(posterior * np.float32(PER_MILLE)).astype(np.uint16)
    out[:, ~posterior.any(axis=0)] = NO_POSTERIOR
    return out


def colour_table(k: int) -> NDArray[np.uint8]:
    """(256, 3) the colour of every label, white for what is no segment."""
    colours = np.full((256, 3), 255, dtype=np.uint8)
    colours[:k] = palette(k)
    return colours


@dataclass
class PngMap(LabelsInMemory):
    """Labels of a picture that fits into memory, as a PNG with the colours of the segments, transparent where nothing is observed."""

    path: Path = Path()
    k: int = 1

    def finish(self) -> None:
        from PIL import Image

        image = Image.fromarray(self.labels)
        image.putpalette(colour_table(self.k).tobytes())
        image.save(self.path, transparency=MISSING)


@dataclass
class TiffMap:
    """Labels or posteriors as a TIFF of tiles of 256 x 256, compressed by deflate; BigTIFF where it is large.

    Attributes
    ----------
    path : of the file
    raster : the picture, whose georeference it keeps
    k : number of segments
    posterior : whether it is that of posteriors
    """

    path: Path
    raster: Raster
    k: int
    posterior: bool
    _places: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    grid = TILE

    @property
    def _waiting(self) -> Path:
        return self.path.with_suffix(".tiles")

    @property
    def encode(self) -> Callable[[Window, NDArray[Any]], list[bytes]]:
        return _posterior_tiles if self.posterior else _tiles

    def keep(self, window: Window, encoded: list[bytes]) -> None:
        across = -(-window.width // TILE)
        with self._waiting.open("ab") as waiting:
            for i, tile in enumerate(encoded):
                down, right = divmod(i, across)
                place = (window.top // TILE + down, window.left // TILE + right)
                self._places[place] = (waiting.tell(), len(tile))
                waiting.write(tile)

    def finish(self) -> None:
        import tifffile

        tags = [tag for tag in self.raster.tags if tag[0] != NODATA_TAG]
        nodata = str(NO_POSTERIOR if self.posterior else MISSING)
        shape: tuple[int, ...] = (self.raster.height, self.raster.width)
        more: dict[str, Any] = {"photometric": "palette", "colormap": colour_table(self.k).T.astype(np.uint16) * 257}
        if self.posterior:
            more = {"photometric": "minisblack"}
        if self.posterior and self.k > 1:
            shape = (*shape, self.k)
            more |= {"planarconfig": "contig", "extrasamples": ["unspecified"] * (self.k - 1)}
        size = self._waiting.stat().st_size
        with (
            self._waiting.open("rb") as waiting,
            tifffile.TiffWriter(self.path, bigtiff=size > CLASSIC) as writer,
        ):
            writer.write(
                self._in_order(waiting),
                shape=shape,
                dtype=np.uint16 if self.posterior else np.uint8,
                tile=(TILE, TILE),
                compression="adobe_deflate",
                metadata=None,
                software=False,
                extratags=[*tags, (NODATA_TAG, 2, len(nodata) + 1, nodata, True)],
                **more,
            )
        self._waiting.unlink()

    def _in_order(self, waiting: IO[bytes]) -> Iterator[bytes]:
        for _, (start, size) in sorted(self._places.items()):
            waiting.seek(start)
            yield waiting.read(size)


def _tiles(window: Window, values: NDArray[Any]) -> list[bytes]:
    """The compressed tiles of a window (h, w, ...), row by row; those at the border of the picture filled up with 0."""
    out = []
    for top in range(0, window.height, TILE):
        for left in range(0, window.width, TILE):
            own = values[top : top + TILE, left : left + TILE]
            if own.shape[:2] != (TILE, TILE):
                whole = np.zeros((TILE, TILE, *own.shape[2:]), dtype=own.dtype)
                whole[: own.shape[0], : own.shape[1]] = own
                own = whole
            out.append(zlib.compress(own.tobytes(), LEVEL))
    return out


def _posterior_tiles(window: Window, posterior: NDArray[np.float32]) -> list[bytes]:
    return _tiles(window, np.moveaxis(per_mille(posterior), 0, -1))


@dataclass
class ZarrMap:
    """Labels (y, x) or posteriors (segment, y, x) as a Zarr array, with the attributes of the picture's own."""

    path: Path
    raster: Raster
    k: int
    posterior: bool

    grid = CHUNK

    def __post_init__(self) -> None:
        import zarr

        shape: tuple[int, ...] = (self.raster.height, self.raster.width)
        colours = [f"#{bytes(own).hex()}" for own in palette(self.k)]
        fill = NO_POSTERIOR if self.posterior else MISSING
        zarr.create_array(
            store=str(self.path),
            shape=(self.k, *shape) if self.posterior else shape,
            chunks=(1, CHUNK, CHUNK) if self.posterior else (CHUNK, CHUNK),
            dtype="uint16" if self.posterior else "uint8",
            fill_value=fill,
            dimension_names=("segment", "y", "x") if self.posterior else ("y", "x"),
            attributes={**self.raster.attributes, "_FillValue": fill, "colours": colours},
        )

    @property
    def encode(self) -> Callable[[Window, NDArray[Any]], None]:
        return partial(_write_posterior if self.posterior else _write_labels, str(self.path))

    def keep(self, window: Window, encoded: None) -> None:
        """It is written."""

    def finish(self) -> None:
        """It is all there."""


def _write_labels(path: str, window: Window, labels: NDArray[np.uint8]) -> None:
    import zarr

    array: Any = zarr.open_array(path, mode="r+")
    array[window.top : window.top + window.height, window.left : window.left + window.width] = labels


def _write_posterior(path: str, window: Window, posterior: NDArray[np.float32]) -> None:
    import zarr

    array: Any = zarr.open_array(path, mode="r+")
    array[:, window.top : window.top + window.height, window.left : window.left + window.width] = per_mille(posterior)

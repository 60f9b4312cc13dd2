"""Pictures to segment: photographs that scikit-learn ships, four regions with noise, and one of any size that is made of both.

The large picture repeats a photograph, mirrored at its borders so that no seam shows, with normal noise of its own in every tile: a tile is a pure function of (seed, its place).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.sinks import staged
from dask_em.errors import ConfigurationError

Pixels = NDArray[np.uint8]

COLOURS = np.array([[70, 120, 190], [60, 130, 70], [205, 175, 105], [115, 75, 60]])
"""Of sky, meadow, sand and a wall."""

TILE = 256
AHEAD = 32
"""Tiles that are made before the first of them is written."""


def sample(name: str) -> Pixels:
    """A photograph (427, 640, 3) that scikit-learn ships: china (a temple and its trees) or flower."""
    try:
        from sklearn.datasets import load_sample_image

        picture: Pixels = load_sample_image(f"{name}.jpg")
    except ImportError:
        raise ConfigurationError('the sample pictures need the extra "images": pip install "dask-em[images]"') from None
    return picture


def generated(height: int, width: int, noise: float, seed: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Four regions with noise of a standard deviation, and which region every pixel belongs to."""
    y, x = np.mgrid[:height, :width]
    truth = np.where(y < height * (0.45 + 0.05 * np.sin(6 * x / width)), 0, 1)
    truth[(y - 0.68 * height) ** 2 + (x - 0.35 * width) ** 2 < (0.2 * min(height, width)) ** 2] = 2
    truth[(x > 0.7 * width) & (x < 0.85 * width) & (y > 0.25 * height) & (y < 0.75 * height)] = 3
    values = COLOURS[truth] + noise * np.random.default_rng(seed).standard_normal((height, width, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8), truth


def tile(photographs: list[Pixels], row: int, column: int, noise: float, seed: int) -> Pixels:
    """A tile of the large picture: of the one photograph or the other, with noise."""
    # Both are folded at their borders; they change places every second time round.
    height, width = photographs[0].shape[:2]
    y = np.arange(row * TILE, (row + 1) * TILE)
    x = np.arange(column * TILE, (column + 1) * TILE)
    which = ((x // (2 * width))[None] + (y // (2 * height))[:, None]) % len(photographs)
    down, right = (np.minimum(at % (2 * n), 2 * n - 1 - at % (2 * n)) for at, n in ((y, height), (x, width)))
    values = np.stack(photographs)[which, down[:, None], right[None]].astype(np.float32)
    rng = np.random.default_rng([seed, row, column])
    values += np.float32(noise) * rng.standard_normal(values.shape, dtype=np.float32)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def write_large(output: str | Path, megapixels: float, noise: float = 2.0, seed: int = 0) -> dict[str, Any]:
    """Write picture.tif into a new folder: a BigTIFF of 256 x 256 tiles, compressed by deflate, four tiles wide for every three high.

    Memory stays that of some tiles. Returns what it is.

    Raises
    ------
    OutputError
        The folder is not empty or cannot be made.
    """
    import tifffile

    photographs = [sample("china"), sample("flower")]
    tiles = max(megapixels * 1e6 / TILE**2, 1.0)
    rows = max(round((tiles * 0.75) ** 0.5), 1)
    columns = max(round(tiles / rows), 1)
    places = [(row, column) for row in range(rows) for column in range(columns)]

    def compressed() -> Iterator[bytes]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(places), AHEAD):
                own = places[start : start + AHEAD]
                yield from pool.map(lambda at: zlib.compress(tile(photographs, *at, noise, seed).tobytes(), 6), own)

    with staged(output) as folder, tifffile.TiffWriter(folder / "picture.tif", bigtiff=True) as writer:
        writer.write(
            compressed(),
            shape=(rows * TILE, columns * TILE, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(TILE, TILE),
            compression="adobe_deflate",
            metadata=None,
        )
    path = Path(output) / "picture.tif"
    pixels = rows * columns * TILE**2
    return {
        "path": str(path),
        "height": rows * TILE,
        "width": columns * TILE,
        "pixels": pixels,
        "bytes": path.stat().st_size,
    }

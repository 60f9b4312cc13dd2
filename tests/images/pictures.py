"""Pictures for tests: regions that are known, a photograph, and files of every kind that holds one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

COLOURS = np.array([[60, 110, 200], [40, 140, 60], [200, 170, 90], [120, 60, 110]])


def regions(height: int = 150, width: int = 200) -> NDArray[np.int64]:
    """Labels of four regions: sky, meadow, a disc of sand, and a strip."""
    y, x = np.mgrid[:height, :width]
    labels = np.where(y < 0.4 * height, 0, 1)
    labels[(y - 0.6 * height) ** 2 + (x - 0.4 * width) ** 2 < (0.2 * height) ** 2] = 2
    labels[:, int(0.85 * width) :] = 3
    return labels


def painted(noise: float, labels: NDArray[np.int64] | None = None, seed: int = 0) -> NDArray[np.uint8]:
    """The four regions in their colours, with normal noise of a standard deviation."""
    labels = regions() if labels is None else labels
    values = COLOURS[labels] + noise * np.random.default_rng(seed).standard_normal((*labels.shape, 3))
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def photograph(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A part of china.jpg: roof, trees and sky."""
    return np.ascontiguousarray(load_sample_image("china.jpg")[100 : 100 + height, 200 : 200 + width])


def tiff(path: Path, pixels: Any, **more: Any) -> Path:
    """A TIFF of a kind that tifffile writes."""
    tifffile.imwrite(path, pixels, **({"photometric": "rgb"} if pixels.shape[-1] in (3, 4) else {}) | more)
    return path


def zarr_folder(path: Path, pixels: Any, chunks: tuple[int, ...], names: Any = None, **attributes: Any) -> Path:
    array: Any = zarr.create_array(
        store=str(path), shape=pixels.shape, chunks=chunks, dtype=pixels.dtype, dimension_names=names
    )
    array[...] = pixels
    array.attrs.update(attributes)
    return path

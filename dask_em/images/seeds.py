"""Boxes of a picture whose segment somebody knows, by the name of that segment: this is sky, that is water."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np

from dask_em.data.raster import Raster, Window
from dask_em.errors import ConfigurationError, DataError

Box = Sequence[int]
"""left, top, right, bottom in pixels; right and bottom are not included, as in Pillow."""


def boxes(seeds: Mapping[str, Box | Sequence[Box]], raster: Raster, n_segments: int) -> tuple[tuple[Window, str], ...]:
    """Seeds as windows of the picture, each with its name.

    Raises
    ------
    ConfigurationError
        They name more segments than there are, a box is none, lies outside the picture, or overlaps that of another segment.
    DataError
        Nothing is observed in one of them.
    """
    if not isinstance(seeds, Mapping):
        raise ConfigurationError("seeds must be a mapping from the names of segments to their boxes")
    if len(seeds) > n_segments:
        raise ConfigurationError(
            f"seeds name {len(seeds)} segments, more than n_segments={n_segments}: ask for more segments"
        )
    found: list[tuple[Window, str]] = []
    for name, own in seeds.items():
        if not isinstance(name, str) or not name:
            raise ConfigurationError("seeds must have names as text")
        for box in _several(own):
            window = _window(box, name, raster)
            if any(other != name and window.overlaps(earlier) for earlier, other in found):
                raise ConfigurationError(f"seed {name!r} overlaps that of another segment: a pixel belongs to one")
            patch = raster.read(window)
            if patch.missing is not None and patch.missing.all():
                raise DataError(f"nothing is observed in seed {name!r}: choose another box")
            found.append((window, name))
    return tuple(found)


def _several(own: Any) -> list[Any]:
    """One box or a list of them as a list."""
    own = list(own) if isinstance(own, Iterable) else [own]
    return own if own and not isinstance(own[0], (int, float, np.number)) else [own]


def _window(box: Sequence[Any], name: str, raster: Raster) -> Window:
    if not isinstance(box, Sized) or len(box) != 4 or not all(isinstance(edge, (int, np.integer)) for edge in box):
        raise ConfigurationError(f"seed {name!r} must be a box of whole numbers: left, top, right, bottom")
    left, top, right, bottom = (int(edge) for edge in box)
    if not (0 <= left < right <= raster.width and 0 <= top < bottom <= raster.height):
        raise ConfigurationError(
            f"seed {name!r} is no box inside the picture of {raster.width} x {raster.height} pixels"
        )
    return Window(top, left, bottom - top, right - left)

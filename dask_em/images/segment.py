"""A picture split into its regions: colours collapsed in one scan, a mixture fitted to them, every pixel labelled.

8 or 16 bits, colours alone    one scan -> weighted distinct colours -> fit in memory, whatever the number of pixels
otherwise                      pixels are rows, scanned window by window
"""

from __future__ import annotations

import logging
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dask_em.data.pixels import View
from dask_em.data.raster_files import open_raster
from dask_em.errors import ConfigurationError
from dask_em.estimators.arguments import Criterion, check_criterion, checked_number
from dask_em.execution.choose import open_executor
from dask_em.images.fit import colours, fit, rows_of, search
from dask_em.images.labels import MAX_SEGMENTS, Labeller
from dask_em.images.seeds import Box, boxes
from dask_em.images.segmentation import Segmentation

log = logging.getLogger("dask_em")

MAX_SMALLEST = 512
"""Pixels that the smallest region may be asked to have: windows are widened by twice as many."""


def segment_image(
    picture: Any,
    n_segments: int | Sequence[int] = 5,
    *,
    colour_space: str = "rgb",
    features: Sequence[str] = (),
    covariance_type: str = "full",
    criterion: Criterion = "bic",
    smoothing: float = 0.0,
    smallest_region: int = 1,
    nodata: float | None = None,
    seeds: Mapping[str, Box | Sequence[Box]] | None = None,
    n_init: int = 5,
    tol: float = 1e-6,
    max_iter: int = 1000,
    random_state: Any = None,
    executor: Any = None,
    on_progress: Callable[[Any], None] | None = None,
) -> Segmentation:
    """Split a picture into segments of similar colour.

    Parameters
    ----------
    picture : array (h, w) or (h, w, c), Pillow image, or path of a PNG, JPEG, TIFF or Zarr
        Whole numbers or float. Transparent pixels, what is not finite and nodata are missing: they are left out of the fit and have the label 255.
    n_segments : number of segments, at most 254, or several to choose from
    colour_space : "rgb" for the channels as they are (default), or "lab": CIELAB, where distances are closer to what people see
    features : of "position" (x, y), "local_mean" (of 5 x 5 pixels) and "gradient" (its length); with features every pixel is a row of its own
    covariance_type : as in `GaussianMixture`
    criterion : "bic" (default), "icl", "aic" or "held-out": how to choose among several numbers
    smoothing : strength of a Potts prior over neighbouring pixels; 0 (default) for none, 1 to 3 for pictures with noise
    smallest_region : regions of fewer pixels join their surroundings; 1 (default) for none, at most 512
    nodata : value that means missing, by default what the file says
    seeds : boxes (left, top, right, bottom) in pixels, right and bottom not included, by the name of the segment they belong to, one or several: their pixels are of that segment
        in the fit and in the labels, whatever their colour
    n_init : starts of every number
    tol, max_iter, random_state : as in `GaussianMixture`
    executor : as in `GaussianMixture`; a picture in memory is worked on in this process
    on_progress : called after every scan

    Returns
    -------
    Segmentation
        Segments are numbered by the pixels they have before smoothing, the largest being 0.

    Raises
    ------
    DataError
        It is no picture, damaged, of one colour, or has fewer colours than segments.
    ConfigurationError
        An argument is not possible for this picture.

    Notes
    -----
    A mixture of normals over pixels (Permuter, Francos and Jermyn 2006). Pixels of one colour are one row with a weight, so the fit costs the number of colours. BIC is that of pixels
    that were drawn independently, which neighbours are not: on photographs it asks for many segments.

    Examples
    --------
    >>> import numpy as np
    >>> picture = np.zeros((20, 30, 3), dtype=np.uint8) + np.arange(30, dtype=np.uint8)[:, None] // 10 * 90
    >>> segment_image(picture, 3, random_state=0).regions["share"].round(2).tolist()
    [0.33, 0.33, 0.33]
    """
    sizes = _sizes(n_segments)
    smoothing = checked_number("smoothing", smoothing, numbers.Real)
    if not (np.isfinite(smoothing) and smoothing >= 0):
        raise ConfigurationError("smoothing must be 0 or more: it is the strength of the prior over neighbours")
    smallest_region = checked_number("smallest_region", smallest_region, numbers.Integral)
    if not 1 <= smallest_region <= MAX_SMALLEST:
        raise ConfigurationError(f"smallest_region must be between 1 and {MAX_SMALLEST} pixels")
    check_criterion(criterion)
    if isinstance(features, str) or not isinstance(features, Iterable):
        raise ConfigurationError("features must be a list, such as ('position', 'gradient')")
    raster = open_raster(picture, nodata=None if nodata is None else checked_number("nodata", nodata, numbers.Real))
    view = View(raster, colour_space, tuple(features), boxes(seeds or {}, raster, min(sizes)))
    for note in view.raster.notes:
        log.info(note)
    settings: dict[str, Any] = {
        "covariance_type": covariance_type,
        "tol": checked_number("tol", tol, numbers.Real),
        "max_iter": checked_number("max_iter", max_iter, numbers.Integral),
        "n_init": checked_number("n_init", n_init, numbers.Integral),
        "acceleration": "daarem",
        "compress": False,
        "random_state": random_state,
    }
    where = "local" if raster.in_memory else executor
    with open_executor(where) as opened:
        distinct = colours(view, opened)
        rows = rows_of(view, distinct, opened, max(sizes))
        if len(sizes) > 1:
            found = search(rows, sizes, settings, criterion, opened, on_progress)
        else:
            found = fit(rows, sizes[0], settings, opened, on_progress)
    labeller = Labeller(view, found.model, smoothing, smallest_region)
    if distinct is not None:
        labeller = labeller.by_share(distinct)
    n_colours = None if distinct is None else len(distinct)
    return Segmentation(labeller, found.estimator, n_colours, found.selection, where)


def _sizes(n_segments: int | Sequence[int]) -> list[int]:
    sizes = list(n_segments) if isinstance(n_segments, Iterable) else [n_segments]
    if not sizes or not all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) for k in sizes):
        raise ConfigurationError("n_segments must be a whole number, or several to choose from")
    if min(sizes) < 1 or max(sizes) > MAX_SEGMENTS:
        raise ConfigurationError(f"n_segments must be between 1 and {MAX_SEGMENTS}")
    return [int(k) for k in sizes]

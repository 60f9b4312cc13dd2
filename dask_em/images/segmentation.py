"""What a segmentation gives: labels, segments, pictures of both, and all of it as files, from one pass over the picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dask_em.data.raster import Raster
from dask_em.data.sinks import staged
from dask_em.errors import ConfigurationError
from dask_em.execution.choose import open_executor
from dask_em.images import drawing
from dask_em.images.labels import Labeller
from dask_em.images.maps import PngMap, TiffMap, ZarrMap
from dask_em.images.overview import LabelsInMemory, Overview, look
from dask_em.images.regions import region_table
from dask_em.model import FittedMixture

if TYPE_CHECKING:
    from dask_em.search import Selection

KEPT = 1 << 26
"""Labels of so many pixels stay in memory (64 MB) once they are known."""

PNG_PIXELS = 1 << 25
"""A label map of more pixels is a TIFF unless it is said otherwise."""

FORMS = {"picture": "png", "tiff": "tiff", "zarr": "zarr"}
ENDINGS = {"png": ".png", "tiff": ".tif", "zarr": ".zarr"}


@dataclass(frozen=True)
class Segmentation:
    """A picture's segments; labels are computed when they are asked for, and never all at once unless they are asked for as one array.

    Attributes
    ----------
    labeller : the picture, the model and what smooths its labels
    estimator : gives the estimator of the fitted mixture, see `model`
    n_colours : distinct colours that the model was fitted to, None where it was fitted to pixels
    selection : the search for the number of segments, if there was one
    executor : where windows are labelled
    """

    labeller: Labeller
    estimator: Callable[[FittedMixture], Any] = field(repr=False)
    n_colours: int | None
    selection: Selection | None = None
    executor: Any = field(default=None, repr=False)

    @property
    def raster(self) -> Raster:
        return self.labeller.view.raster

    @property
    def n_segments(self) -> int:
        return self.labeller.model.n_components

    @cached_property
    def model(self) -> Any:
        """The fitted `GaussianMixture`, or with seeds `MixtureModel`, whose components are the segments."""
        return self.estimator(self.labeller.model)

    @property
    def names(self) -> tuple[str, ...]:
        """What the segments are called: as their seeds are, or by their number."""
        names = self.labeller.model.names or [None] * self.n_segments
        return tuple(f"segment {i}" if name is None else str(name) for i, name in enumerate(names))

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(height, width) segment of every pixel; 255 where nothing is observed."""
        kept = self._looked[1]
        if kept is not None:
            return kept
        found = LabelsInMemory.of(self.raster)
        self._look([found])
        return found.labels

    @property
    def regions(self) -> pd.DataFrame:
        """One row a segment, the largest first: segment, name, pixels, share, colour (#rrggbb, the mean) and the mean of every channel; share is of the pixels that have a label."""
        return self._regions(self._looked[0])

    def overlay(self, strength: float = 0.6) -> Any:
        """The picture under the colours of its segments, as a Pillow image; at most 2 megapixels, every n-th row and column of a larger one."""
        return self._overlay(self._looked[0], strength)

    def boundaries(self) -> Any:
        """The picture with the borders of its segments drawn in, as a Pillow image of the size of `overlay`."""
        return self._boundaries(self._looked[0])

    def write(
        self, folder: str | os.PathLike[str], *, form: str = "auto", posterior: bool = False, strength: float = 0.6
    ) -> dict[str, Path]:
        """Write the segments into a new folder, in one pass over the picture.

        Parameters
        ----------
        folder : absent or empty; it appears when everything is written
        form : of maps: "png", "tiff", "zarr", or "auto" (default) for that of the picture, TIFF where an ordinary one has more than 33 million pixels
        posterior : whether the probabilities of the segments are written, too: uint16, per mille, 65535 where nothing is observed; as TIFF, or Zarr beside Zarr
        strength : of the colours in the overlay, 0 to 1

        Returns
        -------
        dict
            Where they are: labels.png with a palette, labels.tif (256 x 256 tiles, deflate, palette, georeference of the picture) or labels.zarr; posterior;
            overlay.png, boundaries.png, regions.csv. Labels are 255 where nothing is observed.

        Raises
        ------
        OutputError
            The folder is not empty or cannot be made; nothing is left behind.
        """
        with staged(folder) as staging:
            names = self.write_into(staging, form=form, posterior=posterior, strength=strength)
        return {what: Path(folder) / name for what, name in names.items()}

    def write_into(
        self, folder: Path, *, form: str = "auto", posterior: bool = False, strength: float = 0.6
    ) -> dict[str, str]:
        """As `write`, into a folder that is there, one that vanishes where this fails; returns the names of the files."""
        maps = self._maps(folder, form, posterior)
        overview = self._look(maps)
        for own in maps:
            own.finish()
        self.__dict__.setdefault("_looked", (overview, None))
        self._regions(overview).to_csv(folder / "regions.csv", index=False)
        self._overlay(overview, strength).save(folder / "overlay.png")
        self._boundaries(overview).save(folder / "boundaries.png")
        files = {"posterior" if own.posterior else "labels": own.path.name for own in maps}
        return files | {"overlay": "overlay.png", "boundaries": "boundaries.png", "regions": "regions.csv"}

    def _maps(self, folder: Path, form: str, posterior: bool) -> list[Any]:
        if form == "auto":
            form = FORMS[self.raster.form]
            form = "tiff" if form == "png" and self.raster.n_pixels > PNG_PIXELS else form
        if form not in ENDINGS:
            raise ConfigurationError("form must be 'auto', 'png', 'tiff' or 'zarr'")
        path = (folder / "labels").with_suffix(ENDINGS[form])
        k, raster = self.n_segments, self.raster
        maps: list[Any] = []
        if form == "png":
            maps.append(PngMap(LabelsInMemory.of(raster).labels, path, k))
        else:
            maps.append((ZarrMap if form == "zarr" else TiffMap)(path, raster, k, False))
        if posterior:
            own = "zarr" if form == "zarr" else "tiff"
            path = (folder / "posterior").with_suffix(ENDINGS[own])
            maps.append((ZarrMap if own == "zarr" else TiffMap)(path, raster, k, True))
        return maps

    @cached_property
    def _looked(self) -> tuple[Overview, NDArray[np.uint8] | None]:
        """The overview, and the labels of a picture that is not too large to keep them."""
        kept = [LabelsInMemory.of(self.raster)] if self.raster.n_pixels <= KEPT else []
        overview = self._look(kept)
        return overview, kept[0].labels if kept else None

    def _look(self, maps: Sequence[Any]) -> Overview:
        with open_executor(self.executor) as executor:
            return look(self.labeller, maps, executor)

    def _range(self, overview: Overview) -> drawing.Range:
        return drawing.shown_range(self.raster, overview.pixels, overview.labels)

    def _regions(self, overview: Overview) -> pd.DataFrame:
        swatches = drawing.visible(overview.sums.means, self._range(overview))
        return region_table(overview.sums, self.raster, self.names, drawing.hexadecimal(swatches))

    def _overlay(self, overview: Overview, strength: float) -> Any:
        pixels = drawing.visible(overview.pixels, self._range(overview))
        return drawing.overlay(pixels, overview.labels, self.n_segments, strength)

    def _boundaries(self, overview: Overview) -> Any:
        return drawing.boundaries(drawing.visible(overview.pixels, self._range(overview)), overview.labels)

    def _repr_html_(self) -> str:
        return drawing.as_html(self.overlay(), self.regions)

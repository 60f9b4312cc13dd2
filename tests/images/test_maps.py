"""What is written, read again by others: labels equal those in memory, places on Earth are kept, and nothing is half written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from dask_em.data.raster_files import open_raster
from dask_em.errors import DataError, OutputError
from dask_em.images import drawing, maps
from dask_em.images.segment import segment_image
from dask_em.images.segmentation import Segmentation
from dask_em.images.smoothing import MISSING
from tests.images.pictures import painted, regions, tiff, zarr_folder

GEO: list[tuple[Any, ...]] = [
    (33550, 12, 3, (10.0, 10.0, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 600000.0, 200000.0, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 2056), True),
    (34737, 2, 12, "CH1903+/LV95", True),
]
"""Pixels of ten metres from a corner in Switzerland, as GeoTIFF tells it."""


def picture() -> NDArray[np.uint8]:
    """Known regions of 300 x 520 pixels, the corner of which is 0."""
    pixels = painted(6.0, regions(300, 520))
    pixels[:40, :30] = 0
    return pixels


@pytest.fixture(scope="module")
def found() -> Segmentation:
    return segment_image(picture(), 4, random_state=0, nodata=0, n_init=1)


FORMS = {
    "png": ("labels.png", "posterior.tif"),
    "tiff": ("labels.tif", "posterior.tif"),
    "zarr": ("labels.zarr", "posterior.zarr"),
}


def read(path: Path) -> NDArray[Any]:
    if path.suffix == ".zarr":
        array: Any = zarr.open_array(path, mode="r")
        return np.asarray(array)
    if path.suffix == ".tif":
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("window", [1024, 200])
def test_what_is_written_is_what_the_model_says(form: str, window: int, found: Segmentation, tmp_path: Path) -> None:
    view = replace(found.labeller.view, raster=replace(found.raster, window=window))
    own = replace(found, labeller=replace(found.labeller, view=view, token=f"of {window}"))
    paths = own.write(tmp_path / "out", form=form, posterior=True)
    assert sorted(paths) == ["boundaries", "labels", "overlay", "posterior", "regions"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in paths.values()}
    assert (paths["labels"].name, paths["posterior"].name) == FORMS[form]
    labels = read(paths["labels"])
    assert labels.dtype == np.uint8
    assert (labels == found.labels).all()
    table = found.labeller.view.source().read(found.labeller.view.columns)
    predicted = found.model.predict(table).to_numpy().reshape(labels.shape)
    there = labels != MISSING
    assert (labels[there] == predicted[there]).all()
    assert there.sum() == 300 * 520 - 40 * 30
    posterior = read(paths["posterior"])
    posterior = posterior if form == "zarr" else np.moveaxis(posterior, -1, 0)
    assert posterior.dtype == np.uint16
    expected = np.stack([own.to_numpy() for own in found.model.predict_proba(table).columns]).reshape(4, *labels.shape)
    assert (posterior[:, ~there] == 65535).all()
    assert np.abs(posterior[:, there] / 1000 - expected[:, there]).max() <= 0.0005 + 1e-6
    assert pd.read_csv(paths["regions"])["pixels"].tolist() == found.regions["pixels"].tolist()
    assert read(paths["overlay"]).tobytes() == found.overlay().tobytes()
    assert read(paths["boundaries"]).tobytes() == found.boundaries().tobytes()


def test_the_palette_is_in_the_file_and_missing_is_transparent(found: Segmentation, tmp_path: Path) -> None:
    paths = found.write(tmp_path / "a", form="png")
    there = found.labels != MISSING
    with Image.open(paths["labels"]) as image:
        assert image.mode == "P"
        rgba = np.asarray(image.convert("RGBA"))
    assert (rgba[..., 3] == np.where(there, 255, 0)).all()
    assert (rgba[there][:, :3] == drawing.palette(4)[found.labels[there]]).all()
    with tifffile.TiffFile(found.write(tmp_path / "b", form="tiff")["labels"]) as opened:
        page: Any = opened.pages[0]
        assert (page.is_tiled, page.tilewidth, page.tilelength, int(page.compression)) == (True, 256, 256, 8)
        assert (drawing.palette(4) == page.colormap[:, :4].T // 257).all()
        assert page.tags.valueof(42113) == "255"
    with Image.open(tmp_path / "b" / "labels.tif") as image:
        assert (np.asarray(image.convert("RGB"))[there] == drawing.palette(4)[found.labels[there]]).all()


def test_the_georeference_is_kept(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", picture(), compression="zlib", extratags=[*GEO, (42113, 2, 2, "0", True)])
    found = segment_image(path, 4, random_state=0, n_init=1)
    paths = found.write(tmp_path / "out", posterior=True)
    assert paths["labels"].name == "labels.tif"
    for name, nodata in (("labels", "255"), ("posterior", "65535")):
        with tifffile.TiffFile(paths[name]) as opened:
            tags = opened.pages[0].tags  # type: ignore[union-attr]
            assert [tags.valueof(code) for code, *_ in GEO] == [own[3] for own in GEO]
            assert tags.valueof(42113) == nodata
            assert opened.geotiff_metadata is not None
            assert opened.geotiff_metadata["ProjectedCSTypeGeoKey"] == 2056
    assert (tifffile.imread(paths["labels"])[:40, :30] == MISSING).all()


def test_zarr_beside_zarr_with_its_attributes(tmp_path: Path) -> None:
    path = zarr_folder(tmp_path / "a.zarr", picture(), (64, 64, 3), crs="EPSG:2056", _FillValue=0)
    paths = segment_image(path, 4, random_state=0, n_init=1).write(tmp_path / "out")
    array: Any = zarr.open_array(paths["labels"], mode="r")
    assert paths["labels"].name == "labels.zarr"
    assert (array.attrs["crs"], array.attrs["_FillValue"]) == ("EPSG:2056", 255)
    assert array.metadata.dimension_names == ("y", "x")
    assert (np.asarray(array)[:40, :30] == MISSING).all()


def test_a_label_map_is_a_picture_again(found: Segmentation, tmp_path: Path) -> None:
    for form, own in (("png", 0), ("tiff", 0)):
        paths = found.write(tmp_path / form, form=form)
        raster = open_raster(paths["labels"])
        values = raster.read(raster.whole).pixels
        there = found.labels != MISSING
        assert (values[there] == drawing.palette(4)[found.labels[there]]).all(), own


def test_a_large_file_is_a_bigtiff(found: Segmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "CLASSIC", 10)
    path = found.write(tmp_path / "out", form="tiff")["labels"]
    assert path.read_bytes()[:4] == b"II+\0"
    assert (tifffile.imread(path) == found.labels).all()


def test_nothing_is_half_written(tmp_path: Path) -> None:
    """A file whose last tile is damaged: the fit has seen it before, the labels find it."""
    path = tiff(tmp_path / "a.tif", picture(), compression="zlib", tile=(64, 64))
    raster = replace(open_raster(path), window=64)
    found = segment_image(raster, 3, random_state=0, n_init=1)
    with tifffile.TiffFile(path) as opened:
        page: Any = opened.pages[0]
        offset, size = page.dataoffsets[-1], page.databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(bytes(content))
    for form in FORMS:
        with pytest.raises(DataError, match=r"a\.tif cannot be read"):
            found.write(tmp_path / "out", form=form, posterior=True)
        assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_a_folder_in_use_is_left_alone(found: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        found.write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_one_pass_is_enough(found: Segmentation, tmp_path: Path) -> None:
    """Everything that is written, and what is asked for afterwards, comes from one reading of every window."""
    reads: list[Any] = []

    class Counted:
        """Pixels in memory that count how often they are read."""

        def read(self, *place: int) -> NDArray[Any]:
            reads.append(place)
            top, left, height, width = place
            return picture()[top : top + height, left : left + width]

    raster = replace(found.raster, reader=Counted(), window=256)
    view = replace(found.labeller.view, raster=raster)
    own = replace(found, labeller=replace(found.labeller, view=view, token="counted"))
    own.write(tmp_path / "out", form="tiff", posterior=True)
    assert len(own.regions) == 4
    assert own.overlay().size == (520, 300)
    assert len(reads) == len(set(reads)) == len(raster.windows(256))

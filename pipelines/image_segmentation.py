"""Image segmentation: open a picture, fit a mixture to its colours, label every pixel, write the map, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from dask_em import save, segment_image
from dask_em.config import GeneratedPicture, ImageSegmentationConfig, Picture, PictureFile, SamplePicture
from dask_em.data.encode import row_bytes
from dask_em.data.pixels import View
from dask_em.data.raster import Raster
from dask_em.data.raster_files import open_raster
from dask_em.data.schema import Design
from dask_em.images.fit import MAX_COLOURS
from dask_em.images.regions import published
from dask_em.images.seeds import boxes
from dask_em.images.segmentation import Segmentation
from dask_em.operate.run import Manner
from pipelines import pictures, plans
from pipelines.image_report import write_report
from pipelines.running import FRESH, running

LABELLED = plans.ONE
"""Passes over the picture once the mixture is fitted."""


def plan(config: ImageSegmentationConfig) -> dict[str, Any]:
    """What `run` would do; of the picture only its head is read, where it is a TIFF or Zarr."""
    picture = config.pictures[config.picture]
    raster = opened(picture)
    view = View(raster, picture.colour_space, picture.features, boxes(picture.seeds, raster, min(picture.candidates)))
    words = None if view.word is None else view.word.n_words
    rows = raster.n_pixels if words is None else min(raster.n_pixels, words)
    fit = "its distinct colours, collapsed in one scan" if view.word is not None else "every pixel, in every scan"
    return {
        "pipeline": config.pipeline,
        "picture": config.picture,
        "source": picture.source.kind,
        "pixels": raster.n_pixels,
        "size": f"{raster.width} x {raster.height}",
        "channels": list(raster.channels),
        "bytes": raster.n_pixels * len(raster.channels) * raster.dtype.itemsize,
        "windows": len(raster.windows()),
        "columns": list(view.columns),
        "fitted_to": fit,
        "scans": (_fitting(picture, raster, view) + LABELLED).told(),
        "memory": plans.memory(config.cluster, rows * row_bytes(Design(gaussian=view.columns))),
        "n_segments": list(picture.candidates),
        "starts": len(picture.candidates) * picture.n_init,
        "executor": config.cluster.scheduler or config.cluster.executor,
        "output": config.output,
        "writes": [
            "labels",
            *(["posterior"] if config.posterior else []),
            "overlay.png",
            "boundaries.png",
            "regions.csv",
        ]
        + (["criterion.csv"] if len(picture.candidates) > 1 else [])
        + ["report.html", "model/"],
    }


def _fitting(picture: Picture, raster: Raster, view: View) -> plans.Scans:
    """Passes of the fit: one for the colours, and where they are not collected further ones for their range, their profile and the fit to all pixels."""
    searched, held_out = len(picture.candidates) > 1, picture.criterion == "held-out"
    fit = plans.mixture(raster.n_pixels, picture.max_iter, searched=searched, held_out=held_out and searched)
    by_pixels = plans.ONE + plans.ONE + fit
    if view.word is None:
        return by_pixels
    few = min(raster.n_pixels, view.word.n_words) <= MAX_COLOURS
    return plans.ONE if few else plans.ONE | (plans.ONE + by_pixels)


def run(config: ImageSegmentationConfig, *, progress: Callable[[Any], None], manner: Manner = FRESH) -> dict[str, Any]:
    """Segment one picture; everything appears under config.output at the end, or nothing does."""
    picture = config.pictures[config.picture]
    raster = opened(picture)
    with running(config, _files(picture), manner) as run:
        folder, executor = run.folder, run.executor
        found = segment_image(raster, executor=executor, on_progress=progress, **_settings(picture))
        files = found.write_into(folder, form=config.maps, posterior=config.posterior)
        regions = published(found.regions, config.smallest_cell)
        regions.to_csv(folder / "regions.csv", index=False)
        if found.selection is not None:
            found.selection.table.to_csv(folder / "criterion.csv", index=False)
        save(found.model, folder / "model", **notes(config, found))
        write_report(run, config, found, regions, files)
        output, model = Path(config.output), found.model
        run.facts = {
            "pipeline": config.pipeline,
            "picture": config.picture,
            "pixels": raster.n_pixels,
            "n_colours": found.n_colours,
            "n_segments": found.n_segments,
            "log_likelihood": model.log_likelihood_,
            "converged": bool(model.converged_),
            "n_maps": model.n_maps_,
            "segments": _records(regions[["segment", "name", "pixels", "share", "colour"]]),
            **{what: str(output / name) for what, name in files.items()},
            "output": str(output),
            "report": str(output / "report.html"),
            "model": str(output / "model"),
        }
    return run.facts


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.astype(object)
    return plain.where(plain.notna(), None).to_dict("records")


def opened(picture: Picture) -> Raster:
    """The picture that a job names."""
    source = picture.source
    if isinstance(source, SamplePicture):
        return open_raster(pictures.sample(source.name))
    if isinstance(source, GeneratedPicture):
        return open_raster(pictures.generated(source.height, source.width, source.noise, source.seed)[0])
    return open_raster(source.path, nodata=source.nodata)


def _files(picture: Picture) -> list[str]:
    return [picture.source.path] if isinstance(picture.source, PictureFile) else []


def notes(config: ImageSegmentationConfig, found: Segmentation) -> dict[str, Any]:
    """What a later reader of the model must know: which columns it takes, and what the segments are called."""
    picture = config.pictures[config.picture]
    return {
        "picture": config.picture,
        "colour_space": picture.colour_space,
        "features": list(picture.features),
        "names": list(found.names),
        "smoothing": picture.smoothing,
        "smallest_region": picture.smallest_region,
    }


def _settings(picture: Picture) -> dict[str, Any]:
    settings = picture.model_dump(exclude={"source", "n_segments"})
    sizes = picture.candidates
    return settings | {"n_segments": sizes if len(sizes) > 1 else sizes[0]}

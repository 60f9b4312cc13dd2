"""The page of a segmented picture."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dask_em.config import ImageSegmentationConfig, Picture
from dask_em.images import drawing
from dask_em.images.segmentation import Segmentation
from dask_em.operate.run import Run
from dask_em.report import figures, page
from dask_em.report.provenance import provenance


def write_report(
    run: Run, config: ImageSegmentationConfig, found: Segmentation, regions: pd.DataFrame, files: dict[str, str]
) -> None:
    """Write report.html, and the criterion as a figure where there was a choice."""
    folder, drawn = run.folder, None
    if found.selection is not None:
        drawn = figures.criterion_lines(
            found.selection.table, found.selection.criterion, found.n_segments, of="segments"
        )
        (folder / "figures").mkdir()
        (folder / "figures" / "criterion.svg").write_text(drawn, encoding="utf-8")
    raster = found.raster
    subtitle = f"{config.picture}, {raster.width} x {raster.height} pixels, {found.n_segments} segments"
    sections = _sections(config.pictures[config.picture], found, regions, files, drawn)
    page.write(folder / "report.html", page.render("Segments of a picture", subtitle, [*sections, provenance(run)]))


def _sections(
    picture: Picture, found: Segmentation, regions: pd.DataFrame, files: dict[str, str], drawn: str | None
) -> list[page.Section]:
    model, raster = found.model, found.raster
    sections = [
        page.Section(
            "Segments",
            [
                f"Every pixel in the colour of its segment, over the picture in grey. The map itself is {files['labels']}."
            ],
            figure=drawing.png(found.overlay()),
            table=_table(found, regions),
            formats={"shown as": "swatch", "mean colour": "swatch", "pixels": ",.0f", "share": ".1%"},
            caption="Shares are of the pixels in which something is observed. What rests on too few pixels is left out. regions.csv has the mean of every channel.",
        ),
        page.Section(
            "Where they meet",
            ["The picture, with the borders of its segments drawn in."],
            figure=drawing.png(found.boundaries()),
        ),
    ]
    if drawn is not None and found.selection is not None:
        table = found.selection.table
        column = found.selection.criterion.replace("-", "_")
        sections.append(
            page.Section(
                "How many segments",
                [
                    f"All numbers of segments from {table['n_components'].min()} to {table['n_components'].max()}, {int(table['starts'].sum())} starts in all. "
                    "The criterion takes pixels to be drawn independently, which neighbours are not: in photographs it asks for many segments."
                ],
                figure=drawn,
                table=table[["n_components", "log_likelihood", "n_parameters", column, "outcome", "starts"]],
                formats={"log_likelihood": ",.1f", "bic": ",.1f", "icl": ",.1f", "aic": ",.1f"},
            )
        )
    fit = f"The fit {model.stopped_because_}. Its log-likelihood is {model.log_likelihood_:,.2f} with {model.model_.n_parameters} free parameters."
    sections.append(page.Section("How it was done", [*_how(picture, found), fit, *raster.notes]))
    return sections


def _table(found: Segmentation, regions: pd.DataFrame) -> pd.DataFrame:
    legend = np.array(drawing.hexadecimal(drawing.palette(found.n_segments)))
    return pd.DataFrame(
        {
            "segment": regions["name"],
            "shown as": legend[regions["segment"]],
            "pixels": regions["pixels"],
            "share": regions["share"],
            "mean colour": regions["colour"],
        }
    )


def _how(picture: Picture, found: Segmentation) -> list[str]:
    """What the settings came to, in sentences."""
    columns = ", ".join(found.labeller.view.columns)
    fitted = (
        f"its {found.n_colours:,} distinct colours, each weighted by its pixels, which is the same as to every pixel"
        if found.n_colours is not None
        else "every pixel"
    )
    said = [f"A mixture of {found.n_segments} normals over {columns} was fitted to {fitted}."]
    if picture.seeds:
        said.append(
            f"Seeds, boxes whose pixels are known to be of a segment, were given for: {', '.join(picture.seeds)}."
        )
    if picture.smoothing:
        said.append(f"Neighbouring pixels were made to agree with a strength of {picture.smoothing:g}.")
    if picture.smallest_region > 1:
        said.append(f"Regions of fewer than {picture.smallest_region} pixels joined their surroundings.")
    return said

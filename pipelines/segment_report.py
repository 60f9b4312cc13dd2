"""The figures and the page of a segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dask_em.config import SegmentationConfig
from dask_em.data import columns as col
from dask_em.disclosure import is_small
from dask_em.model import FittedMixture
from dask_em.operate.run import Run
from dask_em.report import figures, page
from dask_em.report.heat_map import segment_heat_map
from dask_em.report.provenance import provenance
from dask_em.search import Selection
from dask_em.segments import SegmentSums

Array = NDArray[np.float64]


def write_report(
    run: Run, config: SegmentationConfig, selection: Selection, segments: Sequence[int], described: SegmentSums
) -> None:
    """Write the figures and report.html into the folder of a run."""
    folder, best = run.folder, selection.best
    drawn = {
        "bic": figures.criterion_lines(selection.table, "bic", best.n_components, of="segments"),
        "segment_profile": segment_heat_map(described.table(segments)),
        "objective": _trace(selection),
    }
    scatter = _scatter(selection, segments, described)
    if scatter is not None:
        drawn["scatter"] = scatter
    (folder / "figures").mkdir()
    for name, svg in drawn.items():
        (folder / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
    title, subtitle, sections = _texts(config, selection, described, segments, drawn)
    page.write(folder / "report.html", page.render(title, subtitle, [*sections, provenance(run)]))


def _texts(
    config: SegmentationConfig,
    selection: Selection,
    described: SegmentSums,
    segments: Sequence[int],
    drawn: dict[str, str],
) -> tuple[str, str, list[page.Section]]:
    best, sizes = selection.best, described.sizes(segments)
    key = config.levels[config.level].key
    rows = int(described.size.sum())
    sections = [
        page.Section(
            "Segments",
            [
                f"{rows:,} rows of the level “{config.level}” fall into {best.n_components} segments, the number with the smallest BIC. "
                f"Every row of the folder segments/ carries its key {key}, its segment, the probability of it, and whether the row is unusual for the "
                "model as a whole.",
                *_left_out(described, segments),
            ],
            table=sizes,
            formats={"rows": ",.0f", "share": ".1%", "outliers": ",.0f"},
        ),
        page.Section(
            "What sets them apart",
            ["Means and shares of each segment, coloured by how far they are from those of all rows."],
            figure=drawn["segment_profile"],
            caption="segment_profile.csv has all levels.",
        ),
    ]
    if "scatter" in drawn:
        sections.append(
            page.Section(
                "Two of the columns",
                [
                    "The two numeric columns that separate the segments most, with the regions that hold 50 % and 95 % of each segment."
                ],
                figure=drawn["scatter"],
            )
        )
    sections += [
        page.Section(
            "How many segments",
            [
                f"All numbers of segments from {selection.table['n_components'].min()} to {selection.table['n_components'].max()}, "
                f"{int(selection.table['starts'].sum())} starts in all, were fitted in the same {best.n_scans_} scans of the table."
            ],
            figure=drawn["bic"],
            table=selection.table[["n_components", "log_likelihood", "n_parameters", "bic", "outcome", "starts"]],
            formats={"log_likelihood": ",.1f", "bic": ",.1f", "aic": ",.1f"},
        ),
        page.Section(
            "The fit",
            [
                f"The chosen fit {best.stopped_because_}. Its log-likelihood is {best.log_likelihood_:,.2f} "
                f"with {best.model_.n_parameters} free parameters.",
                "Missing cells were used as missing: no row was dropped and no cell was filled.",
                *_compression(best.n_distinct_, rows),
            ],
            figure=drawn["objective"],
        ),
    ]
    return "Customer segments", f"level {config.level}, {best.n_components} segments of {rows:,} rows", sections


def _left_out(described: SegmentSums, segments: Sequence[int]) -> list[str]:
    """What is not shown because it could describe a person."""
    fewest = described.smallest
    if not fewest:
        return []
    told = f"What rests on fewer than {fewest} rows is hidden, together with what would give it away."
    small, rare = described.small(segments), described.rare()
    if small:
        names = ", ".join(map(str, small))
        told += f" Of so few rows: {'segment' if len(small) == 1 else 'segments'} {names}. They are persons rather than groups: fit fewer segments before this is acted on."
    if rare:
        told += f" Levels of so few rows are not named here; the model has to know them: {', '.join(f'{n} of {name}' for name, n in rare.items())}."
    return [told]


def _compression(n_distinct: int | None, rows: int) -> list[str]:
    """What was fitted in the place of all rows, and why."""
    if n_distinct is None:
        return []
    return [
        f"It was fitted to the {n_distinct:,} distinct rows, {rows / n_distinct:,.3g} to one, weighted by how often they come: at least four rows are alike on "
        "average, and the result is that of all of them."
    ]


def _trace(selection: Selection) -> str:
    history = selection.best.history_.rename(columns={"iteration": "scan"})
    history = history[(history["stage"] == "all rows") & history["accepted"]]
    own = history[history["n_components"] == selection.best.n_components]
    last = own[own["outcome"].str.startswith(("converged", "stopped"))].groupby("candidate")["objective"].last()
    names = "k=" + history["n_components"].astype(str) + ", start " + history["candidate"].astype(str)
    chosen = names[history["candidate"] == last.idxmax()].iloc[0]
    return figures.objective_trace(
        history.assign(candidate=names), n_rows=selection.best.sum_of_weights_, chosen=chosen
    )


def _scatter(selection: Selection, segments: Sequence[int], described: SegmentSums) -> str | None:
    """The two numeric columns whose means differ most between segments, against the spread inside them."""
    model: FittedMixture = selection.best.model_
    names, means, covariances = numeric_moments(model)
    if len(names) < 2:
        return None
    weights = model.parameters.weights
    within = weights @ np.diagonal(covariances, axis1=1, axis2=2)
    between = weights @ (means - weights @ means) ** 2
    pair = np.sort(np.argsort(-between / within)[:2])
    sample, design = selection.fit.profile.sample, model.schema.design
    points = [col.transformed(col.numeric(sample, names[i]), names[i], design.transform(names[i]))[0] for i in pair]
    order = np.argsort(segments)
    labels = np.argsort(order)[model.score(sample)[0].argmax(axis=1)]
    axis_names = [f"{design.transform(names[i])} {names[i]}" if design.transform(names[i]) else names[i] for i in pair]
    return figures.scatter_ellipses(
        np.stack(points, axis=1),
        labels,
        means[order][:, pair],
        covariances[order][:, pair][:, :, pair],
        [name.replace("_", " ") for name in axis_names],
        smallest=described.smallest,
        hidden=[int(np.argsort(order)[j]) for j in np.flatnonzero(is_small(described.size, described.smallest))],
    )


def numeric_moments(model: FittedMixture) -> tuple[list[str], Array, Array]:
    """Names, means (k, d) and covariances (k, d, d) of the gaussian and count columns of each component."""
    design, k = model.schema.design, model.n_components
    names = [*design.gaussian, *design.poisson]
    means, covariances = np.zeros((k, len(names))), np.zeros((k, len(names), len(names)))
    d = len(design.gaussian)
    if model.means is not None and model.covariances is not None:
        means[:, :d], covariances[:, :d, :d] = model.means, model.covariances
    if model.rates is not None:
        means[:, d:] = model.rates
        covariances[:, range(d, len(names)), range(d, len(names))] = model.rates
    return names, means, covariances

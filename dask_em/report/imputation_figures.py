"""The figures of an imputation, each a function from plain tables to a stand-alone SVG.

Knows pandas and NumPy and nothing of models; how a figure looks is decided in `canvas`. Observed cells are blue and imputed ones vermilion throughout. Cells of single rows
are drawn as pixels, so that the file does not hold anybody's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dask_em.disclosure import SMALLEST, crowds
from dask_em.errors import DataError
from dask_em.imputation.published import FEW
from dask_em.report.canvas import GRID, INK, MUTED, PALETTE, canvas, name_axes, note, to_svg
from dask_em.report.figures import objective_trace
from dask_em.report.panels import (
    dot,
    grid,
    legend,
    name_panel,
    per_cent,
    percent_axis,
    short,
    stroke,
    swatch,
    ticks_in_units,
    to_scale,
)

OBSERVED, IMPUTED = PALETTE[0], PALETTE[3]
MAX_POINTS = 200
MAX_PATTERNS = 20
MAX_PANELS = 12
MAX_LEVELS = 8
MAX_GROUPS = 30

Array = NDArray[np.float64]


def missingness_map(columns: pd.DataFrame, patterns: pd.DataFrame) -> str:
    """Draw which cells are missing together: a row for each column with holes, a column for each pattern, the most frequent first.

    Parameters
    ----------
    columns : pandas.DataFrame
        From `Missingness.table`: column, missing, not_asked, missing_share.
    patterns : pandas.DataFrame
        From `Missingness.patterns`: rows, share, missing, not_asked, n_patterns. At most 20 are drawn.

    Returns
    -------
    str
        A stand-alone SVG.

    Raises
    ------
    DataError
        Nothing is missing.
    """
    # What is hidden is not 0.
    holed = columns[columns["missing"].ne(0).fillna(True) | columns["not_asked"].ne(0).fillna(True)]
    if holed.empty:
        raise DataError("nothing is missing, so there is no map to draw: leave the figure out")
    known = patterns[patterns["missing"].notna()]
    shown = known.head(MAX_PATTERNS)
    place = {name: y for y, name in enumerate(holed["column"])}
    with canvas(7.2, 0.24 * len(holed) + 2.1) as figure:
        top, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1.1, 0.24 * len(holed)])
        top.bar(range(len(shown)), shown["share"], width=0.8, color=MUTED)
        top.yaxis.set_major_formatter(percent_axis())
        top.locator_params(axis="y", nbins=3)
        top.grid(axis="x", visible=False)
        top.tick_params(axis="x", labelbottom=False)
        name_axes(top, "", "share of the rows")
        note(top, _coverage_of_patterns(shown, patterns))
        for x, (missing, unasked) in enumerate(zip(shown["missing"], shown["not_asked"])):
            for name, y in place.items():
                axes.add_patch(_tile(x, y, name in missing, name in unasked))
        for y, share in enumerate(holed["missing_share"]):
            label = "hidden" if np.isnan(share) else per_cent(share)
            axes.text(len(shown) - 0.3, y, label, va="center", color=MUTED, fontsize=8.5)
        # Few patterns are not blown up to the width of the page.
        axes.set_xlim(-0.6, max(len(shown), 10) + 1.2)
        axes.set_ylim(len(holed) - 0.4, -0.6)
        axes.set_yticks(range(len(holed)), [short(name) for name in holed["column"]], color=INK)
        axes.set_xticks([])
        axes.set_xlabel("patterns by frequency; on the right, share missing", labelpad=6)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        looks: dict[str, dict[str, Any]] = {
            "observed": {"color": GRID},
            "missing": {"color": IMPUTED},
            "not asked": _HOLLOW,
        }
        legend(figure, {name: swatch(**look) for name, look in looks.items()})
        return to_svg(figure)


_HOLLOW: dict[str, Any] = {"facecolor": "none", "edgecolor": MUTED, "linewidth": 0.7}


def _tile(x: float, y: float, missing: bool, unasked: bool) -> Any:
    from matplotlib.patches import Rectangle

    look = _HOLLOW if unasked else {"facecolor": IMPUTED if missing else GRID, "edgecolor": "none"}
    return Rectangle((x - 0.4, y - 0.36), 0.8, 0.72, **look)


def _coverage_of_patterns(shown: pd.DataFrame, patterns: pd.DataFrame) -> str:
    if len(shown) == len(patterns):
        return f"all {len(shown)} patterns"
    return f"the {len(shown)} most frequent patterns: {per_cent(shown['share'].sum())} of the rows"


def density_panels(frame: pd.DataFrame) -> str:
    """Draw observed against imputed cells of numbers, a panel for each, as densities on the scale of the model.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `Distributions.frame`: column, low, high, transform, observed, imputed; columns with levels are passed over. At most twelve
        numbers are drawn, those with the most imputed cells; where imputed cells are few, classes are joined.

    Returns
    -------
    str
        A stand-alone SVG.

    Raises
    ------
    DataError
        No number has imputed cells.
    """
    numbers = frame[frame["low"].notna()]
    names = _most_imputed(numbers)
    # An empty remark keeps the plots of a row at the same height.
    plain = " " if numbers["transform"].notna().any() else ""
    with canvas(7.2, 1.75 * -(-len(names) // 3) + 0.45) as figure:
        for axes, name in zip(grid(figure, len(names), 3), names):
            own = numbers[numbers["column"] == name]
            how = own["transform"].dropna().get(own.index[0])
            edges, observed, imputed = _densities(own)
            axes.stairs(observed, edges, fill=True, color=OBSERVED, alpha=0.3, linewidth=0)
            axes.stairs(imputed, edges, color=IMPUTED, linewidth=1.4)
            axes.set_yticks([])
            axes.set_ylim(bottom=0)
            axes.grid(visible=False)
            ticks_in_units(axes.xaxis, edges[0], edges[-1], how, 4)
            name_panel(axes, name, f"{how} scale" if how else plain)
        entries = {"observed cells": swatch(color=OBSERVED, alpha=0.3), "imputed cells": stroke(color=IMPUTED)}
        legend(figure, entries)
        return to_svg(figure)


def _densities(own: pd.DataFrame) -> tuple[Array, Array, Array]:
    """Edges and densities of the classes between the open ones, cut to where there are cells; shares are of all cells, the open classes' included."""
    both = own[["observed", "imputed"]].to_numpy(dtype=float)
    inner = np.isfinite(own["low"].to_numpy()) & np.isfinite(own["high"].to_numpy())
    edges = np.append(own["low"].to_numpy()[inner], own["high"].to_numpy()[inner][-1])
    total = np.maximum(both.sum(axis=0), 1)
    counts = both[inner]
    # About five imputed cells to a class, so that what is seen is the shape and not the noise.
    joined = int(np.clip(np.ceil(len(counts) * 5 / total[1]), 1, max(len(counts) // 8, 1)))
    starts = np.arange(0, len(counts), joined)
    counts, edges = np.add.reduceat(counts, starts), np.append(edges[starts], edges[-1])
    filled = np.flatnonzero(counts.sum(axis=1))
    cut = slice(filled[0], filled[-1] + 1) if len(filled) else slice(None)
    counts, edges = counts[cut], edges[cut.start : None if cut.stop is None else cut.stop + 1]
    density = counts / total / np.diff(edges)[:, None]
    return edges, density[:, 0], density[:, 1]


def level_shares(frame: pd.DataFrame) -> str:
    """Draw the share of each level among observed and among imputed cells of categories.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `Distributions.frame`: column, level, observed, imputed; numbers are passed over. At most twelve columns are drawn, those with the most
        imputed cells, and the eight most frequent levels of each; of two levels only the second.

    Returns
    -------
    str
        A stand-alone SVG.

    Raises
    ------
    DataError
        No category has imputed cells.
    """
    levels = frame[frame["level"].notna()]
    rows: list[tuple[str, bool, float, float]] = []
    # Columns of two levels come first: after the levels of another column they would look like one of these.
    sizes = levels["column"].value_counts()
    for name in sorted(_most_imputed(levels), key=lambda name: sizes[name] != 2):
        own = levels[levels["column"] == name]
        counts = own[["observed", "imputed"]].to_numpy(dtype=float)
        shares = counts / np.maximum(counts.sum(axis=0), 1)
        kept = own.index.isin(own["observed"].nlargest(MAX_LEVELS).index)
        pair = len(own) == 2 and FEW not in own["level"].tolist()
        if pair:
            kept = np.array([False, True])
        else:
            rows.append((short(name), True, np.nan, np.nan))
        for level, observed, imputed in zip(own["level"][kept], *shares[kept].T):
            label = f"{short(name, 24)}: {short(level, 24)}" if pair else short(level)
            rows.append((label, False, observed, imputed))
    with canvas(7.2, 0.25 * len(rows) + 1.0) as figure:
        axes = figure.add_subplot()
        for y, (_, heading, observed, imputed) in enumerate(rows):
            if not heading:
                axes.plot([observed, imputed], [y, y], color=GRID, linewidth=3, zorder=1)
        place = range(len(rows))
        axes.scatter([r[2] for r in rows], place, s=42, color=OBSERVED, zorder=3)
        axes.scatter([r[3] for r in rows], place, s=42, facecolor="none", edgecolor=IMPUTED, linewidth=1.6, zorder=4)
        axes.set_yticks(place, [r[0] for r in rows], color=INK)
        for tick, row in zip(axes.get_yticklabels(), rows):
            tick.set_fontweight("bold" if row[1] else "normal")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.margins(x=0.06)
        axes.xaxis.set_major_formatter(percent_axis())
        axes.grid(axis="y", visible=False)
        name_axes(axes, "share of the cells", "")
        legend(figure, {"observed cells": dot(OBSERVED), "imputed cells": dot(IMPUTED, hollow=True)})
        return to_svg(figure)


def overimputation_scatter(checked: Sequence[Any], smallest: int = SMALLEST) -> str:
    """Draw hidden cells against what the rest of their row says of them, with their intervals.

    Parameters
    ----------
    checked : sequence of OverimputedNumbers
        At most twelve are drawn; the coverage in the titles is that of all cells.
    smallest : int
        A dot is the mean of so many cells that are near each other; with 0 at most 200 single cells of each column are drawn.

    Returns
    -------
    str
        A stand-alone SVG; the cells are embedded pictures.

    Raises
    ------
    DataError
        There is nothing to draw.
    """
    if not checked:
        raise DataError("no number was overimputed, so there is nothing to draw: leave the figure out")
    shown = checked[:MAX_PANELS]
    with canvas(7.2, 2.9 * -(-len(shown) // 2) + 0.45) as figure:
        for axes, own in zip(grid(figure, len(shown), 2), shown):
            x, middle, low, high = _dots(own, smallest)
            colours = np.where((low <= x) & (x <= high), OBSERVED, IMPUTED)
            axes.vlines(x, low, high, colors=colours.tolist(), alpha=0.35, linewidth=0.9, rasterized=True)
            axes.scatter(x, middle, s=7, c=colours.tolist(), linewidths=0, rasterized=True)
            ends = min(x.min(), low.min()), max(x.max(), high.max())
            axes.plot(ends, ends, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            ticks_in_units(axes.xaxis, *ends, own.transform, 5)
            ticks_in_units(axes.yaxis, *ends, own.transform, 5)
            axes.set_xlabel("observed" + (f", {own.transform} scale" if own.transform else ""), labelpad=4)
            inside = f"{per_cent(own.coverage)} of {len(own.cells):,} cells inside their {own.level:.0%} interval"
            name_panel(axes, own.column, inside)
        entries = {"observed value inside its interval": dot(OBSERVED), "outside": dot(IMPUTED)}
        legend(figure, entries | {"where both are equal": stroke(color=INK, linewidth=0.9, linestyle=(0, (4, 3)))})
        return to_svg(figure)


def _dots(own: Any, smallest: int) -> Array:
    """(4, n) observed, expected, low and high on the scale of the model, of single cells or of groups of cells."""
    names = ("observed", "expected", "low", "high")
    cells = np.stack([to_scale(own.cells[name].to_numpy(dtype=float), own.transform) for name in names])
    if smallest < 2:
        return cells[:, :MAX_POINTS]
    return np.stack([cells[:, group].mean(axis=1) for group in crowds(cells[:1].T, smallest)], axis=1)


def convergence_trace(history: pd.DataFrame, n_rows: float = 1.0) -> str:
    """Draw what EM still had to gain at each iteration.

    Parameters
    ----------
    history : pandas.DataFrame
        From `convergence`: iteration and objective; at least three rows.
    n_rows : float, default 1.0
        Divides the objective, so that the axis reads per row.

    Returns
    -------
    str
        A stand-alone SVG.

    Raises
    ------
    DataError
        EM took fewer than two steps, which makes no line.
    """
    if len(history) < 3:
        raise DataError("EM took fewer than two steps, so there is no trace to draw: leave the figure out")
    fit = "the fit to all rows"
    rows = history.rename(columns={"iteration": "scan"}).assign(candidate=fit)
    return objective_trace(rows, n_rows=n_rows, chosen=fit, step="iteration")


def pooled_means(frame: pd.DataFrame) -> str:
    """Draw pooled means of groups with their intervals, beside those of other methods.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns group, estimate, low, high (95 % intervals) and method, as from `GroupSums.pooled`; where it has `column`, a panel for each; where it
        has `truth` (generated data), the true means as black marks. The first method is drawn in blue. At most thirty groups are drawn.

    Returns
    -------
    str
        A stand-alone SVG.

    Raises
    ------
    DataError
        The table is empty.
    """
    if frame.empty:
        raise DataError("there are no means to draw: give at least one group")
    names = list(dict.fromkeys(frame["column"]))[:MAX_PANELS] if "column" in frame else [""]
    groups = list(dict.fromkeys(frame["group"]))[:MAX_GROUPS]
    methods = list(dict.fromkeys(frame["method"]))
    apart = (np.arange(len(methods)) - (len(methods) - 1) / 2) * min(0.26, 0.6 / len(methods))
    colours = [(OBSERVED, IMPUTED, *PALETTE[2:3], *PALETTE[4:])[i % 9] for i in range(len(methods))]
    per_row = min(len(names), 2)
    height = (0.36 * len(groups) + 0.75) * -(-len(names) // per_row) + 0.5
    with canvas(7.2, height) as figure:
        for axes, name in zip(grid(figure, len(names), per_row, sharey=True), names):
            rows = frame[frame["column"] == name] if name else frame
            for method, shift, colour in zip(methods, apart, colours):
                own = rows[rows["method"] == method].set_index("group").reindex(groups)
                y = np.arange(len(groups)) + shift
                axes.hlines(y, own["low"], own["high"], color=colour, linewidth=1.6)
                axes.plot(own["estimate"], y, "o", color=colour, markersize=5)
            if "truth" in frame:
                truth = rows.drop_duplicates("group").set_index("group").reindex(groups)["truth"]
                axes.plot(truth, range(len(groups)), "|", color=INK, markersize=17, markeredgewidth=1.6)
            axes.set_yticks(range(len(groups)), [short(str(g)) for g in groups], color=INK)
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            ticks_in_units(axes.xaxis, *axes.get_xlim(), None, 5)
            name_panel(axes, name or "mean")
        entries = {f"{method}, 95% interval": dot(colour) for method, colour in zip(methods, colours)}
        if "truth" in frame:
            entries["true mean"] = stroke(color=INK, linestyle="none", marker="|", markersize=11, markeredgewidth=1.6)
        legend(figure, entries)
        return to_svg(figure)


def _most_imputed(frame: pd.DataFrame) -> list[str]:
    """Columns in their order, at most twelve, those with the most imputed cells."""
    if frame.empty:
        raise DataError("no such column has imputed cells, so there is nothing to draw: leave the figure out")
    most = frame.groupby("column", sort=False)["imputed"].sum().nlargest(MAX_PANELS).index
    return [name for name in dict.fromkeys(frame["column"]) if name in most]

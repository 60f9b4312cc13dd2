"""The figures of the report, each a function from plain tables to a stand-alone SVG.

Knows pandas and NumPy and nothing of models; how a figure looks is decided in `canvas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dask_em.disclosure import SMALLEST, crowds
from dask_em.report.canvas import MUTED, PALETTE, canvas, name_axes, note, segment_colour, to_svg, whole_numbers
from dask_em.report.heat_map import segment_heat_map

__all__ = ["criterion_lines", "line_steps", "objective_trace", "scatter_ellipses", "segment_heat_map"]

MAX_POINTS = 5_000


CRITERIA = {
    "bic": "BIC, smaller is better",
    "icl": "ICL, smaller is better",
    "aic": "AIC, smaller is better",
    "held-out": "held-out log density per row, larger is better",
}


def criterion_lines(
    table: pd.DataFrame, criterion: str, chosen: int, model: str | None = None, of: str = "components"
) -> str:
    """Draw a criterion by number of components, a line for each covariance model.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `n_components`, that of the criterion, and where known `covariance_type` and `n_parameters`.
    criterion : str
        "bic", "icl", "aic" or "held-out".
    chosen, model : int, str
        The number of components, and the covariance model, to mark.
    of : str
        What components are called.

    Returns
    -------
    str
        A stand-alone SVG.
    """
    column = criterion.replace("-", "_")
    rows = table[np.isfinite(table[column])].sort_values("n_components")
    shapes = rows["covariance_type"] if "covariance_type" in rows else pd.Series(index=rows.index, dtype=object)
    kinds = list(dict.fromkeys(shapes.dropna()))
    with canvas(7.2, 3.6 if len(kinds) < 2 else 4.6) as figure:
        axes = figure.add_subplot()
        ends: list[tuple[float, float, str, str, bool]] = []
        for own, line in rows.groupby(shapes.fillna(""), sort=False):
            marked = model is None or own == model or len(kinds) < 2
            x, y = line["n_components"].to_numpy(dtype=int), line[column].to_numpy(dtype=float)
            colour = PALETTE[0] if marked and len(kinds) > 1 else MUTED
            axes.plot(x, y, color=colour, linewidth=2.0 if marked else 1.0, marker="o", markersize=5 if marked else 3)
            ends.append((float(x[-1]), float(y[-1]), str(own), colour, marked))
            if marked:
                for a, b in zip(x[x == chosen], y[x == chosen], strict=True):
                    axes.plot(a, b, "o", color=PALETTE[0], markersize=10)
                    name = f"chosen: {a}" if len(kinds) < 2 else f"chosen: {own}, {a}"
                    above = (0, 12 if criterion == "held-out" or len(kinds) < 2 else -18)
                    axes.annotate(name, (a, b), above, textcoords="offset points", ha="center", fontweight="bold")
        k = np.unique(rows["n_components"].to_numpy(dtype=int))
        one = len(kinds) < 2
        axes.set_xticks(k, [_tick(*pair) for pair in zip(k, _parameters(rows), strict=True)] if one else k)
        axes.margins(x=0.06, y=0.2)
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_formatter(_thousands())
        below = "  (parameters below)" if one and "n_parameters" in rows else ""
        name_axes(axes, f"number of {of}{below}", CRITERIA[criterion])
        if not one:
            _name_ends(axes, ends)
        return to_svg(figure)


def _name_ends(axes: Any, ends: list[tuple[float, float, str, str, bool]]) -> None:
    """Write names at the ends of lines, pushed apart where they would cover each other."""
    axes.figure.canvas.draw()
    per_point = axes.figure.dpi / 72
    highest: dict[float, float] = {}
    for x, y, name, colour, marked in sorted(ends):
        at = axes.transData.transform((x, y))[1] / per_point
        place = max(at, highest.get(x, -np.inf) + 9.0)
        highest[x] = place
        axes.annotate(
            name, (x, y), (7, place - at), textcoords="offset points", va="center", fontsize=8, color=colour,
            fontweight="bold" if marked else "normal",
        )  # fmt: skip


def scatter_ellipses(
    points: ArrayLike,
    labels: ArrayLike,
    means: ArrayLike,
    covariances: ArrayLike,
    axis_names: Sequence[str],
    *,
    smallest: int = SMALLEST,
    hidden: Sequence[int] = (),
) -> str:
    """Draw customers in two dimensions, with the regions that hold 50 % and 95 % of each segment under the model.

    Parameters
    ----------
    points : array_like of shape (n, 2)
        At most 5,000 rows are drawn, a fixed random choice of more; rows with a missing value are not drawn.
    labels : array_like of shape (n,)
        The segment of each point, 0 to k-1.
    means, covariances : array_like of shape (k, 2) and (k, 2, 2)
        Of the segments, in the units of the points.
    axis_names : sequence of two str
    smallest : int
        A dot is the mean of so many rows of a segment that are near each other; 0 draws every row.
    hidden : sequence of int
        Segments that are not drawn at all, because they are persons rather than groups.

    Returns
    -------
    str
        A stand-alone SVG; the points are one embedded picture, which keeps the file small.
    """
    xy, segment = _sample(np.asarray(points, dtype=float), np.asarray(labels, dtype=int))
    xy, segment = _crowds(xy, segment, smallest, hidden)
    with canvas(7.2, 5.4) as figure:
        axes = figure.add_subplot()
        colours = [segment_colour(s) for s in segment]
        size, alpha = (7, 0.4) if smallest < 2 else (16, 0.7)
        axes.scatter(xy[:, 0], xy[:, 1], s=size, c=colours, alpha=alpha, linewidths=0, rasterized=True)
        centres = np.asarray(means, dtype=float)
        shown = [s for s in range(len(centres)) if s not in hidden]
        for s in shown:
            mean, covariance = centres[s], np.asarray(covariances, dtype=float)[s]
            for probability, style in ((0.5, "-"), (0.95, (0, (4, 3)))):
                outline = _ellipse(mean, covariance, probability)
                axes.plot(outline[0], outline[1], color=segment_colour(s), linewidth=1.5, linestyle=style)
        for s in shown:
            x, y = centres[s]
            badge = {
                "boxstyle": "circle,pad=0.25",
                "facecolor": segment_colour(s),
                "edgecolor": "white",
                "linewidth": 1,
            }
            axes.text(x, y, str(s), color="white", ha="center", va="center", fontweight="bold", bbox=badge)
        name_axes(axes, axis_names[0], axis_names[1])
        dots = "" if smallest < 2 else f"dot: mean of {smallest} rows or more  ·  "
        note(axes, f"{dots}solid line: half of a segment  ·  dashed line: 95 % of it")
        return to_svg(figure)


def objective_trace(
    history: pd.DataFrame, *, n_rows: float = 1.0, chosen: Any = None, step: str = "scan of the table"
) -> str:
    """Draw what each candidate still had to gain at each scan: its best objective less the objective, on a log scale.

    Parameters
    ----------
    history : pandas.DataFrame
        Columns `scan`, `candidate` and `objective`.
    n_rows : float, default 1.0
        Divides the objective, so that the axis reads per row.
    chosen : candidate, optional
        Drawn in colour over the others; by default the candidate with the largest objective.
    step : str, default "scan of the table"
        What the column `scan` counts.

    Returns
    -------
    str
        A stand-alone SVG.
    """
    chosen = history["candidate"].iloc[int(history["objective"].argmax())] if chosen is None else chosen
    # Differences below this are rounding, and would stretch a log scale over nothing.
    floor = 1e-14 * history["objective"].abs().max() / n_rows
    with canvas(7.2, 3.6) as figure:
        axes = figure.add_subplot()
        for name, rows in history.groupby("candidate", sort=False):
            ordered = rows.sort_values("scan")
            gap = (ordered["objective"].max() - ordered["objective"]).to_numpy(dtype=float) / n_rows
            drawn = gap > floor
            mine = name == chosen
            axes.plot(
                ordered["scan"].to_numpy()[drawn],
                gap[drawn],
                color=PALETTE[0] if mine else MUTED,
                alpha=1.0 if mine else 0.45,
                linewidth=2.0 if mine else 0.9,
                zorder=3 if mine else 2,
                marker="o" if drawn.sum() == 1 else None,
                markersize=3,
            )
        axes.set_yscale("log")
        whole_numbers(axes.xaxis)
        axes.yaxis.set_major_formatter(_powers())
        axes.grid(which="minor", visible=False)
        name_axes(axes, step, "objective still to gain per row, log scale")
        others = history["candidate"].nunique() - 1
        note(axes, f"blue: {chosen}" + (f"  ·  grey: the {others} other candidates" if others else ""))
        return to_svg(figure)


def line_steps(values: ArrayLike, limit: float, label: str) -> str:
    """Draw an estimate by iteration against its limit.

    Parameters
    ----------
    values : array_like of shape (n,)
        The estimate, the starting value first.
    limit : float
    label : str
        What is estimated.

    Returns
    -------
    str
        A stand-alone SVG.
    """
    estimate = np.asarray(values, dtype=float)
    with canvas(7.2, 3.2) as figure:
        axes = figure.add_subplot()
        axes.axhline(limit, color=PALETTE[3], linewidth=1.2, linestyle=(0, (5, 3)))
        axes.plot(estimate, color=PALETTE[0], linewidth=1.6, marker="o", markersize=5)
        below = estimate[-1] <= limit and estimate[0] <= limit
        axes.annotate(
            f"limit {limit:.6g}",
            (1.0, limit),
            (0, 6 if below else -6),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="bottom" if below else "top",
            color=PALETTE[3],
        )
        axes.margins(x=0.03, y=0.18)
        whole_numbers(axes.xaxis)
        axes.grid(axis="x", visible=False)
        name_axes(axes, "iteration", label)
        return to_svg(figure)


def _tick(k: int, n_parameters: float | None) -> str:
    return f"{k}" if n_parameters is None else f"{k}\n{n_parameters:,.0f}"


def _parameters(rows: pd.DataFrame) -> list[float | None]:
    return list(rows["n_parameters"]) if "n_parameters" in rows else [None] * len(rows)


def _thousands() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−"))


def _powers() -> Any:
    from matplotlib.ticker import FuncFormatter

    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def name(value: float, _: Any) -> str:
        return f"{value:g}" if 1e-3 < value < 1e4 else "10" + f"{np.log10(value):.0f}".translate(raised)

    return FuncFormatter(name)


def _sample(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(seen) > MAX_POINTS:
        seen = np.random.default_rng(0).choice(seen, MAX_POINTS, replace=False)
    return points[seen], labels[seen]


def _crowds(
    points: np.ndarray, labels: np.ndarray, smallest: int, hidden: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The means of groups of rows of a segment, and their segments."""
    groups = [
        of_segment[own]
        for s in np.unique(labels)
        if s not in hidden
        for of_segment in (np.flatnonzero(labels == s),)
        for own in crowds(points[of_segment], smallest)
    ]
    middle = [points[own].mean(axis=0) for own in groups]
    return np.reshape(middle, (-1, 2)), np.array([labels[own[0]] for own in groups], dtype=int)


def _ellipse(mean: np.ndarray, covariance: np.ndarray, probability: float) -> np.ndarray:
    """Outline of {x : (x - mean)' covariance^-1 (x - mean) = q}, q the quantile of chi-square with 2 degrees of freedom."""
    values, vectors = np.linalg.eigh(covariance)
    radius = np.sqrt(-2 * np.log1p(-probability))
    angle = np.linspace(0, 2 * np.pi, 121)
    circle = np.vstack([np.cos(angle), np.sin(angle)])
    return mean[:, None] + radius * (vectors * np.sqrt(np.maximum(values, 0))) @ circle

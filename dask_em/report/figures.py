"""The figures of the report, each a function from plain tables to a stand-alone SVG.

Knows pandas and NumPy and nothing of models; how a figure looks is decided in `canvas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dask_em.report.canvas import MUTED, PALETTE, canvas, name_axes, note, segment_colour, to_svg, whole_numbers
from dask_em.report.heat_map import segment_heat_map

__all__ = ["criterion_curve", "line_steps", "objective_trace", "scatter_ellipses", "segment_heat_map"]

MAX_POINTS = 5_000


def criterion_curve(table: pd.DataFrame, chosen: int) -> str:
    """Draw BIC by number of segments.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `n_components` and `bic` (smaller is better), and `n_parameters` where known.
    chosen : int
        The number of segments to mark.

    Returns
    -------
    str
        A stand-alone SVG.
    """
    rows = table.dropna(subset=["bic"]).sort_values("n_components")
    k = rows["n_components"].to_numpy(dtype=int)
    bic = rows["bic"].to_numpy(dtype=float)
    with canvas(7.2, 3.6) as figure:
        axes = figure.add_subplot()
        axes.plot(k, bic, color=MUTED, linewidth=1.4, marker="o", markersize=5, markerfacecolor=MUTED)
        at = k == chosen
        axes.plot(k[at], bic[at], "o", color=PALETTE[0], markersize=10)
        for x, y in zip(k[at], bic[at], strict=True):
            axes.annotate(f"chosen: {x}", (x, y), (0, 12), textcoords="offset points", ha="center", fontweight="bold")
        axes.set_xticks(k, [_tick(*pair) for pair in zip(k, _parameters(rows), strict=True)])
        axes.margins(x=0.06, y=0.2)
        axes.grid(axis="x", visible=False)
        axes.yaxis.set_major_formatter(_thousands())
        name_axes(
            axes,
            "number of segments" + ("  (parameters below)" if "n_parameters" in rows else ""),
            "BIC, smaller is better",
        )
        return to_svg(figure)


def scatter_ellipses(
    points: ArrayLike, labels: ArrayLike, means: ArrayLike, covariances: ArrayLike, axis_names: Sequence[str]
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

    Returns
    -------
    str
        A stand-alone SVG; the points are one embedded picture, which keeps the file small.
    """
    xy, segment = _sample(np.asarray(points, dtype=float), np.asarray(labels, dtype=int))
    with canvas(7.2, 5.4) as figure:
        axes = figure.add_subplot()
        colours = [segment_colour(s) for s in segment]
        axes.scatter(xy[:, 0], xy[:, 1], s=7, c=colours, alpha=0.4, linewidths=0, rasterized=True)
        centres = np.asarray(means, dtype=float)
        for s, (mean, covariance) in enumerate(zip(centres, np.asarray(covariances, dtype=float), strict=True)):
            for probability, style in ((0.5, "-"), (0.95, (0, (4, 3)))):
                outline = _ellipse(mean, covariance, probability)
                axes.plot(outline[0], outline[1], color=segment_colour(s), linewidth=1.5, linestyle=style)
        for s, (x, y) in enumerate(centres):
            badge = {
                "boxstyle": "circle,pad=0.25",
                "facecolor": segment_colour(s),
                "edgecolor": "white",
                "linewidth": 1,
            }
            axes.text(x, y, str(s), color="white", ha="center", va="center", fontweight="bold", bbox=badge)
        name_axes(axes, axis_names[0], axis_names[1])
        note(axes, "solid line: half of a segment  ·  dashed line: 95 % of it")
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


def _ellipse(mean: np.ndarray, covariance: np.ndarray, probability: float) -> np.ndarray:
    """Outline of {x : (x - mean)' covariance^-1 (x - mean) = q}, q the quantile of chi-square with 2 degrees of freedom."""
    values, vectors = np.linalg.eigh(covariance)
    radius = np.sqrt(-2 * np.log1p(-probability))
    angle = np.linspace(0, 2 * np.pi, 121)
    circle = np.vstack([np.cos(angle), np.sin(angle)])
    return mean[:, None] + radius * (vectors * np.sqrt(np.maximum(values, 0))) @ circle

"""The picture of a segmentation: what sets each segment apart, cell by cell.

Colour says how far a segment is from everybody (z for numbers, log2 of the lift for shares); the text in the cell says it
in the user's units. The input is the tidy table of `dask_em.segments`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dask_em.errors import DataError
from dask_em.report.canvas import GRID, INK, MUTED, canvas, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lift 3 or a third, or one and a half standard deviations, is full colour: more would only wash out the rest.
_FULL = 1.5
_LOW, _SAME, _HIGH = "#2f79b5", "#f4f4f2", "#cf5f28"
_HIDDEN = "#e4e6eb"
_ON_LIGHT, _ON_DARK = "#1c1c1e", "#ffffff"
_WORDS = {"yes", "true", "1"}
# An em space, because a browser would drop ordinary spaces at the start of a text.
_INDENT = "\u2003"
_ROW, _WIDTH = 0.27, 7.2


@dataclass(frozen=True)
class _Row:
    label: str
    heading: bool
    deviation: np.ndarray
    texts: tuple[str, ...]


def segment_heat_map(profile: pd.DataFrame, *, max_levels: int = 3) -> str:
    """Draw the profile of the segments: a row per feature or level, a column per segment.

    Parameters
    ----------
    profile : pandas.DataFrame
        From `dask_em.segments.segment_profile` or `SegmentSums.table`.
    max_levels : int, default 3
        Levels drawn of each category: those whose share differs most between segments. Of a yes-or-no column only the "yes"
        is drawn, since the "no" says the same.

    Returns
    -------
    str
        A stand-alone SVG.

    Raises
    ------
    DataError
        The profile is empty.
    """
    if profile.empty:
        raise DataError("the profile has no columns to draw: give a table with at least one number or category")
    sizes = profile.drop_duplicates("segment").set_index("segment")["size"].sort_index()
    rows = [
        row for _, column in profile.groupby("column", sort=False) for row in _rows(column, sizes.index, max_levels)
    ]
    with canvas(_WIDTH, _ROW * len(rows) + 1.25) as figure:
        axes = figure.add_subplot()
        _paint(axes, rows, len(sizes))
        _name_columns(axes, sizes)
        _legend(axes, len(sizes))
        return to_svg(figure)


def _rows(column: pd.DataFrame, segments: pd.Index, max_levels: int) -> list[_Row]:
    name = str(column["column"].iloc[0])
    if column["level"].isna().all():
        cells = column.set_index("segment").reindex(segments)
        return [
            _Row(_short(name), False, cells["z"].to_numpy(dtype=float), _numbers(cells["mean"].to_numpy(dtype=float)))
        ]
    shares = column.pivot(index="level", columns="segment", values="share").reindex(columns=segments).astype(float)
    lifts = column.pivot(index="level", columns="segment", values="lift").reindex(columns=segments).astype(float)
    kept = _telling(shares, max_levels)
    rows = [_Row(_short(name), True, np.full(len(segments), np.nan), ())] if len(kept) > 1 else []
    for level in kept:
        label = f"{_INDENT}{_short(str(level))}" if rows else f"{_short(name)}: {_short(str(level))}"
        with np.errstate(divide="ignore"):
            deviation = np.log2(lifts.loc[level].to_numpy(dtype=float))
        rows.append(_Row(label, False, deviation, tuple(_share(value) for value in shares.loc[level])))
    return rows


def _telling(shares: pd.DataFrame, max_levels: int) -> list[Any]:
    """The levels that differ most between the segments, in their own order."""
    if len(shares) == 2:
        words = [level for level in shares.index if str(level).lower() in _WORDS]
        return words or [shares.mean(axis=1).fillna(0).idxmin()]
    spread = (shares.max(axis=1) - shares.min(axis=1)).fillna(0)
    kept = set(spread.nlargest(max_levels).index)
    return [level for level in shares.index if level in kept]


def _paint(axes: Axes, rows: list[_Row], n_segments: int) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    palette = LinearSegmentedColormap.from_list("lift", [_LOW, _SAME, _HIGH])
    for y, row in enumerate(rows):
        if row.heading:
            continue
        for x, (deviation, text) in enumerate(zip(row.deviation, row.texts, strict=True)):
            hidden = np.isnan(deviation) and not text
            level = 0.0 if np.isnan(deviation) else float(np.clip(deviation / _FULL, -1, 1))
            colour = _HIDDEN if hidden else palette((level + 1) / 2)
            axes.add_patch(_cell(x, y, colour))
            ink = MUTED if hidden else _ON_DARK if abs(level) > 0.8 else _ON_LIGHT
            axes.text(x, y, "hidden" if hidden else text, color=ink, ha="center", va="center", fontsize=8.5)
    axes.set_xlim(-0.5, n_segments - 0.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_horizontalalignment("left")
        tick.set_verticalalignment("center")
        tick.set_color(INK)
        tick.set_fontweight("bold" if row.heading else "normal")
    axes.tick_params(axis="y", pad=_label_width(rows))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def _cell(x: float, y: float, colour: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, facecolor=colour, edgecolor="none")


def _label_width(rows: list[_Row]) -> float:
    """Width in points that the row labels need, since left-aligned tick labels hang into the drawing otherwise."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    def width(row: _Row) -> float:
        weight = "bold" if row.heading else "normal"
        font = FontProperties(family="DejaVu Sans", weight=weight)
        # A trailing bar, because the extent of a path ends where the ink ends.
        return float(TextPath((0, 0), row.label + "|", size=9.5, prop=font).get_extents().x1)

    return max(width(row) for row in rows) + 6


def _name_columns(axes: Axes, sizes: pd.Series) -> None:
    total = sizes.sum(skipna=False)
    names = [f"{name}\n{_size(size)}\n{_share(size / total)}" for name, size in sizes.items()]
    axes.set_xticks(range(len(sizes)), names)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", labelcolor=INK, pad=4)


def _legend(axes: Axes, n_segments: int) -> None:
    """Three swatches under the cells: less, the same, more."""
    from matplotlib.patches import Patch

    swatches = [Patch(color=_LOW), Patch(facecolor=_SAME, edgecolor=GRID), Patch(color=_HIGH)]
    names = ["lower than all", "same as all", "higher than all"]
    axes.figure.legend(swatches, names, loc="outside lower right", ncols=3, fontsize=8.5, labelcolor=MUTED)


def _numbers(values: np.ndarray) -> tuple[str, ...]:
    """The means of one row with the same decimals: three digits for the largest of them."""
    largest = np.nanmax(np.abs(values), initial=0.0)
    decimals = int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest > 0 else 0
    return tuple("" if np.isnan(value) else f"{value:,.{decimals}f}".replace("-", "−") for value in values)


def _size(value: float) -> str:
    return "hidden" if np.isnan(value) else f"{value:,.0f}"


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.0%}"


def _short(text: str, length: int = 28) -> str:
    """One line of bounded length: the cells need the room more than a long name does."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"

"""Small multiples: a grid of panels, ticks in the table's units on a transformed scale, and one legend below them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.columns import undo
from dask_em.report.canvas import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_FORWARD = {"log": np.log, "log1p": np.log1p, "asinh": np.arcsinh}


def grid(figure: Figure, n: int, per_row: int, **options: Any) -> list[Axes]:
    """n panels in rows of `per_row`; what is left of the last row stays empty."""
    every = np.asarray(figure.subplots(-(-n // per_row), min(n, per_row), squeeze=False, **options)).ravel().tolist()
    for axes in every[n:]:
        axes.set_visible(False)
    return every[:n]


def name_panel(axes: Axes, name: str, remark: str = "") -> None:
    """The name above the left end of a panel, and a remark in a lighter ink above the plot."""
    axes.set_title(short(name), loc="left", fontsize=9.5, fontweight="bold", color=INK, pad=18 if remark else 6)
    if remark:
        axes.annotate(
            remark, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", color=MUTED, fontsize=8.5
        )


def legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """One line below the panels: artists by what they mean."""
    figure.legend(list(entries.values()), list(entries), loc="outside lower left", ncols=len(entries), labelcolor=MUTED)


def swatch(**look: Any) -> Any:
    from matplotlib.patches import Patch

    return Patch(**look)


def dot(colour: str, hollow: bool = False) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], linestyle="none", marker="o", markersize=6.5, color=colour, markerfacecolor="none" if hollow else colour
    )


def stroke(**look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def to_scale(values: Array, how: str | None) -> Array:
    """Values on a transformed scale; what has no place there goes to the lower end of the others."""
    if how is None:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        out = _FORWARD[how](values)
    finite = np.isfinite(out)
    return np.where(finite, out, out[finite].min() if finite.any() else 0.0)


def ticks_in_units(axis: Axis, low: float, high: float, how: str | None, most: int) -> None:
    """At most `most` ticks between two places of a scale, named in the table's units."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator

    if how is None:
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
        return
    ends = undo(np.array([low, high]), how)
    values = np.array(_round_numbers(float(ends[0]), float(ends[1]), most))
    axis.set_major_locator(FixedLocator(to_scale(values, how).tolist()))
    axis.set_major_formatter(FixedFormatter([compact(value) for value in values]))


def _round_numbers(low: float, high: float, most: int) -> list[float]:
    """The densest of some ladders of round numbers of which at most `most` lie between two values."""
    powers = [10.0**k for k in range(-6, 16)]
    steps: list[list[float]] = [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]]
    ladders = [[step * power for power in powers for step in own] for own in steps]
    for ladder in [*ladders, powers[::2], powers[1::2], powers[::3]]:
        own = [v for v in (*(-x for x in reversed(ladder)), 0.0, *ladder) if low <= v <= high]
        # Powers far below the others crowd around zero.
        own = [v for v in own if v == 0.0 or abs(v) >= 0.02 * max(abs(low), abs(high)) or low > 0]
        if len(own) <= most:
            return own
    return own[:: -(-len(own) // most)]


def compact(value: float) -> str:
    """A number in few characters: 12,500 is 12.5k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * unit or (unit > 1e3 and abs(value) >= unit):
            return f"{value / unit:,.4g}{name}".replace("-", "−")
    return f"{value:,.6g}".replace("-", "−")


def per_cent(value: float) -> str:
    """A share in per cent, with a decimal where it is small."""
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"


def percent_axis() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.4g}%")


def short(text: str, length: int = 28) -> str:
    """One line of bounded length."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"

"""The sheet that every figure is drawn on: colours, type, grid, and the way to SVG.

matplotlib is imported when a figure is drawn, and its global state is left as it was: settings hold inside one `with` block.
Ids are salted and no date is written, so the same drawing gives the same bytes. Text stays text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dask_em.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, safe for colour-blind readers, then darker shades; a segment keeps its colour by its number.
PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
    "#8c6d1f",
    "#7a5195",
    "#4d4d4d",
    "#88ccaa",
)
INK, MUTED, GRID = "#1f2430", "#667085", "#d9dde5"
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "dask-em",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


# Controls, which XML does not know, and marks that turn the direction of the text after them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with an escape in the place of every character that hides, or that changes how others are read."""
    return _UNSEEN.sub(lambda own: f"\\u{ord(own.group()):04x}", text)


def segment_colour(segment: int) -> str:
    """The colour of a segment, the same in every figure."""
    return PALETTE[int(segment) % len(PALETTE)]


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A figure of its own, outside pyplot, so that nothing is left open and no window system is asked for."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "figures need the package matplotlib: install the extra report, pip install 'dask-em[report]'"
        ) from error
    with mpl.rc_context(), warnings.catch_warnings():
        # The browser has the letters that this font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        # Start from the library's defaults: a reader's own matplotlibrc must not change the report.
        mpl.rcdefaults()
        for name, value in SETTINGS.items():
            mpl.rcParams[name] = value  # type: ignore[index]
        figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
        figure.patch.set_alpha(0)
        FigureCanvasAgg(figure)
        yield figure
        figure.clear()


def to_svg(figure: Figure) -> str:
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return visible(text[text.index("<svg") :].strip()) + "\n"


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only: there is no scan two and a half."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Axis names, the vertical one laid flat above its axis: nobody reads sideways."""
    axes.set_xlabel(x, labelpad=8)
    axes.set_title(y, loc="left", fontsize=9.5, color=MUTED, pad=10)


def note(axes: Axes, text: str) -> None:
    axes.annotate(
        text, (1.0, 1.0), (0, 10), xycoords="axes fraction", textcoords="offset points", ha="right", color=MUTED
    )

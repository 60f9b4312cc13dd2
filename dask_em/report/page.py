"""The report as one HTML file: text, figures and tables, and nothing that is fetched or run.

Everything a caller gives is escaped, figures excepted: those are PNG, or SVG from `figures`, whose text matplotlib has escaped. The page's
policy forbids scripts and outside resources in any case. Figures take their ink from the page, so they follow light and dark.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from dask_em.errors import ConfigurationError, OutputError
from dask_em.report.canvas import GRID, INK, MUTED, visible

_INKS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Parameters
    ----------
    heading : str
    paragraphs : sequence of str
    figure : str or bytes, optional
        An SVG from `dask_em.report.figures`, or a PNG.
    table : pandas.DataFrame, optional
        Shown without its index.
    formats : mapping from a column to a format specification, optional
        For instance `{"spend": ",.0f", "share": ".1%"}`; a number without one has four significant digits. "swatch" shows a colour, given as #rrggbb.
    caption : str, optional
        Stands below figure and table.
    """

    heading: str
    paragraphs: Sequence[str] = ()
    figure: str | bytes | None = None
    table: pd.DataFrame | None = None
    formats: Mapping[str, str] = field(default_factory=dict)
    caption: str | None = None


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    title, subtitle : str
    sections : sequence of Section

    Returns
    -------
    str
        The same bytes for the same input.

    Raises
    ------
    ConfigurationError
        jinja2 is not installed, or a figure is neither SVG nor PNG.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ConfigurationError(
            "the report needs the package jinja2: install the extra report, pip install 'dask-em[report]'"
        ) from error
    source = files("dask_em.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    parts = [_section(section) for section in sections]
    return environment.from_string(source).render(title=title, subtitle=subtitle, sections=parts)


def write(path: str | os.PathLike[str], html: str) -> None:
    """Write the page in one step: a reader sees the old file or the new one, never half of it.

    Raises
    ------
    OutputError
        The folder is missing or cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(html, encoding="utf-8", newline="\n")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"report {target} cannot be written ({error.strerror}): choose another folder") from error


def _shown(value: Any) -> Any:
    """Text as everybody sees it; what has been made HTML here is left."""
    return visible(value) if type(value) is str else value


def _section(section: Section) -> dict[str, Any]:
    table = pd.DataFrame() if section.table is None else section.table
    columns = [table.iloc[:, j] for j in range(table.shape[1])]
    cells = [[_cell(value, section.formats.get(str(column.name))) for value in column] for column in columns]
    return {
        "heading": section.heading,
        "paragraphs": tuple(section.paragraphs),
        "drawing": None if section.figure is None else _inline(section.figure, section.heading),
        "columns": [{"name": str(column.name), "number": _is_number(column)} for column in columns],
        "rows": list(zip(*cells, strict=True)),
        "caption": section.caption,
    }


def _inline(svg: str | bytes, heading: str) -> Any:
    """The figure as part of an HTML page: no namespaces, no fixed size, the page's inks."""
    from markupsafe import Markup

    if isinstance(svg, bytes) and svg.startswith(b"\x89PNG"):
        return Markup('<img alt="" src="data:image/png;base64,{}">').format(base64.b64encode(svg).decode())
    if isinstance(svg, bytes) or not svg.startswith("<svg"):
        raise ConfigurationError(
            f"the figure of section {heading!r} is not an SVG or PNG: give one from dask_em.report.figures"
        )
    opening, body = svg.split(">", 1)
    opening = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"', "", opening)
    styled = re.sub(r'style="[^"]*"', lambda style: _page_inks(style.group()), body)
    return Markup(f"{opening}>{styled}")


def _page_inks(style: str) -> str:
    for ink, variable in _INKS.items():
        style = style.replace(ink, variable)
    return style


def _swatch(colour: str) -> Any:
    """A colour to look at, and its name."""
    from markupsafe import Markup

    if not re.fullmatch("#[0-9a-f]{6}", colour):
        raise ConfigurationError("a swatch is not a colour: give #rrggbb")
    return Markup('<span class="swatch" style="background:{0}"></span>{0}').format(colour)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)


def _cell(value: Any, specification: str | None) -> str:
    if pd.isna(value):
        return "–"
    if specification == "swatch":
        return _swatch(str(value))
    if specification is not None:
        text = format(value, specification)
    elif isinstance(value, float):
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    else:
        return str(value)
    return text.replace("-", "−")

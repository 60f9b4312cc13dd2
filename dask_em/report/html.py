"""The summary of a fitted model as a piece of HTML, for notebooks.

It stands in somebody else's page, light or dark: ink is inherited, lines and tints are translucent, and every rule is bound to one class. Nothing is fetched or
run, and whatever comes from the table is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escaped
from itertools import groupby
from typing import Any

from dask_em.inference.record import StandardErrors
from dask_em.report.canvas import visible
from dask_em.report.text import Row, Summary, number, summarise

MOST_ROWS = 300
"""Rows of a table that a notebook is given; more would be megabytes in every saved copy of it."""

STYLE = """
.dask-em { color: inherit; font-size: 13px; line-height: 1.45; max-width: 70rem; font-variant-numeric: tabular-nums; }
.dask-em h4 { font-size: 15px; font-weight: 600; margin: .2em 0 .5em; }
.dask-em dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1.2em; margin: 0 0 .8em; }
.dask-em dt { opacity: .65; font-weight: 400; }
.dask-em dd { margin: 0; overflow-wrap: anywhere; }
.dask-em ul { list-style: none; margin: 0 0 .8em; padding: .45em .9em; border-left: 4px solid #e69f00; background: rgba(230, 159, 0, .13); }
.dask-em li { margin: .2em 0; }
.dask-em .scroll { overflow: auto; max-height: 48em; margin: 0 0 .6em; }
.dask-em table { border-collapse: collapse; color: inherit; background: transparent; font-size: 12.5px; margin: 0; }
.dask-em tr, .dask-em tr:nth-child(even), .dask-em th, .dask-em td { background: transparent; }
.dask-em th, .dask-em td { border: 0; padding: .2em .9em .2em 0; text-align: left; vertical-align: top; font-weight: 400; color: inherit; white-space: nowrap; }
.dask-em thead th { font-weight: 600; border-bottom: 2px solid rgba(128, 128, 128, .45); }
.dask-em tbody tr:first-child > * { border-top: 1px solid rgba(128, 128, 128, .25); }
.dask-em .number { text-align: right; padding-left: .9em; }
.dask-em tbody th { font-weight: 600; white-space: normal; overflow-wrap: anywhere; max-width: 22em; }
.dask-em .what, .dask-em small { opacity: .65; }
.dask-em small { display: block; font-size: 11px; }
.dask-em summary { cursor: pointer; }
"""


def escape(text: str) -> str:
    """Text that is nothing but text in HTML."""
    return escaped(visible(text))


def html_of(estimator: Any, errors: StandardErrors | None = None) -> str:
    """The summary of a fitted estimator as HTML; arguments as those of `summarise`."""
    own = summarise(estimator, errors)
    parts = [f"<style>{STYLE}</style>", f"<h4>{escape(own.title)}</h4>", _facts(own)]
    if own.warnings:
        parts.append("<ul>" + "".join(f"<li>{escape(w)}</li>" for w in own.warnings) + "</ul>")
    parts.append(_table(own, own.rows))
    if own.covariances:
        parts.append(f"<details><summary>covariances</summary>{_table(own, own.covariances)}</details>")
    return f'<div class="dask-em">{"".join(parts)}</div>'


def bundle_of(estimator: Any) -> dict[str, str]:
    """What a notebook asks of a fitted estimator: text, and HTML unless scikit-learn's setting `display` is "text".

    scikit-learn's own picture of a fitted estimator is not even drawn, for it works out every attribute.
    """
    from sklearn import get_config

    html = {"text/html": estimator._repr_html_inner()} if get_config()["display"] == "diagram" else {}
    return {"text/plain": repr(estimator), **html}


def _facts(summary: Summary) -> str:
    return "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in summary.facts) + "</dl>"


def _table(summary: Summary, rows: Sequence[Row]) -> str:
    """A body for each column of the table, whose name is said once."""
    head = "".join(f'<th scope="col" class="number">{escape(name)}</th>' for name in summary.components)
    bodies = []
    for column, group in groupby(rows[:MOST_ROWS], lambda row: row.column):
        own = list(group)
        name = f'<th scope="rowgroup" rowspan="{len(own)}">{escape(column)}</th>'
        lines = [f'<td class="what">{escape(row.what)}</td>{_cells(row)}' for row in own]
        lines[0] = name + lines[0]
        bodies.append("<tbody>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</tbody>")
    table = f"<table><thead><tr><th></th><th></th>{head}</tr></thead>{''.join(bodies)}</table>"
    left = len(rows) - MOST_ROWS
    more = f"<small>{left:,} more rows are in the text that summary() gives</small>" if left > 0 else ""
    return f'<div class="scroll" tabindex="0">{table}</div>{more}'


def _cells(row: Row) -> str:
    out = []
    for c, value in enumerate(row.values):
        ends = ""
        if row.low is not None and row.high is not None and row.high[c] > row.low[c]:
            ends = f"<small>{_signed(row.low[c])} to {_signed(row.high[c])}</small>"
        out.append(f'<td class="number">{_signed(value)}{ends}</td>')
    return "".join(out)


def _signed(value: float) -> str:
    """With the sign that belongs to numbers."""
    text = number(value)
    return f"\u2212{text[1:]}" if text.startswith("-") else text

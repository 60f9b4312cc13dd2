"""The page of an imputation: what was missing, what was filled, how well that can be trusted, and the proof that nothing else changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dask_em.data.schema import Design
from dask_em.disclosure import SMALLEST
from dask_em.imputation import published
from dask_em.imputation.diagnostics import Diagnosis
from dask_em.imputation.model import ImputationModel
from dask_em.imputation.overimputation import OverimputedLevels, OverimputedNumbers
from dask_em.imputation.writing import Integrity
from dask_em.report import imputation_figures as figures
from dask_em.report import page
from dask_em.report.panels import per_cent

PATTERNS_LISTED = 10


@dataclass(frozen=True)
class ImputationFindings:
    """Everything a page is made of.

    Parameters
    ----------
    title, subtitle : what was imputed
    imputation : the fitted model
    diagnosis : from `diagnose`
    integrity : from `write_pieces`, what was compared
    overimputed : from `overimpute`, for any columns
    history : from `convergence`
    converged : whether the fit and its replicates met the stopping rule
    pooled : means by group: columns group, method, estimate, low, high, and where there are such, column, rows, fraction_missing_information and
        truth; see `figures.pooled_means`
    left_alone : pairs (column, why it was neither modelled nor filled)
    notes : further sentences for the reader
    smallest : fewest rows that a number rests on; what rests on fewer is left out, and what would give it away. 0 shows everything
    """

    title: str
    imputation: ImputationModel
    diagnosis: Diagnosis
    integrity: Integrity
    subtitle: str = ""
    overimputed: Sequence[OverimputedNumbers | OverimputedLevels] = ()
    history: pd.DataFrame | None = None
    converged: bool = True
    pooled: pd.DataFrame | None = None
    left_alone: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    smallest: int = SMALLEST

    @property
    def numbers(self) -> list[OverimputedNumbers]:
        return [
            own for own in published.checked(self.overimputed, self.smallest) if isinstance(own, OverimputedNumbers)
        ]

    @property
    def means(self) -> pd.DataFrame | None:
        return None if self.pooled is None else published.means(self.pooled, self.smallest)

    @property
    def levels(self) -> list[OverimputedLevels]:
        return [own for own in published.checked(self.overimputed, self.smallest) if isinstance(own, OverimputedLevels)]


def imputation_figures(found: ImputationFindings) -> dict[str, str]:
    """The figures for which there is something to draw: SVG by name."""
    counted, fewest = found.diagnosis.missingness, found.smallest
    frame = published.distributions(found.diagnosis.distributions.frame(), fewest)
    pooled = found.means
    drawn = {}
    if counted.cells[1:].any():
        table = published.missingness(counted, fewest)
        drawn["missingness"] = figures.missingness_map(table, published.patterns(counted, fewest, figures.MAX_PATTERNS))
    if frame["low"].notna().any():
        drawn["densities"] = figures.density_panels(frame)
    if frame["level"].notna().any():
        drawn["level_shares"] = figures.level_shares(frame)
    if found.numbers:
        drawn["overimputation"] = figures.overimputation_scatter(found.numbers, fewest)
    if pooled is not None and len(pooled):
        drawn["pooled_means"] = figures.pooled_means(pooled)
    if found.history is not None and len(found.history) > 2:
        drawn["convergence"] = figures.convergence_trace(found.history, counted.rows)
    return drawn


def imputation_page(found: ImputationFindings, drawn: Mapping[str, str] | None = None, *more: page.Section) -> str:
    """Return the page as one HTML file, without scripts and without anything that is fetched.

    Parameters
    ----------
    found : what to report
    drawn : the figures, if `imputation_figures` has been called already
    more : sections that come last

    Returns
    -------
    str
        The same bytes for the same input.

    Raises
    ------
    ConfigurationError
        The extra report (matplotlib, jinja2) is not installed.
    """
    drawn = imputation_figures(found) if drawn is None else drawn
    sections = [
        _filled(found),
        *_means(found, drawn),
        _missing(found, drawn),
        *_beside(drawn),
        *_checked(found, drawn),
        *_fit(found, drawn),
        *more,
        _unchanged(found),
        *_left_alone(found),
    ]
    return page.render(found.title, found.subtitle, sections)


def _filled(found: ImputationFindings) -> page.Section:
    design, model = found.imputation.schema.design, found.imputation
    table = published.missingness(found.diagnosis.missingness, found.smallest)
    table.insert(1, "role", [_role(design, name) for name in table["column"]])
    filled = pd.Series([found.integrity.filled.get(name, 0) for name in table["column"]], dtype="Int64")
    table["filled"] = filled.mask(table["missing"].isna())
    table = table.rename(columns={"not_asked": "not asked", "missing_share": "missing, of those asked"})
    texts = [
        f"{sum(found.integrity.filled.values()):,} missing cells of {found.integrity.rows[0]:,} rows were filled with what the other answers of the same row "
        f"say about them, by {_model(model)}.",
    ]
    if found.smallest:
        texts.append(
            f"What rests on fewer than {found.smallest} rows is hidden, together with what would give it away; levels and groups of so few rows are not named."
        )
    if model.replicates:
        texts.append(
            f"Draws come from {len(model.replicates)} fits, each to a bootstrap of the rows, so that they carry the uncertainty of the model as well as that "
            "of the single answer."
        )
    if model.donors is not None:
        texts.append(
            "Drawn numbers are taken from observed rows that are expected to be alike, not from the model itself."
        )
    if model.delta:
        shifts = ", ".join(f"{name} by {shift:+.4g}" for name, shift in model.delta)
        texts.append(
            f"A sensitivity analysis: what is expected of missing cells was shifted on the model's scale: {shifts}."
        )
    return page.Section("What was filled", texts, table=table, formats=_COUNTS | {"missing, of those asked": ".1%"})


_COUNTS = dict.fromkeys(("rows", "observed", "missing", "not asked", "filled"), ",.0f")


def _model(model: ImputationModel) -> str:
    k = model.model.n_components
    return "a multivariate normal" if k == 1 and not model.schema.design.categorical else f"a mixture of {k} components"


def _role(design: Design, name: str) -> str:
    levels = design.levels(name)
    if levels is not None:
        return "yes/no" if set(levels) == {False, True} else f"ordered, {len(levels)} levels"
    if name in design.categorical:
        return "category"
    if name in design.gaussian:
        how = design.transform(name)
        return f"number, {how}" if how else "number"
    return "count" if name in design.poisson else "successes"


def _missing(found: ImputationFindings, drawn: Mapping[str, str]) -> page.Section:
    counted = found.diagnosis.missingness
    patterns = published.patterns(counted, found.smallest, PATTERNS_LISTED)
    table = pd.DataFrame(
        {
            "missing": [_names(*pair) for pair in zip(patterns["missing"], patterns["n_patterns"].tolist())],
            "not asked": [", ".join(names) if names else "" for names in patterns["not_asked"]],
            "rows": patterns["rows"],
            "share": patterns["share"],
        }
    )
    text = (
        f"{_complete(found)} have every answer that was asked for; an analysis that drops incomplete rows "
        "would rest on these alone. What was not asked is not missing: it stays out of the fit and is not filled."
    )
    return page.Section(
        "What was missing together",
        [text],
        figure=drawn.get("missingness"),
        table=table,
        formats={"rows": ",.0f", "share": ".1%"},
        caption="Every column of the figure is a pattern. The shares on its right are of the cells that were asked for; columns without holes are not drawn.",
    )


def _complete(found: ImputationFindings) -> str:
    counted = found.diagnosis.missingness
    complete = published.complete_rows(counted, found.smallest)
    if complete is not None:
        return f"{complete:,} of {counted.rows:,} rows ({per_cent(complete / max(counted.rows, 1))})"
    few = counted.complete_rows() < found.smallest
    return f"{'Fewer' if few else 'All but fewer'} than {found.smallest} of {counted.rows:,} rows"


def _names(names: tuple[str, ...] | None, n_patterns: int) -> str:
    if names is None:
        return f"{n_patterns:,} other patterns" if n_patterns else "other patterns"
    return ", ".join(names) or "nothing"


def _beside(drawn: Mapping[str, str]) -> list[page.Section]:
    text = (
        "Imputed and observed cells need not be alike: if the young skip a question more often, imputed answers are those of the young. A shape that "
        "nobody could have answered, such as a peak where no observed cell is, speaks against the model."
    )
    out = []
    if "densities" in drawn:
        caption = "Areas are 1; the scale is the model's, ticks are in the table's units."
        out.append(page.Section("Imputed beside observed: numbers", [text], figure=drawn["densities"], caption=caption))
    if "level_shares" in drawn:
        texts = [] if out else [text]
        out.append(page.Section("Imputed beside observed: answers", texts, figure=drawn["level_shares"]))
    return out


def _checked(found: ImputationFindings, drawn: Mapping[str, str]) -> list[page.Section]:
    out = []
    if found.numbers:
        table = pd.DataFrame(
            [(own.column, len(own.cells), own.level, own.coverage) for own in found.numbers],
            columns=["column", "cells", "level", "inside"],
        )
        text = (
            "Cells that were observed are hidden, one at a time, and predicted from the rest of their row. If the model fits a column, the share of cells inside their interval "
            "is near the level of the interval. Cells that are missing for reasons the table does not hold cannot be checked in this way."
        )
        if found.imputation.donors is not None:
            text += " Cells are filled from a few donors each, which do not reach into the tails: the share stays some points below the level."
        out.append(
            page.Section(
                "Hidden cells, found again",
                [text],
                figure=drawn["overimputation"],
                table=table,
                formats={"cells": ",.0f", "level": ".0%", "inside": ".1%"},
                caption=_dots(found.smallest) + " The shares are of all cells that were hidden.",
            )
        )
    if found.levels:
        table = pd.DataFrame(
            [
                (own.column, len(own.cells), own.most_probable, own.promised, own.mean_probability)
                for own in found.levels
            ],
            columns=["column", "cells", "most probable level right", "promised", "mean probability of the true level"],
        )
        text = (
            "The most probable level is right in about as many cells as the model's own probabilities promise, if these are honest. "
            "The most probable level is a guess of a single answer; draws, not guesses, keep the shares of the levels."
        )
        shares = dict.fromkeys(table.columns[2:], ".1%")
        out.append(
            page.Section("Hidden levels, guessed again", [text], table=table, formats={"cells": ",.0f"} | shares)
        )
    return out


def _dots(smallest: int) -> str:
    if smallest < 2:
        return "Bars are the intervals, dots what is expected; at most 200 cells of each column are drawn."
    return f"Bars are the intervals and dots what is expected, each the mean of {smallest} cells or more that are near each other."


def _means(found: ImputationFindings, drawn: Mapping[str, str]) -> list[page.Section]:
    table = found.means
    if "pooled_means" not in drawn or table is None:
        return []
    if "column" in table:
        table = table.sort_values("column", kind="stable", key=lambda names: pd.Series(pd.factorize(names)[0]))
    wanted = ["column", "group", "method", "rows", "estimate", "low", "high", "fraction_missing_information", "truth"]
    table = table[[name for name in wanted if name in table]].rename(
        columns={"low": "95 % from", "high": "to", "fraction_missing_information": "missing information"}
    )
    text = "Means over the draws, pooled by Rubin's rules, whose intervals include what is not known about the missing cells, beside those of the rows that are complete."
    if "truth" in table:
        text += " The data were generated, so the true means are known."
    formats = {"rows": ",.0f", "missing information": ".1%"}
    return [page.Section("Means by group", [text], figure=drawn["pooled_means"], table=table, formats=formats)]


def _fit(found: ImputationFindings, drawn: Mapping[str, str]) -> list[page.Section]:
    if found.history is None or found.history.empty:
        return []
    last = found.history.iloc[-1]
    ending = (
        "met its stopping rule" if found.converged else "stopped at its last iteration before the stopping rule was met"
    )
    text = f"EM {ending} after {len(found.history) - 1} iterations, at a log-likelihood of {_signed(last['log_likelihood'])}."
    return [page.Section("The fit", [text], figure=drawn.get("convergence"))]


def _signed(value: float) -> str:
    return f"{value:,.2f}".replace("-", "−")


def _unchanged(found: ImputationFindings) -> page.Section:
    own = found.integrity
    table = pd.DataFrame(
        [
            (name, f"{before:016x}", f"{after:016x}", "same" if before == after else "CHANGED")
            for name, (before, after) in own.digests.items()
        ],
        columns=["column", "observed cells before", "observed cells after", "verdict"],
    )
    keys = own.keys[0].total == own.keys[1].total
    proven = keys and own.rows[0] == own.rows[1] and (table["verdict"] == "same").all()
    counted = (
        f"Rows in {own.rows[0]:,}, rows out {own.rows[1]:,}; the keys of the rows are {'' if keys else 'NOT '}the same."
    )
    return page.Section(
        "Nothing observed was changed" if proven else "The proof that nothing observed was changed FAILED",
        [f"{own.line}.", counted] if proven else [counted, "Do not use the written tables."],
        table=table,
        caption="A digest is a sum over the cells of a column, each mixed with its place: one bit of one observed cell would change it.",
    )


def _left_alone(found: ImputationFindings) -> list[page.Section]:
    if not (found.left_alone or found.notes):
        return []
    table = pd.DataFrame(list(found.left_alone), columns=["column", "why"]) if found.left_alone else None
    heading = "What was left alone, and why" if found.left_alone else "Notes"
    return [page.Section(heading, list(found.notes), table=table)]

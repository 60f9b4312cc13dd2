"""The figures, tables and page of an imputation."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dask_em import Imputer
from dask_em.config import SurveyImputationConfig
from dask_em.data.sources import Source
from dask_em.imputation import published
from dask_em.imputation.diagnostics import convergence, diagnose, overimpute
from dask_em.imputation.writing import Written
from dask_em.operate.run import Run
from dask_em.report import page
from dask_em.report.imputation import ImputationFindings, imputation_figures, imputation_page
from dask_em.report.provenance import provenance

OVERIMPUTED = 12
"""Columns whose observed cells are imputed again for the report: those with most holes."""


def write_report(
    run: Run,
    config: SurveyImputationConfig,
    source: Source,
    imputer: Imputer,
    written: Written,
    pooled: pd.DataFrame,
) -> dict[str, Any]:
    """Write missingness.csv, patterns.csv, overimputation.csv, the figures and report.html; returns facts for the terminal."""
    folder, model, sample = run.folder, imputer.imputation_, imputer.profile_.sample
    fewest = config.smallest_cell
    diagnosis = diagnose(source, model, sample, run.executor, smallest=fewest)
    counted = diagnosis.missingness
    holes = counted.table().sort_values("missing", ascending=False)
    columns = holes.loc[holes["missing"] > 0, "column"].tolist()[:OVERIMPUTED]
    overimputed = [overimpute(model, sample, name) for name in columns]
    published.missingness(counted, fewest).to_csv(folder / "missingness.csv", index=False)
    published.patterns(counted, fewest).to_csv(folder / "patterns.csv", index=False)
    published.coverage(overimputed, fewest).to_csv(folder / "overimputation.csv", index=False)
    found = ImputationFindings(
        f"Imputation of {config.survey}",
        model,
        diagnosis,
        written.integrity,
        overimputed=overimputed,
        history=convergence(imputer),
        converged=bool(imputer.converged_),
        pooled=None if pooled.empty else pooled,
        left_alone=imputer.roles_.other,
        notes=_notes(config),
        smallest=fewest,
    )
    drawn = imputation_figures(found)
    (folder / "figures").mkdir()
    for name, svg in drawn.items():
        (folder / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
    page.write(folder / "report.html", imputation_page(found, drawn, provenance(run)))
    covered = {own.column: own.coverage for own in found.numbers}
    return {
        "complete_rows": published.complete_rows(counted, fewest),
        "coverage_of_90_percent_intervals": covered,
    }


def _notes(config: SurveyImputationConfig) -> list[str]:
    survey = config.surveys[config.survey]
    notes = [
        f"mean/ holds the table with every hole filled with its expected value, draws/ holds {config.n_draws} tables with random draws. Means and regressions belong on "
        "the draws, pooled; the expected values alone understate how uncertain they are."
    ]
    if survey.imputer.predictors:
        notes.append(
            "These helped to predict the other columns and are not modelled themselves: "
            + ", ".join(survey.imputer.predictors)
            + "."
        )
    if survey.imputer.delta:
        notes.append("Missing cells were shifted for a sensitivity analysis: " + ", ".join(survey.imputer.delta) + ".")
    if survey.weight is not None:
        notes.append(f"Rows count by their weight {survey.weight}.")
    return notes

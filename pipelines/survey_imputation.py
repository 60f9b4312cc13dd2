"""Survey imputation: read, fit, complete, prove, pool, report.

The holes of one table of the job file are filled twice over: with expected values, and with draws for multiple imputation. What was observed is compared bit for bit
after writing, and the means of the answers are pooled over the draws beside those of the complete rows alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from dask_em import Imputer, save
from dask_em.config import Census, Nhanes, Survey, SurveyImputationConfig
from dask_em.data.pins import pinned
from dask_em.data.sources import Source, open_source
from dask_em.errors import ConfigurationError, DataError
from dask_em.imputation import published
from dask_em.imputation.summaries import GroupSums
from dask_em.imputation.writing import write_pieces
from dask_em.operate.run import Manner
from pipelines import plans, surveys
from pipelines.imputation_report import write_report
from pipelines.running import FRESH, running

WRITTEN = DIAGNOSED = plans.ONE
"""Passes over the table once the imputer is fitted; where draws are numbered by the place of a row, one more counts rows."""


def plan(config: SurveyImputationConfig) -> dict[str, Any]:
    """What `run` would do, without reading a row more than the source needs to name its columns."""
    survey = config.surveys[config.survey]
    source = _checked(survey)
    columns = survey.imputer.columns or _others(survey, source)
    fit, n_bytes = plans.imputer(survey.imputer, plans.rows_of(source), columns)
    numbered = config.layout == "long" and survey.key is None and config.n_draws > 0
    after = WRITTEN + DIAGNOSED + (plans.ONE if numbered else plans.Scans(0, 0))
    return {
        "pipeline": config.pipeline,
        "survey": config.survey,
        "source": survey.source.kind,
        "table": plans.table(source),
        "scans": (fit + after).told(),
        "memory": plans.memory(config.cluster, n_bytes, plans.reading(source, len(source.columns))),
        "columns": "all that can be modelled" if survey.imputer.columns is None else list(survey.imputer.columns),
        "model": survey.imputer.model or "a normal if it can take all columns, a mixture otherwise",
        "n_replicates": survey.imputer.n_replicates,
        "draws": config.n_draws,
        "executor": config.cluster.scheduler or config.cluster.executor,
        "output": config.output,
        "writes": [
            "mean/",
            "draws/",
            "pooled_means.csv",
            "missingness.csv",
            "patterns.csv",
            "figures/",
            "report.html",
            "model/",
        ],
    }


def run(config: SurveyImputationConfig, *, progress: Callable[[Any], None], manner: Manner = FRESH) -> dict[str, Any]:
    """Impute one survey; everything appears under config.output at the end, or nothing does."""
    survey = config.surveys[config.survey]
    truth = None if survey.truth is None else true_means(survey)
    source = _checked(survey)
    imputer = Imputer(key=survey.key, **_settings(survey))
    with running(config, [source], manner) as run:
        folder, executor = run.folder, run.executor
        imputer.set_params(executor=executor)
        imputer.fit(source, sample_weight=survey.weight, on_progress=progress)
        source = pinned(source, imputer.profile_.marks)
        sums = GroupSums(tuple(survey.means), survey.by, survey.weight)
        written = write_pieces(
            imputer.imputation_, source, folder, executor, m=config.n_draws, layout=config.layout, groups=sums
        )
        assert written.groups is not None
        means = written.groups.pooled() if survey.means else pd.DataFrame()
        pooled = with_truth(published.means(means, config.smallest_cell), truth)
        pooled.to_csv(folder / "pooled_means.csv", index=False)
        save(imputer, folder / "model", survey=config.survey)
        found = write_report(run, config, source, imputer, written, pooled)
        output = Path(config.output)
        run.facts = {
            "pipeline": config.pipeline,
            "survey": config.survey,
            "rows": written.integrity.rows[1],
            "model": "mixture" if imputer.imputation_.model.n_components > 1 else "normal",
            "n_components": imputer.imputation_.model.n_components,
            "n_scans": imputer.n_scans_,
            "converged": bool(imputer.converged_),
            "filled": sum(written.integrity.filled.values()),
            "draws": config.n_draws,
            "integrity": written.integrity.line,
            "pooled_means": [] if pooled.empty else pooled[pooled["group"] == "all"].to_dict("records"),
            **found,
            "output": str(output),
            "report": str(output / "report.html"),
            "saved_model": str(output / "model"),
        }
    return run.facts


def _others(survey: Survey, source: Source) -> tuple[str, ...]:
    """The columns that could be modelled where none are named."""
    apart = {survey.weight, survey.key, *survey.imputer.predictors}
    return tuple(name for name in source.columns if name not in apart)


def _checked(survey: Survey) -> Source:
    """The table of a survey, which has the columns that the job names."""
    source = table(survey)
    for what, names in {"key": survey.key, "weight": survey.weight, "by": survey.by, "means": survey.means}.items():
        for name in (names,) if isinstance(names, str) else names or ():
            if name not in source.columns:
                raise ConfigurationError(
                    f"{what} names {name!r}, which is not a column of {source.where}: check the spelling"
                )
    return source


def table(survey: Survey) -> Source:
    """The table of a survey."""
    if isinstance(survey.source, Nhanes):
        return open_source(surveys.nhanes())
    if isinstance(survey.source, Census):
        return open_source(surveys.census())
    if survey.source.kind == "table":
        return open_source(survey.source.path, types=survey.source.types)
    raise ConfigurationError(
        f"a source of the kind {survey.source.kind} is not a survey: give a table, nhanes or census"
    )


def true_means(survey: Survey) -> pd.DataFrame:
    """The means that a generated survey is known to have: of its first mean, overall and by group."""
    try:
        known = json.loads(Path(survey.truth or "").read_text(encoding="utf-8"))
        groups = {"all": known["mean_income"], **(known[f"mean_income_by_{survey.by}"] if survey.by else {})}
    except KeyError:
        raise DataError(f"truth has no means by {survey.by!r}: group by another column, or leave truth out") from None
    except (OSError, ValueError):
        raise DataError(
            "truth: the file of true means cannot be read: generate the survey again, or leave truth out"
        ) from None
    return pd.DataFrame([{"column": "income", "group": group, "truth": value} for group, value in groups.items()])


def with_truth(pooled: pd.DataFrame, truth: pd.DataFrame | None) -> pd.DataFrame:
    """Pooled means with the true ones beside them."""
    return pooled if truth is None or pooled.empty else pooled.merge(truth, on=["column", "group"], how="left")


def _settings(survey: Survey) -> dict[str, Any]:
    return survey.imputer.model_dump()

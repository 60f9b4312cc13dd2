"""Customer segmentation: read, choose k, fit, score every row, describe, report.

One level of a job file names a table, its key, and how its columns are modelled. All numbers of segments, and all starts of each, are
fitted in the same scans; the smallest BIC is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from dask_em import MixtureModel, load, save, select_model
from dask_em.config import Cdnow, CompleteJourney, Level, SegmentationConfig
from dask_em.data.encode import row_bytes
from dask_em.data.keys import check_keys
from dask_em.data.pins import pinned
from dask_em.data.sources import Source, open_source
from dask_em.errors import ConfigurationError
from dask_em.operate.run import Manner
from dask_em.scoring import scorer_of, write_scores
from dask_em.segments import describe_segments, highest_segment, match_segments
from pipelines import data, plans
from pipelines.running import FRESH, running
from pipelines.segment_report import write_report

SCORED = DESCRIBED = plans.ONE
"""Passes over the table once it is segmented."""


def plan(config: SegmentationConfig) -> dict[str, Any]:
    """What `run` would do, without reading a row more than the source needs to name its columns."""
    level = config.levels[config.level]
    source, design = _checked(level), _model(level).design
    rows = plans.rows_of(source)
    fit = plans.mixture(rows, level.model.max_iter, searched=True)
    return {
        "pipeline": config.pipeline,
        "level": config.level,
        "source": level.source.kind,
        "columns": list(design.features),
        "table": plans.table(source),
        "n_components": list(level.candidates),
        "starts": len(level.candidates) * level.model.n_init,
        "scans": (plans.ONE + fit + SCORED + DESCRIBED).told(),
        "memory": plans.memory(
            config.cluster,
            None if rows is None else rows * row_bytes(design),
            plans.reading(source, len(design.columns)),
        ),
        "standard_errors": _cost_of_errors(level),
        "executor": config.cluster.scheduler or config.cluster.executor,
        "output": config.output,
        "writes": [
            "segments/",
            "segment_sizes.csv",
            "segment_profile.csv",
            "bic.csv",
            "figures/",
            "report.html",
            "model/",
        ],
    }


def run(config: SegmentationConfig, *, progress: Callable[[Any], None], manner: Manner = FRESH) -> dict[str, Any]:
    """Segment one level; everything appears under config.output at the end, or nothing does."""
    level = config.levels[config.level]
    previous = None if config.match is None else load(config.match)
    source = _checked(level)
    model = _model(level)
    if previous is not None and set(previous.model_.schema.design.features) != set(model.design.features):
        raise ConfigurationError(
            f"match: the model in {config.match} has other columns: leave match out, or fit the same columns"
        )
    with running(config, [source], manner) as run:
        folder, executor = run.folder, run.executor
        model.set_params(executor=executor)
        selection = select_model(source, level.candidates, estimator=model, on_progress=progress)
        source, best = pinned(source, selection.fit.profile.marks), selection.best
        segments = tuple(range(best.n_components))
        if previous is not None:
            segments = match_segments(previous, best, selection.fit.profile.sample)
        notes = {
            "segments": segments,
            "highest_segment": highest_segment(previous, segments),
            "outlier_share": config.outlier_share,
            "key": level.key,
            "level": config.level,
        }
        best.notes_ = notes
        scored = write_scores(best, source, folder / "segments", key=level.key, executor=executor)
        described = describe_segments(source, scorer_of(best), selection.fit.profile, executor, config.smallest_cell)
        save(best, folder / "model", **notes, small_segments=described.small(segments))
        described.sizes(segments).to_csv(folder / "segment_sizes.csv", index=False)
        described.table(segments).to_csv(folder / "segment_profile.csv", index=False)
        selection.table.to_csv(folder / "bic.csv", index=False)
        write_report(run, config, selection, segments, described)
        chosen = selection.table[selection.table["n_components"] == best.n_components].iloc[0]
        output = Path(config.output)
        run.facts = {
            "pipeline": config.pipeline,
            "level": config.level,
            "rows": scored["rows"],
            "n_components": best.n_components,
            "bic": float(chosen["bic"]),
            "log_likelihood": best.log_likelihood_,
            "converged": bool(best.converged_),
            "n_maps": best.n_maps_,
            "n_scans": best.n_scans_,
            **described.facts(segments),
            "output": str(output),
            "report": str(output / "report.html"),
            "model": str(output / "model"),
        }
    return run.facts


def _cost_of_errors(level: Level) -> str:
    """What `standard_errors` of the largest model would sum up for every row (Louis 1982): half the square of the parameters that are stored."""
    design, k = _model(level).design, max(level.candidates)
    d = len(design.gaussian)
    own = k * (1 + d + (d * (d + 1) // 2 if design.pattern else d) + len(design.poisson) + len(design.binomial))
    at_least = "at least " if design.categorical else ""
    return f"{at_least}{own * (own + 1) // 2:,} sums a row for the observed information with {k} segments, or the bootstrap"


def _checked(level: Level) -> Source:
    """The table of a level, which has the columns that the job names: said before hours of work, not after."""
    source = table(level)
    _model(level).design.check(source.columns, source.where)
    check_keys(source, (level.key,))
    return source


def table(level: Level) -> Source:
    """The table of a level."""
    source = level.source
    if isinstance(source, CompleteJourney):
        frame: pd.DataFrame = data.households() if source.level == "household" else data.baskets()
        return open_source(frame)
    if isinstance(source, Cdnow):
        return open_source(data.cdnow())
    return open_source(source.path, types=source.types)


def _model(level: Level) -> MixtureModel:
    settings = level.model.model_dump()
    return MixtureModel(n_components=1, **settings)

"""How a result was made: the last section of a report."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dask_em.operate.run import Run
from dask_em.report.page import Section

FILES = 12
"""Inputs that are listed one by one; of more, how many and their size."""


def provenance(run: Run) -> Section:
    """Which run of which job on which inputs with which versions, as a section."""
    identity = run.identity
    told: list[tuple[str, Any]] = [
        ("run", run.id + (", gone on after an interruption" if run.resumed else "")),
        ("begun", run.begun),
        ("settings", f"SHA-256 {identity.job_hash}"),
        *_inputs(identity.inputs),
        *identity.versions.items(),
    ]
    return Section(
        "How this was made",
        [
            "run.json holds all settings, and manifest.json what was written; the same job on the same inputs with the same versions gives the same numbers."
        ],
        table=pd.DataFrame(told, columns=["", "what"]).astype(str),
    )


def _inputs(inputs: Any) -> list[tuple[str, str]]:
    if len(inputs) > FILES:
        return [("inputs", f"{len(inputs):,} files, {sum(own.get('bytes', 0) for own in inputs):,} bytes")]
    return [("input", _told(own)) for own in inputs]


def _told(own: Any) -> str:
    size = f", {own['bytes']:,} bytes" if "bytes" in own else ""
    mark = next((str(own[name]) for name in ("outline", "cells", "token") if own.get(name)), "")
    return f"{own['name']}{size}" + (f", digest {mark[:16]}" if mark else "")

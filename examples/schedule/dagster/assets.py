"""A job every night on Dagster: an asset whose materialization says what the run found."""

import os
import sys
from pathlib import Path

import dagster as dg

JOBS = os.environ.get("JOBS", "/srv/dask-em")
COMMAND = [sys.executable, str(Path(__file__).with_name("report.py")), "conf/coin_flips.yaml"]


@dg.asset
def coin_flips(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> dg.MaterializeResult:
    """The textbook's coins."""
    run = pipes.run(context=context, command=COMMAND, cwd=JOBS)
    (code,) = run.get_custom_messages()
    if code == 75:  # the cluster or the storage failed: another try goes on from the checkpoint
        raise dg.RetryRequested(max_retries=3, seconds_to_wait=float(os.environ.get("WAIT", "300")))
    if code != 0:
        raise dg.Failure(f"dask-em ended with exit code {code}", metadata={"exit_code": code}, allow_retries=False)
    return run.get_materialize_result()


nightly = dg.ScheduleDefinition("nightly", target=[coin_flips], cron_schedule="0 3 * * *")

defs = dg.Definitions([coin_flips], schedules=[nightly], resources={"pipes": dg.PipesSubprocessClient()})

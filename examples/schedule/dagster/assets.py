"""A job every night on Dagster: an asset with a partition a day, whose materialization says what the run found."""

import os
import sys
from pathlib import Path

import dagster as dg

JOBS = os.environ.get("JOBS", "/srv/dask-em")
COMMAND = [sys.executable, str(Path(__file__).with_name("report.py")), "conf/coin_flips.yaml"]
DAYS = dg.DailyPartitionsDefinition("2026-01-01")


@dg.asset(partitions_def=DAYS)
def coin_flips(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> dg.MaterializeResult:
    """The textbook's coins."""
    output = f"output=output/coins-{context.partition_key}"
    run = pipes.run(context=context, command=[*COMMAND, "--set", output], cwd=JOBS)
    (code,) = run.get_custom_messages()
    if code == 75:  # the cluster or the storage failed: another try goes on from the checkpoint
        raise dg.RetryRequested(max_retries=3, seconds_to_wait=float(os.environ.get("WAIT", "300")))
    if code != 0:
        raise dg.Failure(f"dask-em ended with exit code {code}", metadata={"exit_code": code}, allow_retries=False)
    return run.get_materialize_result()


job = dg.define_asset_job("coins", [coin_flips], partitions_def=DAYS)
nightly = dg.build_schedule_from_partitioned_job(job, hour_of_day=3)

defs = dg.Definitions([coin_flips], schedules=[nightly], resources={"pipes": dg.PipesSubprocessClient()})

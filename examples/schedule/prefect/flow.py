"""A job every night on Prefect 3: a plain task, whose work is done by the Dask cluster at an address.

Prefect's own Dask task runner is not used: dask-em is a client of the cluster itself, and knows what to do where a worker is lost.
"""

import json
import os
import subprocess
from typing import Any

from prefect import flow, task
from prefect.runtime import flow_run


def may_succeed(task: Any, run: Any, state: Any) -> bool:
    """Whether the cluster or the storage failed: another try goes on from the checkpoint."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, subprocess.CalledProcessError) and error.returncode == 75


@task(retries=3, retry_delay_seconds=float(os.environ.get("WAIT", "300")), retry_condition_fn=may_succeed)
def run_job(conf: str, output: str, scheduler: str) -> dict[str, Any]:
    """The facts of a run."""
    command = ["dask-em", "run", conf, "--set", f"output={output}", "--scheduler", scheduler]
    how = ["--resume", "--output", "json", "--log-format", "json"]
    done = subprocess.run(
        [*command, *how], cwd=os.environ.get("JOBS", "/srv/dask-em"), stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@flow
def cdnow(scheduler: str) -> dict[str, Any]:
    """Segments of the customers of CDNOW."""
    return run_job("conf/cdnow.yaml", f"output/cdnow-{flow_run.scheduled_start_time:%Y-%m-%d}", scheduler)


if __name__ == "__main__":
    cdnow.serve(cron="0 3 * * *", parameters={"scheduler": os.environ["DASK_SCHEDULER_ADDRESS"]})

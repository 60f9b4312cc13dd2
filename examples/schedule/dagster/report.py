"""Run a job, and report its exit code and what it found through Dagster Pipes; needs nothing but dagster-pipes."""

import json
import signal
import subprocess
import sys

from dagster_pipes import open_dagster_pipes

COMMAND = ["dask-em", "run", *sys.argv[1:], "--resume", "--output", "json", "--log-format", "json"]

with open_dagster_pipes() as pipes, subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as job:
    signal.signal(signal.SIGINT, lambda number, frame: job.send_signal(number))  # a run that is cancelled ends tidily
    facts, _ = job.communicate()
    if job.returncode == 0:
        found = json.loads(facts.splitlines()[-1])
        told = {k: {"raw_value": v, "type": "json"} if isinstance(v, dict) else v for k, v in found.items()}
        pipes.report_asset_materialization(metadata=told)
    pipes.report_custom_message(job.returncode)

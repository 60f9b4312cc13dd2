"""A job every night on Airflow 3.3: its result is the XCom of its task, and a day whose output is there already is skipped."""

import json
import os
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryDecision

# BashOperator mixes stdout and stderr, so the result is told when the log has ended.
COMMAND = """\
facts=$(dask-em run conf/coin_flips.yaml --set output=output/coins-{{ ds }} \
        --resume --output json --log-format json --nothing-to-do-exit 99) && echo "$facts"
"""


class WhereItMayHelp(RetryPolicy):
    """A wrong job and bad data stay what they are: try again after the other exit codes, going on from the checkpoint."""

    def evaluate(self, exception, try_number, max_tries, context=None):
        if str(exception).endswith(tuple(f" exit code {code}." for code in (1, 2, 3, 4, 5))):
            return RetryDecision.fail("another try would end alike")
        return RetryDecision.default()


with DAG("coin_flips", schedule="0 3 * * *", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    BashOperator(
        task_id="run",
        bash_command=COMMAND,
        cwd=os.environ.get("JOBS", "/srv/dask-em"),
        skip_on_exit_code=99,
        output_processor=json.loads,
        retries=3,
        retry_delay=timedelta(seconds=float(os.environ.get("WAIT", "300"))),
        retry_policy=WhereItMayHelp(),
    )

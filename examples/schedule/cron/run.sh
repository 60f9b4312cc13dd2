#!/bin/sh
# Run a job, and try again where the cluster or the storage failed (exit code 75); what was done before is kept.
#
#     run.sh CONF [OPTION]...
#
# TRIES (3) and WAIT (300 seconds) may come from the environment. The last line of stdout is the result, the exit code that of dask-em.
# No flock is needed: of two runs on one output, the second ends with 5 at once.
left=${TRIES:-3}
while :; do
    dask-em run "$@" --resume --output json --log-format json
    code=$?
    left=$((left - 1))
    if [ "$code" -ne 75 ] || [ "$left" -le 0 ]; then
        exit "$code"
    fi
    sleep "${WAIT:-300}"
done

"""What a worker starts to drive a run (dask_em/operate/driver.py): `python -m dask_em.cli_driver`.

The first line of its standard input says what to do. It ends at once when that input does, because then the worker has ended: another worker goes on from the checkpoint, which is whole at any moment.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading

from dask_em.cli import em
from dask_em.execution.remote import use_tls


def main() -> None:
    """Run the job that the first line of standard input holds."""
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    use_tls(order["tls"])
    with tempfile.TemporaryFile() as job:  # it has no name, so nothing is left behind
        job.write(order["text"].encode())
        job.seek(0)
        em(["run", f"/dev/fd/{job.fileno()}", *order["options"]], prog_name="dask-em")


def _end_with_the_worker() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()

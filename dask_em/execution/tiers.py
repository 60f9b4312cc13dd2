"""Which tier the blocks of a table go to, and how much memory there is.

resident   while they need at most 40 % of the memory: reading, encoding and the rest of the process need some too
mapped     beyond that, where the disk of the scratch folder has room
streamed   where it has not
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Literal, get_args

from dask_em.errors import ConfigurationError

Tier = Literal["resident", "mapped", "streamed"]
Wanted = Literal["auto", "resident", "mapped", "streamed"]

SHARE = 0.4
"""Of the memory, what blocks may take."""

log = logging.getLogger("dask_em")


def check_wanted(blocks: str) -> Wanted:
    """The setting, if it is one.

    Raises
    ------
    ConfigurationError
        It is none.
    """
    for known in get_args(Wanted):
        if blocks == known:
            wanted: Wanted = known
            return wanted
    raise ConfigurationError(f"blocks must be {', '.join(get_args(Wanted)[:-1])} or {get_args(Wanted)[-1]}")


def choose(wanted: Wanted, nbytes: int, memory: int, disk: int, where: str) -> Tier:
    """The tier of blocks that need `nbytes`, of this much memory and room on the scratch disk, said in the log.

    `where` says whose memory and disk it is.
    """
    if wanted != "auto":
        tier: Tier = wanted
    elif nbytes <= SHARE * memory:
        tier = "resident"
    else:
        tier = "mapped" if nbytes <= disk else "streamed"
    if nbytes:
        asked = "" if wanted == "auto" else " as asked"
        told = size(nbytes), size(int(SHARE * memory)), size(disk)
        log.info("blocks are %s%s: %s encoded, at most %s resident, %s free for scratch, %s", tier, asked, *told, where)
    return tier


def size(nbytes: int) -> str:
    """Bytes as people read them."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


def free_disk(folder: str) -> int:
    """Bytes free where this folder is, or is to be."""
    path = os.path.abspath(folder)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the control group (a container) that it is in."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    machine = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    groups = [
        _left("memory.max", "memory.current", "memory.stat", "inactive_file"),
        _left(
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ]
    return max(min([machine, *(group for group in groups if group is not None)]), 0)


def _left(limit: str, usage: str, stat: str, cache: str) -> int | None:
    """What a control group leaves, if it has a limit; files that are only cached give way."""
    try:
        texts = [Path("/sys/fs/cgroup", name).read_text(encoding="ascii") for name in (limit, usage, stat)]
        cached = next(int(line.split()[1]) for line in texts[2].splitlines() if line.startswith(f"{cache} "))
        return int(texts[0]) - int(texts[1]) + cached
    except (OSError, ValueError, StopIteration):
        return None

"""Processor time and memory of processes, from /proc (Linux). Needs the standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that processes have used, to a hundredth of a second."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK


def memory_mb(pids: Iterable[int], peak: bool = False) -> float:
    """Resident memory of processes in MB, now or at its highest."""
    name, total = "VmHWM:" if peak else "VmRSS:", 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(name))
    return total / 1024


def forget_peaks(pids: Iterable[int]) -> None:
    """Let the peaks begin anew at the memory of now."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def children(pid: int | str = "self") -> list[int]:
    """The processes that a process has started, and theirs."""
    own = [int(c) for task in Path(f"/proc/{pid}/task").glob("*/children") for c in task.read_text().split()]
    return own + [c for one in own for c in children(one)]

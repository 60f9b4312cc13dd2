"""A contest: one task, several contestants in processes of their own, in alternation.

All get the same table, the same start where they take one, and the same number of threads. A round lets each fit twice, with a low and
a high number of EM steps; the slope is seconds per iteration, so that start-up, copies and closing passes drop out. What is told are medians over
rounds, of ratios too: both times of a ratio were taken within the same minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

SCRIPTS = Path(__file__).parent / "contestants"

TRIES = 20
"""Pairs of fits until the one of more steps takes longer."""


@dataclass(frozen=True)
class Contestant:
    """Who takes part, and how.

    script : which of bench/contestants
    python : the interpreter that has it
    steps : the low and the high number of EM steps
    remedy : what to do where it is absent
    X : a table of its own in place of the task's
    own_start : it takes no start
    """

    who: str
    script: str
    python: str = sys.executable
    steps: tuple[int, int] = (2, 7)
    remedy: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    X: np.ndarray | None = None
    own_start: bool = False


@dataclass(frozen=True)
class Task:
    """What everybody has to do.

    settings : `model`, `k`, `threads`, and the `clock`: processor or wall
    judge : the mean log-likelihood of parameters, so that it is seen that all did the same EM
    """

    X: np.ndarray
    start: dict[str, np.ndarray]
    settings: dict[str, Any]
    judge: Callable[[dict[str, np.ndarray]], float]


class AbsentError(Exception):
    """A contestant that cannot run here, or ended before its time."""


class Running:
    """A contestant at work, with its answers."""

    def __init__(self, contestant: Contestant, task: Task, folder: Path) -> None:
        self.contestant, self.folder = contestant, folder
        self.slopes, self.iterations = list[float](), 0
        settings = {**task.settings, **contestant.settings, "folder": str(folder)}
        (folder / "settings.json").write_text(json.dumps(settings))
        np.savez(folder / "start.npz", **task.start)
        np.save(folder / "X.npy", task.X if contestant.X is None else contestant.X)
        threads = str(settings["threads"])
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [contestant.python, str(SCRIPTS / contestant.script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **dict.fromkeys(names, threads)},
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.communicate()
        self.log.close()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            lines = (self.folder / "log").read_text().strip().splitlines()
            raise AbsentError(lines[-1] if lines else "it ended without a word")
        return dict(json.loads(line))

    def ask(self, request: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(request, file=self.process.stdin, flush=True)
        return self.answer()

    def slope(self) -> float:
        """Seconds per iteration, once; what a busy machine makes negative is measured again."""
        for _ in range(TRIES):
            low, high = (self.ask(steps) for steps in self.contestant.steps)
            self.iterations = high["iterations"]
            if high["seconds"] > low["seconds"]:
                return float((high["seconds"] - low["seconds"]) / (high["iterations"] - low["iterations"]))
        raise SystemExit(f"an iteration of {self.contestant.who} is too short to be told from noise: take more rows")

    def found(self) -> tuple[float, dict[str, np.ndarray]]:
        """Peak memory beyond the table in MB, and the parameters of the last fit."""
        mb = self.ask("found")["mb"]
        with np.load(self.folder / "found.npz") as file:
            return float(mb), dict(file)


def hold(task: Task, contestants: Sequence[Contestant], rounds: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Lines of a table, the first contestant's first, and the versions of everybody who came; who could not is told on standard error."""
    versions = dict[str, str]()
    with ExitStack() as stack:
        running = list[Running]()
        for contestant in contestants:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            one = stack.enter_context(Running(contestant, task, folder))
            try:
                versions[contestant.who.partition(",")[0]] = one.answer()["version"]
                running.append(one)
            except AbsentError as why:
                if contestant is contestants[0]:
                    raise SystemExit(f"{contestant.who} fails: {why}") from None
                print(f"{contestant.who} skipped: {why}. {contestant.remedy}", file=sys.stderr)
        for _ in range(rounds):
            for one in running:
                one.slopes.append(one.slope())
        return [line(one, running[0], task) for one in running], versions


def line(one: Running, ours: Running, task: Task) -> dict[str, Any]:
    """A contestant's line of the table."""
    mb, parameters = one.found()
    seconds = median(one.slopes)
    return {
        "who": one.contestant.who,
        "s/iteration": seconds,
        "spread %": 100 * (max(one.slopes) - min(one.slopes)) / seconds,
        "M rows/s": len(task.X) / seconds / 1e6,
        "times ours": median(theirs / own for theirs, own in zip(one.slopes, ours.slopes)),
        "MB beyond the table": mb,
        "mean ll": task.judge(parameters),
        "after steps": one.iterations,
        "start": "its own" if one.contestant.own_start else "given",
    }

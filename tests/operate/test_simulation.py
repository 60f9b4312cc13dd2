"""The decisions of a driver on clusters that were never there: results, losses, duplicates, late answers, errors and crashes by seed, with what must hold after every step."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from dask_em import few_scans
from dask_em.errors import TryAgainError
from dask_em.execution.base import Forgetful
from dask_em.execution.watch import Limits, Patience
from dask_em.operate.journal import JournalExecutor
from dask_em.operate.portable import dumps, loads

# --- a loop over a table of five numbers ------------------------------------------------------------------------------

BLOCKS = (3, 1, 4, 1, 5)


@dataclass(frozen=True)
class State:
    """A loop whose next state hangs on every scan before it."""

    left: int
    value: int = 0
    n_scans: int = 0

    @property
    def done(self) -> bool:
        return not self.left


@dataclass(frozen=True)
class Loops:
    """In the place of a grid of loops."""

    states: tuple[State, ...]
    penalty: float | None = None

    @property
    def done(self) -> bool:
        return all(s.done for s in self.states)


@dataclass(frozen=True)
class Record:
    """What the driver sees."""

    done: bool


class Grid:
    """In the place of em.grid: the same functions over loops of whole numbers, in which a scan that is lost or counted twice is seen in the end."""

    Grid = Loops

    @staticmethod
    def ask(loops: Loops) -> Callable[[int], int] | None:
        own = loops.states[0]
        return None if loops.done else lambda block: (own.value * block + block) % 1_000_003

    @staticmethod
    def tell(loops: Loops, total: int, coarse: Any = None) -> Loops:
        own = loops.states[0]
        after = replace(own, left=own.left - 1, value=own.value * 31 + total, n_scans=own.n_scans + 1)
        return Loops((after,), loops.penalty)

    @staticmethod
    def progress(loops: Loops) -> Record:
        return Record(loops.done)

    @staticmethod
    def n_scans(loops: Loops) -> int:
        return loops.states[0].n_scans


class Crash(BaseException):
    """The driver is gone."""


class Cluster(Forgetful):
    """Tasks as Dask keeps them: worked out late, again after a loss, twice for no reason; a look may fail, or be the driver's last."""

    def __init__(self, rng: random.Random, trouble: float) -> None:
        self.rng, self.trouble, self.scanned = rng, trouble, 0

    def put(self, value: Any) -> Any:
        return lambda: value

    def fold(self, blocks: Any, ask: Any, tell: Any, state: Any, *known: Any) -> Any:
        done: dict[int, Any] = {}

        def work() -> Any:
            before = state()
            step = ask(before)
            if step is None:
                return before
            if before.states[0].n_scans not in done:
                self.scanned += 1
            order = self.rng.sample(BLOCKS, len(BLOCKS))  # results come in any order
            return done.setdefault(before.states[0].n_scans, tell(before, sum(map(step, order))))

        return self._kept(work)

    def _kept(self, work: Callable[[], Any]) -> Callable[[], Any]:
        held: list[Any] = []

        def value() -> Any:
            if held and self.rng.random() < self.trouble:
                held.clear()  # a worker was lost, and with it what it held
            if not held:
                held.append(work())
                if self.rng.random() < self.trouble:
                    assert work() == held[0]  # a task that was stolen ran twice
            return held[0]

        return value

    def anchor(self, handle: Any) -> Any:
        value = handle()
        return lambda: value

    def look(self, handle: Any, function: Any) -> Any:
        moment = self.rng.random()
        if moment < self.trouble / 2:
            raise TryAgainError("lost")
        if moment < self.trouble:
            raise Crash
        return function(handle())


class Memory:
    """A journal in memory that crashes between, before and after what it writes, and sometimes tears what it wrote last."""

    def __init__(self, rng: random.Random, trouble: float) -> None:
        self.rng, self.trouble = rng, trouble
        self.files: dict[str, bytes] = {}
        self.found = self.furthest = self._next = 0

    def attempt(self) -> Memory:
        self._next = 0
        return self

    def name(self) -> str:
        self._next += 1
        return f"{self._next:04d}"

    def keep(self, name: str, value: Any) -> bool:
        if self.rng.random() < self.trouble:
            raise Crash
        own = loads(dumps(value))
        assert Grid.n_scans(own) >= self.furthest, "a state was followed by an earlier one"
        self.files[name], self.furthest = dumps(value), Grid.n_scans(own)
        if self.rng.random() < self.trouble:
            raise Crash
        return True

    def find(self, *names: str) -> dict[str, Any]:
        return {name: loads(self.files[name]) for name in names if name in self.files}


def test_thousands_of_runs_end_where_the_calm_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_scans, "grid", Grid)
    monkeypatch.setattr("dask_em.operate.portable.OWN", ("tests.", "dask_em."))
    attempts = 0
    for seed in range(3000):
        rng = random.Random(seed)
        scans, trouble = rng.randrange(1, 9), rng.choice([0.0, 0.02, 0.2])
        monkeypatch.setattr(few_scans, "PATIENCE", rng.choice([0.0, 2.0]))
        start = State(scans)
        (calm,) = few_scans.scan(Cluster(rng, 0.0), None, [start], None)  # type: ignore[arg-type, list-item]
        memory, found, last = Memory(rng, trouble / 4), None, 0
        for _ in range(1000):
            attempts += 1
            cluster = Cluster(rng, trouble)
            executor: Any = JournalExecutor(cluster, memory.attempt())  # type: ignore[arg-type]
            try:
                (found,) = few_scans.scan(executor, None, [start], None)  # type: ignore[list-item]
                break
            except (TryAgainError, Crash):
                # All but the scan that was under way is kept, and one that was asked for ahead.
                assert memory.furthest >= last
                last = memory.furthest
        assert found == calm, seed
        assert Grid.n_scans(Loops((found,))) == scans  # type: ignore[arg-type]
    assert attempts > 4000


# --- waiting ----------------------------------------------------------------------------------------------------------

LIMITS = Limits(worker_ttl=60, no_workers=120, stalled=300, tcp_timeout=30)


class Fake:
    """A scheduler and its workers as the driver hears of them; what happens to them is drawn by seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.now = rng, 0.0
        self.workers = {f"w{i}": self._new() for i in range(rng.randrange(1, 5))}
        self.mute_until = self.end = 0.0
        self.work = rng.choice([5, 200, 3000])
        self.finished = 0

    def _new(self) -> dict[str, Any]:
        return {"frozen": False, "paused": False, "done": 0, "seen": self.now}

    def step(self, seconds: float) -> None:
        self.now += seconds
        for name, own in list(self.workers.items()):
            if own["frozen"]:
                if self.now - own["seen"] > LIMITS.worker_ttl:
                    del self.workers[name]  # the scheduler gives it up
                continue
            own["seen"] = self.now
            if not own["paused"] and self.rng.random() < 0.3:
                own["done"] += 1
                self.finished += 1
        happening = self.rng.random()
        if happening < 0.004 and self.workers:
            self.workers.pop(self.rng.choice(list(self.workers)))
        elif happening < 0.006 and self.workers:
            self.workers[self.rng.choice(list(self.workers))]["frozen"] = True
        elif happening < 0.008 and self.workers:
            for own in self.workers.values():
                own["paused"] = True
        elif happening < 0.03:
            for own in self.workers.values():
                own["paused"] = False
        elif happening < 0.034:
            self.workers[f"n{self.now}"] = self._new()
        elif happening < 0.036:
            self.mute_until = self.now + self.rng.choice([5, 20, 1e9])

    def answer(self) -> dict[str, Any] | None:
        if self.now < self.mute_until:
            return None
        return {
            name: {
                "status": "paused" if own["paused"] else "running",
                "last_seen": own["seen"],
                "metrics": {"dask_em": own["done"], "task_counts": {"executing": 0}},
            }
            for name, own in self.workers.items()
        }


LONGEST = max(LIMITS.no_workers, LIMITS.stalled, LIMITS.tcp_timeout) + LIMITS.worker_ttl


def test_no_wait_is_without_an_end_and_none_ends_while_work_is_done() -> None:
    """Over thousands of clusters: whoever waits hears within the limit of the last thing that was finished, and never gives up a cluster that works."""
    ends: dict[str, int] = {}
    for seed in range(4000):
        rng = random.Random(seed)
        cluster, patience = Fake(rng), Patience(LIMITS, usual=1.0, now=0.0)
        asked_at: float | None = None
        last_progress, finished = 0.0, 0
        verdict, heard = None, dict[str, Any]()
        while verdict is None and cluster.finished < cluster.work:
            cluster.step(rng.choice([0.5, 0.5, 2.0]))
            now = cluster.now
            if cluster.finished > finished:
                finished, last_progress = cluster.finished, now
            if asked_at is not None and (answer := cluster.answer()) is not None:
                patience.hear(now, answer)
                heard, asked_at = answer, None
            verdict = patience.verdict(now)
            if asked_at is None and patience.wants_to_ask(now):
                patience.ask(now)
                asked_at = now
            assert now - last_progress < LONGEST + 10 or now < cluster.mute_until, (seed, now)
            if verdict is not None and "scheduler has not answered" not in verdict:
                # What it says was true when the driver last heard.
                if "no worker" in verdict:
                    assert not heard, (seed, verdict)
                elif "disk" in verdict:
                    assert all(own["status"] == "paused" for own in heard.values()), (seed, verdict)
                else:
                    assert now - last_progress > LIMITS.stalled - 10, (seed, verdict)
        kind = (
            "done"
            if verdict is None
            else next(w for w in ("answered", "no worker", "disk", "finished") if w in verdict)
        )
        ends[kind] = ends.get(kind, 0) + 1
    assert {"done", "answered", "no worker", "disk"} <= set(ends), ends
    assert ends["done"] > 1000

"""What the driver decides from what it hears, without a cluster and in no time: it ends when a limit is over, not before, and not while there is progress."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from dask_em.execution.watch import BEAT, PAUSED, Limits, Patience

LIMITS = Limits(no_workers=120, stalled=300, tcp_timeout=30)


def worker(done: int | None = 0, status: str = "running", executing: int = 1, seen: float = 0.0) -> dict[str, Any]:
    """What the scheduler tells of a worker."""
    return {"status": status, "last_seen": seen, "metrics": {"dask_em": done, "task_counts": {"executing": executing}}}


def ended(hears: Any, usual: float = 0.0, until: float = 10_000, limits: Limits = LIMITS) -> tuple[float, str]:
    """When a wait ends and why; `hears(now)` is the answer of the scheduler, or None for silence."""
    patience, now = Patience(limits, usual, 0.0), 0.0
    while now < until:
        now += 0.5
        if (why := patience.verdict(now)) is not None:
            return now, why
        if patience.wants_to_ask(now):
            patience.ask(now)
            if (answer := hears(now)) is not None:
                patience.hear(now, answer)
    return now, ""


CASES = {
    "silent scheduler": (lambda now: None, 30, "the scheduler has not answered for 3"),
    "no workers": (lambda now: {}, 120, "no worker for 12"),
    "paused": (lambda now: {"a": worker(status="paused", executing=0)}, PAUSED, "the only worker is over 80 %"),
    "stalled": (lambda now: {"a": worker(), "b": worker(3)}, 300, r"nothing was finished for 30. s .* on 2 worker\(s\):"),
    "silent worker": (lambda now: {"a": worker(seen=now), "b": worker(seen=5)}, 300, "of which b is silent"),
    "paused, but at work": (lambda now: {"a": worker(status="paused")}, 300, "nothing was finished"),
    "one of two paused": (lambda now: {"a": worker(status="paused", executing=0), "b": worker()}, 300, "nothing was finished"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_wait_ends_at_its_limit(name: str) -> None:
    hears, limit, why = CASES[name]
    at, message = ended(hears)
    assert re.search(why, message)
    assert limit < at <= limit + 3 * BEAT


@pytest.mark.parametrize(
    "hears",
    [
        lambda now: {"a": worker(int(now // 200))},
        lambda now: {} if now % 400 < 110 else {"a": worker(int(now))},
        lambda now: {"a": worker(int(now), "paused" if now % 40 < 15 else "running", 0)},
        lambda now: None if now % 60 < 25 else {"a": worker(int(now))},
        lambda now: {"a": worker(int(now)), "frozen": worker(seen=0)},
    ],
    ids=["slow", "workers come and go", "paused now and then", "silent now and then", "one frozen"],
)
def test_a_wait_goes_on_while_there_is_progress(hears: Any) -> None:
    assert ended(hears) == (10_000, "")


def test_a_cluster_without_workers_has_its_own_limit_only() -> None:
    """Somebody who waits for workers for an hour is not told after five minutes that nothing is finished."""
    at, why = ended(lambda now: {}, limits=Limits(no_workers=3600))
    assert "no worker for 36" in why
    assert at > 3600


def test_slow_scans_have_longer() -> None:
    at, _ = ended(lambda now: {"a": worker()}, usual=60)
    assert 20 * 60 < at <= 20 * 60 + 3 * BEAT


def test_no_history_of_a_cluster_makes_a_wait_endless_or_hasty() -> None:
    """Any history that comes to rest ends within the longest limit after that; one that only ever pauses for less than any limit does not end."""
    for seed in range(200):
        chance = random.Random(seed)
        moods = [chance.choice(["work", "none", "paused", "silent", "still"]) for _ in range(60)]

        def hears(now: float, moods: list[str] = moods) -> Any:
            mood = moods[min(int(now // 15), 59)] if now < 900 else moods[-1]
            answers = {"none": {}, "silent": None, "still": {"a": worker(1)}, "work": {"a": worker(int(now))}}
            return answers.get(mood, {"a": worker(1, "paused", 0)})

        at, why = ended(hears, until=2000)
        if moods[-1] == "work":
            # Moods last 15 seconds: only a run of the same one, or of rest in any form, is over a limit.
            assert not why or at < 900
        else:
            assert why
            assert at <= 900 + 300 + 3 * BEAT

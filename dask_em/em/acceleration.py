"""Faster ways to the fixed point of the EM map F, as ask/tell objects on unconstrained coordinates.

    told (x, F(x)) of an accepted state, an accelerator proposes where to look next, or F(x) itself

The objective of a proposal is known after the next scan, which evaluates F there in any case. One that lowers the objective is rejected: the loop falls back to the EM step it
already has, and only that scan was lost. So the accepted states climb, as EM's do (Varadhan and Roland 2008; Henderson and Varadhan 2019, without their allowance
for small losses).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from dask_em.families.base import Array

Acceleration = Literal["squarem", "daarem"]

STEP_FACTOR = 4.0
"""By how much SQUAREM's longest step grows when it was taken, and shrinks when it failed: its default."""

ORDER = 10
"""Differences that Anderson's mixing keeps before it starts anew: DAAREM's default."""

DAMPING_BASE, DAMPING_DELAY = 1.2, 10
"""DAAREM's schedule of damping: the share 1 / (1 + base^(delay - successes)) of the undamped step's squared length."""

FORGIVEN = 2
"""Successes that a rejected proposal costs in this schedule."""


class Accelerator(Protocol):
    """What proposes the next state of one candidate."""

    def told(self, here: Array, mapped: Array) -> tuple[Accelerator, Array | None]:
        """Take an accepted state and its EM step; the next state to look at, None for the EM step itself."""

    def rejected(self) -> Accelerator:
        """The last proposal lowered the objective; the EM step before it was taken instead."""


def make_accelerator(method: Acceleration | None) -> Accelerator | None:
    """A fresh accelerator, or None for plain EM."""
    if method is None:
        return None
    return Squarem() if method == "squarem" else Daarem()


@dataclass(frozen=True)
class Squarem:
    """Squared extrapolation: two EM steps give a step length, a third one settles what it led to (Varadhan and Roland 2008).

    The length is that of their scheme S1, which is shorter than that of S3: where no loss is allowed, fewer proposals are lost.

    start : the state at which a cycle began
    leapt : whether the state that comes is an extrapolation
    longest : largest step length; capped : whether the last step had it
    """

    start: Array | None = None
    leapt: bool = False
    longest: float = 1.0
    capped: bool = False

    def told(self, here: Array, mapped: Array) -> tuple[Accelerator, Array | None]:
        if self.start is None:
            return replace(self, start=here), None
        if self.leapt:
            return replace(self, start=None, leapt=False), None  # an extrapolation held: one EM step settles it
        step = here - self.start
        bend = mapped - here - step
        size = float(bend @ bend)
        length = float(np.clip(abs(step @ bend) / size, 1.0, self.longest)) if size > 0 else 1.0
        capped = length == self.longest
        after = Squarem(None, False, self.longest * STEP_FACTOR if capped else self.longest, capped)
        if length < 1.01:
            return after, None
        return replace(after, start=here, leapt=True), self.start + 2 * length * step + length**2 * bend

    def rejected(self) -> Accelerator:
        return Squarem(longest=max(self.longest / STEP_FACTOR, 1.0) if self.capped else self.longest)


@dataclass(frozen=True)
class Daarem:
    """Damped Anderson acceleration with restarts (Henderson and Varadhan 2019).

    last : state and residual F(x) - x of the last accepted state
    moves, changes : (p, m) differences of states and of residuals since the last restart
    successes : accepted proposals, less what rejected ones cost
    """

    last: tuple[Array, Array] | None = None
    moves: tuple[Array, ...] = ()
    changes: tuple[Array, ...] = ()
    successes: int = 0

    def told(self, here: Array, mapped: Array) -> tuple[Accelerator, Array | None]:
        residual = mapped - here
        if self.last is None:
            return replace(self, last=(here, residual)), None
        moves = (*self.moves, here - self.last[0])
        changes = (*self.changes, residual - self.last[1])
        proposal = (
            here
            + residual
            - (np.stack(moves, axis=1) + np.stack(changes, axis=1)) @ self._mix(np.stack(changes, axis=1), residual)
        )
        if len(moves) == ORDER:
            moves = changes = ()
        after = Daarem((here, residual), moves, changes, self.successes + 1)
        return after, proposal if np.isfinite(proposal).all() else None

    def rejected(self) -> Accelerator:
        return replace(self, successes=self.successes - FORGIVEN)

    def _mix(self, changes: Array, residual: Array) -> Array:
        """The combination of changes that undoes most of the residual, kept short by a ridge."""
        left, size, right = np.linalg.svd(changes, full_matrices=False)
        own = size > 1e-14 * max(size[0], np.finfo(np.float64).tiny)
        left, size, right = left[:, own], size[own], right[own]
        along = left.T @ residual
        target = 1.0 / (1.0 + DAMPING_BASE ** (DAMPING_DELAY - self.successes))
        ridge = _ridge(size, along, target)
        combination: Array = right.T @ (size * along / (size**2 + ridge))
        return combination


def _ridge(size: Array, along: Array, target: float) -> float:
    """The penalty at which the squared length of the combination is a share of that without it."""
    whole = float(((along / size) ** 2).sum())
    if not whole > 0:
        return 0.0
    low, high = 1e-12 * float(size.min()) ** 2, 1e8 * float(size.max()) ** 2
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        share = float(((size * along / (size**2 + middle)) ** 2).sum()) / whole
        low, high = (middle, high) if share > target else (low, middle)
    return high

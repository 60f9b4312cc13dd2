"""A run that stops anywhere goes on with the same bits, and repeats one pass over the table at most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import GaussianMixture, Imputer, MultivariateNormal, select_model
from dask_em.operate.journal import Journal, JournalExecutor
from dask_em.operate.portable import dumps, loads
from tests.operate.crashes import Counting, Crash, Disk, through


def table(n: int, share: float = 0.1) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 3)) + 1.5 * rng.integers(0, 3, (n, 1))
    X[rng.random(X.shape) < share] = np.nan
    return pd.DataFrame(X, columns=list("abc"))


SMALL, LARGE = table(900), table(70_000)


def mixture(executor: Any) -> Any:
    """Every start scans all rows."""
    model = GaussianMixture(3, n_init=2, max_iter=12, random_state=0, executor=executor, acceleration="squarem")
    return model.fit(SMALL).model_.parameters


def from_a_sample(executor: Any) -> Any:
    """The first scan brings a sample along, on which later ones are solved."""
    return GaussianMixture(3, n_init=2, tol=1e-10, random_state=0, executor=executor).fit(LARGE).model_.parameters


def grid(executor: Any) -> Any:
    """Candidates, their entropies and folds."""
    base = GaussianMixture(1, n_init=1, max_iter=8, random_state=0, executor=executor)
    found = select_model(SMALL, range(1, 4), estimator=base, criterion="held-out")
    return [c.parameters for c in found.fit.candidates]


def normal(executor: Any) -> Any:
    model = MultivariateNormal(executor=executor).fit(SMALL)
    return np.append(model.mean_, model.covariance_)


def imputer(executor: Any) -> Any:
    """A mixture and its replicates."""
    own = Imputer(model="mixture", n_components=2, n_replicates=3, n_init=1, max_iter=10, random_state=0)
    return own.set_params(executor=executor).fit(SMALL).imputation_.replicates


FITS = [mixture, from_a_sample, grid, normal, imputer]


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
def test_a_pass_at_most_is_repeated_and_no_bit_changes(fit: Callable[[Any], Any], tmp_path: Path) -> None:
    calm = Counting()
    expected = dumps(fit(calm))
    assert calm.passes > 1 or fit is normal
    for crash_in in range(1, calm.passes + 1):
        folder = tmp_path / str(crash_in)
        folder.mkdir()
        first, second = Counting(crash_in=crash_in), Counting(n_threads=3)
        with pytest.raises(Crash):
            fit(JournalExecutor(first, Journal(folder)))
        journal = Journal(folder)
        assert dumps(fit(JournalExecutor(second, journal))) == expected
        assert first.passes + second.passes <= calm.passes + 1
        assert (journal.found > 0) == (crash_in > 1)
        again = Counting()  # what has ended needs nothing
        assert dumps(fit(JournalExecutor(again, Journal(folder)))) == expected
        assert again.passes == 0


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
def test_the_disk_stops_anywhere(tmp_path: Path) -> None:
    calm, whole = Counting(), Disk()
    (tmp_path / "whole").mkdir()
    with through(whole):
        expected = dumps(mixture(JournalExecutor(calm, Journal(tmp_path / "whole"))))
    for crash in range(1, whole.count + 1):
        folder = tmp_path / str(crash)
        folder.mkdir()
        first, second = Counting(), Counting()
        with through(Disk(crash=crash)), pytest.raises(Crash):
            mixture(JournalExecutor(first, Journal(folder)))
        assert dumps(mixture(JournalExecutor(second, Journal(folder)))) == expected
        assert first.passes + second.passes <= calm.passes + 1


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("crash_in", [4, 5, 6, 7])
def test_a_run_that_goes_on_keeps_the_state_that_it_went_on_from(tmp_path: Path, crash_in: int) -> None:
    """Its first checkpoint takes the place of the older one: were it torn, the newer one is still there."""
    calm, first, second, third = Counting(), Counting(crash_in=crash_in), Counting(crash_in=2), Counting()
    expected = dumps(mixture(calm))
    for stopped in (first, second):
        with pytest.raises(Crash):
            mixture(JournalExecutor(stopped, Journal(tmp_path)))
    newest = max(tmp_path.glob("*-[01]"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-7])
    assert dumps(mixture(JournalExecutor(third, Journal(tmp_path)))) == expected
    assert first.passes + second.passes + third.passes == calm.passes + 3  # two that were stopped, and the torn one


def test_what_cannot_be_kept_takes_no_turn(tmp_path: Path) -> None:
    """The next state goes where that one would have gone, and the last that was kept stays until then."""

    class Foreign: ...

    keeper = JournalExecutor(Counting(), Journal(tmp_path))
    assert keeper.resume(0, int) == 0
    for state in (1, Foreign(), 2):
        keeper.keep(state)
    assert sorted(loads(path.read_bytes()) for path in tmp_path.iterdir()) == [1, 2]


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
def test_a_torn_file_costs_a_pass(tmp_path: Path) -> None:
    """Power was lost before what was renamed was on the disk: the state before it is still there."""
    calm, first, second = Counting(), Counting(crash_in=6), Counting()
    expected = dumps(mixture(calm))
    with pytest.raises(Crash):
        mixture(JournalExecutor(first, Journal(tmp_path)))
    newest = max(tmp_path.glob("*-[01]"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-7])
    assert dumps(mixture(JournalExecutor(second, Journal(tmp_path)))) == expected
    assert first.passes + second.passes == calm.passes + 2

"""One suite over both executors: the same table gives the same bits, whoever adds, however many there are, and wherever the blocks are kept.

Clusters are real: processes on this machine, started once for the module.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dask import config as dask_config
from distributed import Client, LocalCluster

from dask_em import GaussianMixture, MixtureModel, few_scans
from dask_em.data.sources import open_source
from dask_em.errors import DataError, ObjectiveDecreasedError, TryAgainError
from dask_em.execution import base, dask, watch
from dask_em.execution.choose import open_executor
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor

ROWS = (1200, 0, 37, 800, 1, 0, 950, 512)
"""Rows of the partitions: uneven, and some of them empty."""

COLUMNS = {"gaussian": ["spend", "visits"], "categorical": ["town"], "poisson": ["children"]}


def table() -> pd.DataFrame:
    """Two groups of customers with holes, and an index that says nothing."""
    rng, n = np.random.default_rng(11), sum(ROWS)
    group = rng.random(n) < 0.4
    frame = pd.DataFrame(
        {
            "key": np.arange(n) + 2**60,
            "spend": np.where(group, 120.0, 40.0) + 25 * rng.standard_normal(n),
            "visits": np.where(group, 4.0, 9.0) + 2 * rng.standard_normal(n),
            "town": pd.array(np.where(rng.random(n) < np.where(group, 0.8, 0.3), "Bern", "Basel"), dtype="string"),
            "children": rng.poisson(np.where(group, 3.0, 1.0)).astype(float),
        }
    )
    for name in ("spend", "visits", "town", "children"):
        frame.loc[rng.random(n) < 0.1, name] = None
    return frame


@contextmanager
def cluster(n_workers: int) -> Iterator[Client]:
    """Workers of one thread; of what two of them hold Dask drops one copy, here at once."""
    with (
        dask_config.set({"distributed.scheduler.active-memory-manager.interval": "20ms"}),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as own,
        Client(own, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[int, Client]]:
    with cluster(1) as one, cluster(2) as two, cluster(3) as three:
        yield {1: one, 2: two, 3: three}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table as Parquet: a file a partition, and row groups of 500 in each; two files hold no row."""
    folder = tmp_path_factory.mktemp("conformance")
    whole, start = pa.Table.from_pandas(table(), preserve_index=False), 0
    for i, n in enumerate(ROWS):
        pq.write_table(whole.slice(start, n), folder / f"part-{i}.parquet", row_group_size=500)
        start += n
    return folder


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of some hundred rows, and tasks that add two sums, so that a small table has a tree worth the name. Both are decided where the fit is driven."""
    monkeypatch.setattr(base, "BLOCK_ROWS", 300)
    monkeypatch.setattr(base, "ROWS_PER_PATTERN", 1)
    monkeypatch.setattr(dask, "FAN_IN", 2)


EXECUTORS = [
    *(f"{n} thread{'s' * (n > 1)}" for n in (1, 2, 3)),
    *(f"{n} worker{'s' * (n > 1)}" for n in (1, 2, 3)),
    "address",
    *(f"2 {who} {tier}" for who in ("threads", "workers") for tier in ("resident", "mapped", "streamed")),
]


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, clients: dict[int, Client]) -> Any:
    """What a user may give as `executor`."""
    if request.param == "address":
        return clients[2].scheduler.address
    n, kind, *tier = request.param.split()
    where = {"blocks": tier[0]} if tier else {}
    if kind.startswith("thread"):
        return LocalExecutor(int(n), **where)
    return DaskExecutor(clients[int(n)], **where) if tier else clients[int(n)]


def model(executor: Any, **settings: Any) -> MixtureModel:
    own: dict[str, Any] = {"n_init": 2, "random_state": 3, "max_iter": 200, **COLUMNS, **settings}
    return MixtureModel(2, executor=executor, **own)


@pytest.fixture(scope="module")
def expected(files: Path) -> MixtureModel:
    """What one thread says, of the files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "BLOCK_ROWS", 300)
        patch.setattr(base, "ROWS_PER_PATTERN", 1)
        return model(LocalExecutor(1)).fit(files)


def assert_same_bits(one: MixtureModel, two: MixtureModel) -> None:
    assert one.log_likelihood_ == two.log_likelihood_
    assert one.n_iter_ == two.n_iter_
    assert one.n_scans_ == two.n_scans_
    for name in ("weights_", "means_", "covariances_", "rates_"):
        assert (getattr(one, name) == getattr(two, name)).all(), name
    assert (one.probabilities_["town"] == two.probabilities_["town"]).all(axis=None)
    pd.testing.assert_frame_equal(one.history_, two.history_, check_exact=True)


def dask_frame(n: Sequence[int] = ROWS) -> Any:
    import dask.dataframe as dd
    from dask import delayed

    whole, edges = table(), np.cumsum([0, *n])
    parts = [whole.iloc[a:b] for a, b in itertools.pairwise(edges)]
    return dd.from_delayed([delayed(p) for p in parts], meta=whole.iloc[:0])


# --- the same bits -----------------------------------------------------------------------------------------------


def test_files_give_the_same_bits(executor: Any, files: Path, expected: MixtureModel) -> None:
    assert len(open_source(str(files)).pieces) > len(ROWS)
    assert_same_bits(model(executor).fit(files), expected)


def test_frames_give_the_same_bits(executor: Any) -> None:
    frame = dask_frame()
    assert_same_bits(model(executor).fit(frame), model(LocalExecutor(1)).fit(frame))


def test_another_cut_of_the_same_rows_gives_the_same_answer(executor: Any, expected: MixtureModel) -> None:
    fitted = model(executor, tol=1e-10).fit(dask_frame((2000, 1500)))
    closer = model(LocalExecutor(1), tol=1e-10).fit(table())
    assert fitted.log_likelihood_ == pytest.approx(closer.log_likelihood_, rel=1e-10)
    np.testing.assert_allclose(fitted.means_, closer.means_, rtol=1e-6)


def test_a_table_in_memory_gives_the_same_bits(executor: Any) -> None:
    frame = table()
    assert_same_bits(model(executor).fit(frame), model(LocalExecutor(2)).fit(frame))


def test_labels_and_weights_travel(executor: Any) -> None:
    frame = table()
    weight, labels = np.arange(len(frame)) % 3, (frame["key"] % 2).to_numpy()
    one, two = (model(e, init=labels).fit(frame, sample_weight=weight) for e in (executor, LocalExecutor(1)))
    assert_same_bits(one, two)


def test_there_are_many_blocks() -> None:
    """The suite would prove little on a tree of one leaf."""
    source = open_source(table())
    units = base.make_units(source.pieces, [len(table())], 4)
    assert sum(u.n_blocks for u in units) > 8


# --- scoring -----------------------------------------------------------------------------------------------------


def test_lazy_scores_are_eager_scores(executor: Any, expected: MixtureModel) -> None:
    frame, lazy = table(), dask_frame()
    fitted = model(executor)
    fitted.__dict__.update({n: v for n, v in vars(expected).items() if n.endswith("_")})
    with open_executor(executor) as opened:
        client = getattr(opened, "client", None)
        for method in ("predict", "predict_proba", "score_samples"):
            eager, promise = getattr(fitted, method)(frame), getattr(fitted, method)(lazy)
            assert promise.npartitions == len(ROWS)
            computed = here = promise.compute(scheduler="synchronous")
            if client is not None:
                computed = client.compute(promise).result()
                assert (np.asarray(computed) == np.asarray(here)).all()
            # Rows in other company may differ in the last bit, which never decides a segment here.
            np.testing.assert_allclose(np.asarray(computed), np.asarray(eager), rtol=1e-12)
            assert method != "predict" or (computed == eager).all()
            assert (computed.index == frame.index).all()
    assert fitted.score(lazy) == pytest.approx(fitted.score(frame), rel=1e-14)


# --- the verbs ---------------------------------------------------------------------------------------------------


def test_map_keeps_the_order(executor: Any) -> None:
    with open_executor(executor) as opened:
        assert opened.map(list("abcdefghij"), _tag) == [f"{i}{c}" for i, c in enumerate("abcdefghij")]
        assert opened.map([], _tag) == []


@dataclass(frozen=True)
class Sized:
    """A piece that tells how large it is."""

    column_bytes: int


@pytest.mark.parametrize(
    ("n_threads", "column_bytes", "readers"), [(2, 1000, 4), (2, 1 << 30, 2), (2, 0, 2), (1, 1000, 1)]
)
def test_twice_as_many_threads_read_small_row_groups(n_threads: int, column_bytes: int, readers: int) -> None:
    executor, pieces = LocalExecutor(n_threads), [Sized(column_bytes)] * 12
    at_work, most, lock = 0, 0, threading.Lock()

    def work(i: int, piece: Any) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.1)
        with lock:
            at_work -= 1
        return 1

    assert executor.reduce(pieces, work) == 12
    assert most == readers
    most = 0
    assert executor.map(pieces, work) == [1] * 12
    assert most == n_threads


def test_reduce_adds_in_the_tree(executor: Any) -> None:
    with open_executor(executor) as opened:
        assert opened.reduce(list("abcdefghij"), _shape) == _Shape("(((ab)(cd))((ef)(gh)))(ij)", ready=True)
        assert opened.reduce(["a"], _shape) == _Shape("a")


def test_what_is_usual_is_what_scans_take(clients: dict[int, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two scans there are many waits for what is done already: they say nothing of how long a scan may take."""
    usual = []

    class Heard(watch.Patience):
        def __init__(self, limits: watch.Limits, seconds: float, now: float) -> None:
            usual.append(seconds)
            super().__init__(limits, seconds, now)

    monkeypatch.setattr(watch, "Patience", Heard)
    executor = DaskExecutor(clients[1])
    for _ in range(2):
        executor.map([0], lambda i, piece: time.sleep(0.8))
        for _ in range(6):
            executor.look(executor.put(0), lambda value: value)
    assert usual[-1] >= 0.8


def test_an_executor_that_was_given_stays_open(clients: dict[int, Client]) -> None:
    with open_executor(clients[1]):
        pass
    assert clients[1].submit(_tag, 1, "a").result() == "1a"


def _shape(i: int, piece: str) -> _Shape:
    assert piece == "abcdefghij"[i]
    return _Shape(piece)


def _tag(i: int, piece: str) -> str:
    return f"{i}{piece}"


class _Shape:
    """A value that remembers in which order it was added."""

    def __init__(self, text: str, ready: bool = False) -> None:
        self.text = f"({text})" if ready else text

    def __add__(self, other: _Shape) -> _Shape:
        return _Shape(self.text + other.text, ready=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return self.text


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_an_error_in_a_task_arrives_as_it_was_raised(executor: Any, tmp_path: Path, files: Path) -> None:
    bad = table()
    bad.loc[3000, "children"] = -1.0
    messages = set()
    for own in (executor, LocalExecutor(1)):
        with pytest.raises(DataError, match="'children' holds negative counts") as caught:
            model(own).fit(bad)
        messages.add(str(caught.value))
    assert len(messages) == 1
    (tmp_path / "a.parquet").write_bytes((files / "part-0.parquet").read_bytes())
    damaged = open_source(str(tmp_path))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is no table PAR1")
    with pytest.raises(DataError, match=r"a\.parquet changed while it was read"):
        model(executor).fit(damaged)


def test_an_error_of_the_m_step_arrives_as_it_was_raised(executor: Any) -> None:
    def fall(state: Any, total: Any) -> Any:
        raise ObjectiveDecreasedError("it fell")

    def scan(opened: Any) -> Any:
        blocks = opened.open(base.make_units([1], [1], 1), lambda unit, pieces: [_Shape("a")])
        return opened.look(opened.fold(blocks, lambda state: lambda block: block, fall, opened.put(None)), str)

    with open_executor(executor) as opened, pytest.raises(ObjectiveDecreasedError, match="it fell"):
        scan(opened)


def test_every_start_collapsed_is_the_same_error(executor: Any) -> None:
    frame = pd.DataFrame({"x": [0.0, 0.0, 0.0, 1.0, 1.0]})
    with pytest.raises(DataError, match="every start with 2 components collapsed"):
        GaussianMixture(2, prior=None, random_state=0, executor=executor).fit(frame)


def test_no_scheduler_at_an_address() -> None:
    with pytest.raises(TryAgainError, match="no scheduler answers"), dask_timeout("1s"):
        model("tcp://127.0.0.1:9").fit(table())


@contextmanager
def dask_timeout(seconds: str) -> Iterator[None]:
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": seconds}):
        yield


# --- scratch files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "workers"])
@pytest.mark.parametrize("fails", [False, True], ids=["a fit", "a fit that fails"])
def test_nothing_is_left_after(
    kind: str, fails: bool, clients: dict[int, Client], files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = {"blocks": "mapped", "scratch": str(tmp_path)}
    own = LocalExecutor(2, **where) if kind == "threads" else DaskExecutor(clients[2], **where)
    seen = []

    def look(record: Any) -> None:
        seen.append(len(list(tmp_path.glob("dask-em-*/blocks-*"))))
        if fails and len(seen) == 2:
            raise KeyboardInterrupt

    with caplog.at_level("INFO", "dask_em"), suppress(KeyboardInterrupt):
        model(own).fit_candidates(files, [2], on_progress=look)
    assert (len(seen) == 2) == fails
    assert min(seen) >= 4
    assert any(line.startswith("blocks are mapped as asked: ") for line in caplog.messages)
    deadline = time.monotonic() + 10
    while list(tmp_path.iterdir()):  # workers hear of it a little later
        assert time.monotonic() < deadline, list(tmp_path.rglob("*"))
        time.sleep(0.02)


def test_files_cut_short_between_scans_cost_no_bit(
    clients: dict[int, Client], files: Path, expected: MixtureModel, tmp_path: Path
) -> None:
    cuts = []

    def cut(record: Any) -> None:
        if not cuts:  # later, some may be in the middle of being written anew
            cuts.extend(tmp_path.glob("dask-em-*/blocks-*"))
            for path in cuts:
                os.truncate(path, 100)

    for own in (
        LocalExecutor(2, blocks="mapped", scratch=str(tmp_path)),
        DaskExecutor(clients[2], blocks="mapped", scratch=str(tmp_path)),
    ):
        fitted = model(own)
        found = fitted.fit_candidates(files, [2], on_progress=cut)
        assert_same_bits(fitted.adopt(found, found.best(2)), expected)
        assert len(cuts) >= 4
        cuts.clear()


def test_workers_whose_scratch_is_unusable_stream(
    clients: dict[int, Client], files: Path, expected: MixtureModel, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    own = DaskExecutor(clients[2], blocks="mapped", scratch=str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="name another folder as scratch") as caught:
        assert_same_bits(model(own).fit(files), expected)
    assert len(caught) == 1


# --- a worker dies -----------------------------------------------------------------------------------------------


class _Noting(DaskExecutor):
    """An executor whose workers note every unit that they encode, and every block that they scan, with the scan it is for."""

    def __init__(self, client: Client, notes: Path, **where: Any) -> None:
        super().__init__(client, **where)
        self.notes = notes

    def open(self, units: Any, encode: Any, row_bytes: int = 0) -> Any:
        return super().open(units, partial(_encode, encode, self.notes), row_bytes)

    def fold(self, blocks: Any, ask: Any, tell: Any, state: Any, *known: Any) -> Any:
        return super().fold(blocks, partial(_ask, ask, self.notes), tell, state, *known)

    def told(self) -> tuple[Counter[str], Counter[str]]:
        """How often each unit was encoded, and how many blocks were scanned in each scan."""
        lines = [line.split() for path in self.notes.iterdir() for line in path.read_text().splitlines()]
        units, scans = (Counter(n for what, n in lines if what == kind) for kind in ("unit", "scan"))
        return units, scans


def _note(notes: Path, line: str) -> None:
    with (notes / str(os.getpid())).open("a") as file:
        file.write(f"{line}\n")


def _encode(encode: Any, notes: Path, unit: Any, pieces: Any) -> Any:
    _note(notes, f"unit {unit.first_block}")
    return encode(unit, pieces)


def _ask(ask: Any, notes: Path, state: Any) -> Any:
    step = ask(state)
    if step is None:
        return None
    scan = max(s.n_scans for s in state.states) + 1

    def noted(block: Any) -> Any:
        _note(notes, f"scan {scan}")
        return step(block)

    return noted


def kill_a_worker(client: Client) -> None:
    """Kill the worker that holds most."""
    pids = client.run(os.getpid)
    holders = [address for addresses in client.who_has().values() for address in addresses]
    victim = max(sorted(pids), key=holders.count)
    os.kill(pids[victim], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while victim in client.scheduler_info()["workers"]:
        assert time.monotonic() < deadline, "the scheduler did not notice"
        time.sleep(0.05)


@pytest.mark.parametrize("tier", ["resident", "mapped", "streamed"])
def test_a_killed_worker_costs_its_blocks_and_one_scan_at_most(
    tier: str, files: Path, expected: MixtureModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As slow scans have it: the state of each is brought here."""
    monkeypatch.setattr(few_scans, "PATIENCE", 0.0)
    killed = 4

    def look(record: Any) -> None:
        if record.scan == killed:
            kill_a_worker(client)

    with cluster(2) as client:
        own = _Noting(client, tmp_path, blocks=tier)
        fitted = model(own)
        found = fitted.fit_candidates(files, [2], on_progress=look)
    assert_same_bits(fitted.adopt(found, found.best(2)), expected)
    units, scans = own.told()
    n_blocks, last = scans["1"], found.n_scans - 1
    assert n_blocks > 8
    assert last > killed + 2, "the fit was over before the worker was killed"
    assert scans.keys() == {str(i) for i in range(1, last + 1)}, "a state that is done was scanned for"
    assert all(scans[str(i)] == n_blocks for i in range(1, last + 1) if i != killed)
    assert scans[str(killed)] <= 2 * n_blocks
    if tier != "streamed":
        assert max(units.values()) <= 2
        assert sum(units.values()) < 2 * len(units), "the other worker's blocks were lost too"


def test_a_worker_killed_while_scans_are_ahead_costs_no_bit(files: Path, expected: MixtureModel) -> None:
    """As fast scans have it: the next one is under way."""
    with cluster(2) as client:
        fitted = model(client)
        found = fitted.fit_candidates(
            files, [2], on_progress=lambda record: kill_a_worker(client) if record.scan == 3 else None
        )
    assert_same_bits(fitted.adopt(found, found.best(2)), expected)

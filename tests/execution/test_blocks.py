"""Blocks in three tiers: the same blocks whichever it is, and what happens to a scratch file is never the user's trouble."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dask_em.execution.base import Unit
from dask_em.execution.blocks import Mapped, Recipe, make_run
from dask_em.execution.local import LocalExecutor
from dask_em.execution.scratch import Folder, folder_below
from dask_em.scan import Block

ROWS = (700, 3, 1200)
"""Rows of the blocks."""


def make_block(n: int) -> Block:
    """A block with every kind of array, some of them empty."""
    rng = np.random.default_rng(n)
    values = (rng.standard_normal((3, n)), rng.integers(-1, 4, (2, n)).astype(np.int16), np.empty((0, n)))
    masks, runs = np.array([[True, False, True], [True, True, True]]), np.array([0, n // 3, n])
    replicates = rng.poisson(1.0, (4, n)).astype(np.uint8)
    return Block(values, rng.random(n), rng.random(n), masks, runs, None, replicates)


def encode(counter: Path, unit: Unit, pieces: Any) -> list[Block]:
    """Count that blocks were made, here or in another process."""
    with counter.open("a") as lines:
        lines.write(f"{unit.first_block}\n")
    return [make_block(unit.rows)]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tuple(Unit((), n, i, 1) for i, n in enumerate(ROWS)), partial(encode, tmp_path / "count"))


@pytest.fixture
def made(tmp_path: Path) -> Callable[[], int]:
    """How many blocks were made so far."""
    return lambda: len((tmp_path / "count").read_text().splitlines())


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def assert_same_blocks(run: Any) -> None:
    n = 0
    for block, rows in zip(run, ROWS, strict=True):
        for field in fields(Block):
            one, two = getattr(block, field.name), getattr(make_block(rows), field.name)
            for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (one, two)), strict=True):
                assert (a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)), field.name
        n += 1
    assert n == len(ROWS)


def only_file(scratch: Path) -> Path:
    (found,) = scratch.glob("dask-em-*/blocks-*")
    return found


@pytest.mark.parametrize(("tier", "times"), [("resident", 1), ("mapped", 1), ("streamed", 3)])
def test_every_scan_sees_the_same_blocks(
    tier: Any, times: int, recipe: Recipe, scratch: Path, made: Callable[[], int]
) -> None:
    run = make_run(tier, recipe, partial(str, scratch))
    for _ in range(3):
        assert_same_blocks(run)
    assert made() == times * len(ROWS)
    run.release()
    assert not list(scratch.glob("*/blocks-*"))


# --- what happens to a scratch file ------------------------------------------------------------------------------


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def replace(path: Path) -> None:
    other = path.rename(path.with_name("other"))
    path.write_bytes(other.read_bytes()[::-1])
    os.utime(path, ns=(other.stat().st_mtime_ns,) * 2)


@pytest.mark.parametrize("damage", [cut_short, overwrite, replace, os.unlink])
def test_a_damaged_file_is_written_anew(
    damage: Callable[[Path], None], recipe: Recipe, scratch: Path, made: Callable[[], int]
) -> None:
    run = Mapped(recipe, partial(str, scratch))
    assert_same_blocks(run)
    damage(only_file(scratch))
    for _ in range(2):
        assert_same_blocks(run)
    assert made() == 2 * len(ROWS)
    assert run.trouble is None


def test_a_file_that_is_cut_short_while_it_is_read(recipe: Recipe, scratch: Path, made: Callable[[], int]) -> None:
    run = Mapped(recipe, partial(str, scratch))
    assert_same_blocks(run)

    def cut_after_the_first() -> Iterator[Block]:
        blocks = iter(run)
        yield next(blocks)
        os.truncate(only_file(scratch), 64)
        yield from blocks

    assert_same_blocks(cut_after_the_first())
    assert_same_blocks(run)
    assert made() == 2 * len(ROWS)


@pytest.mark.parametrize("first", ["copy", "run"])
def test_a_copy_has_its_own_name_for_the_file(
    first: str, recipe: Recipe, scratch: Path, made: Callable[[], int]
) -> None:
    """Of two workers that hold a run, Dask keeps either."""
    run = Mapped(recipe, partial(str, scratch))
    assert_same_blocks(run)
    stored = pickle.dumps(run)
    copy = pickle.loads(stored)
    assert_same_blocks(copy)
    gone, kept = (copy, run) if first == "copy" else (run, copy)
    gone.release()
    assert_same_blocks(kept)
    assert made() == len(ROWS)
    kept.release()
    assert not list(scratch.glob("*/blocks-*"))
    # And where the file is not, as on another host, it makes its own.
    assert_same_blocks(pickle.loads(stored))
    assert made() == 2 * len(ROWS)


def test_a_scan_that_fails_leaves_no_file(recipe: Recipe, scratch: Path) -> None:
    run = Mapped(recipe, partial(str, scratch))
    blocks = iter(run)
    next(blocks)
    assert only_file(scratch).exists()
    blocks.close()
    assert not list(scratch.glob("*/blocks-*"))
    assert_same_blocks(run)


def test_nothing_is_left_when_nobody_holds_it(recipe: Recipe, scratch: Path) -> None:
    run = Mapped(recipe, partial(str, scratch))
    assert_same_blocks(run)
    assert len(list(scratch.iterdir())) == 1
    del run
    assert not list(scratch.iterdir())


# --- a scratch folder that cannot be used ------------------------------------------------------------------------


def assert_streamed(run: Mapped, scratch: Path, reason: str, made: Callable[[], int]) -> None:
    for _ in range(2):
        assert_same_blocks(run)
    assert made() == 2 * len(ROWS)
    assert run.trouble is not None
    assert run.trouble.startswith(f"{scratch} cannot hold the encoded blocks ({reason})")
    assert "name another folder as scratch" in run.trouble
    assert not list(scratch.glob("*/blocks-*"))


@pytest.fixture
def small_files() -> Iterator[None]:
    """A limit of 20 kB on what may be written to a file, which fails like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_streams(small_files: None, recipe: Recipe, scratch: Path, made: Callable[[], int]) -> None:
    assert_streamed(Mapped(recipe, partial(str, scratch)), scratch, "File too large", made)


def test_a_folder_that_is_a_file_streams(recipe: Recipe, scratch: Path, made: Callable[[], int]) -> None:
    scratch.write_text("no folder")
    assert_streamed(Mapped(recipe, partial(str, scratch)), scratch, "File exists", made)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_streams(recipe: Recipe, scratch: Path, made: Callable[[], int]) -> None:
    scratch.mkdir(mode=0o500)
    assert_streamed(Mapped(recipe, partial(str, scratch)), scratch, "Permission denied", made)


def test_the_user_is_told_once(small_files: None, recipe: Recipe, scratch: Path) -> None:
    executor = LocalExecutor(2, blocks="mapped", scratch=str(scratch))
    blocks = executor.open(recipe.units, recipe.encode)

    def rows() -> int:
        handle = executor.fold(blocks, lambda state: lambda block: block.n_rows, lambda state, total: total, None)
        return executor.look(handle, int)

    with pytest.warns(UserWarning, match="name another folder as scratch") as caught:
        assert rows() == sum(ROWS)
    assert len(caught) == 1
    assert rows() == sum(ROWS)


# --- folders of processes that are gone --------------------------------------------------------------------------

HOLD = """
import sys, time
from dask_em.execution.scratch import folder_below
held = folder_below(sys.argv[1])
open(held.path + "/blocks-x", "wb").write(bytes(1000))
print(held.path, flush=True)
time.sleep(60)
"""


def test_what_a_crash_left_behind_is_deleted(scratch: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        strange = scratch / "dask-em-notes"
        strange.mkdir()
        own = Folder(str(scratch))
        assert theirs.is_dir(), "its process lives"
        process.send_signal(signal.SIGKILL)
    assert theirs.is_dir(), "nobody has looked yet"
    other = Folder(str(scratch))
    assert not theirs.exists()
    assert {Path(f.path) for f in (own, other)} | {strange} == set(scratch.iterdir())


def test_a_process_that_ends_leaves_nothing(scratch: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD.replace("time.sleep(60)", ""), str(scratch)], check=True)
    assert not list(scratch.iterdir())


def test_a_fork_does_not_delete_what_its_parent_uses(scratch: Path) -> None:
    code = "import os\nfrom dask_em.execution.scratch import folder_below\nheld = folder_below({!r})\nif os.fork():\n    os.wait()\n    print(os.path.isdir(held.path))"
    done = subprocess.run([sys.executable, "-c", code.format(str(scratch))], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert not list(scratch.iterdir())


def test_one_folder_a_process(scratch: Path) -> None:
    one = folder_below(str(scratch))
    assert folder_below(str(scratch)) is one
    os.rename(one.path, f"{one.path}-away")
    assert folder_below(str(scratch)) is not one

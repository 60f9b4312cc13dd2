"""Where the encoded blocks of a run of units live, in three tiers.

    Resident   in memory
    Mapped     in a scratch file, encoded once and read back in every later scan
    Streamed   nowhere: units are read and encoded again in every scan

Iterating gives the blocks of the run in order and the same bits whichever tier it is, each block valid until the next one is asked for. Whoever keeps less than all
blocks in memory carries the recipe of the run, so that a copy can make the blocks again wherever it is.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from dask_em.execution.base import Unit
from dask_em.execution.scratch import ScratchFile, Writer
from dask_em.execution.tiers import Tier
from dask_em.execution.tree import Node, insert

Encode = Callable[[Unit, Sequence[Any]], list[Any]]

log = logging.getLogger("dask_em")


@dataclass(frozen=True)
class Recipe:
    """How the blocks of a run are made."""

    units: tuple[Unit, ...]
    encode: Encode

    def __iter__(self) -> Iterator[Any]:
        """The blocks in order; a helper reads and encodes the next unit while those of one are used, for storage may answer slowly."""
        with ThreadPoolExecutor(1, "dask-em-ahead") as helper:
            ahead = helper.submit(self._encoded, 0)
            for i in range(1, len(self.units) + 1):
                blocks = ahead.result()
                if i < len(self.units):
                    ahead = helper.submit(self._encoded, i)
                yield from blocks

    def _encoded(self, i: int) -> list[Any]:
        return self.encode(self.units[i], self.units[i].pieces)

    def __sizeof__(self) -> int:
        return 256 + sum(sys.getsizeof(piece) for unit in self.units for piece in unit.pieces)


class Resident:
    """Blocks in memory, encoded in the first scan, while they are in cache; the recipe is not kept longer than it is needed."""

    trouble = None

    def __init__(self, recipe: Recipe) -> None:
        self._recipe: Recipe | None = recipe
        self._blocks: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        if self._recipe is None:
            yield from self._blocks
            return
        blocks = []
        for block in self._recipe:
            blocks.append(block)
            yield block
        self._blocks, self._recipe = blocks, None

    def release(self) -> None:
        """Forget the blocks."""
        self._blocks, self._recipe = [], None

    def __sizeof__(self) -> int:
        return 256 + sum(map(sys.getsizeof, self._blocks))


class Streamed:
    """Nothing but the recipe."""

    trouble = None

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __iter__(self) -> Iterator[Any]:
        return iter(self._recipe)

    def release(self) -> None:
        """Nothing is held."""

    def __sizeof__(self) -> int:
        return sys.getsizeof(self._recipe)


class Mapped:
    """A scratch file, written in the first scan; where it is missing, damaged or on another host it is written anew.

    Parameters
    ----------
    place : the folder for scratch files, asked for where the file is written

    Attributes
    ----------
    trouble : why the file cannot be written and blocks are streamed, in a sentence; None where all is well
    """

    def __init__(self, recipe: Recipe, place: Callable[[], str]) -> None:
        self._recipe, self._place = recipe, place
        self._file: ScratchFile | None = None
        self.trouble: str | None = None

    def __iter__(self) -> Iterator[Any]:
        done = 0
        if self._file is not None:
            try:
                for block in self._file:
                    yield block
                    done += 1
                return
            except OSError as error:
                log.info("scratch file %s is written anew: %s", self._file.path, error)
                self.release()
        yield from islice(self._written(), done, None)

    def _written(self) -> Iterator[Any]:
        """The blocks from the recipe, each in the file before it is used."""
        writer = None
        if self.trouble is None:
            with self._or_streamed():
                writer = Writer(self._place())
        try:
            for block in self._recipe:
                if writer is not None and self.trouble is None:
                    with self._or_streamed():
                        writer.add(block)
                yield block
            if writer is not None and self.trouble is None:
                with self._or_streamed():
                    self._file = writer.close()
        finally:
            if writer is not None and self._file is None:
                writer.discard()

    @contextmanager
    def _or_streamed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.trouble = (
                f"{self._place()} cannot hold the encoded blocks ({error.strerror or error}), so that the table is read again in every scan: "
                "make room there, or name another folder as scratch"
            )

    def release(self) -> None:
        """Delete the file."""
        if self._file is not None and self._file.delete is not None:
            self._file.delete()
        self._file = None

    def __sizeof__(self) -> int:
        return sys.getsizeof(self._recipe)


Run = Resident | Mapped | Streamed


def make_run(tier: Tier, recipe: Recipe, place: Callable[[], str]) -> Run:
    """A run in this tier; `place` is where scratch files go."""
    if tier == "mapped":
        return Mapped(recipe, place)
    return Resident(recipe) if tier == "resident" else Streamed(recipe)


def walk(run: Run, first: int, step: Callable[[Any], Any]) -> dict[Node, Any]:
    """The sums of a function over the blocks of a run, the first of which has this number, by complete subtrees."""
    nodes: dict[Node, Any] = {}
    for i, block in enumerate(run, first):
        insert(nodes, (0, i), step(block))
    return nodes


def warn_of_trouble(troubles: Iterable[str | None]) -> None:
    """Say once why blocks are streamed that were to be kept."""
    for trouble in filter(None, troubles):
        warnings.warn(trouble, UserWarning, stacklevel=2)
        break

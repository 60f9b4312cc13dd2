"""A checksum that every small change alters, the same in compiled and in plain code."""

from __future__ import annotations

import numpy as np
import pytest

from dask_em import kernels
from dask_em.checksum import SIZE, checksum

RNG = np.random.default_rng(5)
SIZES = (0, 1, 7, 8, SIZE - 1, SIZE, SIZE + 1, 40 * SIZE + 3, 1024 * SIZE)


@pytest.mark.parametrize("size", SIZES)
def test_compiled_code_gives_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    data = RNG.bytes(size)
    found = set()
    for loaded in (True, False):
        monkeypatch.setattr(kernels, "is_loaded", lambda own=loaded: own)
        found.add(checksum(data))
    assert len(found) == 1


def test_it_stays_what_it_is() -> None:
    """Checkpoints hold it."""
    assert checksum(bytes(range(256)) * 100) == 11595361300981752962


def changes(data: bytes) -> dict[str, bytes]:
    """What might become of the cells of a column, as it is stored."""
    cells, end = np.frombuffer(data[5:-3]).copy(), len(data)
    swapped, moved, one = cells.copy(), cells.copy(), bytearray(data)
    swapped[[10, 20_000]] = swapped[[20_000, 10]]
    moved[[3, 5000]] += (1.0, -1.0)
    one[end // 2] ^= 1
    own = {"negated": -cells, "swapped": swapped, "moved": moved, "shifted": np.roll(cells, 1)}
    whole = {name: data[:5] + values.tobytes() + data[-3:] for name, values in own.items()}
    blocks = data[SIZE : 2 * SIZE] + data[:SIZE] + data[2 * SIZE :]
    return whole | {"bit": bytes(one), "longer": data + b"\0", "shorter": data[:-1], "blocks": blocks}


@pytest.mark.parametrize("kind", ["numbers", "whole numbers", "zeros"])
def test_every_change_is_seen(kind: str) -> None:
    cells = RNG.normal(size=30_000)
    cells = {"numbers": cells, "whole numbers": np.rint(5 * cells), "zeros": 0 * cells}[kind]
    data = b"head:" + cells.tobytes() + b"end"
    sums = {name: checksum(own) for name, own in changes(data).items() if own != data}
    assert len(set(sums.values()) | {checksum(data)}) == len(set(changes(data).values()) | {data})


def test_bits_are_spread() -> None:
    """Flipping any two bits of a block gives something else than flipping any other two."""
    data = bytearray(RNG.bytes(SIZE))
    found = set()
    for _ in range(20_000):
        own = bytearray(data)
        for bit in RNG.choice(8 * SIZE, 2, replace=False):
            own[bit // 8] ^= 1 << (bit % 8)
        found.add(checksum(bytes(own)))
    assert len(found) == 20_000

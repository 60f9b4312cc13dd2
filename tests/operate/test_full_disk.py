"""The disk of the output is full, at every size that is too small: a sentence, exit code 75, and the old output as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

BIN = Path(sys.executable).parent / "dask-em"

JOB = """\
pipeline: customer_segmentation
level: people
output: out
levels:
  people:
    source: {kind: table, path: people.parquet}
    key: id
    n_components: [2]
    model: {gaussian: [x, y], n_init: 1}
cluster: {CLUSTER}
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Any]:
    """A disk whose size can be set."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk of a certain size")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("this machine mounts nothing")

    def resize(kilobytes: int) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", place], check=True)
        return place

    yield resize
    subprocess.run(["umount", "-l", place], check=True)


def run(home: Path, output: Path, *flags: str) -> tuple[int, str]:
    command = [BIN, "run", "job.yaml", "--quiet", "--set", f"output={output}", "--resume", "--replace", *flags]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=200)
    return done.returncode, "".join(line for line in done.stderr.splitlines(True) if line.startswith("dask-em"))


def used(place: Path) -> int:
    """Kilobytes."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_bsize // 1024


@pytest.mark.faults
@pytest.mark.parametrize("cluster", ["executor: local", "n_workers: 2"], ids=["threads", "processes"])
def test_a_full_disk(tmp_path: Path, small: Any, cluster: str) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": range(40_000), "x": rng.normal(size=40_000), "y": rng.normal(size=40_000)})
    frame.to_parquet(tmp_path / "people.parquet", row_group_size=5000)
    (tmp_path / "job.yaml").write_text(JOB.replace("CLUSTER", cluster))
    output = small(16_000) / "out"
    code, stderr = run(tmp_path, output, "--set", "levels.people.n_components=[1]")
    assert code == 0, stderr
    before = (output / "manifest.json").read_bytes()
    base = used(output)
    codes = []
    for room in (8, 100, 400, 800, 1200, 1600, 2400, 8000):
        small(max(base + room, used(output) + 4))
        code, stderr = run(tmp_path, output)
        codes.append(code)
        if code == 0:
            break
        assert code == 75, stderr
        assert stderr.count("\n") == 1
        assert "make room" in stderr
        assert (output / "manifest.json").read_bytes() == before
        for name, entry in json.loads(before)["files"].items():
            assert (output / name).stat().st_size == entry["bytes"]
    assert codes[0] == 75
    assert codes[-1] == 0
    assert len(codes) > 3
    assert json.loads((output / "run.json").read_text())["facts"]["n_components"] == 2
    assert [p.name for p in output.parent.iterdir()] == ["out"]

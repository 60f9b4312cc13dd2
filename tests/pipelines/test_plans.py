"""What `--dry-run` says of rows, bytes, memory and scans, without reading a row, and that a run keeps to it."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dask_em.config import ClusterConfig, Job, load
from dask_em.data.encode import encode_fit, row_bytes
from dask_em.data.files import ParquetPiece
from dask_em.data.raster import Raster
from dask_em.data.schema import Design, Schema
from pipelines import plans
from tests.images import pictures

ROWS, PARTS = 24_000, 3

SEGMENTS = """\
pipeline: customer_segmentation
level: people
levels:
  people:
    source: {kind: table, path: TABLE}
    key: id
    n_components: [2, 3]
    model: {gaussian: [spend, visits], poisson: [gifts], n_init: 1, tol: 1.0e-15, acceleration: null}
"""

SURVEY = """\
pipeline: survey_imputation
survey: people
surveys:
  people:
    source: {kind: table, path: TABLE}
    key: id
    imputer: {n_replicates: 2, columns: [spend, visits]}
draws: 2
"""

PICTURE = """\
pipeline: image_segmentation
picture: one
pictures:
  one: {source: {kind: file, path: PICTURE}, n_segments: 3, n_init: 1, max_iter: 3, tol: 1.0e-15}
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of some row groups; every fourth visits is missing, and no two rows are alike."""
    rng = np.random.default_rng(1)
    spend = rng.gamma(2.0, 10.0, ROWS)
    visits = np.where(np.arange(ROWS) % 4 > 0, spend + rng.normal(size=ROWS), np.nan)
    table = pa.table({"id": np.arange(ROWS), "spend": spend, "visits": visits, "gifts": rng.poisson(3.0, ROWS)})
    path = tmp_path_factory.mktemp("people") / "people.parquet"
    pq.write_table(table, path, row_group_size=ROWS // PARTS)
    return path


def job(text: str, folder: Path, *options: str) -> Any:
    """The settings of a job, and its pipeline."""
    own: Any = Job
    (folder / "job.yaml").write_text(f"{text}output: {folder / 'out'}\n")
    config = load(folder / "job.yaml", own, options)
    return config, import_module(f"pipelines.{config.pipeline}")


def plan_of(text: str, folder: Path, *options: str) -> dict[str, Any]:
    config, pipeline = job(text, folder, *options)
    plan: dict[str, Any] = pipeline.plan(config)
    return plan


def passes_of(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """How often a run with streamed blocks reads every part of its table."""
    read: Counter[int] = Counter()
    one = ParquetPiece._read

    def counted(piece: ParquetPiece, columns: Any, marking: bool) -> Any:
        read[piece.row_group] += 1
        return one(piece, columns, marking)

    monkeypatch.setattr(ParquetPiece, "_read", counted)
    config, pipeline = job(text, folder, *options, "cluster.blocks=streamed")
    pipeline.run(config, progress=lambda record: None)
    assert len(read) == PARTS
    return min(read.values())


def test_a_segmentation(people: Path, tmp_path: Path) -> None:
    plan = plan_of(SEGMENTS.replace("TABLE", str(people)), tmp_path)
    assert plan["table"] == {"rows": ROWS, "bytes": people.stat().st_size, "partitions": PARTS}
    assert plan["memory"]["blocks"] == "resident"
    assert plan["memory"]["block_bytes"] == plan["memory"]["memory_per_worker"] == ROWS * (3 * 8 + 16)
    assert plan["memory"]["reading_per_thread"] == 4 * 3 * 8 * ROWS // PARTS
    assert plan["scans"] == {"at_least": 4, "at_most": 1005}


@pytest.mark.parametrize("text", [SEGMENTS, SURVEY])
def test_nothing_but_the_footer_is_read(text: str, people: Path, tmp_path: Path) -> None:
    told = plan_of(text.replace("TABLE", str(people)), tmp_path)
    content = bytearray(people.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = bytes(len(content) - 4 - footer)
    (tmp_path / "blank.parquet").write_bytes(content)
    again = plan_of(text.replace("TABLE", str(tmp_path / "blank.parquet")), tmp_path)
    for plan in (told, again):
        del plan["memory"]["memory_for_blocks"]  # what this machine has from one moment to the next
    assert again == told


@pytest.mark.parametrize("max_iter", [1, 4])
def test_a_segmentation_scans_as_often_as_it_says(
    max_iter: int, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, option = SEGMENTS.replace("TABLE", str(people)), f"levels.people.model.max_iter={max_iter}"
    scans = plan_of(text, tmp_path, option)["scans"]
    with pytest.warns(UserWarning, match="reached max_iter"):
        assert passes_of(text, tmp_path, monkeypatch, option) == scans["at_most"] == 5 + max_iter


def test_a_segmentation_of_rows_that_are_alike_is_collapsed(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pq.read_table(people)
    path = tmp_path / "alike.parquet"
    pq.write_table(table.set_column(1, "spend", pa.array(np.arange(ROWS) % 7.0)), path, row_group_size=ROWS // PARTS)
    text = SEGMENTS.replace("TABLE", str(path)).replace("spend, visits", "spend").replace("1.0e-15", "1.0e-3")
    assert passes_of(text, tmp_path, monkeypatch) == plan_of(text, tmp_path)["scans"]["at_least"]


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("options", [(), ("model=mixture", "max_iter=3", "n_components=2"), ("key=null",)])
def test_a_survey_scans_as_often_as_it_says(
    options: tuple[str, ...], people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SURVEY.replace("TABLE", str(people))
    whole = [f"surveys.people.{'' if 'key' in own else 'imputer.'}{own}" for own in options]
    scans = plan_of(text, tmp_path, *whole)["scans"]
    passes = passes_of(text, tmp_path, monkeypatch, *whole)
    assert scans["at_least"] <= passes <= scans["at_most"]


def test_a_normal_survey_keeps_nothing(people: Path, tmp_path: Path) -> None:
    plan = plan_of(SURVEY.replace("TABLE", str(people)), tmp_path, "surveys.people.imputer.model=normal")
    assert plan["scans"] == {"at_least": 4, "at_most": 6}
    assert plan["memory"]["block_bytes"] == plan["memory"]["scratch_bytes"] == 0


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize(("features", "scans"), [("[]", (2, 2)), ("[position]", (4, 7))])
def test_a_picture_is_read_as_often_as_it_says(
    features: str, scans: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pictures.painted(10.0)
    text = PICTURE.replace("PICTURE", str(pictures.tiff(tmp_path / "regions.tif", pixels)))
    option = f"pictures.one.features={features}"
    plan = plan_of(text, tmp_path, option)
    assert plan["scans"] == dict(zip(("at_least", "at_most"), scans, strict=True))
    columns = 3 if features == "[]" else 5
    assert plan["memory"]["block_bytes"] == pixels[..., 0].size * (8 * columns + 16)
    read, one = [], Raster.read
    monkeypatch.setattr(Raster, "read", lambda self, window: read.append(window) or one(self, window))
    config, pipeline = job(text, tmp_path, option, "cluster.blocks=streamed")
    pipeline.run(config, progress=lambda record: None)
    assert scans[0] <= len(read) <= scans[1]


def test_coins_scan_nothing(tmp_path: Path) -> None:
    text = "pipeline: coin_flips\none_coin: {flips: [1, 0], start: 0.5, n_steps: 3}\n"
    text += "two_coins: {tosses: 10, heads: [5, 9], start: [0.6, 0.5], n_steps: 2}\n"
    assert plan_of(text, tmp_path)["scans"] == {"at_least": 0, "at_most": 0}


def test_of_text_the_bytes_alone_are_known(people: Path, tmp_path: Path) -> None:
    pyarrow.csv.write_csv(pq.read_table(people), tmp_path / "people.csv")
    plan = plan_of(SEGMENTS.replace("TABLE", str(tmp_path / "people.csv")), tmp_path)
    assert plan["table"] == {"rows": None, "bytes": (tmp_path / "people.csv").stat().st_size, "partitions": 1}
    assert plan["scans"] == {"at_least": 4, "at_most": 1005}
    unknown = [plan["memory"][name] for name in ("blocks", "block_bytes", "memory_per_worker", "scratch_bytes")]
    assert unknown == [None] * 4


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({}, {"workers": 1, "blocks": "resident", "memory_per_worker": 800, "scratch_bytes": 0}),
        ({"blocks": "mapped"}, {"blocks": "mapped", "memory_per_worker": 0, "scratch_bytes": 800}),
        ({"blocks": "streamed"}, {"blocks": "streamed", "memory_per_worker": 0, "scratch_bytes": 0}),
        ({"n_workers": 4}, {"workers": 4, "blocks": "resident", "memory_per_worker": 200, "scratch_bytes": 0}),
        (
            {"scheduler": "tls://host:8786"},
            {"workers": None, "blocks": None, "memory_per_worker": None, "scratch_bytes": None},
        ),
        (
            {"class": "some.Cluster", "workers": 8, "blocks": "resident"},
            {"workers": 8, "blocks": "resident", "memory_per_worker": 100, "memory_for_blocks": None},
        ),
    ],
)
def test_memory_of_a_worker(cluster: dict[str, Any], told: dict[str, Any]) -> None:
    found = plans.memory(ClusterConfig(**cluster), 800)
    assert {name: found[name] for name in told} == told


def test_more_than_fits_is_not_resident() -> None:
    most = plans.memory(ClusterConfig(), 0)["memory_for_blocks"]
    assert plans.memory(ClusterConfig(), 2 * most)["blocks"] in ("mapped", "streamed")
    assert plans.memory(ClusterConfig(), 10**18)["blocks"] == "streamed"


def test_an_encoded_row_is_as_large_as_it_says() -> None:
    design = Design(("a", "b"), ("c",), ("d",), (("e", 9),), weight="w", labels="l")
    schema = Schema(design, (0.0, 0.0), (1.0, 1.0), (("x", "y"),))
    table = pa.table({"a": [1.0], "b": [2.0], "c": ["y"], "d": [3], "e": [4], "w": [1.0], "l": [0]})
    for single in (False, True):
        (block,) = encode_fit(table, schema, None, 1, False, np.ones((7, 1), np.uint8), single)
        arrays = (*block.values, block.weight, block.base, block.labels, block.replicates)
        assert row_bytes(design, 7, single) == sum(own.nbytes for own in arrays)

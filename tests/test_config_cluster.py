"""The section `cluster`: exactly one way to say where work is done, and encryption unless somebody says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from dask_em.config import ClusterConfig, Job, load
from dask_em.errors import ConfigurationError

COINS = """\
pipeline: image_segmentation
picture: flower
pictures: {flower: {source: {kind: sample, name: flower}}}
output: out
"""

FILES = "security: {ca_file: ca.pem, cert_file: own.pem}"


def cluster(folder: Path, text: str) -> ClusterConfig:
    path = folder / "job.yaml"
    path.write_text(f"{COINS}cluster: {{{text}}}\n", encoding="utf-8")
    return load(path, Job).cluster


@pytest.mark.parametrize(
    ("text", "executor"),
    [
        ("", "local"),
        ("executor: dask", "dask"),
        ("n_workers: 2", "dask"),
        ("scheduler: 'tls://here:1'", "dask"),
        ("scheduler: 'wss://here:1', " + FILES, "dask"),
        ("scheduler: 'tcp://here:1', insecure: true", "dask"),
        ("class: a.B", "dask"),
        ("class: a.b.C, workers: 2, options: {cores: 1, list: [1, {x: null}]}, " + FILES, "dask"),
        ("class: a.B, adaptive: {minimum: 1, maximum: 9}, insecure: true", "dask"),
        ("executor: dask, worker_ttl: 5, no_workers: 1.5, stalled: 30, tcp_timeout: 11", "dask"),
    ],
)
def test_each_way_by_itself(tmp_path: Path, text: str, executor: str) -> None:
    config = cluster(tmp_path, text)
    assert config.executor == executor
    assert ClusterConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("executor: local, n_workers: 2", "n_workers: n_workers needs executor dask: remove one of the two"),
        ("executor: local, class: a.B", "class: class needs executor dask"),
        ("n_workers: 2, scheduler: 'tls://here:1'", "n_workers: n_workers and scheduler exclude each other"),
        ("class: a.B, scheduler: 'tls://here:1'", "class: class and scheduler exclude each other: remove one"),
        ("class: a.B, n_workers: 2", "n_workers: n_workers and class exclude each other"),
        ("class: a.B, workers: 2, adaptive: {minimum: 1, maximum: 2}", "adaptive: adaptive and workers exclude"),
        ("workers: 2", "workers: is only for a class: add one, or remove this key"),
        ("adaptive: {minimum: 1, maximum: 2}", "adaptive: is only for a class"),
        ("scheduler: 'tls://here:1', options: {x: 1}", "options: is only for a class"),
        ("n_workers: 1, " + FILES, "security: is only for a scheduler or a class"),
        ("insecure: true, scheduler: 'tcp://here:1', " + FILES, "security: security and insecure exclude each other"),
        ("insecure: true", "insecure is only for a scheduler or a class"),
        ("scheduler: 'tcp://here:1'", "scheduler: is not encrypted: give a tls:// address, or say insecure: true"),
        ("scheduler: 'here:1'", "scheduler: is not encrypted"),
        ("class: SLURMCluster", "class: "),
        ("class: 'os;system', workers: 1", "class: "),
        ("class: a.B, adaptive: {minimum: 0, maximum: 2}", "adaptive.minimum: must be greater than or equal to 1"),
        ("class: a.B, adaptive: {minimum: 3, maximum: 2}", "adaptive.maximum: must not be below minimum"),
        ("executor: dask, tcp_timeout: 10", "tcp_timeout: must be greater than or equal to 11"),
        ("executor: dask, worker_ttl: 0", "worker_ttl: must be greater than 0"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cluster(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert f"cluster.{complaint}" in lines[0] or f"cluster: {complaint}" in lines[0]

"""Storage behind a URL that is no kind of storage, refuses, or does not answer: a sentence, and the exit code that fits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dask_em.data.files import File, ParquetPiece
from dask_em.data.sources import open_source
from dask_em.errors import ConfigurationError, DaskEMError, DataError, TryAgainError

CLOSED = "http://127.0.0.1:1"
S3: dict[str, Any] = {"client_kwargs": {"endpoint_url": CLOSED}, "config_kwargs": {"retries": {"max_attempts": 0}}}

ADDRESSES: dict[str, tuple[str, dict[str, Any], type[DaskEMError], str]] = {
    "of no kind": ("foo://x/y.parquet", {}, ConfigurationError, "foo://"),
    "of a kind that is not installed": ("gs://x/y.parquet", {}, ConfigurationError, "install"),
    "nobody listens": (f"{CLOSED}/shop.parquet", {}, TryAgainError, "shop.parquet does not answer"),
    "nobody listens, a folder": (f"{CLOSED}/shop/", {}, TryAgainError, "does not answer"),
    "nobody listens, an object store": ("s3://shop/a.parquet", {"anon": True, **S3}, TryAgainError, "does not answer"),
    "no credentials": ("s3://shop/a.parquet", S3, DataError, "credentials"),
}


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials from the machine, and no waiting for a service that would hand some out."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_that_gives_no_table(name: str) -> None:
    path, options, kind, words = ADDRESSES[name]
    with pytest.raises(kind, match=words) as caught:
        open_source(path, storage_options=options)
    assert "\n" not in str(caught.value)


def test_storage_that_goes_away_between_listing_and_reading() -> None:
    with pytest.raises(TryAgainError, match="does not answer"):
        ParquetPiece(File(f"{CLOSED}/shop.parquet", "shop.parquet"), 0).read(["a"])


@pytest.mark.parametrize(("path", "code"), [("foo://x", 2), (f"{CLOSED}/a.parquet", 75)])
def test_the_command_ends_with_the_code(path: str, code: int, tmp_path: Path) -> None:
    from dask_em import GaussianMixture, save

    save(GaussianMixture(1).fit([[0.0], [1.0], [2.0]]), tmp_path / "model")
    done = subprocess.run(
        [Path(sys.executable).parent / "dask-em", "predict", tmp_path / "model", path, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("dask-em: error: ")
    assert len(done.stderr.splitlines()) == 1

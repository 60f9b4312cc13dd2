"""A secret is not repeated, wherever it was written; what is none stays as it is."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pyarrow as pa
import pytest

from dask_em import load
from dask_em.data.raster_files import open_raster
from dask_em.data.sinks import check_vacant
from dask_em.data.sources import open_source, with_columns
from dask_em.errors import DaskEMError, DataError
from dask_em.log import JsonLog, Log
from dask_em.redaction import redacted

SECRET = "c4n4ry/s3cr3t+x="


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"no file at s3://AKIA:{SECRET}@bucket/rows.parquet: check", "no file at s3://***@bucket/rows.parquet: check"),
        (f"https://user:{SECRET}@host:8080/a?b=1", "https://***@host:8080/a?***"),
        (f"https://{SECRET.replace('/', '')}@host/a", "https://***@host/a"),
        (f"s3:/AKIA:{SECRET}@bucket holds no saved model", "s3:/***@bucket holds no saved model"),
        (f"simplecache::ftp://me:{SECRET}@host/x", "simplecache::ftp://***@host/x"),
        (f"abfs://c/x.parquet?sv=2024&sig={SECRET}", "abfs://c/x.parquet?***"),
        (f"(password='{SECRET}', host='h')", "(password='***', host='h')"),
        (f"{{'aws_secret_access_key': '{SECRET}'}}", "{'aws_secret_access_key': '***'}"),
    ],
)
def test_secrets_in_text(text: str, left: str) -> None:
    assert redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "job.yaml:3:16: levels.people.key: unknown key",
        "job.yaml:3:16: cluster.options.password: must be text",
        "s3://bucket/part-?.parquet",
        "https://host/package@1.2/x",
        "tcp://10.0.0.1:8786",
        "anna@example.org",
        "C:/data/a@b",
        "token_count holds 3 infinite value(s)",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_settings_are_redacted_by_their_name() -> None:
    settings = {
        "key": "customer_id",
        "transforms": {"token": "log"},
        "path": f"s3://a:{SECRET}@b/c",
        "cluster": {"options": {"key": SECRET, "api_token": SECRET, "n": [1, f"https://u:{SECRET}@h"], "client": None}},
        "storage_options": {"client_kwargs": {"aws_secret_access_key": SECRET, "region": "x"}},
        "ca_file": Path("certificates/ca.pem"),
        "bounds": {"password": [0, 1]},
    }
    told = redacted(settings)
    assert SECRET not in str(told)
    assert told == {
        "key": "customer_id",
        "transforms": {"token": "log"},
        "path": "s3://***@b/c",
        "cluster": {"options": {"key": "***", "api_token": "***", "n": [1, "https://***@h"], "client": None}},
        "storage_options": {"client_kwargs": {"aws_secret_access_key": "***", "region": "x"}},
        "ca_file": "certificates/ca.pem",
        "bounds": {"password": [0, 1]},
    }


def test_every_error_of_ours_is_redacted_also_after_a_journey_between_processes() -> None:
    error = DataError(f"no file at s3://AKIA:{SECRET}@bucket/rows.parquet")
    assert str(error) == "no file at s3://***@bucket/rows.parquet"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (DataError, str(error))


@pytest.mark.parametrize(
    "use",
    [
        lambda: open_source(f"s3x://AKIA:{SECRET}@bucket/rows.parquet"),
        lambda: open_source(f"file://user:{SECRET}@host"),
        lambda: open_source(f"/tmp/absent/s3://AKIA:{SECRET}@bucket"),
        lambda: load(f"s3://AKIA:{SECRET}@bucket/model"),
        lambda: open_raster(f"https://user:{SECRET}@127.0.0.1:1/picture.png"),
        lambda: open_source(f"https://user:{SECRET}@127.0.0.1:1/rows.parquet?sig={SECRET}"),
        lambda: check_vacant(f"s3://AKIA:{SECRET}@bucket"),
    ],
)
def test_what_cannot_be_opened_is_named_without_its_secret(use: Callable[[], Any]) -> None:
    with pytest.raises(DaskEMError) as caught:
        use()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_credentials_of_a_storage_are_not_shown_by_what_reads_it(tmp_path: Path) -> None:
    pd.DataFrame({"x": [1.0]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"x": [1.0]}).to_csv(tmp_path / "a.csv")
    for name in ("a.parquet", "a.csv"):
        source = open_source(f"local://{tmp_path / name}", storage_options={"password": SECRET})
        assert SECRET not in repr(source)


def test_rows_in_memory_are_not_shown_by_what_reads_them() -> None:
    """Dask writes the arguments of a failed task into its log."""
    frame = pd.DataFrame({"x": [987654.321]})
    for table in (frame, frame.to_numpy(), pa.table(frame)):
        assert "987654" not in repr(with_columns(open_source(table), **{"#weight": [987654.0]}))


def test_a_mapping_may_be_said_to_be_options() -> None:
    assert redacted({"secret": SECRET, "key": SECRET, "anon": False}, options=True) == {
        "secret": "***",
        "key": "***",
        "anon": False,
    }


@pytest.mark.parametrize("log", [Log, JsonLog])
def test_a_log_tells_no_secret(log: type[Log], capsys: pytest.CaptureFixture[str]) -> None:
    with dask.config.set(logging={}):
        before = logging.root.handlers[:]
        log().say("warning", f"s3://AKIA:{SECRET}@bucket does not answer")
        logging.root.handlers[:] = before
    said = capsys.readouterr().err
    assert "s3://***@bucket does not answer" in said
    assert SECRET not in said

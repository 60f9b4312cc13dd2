"""A secret is not repeated, wherever it was written; what is none stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        "transforms": {"token_count": "log"},
        "path": f"s3://a:{SECRET}@b/c",
        "cluster": {"options": {"key": SECRET, "api_token": SECRET, "n": [1, f"https://u:{SECRET}@h"], "client": None}},
        "storage_options": {"client_kwargs": {"aws_secret_access_key": SECRET, "region": "x"}},
        "ca_file": Path("certificates/ca.pem"),
        "password": None,
    }
    told = redacted(settings)
    assert SECRET not in str(told)
    assert told == {
        "key": "customer_id",
        "transforms": {"token_count": "log"},
        "path": "s3://***@b/c",
        "cluster": {"options": {"key": "***", "api_token": "***", "n": [1, "https://***@h"], "client": None}},
        "storage_options": {"client_kwargs": {"aws_secret_access_key": "***", "region": "x"}},
        "ca_file": "certificates/ca.pem",
        "password": None,
    }

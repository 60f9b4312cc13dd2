"""Job files that want to break the reader: each is refused with its line, soon, and says nothing that it should not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dask_em.config import Job, load
from dask_em.config_loader import MAX_BYTES
from dask_em.errors import ConfigurationError

MOST = MAX_BYTES - 10_000
MISSING = "job.yaml:1:1: pipeline: this key is required"

FILES = {
    "lists in lists": (b"[" * MOST, "job.yaml:1:51: nested deeper than 50 levels"),
    "blocks in blocks": (b"- " * 1000, "job.yaml:1:101: nested deeper than 50 levels"),
    "maps in maps": (b"{a: " * 1000, "job.yaml:1:201: nested deeper than 50 levels"),
    "keys as keys": (b"? " * 1000, "job.yaml:1:101: nested deeper than 50 levels"),
    "the billion laughs": (
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        "job.yaml:2:8: YAML aliases are not allowed",
    ),
    "a list that holds itself": (b"a: &a [*a]\n", "job.yaml:1:8: YAML aliases are not allowed"),
    "a merge": (b"a: &a {x: 1}\nb: {<<: *a}\n", "job.yaml:2:9: YAML aliases are not allowed"),
    "many values": (b"a: [" + b"1," * 400_000 + b"]", "more than 20,000 values: this is not a job file"),
    "many keys": (b"".join(b"k%d: 1\n" % i for i in range(80_000)), "more than 20,000 values"),
    "many anchors": (b"".join(b"a%d: &x%d 1\n" % (i, i) for i in range(50_000)), "more than 20,000 values"),
    "a long number": (b"a: " + b"9" * 100_000, "job.yaml:1:4: a: is not a number that can be read"),
    "a long hexadecimal": (b"a: 0x" + b"f" * 100_000, "job.yaml:1:4: a: is not a number that can be read"),
    "a large exponent": (b"a: 1e" + b"9" * 5000, MISSING),
    "a long key": (b"x" * 1000 + b": 1", MISSING),
    "a run of tags": (b"!" * 1000, "job.yaml:1:1"),
    "a call": (b"a: !!python/object/apply:os.system ['touch ran']", "job.yaml:1:4: a: YAML tags are not allowed"),
    "a mapping that would be text": (b"a: !!str {b: 1}", "job.yaml:1:4: a: YAML tags are not allowed"),
    "a list that would be a number": (b"a: !!int [1_0]", "job.yaml:1:4: a: YAML tags are not allowed"),
    "an object": (b"!!python/object:os.environ {}", "job.yaml:1:1"),
    "two documents": (b"a: 1\n---\nb: 2\n", "found another document"),
    "a directive": (b"%YAML 1.1\n---\na: no\n", "job.yaml"),
    "a byte of zero": (b"a: \x00", "holds characters that YAML forbids"),
    "UTF-16": ("a: 1".encode("utf-16"), "is not UTF-8 text"),
    "a pickle": (b"\x80\x04\x95\x00\x00.", "is not UTF-8 text"),
    "a zip": (b"PK\x03\x04" + bytes(20), "job.yaml"),
    "a megabyte more": (b"#" * (MAX_BYTES + 1), "larger than 1 MB"),
    "nothing": (b"", "job.yaml:1:1: must be a mapping"),
    "spaces": (b" " * MOST, "job.yaml"),
    "a key twice": (b"a: 1\nb: 2\na: 3\n", "job.yaml:3:1: a: is given twice (first in line 1)"),
    "a key twice, deep": (b"a:\n  - {b: 1, b: 2}\n", "job.yaml:2:12: a.0.b: is given twice (first in line 2)"),
    "a key twice, quoted": (b"a: 1\n'a': 2\n", "job.yaml:2:1: a: is given twice"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_with_its_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, expected = FILES[name]
    Path("job.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load("job.yaml", Job)
    said = str(caught.value)
    assert expected in said
    assert len(said) < 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


COINS = """\
pipeline: coin_flips
output: out
one_coin: {flips: [1, 0, null], start: 0.5, n_steps: 3}
two_coins: {tosses: 10, heads: [5, 9], start: [0.6, 0.5], n_steps: 2}
"""


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ('"\\e[31mred"', "\\x1b[31mred"),
        ('"\\u202egnp"', "\\u202egnp"),
        ('"a\\nb: error"', "a\\nb: error"),
        ("k" * 300, "k" * 200 + "..."),
    ],
)
def test_a_key_does_not_reach_the_terminal_as_it_is(key: str, shown: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(COINS + f"? {key}\n: 1\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(path, Job)
    said = str(caught.value)
    assert f":5:3: {shown}: unknown key" in said
    assert "\n" not in said
    assert said.isprintable()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("1_000", "1_000"),
        ("0o12", None),
        ("012", None),
        ("1e3", None),
        ("2024-01-31", "2024-01-31"),
        ("~", None),
    ],
)
def test_types_are_those_of_yaml_1_2(text: str, value: str | None, tmp_path: Path) -> None:
    """Where YAML 1.1 would read true, 1000 or a date, it is text; what is a number or null is none."""
    path = tmp_path / "job.yaml"
    path.write_text(COINS.replace("output: out", f"output: {text}"), encoding="utf-8")
    if value is None:
        with pytest.raises(ConfigurationError, match=re.escape("output: must be a valid string")):
            load(path, Job)
    else:
        job: object = load(path, Job)
        assert getattr(job, "output") == value  # noqa: B009

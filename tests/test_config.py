"""Job files: every mistake is found, placed and explained, and a good file gives exactly the settings it states."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_em.config import CoinConfig, Job, SegmentationConfig, TableSource, json_schema, load
from dask_em.errors import ConfigurationError

COINS = """\
pipeline: coin_flips
output: out
one_coin: {flips: [1, 0, null], start: 0.5, n_steps: 3}
two_coins: {tosses: 10, heads: [5, 9], start: [0.6, 0.5], n_steps: 2}
"""

SEGMENTS = """\
pipeline: customer_segmentation
level: people
output: out
levels:
  people:
    source: {kind: table, path: people.csv, types: {id: int64}}
    key: id
    n_components: [3, 1, 3]
    model:
      gaussian: [spend]
      categorical: [region]
      binomial: {won: played, hits: 9}
      transforms: {spend: log1p}
      tol: 1e-8
"""


@pytest.fixture
def job(tmp_path: Path):
    """Write a job file and load it."""

    def write_and_load(text: str, *overrides: str, **flags: Any) -> Any:
        path = tmp_path / "job.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load(path, Job, overrides, **flags)

    return write_and_load


@pytest.fixture
def mistakes(job, tmp_path):
    """The lines of the error that a job file gives, with the folder left out."""

    def collect(text: str, *overrides: str, **flags: Any) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            job(text, *overrides, **flags)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return collect


def test_a_good_file_gives_what_it_says(job):
    config = job(SEGMENTS)
    assert isinstance(config, SegmentationConfig)
    level = config.levels["people"]
    assert level.source == TableSource(kind="table", path="people.csv", types={"id": "int64"})
    assert level.candidates == (1, 3)
    assert level.model.tol == 1e-8  # YAML 1.1 would read text
    assert level.model.binomial == {"won": "played", "hits": 9}
    assert (level.model.prior, level.model.n_init, config.outlier_share) == ("weak", 5, 0.01)
    assert job(COINS).one_coin.flips == (1, 0, None)


def test_a_range_of_components_includes_both_ends(job):
    config = job(SEGMENTS, "levels.people.n_components={minimum: 2, maximum: 4}")
    assert config.levels["people"].candidates == (2, 3, 4)


def test_five_mistakes_are_reported_at_once_each_with_its_place(mistakes):
    found = mistakes("""\
        pipeline: customer_segmentation
        level: people
        outlier_share: 2
        output: out
        levels:
          people:
            source: {kind: tabel, path: people.csv}
            key: 7
            n_components: [2, 0]
            model:
              gausian: [spend]
        """)
    assert found == [
        "job.yaml:3:16: outlier_share: must be less than 1",
        "job.yaml:7:20: levels.people.source.kind: must be one of 'table', 'completejourney', 'cdnow', 'nhanes', 'census'; "
        "did you mean 'table'?",
        "job.yaml:8:10: levels.people.key: must be a valid string",
        "job.yaml:9:23: levels.people.n_components.1: must be greater than or equal to 1",
        "job.yaml:11:7: levels.people.model.gausian: unknown key; did you mean 'gaussian'?",
    ]


def test_a_missing_key_is_placed_at_its_parent(mistakes):
    assert mistakes(COINS.replace("output: out\n", "").replace("tosses: 10, ", "")) == [
        "job.yaml:1:1: output: this key is required",
        "job.yaml:3:1: two_coins.tosses: this key is required",
    ]


def test_an_unknown_key_without_a_near_name_lists_the_names(mistakes):
    assert mistakes(COINS.replace("n_steps: 2", "n_steps: 2, zzz: 1")) == [
        "job.yaml:4:71: two_coins.zzz: unknown key; the keys here are heads, n_steps, start, tosses"
    ]


def test_the_pipeline_decides_which_keys_are_known(mistakes):
    assert mistakes(COINS + "levels: {}\n")[0].startswith("job.yaml:5:1: levels: unknown key")
    assert mistakes(COINS.replace("coin_flips", "coin_flip")) == [
        "job.yaml:1:11: pipeline: must be one of 'customer_segmentation', 'survey_imputation', 'image_segmentation', 'coin_flips'; did you mean 'coin_flips'?"
    ]
    assert mistakes(COINS.replace("pipeline: coin_flips\n", "")) == ["job.yaml:1:1: pipeline: this key is required"]


def test_an_override_wins_and_its_mistakes_name_it(job, mistakes):
    assert job(COINS, "one_coin.start=0.25", "two_coins.heads.1=8").one_coin.start == 0.25
    assert job(COINS, "two_coins.heads.1=8").two_coins.heads == (5, 8)
    assert job(COINS, "output=a", "output=b").output == "b"
    assert mistakes(
        COINS, "one_coin.start=3", "two_coins={tosses: 1}", "nonsense", "outputs=x", "output.deep=1", "output=[1"
    ) == [
        "--set: must look like key.sub=value",
        "--set one_coin.start: must be less than 1",
        "--set output: is not valid YAML (expected ',' or ']', but got '<stream end>')",
        "--set output.deep: output: cannot be set inside a value that is not a mapping",
        "--set outputs: unknown key; did you mean 'output'?",
        "--set two_coins: two_coins.heads: this key is required",
        "--set two_coins: two_coins.n_steps: this key is required",
        "--set two_coins: two_coins.start: this key is required",
    ]


def test_an_override_may_open_a_mapping_that_the_file_leaves_out(job, mistakes):
    assert job(SEGMENTS, "cluster.n_workers=2").cluster.n_workers == 2
    assert mistakes(SEGMENTS, "cluster.n_worker=2") == [
        "--set cluster.n_worker: unknown key; did you mean 'n_workers'?"
    ]


def test_a_flag_stands_for_settings_and_names_itself(job, mistakes):
    flags = {"--scheduler": {"cluster.executor": "dask", "cluster.scheduler": "tls://here:1"}}
    cluster = job(SEGMENTS + "cluster: {executor: local}\n", flags=flags).cluster
    assert (cluster.executor, cluster.scheduler) == ("dask", "tls://here:1")
    assert mistakes(COINS, flags=flags)[0].startswith("--scheduler: cluster: unknown key")


def test_a_scheduler_implies_dask_and_contradicts_local(job, mistakes):
    assert job(SEGMENTS, "cluster.scheduler='tls://here:1'").cluster.executor == "dask"
    assert job(SEGMENTS).cluster.executor == "local"
    text = SEGMENTS + "cluster: {executor: local, scheduler: 'tls://here:1'}\n"
    assert mistakes(text) == ["job.yaml:15:39: cluster.scheduler: scheduler needs executor dask: remove one of the two"]


@pytest.mark.parametrize(
    ("change", "key", "complaint"),
    [
        ("levels.people.model.gaussian=[spend, spend]", "", "column 'spend' is named twice"),
        ("levels.people.model.poisson=[region]", "", "column 'region' is named twice (also in categorical)"),
        ("levels.people.model.binomial={spend: 3}", "", "column 'spend' is named twice (also in gaussian)"),
        ("levels.people.model.transforms={spent: log}", "", "not among the gaussian columns; did you mean 'spend'?"),
        ("levels.people.model={}", "", "no column is modelled"),
        ("levels.people.model.transforms.spend=sqrt", "", "must be 'log', 'log1p' or 'asinh'"),
        ("levels.people.model.covariance_type=VXV", "", "must be 'full', 'tied', 'diag'"),
        ("levels.people.model.prior=strong", "", "must be 'weak'"),
        ("levels.people.model.tol=.inf", "", "must be a finite number"),
        ("levels.people.model.max_iter=true", "", "must be a valid integer"),
        ("levels.people.model.max_iter='5'", "", "must be a valid integer"),
        ("levels.people.model.max_iter=5.0", "", "must be a valid integer"),
        ("levels.people.n_components=[]", "", "must have at least 1 item"),
        ("levels.people.n_components={minimum: 4, maximum: 2}", ".maximum", "must not be below minimum"),
        ("levels.people.source=3", "", "must be a mapping of keys to values"),
        ("levels=[]", "", "must be a mapping of keys to values"),
        ("level=persons", "", "no such level; the levels are people"),
    ],
)
def test_what_a_segmentation_refuses(mistakes, change, key, complaint):
    (line,) = mistakes(SEGMENTS, change)
    name = change.partition("=")[0]
    assert line.startswith(f"--set {name}: {name + key + ': ' if key else ''}")
    assert complaint in line


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("one_coin.flips=[1, true]", "must be a valid integer"),
        ("one_coin.flips=[1, 2]", "must be less than or equal to 1"),
        ("one_coin.flips=[]", "must have at least 1 item"),
        ("one_coin.start=1", "must be less than 1"),
        ("two_coins.heads=[11]", "must not be above tosses"),
        ("two_coins.heads=[-1]", "must be greater than or equal to 0"),
        ("two_coins.start=[0.5, 0.5, 0.5]", "must have at most 2 items"),
        ("two_coins.start=[0.5]", "has too few items"),
        ("two_coins.start=[]", "has too few items"),
        ("one_coin.flips=[null, null]", "must have a flip that somebody saw, 0 or 1"),
        ("two_coins.n_steps=0", "must be greater than or equal to 1"),
    ],
)
def test_what_the_coins_refuse(mistakes, change, complaint):
    (line,) = mistakes(COINS, change)
    assert line.startswith(f"--set {change.partition('=')[0]}: ")
    assert line.endswith(complaint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: &x [1]\nc: *x\n", "job.yaml:3:4: YAML aliases are not allowed: write the value out"),
        ("a: [1\n", "job.yaml:2:1: is not valid YAML (expected ',' or ']', but got '<stream end>')"),
        ("a: 1\n--- \nb: 2\n", "job.yaml:2:1: is not valid YAML (but found another document)"),
        ("[" * 60 + "]" * 60, "job.yaml:1:51: nested deeper than 50 levels: flatten it"),
        ("a: \x07\n", "job.yaml:1:1: is not valid YAML (it holds characters that YAML forbids)"),
        ("", "job.yaml:1:1: must be a mapping of keys to values"),
        ("- 1\n", "job.yaml:1:1: must be a mapping of keys to values"),
    ],
)
def test_yaml_that_is_refused_before_its_meaning(mistakes, text, expected):
    assert mistakes(text) == [expected]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("output: other\n", "job.yaml:5:1: output: is given twice (first in line 2): keep one of them"),
        ("1: x\n", "job.yaml:5:1: a key must be text: put it in quotes"),
        ("<<: {output: x}\n", "job.yaml:5:1: a key must be text: put it in quotes"),
    ],
)
def test_keys_that_are_refused(mistakes, extra, expected):
    assert expected in mistakes(COINS + extra)


@pytest.mark.parametrize("value", ["!!python/name:os.system ''", "!secret 1", "!!binary aGk="])
def test_tags_are_refused(mistakes, value):
    expected = "job.yaml:2:9: output: YAML tags are not allowed: write the plain value"
    assert expected in mistakes(COINS.replace("output: out", f"output: {value}"))


def test_text_that_other_yaml_readers_change_stays_text(job):
    for text in ("no", "on", "2024-01-31", "1e", "12:30:00"):
        assert job(COINS, f"output={text}").output == text


def test_a_file_that_is_absent_large_or_not_text(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "absent.yaml", Job)
    path = tmp_path / "job.yaml"
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigurationError, match="larger than 1 MB"):
        load(path, Job)
    path.write_bytes(b"pipeline: \xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(path, Job)


def test_no_message_repeats_a_value(mistakes):
    canary = "anna.smith@example.org"
    text = SEGMENTS.replace("tol: 1e-8", f"tol: {canary}").replace("[3, 1, 3]", f"[{canary}]")
    text = text.replace("kind: table", f"kind: {canary}") + f"outlier_share: {canary}\ncluster: {canary}\n"
    found = mistakes(text, f"match=[{canary}]")
    assert len(found) == 6
    assert canary not in "\n".join(found)


def test_settings_cannot_be_changed(job):
    config = job(COINS)
    with pytest.raises(ValueError, match="frozen"):
        config.output = "elsewhere"


def test_one_model_can_be_loaded_without_the_union(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(COINS)
    assert load(path, CoinConfig).output == "out"


def test_every_key_of_the_schema_is_closed():
    definitions = json_schema()["$defs"].values()
    assert all(d["additionalProperties"] is False for d in definitions if d.get("type") == "object")


@given(st.text(max_size=200) | st.text(alphabet="[]{}:,-&*!|>'\"#%@ \nab1.", max_size=60))
def test_no_text_breaks_the_loader(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load(path, Job)

"""A saved model says the same of every row, bit for bit, and nothing in its folder can run code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import dask_em
from dask_em import (
    BinomialMixture,
    GaussianMixture,
    InverseWishart,
    LatentClassAnalysis,
    MixtureModel,
    PoissonMixture,
    Ridge,
)
from dask_em.data import archive
from dask_em.errors import ConfigurationError, DataError, OutputError
from tests.laws.table import CASES, CATEGORIES, COINS, COUNTS, GAUSSIAN


def table(columns: tuple[str, ...]) -> pd.DataFrame:
    """The rows of the laws, with holes."""
    rng = np.random.default_rng(21)
    product = next(case for case in CASES if case.name == "product")
    frame = product.table(rng, 300).to_pandas()
    frame["c1"] = frame["c1"].astype("Int64")
    return frame[list(columns)]


TRIALS = ("s0", "t0", "s1")
OWN = {"random_state": 0, "n_init": 2, "max_iter": 300}

MODELS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    **{
        f"gaussian {kind}": (lambda kind=kind: GaussianMixture(2, covariance_type=kind, **OWN), GAUSSIAN)
        for kind in ("full", "tied", "diag", "spherical", "EII")
    },
    "gaussian without prior": (lambda: GaussianMixture(2, prior=None, **OWN), GAUSSIAN),
    "latent classes": (lambda: LatentClassAnalysis(2, **OWN), CATEGORIES),
    "poisson": (lambda: PoissonMixture(2, **OWN), COUNTS),
    "binomial": (lambda: BinomialMixture(2, successes=["s0", "s1"], trials=["t0", 5], **OWN), TRIALS),
    "binomial expected": (
        lambda: BinomialMixture(2, successes="s0", trials="t0", missing="expected", fix_weights=True, **OWN),
        TRIALS[:2],
    ),
    "everything": (
        lambda: MixtureModel(
            3,
            gaussian=list(GAUSSIAN),
            categorical=list(CATEGORIES),
            poisson=list(COUNTS),
            binomial=dict(COINS),
            transforms={"g2": "asinh"},
            **OWN,
        ),
        (*GAUSSIAN, *CATEGORIES, *COUNTS, *TRIALS),
    ),
}


@pytest.fixture(params=MODELS)
def fitted(request: pytest.FixtureRequest) -> tuple[Any, pd.DataFrame]:
    make, columns = MODELS[request.param]
    frame = table(columns)
    return make().fit(frame), frame


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, pd.DataFrame):
        return bool(one.equals(two))
    return bool(np.array_equal(one, two))


def test_a_round_trip_keeps_every_bit(fitted: tuple[Any, pd.DataFrame], tmp_path: Path) -> None:
    model, frame = fitted
    dask_em.save(model, tmp_path / "model", segments=[4, 2, 9], owner="marketing")
    loaded = dask_em.load(tmp_path / "model")
    assert type(loaded) is type(model)
    for method in ("predict", "predict_proba", "score_samples"):
        assert getattr(loaded, method)(frame).equals(getattr(model, method)(frame)), method
    for method in ("score", "bic", "aic"):
        assert getattr(loaded, method)(frame) == getattr(model, method)(frame)
    public = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    for name in public - {"model_", "history_"}:
        assert same(getattr(loaded, name), getattr(model, name)), name
    assert loaded.notes_ == {"segments": [4, 2, 9], "owner": "marketing"}
    settings = model.get_params(deep=False)
    assert {k: _plain(v) for k, v in loaded.get_params(deep=False).items()} == {
        k: _plain(v) for k, v in settings.items()
    }
    one, two = model.sample(20, random_state=1), loaded.sample(20, random_state=1)
    pd.testing.assert_frame_equal(one[0], two[0])
    assert (one[1] == two[1]).all()
    # What was loaded can be saved again, with the same bytes.
    dask_em.save(loaded, tmp_path / "again", **loaded.notes_)
    for name in ("model.json", "arrays.npz"):
        first, second = ((tmp_path / folder / name) for folder in ("model", "again"))
        if name.endswith("json"):
            assert first.read_text() == second.read_text()
        else:
            with np.load(first) as a, np.load(second) as b:
                assert {k: a[k].tobytes() for k in a} == {k: b[k].tobytes() for k in b}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_a_model_of_an_array_takes_arrays(tmp_path: Path) -> None:
    x = table(GAUSSIAN).to_numpy()
    model = GaussianMixture(2, **OWN).fit(x)
    dask_em.save(model, tmp_path / "model")
    loaded = dask_em.load(tmp_path / "model")
    assert not hasattr(loaded, "feature_names_in_")
    assert (loaded.predict_proba(x) == model.predict_proba(x)).all()


def test_another_process_says_the_same(tmp_path: Path) -> None:
    make, columns = MODELS["everything"]
    frame = table(columns)
    model = make().fit(frame)
    dask_em.save(model, tmp_path / "model")
    frame.to_parquet(tmp_path / "rows.parquet")
    code = (
        "import sys, dask_em\nmodel = dask_em.load(sys.argv[1])\n"
        "print([value.hex() for value in model.score_samples(sys.argv[2]).tolist()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model", tmp_path / "rows.parquet"], capture_output=True, text=True
    )
    assert done.stdout.strip() == str([value.hex() for value in model.score_samples(frame).tolist()]), done.stderr


def test_the_file_is_readable_and_holds_plain_arrays(tmp_path: Path) -> None:
    make, columns = MODELS["everything"]
    dask_em.save(make().fit(table(columns)), tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["arrays.npz", "model.json"]
    document = json.loads((tmp_path / "model" / "model.json").read_text())
    assert document["estimator"] == "MixtureModel"
    assert document["schema"]["levels"] == [["high", "low", "middle"], [0, 1]]
    with np.load(tmp_path / "model" / "arrays.npz", allow_pickle=False) as arrays:
        assert all(array.dtype == np.float64 for array in arrays.values())


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    make, columns = MODELS["poisson"]
    model = make().fit(table(columns))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        dask_em.save(model, tmp_path / "model")
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "precious"]


@pytest.mark.parametrize("note", [float("nan"), [1.0, float("inf")], object(), {"when": {1, 2}}])
def test_what_cannot_be_written_leaves_nothing(note: Any, tmp_path: Path) -> None:
    make, columns = MODELS["poisson"]
    model = make().fit(table(columns))
    with pytest.raises(ConfigurationError, match="'share'"):
        dask_em.save(model, tmp_path / "model", share=note)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prior", [Ridge(200), InverseWishart(50.0, [[2.0, 0.1], [0.1, 3.0]]), None, "weak"], ids=repr)
def test_another_fit_of_a_loaded_model_is_the_same(prior: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)) @ [[1.0, 0.9], [0.0, 0.4]], columns=["a", "b"])
    frame.iloc[::4, 1] = np.nan
    models = {
        "normal": dask_em.MultivariateNormal(prior=prior),
        "imputer": dask_em.Imputer(prior=prior, n_replicates=2, random_state=0),
        "nested": dask_em.Imputer(dask_em.MultivariateNormal(prior=prior), n_replicates=2, random_state=0),
        "started": GaussianMixture(2, means_init=np.array([[0.0, 0.0], [1.0, 1.0]])),
    }
    for name, model in models.items():
        dask_em.save(model.fit(frame), tmp_path / name)
        again = clone(dask_em.load(tmp_path / name)).fit(frame)
        assert again.log_likelihood_ == model.log_likelihood_, name


def test_notes_may_be_arrays(tmp_path: Path) -> None:
    make, columns = MODELS["poisson"]
    dask_em.save(make().fit(table(columns)), tmp_path / "model", names=np.arange(3), share=np.float64(0.5))
    assert dask_em.load(tmp_path / "model").notes_ == {"names": [0, 1, 2], "share": 0.5}


def test_what_is_not_fitted_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        dask_em.save(GaussianMixture(2), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def _truncate(folder: Path) -> None:
    path = folder / "arrays.npz"
    path.write_bytes(path.read_bytes()[:-100])


def _sealed(folder: Path, document: Any) -> None:
    """Write a document with the checksum that belongs to it, as whoever wants to be read would."""
    document["checksum"] = archive.checksum(document, (folder / "arrays.npz").read_bytes())
    (folder / "model.json").write_text(json.dumps(document))


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        _sealed(folder, json.loads((folder / "model.json").read_text()) | changes)

    return edit


def _pickle(folder: Path) -> None:
    np.savez(folder / "arrays.npz", **{"weights": np.array([print], dtype=object)})
    _sealed(folder, json.loads((folder / "model.json").read_text()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.json").unlink(),
        lambda folder: (folder / "arrays.npz").unlink(),
        lambda folder: (folder / "model.json").write_text("{"),
        lambda folder: (folder / "model.json").write_text("[]"),
        lambda folder: (folder / "model.json").write_bytes(b"\xff\xfe"),
        _truncate,
        _pickle,
        _edit(format=99),
        _edit(estimator="os.system"),
        _edit(families=[{"kind": "unheard of"}]),
        _edit(families=[[]]),
        _edit(schema={}),
    ],
    ids=[
        "no json",
        "no arrays",
        "half",
        "list",
        "bytes",
        "cut",
        "pickle",
        "format",
        "class",
        "family",
        "families",
        "schema",
    ],
)
def test_a_damaged_model_is_one_sentence(damage: Callable[[Path], None], tmp_path: Path) -> None:
    make, columns = MODELS["poisson"]
    dask_em.save(make().fit(table(columns)), tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(DataError, match=r"model .*: (save|give)"):
        dask_em.load(tmp_path / "model")


def _arrays(**changes: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    """Change arrays by name; underscores stand for dots."""

    def edit(folder: Path) -> None:
        with np.load(folder / "arrays.npz") as stored:
            arrays = dict(stored)
        for name, change in changes.items():
            key = name.replace("__", ".")
            assert key in arrays
            arrays[key] = change(arrays[key])
        np.savez(folder / "arrays.npz", **arrays)
        _sealed(folder, json.loads((folder / "model.json").read_text()))

    return edit


def _document(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / "model.json").read_text())
        change(document)
        _sealed(folder, document)

    return edit


def _spoil(array: np.ndarray, value: float) -> np.ndarray:
    array.flat[0] = value
    return array


ALTERED: dict[str, Callable[[Path], None]] = {
    "a weight more": _arrays(weights=lambda w: np.append(w, 0.0)),
    "a weight of NaN": _arrays(weights=lambda w: _spoil(w, np.nan)),
    "a negative weight": _arrays(weights=lambda w: np.array([1.5, -0.25, -0.25])),
    "weights of more than 1": _arrays(weights=lambda w: w + 0.1),
    "a mean less": _arrays(part0__means=lambda m: m[:, :-1]),
    "a component less": _arrays(part0__means=lambda m: m[:-1]),
    "an infinite mean": _arrays(part0__means=lambda m: _spoil(m, np.inf)),
    "means of text": _arrays(part0__means=lambda m: m.astype(str)),
    "a covariance that is none": _arrays(part0__covariances=lambda c: -c),
    "a covariance of 0": _arrays(part0__covariances=lambda c: 0 * c),
    "a lopsided covariance": _arrays(part0__covariances=lambda c: c + np.triu(np.full(c.shape[1:], 0.1), 1)),
    "chances that do not add up": _arrays(part1__probabilities=lambda p: p / 2),
    "a negative chance": _arrays(part1__probabilities=lambda p: _spoil(p, -0.1)),
    "a level less": _arrays(part1__probabilities=lambda p: p[:, 1:]),
    "a negative rate": _arrays(part2__rates=lambda r: -r),
    "a chance above 1": _arrays(part3__probabilities=lambda p: p + 1),
    "a scale of 0": _document(lambda d: d["schema"]["scale"].__setitem__(0, 0.0)),
    "a scale less": _document(lambda d: d["schema"]["scale"].pop()),
    "a shift less": _document(lambda d: d["schema"]["shift"].pop()),
    "a shift of text": _document(lambda d: d["schema"]["shift"].__setitem__(0, "far")),
    "levels of a column less": _document(lambda d: d["schema"]["levels"].pop()),
    "a level more": _document(lambda d: d["schema"]["levels"][0].append("new")),
    "a family less": _document(lambda d: d["families"].pop()),
    "a family twice": _document(lambda d: d["families"].append(d["families"][0])),
    "families in another order": _document(lambda d: d["families"].reverse()),
    "other columns": _document(lambda d: d.update(columns=["a"])),
    "a scheduler to connect to": _document(lambda d: d["settings"].update(executor="tcp://127.0.0.1:1")),
    "a fact that is a method": _document(lambda d: d["fit"].update(predict="no")),
    "another number of components": _document(lambda d: d["settings"].update(n_components=7)),
}


@pytest.fixture(scope="module")
def everything() -> Any:
    make, columns = MODELS["everything"]
    return make().fit(table(columns))


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_model_is_damaged(name: str, everything: Any, tmp_path: Path) -> None:
    dask_em.save(everything, tmp_path / "model")
    ALTERED[name](tmp_path / "model")
    with pytest.raises(DataError, match="damaged"):
        dask_em.load(tmp_path / "model")


def test_arrow_rows_score_the_same(tmp_path: Path) -> None:
    make, columns = MODELS["everything"]
    frame = table(columns)
    dask_em.save(make().fit(frame), tmp_path / "model")
    loaded = dask_em.load(tmp_path / "model")
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    assert (loaded.score_samples(arrow).to_numpy() == loaded.score_samples(frame).to_numpy()).all()

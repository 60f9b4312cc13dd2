"""Saved models: a folder with model.json (everything a person may want to read) and arrays.npz (plain arrays).

Nothing in it can run code: JSON floats round-trip exactly, `data.archive` reads both files within limits, and classes, settings and facts come from fixed lists.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import dask_em
from dask_em.data import archive
from dask_em.data.schema import Design, Schema
from dask_em.data.sinks import staged
from dask_em.errors import ConfigurationError, DataError
from dask_em.families import Binomial, Categorical, DiagonalGaussian, Family, Gaussian, Poisson
from dask_em.families.binomial import BinomialParams
from dask_em.families.categorical import CategoricalParams
from dask_em.families.diagonal import DiagonalParams
from dask_em.families.gaussian import GaussianParams
from dask_em.families.poisson import PoissonParams
from dask_em.imputation.donors import Donors
from dask_em.imputation.model import ImputationModel
from dask_em.imputation.ordered import Probits
from dask_em.imputation.roles import Roles
from dask_em.mixture import Mixture, Parameters
from dask_em.model import FittedMixture
from dask_em.priors import InverseWishart, Ridge

FORMAT = 5

FAMILIES: dict[str, tuple[Any, Any]] = {
    "gaussian": (Gaussian, GaussianParams),
    "diagonal_gaussian": (DiagonalGaussian, DiagonalParams),
    "categorical": (Categorical, CategoricalParams),
    "poisson": (Poisson, PoissonParams),
    "binomial": (Binomial, BinomialParams),
}

ESTIMATORS = (
    "BinomialMixture",
    "GaussianMixture",
    "Imputer",
    "LatentClassAnalysis",
    "MixtureModel",
    "MultivariateNormal",
    "PoissonMixture",
)

PRIORS = (Ridge, InverseWishart)

FACTS = (
    "log_likelihood_",
    "converged_",
    "stopped_because_",
    "n_iter_",
    "n_maps_",
    "n_scans_",
    "n_rows_",
    "n_distinct_",
    "sum_of_weights_",
)


def save(estimator: Any, path: str | os.PathLike[str], **notes: Any) -> None:
    """Save a fitted estimator into a new folder.

    Parameters
    ----------
    estimator : a fitted mixture, MultivariateNormal or Imputer
    path : folder to make; it must be absent or empty
    **notes : further plain values to keep beside the model, readable as `estimator.notes_` after loading

    Raises
    ------
    NotFittedError
        The estimator has not been fitted.
    ConfigurationError
        A note is not a plain value.
    OutputError
        The folder is not empty or cannot be made; nothing is left behind.
    """
    # Here, because loading and scoring need no scikit-learn.
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    imputation: ImputationModel | None = getattr(estimator, "imputation_", None)
    model: FittedMixture = estimator.model_ if imputation is None else imputation.model
    document = {
        "format": FORMAT,
        "estimator": type(estimator).__name__,
        "settings": _with_nulls(_settings(estimator)),
        "named_columns": hasattr(estimator, "feature_names_in_"),
        "columns": _jsonable(list(getattr(estimator, "feature_names_in_", model.schema.design.columns))),
        "n_columns": estimator.n_features_in_,
        "schema": _with_nulls(_jsonable(asdict(model.schema))),
        "families": [_family(f) for f in model.mixture.families],
        "fix_weights": model.mixture.fix_weights,
        "names": list(model.names),
        "fit": {name: getattr(estimator, name) for name in FACTS if hasattr(estimator, name)},
        "notes": _notes(notes),
        "versions": {"dask_em": dask_em.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    arrays = _arrays("", model.parameters)
    if imputation is not None:
        document["imputation"] = {
            "replicates": len(imputation.replicates),
            "seed": imputation.seed,
            "key": list(imputation.key),
            "integer": sorted(imputation.integer),
            "delta": [list(pair) for pair in imputation.delta],
            "donors": None if imputation.donors is None else [name for name, _ in imputation.donors.columns],
            "roles": _with_nulls(_jsonable(asdict(estimator.roles_))),
        }
        for i, parameters in enumerate(imputation.replicates):
            arrays |= _arrays(f"replicate{i}.", parameters)
        for i, probits in enumerate(imputation.probits):
            arrays |= {f"probits{i}.slopes": probits.slopes, f"probits{i}.cuts": probits.cuts}
        for i, (_, own) in enumerate(imputation.donors.columns if imputation.donors else ()):
            arrays[f"donors{i}"] = own
    with staged(path) as folder:
        archive.write(folder, document, arrays)


def _arrays(prefix: str, parameters: Parameters) -> dict[str, Any]:
    out: dict[str, Any] = {f"{prefix}weights": parameters.weights}
    for i, part in enumerate(parameters.parts):
        out |= {f"{prefix}part{i}.{f.name}": getattr(part, f.name) for f in fields(part)}
    return out


def load(path: str | os.PathLike[str]) -> Any:
    """Load a saved estimator.

    Returns
    -------
    estimator : of the class that was saved, fitted; `history_` is not kept

    Raises
    ------
    DataError
        The folder holds no model, or one that cannot be read.
    """
    folder = Path(path)
    damaged = DataError(f"the model in {folder} is damaged: save it again")
    try:
        document, arrays = archive.read(folder)
    except FileNotFoundError:
        raise DataError(f"{folder} holds no saved model: give the folder that has model.json and arrays.npz") from None
    except (OSError, *archive.DAMAGE):
        raise damaged from None
    if document.get("format") != FORMAT or document.get("estimator") not in ESTIMATORS:
        raise DataError(f"the model in {folder} was saved by another version of dask_em: save it again with this one")
    try:
        return _rebuild(document, arrays)
    except archive.DAMAGE:
        raise damaged from None


def _rebuild(document: dict[str, Any], arrays: dict[str, Any]) -> Any:
    stored = _finite_bounds(document["schema"])
    design = Design(**{name: _tuples(value) for name, value in stored["design"].items()})
    schema = Schema(design, *(_tuples(stored[name]) for name in ("shift", "scale", "levels", "cuts")))
    families: list[Family] = []
    kinds = []
    for record in document["families"]:
        settings = {name: _tuples(value) for name, value in record.items() if name != "kind"}
        family, params = FAMILIES[record["kind"]]
        families.append(family(**settings))
        kinds.append(params)

    def parameters(prefix: str) -> Parameters:
        parts = [
            kind(**{f.name: arrays[f"{prefix}part{i}.{f.name}"] for f in fields(kind)}) for i, kind in enumerate(kinds)
        ]
        return Parameters(arrays[f"{prefix}weights"], tuple(parts))

    mixture = Mixture(tuple(families), None, document["fix_weights"])
    model = FittedMixture(schema, mixture, parameters(""), _tuples(document.get("names", [])))
    _check(model, document)
    estimator = _unfitted(document)
    estimator.n_features_in_ = document["n_columns"]
    if document["named_columns"]:
        estimator.feature_names_in_ = np.array(document["columns"], dtype=object)
    if not set(document["fit"]) <= set(FACTS):
        raise ValueError("facts that a fit does not have")
    for name, value in document["fit"].items():
        setattr(estimator, name, value)
    estimator.notes_ = document["notes"]
    if "imputation" not in document:
        estimator.model_ = model
        estimator._publish(model)
        return estimator
    own = document["imputation"]
    donors = None
    if own["donors"] is not None:
        donors = Donors(tuple((name, arrays[f"donors{i}"]) for i, name in enumerate(own["donors"])))
    replicates = tuple(parameters(f"replicate{i}.") for i in range(own["replicates"]))
    for drawn in replicates:
        replace(model, parameters=drawn).check()
    probits = tuple(
        Probits(arrays[f"probits{i}.slopes"], arrays[f"probits{i}.cuts"])
        for i in range(len(replicates) + 1 if schema.cuts else 0)
    )
    if not all(p.possible and len(p.slopes) == len(p.cuts) == len(schema.cuts) for p in probits):
        raise ValueError("ordered columns without what they follow from")
    delta = tuple((name, value) for name, value in own["delta"])
    integer = frozenset(own["integer"])
    estimator.imputation_ = ImputationModel(
        model, replicates, own["seed"], tuple(own["key"]), integer, delta, donors, probits
    )
    estimator.roles_ = Roles(**{name: _tuples(value) for name, value in own["roles"].items()})
    return estimator


def _check(model: FittedMixture, document: dict[str, Any]) -> None:
    """Raise ValueError unless the parts of a document belong together."""
    known = document["columns"] if document["named_columns"] else model.schema.design.columns
    size = document["settings"].get("n_components")
    if not set(model.schema.design.columns) <= set(known) or document["n_columns"] < 1:
        raise ValueError("columns that the table did not have")
    if size not in (None, model.n_components) and "imputation" not in document:
        raise ValueError("another number of components")
    model.check()


def _finite_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the infinities back that JSON does not know."""
    bounds = [
        [name, [-np.inf if low is None else low, np.inf if high is None else high]]
        for name, (low, high) in schema["design"]["bounds"]
    ]
    return {**schema, "design": {**schema["design"], "bounds": bounds}}


def _family(family: Any) -> dict[str, Any]:
    kind = next(name for name, (own, _) in FAMILIES.items() if isinstance(family, own))
    return {"kind": kind, **{f.name: _jsonable(getattr(family, f.name)) for f in fields(family)}}


def _settings(estimator: Any) -> dict[str, Any]:
    """What another fit would need: priors and estimators among it by their names. Starting labels, generators and executors are left out."""
    own = estimator.get_params(deep=False)
    return {name: _setting(value) for name, value in own.items() if name != "executor" and _kept(name, value)}


def _setting(value: Any) -> Any:
    if isinstance(value, PRIORS):
        return {"prior": type(value).__name__, **{f.name: _jsonable(getattr(value, f.name)) for f in fields(value)}}
    if type(value).__name__ in ESTIMATORS:
        return {"estimator": type(value).__name__, "settings": _settings(value)}
    return _jsonable(value)


def _from_setting(value: Any) -> Any:
    if isinstance(value, dict) and "prior" in value:
        kinds = {kind.__name__: kind for kind in PRIORS}
        return kinds[value["prior"]](**{name: own for name, own in value.items() if name != "prior"})
    return _unfitted(value) if isinstance(value, dict) and "estimator" in value else value


def _unfitted(document: dict[str, Any]) -> Any:
    # An address in a file must not decide where a later fit connects to.
    if document["estimator"] not in ESTIMATORS or "executor" in document["settings"]:
        raise ValueError("another class, or a setting that is never saved")
    kind = getattr(import_module("dask_em.estimators"), document["estimator"])
    return kind(**{name: _from_setting(value) for name, value in document["settings"].items()})


def _kept(name: str, value: Any) -> bool:
    if isinstance(value, dict):
        return all(_kept(name, v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return all(_kept(name, v) for v in value)
    if isinstance(value, np.ndarray):
        return name.endswith("_init")
    plain = (str, bool, int, float, np.integer, np.floating)
    return value is None or isinstance(value, (*plain, *PRIORS)) or type(value).__name__ in ESTIMATORS


def _notes(notes: dict[str, Any]) -> dict[str, Any]:
    """Notes as JSON holds them."""
    plain: dict[str, Any] = _jsonable(notes)
    for name, value in plain.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"note {name!r} cannot be saved: give finite numbers, text, and lists or dictionaries of them"
            ) from None
    return plain


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _with_nulls(value: Any) -> Any:
    """Null in the place of the infinities of bounds, which JSON does not know."""
    if isinstance(value, dict):
        return {k: _with_nulls(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_nulls(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value

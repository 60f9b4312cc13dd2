"""A model file from anybody: it loads as what was saved, or is refused in one sentence, and never runs code or asks for memory that it does not fill."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dask_em
from dask_em.data import archive
from dask_em.errors import DaskEMError, DataError, OutputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A model with something of everything, and rows to score."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "x": np.r_[rng.normal(size=100), rng.normal(9, 1, 100)],
            "y": rng.poisson(2.0, 200),
            "g": rng.choice(["a", "b"], 200),
        }
    )
    model = dask_em.MixtureModel(2, gaussian=["x"], poisson=["y"], categorical=["g"], n_init=1, random_state=0)
    folder = tmp_path_factory.mktemp("saved") / "model"
    dask_em.save(model.fit(rows), folder, note="plain")
    return folder, rows


def sealed(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda document: None) -> None:
    """Give the document the checksum that belongs to it, as whoever forges a file would."""
    document = json.loads((folder / "model.json").read_text())
    change(document)
    document["checksum"] = archive.checksum(document, (folder / "arrays.npz").read_bytes())
    (folder / "model.json").write_text(json.dumps(document))


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, doubled, or the end cut off."""
    own = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        at = rng.randrange(max(len(own), 1))
        own = own or bytearray(1)
        match rng.randrange(6):
            case 0 | 1:
                own[at] = rng.randrange(256)
            case 2:
                own[at] ^= 1 << rng.randrange(8)
            case 3:
                del own[at : at + rng.randrange(1, 30)]
            case 4:
                own[at:at] = own[at : at + rng.randrange(1, 30)]
            case _:
                own = own[: max(at, 1)]
    return bytes(own)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_bytes_load_as_what_was_saved_or_are_refused(
    saved: tuple[Path, pd.DataFrame], seed: int, tmp_path: Path
) -> None:
    folder, rows = saved
    scores = dask_em.load(folder).score_samples(rows)
    rng, own = random.Random(seed), tmp_path / "model"
    loaded, sentences = 0, set[str]()
    for _ in range(500):
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(folder, own)
        path = own / rng.choice(("model.json", "arrays.npz"))
        path.write_bytes(mutated(path.read_bytes(), rng))
        try:
            model = dask_em.load(own)
        except DaskEMError as error:
            sentences.add(str(error).replace(str(own), ""))
            continue
        loaded += 1
        assert model.score_samples(rows).equals(scores)
        assert model.notes_ == {"note": "plain"}
    assert loaded < 50  # what does not matter to JSON, such as a space
    assert sentences == {"the model in  is damaged: save it again"}


@pytest.mark.parametrize("seed", range(4))
def test_forged_bytes_are_a_model_or_are_refused(saved: tuple[Path, pd.DataFrame], seed: int, tmp_path: Path) -> None:
    """As above, with a checksum that belongs to them."""
    folder, _ = saved
    rng, own = random.Random(seed), tmp_path / "model"
    sentences = set[str]()
    for _ in range(500):
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(folder, own)
        path = own / rng.choice(("model.json", "arrays.npz"))
        path.write_bytes(mutated(path.read_bytes(), rng))
        try:
            sealed(own)
        except (ValueError, AttributeError, TypeError):
            continue
        try:
            dask_em.load(own)
        except DaskEMError as error:
            sentences.add(str(error).replace(str(own), ""))
    assert 1 <= len(sentences) < 10
    assert not any("\n" in own for own in sentences)


RAN: list[str] = []


class Canary:
    """What runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return RAN.append, ("ran",)


def npy(header: str, data: bytes = b"") -> bytes:
    padded = header + " " * (64 - (len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + data


def members(**parts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, raw in parts.items():
            file.writestr(f"{name}.npy", raw)
    return out.getvalue()


def compressed(size: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "weights.npy", npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({size},), }}", bytes(8 * size))
        )
    return out.getvalue()


def objects() -> bytes:
    out = io.BytesIO()
    np.savez(out, weights=np.array([Canary()], dtype=object), allow_pickle=True)
    return out.getvalue()


HEADER = "{{'descr': {}, 'fortran_order': False, 'shape': {}, }}"

HOSTILE_ARRAYS = {
    "a pickle": lambda: pickle.dumps(Canary()),
    "a pickle as a member": lambda: members(weights=pickle.dumps(Canary())),
    "an object array": objects,
    "a header of objects": lambda: members(weights=npy(HEADER.format("'|O'", "(1,)"), pickle.dumps(Canary()))),
    "more rows than there are": lambda: members(weights=npy(HEADER.format("'<f8'", "(10**15,)".replace("10**15", str(10**15))))),
    "rows without end": lambda: members(weights=npy(HEADER.format("'<f8'", f"({2**62}, {2**62})"), bytes(8))),
    "a negative size": lambda: members(weights=npy(HEADER.format("'<f8'", "(-1,)"), bytes(8))),
    "a call in the header": lambda: members(weights=npy(HEADER.format("__import__('os').abort()", "(1,)"), bytes(8))),
    "a deep header": lambda: members(weights=npy("(" * 9000 + ")" * 9000)),
    "text": lambda: members(weights=npy(HEADER.format("'<U2'", "(1,)"), bytes(8))),
    "a structure": lambda: members(weights=npy(HEADER.format("[('a', '<f8')]", "(1,)"), bytes(8))),
    "the other byte order": lambda: members(weights=npy(HEADER.format("'>f8'", "(1,)"), bytes(8))),
    "a compressed bomb": lambda: compressed(20_000_000),
    "no zip": lambda: b"PK\x03\x04" + bytes(100),
    "nothing": lambda: b"",
    "many members": lambda: members(**{f"m{i}": b"" for i in range(archive.MAX_MEMBERS + 1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
def test_hostile_arrays_are_refused_and_nothing_runs(
    name: str, saved: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    own = tmp_path / "model"
    shutil.copytree(saved[0], own)
    (own / "arrays.npz").write_bytes(HOSTILE_ARRAYS[name]())
    sealed(own)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="is damaged: save it again") as caught:
        dask_em.load(own)
    assert caught.value.exit_code == 4
    with pytest.raises(archive.DAMAGE):
        archive.read(own)  # before anything is made of it
    assert not RAN
    # KB: a bomb of 160 MB was not unpacked.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


HOSTILE_DOCUMENTS = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a key twice": b'{"format": 5, "format": 5}',
    "a number of a million digits": b'{"format": ' + b"9" * 1_000_000 + b"}",
    "no number": b'{"format": NaN}',
    "a pickle": pickle.dumps({"format": 5}),
    "too large": b" " * (archive.MAX_DOCUMENT + 1),
    "a surrogate": b'{"format": "\xed\xa0\x80"}',
}


@pytest.mark.parametrize("name", HOSTILE_DOCUMENTS)
def test_hostile_documents_are_refused(name: str, saved: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    own = tmp_path / "model"
    shutil.copytree(saved[0], own)
    (own / "model.json").write_bytes(HOSTILE_DOCUMENTS[name])
    with pytest.raises(DataError, match="is damaged: save it again"):
        dask_em.load(own)


def test_what_is_no_file_is_refused(saved: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    own = tmp_path / "model"
    shutil.copytree(saved[0], own)
    (own / "arrays.npz").unlink()
    (own / "arrays.npz").mkdir()
    with pytest.raises(DataError, match="is damaged: save it again"):
        dask_em.load(own)


def test_a_model_that_could_not_be_loaded_is_not_saved(saved: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too large to be loaded again"):
        dask_em.save(dask_em.load(saved[0]), tmp_path / "large", note="x" * archive.MAX_DOCUMENT)
    assert list(tmp_path.iterdir()) == []


FORBIDDEN = re.compile(
    r"\b(?:c?[pP]ickle\b|joblib|skops|dill|cloudpickle|marshal|shelve)|\beval\(|\bexec\(|yaml\.(?:unsafe_|full_)?load|read_pickle"
    r"|allow_pickle=True|\.query\("
)

ALLOWED = {
    # Blocks of this process, from memory to memory: their arrays go through a scratch file, what pickle made does not.
    "execution/scratch.py": {"pickle"},
}


def test_no_code_of_this_package_reads_objects() -> None:
    found = {}
    for path in sorted((ROOT / "dask_em").rglob("*.py")):
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text(encoding="utf-8"))
        hits = set(FORBIDDEN.findall(code)) - ALLOWED.get(path.relative_to(ROOT / "dask_em").as_posix(), set())
        if hits:
            found[path.name] = hits
    assert not found

"""Read a job file, lay the command line over it, check it against a pydantic model, report every mistake at once.

A mistake is one line: where (`file:line:column` or `--set key`), the dotted key, what is wrong, the nearest valid name. Messages
name keys, never the values given: those may be data. It must not know any particular model.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from dask_em.config_yaml import Document, Keys, Place
from dask_em.errors import ConfigurationError

MAX_BYTES = 1_000_000
"""A job file is a page; anything larger is the wrong file, or an attack on the parser."""

MAX_NAME = 200
"""Characters of a key that a message repeats."""

T = TypeVar("T")


def load(
    path: str | Path,
    model: type[T],
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> T:
    """Read a job file, lay the command line over it, and check everything.

    Parameters
    ----------
    path : the YAML file; paths inside it are relative to the working directory
    model : a pydantic model, or a union of some such as `Job`
    overrides : `key.sub=value` strings, the value in YAML; later ones win
    flags : command-line options that stand for settings: option -> dotted key -> value

    Returns
    -------
    model
        The checked settings.

    Raises
    ------
    ConfigurationError
        With one line for every mistake.
    """
    document = _read_file(path)
    if not document.mistakes or document.data is not None:
        _lay_over(document, overrides, flags or {})
        settings = _validate(document, model)
        if not document.mistakes:
            return settings
    raise ConfigurationError("\n".join(_line(*mistake) for mistake in sorted(document.mistakes, key=_order)))


def _read_file(path: str | Path) -> Document:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    if len(raw) > MAX_BYTES:
        raise ConfigurationError(f"{path}: larger than {MAX_BYTES // 10**6} MB: this is not a job file")
    document = Document(str(path), in_file=True)
    try:
        document.parse(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not UTF-8 text: save it as UTF-8") from None
    return document


def _lay_over(document: Document, overrides: Sequence[str], flags: Mapping[str, Mapping[str, Any]]) -> None:
    for override in overrides:
        key, equals, text = override.partition("=")
        value = Document(f"--set {key}" if equals else "--set", in_file=False)
        if not equals or not all(key.split(".")):
            document.mistakes.append((value.place(), (), "must look like key.sub=value"))
            continue
        value.parse(text)
        document.mistakes += [(place, (), message) for place, _, message in value.mistakes]
        if not value.mistakes:
            document.set(key, value)
    for flag, settings in flags.items():
        for key, text in settings.items():
            document.set(key, Document(flag, in_file=False, data=text))


def _validate(document: Document, model: type[T]) -> T | Any:
    adapter = TypeAdapter(model)
    try:
        # As JSON, strictly: lists become tuples, while "3", 3.0 and true stay wrong for an integer.
        return adapter.validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        schema = adapter.json_schema()
        found: dict[tuple[Place, Keys], list[str]] = {}
        for detail in error.errors(include_url=False):
            if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
                continue  # pydantic does not count items that are wrong themselves
            path = _path(detail, document.data)
            unplaced = detail["type"] in ("extra_forbidden", "missing", "union_tag_not_found")
            place = document.where(path, key=unplaced)
            message = _message(detail, path, schema, document.data)
            if message not in found.setdefault((place, path), []):
                found[place, path].append(message)
        # Branches of a union complain one by one about the same value.
        document.mistakes += [(place, path, " or ".join(messages)) for (place, path), messages in found.items()]
        return None


def _order(mistake: tuple[Place, Keys, str]) -> tuple[Place, str]:
    return mistake[0], str(mistake[1])


def _line(place: Place, path: Keys, message: str) -> str:
    dotted = ".".join(_printable(str(key)) for key in path)
    return f"{place}: {message}" if not dotted or place.name == f"--set {dotted}" else f"{place}: {dotted}: {message}"


def _printable(key: str) -> str:
    """A key as a terminal may show it: of bounded length, its controls as escapes."""
    own = "".join(c if c.isprintable() else repr(c)[1:-1] for c in key[:MAX_NAME])
    return own if len(key) <= MAX_NAME else f"{own}..."


def _path(detail: Any, data: Any) -> Keys:
    """The keys of the file that pydantic's location means: it also names branches of unions."""
    path: list[str | int] = []
    for step in detail["loc"]:
        there = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if there or (isinstance(data, dict) and step in data):
            path.append(step)
            data = data[step]
    if detail["type"] == "missing" and isinstance(detail["loc"][-1], str):
        path.append(detail["loc"][-1])
    if detail["type"].startswith("union_tag"):
        path.append(detail["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _message(detail: Any, path: Keys, schema: dict[str, Any], data: Any) -> str:
    match detail["type"]:
        case "extra_forbidden":
            names = sorted(_valid_keys(schema, path[:-1], data))
            return "unknown key" + (hint(str(path[-1]), names) or f"; the keys here are {', '.join(names)}")
        case "missing" if isinstance(detail["loc"][-1], int):
            return "has too few items"
        case "missing" | "union_tag_not_found":
            return "this key is required"
        case "model_type" | "model_attributes_type" | "dict_type" | "dataclass_type":
            return "must be a mapping of keys to values"
        case "union_tag_invalid":
            expected, given = detail["ctx"]["expected_tags"], detail["ctx"]["tag"]
            return f"must be one of {expected}" + hint(given, re.findall("'([^']*)'", expected))
        case "literal_error":
            expected, given = detail["ctx"]["expected"], detail["input"]
            return f"must be {expected}" + hint(str(given), re.findall("'([^']*)'", expected))
    said = re.sub(r"^\w+ should ", "must ", str(detail["msg"]).removeprefix("Value error, "))
    return re.sub(" after validation, not .*", "", said)


def hint(given: str, names: Iterable[str]) -> str:
    """The nearest of some names, as the end of a message."""
    near = difflib.get_close_matches(given, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _valid_keys(schema: dict[str, Any], path: Keys, data: Any) -> set[str]:
    """Keys that the schema declares at a path of the data."""
    nodes = _branches(schema, schema, data)
    for step in path:
        data = data[step]
        inner = [n["properties"].get(step) or n.get("additionalProperties") for n in nodes if "properties" in n]
        inner += [n.get("additionalProperties") for n in nodes if "properties" not in n]
        nodes = [branch for node in inner if isinstance(node, dict) for branch in _branches(node, schema, data)]
    return {key for node in nodes for key in node.get("properties", ())}


def _branches(node: dict[str, Any], schema: dict[str, Any], data: Any) -> list[dict[str, Any]]:
    """The alternatives of a schema node that the data may mean: references followed, other kinds left out."""
    if "$ref" in node:
        return _branches(schema["$defs"][node["$ref"].removeprefix("#/$defs/")], schema, data)
    options = node.get("oneOf") or node.get("anyOf")
    if options:
        return [branch for option in options for branch in _branches(option, schema, data)]
    constants = {k: p["const"] for k, p in node.get("properties", {}).items() if "const" in p}
    given = data if isinstance(data, dict) else {}
    return [node] if all(given.get(k, value) == value for k, value in constants.items()) else []

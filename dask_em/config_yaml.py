"""A YAML 1.2 text as plain data that remembers where every key and value stands.

Refused: aliases (a few bytes can expand to gigabytes), tags, duplicate keys, keys that are not text, deep nesting, very many values. Values of
the command line are laid over the file and bring their own place. It must not know what the keys mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

MAX_DEPTH = 50
"""Deeper nesting would exhaust Python's stack."""

MAX_VALUES = 20_000
"""Keys and values of a file; reading more would take longer than anybody waits for a sentence."""

COMMAND_LINE = 1 << 30
"""Line of what was given on the command line: after every line of a file."""

Keys = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Place:
    """Where a setting was given; the command line comes last."""

    line: int
    column: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}:{self.line}:{self.column}" if self.line < COMMAND_LINE else self.name


@dataclass
class Document:
    """Plain data under construction, with the place of every key and value, and the mistakes met on the way."""

    name: str
    in_file: bool
    data: Any = None
    keys: dict[Keys, Place] = field(default_factory=dict)
    values: dict[Keys, Place] = field(default_factory=dict)
    mistakes: list[tuple[Place, Keys, str]] = field(default_factory=list)

    def place(self, mark: Any = None) -> Place:
        """Where a YAML mark is; the command line has no lines."""
        if not self.in_file:
            return Place(COMMAND_LINE, 0, self.name)
        return Place(mark.line + 1, mark.column + 1, self.name) if mark else Place(1, 1, self.name)

    def parse(self, text: str) -> None:
        """Fill the document from YAML text."""
        yaml = YAML(typ="safe", pure=True)
        try:
            refused = list(self._refused(yaml.parse(text)))
            if refused:
                self.mistakes += refused
                return
            node = yaml.compose(text)
        except MarkedYAMLError as error:
            problem = f"is not valid YAML ({error.problem or error.context})"
            self.mistakes.append((self.place(error.problem_mark or error.context_mark), (), problem))
            return
        except YAMLError:
            self.mistakes.append((self.place(), (), "is not valid YAML (it holds characters that YAML forbids)"))
            return
        self.values[()] = self.place(node.start_mark) if node else self.place()
        self.data = self._build(yaml, node, ()) if node else None

    def _refused(self, events: Iterable[Any]) -> Iterator[tuple[Place, Keys, str]]:
        depth = values = 0
        for event in events:
            values += isinstance(event, ScalarEvent)
            depth += isinstance(event, (MappingStartEvent, SequenceStartEvent))
            depth -= isinstance(event, (MappingEndEvent, SequenceEndEvent))
            if isinstance(event, AliasEvent):
                yield self.place(event.start_mark), (), "YAML aliases are not allowed: write the value out"
            if depth > MAX_DEPTH:
                yield self.place(event.start_mark), (), f"nested deeper than {MAX_DEPTH} levels: flatten it"
                return
            if values > MAX_VALUES:
                yield self.place(event.start_mark), (), f"more than {MAX_VALUES:,} values: this is not a job file"
                return

    def _build(self, yaml: YAML, node: Any, at: Keys) -> Any:
        self.values[at] = self.place(node.start_mark)
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if isinstance(node, MappingNode) and kind == "map":
            return self._mapping(yaml, node, at)
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self._build(yaml, item, (*at, i)) for i, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and (kind == "timestamp" or (kind in ("int", "float") and "_" in node.value)):
            # No setting is a date, but a column or folder may be named like one; and in YAML 1.2 a number has no underscores.
            return node.value
        try:
            if isinstance(node, ScalarNode) and kind in ("null", "bool", "int", "float", "str"):
                value = yaml.constructor.construct_object(node)
                if not isinstance(value, int) or value.bit_length() <= 64:
                    return value
                kind = "number"
        except (ValueError, KeyError, OverflowError):
            kind = "number"
        wrong = (
            "is not a number that can be read"
            if kind == "number"
            else "YAML tags are not allowed: write the plain value"
        )
        self.mistakes.append((self.values[at], at, wrong))
        return None

    def _mapping(self, yaml: YAML, node: Any, at: Keys) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, place = key_node.value, self.place(key_node.start_mark)
            if str(key_node.tag) != "tag:yaml.org,2002:str":
                self.mistakes.append((place, at, "a key must be text: put it in quotes"))
            elif key in out:
                first = self.keys[*at, key].line
                where = f" (first in line {first})" if self.in_file else ""
                self.mistakes.append((place, (*at, key), f"is given twice{where}: keep one of them"))
            else:
                self.keys[*at, key] = place
                out[key] = self._build(yaml, value_node, (*at, key))
        return out

    def set(self, dotted: str, value: Document) -> None:
        """Lay a value of the command line over this document, at a dotted key."""
        at = tuple(dotted.split("."))
        target, path = self.data, list[str | int]()
        for part in at:
            index = int(part) if isinstance(target, list) and part.isdecimal() else part
            fits = isinstance(target, dict) or (isinstance(index, int) and index < len(target))
            if not fits:
                self.mistakes.append((value.place(), tuple(path), "cannot be set inside a value that is not a mapping"))
                return
            path.append(index)
            if len(path) == len(at):
                break
            if isinstance(target, dict) and target.get(index) is None:
                target[index] = {}
                self._moved(tuple(path), value.place())
            target = target[index]
        target[index] = value.data
        full = tuple(path)
        for places in (self.keys, self.values):
            for old in [k for k in places if k[: len(full)] == full]:
                del places[old]
        self._moved(full, value.place())

    def _moved(self, at: Keys, place: Place) -> None:
        self.keys[at] = self.values[at] = place

    def where(self, at: Keys, *, key: bool = False) -> Place:
        """Place of a value (or of its key); what was not given is where its parent is."""
        if not key and at in self.values:
            return self.values[at]
        while at not in self.keys and at:
            at = at[:-1]
        return self.keys.get(at) or self.values.get((), self.place())

"""YAML documents as trees that remember where each value was written.

A document is composed to nodes, never constructed: what a scalar is, is decided here by the core schema of YAML 1.2,
numbers keep their decimal text's exact value, and tags, merge keys and duplicate keys are refused with their line.
What an operator may have typed as a secret is quoted in no message, whether it is a value, a key, an anchor or a tag.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from autoscaler.policy.fields import Path, read_number, shown
from autoscaler.policy.secret import SECRET_KEYS

LARGEST_FILE: Final = 1024 * 1024
"""Bytes; a thousand rows of `each` take a tenth of it."""
_MOST_NODES: Final = 100_000  # aliases count each time they are used: nine lines of them can stand for a billion nodes

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value"))
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_RADIX = re.compile(r"0(o[0-7]{1,30}|x[0-9a-fA-F]{1,30})")
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Said in our words, because the library's quote the text.
_SYNTAX = (
    ("undefined alias", "refers by * to an anchor that is not there", "put a text that begins with * in quotes"),
    ("'\\t' that cannot start", "is indented by a tab", "indent with spaces"),
    ("cannot start any token", "begins a text with a character that cannot begin one", "put the text in quotes"),
    ("unexpected end of stream", "opens a quote that is never closed", "close it"),
    ("but found '<stream end>'", "opens a bracket that is never closed", "close it"),
    ("expected ',' or", "opens a bracket that is not closed, or lacks a comma", "close it, or add the comma"),
    ("mapping values are not allowed", "has a colon where none can be", "put a text that holds ': ' in quotes"),
    ("could not find expected ':'", "has a key without a colon", "add ': ' after the key, or quote the text"),
    ("but found '<scalar>'", "has a text that cannot stand here", "align the line, or put the whole text in quotes"),
    ("but found ']'", "closes a bracket that was not opened", "remove it"),
    ("but found '}'", "closes a bracket that was not opened", "remove it"),
    ("expected <block end>", "is not indented like the lines before", "align the lines that belong together"),
    ("unknown escape", "has a backslash that means nothing in double quotes", "use single quotes, or double it"),
    ("another document", "begins a second document", "keep one document to a file"),
)


class Severity(StrEnum):
    """What a problem means for its policy."""

    ERROR = "error"  # it is not loaded
    WARNING = "warning"  # it is, and somebody should look


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a policy file, where, and the mend."""

    file: str
    line: int | None  # None: the file as a whole
    column: int | None
    field: str  # dotted path, such as checks[1].target; empty: the file as a whole
    what: str
    mend: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = f"{self.field}: " if self.field else ""
        return f"{where}: {subject}{self.what}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written."""

    file: str
    line: int
    column: int
    field: str  # dotted path within its file
    row: str | None = None  # name of the each row it was filled in from

    def problem(self, what: str, mend: str, severity: Severity = Severity.ERROR) -> Problem:
        """A problem with what is written here."""
        row = f" (row {self.row})" if self.row is not None else ""
        return Problem(self.file, self.line, self.column, self.field, what + row, mend, severity)

    def child(self, part: str | int) -> str:
        """Dotted path of a part of what is written here."""
        if isinstance(part, int):
            return f"{self.field}[{part}]"
        return f"{self.field}.{part}" if self.field else part


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place. Neither value nor text is in its repr: either may be a secret."""

    place: Place
    value: "bool | int | Fraction | str | dict[str, Node] | list[Node] | None" = field(repr=False)
    text: str = field(default="", repr=False)  # of a scalar, as written
    secret: bool = False  # belongs to a secret and is not to be quoted

    @property
    def items(self) -> "dict[str, Node]":
        """Its parts by key; nothing where it is not a map."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """Builtin values, without the keys that have none."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items() if node.value is not None}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, path: Path) -> "tuple[Node, Path]":
        """The deepest node on ``path``, and what of the path leads beyond it."""
        node = self
        for index, part in enumerate(path):
            match node.value, part:
                case dict() as parts, str() if part in parts:
                    node = parts[part]
                case list() as parts, int() if part < len(parts):
                    node = parts[part]
                case _:
                    return node, path[index:]
        return node, ()

    def walk(self, path: str = "") -> "Iterator[tuple[str, Node]]":
        """It and everything in it, each with its dotted path from here."""
        yield path, self
        if isinstance(self.value, dict):
            for key, node in self.value.items():
                yield from node.walk(f"{path}.{key}" if path else key)
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.walk(f"{path}[{index}]")


def read_document(file: str, content: bytes) -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML document and what is wrong with it as YAML; no tree where it cannot be read at all."""
    if len(content) > LARGEST_FILE:
        return None, [_whole(file, f"is larger than {LARGEST_FILE // 1024} KiB", "split it into several files")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return None, [Problem(file, line, None, "", "is not UTF-8", "save the file as UTF-8")]
    if (found := _UNPRINTABLE.search(text)) is not None:
        line = text[: found.start()].count("\n") + 1
        return None, [Problem(file, line, None, "", "holds a control character", "remove it")]
    reader = _Reader(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote anchors
            root = YAML(typ="safe", pure=True).compose(text)
        if root is None:
            return None, [_whole(file, "is empty", "describe a policy in it, or remove it")]
        return reader.read(root, Place(file, root.start_mark.line + 1, root.start_mark.column + 1, "")), reader.problems
    except MarkedYAMLError as error:
        return None, [_syntax_problem(file, error)]
    except YAMLError:
        return None, [_whole(file, "is not YAML", "compare it with an example policy")]
    except RecursionError:
        return None, [_whole(file, "is nested too deeply", "write it flatter")]
    except _TooMuch:
        return None, [_whole(file, "stands for too many values by its aliases", "write fewer aliases")]


def merged(below: Node, above: Node) -> Node:
    """``above`` over ``below``: maps merge, everything else replaces; a reference to a secret is one value."""
    if not isinstance(below.value, dict) or not isinstance(above.value, dict) or above.secret:
        return above
    both = dict(below.value)
    for key, node in above.value.items():
        both[key] = merged(both[key], node) if key in both else node
    return Node(above.place, both)


class _TooMuch(Exception):
    """An alias leads round in a circle, or to more nodes than any policy has."""


class _Reader:
    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._left = _MOST_NODES
        self._open: set[int] = set()

    def read(self, node: Any, place: Place, secret: bool = False) -> Node:
        self._left -= 1
        if self._left < 0 or id(node) in self._open:
            raise _TooMuch
        self._open.add(id(node))
        try:
            return self._read(node, place, secret)
        finally:
            self._open.remove(id(node))

    def _read(self, node: Any, place: Place, secret: bool) -> Node:
        if isinstance(node, ScalarNode) and str(node.tag) in _SCALAR_TAGS:
            value = node.value if node.style or node.tag == f"{_TAG}str" else _scalar(node.value)
            if value is None:
                self.problems.append(place.problem("has no value", "give it one, or remove the line"))
            return Node(place, value, node.value, secret)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            parts = [
                self.read(part, self._place(part, place.field if secret else place.child(index)), secret)
                for index, part in enumerate(node.value)
            ]
            return Node(place, parts, secret=secret)
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return Node(place, self._map(node, place, secret), secret=secret)
        self.problems.append(place.problem("has a tag (!), which has no meaning here", "put the text in quotes"))
        return Node(place, "", secret=secret)

    def _map(self, node: MappingNode, place: Place, secret: bool) -> dict[str, Node]:
        parts: dict[str, Node] = {}
        for key_node, value_node in node.value:
            where = self._place(key_node, place.field)
            if not isinstance(key_node, ScalarNode) or not key_node.value:
                self.problems.append(where.problem("has a key that is not a text", "write key: value"))
                continue
            key = key_node.value
            if not secret:
                where = self._place(key_node, place.child(key))
            if key_node.tag == f"{_TAG}merge":
                mend = "use defaults in _shared.yaml, or each"
                self.problems.append(where.problem("is a merge key, which YAML 1.2 does not have", mend))
            elif key in parts:
                first = f"is there twice, first on line {parts[key].place.line}"
                self.problems.append(where.problem(first, "keep one of them"))
            else:
                parts[key] = self.read(value_node, where, secret or key in SECRET_KEYS)
        return parts

    def _place(self, node: Any, path: str) -> Place:
        return Place(self._file, node.start_mark.line + 1, node.start_mark.column + 1, path)


def _scalar(text: str) -> bool | int | Fraction | str | None:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    number = None if "/" in text else read_number(text)
    return text if number is None else number


def _syntax_problem(file: str, error: MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = f"{error.problem} {error.context}"
    what, mend = "is not YAML", "compare it with an example policy"
    for sign, ours, repair in _SYNTAX:
        if sign in said:
            what, mend = ours, repair
            break
    if mark is None:
        return _whole(file, what, mend)
    return Problem(file, mark.line + 1, mark.column + 1, "", what, mend)


def _whole(file: str, what: str, mend: str) -> Problem:
    return Problem(file, None, None, "", what, mend)


def quoted(node: Node) -> str:
    """The value of ``node`` as a message may show it."""
    if node.secret:
        return "this"
    return node.text if isinstance(node.value, int | Fraction) and len(node.text) <= 30 else shown(node.value)

"""Reading YAML within bounds, keeping where everything stands.

The tree is built from the parser's event stream, so that a file that is too large, too deep or that
multiplies itself through aliases is refused before anything is expanded, and without recursion. Scalars
follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): ``yes`` is a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from glowsim.scenario.problems import Problem, ScenarioError

__all__ = [
    "MAX_ALIASES",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Mark",
    "Node",
    "Source",
    "parse",
    "read_file",
    "read_text",
]

MAX_BYTES: Final = 1 << 20
"""Longest text, in bytes."""
MAX_DEPTH: Final = 32
"""Deepest nesting, aliases expanded."""
MAX_NODES: Final = 20_000
"""Most values, aliases expanded."""
MAX_ALIASES: Final = 64
"""Most aliases."""

_TaggedEvent = ScalarEvent | SequenceStartEvent | MappingStartEvent
_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A text and what a message calls it; an override is not ``numbered``: it is one line.

    >>> Source("x.yaml", "a: 1").lines()
    ['a: 1']
    """

    name: str
    text: str
    numbered: bool = True

    def lines(self) -> list[str]:
        """Return the lines without their ends."""
        return self.text.splitlines()

    def problem(self, mark: Mark, message: str, path: str = "", **more: Any) -> Problem:
        """Return a problem at ``mark`` of this text."""
        lines = self.lines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        number = mark.line + 1 if self.numbered else 0
        return Problem(
            self.name, number, mark.column + 1, path, message, source=line, width=mark.width, **more
        )


class Mark(NamedTuple):
    """A place in a source: line and column from 0, and how many characters it covers."""

    source: Source
    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place. An aliased node is shared, never copied, and never changed.

    Args:
        value: a scalar, a list of nodes, or a dict of nodes.
        mark: where it starts.
        keys: for a dict, where each key stands.
        size: values in it, itself included, aliases expanded.
        height: levels of nesting in it, aliases expanded.
    """

    value: Any
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)
    size: int = 1
    height: int = 0

    def plain(self) -> Any:
        """Return the value as dicts, lists and scalars.

        >>> read_text("a: [1, 2s, yes]").plain()
        {'a': [1, '2s', 'yes']}
        """
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def read_file(path: Path) -> Node:
    """Read a YAML file into a tree.

    Raises:
        ScenarioError: unreadable, too large, not UTF-8, or not acceptable YAML.
    """
    name = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScenarioError([Problem(name, 0, 0, "", f"cannot be read: {error.strerror}")]) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(raw) <= MAX_BYTES:
            line = raw.count(b"\n", 0, error.start) + 1
            message = f"is not UTF-8 (byte {error.start}, line {line}): save it as UTF-8"
            raise ScenarioError([Problem(name, 0, 0, "", message)]) from error
        text = raw.decode("utf-8-sig", errors="replace")
    return read_text(text, name)


def read_text(text: str, name: str = "<text>") -> Node:
    """Read YAML text into a tree; ``name`` is what messages call it.

    Raises:
        ScenarioError: too large, too deep, or not acceptable YAML; the problem says where and why.

    >>> read_text("a: {b: 300ms}").value["a"].mark[1:]
    (0, 3, 1)
    """
    return parse(Source(name, text), text)


def parse(source: Source, text: str) -> Node:
    """Read ``text`` into a tree whose marks point into ``source``.

    Raises:
        ScenarioError: as for ``read_text``.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        _refuse(source, f"is larger than {MAX_BYTES >> 10} KiB, the most that a scenario may have")
    if "\0" in text:
        _refuse(source, "holds a NUL character: it is not a text file")
    try:
        return _Composer(source).compose(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(source, at.line, at.column) if at else Mark(source, 0, 0)
        raise ScenarioError([source.problem(mark, f"is not YAML: {_in_english(error)}")]) from None
    except YAMLError as error:
        _refuse(source, f"is not YAML: {str(error).splitlines()[0]}")
        raise


def _refuse(source: Source, message: str) -> None:
    raise ScenarioError([Problem(source.name, 0, 0, "", message)])


def _in_english(error: MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "'\\t'" in problem:
        return "a tab cannot indent; use spaces"
    if "mapping values are not allowed" in problem:
        return "a second ':' on this line; quote the text, or start a new line"
    return f"{error.context}, {problem}" if error.context else problem


@dataclass(slots=True)
class _Open:
    """A collection that has begun and not ended."""

    mark: Mark
    anchor: str | None
    is_mapping: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)
    key: str | None = None
    size: int = 1
    height: int = 0


class _Composer:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = source.lines()
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._aliases = 0
        self._size = 0
        self._root: Node | None = None

    def compose(self, events: Iterator[Event]) -> Node:
        documents = 0
        for event in events:
            match event:
                case DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        self._stop(self._mark(event), "a second document begins here: write one per file")
                case AliasEvent():
                    self._alias(event)
                case ScalarEvent():
                    self._scalar(event)
                case SequenceStartEvent() | MappingStartEvent():
                    self._start(event)
                case CollectionEndEvent():
                    self._end()
        if self._root is None or self._root.value is None:
            _refuse(self._source, "is empty")
        assert self._root is not None
        return self._root

    def _mark(self, event: Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        same_line = start.line == end.line
        length = len(self._lines[start.line]) if start.line < len(self._lines) else 0
        last = end.column if same_line else length
        return Mark(self._source, start.line, start.column, max(1, last - start.column))

    def _stop(self, mark: Mark, message: str) -> None:
        raise ScenarioError([self._source.problem(mark, message)])

    def _check_node(self, event: _TaggedEvent, mark: Mark) -> None:
        if event.tag is not None:
            self._stop(mark, f"the tag {event.tag!r} is not supported: write plain values")
        if event.anchor is not None and event.anchor in self._anchors:
            self._stop(mark, f"the anchor '&{event.anchor}' is defined twice")

    def _alias(self, event: AliasEvent) -> None:
        self._aliases += 1
        mark = self._mark(event)
        if self._aliases > MAX_ALIASES:
            self._stop(mark, f"more than {MAX_ALIASES} aliases")
        if any(opened.anchor == event.anchor for opened in self._open):
            self._stop(mark, f"the alias '*{event.anchor}' refers to itself")
        if event.anchor not in self._anchors:
            self._stop(mark, f"the alias '*{event.anchor}' refers to no anchor above it")
        node = self._anchors[event.anchor]
        self._count(node.size, mark)
        self._take(node, mark)

    def _scalar(self, event: ScalarEvent) -> None:
        mark = self._mark(event)
        self._check_node(event, mark)
        text = self._whole_text(event.value, mark)
        is_plain = event.style is None and event.implicit[0]
        node = Node(_resolve(text) if is_plain else text, mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        top = self._open[-1] if self._open else None
        if top is not None and top.is_mapping and top.key is None:
            self._key(top, text, mark)
        else:
            self._count(1, mark)
            self._take(node, mark)

    def _whole_text(self, text: str, mark: Mark) -> str:
        r"""Join the surrogate pairs that JSON's escapes may leave (``"\ud83d\ude00"``)."""
        try:
            joined = (
                text.encode("utf-16", "surrogatepass").decode("utf-16") if _SURROGATE.search(text) else text
            )
        except UnicodeDecodeError:
            self._stop(mark, "holds half a surrogate pair: write the character itself")
            raise
        if "\0" in joined:
            self._stop(mark, "holds a NUL character")
        return joined

    def _key(self, top: _Open, key: str, mark: Mark) -> None:
        if key in top.keys:
            first = top.keys[key].line + 1
            self._stop(mark, f"the key {key!r} is here twice; the first is on line {first}")
        if key == "<<":
            self._stop(mark, "merge keys ('<<') are not part of YAML 1.2: write the keys out")
        top.key = key
        top.keys[key] = mark

    def _start(self, event: SequenceStartEvent | MappingStartEvent) -> None:
        mark = self._mark(event)
        self._check_node(event, mark)
        if len(self._open) >= MAX_DEPTH:
            self._stop(mark, f"nested deeper than {MAX_DEPTH} levels")
        if self._open and self._open[-1].is_mapping and self._open[-1].key is None:
            self._stop(mark, "a key must be a plain text")
        self._count(1, mark)
        self._open.append(_Open(mark, event.anchor, isinstance(event, MappingStartEvent)))

    def _end(self) -> None:
        done = self._open.pop()
        value = done.entries if done.is_mapping else done.items
        node = Node(value, done.mark, done.keys, done.size, done.height + 1)
        if done.anchor is not None:
            self._anchors[done.anchor] = node
        self._take(node, done.mark)

    def _count(self, values: int, mark: Mark) -> None:
        self._size += values
        if self._size > MAX_NODES:
            self._stop(mark, f"more than {MAX_NODES} values (aliases expanded)")

    def _take(self, node: Node, mark: Mark) -> None:
        if not self._open:
            self._root = node
            return
        top = self._open[-1]
        top.size += node.size
        top.height = max(top.height, node.height)
        if len(self._open) + node.height > MAX_DEPTH:
            self._stop(mark, f"nested deeper than {MAX_DEPTH} levels (aliases expanded)")
        if not top.is_mapping:
            top.items.append(node)
        elif top.key is None:
            self._stop(mark, "a key must be a plain text")
        else:
            top.entries[top.key] = node
            top.key = None


def _resolve(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text

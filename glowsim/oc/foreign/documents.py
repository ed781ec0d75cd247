"""Foreign configurations as trees: several documents in one file, fields by name, everything with its line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from glowsim.scenario.problems import Problem, ScenarioError, did_you_mean
from glowsim.scenario.source import MAX_BYTES, Mark, Node, read_text

__all__ = ["Fields", "documents", "duration_s", "refuse"]

_MOST_DOCUMENTS: Final = 64
_LONGEST_S: Final = 365 * 86_400.0
_BREAK = re.compile(r"---(\s|\Z)")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def documents(path: Path) -> list[Node]:
    """Read every document of a YAML or JSON file (at most 64, at most 1 MiB in all); lines are the file's own.

    Raises:
        ScenarioError: unreadable, too large, or no acceptable YAML; the problem says where.
    """
    name = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise _whole(name, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _whole(name, "is not UTF-8: save it as UTF-8") from error
    if len(raw) > MAX_BYTES:
        raise _whole(name, f"is larger than {MAX_BYTES >> 10} KiB")
    parts = list(_split(text))
    if len(parts) > _MOST_DOCUMENTS:
        raise _whole(name, f"has more than {_MOST_DOCUMENTS} documents: keep those of the rollout")
    return [read_text(part, name) for part in parts]


def _split(text: str) -> Iterator[str]:
    lines, start = text.splitlines(), 0
    breaks = [at for at, line in enumerate(lines) if _BREAK.match(line)]
    for end in [*breaks, len(lines)]:
        body = lines[start:end]
        if any(line.strip() and not line.lstrip().startswith("#") for line in body):
            yield "\n" * start + "\n".join(body)
        start = end + 1


def _whole(name: str, message: str) -> ScenarioError:
    return ScenarioError([Problem(name, 0, 0, "", message)])


def refuse(mark: Mark, message: str, path: str = "", **more: Any) -> NoReturn:
    """Raise the ``ScenarioError`` that says ``message`` at this place."""
    raise ScenarioError([mark.source.problem(mark, message, path, **more)])


def duration_s(node: Node, path: str) -> float:
    """Read a duration as Go writes it (``90s``, ``1h30m``), or a number of seconds; 1 s to a year.

    Raises:
        ScenarioError: it is none.
    """
    text = str(node.value)
    parts = _PART.findall(text + "s" if text.isdecimal() else text)
    if len(text) > 40 or "".join(number + unit for number, unit in parts) not in (text, text + "s"):
        refuse(node.mark, "is no duration: write such as 90s, 5m or 1h30m", path)
    seconds = math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 1.0 <= seconds <= _LONGEST_S:
        refuse(node.mark, "should be from 1 second to a year", path)
    return seconds


class Fields:
    """A mapping of a document, read field by field; what nobody asked for is named by ``unread``.

    Args:
        node: the mapping.
        path: what messages call it, such as ``spec.analysis``.

    Raises:
        ScenarioError: the node is no mapping.
    """

    def __init__(self, node: Node, path: str = "") -> None:
        self.mark = node.mark
        self.path = path
        if not isinstance(node.value, dict):
            refuse(node.mark, "should be a mapping of fields", path)
        self._nodes: dict[str, Node] = node.value
        self._marks = node.keys
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    @property
    def names(self) -> list[str]:
        """The names of its fields, in their order."""
        return list(self._nodes)

    def place(self, key: str) -> str:
        """Return what messages call a field of it."""
        return f"{self.path}.{key}" if self.path else key

    def mark_of(self, key: str) -> Mark:
        """Return where a field stands."""
        return self._marks.get(key, self.mark)

    def get(self, key: str) -> Node | None:
        """Return a field, None if it is missing or null."""
        self._asked.add(key)
        node = self._nodes.get(key)
        return None if node is None or node.value is None else node

    def fields(self, key: str) -> Fields | None:
        """Return a field that is a mapping."""
        node = self.get(key)
        return None if node is None else Fields(node, self.place(key))

    def each(self, key: str) -> list[Fields]:
        """Return the mappings of a list, empty if it is missing."""
        return [Fields(item, f"{self.place(key)}[{at}]") for at, item in enumerate(self.items(key))]

    def items(self, key: str) -> list[Node]:
        """Return the values of a list, empty if it is missing."""
        node = self.get(key)
        if node is None:
            return []
        if not isinstance(node.value, list):
            refuse(node.mark, "should be a list", self.place(key))
        return node.value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; without a default it has to be there."""
        node = self.get(key)
        if node is None:
            if default is None:
                refuse(self.mark, f"needs {key!r}", self.path)
            return default
        if not isinstance(node.value, (str, int, float)) or isinstance(node.value, bool):
            refuse(node.mark, "should be a text", self.place(key))
        return str(node.value)

    def number(self, key: str, default: float) -> float:
        """Return a number (Kubernetes also writes whole ones as texts)."""
        node = self.get(key)
        if node is None:
            return default
        value = node.value
        if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?", value):
            return float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e12:
            refuse(node.mark, "should be a number", self.place(key))
        return float(value)

    def integer(self, key: str, default: int, least: int = 0) -> int:
        """Return a whole number of at least ``least``."""
        value = self.number(key, default)
        if value != int(value) or value < least:
            refuse(self.mark_of(key), f"should be a whole number of at least {least}", self.place(key))
        return int(value)

    def flag(self, key: str) -> bool:
        """Return a switch, false if it is missing."""
        node = self.get(key)
        if node is None:
            return False
        if not isinstance(node.value, bool):
            refuse(node.mark, "should be true or false", self.place(key))
        return node.value

    def seconds(self, key: str) -> float | None:
        """Return a duration, None if it is missing."""
        node = self.get(key)
        return None if node is None else duration_s(node, self.place(key))

    def unread(self, without_part: tuple[str, ...] = ()) -> list[str]:
        """Say which fields nobody asked for, but for those known to have no part in the decision."""
        known = [*self._asked, *without_part]
        notes = []
        for key in self._nodes:
            if key in known:
                continue
            near = did_you_mean(key, known)
            hint = f" (did you mean {near!r}?)" if near else ""
            line = self.mark_of(key).line + 1
            notes.append(f"line {line}: {self.place(key)} is not understood and has no part here{hint}")
        return notes

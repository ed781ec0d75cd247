"""Overrides from the command line: ``-s fleet.tax-eu-001.instances=3``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from glowsim.scenario.paths import Missing, index_of, key_at
from glowsim.scenario.problems import Problem, ScenarioError
from glowsim.scenario.source import MAX_DEPTH, Mark, Node, Source, parse

__all__ = ["apply"]

_NOTHING = ("", "~", "null")
"""Values that take a key's content away: ``controllers.scaler=null`` switches the scaler off."""


def apply(root: Node, override: str, option: str = "-s") -> Node:
    """Return the tree with one value replaced or added; the tree given stays as it is.

    Args:
        root: the scenario as read.
        override: ``key.path=value``; list items by number, agents also by name, the value in YAML.
        option: how it was given, for its errors.

    Raises:
        ScenarioError: the path leads nowhere, or the value is not YAML; shown in the override's own text.

    >>> from glowsim.scenario.source import read_text
    >>> apply(read_text("fleet: [{agent: tax, slots: 1}]"), "fleet.tax.slots=9").plain()
    {'fleet': [{'agent': 'tax', 'slots': 9}]}
    """
    source = Source(option, override, numbered=False)
    path, equals, value = override.partition("=")
    parts = path.split(".")
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        mark = Mark(source, 0, 0, max(1, len(override)))
        raise ScenarioError([source.problem(mark, "an override is written key.path=value")])
    columns = [len(".".join(parts[:i])) + (i > 0) for i in range(len(parts))]
    marks = [Mark(source, 0, column, len(part)) for column, part in zip(columns, parts, strict=True)]
    nothing = value.strip() in _NOTHING
    new = Node(None, marks[-1]) if nothing else parse(source, " " * (len(path) + 1) + value)
    return _put(root, parts, marks, new)


def _put(node: Node, parts: Sequence[str], marks: Sequence[Mark], new: Node) -> Node:
    if not parts:
        return new
    if isinstance(node.value, list):
        names = [_agent(item) for item in node.value]
        try:
            i = index_of(parts[0], names)
        except Missing as missing:
            problem = _problem(marks[0], str(missing), missing.allowed, missing.suggestion)
            raise ScenarioError([problem]) from None
        items = list(node.value)
        items[i] = _put(items[i], parts[1:], marks[1:], new)
        return replace(node, value=items)
    if not isinstance(node.value, dict) and node.value is not None:
        raise ScenarioError([_problem(marks[0], f"{parts[0]!r} would stand inside a plain value")])
    entries: dict[str, Node] = node.value or {}
    key, used = key_at(entries, parts)
    inner = entries.get(key, Node(None, marks[0]))
    is_new = key not in entries or used == len(parts)
    keys = {**node.keys, key: marks[0]._replace(width=len(key)) if is_new else node.keys[key]}
    return replace(node, value={**entries, key: _put(inner, parts[used:], marks[used:], new)}, keys=keys)


def _agent(item: Node) -> Any:
    return item.value["agent"].value if isinstance(item.value, dict) and "agent" in item.value else None


def _problem(
    mark: Mark, message: str, allowed: tuple[str, ...] = (), suggestion: str | None = None
) -> Problem:
    path = mark.source.text.partition("=")[0]
    return mark.source.problem(mark, message, path, allowed=allowed, suggestion=suggestion)

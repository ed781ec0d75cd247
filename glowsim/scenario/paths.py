"""Dotted paths into a scenario: ``fleet.0.service.base``, where ``fleet.tax-eu-001`` names an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glowsim.scenario.problems import did_you_mean

__all__ = ["Missing", "index_of", "join", "key_at", "resolve"]


class Missing(LookupError):
    """A path leads nowhere; says which part, what is there, and what was probably meant."""

    def __init__(self, message: str, allowed: tuple[str, ...] = (), word: str = "") -> None:
        super().__init__(message)
        self.allowed = allowed
        self.suggestion = did_you_mean(word, allowed)


def join(path: Sequence[str | int]) -> str:
    """Return a path as text.

    >>> join(("fleet", 0, "model"))
    'fleet.0.model'
    """
    return ".".join(map(str, path))


def key_at(keys: Mapping[str, Any], parts: Sequence[str]) -> tuple[str, int]:
    """Return the key that the next parts name, and how many parts it takes: keys may contain dots.

    >>> key_at({"gpt-4.1": 0}, ["gpt-4", "1", "input"])
    ('gpt-4.1', 2)
    """
    for used in range(len(parts), 1, -1):
        key = ".".join(parts[:used])
        if key in keys:
            return key, used
    return parts[0], 1


def index_of(part: str, names: Sequence[object]) -> int:
    """Return the index in a list that a part of a path means: a number, or the name of an agent.

    Raises:
        Missing: out of range, or no such agent; names are those of the list's items.

    >>> index_of("1", [None, None]), index_of("tax", ["vat", "tax"])
    (1, 1)
    """
    if part in names:
        return names.index(part)
    if part.isdecimal() and len(part) < 10 and int(part) < len(names):
        return int(part)
    numbers = f"0 to {len(names) - 1}" if names else "none: the list is empty"
    raise Missing(f"{part!r} is not in the list", (numbers, *(x for x in names if isinstance(x, str))), part)


def resolve(data: Any, path: str) -> Any:
    """Return the part of plain data at a dotted path.

    Raises:
        Missing: a part of the path leads nowhere.

    >>> resolve({"fleet": [{"agent": "tax", "slots": 8}]}, "fleet.tax.slots")
    8
    """
    parts = path.split(".")
    while parts:
        if isinstance(data, dict):
            key, used = key_at(data, parts)
            if key not in data:
                raise Missing(f"there is no {key!r}", tuple(data), key)
            data = data[key]
        elif isinstance(data, list):
            names = [item.get("agent") if isinstance(item, dict) else None for item in data]
            data, used = data[index_of(parts[0], names)], 1
        else:
            raise Missing(f"{parts[0]!r} would stand inside a plain value")
        parts = parts[used:]
    return data

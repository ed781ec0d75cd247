"""State as plain data that JSON can hold, and back.

Dictionaries with any key, tuples, deques, sets and the types of `glowsim.core.types` survive the trip;
anything else is refused by name, so that no controller can hide state that a restart would lose.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from enum import IntEnum
from typing import Any

from glowsim.core import reasons, types

__all__ = ["Stateful", "pack", "unpack"]

_NAMED: dict[str, Any] = {
    name: kind
    for module in (types, reasons)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
}


def pack(value: Any) -> Any:
    """Return ``value`` as plain JSON data.

    >>> unpack(pack({(1, 2): [float("inf")]}))
    {(1, 2): [inf]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"!": "float", "is": repr(value)}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, dict):
        kind = "odict" if isinstance(value, OrderedDict) else "dict"
        return {"!": kind, "is": [[pack(k), pack(v)] for k, v in value.items()]}
    if isinstance(value, deque):
        return {"!": "deque", "is": [pack(item) for item in value]}
    if isinstance(value, set):
        return {"!": "set", "is": [pack(item) for item in sorted(value)]}
    if isinstance(value, tuple):
        kind = type(value).__name__ if hasattr(value, "_fields") else "tuple"
        if kind != "tuple" and kind not in _NAMED:
            raise TypeError(
                f"a snapshot cannot hold a {kind}: use plain data or a type of glowsim.core.types"
            )
        return {"!": kind, "is": [pack(item) for item in value]}
    raise TypeError(f"a snapshot cannot hold a {type(value).__name__}: use plain data")


def unpack(value: Any) -> Any:
    """Return what `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, inner = value["!"], value["is"]
    if kind == "float":
        return float(inner)
    if kind in ("dict", "odict"):
        pairs = [(unpack(k), unpack(v)) for k, v in inner]
        return OrderedDict(pairs) if kind == "odict" else dict(pairs)
    items = [unpack(item) for item in inner]
    if kind == "deque":
        return deque(items)
    if kind == "set":
        return set(items)
    if kind == "tuple":
        return tuple(items)
    named = _NAMED[kind]
    # A type may have grown optional fields at its end since this was written.
    return named(*(_enum(named, field, item) for field, item in zip(named._fields, items, strict=False)))


_ENUMS: dict[tuple[str, str], type[IntEnum]] = {
    ("Reason", "code"): reasons.Code,
    ("Reason", "bound"): reasons.Constraint,
    ("Alert", "severity"): types.Severity,
    ("Change", "kind"): types.ChangeKind,
    ("Fail", "outcome"): types.Outcome,
    ("Finished", "outcome"): types.Outcome,
}


def _enum(named: Any, field: str, item: Any) -> Any:
    enum = _ENUMS.get((named.__name__, field))
    return item if enum is None else enum(item)


class Stateful:
    """Base of everything whose state outlives a restart.

    A subclass names in ``state`` the attributes that change after construction; those that have a
    ``snapshot`` of their own, such as streams, are saved by it. Restoring and going on must equal never
    having stopped.
    """

    state: tuple[str, ...] = ()

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain JSON data."""
        saved: dict[str, Any] = {}
        for name in self.state:
            value = getattr(self, name)
            saved[name] = value.snapshot() if hasattr(value, "snapshot") else pack(value)
        return saved

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        for name in self.state:
            value = getattr(self, name)
            if hasattr(value, "restore"):
                value.restore(saved[name])
            else:
                setattr(self, name, unpack(saved[name]))

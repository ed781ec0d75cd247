"""The smallest scenario that still fails: take things away and halve numbers for as long as it does."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from glowsim.scenario import Scenario

__all__ = ["shrink"]

_QUANTITY = re.compile(r"(\$?)([0-9.]+(?:e[+-]?[0-9]+)?)(.*)")
_KEPT = frozenset({"title", "question", "seed", "models", "kind", "law", "use"})
_HALVED_ONLY = frozenset({"tasks"})
"""Without these a run could become longer."""
_MIDDLES = ("mean", "median", "high")
Path = tuple[str | int, ...]


def shrink(
    data: dict[str, Any], fails: Callable[[dict[str, Any]], bool], *, runs: int = 300
) -> dict[str, Any]:
    """Return a scenario that still fails and from which no single thing can be taken away.

    Greedy, from the outermost parts inwards and over again until nothing gives: every key and every item of a
    list is removed (a controller's parameter falls back to its default), a law becomes a constant, a number
    is halved. What is no valid scenario is passed over without a run.

    Parameters
    ----------
    data
        A scenario in YAML spelling that fails; it is left as it is.
    fails
        Whether a scenario fails in the same way.
    runs
        How many may be tried; then the smallest so far is returned.

    >>> def fails(data): return len(data["fleet"]) > 0
    >>> from glowsim.fuzz.generate import scenario_data
    >>> small = shrink(scenario_data(1), fails)
    >>> len(small["fleet"]), len(small["workload"]), "controllers" in small, "faults" in small
    (1, 1, False, False)
    """
    seen = {_text(data)}
    shrunk = True
    while shrunk:
        shrunk = False
        for path in _paths(data):
            while (smaller := _next(data, path, seen)) is not None:
                if not runs:
                    return data
                runs -= 1
                if not fails(smaller):
                    continue
                data, shrunk = smaller, True
    return data


def _next(data: dict[str, Any], path: Path, seen: set[str]) -> dict[str, Any] | None:
    """Return the next smaller scenario at a path that was not tried before, or None."""
    for smaller in _smaller(data, path):
        text = _text(smaller)
        if text in seen:
            continue
        seen.add(text)
        try:
            Scenario.model_validate(smaller)
        except ValidationError:
            continue
        return smaller
    return None


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data)


def _paths(data: dict[str, Any]) -> list[Path]:
    """Return the paths of all parts: what makes a run short, then the outermost; a list's last item first."""
    found: list[Path] = []
    level: list[tuple[Path, Any]] = [((), data)]
    while level:
        inner: list[tuple[Path, Any]] = []
        for path, part in level:
            items = part.items() if isinstance(part, dict) else reversed(list(enumerate(part)))
            inner += [((*path, key), value) for key, value in items if key not in _KEPT]
        found += [path for path, _ in inner]
        level = [(path, value) for path, value in inner if isinstance(value, dict | list)]
    return sorted(found, key=lambda path: path[-1] not in _HALVED_ONLY)


def _smaller(data: dict[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Yield the scenarios that have less at a path: nothing, then something simpler."""
    *above, last = path
    try:
        value = _at(data, above)[last]
    except (KeyError, IndexError, TypeError):
        return  # went away with something around it
    if last not in _HALVED_ONLY:
        without = copy.deepcopy(data)
        del _at(without, above)[last]
        yield without
    for simpler in _simpler(value):
        changed = copy.deepcopy(data)
        _at(changed, above)[last] = simpler
        yield changed


def _at(data: Any, path: list[str | int]) -> Any:
    for key in path:
        data = data[key]
    return data


def _simpler(value: Any) -> Iterator[Any]:
    if isinstance(value, dict) and "law" in value:
        yield from (value[key] for key in _MIDDLES if key in value)
        yield from value.get("x", ())[1:2]
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        yield from _less(value)
    elif isinstance(value, str) and (match := _QUANTITY.fullmatch(value)):
        prefix, number, unit = match.groups()
        yield from (f"{prefix}{less:g}{unit}" for less in _less(float(number)))


def _less(value: float) -> Iterator[float]:
    """Yield half of a number, as a whole one, or a small one with a single digit."""
    if value > 1:
        yield value // 2 if isinstance(value, int) else float(value // 2 or 1)
    elif (short := float(f"{value:.0e}")) < value:
        yield short

"""A part of a preset's file, which says where something is missing or cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import inf
from sys import float_info
from typing import Any, Final, NoReturn

from glowsim.presets import PresetError

__all__ = ["ORIGINS", "Place"]

ORIGINS: Final = ("measured", "published", "fitted", "assumed")
"""Where a number can come from."""


class Place:
    """The keys of a file, or of a part of it. Each method that takes a key returns its value, once it is checked.

    Parameters
    ----------
    where
        What messages call it.
    found
        Its content.

    Raises
    ------
    PresetError
        It is not a mapping; and by each method, the key is missing or its value cannot be: ``WHERE: key: why``.

    >>> place = Place("preset 'a'", {"valid": {"batch": 64, "context": 0}})
    >>> place.part("valid").whole("batch")
    64
    >>> place.part("valid").whole("context")
    Traceback (most recent call last):
        ...
    glowsim.presets.PresetError: preset 'a': valid: context: must be a whole number, at least 1, got 0
    """

    def __init__(self, where: str, found: Any) -> None:
        if not isinstance(found, Mapping):
            raise PresetError(f"{where}: must be a mapping, got {type(found).__name__}")
        self.where: Final = where
        self.found: Final[Mapping[str, Any]] = found

    def fail(self, key: str, why: str) -> NoReturn:
        """Raise a `PresetError` that names the place."""
        raise PresetError(f"{self.where}: {key}: {why}")

    def part(self, key: str) -> Place:
        """Return a mapping within."""
        return Place(f"{self.where}: {key}", self._get(key))

    def parts(self, key: str) -> list[Place]:
        """Return the mappings of a list, which may be empty."""
        return [
            Place(f"{self.where}: {key}[{i}]", each) for i, each in enumerate(self._list(key, "mappings"))
        ]

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self._get(key)
        if not isinstance(value, str) or not value:
            self.fail(key, f"must be a text, got {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list, each entry as a text; empty where the key is missing."""
        return tuple(map(str, self._list(key, "texts"))) if key in self.found else ()

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        """Return one of the texts that are allowed."""
        text = self.text(key)
        if text not in allowed:
            self.fail(key, f"must be one of {', '.join(allowed)}, got {text!r}")
        return text

    def whole(self, key: str) -> int:
        """Return a whole number, at least 1."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.fail(key, f"must be a whole number, at least 1, got {value!r}")
        return value

    def number(self, key: str, low: float = -inf, high: float = inf) -> float:
        """Return a finite number from ``low`` to ``high``."""
        return self._number(key, self._get(key), low, high)

    def numbers(self, key: str, low: float = -inf) -> tuple[float, ...]:
        """Return a list of finite numbers, at least one, each of ``low`` or more."""
        values = self._list(key, "numbers")
        if not values:
            self.fail(key, "must be a list of numbers, got none")
        return tuple(self._number(f"{key}[{i}]", each, low, inf) for i, each in enumerate(values))

    def probabilities(self, key: str) -> tuple[float, ...]:
        """Return numbers that increase from 0 to 1."""
        p = self.numbers(key)
        if p[0] != 0.0 or p[-1] != 1.0 or any(a >= b for a, b in pairwise(p)):
            self.fail(key, f"must increase from 0 to 1, got {list(p)}")
        return p

    def quantiles(self, key: str, p: tuple[float, ...], low: float = 0.0) -> tuple[float, ...]:
        """Return numbers that never decrease, one for each of the probabilities ``p``, each of ``low`` or more."""
        x = self.numbers(key, low)
        if len(x) != len(p) or any(a > b for a, b in pairwise(x)):
            self.fail(
                key,
                f"must be {len(p)} numbers that never decrease, one for each probability, got {list(x)}",
            )
        return x

    def table(self, key: str) -> dict[str, float]:
        """Return names with numbers; empty where the key is missing."""
        if key not in self.found:
            return {}
        part = self.part(key)
        return {str(name): part.number(name) for name in part.found}

    def origin(self) -> str:
        """Return where the numbers come from: one of `ORIGINS`."""
        return self.one_of("origin", ORIGINS)

    def attribution(self) -> str:
        """Return the origin and the source, such as ``assumed: a typical price``."""
        return f"{self.origin()}: {self.text('source')}"

    def _get(self, key: str) -> Any:
        if key not in self.found:
            self.fail(key, "is missing")
        return self.found[key]

    def _list(self, key: str, of: str) -> list[Any] | tuple[Any, ...]:
        values = self._get(key)
        if not isinstance(values, list | tuple):
            self.fail(key, f"must be a list of {of}, got {values!r}")
        return values

    def _number(self, key: str, value: Any, low: float, high: float) -> float:
        # Compared before it is converted: a whole number may exceed every float, and nan fails the comparison.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= float_info.max:
            self.fail(key, f"must be a number, got {value!r}")
        if not low <= value <= high:
            self.fail(key, f"must lie in {low:g} .. {high:g}, got {value:g}")
        return float(value)

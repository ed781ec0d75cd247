"""A part of a preset's file, which says where a value is missing or of the wrong kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from glowsim.presets import PresetError

__all__ = ["ORIGINS", "Place"]

ORIGINS: Final = ("measured", "published", "fitted", "assumed")
"""Where a number can come from."""


class Place:
    """The keys of a file, or of a part of it.

    Parameters
    ----------
    where
        What messages call it.
    found
        Its content.

    Raises
    ------
    PresetError
        It is not a mapping; and by each method, the key is missing or its value is of the wrong kind.

    >>> Place("preset 'a'", {"origin": "heard"}).origin()
    Traceback (most recent call last):
        ...
    glowsim.presets.PresetError: preset 'a': origin must be one of measured, published, fitted, assumed, got 'heard'
    """

    def __init__(self, where: str, found: Any) -> None:
        if not isinstance(found, Mapping):
            raise PresetError(f"{where}: must be keys with values, got {found!r}")
        self._where = where
        self._found = found

    def _get(self, key: str) -> Any:
        if key not in self._found:
            raise PresetError(f"{self._where}: {key} is missing")
        return self._found[key]

    def inside(self, key: str) -> Place:
        """Return a part."""
        return Place(f"{self._where}, {key}", self._get(key))

    def text(self, key: str) -> str:
        """Return a text."""
        return str(self._get(key))

    def number(self, key: str) -> float:
        """Return a number."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PresetError(f"{self._where}: {key} must be a number, got {value!r}")
        return float(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return a list of numbers."""
        values = self._get(key)
        if not isinstance(values, list) or any(
            isinstance(x, bool) or not isinstance(x, int | float) for x in values
        ):
            raise PresetError(f"{self._where}: {key} must be a list of numbers, got {values!r}")
        return tuple(map(float, values))

    def whole(self, key: str) -> int:
        """Return a whole number, at least 1."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PresetError(f"{self._where}: {key} must be a whole number, at least 1, got {value!r}")
        return value

    def share(self, key: str) -> float:
        """Return a number from 0 to 1."""
        value = self.number(key)
        if not 0.0 <= value <= 1.0:
            raise PresetError(f"{self._where}: {key} must lie between 0 and 1, got {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; empty where the key is missing."""
        return tuple(map(str, self._found.get(key, ())))

    def table(self, key: str) -> dict[str, float]:
        """Return names with numbers; empty where the key is missing."""
        if key not in self._found:
            return {}
        part = self.inside(key)
        return {str(name): part.number(name) for name in part._found}

    def origin(self) -> str:
        """Return where the numbers come from: one of `ORIGINS`."""
        origin = self.text("origin")
        if origin not in ORIGINS:
            raise PresetError(f"{self._where}: origin must be one of {', '.join(ORIGINS)}, got {origin!r}")
        return origin

    def attribution(self) -> str:
        """Return the origin and the source, such as ``assumed: a typical price``."""
        return f"{self.origin()}: {self.text('source')}"

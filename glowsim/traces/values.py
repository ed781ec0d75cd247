"""What the fields of a row say: numbers, names, moments; with a reason where they say nothing that can be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from math import inf, isnan, nan
from typing import Any, Final, NamedTuple

__all__ = [
    "Instant", "Row", "Unreadable", "duration_s", "failure", "instant", "nested", "number", "text", "whole",
]  # fmt: skip

Row = Mapping[str, Any]
"""The fields of a row: of JSON its values, of CSV its cells."""

_LARGEST_WHOLE: Final = 2**53
_LONGEST_NAME: Final = 1_000
_LATEST_S: Final = 9e9
"""Nanoseconds since 1970 fit in 64 bits until the year 2262."""
_DATE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?"
)
_FAILURES: Final = (
    ("throttled", re.compile(r"\b429\b|rate.?limit|throttl|too many requests")),
    ("timeout", re.compile(r"\b(408|504)\b|time.?out|timed out|deadline")),
    ("cancelled", re.compile(r"\b499\b|cancel|abort|disconnect")),
)


class Unreadable(ValueError):
    """A row that cannot be read; the message says why."""


class Instant(NamedTuple):
    """A moment."""

    ns: int
    """Nanoseconds, since 1970 if it is a date."""
    dated: bool
    """Whether it is a date, and not seconds since a beginning that the file does not name."""
    naive: bool = False
    """Whether the date named no time zone, and was taken as UTC."""


def number(row: Row, *names: str, required: bool = False) -> float | None:
    """Return the number of 0 or more in the first of the named fields that has a value; None if none has.

    Raises
    ------
    Unreadable
        It is no such number, or is required and not there.

    >>> number({"cost": "0.25", "spend": None}, "spend", "cost")
    0.25
    """
    name, value = _first(row, names)
    if value is None:
        if required:
            raise Unreadable(f"{name} is missing")
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = -1.0
    if not 0.0 <= found < inf or value is True or value is False:
        raise Unreadable(f"{name} must be a number of 0 or more, not {_shown(value)}")
    return found


def whole(row: Row, *names: str, required: bool = False) -> float | None:
    """Return the whole number of 0 or more, as `number` does.

    >>> whole({"tokens": "12"}, "tokens")
    12.0
    """
    found = number(row, *names, required=required)
    if found is not None and (found > _LARGEST_WHOLE or not found.is_integer()):
        name, value = _first(row, names)
        raise Unreadable(f"{name} must be a whole number, not {_shown(value)}")
    return found


def text(row: Row, *names: str) -> str | None:
    """Return the name in the first of the named fields that has one; None if none has.

    Raises
    ------
    Unreadable
        It is neither text nor a number, or longer than any name.
    """
    name, value = _first(row, names)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unreadable(f"{name} must be a name, not {_shown(value)}")
    found = str(value).strip()
    if len(found) > _LONGEST_NAME:
        raise Unreadable(f"{name} is longer than {_LONGEST_NAME} characters")
    return found or None


def nested(row: Row, *names: str) -> dict[str, Any]:
    """Return the object in the first of the named fields that has a value, parsed where a cell holds it as text.

    Raises
    ------
    Unreadable
        It is no object.
    """
    name, value = _first(row, names)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{name} is not JSON: {str(error)[:100]}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unreadable(f"{name} must be an object, not {_shown(value)}")
    return value


def instant(row: Row, *names: str) -> Instant | None:
    """Return the moment in the first of the named fields that has a value: seconds, or a date by ISO 8601.

    Raises
    ------
    Unreadable
        It is neither, or beyond the year 2262.

    >>> instant({"at": "1970-01-01T00:00:01.5+00:00"}, "at")
    Instant(ns=1500000000, dated=True, naive=False)
    >>> instant({"at": "1.5"}, "at")
    Instant(ns=1500000000, dated=False, naive=False)
    """
    name, value = _first(row, names)
    if value is None:
        return None
    if isinstance(value, str):
        date = _DATE.fullmatch(value.strip())
        if date is not None:
            day, clock, fraction, zone = date.groups()
            try:
                second = _second(day, clock, zone or "Z")
            except (ValueError, OverflowError) as error:
                raise Unreadable(f"{name} is no date: {_shown(value)}: {error}") from error
            if not 0 <= second < _LATEST_S:
                raise Unreadable(f"{name} must be between the years 1970 and 2255, not {_shown(value)}")
            return Instant(second * 1_000_000_000 + int((fraction or "0").ljust(9, "0")), True, zone is None)
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = nan
    if isnan(seconds) or value is True or value is False:
        raise Unreadable(f"{name} must be seconds or a date by ISO 8601, not {_shown(value)}")
    if abs(seconds) >= _LATEST_S:
        raise Unreadable(f"{name} is too far away for seconds: {_shown(value)}; is it in milliseconds?")
    return Instant(round(seconds * 1e9), False)


def duration_s(start: Instant, end: Instant | None, name: str) -> float | None:
    """Return the seconds from one moment to a later one; None without an end.

    Raises
    ------
    Unreadable
        The end comes before the start, or one is a date and the other is not.
    """
    if end is None:
        return None
    if end.dated != start.dated:
        raise Unreadable(f"{name} and the start must both be dates, or both seconds")
    if end.ns < start.ns:
        raise Unreadable(f"{name} is {(start.ns - end.ns) / 1e9} s before the start")
    return (end.ns - start.ns) / 1e9


def failure(*told: str | None) -> str:
    """Return what kind of failure a status code, an error's class or its message tells of.

    >>> failure("429", "RateLimitError"), failure("litellm.Timeout"), failure("500")
    ('throttled', 'timeout', 'error')
    """
    said = " ".join(part for part in told if part).lower()
    return next((kind for kind, pattern in _FAILURES if pattern.search(said)), "error")


@lru_cache(maxsize=4096)
def _second(day: str, clock: str, zone: str) -> int:
    return int(datetime.fromisoformat(f"{day}T{clock}{'Z' if zone == 'UTC' else zone}").timestamp())


def _first(row: Row, names: tuple[str, ...]) -> tuple[str, Any]:
    """Return the first field that has a value, and the value."""
    for name in names:
        value = row.get(name)
        if value is not None and value != "":
            return name, value
    return names[0], None


def _shown(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float) else f"a {type(value).__name__}"

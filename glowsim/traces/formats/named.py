"""Rows whose fields the user names, or that are named as a log's columns are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from glowsim.traces.formats.base import Format, Request, arrival
from glowsim.traces.log import NAMES, NUMBERS, LogError
from glowsim.traces.values import Row, Unreadable, instant, number, text, whole

__all__ = ["NamedColumns"]

_WHOLE: Final = frozenset({name for name in NUMBERS if name.startswith("tokens_")} | {"turn"})
_STATUS: Final = ("ok", "error", "throttled", "timeout", "cancelled")


class NamedColumns(Format):
    """CSV, or JSON lines, with a column for each of a log's.

    Parameters
    ----------
    columns
        Column of a log, ``t_s`` among them, -> name of the field that holds it. Without, fields are named as a
        log's columns are, and those that are there are read.

    Raises
    ------
    LogError
        There is no such column in a log, or ``t_s`` is not among them.

    >>> format = NamedColumns({"t_s": "when", "tokens_in": "prompt"})
    >>> format.request({"when": "3", "prompt": "120"}).numbers
    {'tokens_in': 120.0}
    """

    name: ClassVar[str] = "csv"

    def __init__(self, columns: Mapping[str, str] | None = None) -> None:
        for column in columns or ():
            if column not in ("t_s", *NUMBERS, *NAMES):
                raise LogError(
                    f"a log has no column {column!r}: choose from t_s, {', '.join((*NUMBERS, *NAMES))}"
                )
        if columns is not None and "t_s" not in columns:
            raise LogError("columns must say which field holds t_s, the time of arrival")
        self.marks = tuple((field,) for field in columns.values()) if columns else (("t_s",), ("tokens_in",))
        columns = columns or {name: name for name in ("t_s", *NUMBERS, *NAMES)}
        self.fields = frozenset(columns.values())
        self._time = columns["t_s"]
        self._numbers = [
            (name, field, whole if name in _WHOLE else number)
            for name, field in columns.items()
            if name in NUMBERS
        ]
        self._names = [(name, field) for name, field in columns.items() if name in NAMES]

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        numbers = {name: take(row, field) for name, field, take in self._numbers if field in row}
        names = {name: text(row, field) for name, field in self._names if field in row}
        status = names.get("status")
        if status is not None and status not in _STATUS:
            raise Unreadable(f"status must be one of {', '.join(_STATUS)}, not {status[:40]!r}")
        return Request(arrival(instant(row, self._time), self._time), numbers, names)

"""Requests, one after another, made into the columns of a `Log`."""

from __future__ import annotations

from array import array
from collections import Counter
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Final

import numpy as np

from glowsim.traces.formats.base import Format, Request
from glowsim.traces.log import NAMES, NUMBERS, Floats, Ints, Log, LogError, Named, Reading, Refused
from glowsim.traces.values import Row, Unreadable

__all__ = ["Gatherer"]

_REFUSED_KEPT: Final = 100
_KINDS_KEPT: Final = 1_000
_OTHERS: Final = "(others)"
_PARTS: Final = (
    ("tokens_cached", "tokens_in"), ("tokens_cache_write", "tokens_in"), ("tokens_reasoning", "tokens_out"),
)  # fmt: skip


class Gatherer:
    """Takes requests, counts what is refused, left out or not understood, and makes the log of it."""

    def __init__(self) -> None:
        self.rows = 0
        """Rows seen, refused ones included."""
        self.refused: list[Refused] = []
        """The first that could not be read."""
        self._refused_count = 0
        self._unknown: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._keys: set[str] = set()
        self._at = array("q")
        self._dated: bool | None = None
        self._numbers: dict[str, array[float]] = {}
        self._codes: dict[str, array[int]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._blocks: list[tuple[int, ...]] = []

    def refuse(self, line: int, why: str) -> None:
        """Count a row that cannot be read."""
        self.rows += 1
        self._refused_count += 1
        if len(self.refused) < _REFUSED_KEPT:
            self.refused.append(Refused(line, why))

    def leave_out(self, kind: str) -> None:
        """Count a row that is something else than a model call."""
        self.rows += 1
        _count(self._left_out, kind)

    def take(self, request: Request) -> None:
        """Add a request.

        Raises
        ------
        Unreadable
            It contradicts itself or the requests before it.
        """
        self._check(request)
        self.rows += 1
        place = len(self._at)
        self._at.append(request.at.ns)
        self._dated = request.at.dated
        if request.key is not None:
            self._keys.add(request.key)
        for name, value in request.numbers.items():
            if value is not None:
                column = self._numbers.get(name)
                if column is None:
                    column = self._numbers[name] = array("d")
                if len(column) < place:
                    column.extend([nan] * (place - len(column)))
                column.append(value)
        for name, label in request.names.items():
            if label is not None:
                codes = self._codes.get(name)
                if codes is None:
                    codes, self._labels[name] = array("q"), {}
                    self._codes[name] = codes
                if len(codes) < place:
                    codes.extend([-1] * (place - len(codes)))
                labels = self._labels[name]
                codes.append(labels.setdefault(label, len(labels)))
        if request.blocks is not None:
            self._blocks.extend([()] * (place - len(self._blocks)))
            self._blocks.append(request.blocks)
        if request.at.naive:
            self._notes["times without a time zone were taken as UTC"] += 1
        for note in request.notes:
            self._notes[note] += 1

    def see(self, row: Row, form: Format) -> None:
        """Count the fields that its format makes nothing of."""
        if not row.keys() <= form.fields:
            for field in row.keys() - form.fields:
                value = row[field]
                if value is not None and value != "" and not form.ignores(field):
                    _count(self._unknown, field)

    def log(self, path: Path, form: Format, unit: str, seed: int) -> Log:
        """Return the log.

        Raises
        ------
        LogError
            There is no request in it.
        """
        if not self._at:
            raise LogError(self._nothing(path, form, unit))
        at, moved = form.settled(np.array(self._at, dtype=np.int64), seed)
        order = np.argsort(at, kind="stable")
        remarks = [*form.remarks, *moved]
        if bool(np.any(np.diff(np.array(self._at, dtype=np.int64)) < 0)):
            remarks.append("the rows were not in order of time, and were sorted")
        remarks += [f"{note} ({n} rows)" for note, n in sorted(self._notes.items())]
        if self._left_out:
            kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self._left_out.items()))
            remarks.append(f"left out, for they are no model calls: {kinds}")
        at = at[order]
        return Log(
            source=str(path),
            format=form.name,
            t_s=(at - at[0]) / 1e9,
            reading=Reading(
                self.rows, tuple(self.refused), self._refused_count, dict(self._unknown), tuple(remarks), unit
            ),
            epoch=_iso(int(at[0])) if self._dated else None,
            numbers={
                name: self._number(self._numbers[name])[order] for name in NUMBERS if name in self._numbers
            },
            names={name: self._named(name, order) for name in NAMES if name in self._codes},
            blocks=self._hashes(order),
            block_tokens=form.block_tokens if self._blocks else 0,
        )

    def _check(self, request: Request) -> None:
        if self._dated is not None and request.at.dated != self._dated:
            now, before = ("a date", "seconds") if request.at.dated else ("seconds", "dates")
            raise Unreadable(f"the time is {now}, where the rows before have {before}")
        if request.key is not None and request.key in self._keys:
            raise Unreadable(f"{request.key[:80]!r} was there before: a request stands in one row")
        numbers = request.numbers
        for part, all_ in _PARTS:
            value = numbers.get(part)
            if value is not None and (within := numbers.get(all_)) is not None and value > within:
                raise Unreadable(
                    f"{part}, {value:.0f}, is more than {all_}, {within:.0f}, of which it is part"
                )

    def _number(self, column: array[float]) -> Floats:
        column.extend([nan] * (len(self._at) - len(column)))
        return np.array(column, dtype=np.float64)

    def _named(self, name: str, order: Ints) -> Named:
        codes = self._codes[name]
        codes.extend([-1] * (len(self._at) - len(codes)))
        return Named(np.array(codes, dtype=np.int64)[order], tuple(self._labels[name]))

    def _hashes(self, order: Ints) -> tuple[tuple[int, ...], ...] | None:
        if not self._blocks:
            return None
        self._blocks.extend([()] * (len(self._at) - len(self._blocks)))
        return tuple(self._blocks[row] for row in order)

    def _nothing(self, path: Path, form: Format, unit: str) -> str:
        found = f"{path} has no requests that can be read as {form.name}"
        if self._left_out:
            found += f"; it has {', '.join(f'{n} {kind}' for kind, n in sorted(self._left_out.items()))}"
        if self._refused_count:
            first = self.refused[0]
            found += (
                f"; {self._refused_count} rows were refused, the first at {unit} {first.line}: {first.why}"
            )
        if not self.rows:
            found += ": it has no rows"
        return f"{found}\n  expected: {form.expects()}"


def _count(counter: Counter[str], kind: str) -> None:
    """Count a kind, of which a file may have no end."""
    kind = kind[:80]
    counter[kind if kind in counter or len(counter) < _KINDS_KEPT else _OTHERS] += 1


def _iso(ns: int) -> str:
    second, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(second, UTC).replace(microsecond=rest // 1000).isoformat()

"""Reading a recorded workload, whatever format it is in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Final

from glowsim.traces.formats import FORMATS
from glowsim.traces.formats.base import Format, LeftOut
from glowsim.traces.formats.named import NamedColumns
from glowsim.traces.gather import Gatherer
from glowsim.traces.log import Log, LogError
from glowsim.traces.source import Rows, rows
from glowsim.traces.values import Row, Unreadable

__all__ = ["read"]

_MOST_ROWS: Final = 50_000_000
_LOOKED_AT: Final = 100
"""Rows in which marks are looked for: the first may be broken."""


def read(
    path: str | Path,
    format: str | None = None,  # noqa: A002
    *,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Log:
    """Return the workload recorded in a file: CSV, JSON lines or JSON, plain or gzipped.

    Rows that cannot be read are refused with their line and the rest is read; fields of which nothing was made are
    counted; whatever was done to the data is a remark. The text of prompts and answers is never taken in.

    Parameters
    ----------
    path
        The file. Limits: lines of 16 MB, 2 GB of a compressed file's content, JSON documents of 256 MB, 50
        million rows.
    format
        Name among `FORMATS`. None: it is recognised by the names of the fields.
    columns
        For ``csv``: column of a log, such as ``t_s`` or ``tokens_in``, -> name of the field that holds it.
    seed
        From which random changes are drawn, such as times moved off a grid.

    Raises
    ------
    LogError
        There is no such format, no such file, or none of it can be read; says what was found and expected.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise LogError(f"there is no format {format!r}: choose from {', '.join(FORMATS)}")
    if columns is not None and format != "csv":
        raise LogError("columns are only for the format csv: the others have their own")
    gatherer = Gatherer()
    found = rows(path, gatherer.refuse)
    head = list(islice(found.each, _LOOKED_AT))
    chosen = (
        _recognised(path, found, head, gatherer) if format is None else _named(path, found, format, columns)
    )
    for place, given in chain(head, found.each):
        for row in _rows_within(chosen, place, given, gatherer):
            if gatherer.rows >= _MOST_ROWS:
                raise LogError(f"{path} has more than {_MOST_ROWS:,} rows: split it")
            try:
                gatherer.take(chosen.request(row))
            except Unreadable as error:
                gatherer.refuse(place, str(error))
            except LeftOut as error:
                gatherer.leave_out(str(error))
                continue
            gatherer.see(row, chosen)
    return gatherer.log(path, chosen, found.unit, seed)


def _rows_within(form: Format, place: int, given: Row, gatherer: Gatherer) -> Iterator[Row]:
    try:
        yield from form.rows(given)
    except Unreadable as error:
        gatherer.refuse(place, str(error))


def _named(path: Path, found: Rows, name: str, columns: Mapping[str, str] | None) -> Format:
    chosen = NamedColumns(columns) if name == "csv" else FORMATS[name]()
    if found.header is not None and (lacking := chosen.missing(found.header)) is not None:
        raise LogError(f"{path} has no column {lacking!r}; it has {', '.join(found.header)[:500]}")
    return chosen


def _recognised(path: Path, found: Rows, head: list[tuple[int, Row]], gatherer: Gatherer) -> Format:
    fields = [tuple(row) for _, row in head] if found.header is None else [found.header]
    for make in FORMATS.values():
        chosen = make()
        if any(chosen.missing(names) is None for names in fields):
            return chosen
    if fields:
        said = f"its rows have {', '.join(fields[0])[:500] or 'no fields'}"
    elif gatherer.refused:
        first = gatherer.refused[0]
        said = f"no row of it can be parsed, the first at {found.unit} {first.line}: {first.why}"
    else:
        said = "it has no rows"
    expected = "\n".join(f"  {name}: {make().expects()}" for name, make in FORMATS.items())
    raise LogError(f"{path} is of no known format; {said}\nknown are:\n{expected}")

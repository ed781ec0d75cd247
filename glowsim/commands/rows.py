"""Rows of a table that a person hands over: CSV, JSON lines or Parquet, with the lines they came from."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glowsim.core.errors import GlowsimError
from glowsim.scenario.problems import did_you_mean

__all__ = ["Rows", "RowsError", "read_rows"]

_MOST_ROWS = 20_000_000
_SHOWN = 5


class RowsError(GlowsimError):
    """A table cannot be read: the message names the file, the lines and the remedy."""


class Rows(NamedTuple):
    """Columns of a table, each with one value for every row, and the line that each row began on."""

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int]

    def numbers(self, name: str) -> list[float]:
        """Return a column as finite numbers.

        Raises
        ------
        RowsError
            A value is none; the first few are named by line.
        """

        def number(value: Any) -> float:
            found = float(value) if isinstance(value, int | float | str) else math.nan
            if not math.isfinite(found):
                raise ValueError(value)
            return found

        return self._each(name, number, "a finite number")

    def texts(self, name: str) -> list[str]:
        """Return a column as texts, none of them empty.

        Raises
        ------
        RowsError
            A value is missing; the first few are named by line.
        """

        def text(value: Any) -> str:
            if value is None or (isinstance(value, float) and math.isnan(value)) or value == "":
                raise ValueError(value)
            return str(value)

        return self._each(name, text, "there")

    def refuse(self, wrong: Sequence[tuple[int, str]]) -> None:
        """Stop if rows are wrong: pairs of the row's place and what is wrong with it."""
        if not wrong:
            return
        shown = "\n".join(f"  line {self.lines[place]}: {what}" for place, what in wrong[:_SHOWN])
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise RowsError(f"{self.path}: {len(wrong)} of {len(self.lines)} rows cannot be used:\n{shown}{more}")

    def _each(self, name: str, read: Callable[[Any], Any], wanted: str) -> list[Any]:
        found: list[Any] = []
        wrong: list[tuple[int, str]] = []
        for place, value in enumerate(self.columns[name]):
            try:
                found.append(read(value))
            except ValueError:
                wrong.append((place, f"{name} is {str(value)[:40]!r}, and must be {wanted}"))
        self.refuse(wrong)
        return found


def read_rows(path: Path, names: Sequence[str]) -> Rows:
    """Return the named columns of a table.

    Parameters
    ----------
    path
        A ``.csv`` (with a line of names, in UTF-8), ``.jsonl`` or ``.parquet`` file.
    names
        The columns that are wanted, each once.

    Raises
    ------
    RowsError
        The file or a column is not there, or a row cannot be read: named by line.
    """
    readers = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise RowsError(f"{path}: give a file that ends in {', '.join(readers)}")
    if not path.is_file():
        raise RowsError(f"there is no file {path}")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    lines: list[int] = []
    try:
        for line, values in readers[path.suffix](path, names):
            if len(lines) == _MOST_ROWS:
                raise RowsError(
                    f"{path}: more than {_MOST_ROWS:,} rows; take a sample, or count them per unit"
                )
            lines.append(line)
            for name, value in zip(names, values, strict=True):
                columns[name].append(value)
    except (UnicodeDecodeError, OSError) as error:
        raise RowsError(f"{path} cannot be read: {error}") from error
    if not lines:
        raise RowsError(f"{path} has no rows")
    return Rows(path, columns, lines)


def _csv(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            places = [_place(path, header, name) for name in names]
            before = reader.line_num
            for row in reader:
                line, before = before + 1, reader.line_num
                if not row:
                    continue
                if len(row) != len(header):
                    raise RowsError(
                        f"{path}: line {line} has {len(row)} fields, and the first line {len(header)}"
                    )
                yield line, [row[place] for place in places]
        except csv.Error as error:
            raise RowsError(f"{path}: line {reader.line_num}: {error}") from error


def _jsonl(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    with path.open(encoding="utf-8") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise RowsError(f"{path}: line {line} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise RowsError(
                    f"{path}: line {line} is no object: each line is one, with a key for each column"
                )
            for name in names:
                if name not in row:
                    raise RowsError(f"{path}: line {line}: {_missing(list(row), name)}")
            yield line, [row[name] for name in names]


def _parquet(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        for name in names:
            _place(path, file.schema_arrow.names, name)
        line = 0
        for batch in file.iter_batches(columns=list(names)):
            columns = [batch.column(name).to_pylist() for name in names]
            for values in zip(*columns, strict=True):
                line += 1
                yield line, list(values)
    except pyarrow.ArrowException as error:
        raise RowsError(f"{path} cannot be read: {error}") from error


def _place(path: Path, header: Sequence[str], name: str) -> int:
    if name not in header:
        raise RowsError(f"{path}: {_missing(header, name)}")
    return list(header).index(name)


def _missing(there: Sequence[str], name: str) -> str:
    meant = did_you_mean(name, tuple(there))
    hint = f"; did you mean {meant!r}?" if meant else ""
    return f"there is no column {name!r}{hint} There are: {', '.join(there)}"

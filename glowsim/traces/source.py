"""The rows of a file, one after another: CSV, JSON lines, or a JSON document; plain or gzipped.

Everything has a bound: the longest line, what a compressed file may hold, what is held in memory at once. A row
that breaks one, or cannot be parsed, is refused with its line, and the rest is read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from glowsim.traces.log import LogError
from glowsim.traces.values import Row

__all__ = ["LINE_BYTES", "Refuse", "Rows", "rows"]

LINE_BYTES: Final = 16_000_000
"""Longest line."""
_UNPACKED_BYTES: Final = 2_000_000_000
"""Most that a compressed file may hold."""
_DOCUMENT_BYTES: Final = 256_000_000
"""Longest JSON document: unlike lines it is held in memory as a whole."""
_DAMAGED: Final = (EOFError, zlib.error, gzip.BadGzipFile)
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{},]', re.DOTALL)

Refuse = Callable[[int, str], None]
"""Told the line of a row that cannot be read, and why."""


class Rows(NamedTuple):
    """A file's rows."""

    unit: str
    """What their places count: ``line``, or ``element`` of a JSON document."""
    header: tuple[str, ...] | None
    """The columns, if it is CSV."""
    each: Iterator[tuple[int, Row]]
    """Place and fields of each."""


def rows(path: Path, refuse: Refuse) -> Rows:
    """Return the rows of a file, read as they are asked for.

    Raises
    ------
    LogError
        It cannot be opened, is empty, or is too large.
    """
    opening = _opening(path)
    if opening[:1] not in ("{", "["):
        cells = _cells(path, refuse)
        header = next(cells, (0, []))[1]
        names = tuple(name.strip() for name in header)
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise LogError(f"{path} has two columns {twice[0]!r}: give each its own name")
        return Rows("line", names, _records(names, cells, refuse))
    if opening[:1] == "{" and isinstance(_parsed(opening)[0], dict):
        return Rows("line", None, _objects(_nonblank(path, refuse), refuse))
    document = _document(path)
    if document is None and opening[:1] == "{":
        return Rows("line", None, _objects(_nonblank(path, refuse), refuse))
    if document is None:
        raise LogError(
            f"{path} is a JSON document over {_DOCUMENT_BYTES:,} bytes: write it as JSON lines, one row each"
        )
    return Rows("element", None, _objects(document, refuse))


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, up to the limit."""

    def __init__(self, path: Path, packed: IO[bytes]) -> None:
        self._path, self._file, self._bytes = path, gzip.GzipFile(fileobj=packed), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._bytes += count
        if self._bytes > _UNPACKED_BYTES:
            raise LogError(f"{self._path} holds more than {_UNPACKED_BYTES:,} bytes: unpack it, or split it")
        return count


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Yield the file, unpacked if it is compressed."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            yield io.BufferedReader(_Unpacked(path, file))
        else:
            yield file


def _opening(path: Path) -> str:
    """Return the first line that has anything in it."""
    with _opened(path) as file:
        try:
            while line := file.readline(LINE_BYTES):
                text = line.decode("utf-8-sig", errors="replace").strip()
                if text:
                    return text
        except _DAMAGED as error:
            raise LogError(f"{path} is a damaged gzip file: {error}") from error
    raise LogError(f"{path} is empty")


def _lines(path: Path, refuse: Refuse) -> Iterator[tuple[int, str]]:
    """Yield each line with its number."""
    number = 0
    with _opened(path) as file:
        while True:
            number += 1
            try:
                line = file.readline(LINE_BYTES + 1)
                if len(line) > LINE_BYTES and not line.endswith(b"\n"):
                    while len(part := file.readline(LINE_BYTES)) == LINE_BYTES and not part.endswith(b"\n"):
                        pass
                    refuse(number, f"the line is longer than {LINE_BYTES:,} bytes")
                    continue
            except _DAMAGED as error:
                refuse(number, f"the compressed file breaks off or is damaged here: {error}")
                return
            if not line:
                return
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                refuse(number, f"not UTF-8: {error.reason}")


def _nonblank(path: Path, refuse: Refuse) -> Iterator[tuple[int, str]]:
    return ((number, text) for number, text in _lines(path, refuse) if not text.isspace())


def _cells(path: Path, refuse: Refuse) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row of a CSV file, with the line that it ends on."""
    place = 0

    def texts() -> Iterator[str]:
        nonlocal place
        for place, text in _lines(path, refuse):  # noqa: B007
            yield text

    reader = csv.reader(texts(), strict=True)
    longest = csv.field_size_limit(LINE_BYTES)
    try:
        while True:
            begun = place + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                refuse(begun, f"not CSV: {error}")
                continue
            if cells:
                yield place, cells
    finally:
        csv.field_size_limit(longest)


def _records(
    names: tuple[str, ...], cells: Iterator[tuple[int, list[str]]], refuse: Refuse
) -> Iterator[tuple[int, Row]]:
    for place, row in cells:
        if len(row) == len(names):
            yield place, dict(zip(names, row, strict=True))
        else:
            refuse(place, f"{len(row)} cells, where the header has {len(names)}")


def _objects(texts: Iterator[tuple[int, Any]], refuse: Refuse) -> Iterator[tuple[int, Row]]:
    """Yield each object, and each row of one that is a page of an API's answer: ``{"data": [..], ..}``."""
    for place, given in texts:
        found, why = _parsed(given) if isinstance(given, str) else (given, "")
        if why:
            refuse(place, why)
            continue
        page = found.get("data") if isinstance(found, dict) else None
        for each in page if isinstance(page, list) else [found]:
            if isinstance(each, dict):
                yield place, each
            else:
                refuse(place, f"a JSON object is needed, not a {type(each).__name__}")


def _document(path: Path) -> Iterator[tuple[int, Any]] | None:
    """Return the elements of a JSON document; None if it is too long, or neither an array nor an object."""
    with _opened(path) as file:
        try:
            content = file.read(_DOCUMENT_BYTES + 1)
        except _DAMAGED as error:
            raise LogError(f"{path} is a damaged gzip file: {error}") from error
    if len(content) > _DOCUMENT_BYTES:
        return None
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    found, why = _parsed(text)
    if not why:
        elements = found.get("data", [found]) if isinstance(found, dict) else found
        return enumerate(elements if isinstance(elements, list) else [found], 1)
    return enumerate(_elements(text), 1) if text.startswith("[") else None


def _elements(text: str) -> Iterator[str]:
    """Yield what stands between the commas of an array that is broken as a whole."""
    depth, begun = 0, 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in ("[", "{"):
            depth += 1
            if depth == 1:
                begun = token.end()
            continue
        if mark in ("]", "}"):
            depth -= 1
        if depth == 0 or (depth == 1 and mark == ","):
            if part := text[begun : token.start()].strip():
                yield part
            begun = token.end()
        if depth == 0:
            break
    if rest := text[begun:].strip():
        yield rest


def _parsed(text: str) -> tuple[Any, str]:
    """Return what JSON says, and why it says nothing."""
    try:
        return json.loads(text), ""
    except RecursionError:
        return None, "the JSON is nested too deeply"
    except ValueError as error:
        return None, f"not JSON: {str(error)[:200]}"

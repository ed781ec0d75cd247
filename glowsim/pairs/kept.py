"""The file of results: a line an answer, synced before the next task is asked, so that a kill loses none."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

from glowsim.core.types import Outcome
from glowsim.pairs.problems import PairsError

__all__ = ["Kept", "Line", "Results", "is_results", "read_results"]

_FORMAT: Final = "glowsim_pairs"
_VERSION: Final = 1
_AMOUNTS: Final = ("latency_s", "tokens_in", "tokens_cached", "tokens_out", "cost_usd", "correct")


class Line(NamedTuple):
    """One answer."""

    row: int
    """Of the file of tasks, from 0, blank lines apart."""
    task: str
    side: str
    outcome: str
    """How the call ended, in small letters: ``ok``, ``timeout``, ``error`` and so on."""
    correct: float | None
    """1 right, 0 wrong or failed; None: nobody has labelled it yet."""
    answer: str
    latency_s: float
    tokens_in: int | None
    tokens_cached: int | None
    tokens_out: int | None
    cost_usd: float | None
    """None: not known."""
    said: str
    """Of a failure."""


class Kept(NamedTuple):
    """What a file of results holds."""

    header: Mapping[str, Any]
    lines: tuple[Line, ...]
    torn: int
    """Bytes after the last whole line: a kill cut it off."""


def is_results(path: Path) -> bool:
    """Return whether a file is one that a replay wrote."""
    with path.open("rb") as file:
        return file.read(64).startswith(f'{{"{_FORMAT}":'.encode())


def read_results(path: Path) -> Kept:
    """Return what a file of results holds; what a kill has cut off is left out.

    Raises
    ------
    PairsError
        There is no such file, or it is not one that a replay wrote, or was changed since: names the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PairsError(f"{path}: {error.strerror}: give the results of a replay") from error
    whole, newline, rest = raw.rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    if not lines:
        begin = f'{{"{_FORMAT}":'.encode()
        if not (begin.startswith(rest) or rest.startswith(begin)):
            raise PairsError(f"{path}: not the results of a replay: name another file")
        return Kept({}, (), len(rest))
    header = _parsed(lines[0])
    if header.get(_FORMAT) != _VERSION:
        raise PairsError(f"{path}: not the results of a replay by this version: name another file")
    read = []
    for number, line in enumerate(lines[1:], 2):
        made = _line(_parsed(line))
        if made is None:
            raise PairsError(
                f"{path}:{number}: not an answer as a replay writes it: restore the file, or name another"
            )
        read.append(made)
    return Kept(header, tuple(read), len(rest))


class Results:
    """A file of results that is being written, by one process at a time.

    Parameters
    ----------
    path
        Made if it is not there.
    header
        What the replay is: with another one its results cannot be mixed.

    Raises
    ------
    PairsError
        Another process writes it, or it holds the results of another replay: says what differs.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        wanted = {_FORMAT: _VERSION, **header}
        self._path = path
        self._file: IO[bytes] = _opened(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = read_results(path)
            if kept.header:
                _same(path, kept.header, wanted)
            self.torn = kept.torn
            self._file.truncate(path.stat().st_size - kept.torn)
            self._file.seek(0, os.SEEK_END)
            self.lines = list(kept.lines)
            if not kept.header:
                self._write(wanted)
        except BlockingIOError as error:
            self._file.close()
            raise PairsError(
                f"{path}: another replay is writing it: wait for it, or name another file"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def add(self, line: Line) -> None:
        """Keep an answer: it is on the disk when this returns."""
        self._write(line._asdict())
        self.lines.append(line)

    def _write(self, said: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(said, allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise PairsError(
                f"{self._path}: {error.strerror}: make room, and give the same command again"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _opened(path: Path) -> IO[bytes]:
    """Open a file for reading and writing, for its owner only: it holds answers."""
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    except OSError as error:
        raise PairsError(f"{path}: {error.strerror}: name another file with --out") from error


def _same(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differ = [key for key in {**wanted, **there} if there.get(key) != wanted.get(key)]
    if differ:
        said = ", ".join(f"{key} was {there.get(key)!r}, is {wanted.get(key)!r}" for key in differ)
        raise PairsError(f"{path} holds another replay ({said}): name another file with --out")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _line(said: dict[str, Any]) -> Line | None:
    if said.keys() != set(Line._fields):
        return None
    good = (
        type(said["row"]) is int and said["row"] >= 0
        and said["side"] in ("baseline", "variant")
        and said["outcome"] in {each.name.lower() for each in Outcome}
        and all(isinstance(said[key], str) for key in ("task", "answer", "said"))
        and all(said[key] is None or _amount(said[key]) for key in _AMOUNTS)
        and said["latency_s"] is not None and (said["correct"] or 0.0) <= 1.0
    )  # fmt: skip
    return Line(**said) if good else None


def _amount(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and value >= 0

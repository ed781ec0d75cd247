"""Following a file that grows, by its name: lines as they end, and on to the next file when it is rotated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from glowsim.traces.log import LogError
from glowsim.traces.source import LINE_BYTES

__all__ = ["Tail"]

_CHUNK_BYTES: Final = 1 << 18


class Tail:
    """The lines of a file that another process writes.

    A line counts when its end is there. A file that is renamed is read to its end before the one that took its name;
    one that became shorter is read from its beginning. What was written to a file that was rotated away twice between
    two reads is not seen, nor that one was cut and has outgrown its old length.

    Parameters
    ----------
    path
        The file; it must be there at first, and may be missing for a while later.

    Raises
    ------
    LogError
        It cannot be opened, or is compressed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise LogError(f"{path} cannot be read: {error.strerror}") from error
        if self._file.peek(2)[:2] == b"\x1f\x8b":
            self.close()
            raise LogError(f"{path} is compressed and does not grow: unpack it")
        self._rest = bytearray()
        self._too_long = False
        self.at_end = False
        """Whether everything that is there has been read."""
        self.rotations = 0
        """Files begun after the first."""
        self.cut = 0
        """Lines that were longer than any row, and left out."""

    def read(self) -> list[str | None]:
        """Return the next lines, of a quarter of a megabyte at most; None before those of another file.

        Bytes that are no UTF-8 come as replacement characters. An empty list says that there is nothing more now.
        """
        data = self._file.read(_CHUNK_BYTES)
        self.at_end = not data
        if data:
            return list(self._lines(data))
        return self._next_file()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _lines(self, data: bytes) -> list[str | None]:
        *whole, rest = data.split(b"\n")
        found: list[str | None] = []
        for part in whole:
            self._rest += part
            found += self._finished()
        self._rest += rest
        if len(self._rest) > LINE_BYTES:  # bounded, however long a line gets
            self._rest.clear()
            self._too_long = True
        return found

    def _finished(self) -> list[str | None]:
        """Return the line that has ended, if it is one."""
        line, cut = bytes(self._rest), self._too_long or len(self._rest) > LINE_BYTES
        self._rest.clear()
        self._too_long = False
        self.cut += cut
        return [] if cut else [line.decode("utf-8", errors="replace").removesuffix("\r")]

    def _next_file(self) -> list[str | None]:
        """Return what the file left unfinished, and that another begins, if one has its name; else nothing."""
        mine = os.fstat(self._file.fileno())
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return []  # it was renamed, and the next one is not there yet
        if (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino):
            late = self._file.read(_CHUNK_BYTES)
            if late:  # written between the two looks
                self.at_end = False
                return self._lines(late)
            try:
                file = self._path.open("rb")
            except OSError:
                return []
            self._file.close()
            self._file = file
        elif now.st_size < self._file.tell():
            self._file.seek(0)
        else:
            return []
        self.at_end = False
        self.rotations += 1
        return [*(self._finished() if self._rest or self._too_long else ()), None]

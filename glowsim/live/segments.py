"""A journal that is bounded: segments in a folder, of which the oldest are deleted.

Every segment begins with the state of the control plane, so it replays alone, and a restart reads the last one only.
A segment is there whole or not at all: its header is on the disk before it gets its name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glowsim.core.journal import SUFFIX, Journal, file_of, files_of

__all__ = ["Segments"]


class Segments(Journal):
    """Writes down events, commands and effects, in segments; `begin` begins the first, too.

    Parameters
    ----------
    header
        What the header of every segment holds.
    folder
        Where the segments are; one that is there is gone on with.
    records
        After which a segment is full, at least 1.
    keep_bytes
        Older segments are deleted as soon as all together are larger; the two youngest are kept in any case.

    >>> import tempfile
    >>> from glowsim.core.journal import read
    >>> from glowsim.core.types import Woke
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = Segments({}, Path(folder), records=1, keep_bytes=1 << 20)
    ...     journal.begin({})
    ...     journal.event(Woke(1.0))
    ...     journal.flush()
    ...     journal.begin({"state": {}})
    ...     journal.event(Woke(2.0))
    ...     journal.close()
    ...     sorted(path.name for path in Path(folder).iterdir()), list(read(Path(folder)).records())
    (['00000001.glow', '00000002.glow'], [Woke(t_s=1.0), Woke(t_s=2.0)])
    """

    def __init__(self, header: dict[str, Any], folder: Path, *, records: int, keep_bytes: int) -> None:
        super().__init__(header)
        self._folder = folder
        self._records = records
        self._keep_bytes = keep_bytes
        self._segment = max((int(path.stem) for path in files_of(folder)), default=0)
        self._written = 0

    @property
    def full(self) -> bool:
        """Whether it is time for another segment."""
        return self._written >= self._records

    def begin(self, head: Mapping[str, Any]) -> None:
        """Begin a segment; what was recorded before is written into the one before."""
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._segment += 1
        path = self._folder / f"{self._segment:08}{SUFFIX}"
        growing = path.with_suffix(".partial")
        growing.unlink(missing_ok=True)
        self._file = file_of(growing, {**self.header, "segment": self._segment, **head})
        os.fsync(self._file.fileno())
        growing.rename(path)
        self._number_from(head)
        self._written = 0
        self._prune()

    def flush(self) -> None:
        """Write what has gathered as one frame of the segment's file."""
        self.pack()
        self._written += len(self._order)
        super().flush()

    def _prune(self) -> None:
        """Delete the oldest segments beyond what is kept."""
        left = self._keep_bytes
        for age, path in enumerate(reversed(files_of(self._folder))):
            left -= path.stat().st_size
            if left < 0 and age > 1:
                path.unlink()

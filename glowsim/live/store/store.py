"""The store of a daemon: one writer, readers beside it, and rows that may wait a moment before they are written."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from glowsim.live.calls import Served
from glowsim.live.store.database import StoreError, locked, open_database, reader
from glowsim.live.store.writer import Work, Writer

__all__ = ["Store", "signed", "unsigned"]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_SEEN_WITHIN_S = 0.1
_SEEN_WAITING = 100_000
_PRUNE_EVERY = 1_000


class Store:
    """What outlives the daemon beside its journal: who was served what, feedback, the audit, roll-ups.

    What `done` has returned is committed, on the disk. What `saw` was given is written within a tenth of a second, and
    before any work that is given later; a killed process may lose it.

    Parameters
    ----------
    path
        The database; it is made if it is not there.
    keep_requests
        Served requests that are remembered, the newest; at least 1.

    Raises
    ------
    StoreError
        It cannot be opened: in use by another daemon, no store, damaged, of a newer version, read-only.
    RuntimeError
        No event loop is running.
    """

    def __init__(self, path: Path, *, keep_requests: int) -> None:
        self.path = path
        self._keep = keep_requests
        self._seen: deque[Served] = deque(maxlen=_SEEN_WAITING)
        self._lost = 0
        self._unpruned = 0
        self._soon: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.journal = ""
        """The journal to which what is written belongs."""
        self._lock: BinaryIO = locked(path)
        try:
            connection = open_database(path)
            try:
                (self.boot,) = connection.execute(
                    "UPDATE meta SET value = value + 1 WHERE name = 'boots' RETURNING value"
                ).fetchone()
                (self.hash_key,) = connection.execute(
                    "SELECT value FROM meta WHERE name = 'hash_key'"
                ).fetchone()
                self._reader = reader(path)
            except sqlite3.Error as error:
                connection.close()
                raise StoreError(f"{path} cannot be used: {error}; give another --store") from error
        except BaseException:
            self._lock.close()
            raise
        self._reading = asyncio.Lock()
        self._writer = Writer(connection)

    boot: int
    """How often it has been opened, this time included."""
    hash_key: bytes
    """Of the keyed hashes of users and tenants; it makes them equal from one start to the next."""

    async def done(self, work: Work[_T], then: Callable[[_T], None] | None = None) -> _T:
        """Have something done in a transaction; return what it returned, once that is committed.

        ``then`` is called with that in the event loop, in the order of the commits, even if the caller has gone.

        Raises
        ------
        StoreError
            It cannot be written; nothing was kept.
        """
        self._write_seen()
        return await self._writer.done(work, then)

    async def read(self, work: Work[_T]) -> _T:
        """Return what ``work`` reads from what is committed; it is given a connection that cannot write.

        Raises
        ------
        StoreError
            It cannot be read.
        """
        async with self._reading:
            try:
                return await asyncio.to_thread(work, self._reader)
            except sqlite3.Error as error:
                raise StoreError(f"the store cannot be read: {error}") from error

    def saw(self, served: Served) -> None:
        """Remember a request that was dispatched, for the feedback to come; of equal numbers the last counts."""
        if len(self._seen) == _SEEN_WAITING:
            if not self._lost:
                _log.error("the store does not keep up: feedback on some requests will not be taken")
            self._lost += 1
        self._seen.append(served)
        if self._soon is None:
            self._soon = self._loop.call_later(_SEEN_WITHIN_S, self._write_seen)

    def _write_seen(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if not self._seen:
            return
        journal, keep, rows = self.journal, self._keep, list(self._seen)
        self._seen.clear()
        self._unpruned += len(rows)
        prune = self._unpruned >= min(_PRUNE_EVERY, keep)
        if prune:
            self._unpruned = 0

        def write(database: sqlite3.Connection) -> None:
            database.executemany(
                "INSERT OR REPLACE INTO requests_seen VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (row.request_id, journal, row.agent, row.variant, signed(row.unit), row.propensity,
                     signed(row.tenant), row.t_s, row.assigned_s)
                    for row in rows
                ],
            )  # fmt: skip
            if prune:
                database.execute(
                    "DELETE FROM requests_seen WHERE request_id <= "
                    "(SELECT request_id FROM requests_seen ORDER BY request_id DESC LIMIT 1 OFFSET ?)",
                    (keep,),
                )

        self._writer.submit(write).add_done_callback(_noted)

    async def close(self) -> None:
        """Write what waits, and let go of the database."""
        self._write_seen()
        await self._writer.close()
        async with self._reading:
            self._reader.close()
        self._lock.close()


def _noted(written: asyncio.Future[None]) -> None:
    error = None if written.cancelled() else written.exception()
    if error is not None:
        _log.error("requests were not remembered, feedback on them will not be taken: %s", error)


def signed(number: int) -> int:
    """Return an unsigned 64-bit number as SQLite can hold it.

    >>> signed(2**64 - 1), unsigned(-1) == 2**64 - 1
    (-1, True)
    """
    return number - 2**64 if number >= 2**63 else number


def unsigned(number: int) -> int:
    """Return what `signed` was given."""
    return number % 2**64

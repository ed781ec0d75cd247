"""Opening the store's database: one daemon at a time, whole, of a version that is known."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from glowsim.core.errors import GlowsimError
from glowsim.live.store.migrations import MIGRATIONS

__all__ = ["StoreError", "locked", "open_database", "reader"]

_APPLICATION = 0x474C4F57
"""``GLOW``, in the header of the file (SQLite's ``application_id``)."""


class StoreError(GlowsimError):
    """The store cannot be opened, read or written."""


def locked(path: Path) -> BinaryIO:
    """Return the lock of a store, held while the file is open; the system lets go of it when the process ends.

    Raises
    ------
    StoreError
        Another process holds it; its folder cannot be written.
    """
    beside = path.with_name(path.name + ".lock")
    try:
        lock = os.fdopen(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)
    except OSError as error:
        raise StoreError(f"{beside} cannot be written: {error.strerror}; give another --store") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with lock:
            who = lock.read(20).decode("ascii", "replace").strip() or "unknown"
        raise StoreError(f"{path} is in use by process {who}: stop it, or give another --store") from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    return lock


def open_database(
    path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]] = MIGRATIONS
) -> sqlite3.Connection:
    """Return a connection that writes, of a database that is whole and of the newest version.

    A commit is on the disk when it returns (``synchronous=FULL``). An older database is brought up to date, one
    version a transaction, after a copy of it was put beside it.

    Parameters
    ----------
    path
        The file; it is made if it is not there, readable by its owner only.
    migrations
        What makes version n + 1 of version n, in order.

    Raises
    ------
    StoreError
        It is no database, not a store, damaged, read-only, or of a newer version.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} cannot be opened to write: {error}; give another --store") from error
    try:
        _prepare(connection, path, migrations)
    except sqlite3.OperationalError as error:
        connection.close()
        raise StoreError(f"{path} cannot be written: {error}; mend that, or give another --store") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreError(
            f"{path} is not a database, or damaged: {error}; move it away, or give another --store"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads."""
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )


def _prepare(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]]
) -> None:
    application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != _APPLICATION:
        raise StoreError(f"{path} is a database of something else: give another --store")
    if version > len(migrations):
        raise StoreError(
            f"{path} is of store version {version}, and this glowsim knows {len(migrations)}: use the newer glowsim, "
            "or give another --store"
        )
    if tables:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise StoreError(f"{path} is damaged: {said}; move it away, or give another --store")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    if 0 < version < len(migrations):
        _copy(connection, path.with_name(f"{path.name}.v{version}"))
    for number, migrate in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrate(connection)
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    """Put a copy at a path, whole or not at all."""
    growing = path.with_name(path.name + ".partial")
    growing.unlink(missing_ok=True)
    with closing(sqlite3.connect(growing)) as copy:
        growing.chmod(0o600)
        connection.backup(copy)
    growing.replace(path)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)

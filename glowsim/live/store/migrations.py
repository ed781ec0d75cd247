"""The store's tables, a version at a time; what was released is never changed, only followed by another."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable

__all__ = ["MIGRATIONS"]


def _first(database: sqlite3.Connection) -> None:
    for statement in (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        # What feedback needs to know of a request that was answered long ago.
        """CREATE TABLE requests_seen (
            request_id INTEGER PRIMARY KEY, journal TEXT NOT NULL, agent INTEGER NOT NULL, variant INTEGER NOT NULL,
            unit INTEGER NOT NULL, propensity REAL NOT NULL, tenant INTEGER NOT NULL, t_s REAL NOT NULL)""",
        # It holds all that is told, so that it outlives what it was joined with.
        """CREATE TABLE feedback (
            feedback_id INTEGER PRIMARY KEY AUTOINCREMENT, journal TEXT NOT NULL, taken_unix_s REAL NOT NULL,
            scope INTEGER NOT NULL, idempotency TEXT, request_id INTEGER NOT NULL, agent INTEGER NOT NULL,
            variant INTEGER NOT NULL, unit INTEGER NOT NULL, propensity REAL NOT NULL, kind TEXT NOT NULL,
            value REAL NOT NULL, tag TEXT, text TEXT, UNIQUE (scope, idempotency))""",
        "CREATE INDEX feedback_of_journal ON feedback (journal, feedback_id)",
        "CREATE INDEX feedback_on_request ON feedback (request_id)",
        """CREATE TABLE audit (
            audit_id INTEGER PRIMARY KEY AUTOINCREMENT, journal TEXT NOT NULL, at_unix_s REAL NOT NULL,
            who TEXT NOT NULL, what TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, outcome TEXT NOT NULL,
            changes TEXT NOT NULL, idempotency TEXT UNIQUE)""",
        "CREATE INDEX audit_of_journal ON audit (journal, audit_id)",
        *(
            f"CREATE TRIGGER audit_{name} BEFORE {name} ON audit BEGIN SELECT RAISE(ABORT, 'audit only grows'); END"
            for name in ("UPDATE", "DELETE")
        ),
        """CREATE TABLE rollups (
            agent TEXT NOT NULL, minute INTEGER NOT NULL, answered INTEGER NOT NULL, failed INTEGER NOT NULL,
            rejected INTEGER NOT NULL, abandoned INTEGER NOT NULL, cost_usd REAL NOT NULL, latency BLOB NOT NULL,
            PRIMARY KEY (agent, minute)) WITHOUT ROWID""",
        "CREATE INDEX rollups_by_minute ON rollups (minute)",
    ):
        database.execute(statement)
    database.execute("INSERT INTO meta VALUES ('boots', 0), ('hash_key', ?)", (secrets.token_bytes(32),))


def _assigned(database: sqlite3.Connection) -> None:
    """Keep when a request got its variant: a rollout counts what is said of it there."""
    for table in ("requests_seen", "feedback"):
        database.execute(f"ALTER TABLE {table} ADD COLUMN assigned_s REAL")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first, _assigned)
"""The n-th makes version n."""

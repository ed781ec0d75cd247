"""What the admin's side reads from the store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

__all__ = ["audit_rows", "feedback_rows"]

_FEEDBACK = (
    "feedback_id", "taken_unix_s", "request_id", "agent", "variant", "kind", "value", "tag", "text",
)  # fmt: skip
_AUDIT = ("audit_id", "at_unix_s", "who", "what", "before", "after", "outcome")


def feedback_rows(
    journal: str, after: int, limit: int
) -> Callable[[sqlite3.Connection], list[dict[str, Any]]]:
    """Return the work that reads feedback on a journal's requests, after a number, the oldest first."""

    def read(database: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = database.execute(
            f"SELECT {', '.join(_FEEDBACK)} FROM feedback WHERE journal = ? AND feedback_id > ? "  # noqa: S608
            "ORDER BY feedback_id LIMIT ?",
            (journal, after, limit),
        )
        return [dict(zip(_FEEDBACK, row, strict=True)) for row in rows]

    return read


def audit_rows(after: int, limit: int) -> Callable[[sqlite3.Connection], list[dict[str, Any]]]:
    """Return the work that reads the audit, after a number, the oldest first."""

    def read(database: sqlite3.Connection) -> list[dict[str, Any]]:
        rows = database.execute(
            f"SELECT {', '.join(_AUDIT)} FROM audit WHERE audit_id > ? ORDER BY audit_id LIMIT ?",  # noqa: S608
            (after, limit),
        )
        said = [dict(zip(_AUDIT, row, strict=True)) for row in rows]
        return [
            row | {"before": json.loads(row["before"]), "after": json.loads(row["after"])} for row in said
        ]

    return read

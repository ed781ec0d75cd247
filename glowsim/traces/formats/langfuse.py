"""Langfuse observations: exported from the page, by the API, or to blob storage; CSV, JSON or JSON lines.

Fields: langfuse/langfuse-docs, api-and-data-platform/features/blob-storage-export-fields (read in 2026), with
``snake_case`` names; the API and the page's export write the same names in ``camelCase``, and older versions
``usage``, ``promptTokens`` and ``calculatedTotalCost``. What they mean, and is not plain:

- The entries of ``usageDetails`` are meant to exclude each other, so that input is the sum of all that name it;
  but many senders give ``input`` with its cached part included (issues 9386, 10592). Where ``total`` is the plain
  input plus the plain output, it is of that kind.
- ``latency`` is in seconds or in milliseconds, by the age of the integration: the times are used instead.
- The trace's name is taken as the agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from math import fsum
from typing import ClassVar, Final

from glowsim.traces.formats.base import Format, LeftOut, Request, arrival
from glowsim.traces.formats.usage import first_token, inclusive
from glowsim.traces.values import Row, duration_s, failure, instant, nested, number, text, whole

__all__ = ["Langfuse"]

_CALLS: Final = ("GENERATION", "EMBEDDING")
_CACHED: Final = (
    "input_cached_tokens", "cache_read_input_tokens", "input_cache_read", "input_cached", "input_cache_read_tokens",
)  # fmt: skip
_WRITTEN: Final = ("cache_creation_input_tokens", "input_cache_creation", "input_cache_write")
_REASONING: Final = ("output_reasoning_tokens", "output_reasoning", "reasoning_tokens")
_UNIT: Final = "usage that is not in tokens was left out"


class Langfuse(Format):
    """An observation; those that are no generations or embeddings are left out."""

    name: ClassVar[str] = "langfuse"
    fields = frozenset({
        "id", "traceId", "type", "startTime", "endTime", "completionStartTime", "model", "providedModelName", "usage",
        "usageDetails", "inputUsage", "outputUsage", "totalUsage", "promptTokens", "completionTokens", "totalTokens",
        "totalCost", "calculatedTotalCost", "costDetails", "level", "statusMessage", "sessionId", "userId",
        "traceName", "latency", "timeToFirstToken", "unit", "input", "output", "metadata", "toolCalls",
        "toolDefinitions", "modelParameters",
    })  # fmt: skip
    marks = (
        ("traceId",),
        ("startTime",),
        ("type", "completionStartTime"),
        ("usageDetails", "usage", "promptTokens", "inputUsage"),
    )

    def rows(self, found: Row) -> Iterator[Row]:
        """Yield the row with its names in ``camelCase``."""
        yield {_camel(name): value for name, value in found.items()}

    def missing(self, names: tuple[str, ...]) -> str | None:
        """Return the first field that rows of these names lack, in whichever case."""
        return super().missing(tuple(_camel(name) for name in names))

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        kind = text(row, "type") or "GENERATION"
        if kind not in _CALLS:
            raise LeftOut(kind)
        start = arrival(instant(row, "startTime"), "startTime")
        latency_s = duration_s(start, instant(row, "endTime"), "endTime")
        first_token_s, late = first_token(start, instant(row, "completionStartTime"), latency_s)
        tokens, notes = _tokens(row)
        return Request(
            start,
            {**tokens, "latency_s": latency_s, "first_token_s": first_token_s, "cost_usd": _cost(row)},
            {
                "model": text(row, "providedModelName", "model"),
                "agent": text(row, "traceName"),
                "session": text(row, "sessionId"),
                "user": text(row, "userId"),
                "status": _status(row),
            },
            key=text(row, "id"),
            notes=(*late, *notes),
        )


@lru_cache(maxsize=4096)
def _camel(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])_([a-z])", lambda letter: letter[1].upper(), name)


def _tokens(row: Row) -> tuple[dict[str, float | None], tuple[str, ...]]:
    older = nested(row, "usage")
    unit = text(older, "unit") or text(row, "unit") or "TOKENS"
    if unit.upper() != "TOKENS":
        return {}, (_UNIT,)
    details = nested(row, "usageDetails")
    if not details:
        counts = {**row, **{f"usage.{name}": count for name, count in older.items()}}
        return {
            "tokens_in": whole(counts, "inputUsage", "promptTokens", "usage.promptTokens", "usage.input"),
            "tokens_out": whole(
                counts, "outputUsage", "completionTokens", "usage.completionTokens", "usage.output"
            ),
        }, ()
    all_in = _sum(details, "input")
    all_out = _sum(details, "output")
    plain_in, plain_out, total = whole(details, "input"), whole(details, "output"), whole(details, "total")
    if total is not None and total != (all_in or 0.0) + (all_out or 0.0):
        for within, out in ((plain_in, all_out), (all_in, plain_out), (plain_in, plain_out)):
            if within is not None and out is not None and total == within + out:
                all_in, all_out = within, out
                break
    cached, written = whole(details, *_CACHED), whole(details, *_WRITTEN)
    tokens_in, added = inclusive(all_in, cached, written)
    return {
        "tokens_in": tokens_in,
        "tokens_cached": cached,
        "tokens_cache_write": written,
        "tokens_out": all_out,
        "tokens_reasoning": whole(details, *_REASONING),
    }, added


def _sum(details: Row, side: str) -> float | None:
    counts = [whole(details, name) for name in details if side in name]
    return fsum(count for count in counts if count is not None) if counts else None


def _cost(row: Row) -> float | None:
    told = number(row, "totalCost", "calculatedTotalCost")
    if told is not None:
        return told
    details = nested(row, "costDetails")
    if details.get("total") is not None:
        return number(details, "total")
    costs = [number(details, name) for name in details]
    return fsum(cost for cost in costs if cost is not None) if costs else None


def _status(row: Row) -> str | None:
    level = text(row, "level")
    if level is None:
        return None
    message = row.get("statusMessage")
    return failure(message if isinstance(message, str) else None) if level == "ERROR" else "ok"

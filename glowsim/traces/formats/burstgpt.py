"""BurstGPT: 4 to 6 months of a university's calls to ChatGPT and GPT-4.

Schema: HPMLL/BurstGPT, README.md: ``BurstGPT_1`` and ``_2`` have six columns, ``BurstGPT_3`` (release 2.0) also
the session and the seconds from a request to its whole response. A response of 0 tokens is a failure.
"""

from __future__ import annotations

from typing import ClassVar

from glowsim.traces.formats.base import Format, Request, arrival
from glowsim.traces.values import Row, instant, number, text, whole

__all__ = ["BurstGPT"]


class BurstGPT(Format):
    """``Timestamp,[Session ID,Elapsed time,]Model,Request tokens,Response tokens,Total tokens,Log Type``."""

    name: ClassVar[str] = "burstgpt"
    fields = frozenset(
        {
            "Timestamp",
            "Session ID",
            "Elapsed time",
            "Model",
            "Request tokens",
            "Response tokens",
            "Total tokens",
        }
    )
    marks = (("Timestamp",), ("Model",), ("Request tokens",), ("Response tokens",))

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        tokens_out = whole(row, "Response tokens", required=True)
        return Request(
            arrival(instant(row, "Timestamp"), "Timestamp"),
            {
                "tokens_in": whole(row, "Request tokens", required=True),
                "tokens_out": tokens_out,
                "latency_s": number(row, "Elapsed time"),
            },
            {
                "model": text(row, "Model"),
                "session": text(row, "Session ID"),
                "status": "ok" if tokens_out else "error",
            },
        )

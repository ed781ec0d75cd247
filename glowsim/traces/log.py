"""A recorded workload as columns, whatever format it was read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.core.errors import GlowsimError

__all__ = ["NAMES", "NUMBERS", "Log", "LogError", "Named", "Reading", "Refused"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUMBERS: Final = (
    "tokens_in", "tokens_cached", "tokens_cache_write", "tokens_out", "tokens_reasoning", "latency_s",
    "first_token_s", "cost_usd", "turn",
)  # fmt: skip
"""Columns of numbers that a log may have. ``tokens_cached`` and ``tokens_cache_write`` are parts of ``tokens_in``,
``tokens_reasoning`` of ``tokens_out``; ``turn`` counts within a session, from 0."""
NAMES: Final = ("model", "agent", "session", "user", "tenant", "status", "instance")
"""Columns of names; ``instance`` is the URL or host:port that served it,
``status`` is ``ok``, ``error``, ``throttled``, ``timeout`` or ``cancelled``."""
_SHOWN: Final = 20


class LogError(GlowsimError):
    """A log that is not there, or of which nothing can be read."""


class Refused(NamedTuple):
    """A row that could not be read."""

    line: int
    """Of the file, from 1; of a JSON document, the element's place."""
    why: str


@dataclass(frozen=True)
class Reading:
    """What happened while a log was read: nothing is guessed or dropped in silence."""

    rows: int
    """Rows that the file has, refused ones included."""
    refused: tuple[Refused, ...] = ()
    """The first of the rows that could not be read."""
    refused_count: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    """Field that no column was made of -> in how many rows it stood."""
    remarks: tuple[str, ...] = ()
    """What was done to the data, such as a jitter, and what is not in it, each a sentence."""
    unit: str = "line"
    """What the places of refused rows count: ``line``, or ``element`` of a JSON document."""

    def text(self) -> str:
        """Return it as lines for a person.

        >>> print(Reading(3, (Refused(2, "tokens below zero"),), 1, {"tags": 2}).text())
        3 rows, 1 of them refused
          line 2: tokens below zero
        fields not used: tags (2 rows)
        """
        lines = [f"{self.rows} rows, {self.refused_count} of them refused"]
        lines += [f"  {self.unit} {row.line}: {row.why}" for row in self.refused[:_SHOWN]]
        if self.refused_count > min(len(self.refused), _SHOWN):
            lines.append(f"  and {self.refused_count - min(len(self.refused), _SHOWN)} more")
        if self.unknown:
            found = ", ".join(f"{name} ({n} rows)" for name, n in sorted(self.unknown.items()))
            lines.append(f"fields not used: {found}")
        return "\n".join([*lines, *self.remarks])


class Named(NamedTuple):
    """A column of names."""

    codes: Ints
    """Place in ``labels`` of each row's name; -1 where it has none."""
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Log:
    """One row a request, in order of time, the first at 0 s.

    A column that the source does not have is absent; a value that a row does not have is nan, or -1 in the
    codes of a column of names.
    """

    source: str
    """The file."""
    format: str
    t_s: Floats
    """When each request arrived."""
    reading: Reading
    epoch: str | None = None
    """When the first arrived, in ISO 8601 and UTC, where the source says."""
    numbers: dict[str, Floats] = field(default_factory=dict)
    """Name among `NUMBERS` -> values."""
    names: dict[str, Named] = field(default_factory=dict)
    """Name among `NAMES` -> values."""
    blocks: tuple[tuple[int, ...], ...] | None = None
    """The hashes of each prompt's blocks, equal where the text up to there is equal."""
    block_tokens: int = 0
    """Tokens of a block."""

    def __len__(self) -> int:
        """Return how many requests there are."""
        return len(self.t_s)

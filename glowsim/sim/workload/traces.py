"""Recorded traces as columns: when, how many tokens in, how many out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Trace", "blocks"]

_BLOCK = 4096


class Trace(NamedTuple):
    """A trace's columns, in order of time, the first at 0."""

    times_s: npt.NDArray[np.float64]
    tokens_in: npt.NDArray[np.int64]
    tokens_out: npt.NDArray[np.int64]


def blocks(
    trace: Trace, speed: float = 1.0
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield a trace in blocks, replayed ``speed`` times as fast."""
    for start in range(0, len(trace.times_s), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield trace.times_s[part] / speed, trace.tokens_in[part], trace.tokens_out[part]

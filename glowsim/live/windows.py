"""What happened of late, in bounded memory: counts, cost and latencies over sliding windows.

Time is cut into slices. An event costs an addition to the slice that is filling; when a slice ends it is merged into
minutes and hours. Latencies are kept in buckets (`glowsim.live.buckets`), so that two histograms merge by adding
counts, and every quantile of the merged one is within 1 % of a value that was there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import ceil, log
from typing import Final, NamedTuple

from glowsim.live import buckets
from glowsim.live.buckets import LEAST, PER_LOG, middle

__all__ = [
    "COUNTS",
    "SLICE_S",
    "TREND",
    "WINDOWS",
    "Tally",
    "Window",
    "Windows",
    "bucket_of",
    "quantiles_s",
]

SLICE_S: Final = 10.0
"""Width of a slice in seconds."""
TREND: Final = 90
"""Slices whose figures are kept for a picture: 15 minutes."""
_LOWEST: Final = buckets.bucket_of(LEAST)
_HIGHEST: Final = buckets.bucket_of(1e6)

COUNTS: Final = (
    "arrived", "answered", "apologised", "rejected", "failed", "abandoned", "retries", "limited", "hits", "misses",
)  # fmt: skip


class Width(NamedTuple):
    """A window's name, how wide its parts are in seconds, and how many of them it shows; the newest is filling."""

    name: str
    part_s: float
    parts: int


WINDOWS: Final = (Width("1 min", SLICE_S, 7), Width("15 min", 60.0, 16), Width("24 h", 3600.0, 25))
"""A window is as long as its name says, and up to one part longer."""


def bucket_of(value_s: float) -> int:
    """Return the number of the bucket of a latency in seconds; below 1 us and above 11 days all share one.

    >>> bucket_of(1.0), bucket_of(2.0), bucket_of(0.0) == bucket_of(1e-9)
    (0, 35, True)
    """
    if value_s <= LEAST:
        return _LOWEST
    bucket = ceil(log(value_s) * PER_LOG)  # not by a call: it is on every request's way
    return bucket if bucket < _HIGHEST else _HIGHEST


class Tally:
    """What happened within a stretch of time: counts of requests, US dollars, latencies of the answered.

    >>> tally = Tally(); tally.answered += 1; tally.latencies[bucket_of(0.5)] = 1
    >>> [round(each, 2) for each in quantiles_s([tally.latencies], (0.5, 0.99))]
    [0.5, 0.5]
    """

    __slots__ = (*COUNTS, "instance_usd", "latencies", "token_usd")

    arrived: int
    answered: int
    apologised: int
    rejected: int
    failed: int
    abandoned: int
    retries: int
    limited: int
    hits: int
    misses: int

    def __init__(self) -> None:
        for name in COUNTS:
            setattr(self, name, 0)
        self.token_usd = 0.0
        self.instance_usd = 0.0
        self.latencies: dict[int, int] = {}
        """Bucket -> how many answers took that long."""

    @property
    def empty(self) -> bool:
        """Whether nothing happened."""
        return not (
            self.token_usd
            or self.instance_usd
            or self.latencies
            or any(getattr(self, name) for name in COUNTS)
        )

    @property
    def bad(self) -> int:
        """Requests that were turned away, failed, or got an apology."""
        return self.rejected + self.failed + self.apologised

    @property
    def ended(self) -> int:
        """Requests that are over."""
        return self.answered + self.bad + self.abandoned

    def add(self, other: Tally) -> None:
        """Take in what happened in another stretch."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.token_usd += other.token_usd
        self.instance_usd += other.instance_usd
        latencies = self.latencies
        for bucket, count in other.latencies.items():
            latencies[bucket] = latencies.get(bucket, 0) + count

    def slower_than(self, limit_s: float) -> int:
        """Return how many answers took longer than a limit, as far as the buckets tell."""
        last = bucket_of(limit_s)
        return sum(count for bucket, count in self.latencies.items() if bucket > last)


def quantiles_s(histograms: Iterable[dict[int, int]], ps: Iterable[float]) -> list[float | None]:
    """Return quantiles of merged histograms, each within 1 % of the value of that rank; None where nothing is.

    Parameters
    ----------
    histograms
        Bucket -> count, of each.
    ps
        Probabilities in (0, 1], rising; the quantile is the value of rank ceil(p n).
    """
    merged: dict[int, int] = {}
    for histogram in histograms:
        if not merged:
            merged = dict(histogram)
            continue
        for bucket, count in histogram.items():
            merged[bucket] = merged.get(bucket, 0) + count
    total = sum(merged.values())
    if not total:
        return [None for _ in ps]
    found: list[float | None] = []
    buckets = iter(sorted(merged.items()))
    seen, bucket = 0, 0
    for p in ps:
        rank = max(ceil(p * total), 1)
        while seen < rank:
            bucket, count = next(buckets)
            seen += count
        found.append(middle(bucket))
    return found


class Window(NamedTuple):
    """What happened within a window."""

    since_s: float
    """When it begins."""
    tally: Tally


class Windows:
    """The windows of one agent, or of the fleet.

    ``now`` is the slice that is filling; `turn` ends it. Nothing happens by itself: whoever adds and whoever reads
    says when it is.

    Parameters
    ----------
    began_s
        Since when it listens.

    >>> windows = Windows(0.0)
    >>> windows.now.answered += 3
    >>> windows.turn(10.0); windows.now.answered += 1
    >>> [window.tally.answered for window in windows.read(12.0)], [w.since_s for w in windows.read(100.0)]
    ([4, 4, 4], [40.0, 0.0, 0.0])
    """

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.now = Tally()
        self.trend: deque[tuple[float, int, int, float | None]] = deque(maxlen=TREND)
        """(slice's start, arrived, bad, p95 in seconds) of the last slices in which anything happened."""
        self._slice_s = began_s // SLICE_S * SLICE_S
        self._parts: tuple[deque[tuple[float, Tally]], ...] = tuple(deque() for _ in WINDOWS)
        self._closed: list[Tally] | None = None
        """Of each window, what its parts add up to, as long as no slice has ended since."""

    def turn(self, t_s: float) -> None:
        """Take in that it is ``t_s``: a slice that is over is kept, and what is too old is let go of."""
        ends_s = self._slice_s + SLICE_S
        if t_s < ends_s:
            return
        begun_s, tally = self._slice_s, self.now
        self._slice_s = t_s // SLICE_S * SLICE_S
        self._closed = None
        if not tally.empty:
            self.now = Tally()
            if tally.arrived or tally.ended:
                self.trend.append(
                    (begun_s, tally.arrived, tally.bad, quantiles_s([tally.latencies], (0.95,))[0])
                )
            for (_, part_s, _), parts in zip(WINDOWS, self._parts, strict=True):
                start_s = begun_s // part_s * part_s
                if not parts or parts[-1][0] != start_s:
                    parts.append((start_s, Tally()))
                parts[-1][1].add(tally)
        for (_, part_s, most), parts in zip(WINDOWS, self._parts, strict=True):
            since_s = _since(t_s, part_s, most)
            while parts and parts[0][0] < since_s:
                parts.popleft()

    def read(self, t_s: float) -> list[Window]:
        """Return what is in each of `WINDOWS` at a moment, the newest slice included."""
        self.turn(t_s)
        if self._closed is None:
            self._closed = [_sum(tally for _, tally in parts) for parts in self._parts]
        return [
            Window(max(_since(t_s, part_s, most), self.began_s), _sum((closed, self.now)))
            for (_, part_s, most), closed in zip(WINDOWS, self._closed, strict=True)
        ]


def _sum(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole


def _since(t_s: float, part_s: float, most: int) -> float:
    return (t_s // part_s - most + 1) * part_s

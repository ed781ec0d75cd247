"""A histogram of durations that can be stored, merged and asked for quantiles with a known error."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import ceil, inf, log

from glowsim.core.errors import GlowsimError

__all__ = ["ACCURACY", "Histogram"]

ACCURACY = 0.01
"""Relative error of a quantile, at most."""
_GAMMA = (1.0 + ACCURACY) / (1.0 - ACCURACY)
_LOG_GAMMA = log(_GAMMA)
_SMALLEST, _LARGEST = 1e-6, 1e9
_VERSION = 1
_HEAD = struct.Struct("<BQd")
_ENTRY = struct.Struct("<hQ")


class Histogram:
    """Counts in buckets whose bounds grow by a constant factor.

    Bucket i holds the values in (g^(i-1), g^i], with g = (1 + a) / (1 - a) and a = 0.01; its value is
    2 g^i / (g + 1), which is within a of every value in it. So two histograms of any two streams merge by adding
    counts, and that equals the histogram of both. Values below 1e-6 count as 0; those above 1e9 as 1e9.

    Notes
    -----
    Source: Masson, Rim & Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees",
    PVLDB 12(12), 2019.

    >>> histogram = Histogram([0.5, 1.0, 2.0])
    >>> histogram.n, round(histogram.quantile(0.5), 1)
    (3, 1.0)
    """

    __slots__ = ("_buckets", "_zeros", "total")

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._buckets: dict[int, int] = {}
        self._zeros = 0
        self.total = 0.0
        """Sum of the values, as they came."""
        for value in values:
            self.add(value)

    @property
    def n(self) -> int:
        """How many values there are."""
        return self._zeros + sum(self._buckets.values())

    def add(self, value: float) -> None:
        """Take in a value.

        Raises
        ------
        ValueError
            It is below 0, or no number.
        """
        if not 0.0 <= value < inf:
            raise ValueError(f"a histogram takes numbers from 0, not {value}")
        self.total += value
        if value < _SMALLEST:
            self._zeros += 1
        else:
            bucket = ceil(log(min(value, _LARGEST)) / _LOG_GAMMA)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def merge(self, other: Histogram) -> None:
        """Take in all values of another one."""
        self._zeros += other._zeros
        self.total += other.total
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def quantile(self, p: float) -> float | None:
        """Return the nearest-rank quantile, within 1 % of it; None of nothing.

        Parameters
        ----------
        p
            0 to 1.
        """
        if not self.n:
            return None
        left = max(ceil(p * self.n), 1) - self._zeros
        if left <= 0:
            return 0.0
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                break
        return 2.0 * _GAMMA**bucket / (_GAMMA + 1.0)

    def to_bytes(self) -> bytes:
        """Return it packed: a version, the values that count as 0, the sum, and (bucket, count) pairs in order."""
        head = _HEAD.pack(_VERSION, self._zeros, self.total)
        return head + b"".join(_ENTRY.pack(*entry) for entry in sorted(self._buckets.items()))

    @classmethod
    def from_bytes(cls, packed: bytes) -> Histogram:
        """Return what `to_bytes` packed.

        Raises
        ------
        GlowsimError
            It is of another version, or cut.
        """
        if not packed or packed[0] != _VERSION:
            said = packed[0] if packed else "none"
            raise GlowsimError(
                f"a stored histogram is of version {said}; this glowsim reads version {_VERSION}"
            )
        if len(packed) < _HEAD.size or (len(packed) - _HEAD.size) % _ENTRY.size:
            raise GlowsimError(f"a stored histogram of {len(packed)} bytes is cut")
        made = cls()
        _, made._zeros, made.total = _HEAD.unpack_from(packed)
        made._buckets = dict(_ENTRY.iter_unpack(packed[_HEAD.size :]))
        return made

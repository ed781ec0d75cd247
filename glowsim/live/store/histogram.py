"""A histogram of durations that can be stored, merged and asked for quantiles with a known error."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import ceil, inf

from glowsim.core.errors import GlowsimError
from glowsim.live.buckets import LEAST, bucket_of, middle

__all__ = ["Histogram"]

_LARGEST = 1e9
_VERSION = 1
_HEAD = struct.Struct("<BQd")
_ENTRY = struct.Struct("<hQ")


class Histogram:
    """Counts in the buckets of `glowsim.live.buckets`.

    So two histograms of any two streams merge by adding counts, and that equals the histogram of both. Values below
    1e-6 count as 0; those above 1e9 as 1e9.

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
        if value < LEAST:
            self._zeros += 1
        else:
            bucket = bucket_of(min(value, _LARGEST))
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
        return middle(bucket)

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

"""Buckets whose widths grow with the value, so that histograms merge by adding counts.

Bucket i holds the values in (g^(i-1), g^i], with g = (1 + a) / (1 - a) and a = 0.01; its middle, 2 g^i / (g + 1), is
within a of every value in it: Masson, Rim & Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", PVLDB 12(12), 2019.
"""

from __future__ import annotations

from math import ceil, log
from typing import Final

__all__ = ["ACCURACY", "LEAST", "PER_LOG", "bucket_of", "middle"]

ACCURACY: Final = 0.01
"""Relative error of a quantile, at most."""
LEAST: Final = 1e-6
"""Smaller values are not told apart."""
_GAMMA: Final = (1.0 + ACCURACY) / (1.0 - ACCURACY)
PER_LOG: Final = 1.0 / log(_GAMMA)
"""Buckets for a factor of e."""


def bucket_of(value: float) -> int:
    """Return the number of the bucket of a value above 0.

    >>> bucket_of(1.0), bucket_of(2.0)
    (0, 35)
    """
    return ceil(log(value) * PER_LOG)


def middle(bucket: int) -> float:
    """Return the value within 1 % of which is everything in a bucket.

    >>> abs(middle(bucket_of(1.234)) / 1.234 - 1) <= 0.01
    True
    """
    return 2.0 * _GAMMA**bucket / (_GAMMA + 1.0)

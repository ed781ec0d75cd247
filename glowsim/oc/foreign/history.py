"""The last buckets of many campaigns: what a query that looks back some time finds."""

from __future__ import annotations

from typing import Final

import numpy as np

from glowsim.oc.rules import CANARY, Ints, Known

__all__ = ["MOST_LOOKS", "History"]

MOST_LOOKS: Final = 2000
"""Looks that a query may look back: the buckets of all campaigns are in memory."""


class History:
    """The new version's counts in the last looks; a bucket that was not yet or not at all is empty.

    It is no ``Course``: the course holds ``counts`` as its own array, so that ``Course.keep`` finds it.

    Args:
        depth: looks that the longest query looks back, >= 1.
        streams: how many streams of bad outcomes there are.
    """

    def __init__(self, depth: int, streams: int) -> None:
        self.depth = depth
        self.streams = streams

    def empty(self, campaigns: int) -> Ints:
        """Return the array for so many campaigns, shape (depth, 1 + streams, campaigns)."""
        return np.zeros((self.depth, 1 + self.streams, campaigns), np.int32)

    def put(self, counts: Ints, look: int, known: Known | None) -> None:
        """Write the bucket that is told at a look, in place of the oldest."""
        bucket = counts[look % self.depth]
        if known is None:
            bucket[:] = 0
            return
        bucket[0] = known.requests[CANARY]
        bucket[1:] = known.bad[:, CANARY]

    def last(self, counts: Ints, look: int, looks: int, stream: int) -> tuple[Ints, Ints]:
        """Return requests and bad outcomes of one stream over the last ``looks`` buckets, each (campaigns,)."""
        if looks == self.depth:
            return counts[:, 0].sum(axis=0), counts[:, 1 + stream].sum(axis=0)
        rows = np.arange(look - looks + 1, look + 1) % self.depth
        return counts[rows, 0].sum(axis=0), counts[rows, 1 + stream].sum(axis=0)

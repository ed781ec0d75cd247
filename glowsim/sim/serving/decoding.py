"""Decode steps by arithmetic: how long a run of them takes, and how many blocks it needs."""

from __future__ import annotations

from collections import deque
from math import ceil, sqrt
from operator import mul

from glowsim.sim.serving.blocks import BlockStore
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.steps import BatchSpec

__all__ = ["NEVER", "Decoding", "steps_until"]

NEVER = 1 << 62
"""A step that does not come: the end of nobody, so that there always is a first one in the heap."""
_NOBODY = Call(0, 1, 1)
_NOBODY.finish = NEVER


class Decoding:
    """The calls of a model server that decode, as sums.

    A call that has stored c tokens at step s has the base c - s, which stays the same while it decodes: it wants
    a block at every step at which s + base is a multiple of ``block_tokens``, and ends at a step known ahead.

    Parameters
    ----------
    spec
        Of the server.
    """

    __slots__ = (
        "_b0", "_b2", "_b3", "_base_sum", "_bins", "_block_tokens", "_eager", "_heap", "_kv_blocks", "_n",
        "_pads", "_peaks", "_s", "_scale", "_store", "_waiting",
    )  # fmt: skip

    def __init__(self, spec: BatchSpec) -> None:
        self._b0, _, self._b2, self._b3, _ = spec.step
        self._block_tokens = spec.block_tokens
        self._kv_blocks = spec.kv_blocks
        self._store = BlockStore(spec.kv_blocks)
        self._scale = 1.0
        self._s = 0
        """Steps decided."""
        self._waiting: deque[Call] = deque()
        self._eager: list[Call] = []
        """Calls that decode a text which somebody else holds or computes: named block by block."""
        self._heap: list[tuple[int, int, Call]] = [(NEVER, 0, _NOBODY)]
        """Ends: (step counter, order of admission, call); void where the call's ``finish`` is another."""
        self._n = 0
        """Calls that decode, and of these: the sum of bases, and how many have each rest of base / block_tokens."""
        self._base_sum = 0
        self._bins = [0] * spec.block_tokens
        self._pads = [
            tuple(-(s + rest) % spec.block_tokens for rest in range(spec.block_tokens))
            for s in range(spec.block_tokens)
        ]
        """At each rest of the step counter: tokens that the last block still has room for, of each rest of base."""
        self._peaks = 0
        """Blocks that those running hold at most, each at its end, nothing shared."""

    def _jump(self) -> tuple[int, float, float]:
        """Return how many decode steps are alike, the seconds of the first, and half of what each adds."""
        n, s = self._n, self._s
        scale = self._scale
        first_s = (self._b0 + self._b2 * n + self._b3 * (n * s + self._base_sum)) * scale
        half_s = self._b3 * n * scale * 0.5
        k = self._heap[0][0] - s if n else 1
        if self._eager:
            # A step that gives a block back may admit one of those waiting: it is taken by itself.
            alone = 1 if self._waiting else 0
            for call in self._eager:
                k = min(k, self._block_tokens - (s + call.base) % self._block_tokens - alone)
        if self._peaks > self._kv_blocks:
            k = self._steps_with_room(k)
        return k, first_s, half_s

    def _steps_with_room(self, most: int) -> int:
        """Return how many steps the free blocks last for, at most so many."""
        n, block_tokens, bins = self._n, self._block_tokens, self._bins
        free = self._store.free - self._decoding()
        if free >= n * (-(-most // block_tokens)):
            return most
        rounds, free = divmod(free, n)
        k = rounds * block_tokens
        place = -self._s % block_tokens
        while k < most and bins[place] <= free:
            free -= bins[place]
            k += 1
            place -= 1  # runs through the negative places too
            if place < -block_tokens:
                place += block_tokens
        return min(k, most)

    def _decoding(self) -> int:
        """Return the blocks of calls that decode, shared ones counted for each: in the store they count as free."""
        pads = self._pads[self._s % self._block_tokens]
        padded: int = sum(map(mul, self._bins, pads))
        return (self._n * self._s + self._base_sum + padded) // self._block_tokens


def steps_until(wait_s: float, t_s: float, target_s: float, first_s: float, half_s: float) -> int:
    """Return the first k >= 1 with t + k first + k (k - 1) half >= target, where target = t + wait.

    >>> steps_until(2.5, 1.0, 3.5, 1.0, 0.0), steps_until(2.5, 1.0, 3.5, 1.0, 0.25)
    (3, 2)
    """
    if half_s:
        linear_s = first_s - half_s
        k = ceil(2.0 * wait_s / (linear_s + sqrt(linear_s * linear_s + 4.0 * half_s * wait_s)))
    else:
        k = ceil(wait_s / first_s)
    if k < 1:
        k = 1
    while k > 1 and t_s + (first_s * (k - 1) + half_s * ((k - 1) * (k - 2))) >= target_s:
        k -= 1
    while t_s + (first_s * k + half_s * (k * (k - 1))) < target_s:
        k += 1
    return k

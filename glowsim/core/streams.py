"""Named random streams: who draws, and the how-manieth draw it is, decide the number; nothing else does.

A stream is addressed by (seed, name), so adding a controller or a workload shifts nobody else's draws, and
two policies under the same seed meet the same world: common random numbers. Numbers are drawn in blocks
(twelve times cheaper than one by one), and a stream's position is part of a snapshot.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Ahead", "Stream", "Streams", "key_of", "mix", "mix_all", "uniform_at", "uniforms_at"]

_BLOCK = 1024
_AHEAD_BITS = 10
_AHEAD = 1 << _AHEAD_BITS
_AHEAD_WORTH = 16
_AHEAD_KEPT = 128
_MASK = (1 << 64) - 1


def key_of(*parts: str | int) -> int:
    """Return a stable 64-bit key of names and numbers (blake2b, never ``hash()``).

    >>> key_of("balancing", 3) == key_of("balancing", 3) != key_of("balancing", 4)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(x: int) -> int:
    """Return the splitmix64 finaliser of ``x``: a cheap, well-mixed 64-bit hash of a number.

    Source: Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

    >>> hex(mix(1))
    '0x910a2dec89025cc1'
    """
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def mix_all(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return `mix` of every number of a column.

    >>> int(mix_all(np.array([1], dtype=np.uint64))[0]) == mix(1)
    True
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform_at(key: int, *ordinals: int) -> float:
    """Return the uniform number in [0, 1) that belongs to (key, ordinals): a draw without a position.

    For truths that must not depend on the order of draws, such as the third attempt of request 7.

    >>> uniform_at(1, 7, 3) == uniform_at(1, 7, 3) != uniform_at(1, 7, 2)
    True
    """
    for ordinal in ordinals:
        key = mix(key ^ mix(ordinal & _MASK))
    return (mix(key) >> 11) * 2.0**-53


def uniforms_at(key: int, *ordinals: int | npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return `uniform_at` of whole columns of ordinals, each as cheap as a few machine instructions.

    Parameters
    ----------
    key
        64-bit key.
    ordinals
        Whole numbers, and columns of equal length; at least one column.

    >>> uniforms_at(1, np.array([7, 8], dtype=np.uint64), 3).tolist() == [uniform_at(1, 7, 3), uniform_at(1, 8, 3)]
    True
    """
    mixed = np.array([key & _MASK], dtype=np.uint64)
    for ordinal in ordinals:
        column = np.array([ordinal & _MASK], dtype=np.uint64) if isinstance(ordinal, int) else ordinal
        mixed = mix_all(mixed ^ mix_all(column))
    return (mix_all(mixed) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Ahead:
    """Numbers that belong to ordinals, for who asks about ordinals that lie close together, such as requests in turn.

    A block of consecutive ordinals is drawn ahead once as many of it were asked for as make it worth its price; until
    then each is drawn alone (rent, then buy: whatever is asked, it costs at most twice as much as the better way).
    Either way it is a function of the ordinal, whoever asks and in whatever order.

    Parameters
    ----------
    one
        Returns the number that belongs to an ordinal.
    column
        Returns the very same numbers for a column of ordinals.

    >>> luck = Ahead(lambda n: uniform_at(5, n), lambda n: uniforms_at(5, n))
    >>> all(luck.at(n) == uniform_at(5, n) for n in range(2000))
    True
    """

    __slots__ = ("_asked", "_blocks", "_column", "_one")

    def __init__(
        self,
        one: Callable[[int], float],
        column: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.float64]],
    ) -> None:
        self._one = one
        self._column = column
        self._blocks: dict[int, array[float]] = {}
        self._asked: dict[int, int] = {}
        """Block that is not drawn -> how many of its numbers were."""

    def at(self, ordinal: int) -> float:
        """Return the number that belongs to an ordinal, 0 or more."""
        block = self._blocks.get(ordinal >> _AHEAD_BITS)
        if block is None:
            return self._alone(ordinal)
        return block[ordinal & _AHEAD - 1]

    def _alone(self, ordinal: int) -> float:
        number = ordinal >> _AHEAD_BITS
        asked = self._asked.pop(number, 0) + 1
        if asked < _AHEAD_WORTH:
            _put(self._asked, number, asked)
        else:
            first = number << _AHEAD_BITS
            drawn = self._column(np.arange(first, first + _AHEAD, dtype=np.uint64))
            _put(self._blocks, number, array("d", drawn.tobytes()))
        return self._one(ordinal)


def _put(held: dict[int, Any], number: int, value: Any) -> None:
    """Hold a value; what has been held for longest goes beyond the limit."""
    if len(held) >= _AHEAD_KEPT:
        del held[next(iter(held))]
    held[number] = value


class Stream:
    """Uniform numbers in [0, 1), drawn in blocks.

    Parameters
    ----------
    key
        64-bit key of the stream.

    >>> a, b = Stream(5), Stream(5)
    >>> [a.uniform() for _ in range(3)] == [b.uniform() for _ in range(3)]
    True
    """

    __slots__ = ("_block", "_generator", "_key", "_next", "drawn")

    def __init__(self, key: int) -> None:
        self._key = key
        self._generator: np.random.Generator | None = None
        """Made by the first draw: most controllers of a fleet never draw."""
        self._block: list[float] = []
        self._next = 0
        self.drawn = 0
        """How many numbers were drawn: the position, and whether anything was random at all."""

    def uniform(self) -> float:
        """Return the next number."""
        i = self._next
        if i == len(self._block):
            if self._generator is None:
                self._generator = np.random.Generator(np.random.PCG64(self._key))
            self._block = self._generator.random(_BLOCK).tolist()
            i = 0
        self._next = i + 1
        self.drawn += 1
        return self._block[i]

    def below(self, n: int) -> int:
        """Return the next whole number in 0 .. n-1, for ``n`` far below 2**53."""
        return int(self.uniform() * n)

    def snapshot(self) -> int:
        """Return the position."""
        return self.drawn

    def restore(self, drawn: int) -> None:
        """Go to a position."""
        generator = self._generator = np.random.Generator(np.random.PCG64(self._key))
        skip, into = divmod(drawn, _BLOCK)
        for _ in range(skip):
            generator.random(_BLOCK)
        self._block, self._next, self.drawn = [], 0, drawn
        if into:
            self._block = generator.random(_BLOCK).tolist()
            self._next = into


class Streams:
    """The streams of one replication.

    Parameters
    ----------
    seed, replication
        Together they name the world: a policy never enters, so every policy meets the same one.

    >>> Streams(1, 0).stream("a").uniform() == Streams(1, 0).stream("a").uniform()
    True
    """

    def __init__(self, seed: int, replication: int = 0) -> None:
        self._root = key_of("glowsim", seed, replication)
        self._made: dict[str, Stream] = {}
        self._generators = 0

    def key(self, *name: str | int) -> int:
        """Return the 64-bit key of a name in this replication."""
        return key_of("stream", self._root, *name)

    def stream(self, *name: str | int) -> Stream:
        """Return the stream of a name; asked twice, it is the same one."""
        label = "/".join(map(str, name))
        if label not in self._made:
            self._made[label] = Stream(self.key(*name))
        return self._made[label]

    def generator(self, *name: str | int) -> np.random.Generator:
        """Return a fresh numpy generator for columns that are drawn ahead."""
        self._generators += 1
        return np.random.Generator(np.random.PCG64(self.key(*name)))

    @property
    def random(self) -> bool:
        """Whether anything has been drawn: if not, another replication would be the same run again."""
        return self._generators > 0 or any(stream.drawn for stream in self._made.values())

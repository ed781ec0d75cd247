"""A rate a key, kept as one number: the moment from which the key has nothing left to wait for."""

from __future__ import annotations

from collections.abc import Sequence

from controllers.admission.amounts import USD, Of, Per, amounts, key_of
from glowsim.core.price import Price
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request, Usage

__all__ = ["ROUNDING_S", "Meter"]

ROUNDING_S = 1e-6
"""Whoever comes back after the wait that was stated must not be a rounding error early."""


class Meter(Stateful):
    """What `TokenBucket` and `Gcra` share: a moment a key, which an amount moves on by amount / rate.

    A key whose moment has passed says nothing, so it is forgotten when room is needed. While every key is
    in use, a new one is told to wait until a sixteenth of them will be free: looking for room costs as much
    as there are keys, so it is done at most once for every so many that find it.
    """

    state = ("_moment_s", "_room_s")

    def __init__(self, prices: Sequence[Price], *, rate_per_s: float, per: Per, of: Of, keys: int) -> None:
        self._amounts = amounts(of, prices)
        self._unit_s = 1.0 / rate_per_s / (USD if of == "usd" else 1)
        """Seconds that one of what is counted takes."""
        self._key = key_of(per)
        self._keys = keys
        self._spare = max(1, keys // 16)
        self._moment_s: dict[int, float] = {}
        self._room_s = 0.0
        """While every key is in use: there is no room before this moment."""

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        """Replace what was reserved by what was used; a request counts as one whatever became of it."""
        if self._amounts is not None:
            self._move(t_s, request, self._amounts.used(request, usage) - self._amounts.reserved(request))

    def withdraw(self, t_s: float, request: Request) -> None:
        """Take an admission back: another limit refused the request."""
        self._move(t_s, request, -1 if self._amounts is None else -self._amounts.reserved(request))

    def _move(self, t_s: float, request: Request, amount: int) -> None:
        key_of = self._key
        key = key_of(request)
        known_s = self._moment_s.get(key)
        moment_s = t_s if known_s is None or known_s < t_s else known_s
        moment_s += amount * self._unit_s
        if moment_s > t_s:
            self._moment_s[key] = moment_s
        elif known_s is not None:
            del self._moment_s[key]

    def _make_room(self, t_s: float) -> float:
        """Return 0 if there is room for another key now, or the seconds until there is."""
        if t_s < self._room_s:
            return self._room_s - t_s
        in_use = {key: moment_s for key, moment_s in self._moment_s.items() if moment_s > t_s}
        too_many = len(in_use) - (self._keys - self._spare)
        if too_many <= 0:
            self._moment_s, self._room_s = in_use, 0.0
            return 0.0
        self._room_s = sorted(in_use.values())[too_many - 1]
        return self._room_s - t_s

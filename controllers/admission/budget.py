"""A hard budget a key, in money or tokens, over a window that rolls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from math import fsum, inf
from typing import Annotated, Literal

from controllers.admission.amounts import USD, Per, amounts, key_of
from controllers.admission.meter import ROUNDING_S
from glowsim.core.errors import ControllerError
from glowsim.core.parameters import Bound, Count, Positive
from glowsim.core.price import Price
from glowsim.core.protocols import Spending
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request, Usage

__all__ = ["Budget"]

_SLOTS = 60
"""Slots a window: what was spent is forgotten a slot at a time."""


class Budget(Stateful):
    """Decides that what a key's requests cost never exceeds a limit, over any window of ``every_s``.

    Time is cut into slots of every_s / 60. A request reserves the most that it may cost in the slot of its
    admission, where settling replaces it by what it did cost; a slot counts until it has left the window as
    a whole, so for at most a sixtieth of a window too long::

        admit if  sum of the slots that began less than every_s + every_s / 60 ago + reserved <= limit

    Whole numbers are added up (tokens, or money in units of 1e-15 US dollars), so nothing is lost or gained
    in rounding. A request that uses more than it reserved is charged in full; then the limit is exceeded by
    the excess, and that is the only way. A retry is one: reserve for as many ``attempts`` as the retrier
    makes, and the promise holds.

    Parameters
    ----------
    prices
        Those of each agent's model, by the agent's number.
    limit
        US dollars, or tokens in and out, a window; above 0.
    every_s
        The window, at least 1 s: any that long, not those that a calendar begins.
    of
        What is counted.
    per
        Whose budget it is; all requests without a user, tenant or session (key 0) share one.
    attempts
        For how many attempts a request reserves, at least 1.
    keys
        Budgets that are remembered; while all are in use, a new key waits.

    Raises
    ------
    ControllerError
        A request is settled that is not open.

    Notes
    -----
    A request that reserves more than the limit is never admitted: its wait is inf. Otherwise the wait ends
    when enough of the slots have left the window, and what is settled for less only brings that forward.

    Known weakness: attempts on another model than the agent's own are charged at the agent's prices.

    >>> budget = Budget((), limit=1500, of="tokens", every_s=60)
    >>> first, second = Request(1, 0, 900, 100), Request(2, 0, 900, 100)
    >>> budget.admit(0.5, first), round(budget.admit(10.0, second), 3)
    (0.0, 51.0)
    >>> budget.settle(12.0, first, Usage(400, 0, 50)); budget.admit(12.0, second)
    0.0
    >>> budget.spending(12.0).spent, budget.spending(99.0).spent
    (((0, 1450.0),), ((0, 0.0),))
    """

    state = ("_keys", "_open")

    def __init__(
        self,
        prices: Sequence[Price],
        *,
        limit: Positive,
        every_s: Annotated[float, Bound(1.0)],
        of: Literal["tokens", "usd"] = "usd",
        per: Per = "agent",
        attempts: Count = 1,
        keys: Count = 10_000,
    ) -> None:
        counted = amounts(of, prices)
        assert counted is not None
        self._reserved, self._used = counted
        self._limit = int(limit * USD) if of == "usd" else int(limit)
        self._of, self._per = of, per
        self._slot_s = every_s / _SLOTS
        self._key = key_of(per)
        self._attempts = attempts
        self._most_keys = keys
        self._keys: OrderedDict[int, tuple[list[int], dict[int, int]]] = OrderedDict()
        """Key -> ([sum], slot -> what was spent or is reserved in it, oldest first); keys by their last slot."""
        self._open: dict[int, tuple[int, int]] = {}
        """Request -> the slot in which it was admitted, and what it reserves."""

    def admit(self, t_s: float, request: Request) -> float:
        """Return 0 to admit, or the seconds until the budget has room."""
        amount = self._attempts * self._reserved(request)
        limit = self._limit
        if amount > limit:
            return inf
        key_of = self._key
        key = key_of(request)
        slot = int(t_s // self._slot_s)
        known = self._keys.get(key)
        if known is None:
            if len(self._keys) >= self._most_keys:
                _, slots = next(iter(self._keys.values()))
                last = next(reversed(slots))
                if slot <= last + _SLOTS:
                    return self._wait_s(t_s, last)
                self._keys.popitem(last=False)
            self._keys[key] = ([amount], {slot: amount})
        else:
            total, slots = known
            spent = slots.get(slot)
            if spent is None:  # else what is over has gone, and the key is in its place
                while slots and (first := next(iter(slots))) + _SLOTS < slot:
                    total[0] -= slots.pop(first)
            excess = total[0] + amount - limit
            if excess > 0:
                return self._wait_s(t_s, _freed_by(slots, excess))
            total[0] += amount
            if spent is None:
                slots[slot] = amount
                self._keys.move_to_end(key)
            else:
                slots[slot] = spent + amount
        self._open[request[0]] = (slot, amount)
        return 0.0

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        """Replace what was reserved by what was used, unless that has left the window."""
        admitted = self._open.pop(request[0], None)
        if admitted is None:
            raise ControllerError(
                f"request {request[0]} is settled, but it is not open: admit first, settle once"
            )
        slot, reserved = admitted
        key_of = self._key
        known = self._keys.get(key_of(request))
        if known is not None and slot in known[1]:
            change = self._used(request, usage) - reserved
            known[0][0] += change
            known[1][slot] += change

    def spending(self, t_s: float) -> Spending:
        """Return what every key has spent or reserved in the window that ends at ``t_s``."""
        oldest, unit = int(t_s // self._slot_s) - _SLOTS, USD if self._of == "usd" else 1
        spent = [
            (key, fsum(amount / unit for slot, amount in slots.items() if slot >= oldest))
            for key, (_, slots) in self._keys.items()
        ]
        return Spending(self._of, self._per, self._limit / unit, self._slot_s * _SLOTS, tuple(spent))

    def _wait_s(self, t_s: float, slot: int) -> float:
        """Return the seconds until a slot has left the window."""
        return (slot + _SLOTS + 1) * self._slot_s - t_s + ROUNDING_S


def _freed_by(slots: dict[int, int], excess: int) -> int:
    """Return the slot with which, the oldest going first, so much has left the window."""
    left = iter(slots.items())
    at, spent = next(left)
    while spent < excess:
        excess -= spent
        at, spent = next(left)
    return at

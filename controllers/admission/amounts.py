"""What a limit counts, and whose it is: the two choices that all limiters share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from operator import itemgetter
from typing import Literal, NamedTuple

from glowsim.core.price import Price
from glowsim.core.types import Request, Usage

__all__ = ["USD", "Amounts", "Of", "Per", "amounts", "key_of"]

Per = Literal["agent", "user", "tenant", "session"]
"""Whose limit it is; all requests without a user, tenant or session (key 0) share one."""
Of = Literal["requests", "tokens", "usd"]
"""What is counted."""

USD = 10**15
"""Money is counted in whole numbers of 1e-15 US dollars, so that what was reserved and given back is gone."""


class Amounts(NamedTuple):
    """What a request may use at most, and what it used: whole tokens, or money in units of 1 / `USD`."""

    reserved: Callable[[Request], int]
    used: Callable[[Request, Usage], int]


def key_of(per: Per) -> Callable[[Request], int]:
    """Return the function that says whose a request is.

    >>> key_of("tenant")(Request(1, 0, 900, 100, tenant=7))
    7
    """
    return itemgetter(Request._fields.index(per))


def amounts(of: Of, prices: Sequence[Price]) -> Amounts | None:
    """Return how to count; None for requests, which are one each.

    A request reserves its input, at the dearer of the prices for fresh and cached tokens, and the most that
    may come out. Prices are rounded up to 1e-15 US dollars a token.

    Parameters
    ----------
    of
        What is counted.
    prices
        Those of each agent's model, by the agent's number; only money needs them.

    >>> money = amounts("usd", [Price(2e-6, 1e-6, 8e-6)])
    >>> money.reserved(Request(1, 0, 900, 100)) / USD, money.used(Request(1, 0, 900, 100), Usage(900, 400, 10)) / USD
    (0.0026, 0.00148)
    """
    if of == "requests":
        return None
    if of == "tokens":
        return _TOKENS
    costs = [tuple(ceil(usd * USD) for usd in price) for price in prices]
    dearest = [(max(fresh, cached), output) for fresh, cached, output in costs]

    def reserved(request: Request) -> int:
        of_input, of_output = dearest[request[1]]
        return request[2] * of_input + request[3] * of_output

    def used(request: Request, usage: Usage) -> int:
        fresh, cached, output = costs[request[1]]
        return (usage[0] - usage[1]) * fresh + usage[1] * cached + usage[2] * output

    return Amounts(reserved, used)


_TOKENS = Amounts(lambda request: request[2] + request[3], lambda request, usage: usage[0] + usage[2])

"""How many servers a large fleet needs."""

from __future__ import annotations

import math

__all__ = ["halfin_whitt_wait"]


def halfin_whitt_wait(load_erlangs: float, servers: int) -> float:
    """Give the chance to wait in a large M/M/c, by the square-root rule: an approximation of Erlang C.

    With beta = (c - a) / sqrt(a), 1 / (1 + beta Phi(beta) / phi(beta)).

    Raises ``ValueError`` unless 0 < ``load_erlangs`` < ``servers``.

    >>> f"{halfin_whitt_wait(100.0, 110):.6f}"
    '0.223361'

    Source: Halfin, Whitt (1981), Operations Research 29.
    """
    if not 0.0 < load_erlangs < servers:
        raise ValueError(f"halfin_whitt_wait: give {servers} servers a load above 0 and below that")
    beta = (servers - load_erlangs) / math.sqrt(load_erlangs)
    below = 0.5 * math.erfc(-beta / math.sqrt(2.0))
    density = math.exp(-0.5 * beta**2) / math.sqrt(2.0 * math.pi)
    return 1.0 / (1.0 + beta * below / density)

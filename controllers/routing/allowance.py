"""A hard cap on how many requests may go to the expensive model."""

from __future__ import annotations

from glowsim.core.snapshot import Stateful

__all__ = ["Allowance"]

_ROUNDING = 1e-9
"""Five requests worth a fifth of a call each are worth one."""


class Allowance(Stateful):
    """Decides that of n requests at most ``share * n + burst`` may go to the expensive model, for every n.

    Each request earns ``share`` of a call, up to ``burst`` calls are kept for later, and a call takes one: the token
    bucket, with requests for its clock.

    Parameters
    ----------
    share
        Calls as a share of the requests, 0 to 1.
    burst
        Calls that may be saved up, at least 1; they are there at the start.

    >>> allowance = Allowance(share=0.5, burst=1)
    >>> [(allowance.earn(), allowance.spend())[1] for _ in range(4)]
    [True, False, True, False]
    """

    state = ("_left",)

    def __init__(self, share: float, burst: int) -> None:
        self._share = share
        self._burst = float(burst)
        self._left = self._burst

    def earn(self) -> None:
        """Take in that a request came."""
        left = self._left + self._share
        self._left = left if left < self._burst else self._burst

    def spend(self) -> bool:
        """Return whether a call may be made, and take it."""
        if self._left < 1.0 - _ROUNDING:
            return False
        self._left = max(self._left - 1.0, 0.0)
        return True

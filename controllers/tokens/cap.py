"""Caps on tokens."""

from __future__ import annotations

from glowsim.core.parameters import Count
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Plan, Request

__all__ = ["TokenCap"]

_new = tuple.__new__


class TokenCap(Stateful):
    """Decides that no more than so many tokens go in, and that no more than so many may come out.

    What goes in is a sliding window: the last ``max_tokens_in`` tokens are kept.

    Parameters
    ----------
    max_tokens_out
        Output tokens that are allowed at most.
    max_tokens_in
        Input tokens that are kept at most.

    >>> cap = TokenCap(max_tokens_out=256, max_tokens_in=4000)
    >>> cap.plan(0.0, Request(1, 0, 9000, 100), Plan(0, 0, 9000, 100))
    Plan(model=0, variant=0, tokens_in=4000, max_tokens_out=100)
    """

    def __init__(self, *, max_tokens_out: Count = 1024, max_tokens_in: Count = 100_000) -> None:
        self._max_tokens_out = max_tokens_out
        self._max_tokens_in = max_tokens_in

    def plan(self, t_s: float, request: Request, plan: Plan) -> Plan:
        """Return the plan within the caps; it is the same object where they change nothing."""
        model, variant, tokens_in, max_tokens_out = plan
        most_in, most_out = self._max_tokens_in, self._max_tokens_out
        if tokens_in > most_in:
            tokens_in = most_in
        elif max_tokens_out <= most_out:
            return plan
        if max_tokens_out > most_out:
            max_tokens_out = most_out
        return _new(Plan, (model, variant, tokens_in, max_tokens_out))

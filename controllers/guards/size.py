"""A limit on the size of a request."""

from __future__ import annotations

from glowsim.core.parameters import Count
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Code, Reason, Request

__all__ = ["SizeGuard"]


class SizeGuard(Stateful):
    """Decides that a request with too many input tokens is turned away before it costs anything.

    Parameters
    ----------
    max_tokens_in
        Input tokens that are still allowed; the model's context window is the natural choice.

    >>> guard = SizeGuard(max_tokens_in=1000)
    >>> guard.check(0.0, Request(1, 0, 1000, 100)) is None
    True
    >>> guard.check(0.0, Request(2, 0, 1001, 100)).code.name
    'TOO_LARGE'
    """

    def __init__(self, *, max_tokens_in: Count = 200_000) -> None:
        self._max_tokens_in = max_tokens_in

    def check(self, t_s: float, request: Request) -> Reason | None:
        """Return why to reject the request, or None to let it in."""
        if request[2] <= self._max_tokens_in:
            return None
        return Reason(Code.TOO_LARGE, a=request.tokens_in, b=self._max_tokens_in)

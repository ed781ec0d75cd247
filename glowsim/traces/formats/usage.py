"""What several formats have in common: tokens that count others twice or not at all, and first tokens."""

from __future__ import annotations

from typing import Final

from glowsim.traces.values import Instant, duration_s

__all__ = ["first_token", "inclusive"]

_ADDED: Final = "tokens_in was less than its cached parts, which were added to it"
_LATE: Final = "the first token came after the end, and was left out"


def inclusive(
    tokens_in: float | None, cached: float | None, written: float | None
) -> tuple[float | None, tuple[str, ...]]:
    """Return the input tokens with those read from and written to the prompt cache, and a note if any were added.

    Providers differ: for most the cached tokens are part of the input, Anthropic counts them beside it. A whole
    that is smaller than its parts can only be of the second kind.

    >>> inclusive(31.0, 0.0, 1253.0)[0], inclusive(2000.0, 0.0, 1253.0)[0]
    (1284.0, 2000.0)
    """
    parts = (cached or 0.0) + (written or 0.0)
    if tokens_in is None or tokens_in >= parts:
        return tokens_in, ()
    return tokens_in + parts, (_ADDED,)


def first_token(
    start: Instant, first: Instant | None, latency_s: float | None
) -> tuple[float | None, tuple[str, ...]]:
    """Return the seconds until the first token, and a note if it cannot be, coming after the last.

    >>> start = Instant(0, True)
    >>> first_token(start, Instant(500_000_000, True), 2.0), first_token(start, None, 2.0)
    ((0.5, ()), (None, ()))
    """
    first_token_s = duration_s(start, first, "the first token")
    if first_token_s is not None and latency_s is not None and first_token_s > latency_s:
        return None, (_LATE,)
    return first_token_s, ()

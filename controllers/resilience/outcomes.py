"""What an attempt's end says about its instance."""

from __future__ import annotations

from typing import Final

from glowsim.core.types import Outcome

__all__ = ["BAD", "GOOD", "MEANING", "NEITHER", "UNREACHED"]

GOOD: Final = 0
"""It answered: with a result (OK), or by refusing the task itself (INVALID)."""
BAD: Final = 1
"""It was reached, or may have been, and did not do the work: ERROR, TIMEOUT, LOST."""
UNREACHED: Final = 2
"""There was no connection: UNREACHABLE."""
NEITHER: Final = 3
"""It says nothing about its health: THROTTLED (it asked for patience), CANCELLED (we did)."""

_MEANING: Final = {
    Outcome.OK: GOOD,
    Outcome.ERROR: BAD,
    Outcome.UNREACHABLE: UNREACHED,
    Outcome.THROTTLED: NEITHER,
    Outcome.INVALID: GOOD,
    Outcome.TIMEOUT: BAD,
    Outcome.CANCELLED: NEITHER,
    Outcome.LOST: BAD,
}
MEANING: Final = tuple(_MEANING[outcome] for outcome in Outcome)
"""By outcome: a place in a tuple costs less than an enumeration's hash, and each attempt is looked up."""

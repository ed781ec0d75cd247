"""What is wrong with the input of a paired replay."""

from __future__ import annotations

from glowsim.core.errors import GlowsimError

__all__ = ["PairsError"]


class PairsError(GlowsimError):
    """Tasks, results or options that cannot be used; names the place and the remedy."""

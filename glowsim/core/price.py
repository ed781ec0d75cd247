"""What a model's tokens cost: the one place where usage becomes money.

Only the invariant I7 (`glowsim.core.checking.runs.ledger`) and the ledger by parts (`glowsim.ledger`) multiply for
themselves: the one to check this sum, the other to split it.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Price"]


class Price(NamedTuple):
    """US dollars per token of a model.

    >>> Price(input_usd=1.5e-7, cached_usd=7.5e-8, output_usd=6e-7).cached_usd
    7.5e-08
    """

    input_usd: float
    """Of input that the model had to read."""
    cached_usd: float
    """Of input that it found in its cache."""
    output_usd: float

    def cost_usd(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        """Return what a use costs; of columns (`glowsim.results.costs_usd`), what each costs.

        Parameters
        ----------
        tokens_in
            All tokens of the input, 0 or more.
        tokens_cached
            Those of them that were found in the cache.
        tokens_out
            Tokens of the answer, 0 or more.

        >>> Price(2.0, 0.5, 8.0).cost_usd(10, 4, 3)
        38.0
        """
        return (
            self.input_usd * (tokens_in - tokens_cached)
            + self.cached_usd * tokens_cached
            + self.output_usd * tokens_out
        )

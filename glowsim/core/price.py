"""What a model's tokens cost."""

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

"""What a foreign metric measures, told from counts: the link between their numbers and our streams of bad outcomes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from glowsim.oc.rules import Floats, Ints

__all__ = ["SPELLINGS", "Reading"]

SPELLINGS: Final = (
    "errors, errors_percent, success, success_percent, latency_p99 (or another percentile), ignore"
)
"""How a person says what a metric measures."""

_LATENCY = re.compile(r"latency_p(\d{1,2}(?:\.\d+)?)\Z")


@dataclass(frozen=True, slots=True)
class Reading:
    """How a metric's value follows from requests and bad outcomes in its window.

    Args:
        stream: which stream of bad outcomes: ``errors`` or ``latency``.
        good: the value is the share of requests that ended well, not of those that did not.
        percent: the value is 0 to 100, not 0 to 1.
        percentile: for ``latency``: which percentile of the latency the metric is, 0 to 100. The stream says of each
            request whether it was slower than the metric's own bound, so the percentile is above the bound exactly if
            more than 100 - ``percentile`` per cent were; the value is then infinity, else 0.

    >>> Reading.parse("success_percent").value(np.array([200, 0]), np.array([3, 0]))
    array([98.5,  nan])
    >>> Reading.parse("latency_p99").value(np.array([200, 200]), np.array([2, 3]))
    array([ 0., inf])
    """

    stream: str
    good: bool = False
    percent: bool = False
    percentile: float | None = None

    @classmethod
    def parse(cls, text: str) -> Reading | None:
        """Read one of ``SPELLINGS``; None for ``ignore``.

        Raises:
            ValueError: it is none of them.
        """
        if text == "ignore":
            return None
        if text in ("errors", "errors_percent", "success", "success_percent"):
            return cls("errors", good=text.startswith("success"), percent=text.endswith("_percent"))
        latency = _LATENCY.match(text)
        if latency is None:
            raise ValueError(f"{text!r} is no reading: write one of {SPELLINGS}")
        return cls("latency", percentile=float(latency[1]))

    def value(self, requests: Ints, bad: Ints) -> Floats:
        """Return the metric's value; NaN where there was no request.

        Args:
            requests: requests in the window, any shape, >= 0.
            bad: bad outcomes among them, the same shape.
        """
        n = np.asarray(requests, np.float64)
        share: Floats = np.divide(bad, n, out=np.full(n.shape, np.nan), where=n > 0)
        if self.percentile is not None:
            slow = share > 1.0 - self.percentile / 100.0 + 1e-12
            return np.where(np.isnan(share), np.nan, np.where(slow, np.inf, 0.0))
        if self.good:
            share = 1.0 - share
        return share * 100.0 if self.percent else share

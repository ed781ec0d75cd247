"""What a rollout policy is to ``glowsim oc``: it is shown counts at every look, and sets weights and decides.

Time is cut into looks of ``look_s``. Bucket b holds the requests assigned in [b, b + 1) looks, under one weight;
look j happens at j looks since the rollout began. At look j = 1, 2, ... every campaign that still runs is shown
bucket j - 1 as it was assigned, and bucket j - 1 - lag with its outcomes, and then has its weight for bucket j.

Everything is arrays over campaigns, and campaigns are always the **last axis**; no loop runs over them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "BASELINE",
    "CANARY",
    "GUARDRAILS",
    "Bools",
    "Course",
    "Floats",
    "Ints",
    "Known",
    "Rows",
    "Rule",
    "Status",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BASELINE: Final = 0
CANARY: Final = 1
GUARDRAILS: Final = ("errors", "latency", "cost", "quality", "complaints")
"""The streams of bad outcomes that there are; a rule names those that it looks at."""


class Status(IntEnum):
    """Where a campaign stands. All but ``RUNNING`` are for good: the campaign is over."""

    RUNNING = 0
    PROMOTED = 1
    ROLLED_BACK = 2
    HELD = 3
    """It waits for a person: inconclusive, paused, out of time."""


class Known(NamedTuple):
    """A bucket with its outcomes.

    Parameters
    ----------
    requests
        Requests by arm, shape (2, campaigns): ``BASELINE``, ``CANARY``.
    bad
        Bad outcomes by guardrail of the rule and arm, shape (guardrails, 2, campaigns).
    """

    requests: Ints
    bad: Ints


class Rows:
    """Arrays over campaigns: every attribute that is an array has the campaigns as its last axis."""

    def keep(self, rows: Bools) -> None:
        """Forget campaigns: those that ``rows``, shape (campaigns,), does not say."""
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, value[..., rows])
            elif isinstance(value, Rows):
                value.keep(rows)


class Course(Rows):
    """A rule at work on many campaigns at once. A subclass sets its arrays, calls ``super().__init__`` and decides.

    What is the same for all campaigns is no array, or belongs to the rule. A campaign that is over may be shown more
    for a while, before it is forgotten; what is made of that counts no more.

    Parameters
    ----------
    campaigns
        How many.
    weight
        Share of the requests that the new version gets at first, 0 to 1.
    """

    def __init__(self, campaigns: int, weight: float) -> None:
        self.weight: Floats = np.full(campaigns, weight)
        """Share of the new version in the next bucket, shape (campaigns,)."""
        self.status: npt.NDArray[np.int8] = np.zeros(campaigns, np.int8)
        """A ``Status`` for each, shape (campaigns,)."""
        self.effective: Floats | None = None
        """Where units are sticky, how many there are by arm, shape (2, campaigns): (sum of n)^2 / sum of n^2 over the
        requests n that each unit has had in this stage, those without an outcome yet included."""

    def take(self, look: int, assigned: Ints, known: Known | None) -> None:
        """Take in what there is at a look, and set ``weight`` and ``status``.

        Parameters
        ----------
        look
            Its number: 1, 2, ...; it happens at ``look * look_s`` seconds since the rollout began.
        assigned
            Units that were new to their stage in bucket look - 1, by arm, shape (2, campaigns): its requests, where the
            unit is the request.
        known
            Bucket look - 1 - lag with its outcomes, where lag is the rule's ``maturity_s`` or the delay of the
            labels, whichever is longer, in whole looks; None while there is no such bucket. A rule that looks at the
            last interval of its metrics (Argo, Flagger) finds it here.
        """
        raise NotImplementedError


class Rule(Protocol):
    """A rollout policy with its settings; it holds no state of a campaign."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    @property
    def look_s(self) -> float:
        """Seconds from look to look, above 0."""

    @property
    def maturity_s(self) -> float:
        """Seconds after which a bucket's outcomes are taken in; 0: at once."""

    @property
    def guardrails(self) -> tuple[str, ...]:
        """Which of ``GUARDRAILS`` it looks at, at least one, in the order of ``Known.bad``."""

    @property
    def schedule_s(self) -> float:
        """Seconds until the new version has all the traffic if nothing holds the rollout up."""

    @property
    def alpha(self) -> float | None:
        """The rate of false rollbacks that it promises; None: it promises nothing."""

    def start(self, campaigns: int) -> Course:
        """Return the rule at the beginning of so many campaigns."""

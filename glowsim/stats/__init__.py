"""Statistics that keep their promises: pure functions of numbers and arrays, one idea a file.

- ``intervals``: t intervals over replications, Wilson intervals of counts, paired differences.
- ``verdict``: a service level is met, not met, or undecided.
- ``quantiles``: intervals of percentiles over replications.
- ``warmup``: where the start-up bias of a long run ends.
- ``queueing``: closed-form answers that a simulation can be held against.
- ``oracles``: more of them, a subject a file: priorities, networks, batches, caches, charts, samples.

A replication, never a request, is the unit of evidence: requests of one run wait behind each other, and an
interval that takes them for independent covers the truth far less often than it says.
"""

from glowsim.stats.intervals import (
    Interval,
    paired_difference,
    required_replications,
    t_interval,
    wilson,
)
from glowsim.stats.quantiles import quantile_interval, replication_quantiles
from glowsim.stats.verdict import Verdict, judge, judge_proportion, overall
from glowsim.stats.warmup import WarmUp, mser5

__all__ = [
    "Interval",
    "Verdict",
    "WarmUp",
    "judge",
    "judge_proportion",
    "mser5",
    "overall",
    "paired_difference",
    "quantile_interval",
    "replication_quantiles",
    "required_replications",
    "t_interval",
    "wilson",
]

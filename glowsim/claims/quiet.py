"""Which policies can matter at a fleet's traffic: arithmetic, before anything is simulated.

All of it takes Poisson arrivals. Rates are tasks a second; tasks of one agent, or of all agents that are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

__all__ = [
    "MATTERS", "NOT", "POOLED", "Matter", "Parameters", "arrives_within", "at_least", "detectable", "late_share",
    "repeats_found", "tasks_for_a_level", "tasks_to_compare", "up_share", "utilisation", "which_matter",
]  # fmt: skip

MATTERS, POOLED, NOT = "matters", "only pooled", "does not matter"
_DAY_S: Final = 86_400.0
_MONTH_S: Final = 30 * _DAY_S
_quantile = NormalDist().inv_cdf


class Parameters(NamedTuple):
    """What the table is computed from."""

    agents: float
    """All of them, idle ones included."""
    active: float
    """Those that get tasks, all alike."""
    tasks_per_day: float
    """Of the fleet, on average over the month."""
    peak: float
    """Rate in the busiest hours over the average one."""
    service_s: float
    """Mean time of a task."""
    slots: float
    """Tasks that an instance serves at once."""
    instances: float
    """Of an agent, always there."""
    instance_usd_per_hour: float
    bill_usd: float
    """Of a month."""
    scale_up: float
    """Utilisation above which instances are added."""
    idle_s: float
    """Time without a task after which the last instance goes."""
    startup_s: float
    """Time until an instance is ready."""
    prompt_cache_s: float
    """For which a provider keeps a prompt."""
    ttl_s: float
    """For which an answer is kept."""
    repeats: float
    """Share of the tasks that repeat one of an agent's known prompts."""
    prompts: float
    """How many of these there are."""
    zipf: float
    """Exponent of their popularity."""
    failures: float
    """In a row on an instance, after which its breaker opens."""
    outage_s: float
    """Length of an outage of the provider."""
    error_rate: float
    canary: float
    """Its share of the traffic."""
    test_sample: float
    """Tasks of an A/B test, both halves together."""
    accuracy: float
    drop: float
    """A fall of the accuracy that must be noticed, in shares of all tasks."""
    labelled: float
    """Share of the tasks of whose outcome anything is heard."""
    health_check_s: float
    probe_usd: float
    """Price of a probe that asks the model."""
    touched: float
    """Share of the tasks, or of the bill, from which on a policy is said to matter."""
    patience_days: float
    """Time in which a test must come to an end to be of use."""


class Matter(NamedTuple):
    """A policy, what it needs, what there is, and whether that is enough."""

    policy: str
    needs: str
    one: str
    """What one agent has."""
    pooled: str
    """What all active agents have together."""
    verdict: str


def utilisation(rate_per_s: float, service_s: float, slots: float) -> float:
    """Return the share of an instance's slots that is at work: rate x service / slots.

    >>> utilisation(2.0, 3.0, 8)
    0.75
    """
    return rate_per_s * service_s / slots


def arrives_within(rate_per_s: float, seconds: float) -> float:
    """Return the chance that a task arrives within some seconds: 1 - exp(-rate x seconds).

    Looking back it is the chance that the last one came within them: that its prompt is still cached (seconds: how
    long it is kept), or that it is still in service (seconds: a constant time of service).

    >>> round(arrives_within(1 / 300, 300.0), 4)
    0.6321
    """
    return 1.0 - exp(-rate_per_s * seconds)


def at_least(many: int, mean: float) -> float:
    """Return the chance that a Poisson number with this mean is at least so large: how often so much is at work.

    >>> round(at_least(2, 1.0), 4)
    0.2642
    """
    term, below = exp(-mean), [0.0]
    for number in range(many):
        below.append(term)
        term *= mean / (number + 1)
    return max(0.0, 1.0 - fsum(below))


def repeats_found(rate_per_s: float, share: float, prompts: int, zipf: float, ttl_s: float) -> float:
    """Return the share of all tasks that a cache of answers without limit answers.

    Prompt i is asked at r(i) = rate x share x p(i), p by Zipf's law; an answer is kept for ttl from when it was
    made, so of these r ttl / (1 + r ttl) hit.

    Parameters
    ----------
    rate_per_s
        Of all tasks.
    share
        Of them that repeat one of the prompts, 0 to 1.
    prompts
        How many there are, at least 1.
    zipf
        Exponent, 0 or more; 0: all alike.
    ttl_s
        How long an answer is kept, in seconds.

    >>> repeats_found(1.0, 1.0, 1, 0.0, 3.0)
    0.75
    """
    weights = [rank**-zipf for rank in range(1, prompts + 1)]
    total = fsum(weights)
    found = []
    for weight in weights:
        asked = rate_per_s * share * weight / total
        found.append(share * weight / total * asked * ttl_s / (1.0 + asked * ttl_s))
    return fsum(found)


def tasks_to_compare(
    rate: float, other: float, share: float, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Return how many tasks the smaller part of a split must see to tell two rates of errors apart.

    n = (z(1-alpha) sqrt(m (1-m) (1 + 1/k)) + z(power) sqrt(q (1-q) + p (1-p) / k))**2 / (q - p)**2 with k = (1 -
    share) / share tasks of the larger part for each of the smaller, and m the rate of both together: the normal
    approximation, one-sided.

    Parameters
    ----------
    rate, other
        p in the larger part and q in the smaller, above 0 and below 1, not equal.
    share
        Of the smaller part, above 0 and at most 0.5.
    alpha, power
        Chance of an alarm where nothing is wrong, and of one where something is.

    Notes
    -----
    Fleiss, Levin and Paik, "Statistical Methods for Rates and Proportions", 3rd edition, 2003, section 4.5.

    >>> round(tasks_to_compare(0.1, 0.2, 0.5))
    157
    """
    k = (1.0 - share) / share
    mean = (other + k * rate) / (1.0 + k)
    false = _quantile(1.0 - alpha) * sqrt(mean * (1.0 - mean) * (1.0 + 1.0 / k))
    missed = _quantile(power) * sqrt(other * (1.0 - other) + rate * (1.0 - rate) / k)
    return ((false + missed) / (other - rate)) ** 2


def detectable(rate: float, tasks: float, share: float) -> float:
    """Return the rate, above this one, that a split can tell from it once its smaller part has seen so many tasks.

    The solution of `tasks_to_compare` = tasks; 1 where even that takes more.

    >>> round(detectable(0.1, 157, 0.5), 2)
    0.2
    """
    low, high = rate, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle == rate or tasks_to_compare(rate, middle, share) > tasks:
            low = middle
        else:
            high = middle
    return high


def tasks_for_a_level(level: float, drop: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return how many tasks whose outcome is known show that a share has fallen below a level that is known.

    n = (z(1-alpha) sqrt(p (1-p)) + z(power) sqrt(q (1-q)))**2 / drop**2 with p the level and q = p - drop.

    >>> round(tasks_for_a_level(0.9, 0.1))
    69
    """
    now = level - drop
    spread = _quantile(1.0 - alpha) * sqrt(level * (1.0 - level)) + _quantile(power) * sqrt(now * (1.0 - now))
    return (spread / drop) ** 2


def up_share(rate_per_s: float, idle_s: float, startup_s: float) -> float:
    """Return the share of the time in which one instance is there that goes after an idle time.

    A run of tasks none of which is followed by a gap as long as idle lasts (exp(rate idle) - 1) / rate on average,
    that gap's first part included; then nobody is there for 1 / rate.

    >>> up_share(1 / 600, 600.0, 0.0) == arrives_within(1 / 600, 600.0)
    True
    """
    short = exp(-rate_per_s * idle_s)
    there = 1.0 - short + rate_per_s * startup_s * short
    return there / (there + short)


def late_share(tasks: float, failures: float) -> float:
    """Return the share of an outage's tasks that come after its first failures: those that a breaker can spare.

    >>> late_share(20.0, 5.0), late_share(3.0, 5.0)
    (0.75, 0.0)
    """
    return max(0.0, 1.0 - failures / tasks)


def which_matter(p: Parameters) -> list[Matter]:
    """Return the table: for each policy what it needs, what one agent and what the pooled fleet has of it.

    Shares of tasks are those of the busiest hours, the best case for every policy; durations of tests and monthly
    costs are of the average.
    """
    fleet = p.tasks_per_day / _DAY_S
    mean, busy = fleet / p.active, fleet * p.peak / p.active
    return [*_of_load(p, busy), *_of_caches(p, busy), *_of_tests(p, mean), *_of_instances(p, mean, busy)]


def _of_load(p: Parameters, busy: float) -> list[Matter]:
    rates, room = (busy, busy * p.active), round(p.instances * p.slots)
    used = [utilisation(rate, p.service_s, p.slots) for rate in rates]
    beside = [arrives_within(rate, p.service_s) for rate in rates]
    full = [at_least(room, rate * p.service_s) for rate in rates]
    during = [rate * p.outage_s for rate in rates]
    spared = [late_share(tasks, p.failures * p.instances) for tasks in during]
    outage = f"tasks of an outage of {_time(p.outage_s)} after {p.failures:g} on each instance"
    return [
        _row("scaling out", f"one instance more than {_share(p.scale_up)} busy", used, p.scale_up),
        _row("load balancing", "another task at work when one comes", beside, p.touched),
        _row("order and fairness of a queue", f"all {room} slots taken", full, p.touched),
        _row(
            "circuit breaker", outage, spared, p.touched,
            [f"{_share(share)} of {tasks:.0f} tasks" for share, tasks in zip(spared, during, strict=True)],
        ),
    ]  # fmt: skip


def _of_caches(p: Parameters, busy: float) -> list[Matter]:
    rates = busy, busy * p.active
    warm = [arrives_within(rate, p.prompt_cache_s) for rate in rates]
    hits = [repeats_found(rate, p.repeats, round(p.prompts), p.zipf, p.ttl_s) for rate in rates]
    gaps = [f"{_share(share)}; a gap of {_time(1 / rate)}" for share, rate in zip(warm, rates, strict=True)]
    kept = f"a task within {_time(p.prompt_cache_s)} of the last, with the same instructions"
    return [
        _row("prompt cache", kept, warm, p.touched, gaps),
        _row("cache of answers", f"the same question again within {_time(p.ttl_s)}", hits, p.touched),
    ]


def _of_tests(p: Parameters, mean: float) -> list[Matter]:
    per_day = [mean * _DAY_S, mean * p.active * _DAY_S]
    twice = tasks_to_compare(p.error_rate, 2 * p.error_rate, p.canary)
    noticed = tasks_for_a_level(p.accuracy, p.drop)
    wrong = 1.0 - p.accuracy
    apart = detectable(wrong, p.test_sample / 2, 0.5) - wrong
    canary = [twice / (p.canary * tasks) for tasks in per_day]
    test = [p.test_sample / tasks for tasks in per_day]
    drift = [noticed / (p.labelled * tasks) for tasks in per_day]
    a_day = [
        f"{_days(days)}; a day shows it {p.canary * tasks:.2g}, from which "
        f"{_seen(detectable(p.error_rate, p.canary * tasks, p.canary))}"
        for days, tasks in zip(canary, per_day, strict=True)
    ]
    doubled = f"{twice:.0f} tasks, to see errors double from {_share(p.error_rate)}"
    tested = f"{p.test_sample:.0f} tasks, to see {100 * apart:.1f} points of accuracy"
    rated = (
        f"{noticed:.0f} ratings, by {_share(p.labelled)} of the users, to see {100 * p.drop:g} points lost"
    )
    return [
        _row(f"canary of {_share(p.canary)}", doubled, _in_time(canary, p), 1.0, a_day),
        _row("A/B test", tested, _in_time(test, p), 1.0, [_days(days) for days in test]),
        _row("drift detection", rated, _in_time(drift, p), 1.0, [_days(days) for days in drift]),
    ]


def _of_instances(p: Parameters, mean: float, busy: float) -> list[Matter]:
    hour_usd = p.instance_usd_per_hour * _MONTH_S / 3600
    always, pool = p.agents * p.instances * hour_usd, p.instances * hour_usd
    needed = max(up_share(mean, p.idle_s, p.startup_s), utilisation(mean, p.service_s, p.slots))
    to_zero = p.active * needed * hour_usd
    waits = 1.0 - arrives_within(busy, p.idle_s)
    probes, tasks = p.instances * _MONTH_S / p.health_check_s, mean * p.active * _MONTH_S
    probed = [probes * p.agents, probes]
    saved = [
        f"saves ${always - to_zero:,.0f} of ${always:,.0f}; {_share(waits)} of the tasks wait for a start",
        f"{p.instances:g} instances for all: saves ${always - pool:,.0f} without a wait",
    ]
    asked = [
        f"{each / tasks:,.1f} for each task; ${each * p.probe_usd:,.0f} if they ask the model"
        for each in probed
    ]
    part = f"{_share(p.touched)} of ${p.bill_usd:,.0f} a month"
    return [
        _row("scaling to zero", part, [_of_bill(p, always - each) for each in (to_zero, pool)], p.touched, saved),
        _row(
            f"cost of health checks every {_time(p.health_check_s)}", part,
            [_of_bill(p, each * p.probe_usd) for each in probed], p.touched, asked,
        ),
    ]  # fmt: skip


def _of_bill(p: Parameters, usd: float) -> float:
    return usd / p.bill_usd


def _row(
    policy: str, needs: str, shares: Sequence[float], enough: float, said: Sequence[str] | None = None
) -> Matter:
    one, pooled = said or [_share(share) for share in shares]
    verdict = MATTERS if shares[0] >= enough else POOLED if shares[1] >= enough else NOT
    return Matter(policy, needs, one, pooled, verdict)


def _in_time(days: Sequence[float], p: Parameters) -> list[float]:
    return [p.patience_days / each for each in days]


def _share(share: float) -> str:
    if share < 1e-6:
        return "0 %"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:,.0f} %"


def _seen(rate: float) -> str:
    return f"errors of {_share(rate)} and more are seen" if rate < 1.0 else "nothing is seen"


def _days(days: float) -> str:
    return f"{days:,.0f} days" if days >= 10 else f"{days:.2g} days"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

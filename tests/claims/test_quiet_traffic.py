"""Which policies can matter: each number against arithmetic by hand, another implementation, or a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from glowsim.claims import quiet
from glowsim.claims.command import BUNDLED
from glowsim.claims.document import Claims
from glowsim.claims.quiet import MATTERS, NOT, POOLED, which_matter
from glowsim.resources import resource
from glowsim.scenario import load
from glowsim.scenario.loader import load_as

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def phase_5():
    return load_as(Claims, BUNDLED)


@pytest.fixture(scope="module")
def numbers(phase_5):
    return phase_5.parameters()


# --- the formulas --------------------------------------------------------------------------------------


def test_one_agents_day_by_hand():
    rate = 42_000 / 30 / 45 / DAY_S
    assert 1 / rate / 60 == pytest.approx(46.29, abs=0.01), "minutes between two tasks"
    assert quiet.utilisation(rate, 3.2, 4) == pytest.approx(31.11 * 3.2 / 86_400 / 4, rel=1e-3)
    assert quiet.arrives_within(rate, 300.0) == pytest.approx(1 - math.exp(-300 / 2777), abs=1e-4)


@given(st.integers(0, 30), st.floats(0.001, 20.0))
@settings(derandomize=True, deadline=None)
def test_so_many_at_once_is_poissons_tail(many, mean):
    assert quiet.at_least(many, mean) == pytest.approx(stats.poisson.sf(many - 1, mean), abs=1e-12)


def test_repeats_are_what_a_cache_of_one_key_finds():
    """Keys at Poisson times, kept from when they were made: counted one by one."""
    rng = np.random.default_rng(3)
    rate, share, ttl_s, n = 0.01, 0.4, 900.0, 200_000
    weights = np.array([1.0, 0.5]) / 1.5
    made, hits = [-math.inf, -math.inf], 0
    for t_s, which in zip(
        np.cumsum(rng.exponential(1 / (rate * share), n)), rng.choice(2, n, p=weights), strict=True
    ):
        if t_s - made[which] < ttl_s:
            hits += 1
        else:
            made[which] = t_s
    assert quiet.repeats_found(rate, share, 2, 1.0, ttl_s) == pytest.approx(share * hits / n, rel=0.01)


def test_more_time_to_live_finds_no_more_than_repeats():
    assert quiet.repeats_found(1.0, 0.3, 200, 0.9, 1e12) == pytest.approx(0.3)
    assert quiet.repeats_found(1.0, 0.3, 200, 0.9, 1e-12) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("rate", "other", "share"), [(0.031, 0.062, 0.05), (0.1, 0.2, 0.5), (0.04, 0.08, 0.2)]
)
def test_a_test_of_that_size_finds_it_four_times_in_five(rate, other, share):
    """Many tests, each with the z test of two shares; nothing is found in one of twenty where nothing is."""
    k = (1 - share) / share
    n = math.ceil(quiet.tasks_to_compare(rate, other, share))
    rng = np.random.default_rng(5)

    def found(truth):
        few, many = rng.binomial(n, truth, 40_000) / n, rng.binomial(round(n * k), rate, 40_000) / (n * k)
        mean = (few + k * many) / (1 + k)
        return np.mean((few - many) / np.sqrt(mean * (1 - mean) / n * (1 + 1 / k)) > stats.norm.ppf(0.95))

    assert found(other) == pytest.approx(0.8, abs=0.03)
    assert found(rate) == pytest.approx(0.05, abs=0.02)


@given(st.floats(0.01, 0.3), st.floats(20, 50_000), st.sampled_from([0.05, 0.2, 0.5]))
@settings(derandomize=True, deadline=None)
def test_what_can_be_detected_takes_as_many_tasks(rate, tasks, share):
    seen = quiet.detectable(rate, tasks, share)
    assert rate < seen <= 1.0
    if seen < 0.999:
        assert quiet.tasks_to_compare(rate, seen, share) == pytest.approx(tasks, rel=1e-3)


def test_a_fall_below_a_known_level_is_found_four_times_in_five():
    n = round(quiet.tasks_for_a_level(0.96, 0.08))
    limit = stats.norm.ppf(0.05) * math.sqrt(0.96 * 0.04 / n) + 0.96
    power = stats.binom.cdf(math.floor(limit * n), n, 0.88)
    assert power == pytest.approx(0.8, abs=0.08), "an exact binomial is a ladder of steps"


def test_an_instance_that_goes_when_idle_is_there_as_long_as_a_walk_says():
    rng = np.random.default_rng(7)
    rate, idle_s, startup_s = 1 / 2777, 600.0, 26.0
    gaps = rng.exponential(1 / rate, 400_000)
    there = np.minimum(gaps, idle_s).sum() + startup_s * (gaps > idle_s).sum()
    total = gaps.sum() + startup_s * (gaps > idle_s).sum()
    assert quiet.up_share(rate, idle_s, startup_s) == pytest.approx(there / total, rel=0.01)
    assert 24 * quiet.up_share(31 / DAY_S, 600.0, 26.0) == pytest.approx(4.9, abs=0.15), (
        "as quiet_fleet has it"
    )


# --- the table -----------------------------------------------------------------------------------------


def verdicts(numbers):
    return {each.policy: each.verdict for each in which_matter(numbers)}


def test_at_31_tasks_a_day_most_policies_need_the_whole_fleet(numbers):
    assert verdicts(numbers) == {
        "scaling out": NOT,
        "load balancing": POOLED,
        "order and fairness of a queue": NOT,
        "circuit breaker": POOLED,
        "prompt cache": MATTERS,
        "cache of answers": POOLED,
        "canary of 5 %": POOLED,
        "A/B test": POOLED,
        "drift detection": POOLED,
        "scaling to zero": MATTERS,
        "cost of health checks every 30 s": MATTERS,
    }


def test_with_4000_times_the_traffic_every_policy_matters(numbers):
    busy = numbers._replace(tasks_per_day=4000 * numbers.tasks_per_day)
    assert set(verdicts(busy).values()) == {MATTERS}
    to_zero = next(each for each in which_matter(busy) if each.policy == "scaling to zero")
    at_work = 4000 * 1400 / DAY_S * 3.2 / 4 * 36
    assert to_zero.one.startswith(f"saves ${3672 - at_work:,.0f} of $3,672; 0 % "), (
        "what is busy is not switched off"
    )


def test_of_an_outage_a_breaker_spares_what_comes_after_it_has_opened(numbers):
    assert quiet.late_share(255, 10) == pytest.approx(245 / 255)
    row = next(each for each in which_matter(numbers) if each.policy == "circuit breaker")
    assert (row.one, row.pooled) == ("0 % of 6 tasks", "96 % of 255 tasks")


def test_money_by_hand(numbers):
    rows = {each.policy: each for each in which_matter(numbers)}
    zero = rows["scaling to zero"]
    kept = 45 * quiet.up_share(42_000 / 30 / 45 / DAY_S, 600, 26) * 720 * 0.05
    assert f"saves ${51 * 2 * 720 * 0.05 - kept:,.0f} of $3,672" in zero.one
    probes = 51 * 2 * 30 * 86_400 / 30
    assert (
        f"{probes / 42_000:.1f} for each task; ${probes * 5e-5:,.0f} "
        in rows["cost of health checks every 30 s"].one
    )


def test_the_canary_by_hand(numbers):
    row = next(each for each in which_matter(numbers) if each.policy.startswith("canary"))
    needed = quiet.tasks_to_compare(0.031, 0.062, 0.05)
    assert row.needs.startswith(f"{needed:.0f} tasks")
    assert row.one.startswith(f"{needed / (0.05 * 1400 / 45):.0f} days; a day shows it 1.6")
    assert row.pooled.startswith("3.8 days; a day shows it 70")


def test_its_numbers_are_those_of_the_scenarios(numbers):
    before = load(resource("scenarios", "prisma_glow_before.yaml"))
    workload, agent = before.workload[0], before.fleet[0]
    month = [workload.days[day % 7] for day in range(30)]
    mean = np.mean(workload.hours) * np.mean(month)
    assert numbers.peak == pytest.approx(max(workload.hours) * max(workload.days) / mean, rel=0.005)
    assert (numbers.slots, numbers.instances) == (agent.concurrency, agent.instances)
    repeats = workload.cacheable
    assert (numbers.repeats, numbers.prompts, numbers.zipf) == (repeats.share, repeats.keys, repeats.zipf)
    assert numbers.prompt_cache_s == before.servers["gpt-4o"].cache.keeps_s
    fleet = load(resource("scenarios", "quiet_fleet.yaml"))
    assert numbers.instance_usd_per_hour == fleet.fleet[0].instance_usd_per_hour
    assert numbers.idle_s == 600 == 60 * int(fleet.controllers.scaler.settings["idle"].removesuffix("m"))


def test_numbers_are_all_there_or_none(phase_5):
    data = phase_5.model_dump(by_alias=True, mode="json", exclude_none=True)
    del data["quiet"]["peak"]
    with pytest.raises(ValueError, match="no 'peak'"):
        Claims.model_validate(data)
    data["quiet"]["peek"] = {"amount": 3, "source": "s"}
    with pytest.raises(ValueError, match="unknown number 'peek'"):
        Claims.model_validate(data)
    data["quiet"] = {}
    assert Claims.model_validate(data).parameters() is None

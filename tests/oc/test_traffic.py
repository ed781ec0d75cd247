"""What the traffic of the campaigns is, against its expectations."""

from __future__ import annotations

import numpy as np
import pytest

from glowsim.core.errors import GlowsimError
from glowsim.oc.campaigns import simulate
from glowsim.oc.improvement import Improvement
from glowsim.oc.rules import BASELINE, CANARY, Status
from glowsim.oc.traffic import Draws, Traffic

RULE = Improvement((0.25, 1.0), (3600.0,))
BY_TENANT = Improvement((0.25, 1.0), (3600.0,), unit="tenant")
ROWS = 4000


def drawn(traffic, buckets=10, effect=0.0, weight=0.25, rows=ROWS, rule=RULE):
    """Return requests (2, rows) and bad outcomes (guardrails, 2, rows) of several buckets together."""
    draws = Draws(traffic, rule, np.full(rows, effect), np.ones(rows), np.random.default_rng(1))
    known = [draws.bucket(number, np.full(rows, weight)) for number in range(buckets)]
    return sum(each.requests for each in known), sum(each.bad for each in known)


def test_requests_and_bad_outcomes_are_as_many_as_stated():
    requests, bad = drawn(Traffic(2.0), effect=0.03)
    # 10 minutes of 2/s: 900 and 300; five standard errors of the mean over 4,000 campaigns
    assert requests.mean(axis=1) == pytest.approx([900.0, 300.0], abs=5 * np.sqrt(900 / ROWS))
    assert bad[0].mean(axis=1) == pytest.approx([45.0, 24.0], abs=5 * np.sqrt(45 / ROWS))
    assert requests[CANARY].var() == pytest.approx(300.0, rel=0.12)


def test_an_effect_waits_for_its_onset():
    _, bad = drawn(Traffic(2.0, onset_s=300.0), effect=0.05)
    assert bad[0, CANARY].mean() == pytest.approx(150 * 0.05 + 150 * 0.10, abs=0.5)


def test_rhythm_and_incidents_hit_both_versions_alike():
    traffic = Traffic(2.0, daily=True, incidents=True)
    requests, bad = drawn(traffic, buckets=1440, rows=300)
    assert requests[BASELINE].mean() == pytest.approx(129_600, rel=0.01)  # a day: the rhythm averages out
    shares = bad[0].sum(axis=1) / requests.sum(axis=1)
    assert shares[CANARY] == pytest.approx(shares[BASELINE], rel=0.01)
    assert shares[BASELINE] > 0.055


def test_other_guardrails_have_their_own_base_and_no_effect():
    rule = Improvement((0.25, 1.0), (3600.0,), guardrails=("errors", "latency"))
    requests, bad = drawn(Traffic(2.0, {"errors": 0.05, "latency": 0.2}), effect=0.05, rule=rule)
    assert bad[1].sum(axis=1) / requests.sum(axis=1) == pytest.approx([0.2, 0.2], abs=0.002)
    with pytest.raises(GlowsimError, match="--base latency"):
        drawn(Traffic(2.0), rule=rule)


@pytest.mark.parametrize("zipf", [0.0, 1.0])
def test_tenants_are_as_correlated_as_stated(zipf):
    """Var of an arm's mean base = p (1 - p) icc / effective tenants, as the beta-binomial has it."""
    traffic = Traffic(1000.0, tenants=50, correlation=0.02, zipf=zipf)
    draws = Draws(traffic, BY_TENANT, np.zeros(ROWS), np.ones(ROWS), np.random.default_rng(2))
    shares, base = draws.by_tenant(np.full(ROWS, 0.5))
    assert shares.sum(axis=0) == pytest.approx(np.ones(ROWS))
    assert shares[CANARY].mean() == pytest.approx(0.5, abs=0.02)
    size = np.arange(1.0, 51.0) ** -zipf
    size /= size.sum()
    whole = (base * shares).sum(axis=0)
    assert whole.var() == pytest.approx(0.05 * 0.95 * 0.02 * (size**2).sum(), rel=0.12)


def test_a_tenant_stays_with_the_new_version_while_weights_rise():
    traffic = Traffic(1.0, tenants=40, correlation=0.01)
    draws = Draws(traffic, BY_TENANT, np.zeros(50), np.ones(50), np.random.default_rng(3))
    before = 0.0
    for weight in (0.1, 0.3, 0.9):
        shares, _ = draws.by_tenant(np.full(50, weight))
        assert (shares[CANARY] >= before).all()
        before = shares[CANARY]


@pytest.mark.parametrize("zipf", [0.0, 1.0])
def test_effective_tenants_are_those_that_counting_finds(zipf):
    """Against requests drawn tenant by tenant, since the weight changed: (sum of n)^2 / sum of n^2 by arm."""
    traffic = Traffic(3.0, tenants=30, correlation=0.01, zipf=zipf)
    rng = np.random.default_rng(5)
    draws = Draws(traffic, BY_TENANT, np.zeros(40), np.ones(40), rng)
    counted = np.zeros((2, 30, 40))
    for number in range(60):
        weight = np.full(40, 0.3 if number < 20 else 0.6)
        draws.bucket(number, weight)
        canary = draws.hashes < weight
        if number == 20:
            counted[:] = 0.0
        counted += rng.poisson(180.0 * np.stack([~canary, canary]) * draws.sizes)
    expected = counted.sum(axis=1) ** 2 / (counted**2).sum(axis=1)
    assert draws.effective() == pytest.approx(expected, rel=0.1)


def test_equal_seeds_give_equal_campaigns_and_all_of_them_end():
    traffic = Traffic(0.5)
    one, two = (simulate(RULE, traffic, [0.0, 0.05], 200, seed=7) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert (a.status == b.status).all()
        assert (a.end_s == b.end_s).all()
        assert (a.status != Status.RUNNING).all()
        assert (a.end_s > 0).all()


def test_late_labels_delay_a_decision_by_their_delay_and_no_more():
    prompt = Improvement((0.25, 1.0), (36_000.0,))
    late = Improvement((0.25, 1.0), (36_000.0,), maturity_s=1800.0)
    at_once, later = (
        simulate(rule, Traffic(2.0, label_delay_s=delay_s), [0.2], 400, seed=1)[0]
        for rule, delay_s in ((prompt, 0.0), (late, 1800.0))
    )
    assert np.median(later.end_s) - np.median(at_once.end_s) == pytest.approx(1800.0, abs=180.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rate_per_s": 0.0}, "2/s"),
        ({"rate_per_s": 1.0, "base": {"errors": 1.0}}, "5%"),
        ({"rate_per_s": 1.0, "correlation": 0.1}, "tenants"),
        ({"rate_per_s": 1.0, "correlation": 1.0, "tenants": 5}, "correlation"),
    ],
)
def test_traffic_that_cannot_be_is_refused(settings, says):
    with pytest.raises(GlowsimError, match=says):
        Traffic(**settings)


def test_a_rollout_of_too_many_looks_is_refused():
    with pytest.raises(GlowsimError, match="take longer looks"):
        simulate(Improvement((0.5, 1.0), (30 * 86_400.0,), look_s=1.0), Traffic(1.0), [0.0], 10)

"""The vectorised rule and the object that runs in the daemon: the same counts, the same decisions at the same looks."""

from __future__ import annotations

import bisect

import numpy as np
import pytest

from glowsim import registry
from glowsim.core.reasons import Code
from glowsim.core.streams import key_of, mix
from glowsim.core.types import Request
from glowsim.oc.policy import USE, rule_of
from glowsim.oc.rules import BASELINE, CANARY, Known, Status
from glowsim.oc.traffic import Draws, Traffic

SALT = "parity"
LOOK_S = 60.0
SCHEDULES = {
    "two stages": {"weights": (0.1, 0.4), "holds_s": (5400.0, 3600.0)},
    "one stage, asked twice": {"weights": (0.5,), "holds_s": (2700.0,), "gates": 2, "minimum": 800},
    "late labels": {"weights": (0.2, 0.5), "holds_s": (3600.0, 1800.0), "maturity_s": 600.0, "minimum": 150},
}
ENDS = {
    Code.EVIDENCE_OF_HARM: Status.ROLLED_BACK, Code.NON_INFERIOR: Status.PROMOTED, Code.INCONCLUSIVE: Status.HELD,
}  # fmt: skip


@pytest.fixture(scope="module")
def controller():
    if USE not in registry.names("splitter"):
        pytest.skip(f"{USE} is not registered")
    return registry.find("splitter", USE)


@pytest.fixture(scope="module")
def hashes():
    """Return request ids by their hash, so that a test can choose which version a request gets."""
    salt = key_of("rollout", SALT)
    return sorted((mix(number ^ salt), number) for number in range(1, 200_001))


def ids_of(hashes, weight):
    """Return ids of the baseline and of the canary at a weight, many of each."""
    cut = bisect.bisect_left(hashes, (int(weight * 2.0**64), 0))
    return [each[1] for each in hashes[cut:]], [each[1] for each in hashes[:cut]]


def settings_of(controller, **given):
    return {each.name: each.default for each in registry.parameters(controller)} | {"salt": SALT, **given}


def told(splitter, hashes, buckets, weights):
    """Tell the object every request of the buckets one by one; return (look, stage, weight, code) of what it does."""
    found = []
    by_weight = {}
    for bucket, (known, weight) in enumerate(zip(buckets, weights, strict=True)):
        if weight not in by_weight:
            by_weight[weight] = ids_of(hashes, weight)
        for arm in (BASELINE, CANARY):
            requests, bad = int(known.requests[arm, 0]), known.bad[:, arm, 0]
            for number in range(requests):
                t_s = (
                    (bucket + (number + 0.5) / (requests + 1)) * LOOK_S
                    if arm == BASELINE
                    else bucket * LOOK_S
                )
                request = Request(by_weight[weight][arm][number], 0, 900, 100)
                assert splitter.assign(t_s, request) == arm
                slow = 99.0 if len(bad) > 1 and number < bad[1] else 0.1
                splitter.finished(t_s, t_s, arm, request, number >= bad[0], slow, 0.0)
        while (due_s := splitter.wake_s()) <= (bucket + 1) * LOOK_S:
            advance = splitter.wake(due_s)
            if advance is not None:
                found.append(
                    (round(due_s / LOOK_S), advance.stage, advance.weight, Code(advance.reason.code))
                )
    return found


def simulated(rule, traffic, effect, seed, most=400):
    """Run one campaign of the vectorised rule; return buckets, weights, and what changed when."""
    rng = np.random.default_rng(seed)
    course, draws = rule.start(1), Draws(traffic, rule, np.array([effect]), np.ones(1), rng)
    lag = round(rule.maturity_s / rule.look_s)
    buckets, weights, found = [], [], []
    for look in range(1, most):
        weights.append(float(course.weight[0]))
        buckets.append(draws.bucket(look - 1, course.weight))
        stage = int(course.stage[0])
        course.take(look, buckets[-1].requests, buckets[look - 1 - lag] if look > lag else None)
        status = Status(int(course.status[0]))
        if status != Status.RUNNING or course.stage[0] != stage:
            found.append((look, int(course.stage[0]) + 1, status, float(course.weight[0])))
        if status != Status.RUNNING:
            break
    return buckets, weights, found


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rate_per_s", [0.1, 1.0])
@pytest.mark.parametrize("effect", [0.0, 0.03, 0.1])
def test_the_same_counts_give_the_same_decisions_at_the_same_looks(
    controller, hashes, schedule, rate_per_s, effect
):
    given = {"maturity_s": 0.0, "strategy": "stages", "minimum": 30, "look_s": LOOK_S} | SCHEDULES[schedule]
    settings = settings_of(controller, **given)
    rule = rule_of(schedule, settings)
    for seed in range(2):
        buckets, weights, ours = simulated(rule, Traffic(rate_per_s), effect, seed)
        theirs = told(controller(**settings), hashes, buckets, weights)
        assert ends_of(theirs, settings["gates"]) == ends_of_ours(ours)


@pytest.mark.parametrize("effect", [0.0, 0.15])
def test_tenants_too(controller, effect):
    """Forty tenants; their requests, and how many of them there effectively are, counted one by one."""
    settings = settings_of(
        controller, strategy="stages", weights=(0.3, 0.5), holds_s=(3600.0, 3600.0), unit="tenant", minimum=30
    )
    rule = rule_of("tenants", settings)
    salt, tenants = key_of("rollout", SALT), []
    cells = set()
    for number in range(1, 10_000):  # the object counts by hash: no two in one cell
        hashed = mix(number ^ salt)
        if len(tenants) < 40 and {hashed & 1023, -1 - (hashed >> 10 & 32767)}.isdisjoint(cells):
            cells |= {hashed & 1023, -1 - (hashed >> 10 & 32767)}
            tenants.append((number, hashed / 2.0**64))
    ids, hashes = (np.array(each) for each in zip(*tenants, strict=True))
    risk = np.random.default_rng(8).beta(0.05 * 99, 0.95 * 99, 40)
    for seed in range(3):
        rng, splitter, course = np.random.default_rng(seed), controller(**settings), rule.start(1)
        lag = round(rule.maturity_s / rule.look_s)
        ours, theirs, buckets, stage = [], [], [], -1
        for look in range(1, 300):
            if stage != course.stage[0]:
                stage, had, seen = int(course.stage[0]), np.zeros((2, 40)), np.zeros(40, bool)
            canary = hashes < course.weight[0]
            n = rng.poisson(1.5, 40)
            bad = rng.binomial(n, np.minimum(risk + effect * canary, 1.0))
            for place in range(40):
                for number in range(n[place]):
                    t_s = (look - 1 + number / 40) * LOOK_S
                    request = Request(number + 1, 0, 900, 100, tenant=int(ids[place]))
                    assert splitter.assign(t_s, request) == canary[place]
                    splitter.finished(t_s, t_s, int(canary[place]), request, number >= bad[place], 0.1, 0.0)
            arms = np.stack([~canary, canary])
            had += arms * n
            new = arms @ ((n > 0) & ~seen)
            seen |= n > 0
            buckets.append(Known((arms @ n)[:, None], (arms @ bad)[None, :, None]))
            course.effective = (had.sum(axis=1) ** 2 / np.maximum((had**2).sum(axis=1), 1))[:, None]
            course.take(look, new[:, None], buckets[look - 1 - lag] if look > lag else None)
            if course.stage[0] != stage or course.status[0]:
                ours.append((look, int(course.stage[0]) + 1, Status(int(course.status[0])), 0.0))
            while (due_s := splitter.wake_s()) <= look * LOOK_S:
                advance = splitter.wake(due_s)
                if advance is not None:
                    theirs.append((round(due_s / LOOK_S), advance.stage, 0.0, Code(advance.reason.code)))
            if course.status[0]:
                break
        assert ends_of(theirs, 1) == ends_of_ours(ours)


def test_two_guardrails_share_alpha(controller, hashes):
    settings = settings_of(
        controller,
        strategy="stages",
        weights=(0.3,),
        holds_s=(3600.0,),
        maturity_s=60.0,
        latency_above_s=30.0,
    )
    rule = rule_of("two", settings)
    assert rule.guardrails == ("errors", "latency")
    traffic = Traffic(1.0, {"errors": 0.05, "latency": 0.1})
    for seed, effect in ((0, 0.0), (1, 0.04), (2, 0.15)):
        buckets, weights, ours = simulated(rule, traffic, effect, seed)
        theirs = told(controller(**settings), hashes, buckets, weights)
        assert ends_of(theirs, 1) == ends_of_ours(ours)


def ends_of(told, gates):
    """Return (look, stage or end) of what the object did; holds, and asks in vain, do not count."""
    found, asked = [], 0
    for look, stage, _, code in told:
        asked += code == Code.INCONCLUSIVE
        if code == Code.STAGE_DONE:
            found.append((look, stage))
        elif code in ENDS and (code != Code.INCONCLUSIVE or asked == gates):
            found.append((look, ENDS[code]))
    return found


def ends_of_ours(found):
    return [(look, stage if status == Status.RUNNING else status) for look, stage, status, _ in found]


def test_a_splitter_in_yaml_is_read_as_the_daemon_reads_it(controller, tmp_path):
    from glowsim.core.errors import GlowsimError
    from glowsim.oc.policy import read_policy

    path = tmp_path / "mine.yaml"
    path.write_text(
        f"use: {USE}\nsalt: v2\nstrategy: stages\nweights: [10%, 50%]\nholds: [1h]\nlatency_above: 30s\ngates: 2\n"
    )
    read = read_policy(str(path))
    assert read.rule.weights == (0.1, 0.5, 1.0)
    assert read.rule.holds_s == (3600.0, 3600.0)
    assert read.rule.guardrails == ("errors", "latency")
    assert (read.rule.gates, read.rule.name, read.bounds) == (2, "mine", {"latency": 30.0})
    with pytest.raises(GlowsimError, match="write maturity: 600s"):
        read_policy(str(path), label_delay_s=600.0)
    path.write_text(f"use: {USE}\nsalt: v2\nweigths: [10%]\n")
    with pytest.raises(GlowsimError, match="weigths: unknown key"):
        read_policy(str(path))


def test_what_the_search_says_to_write_can_be_read(controller, tmp_path):
    from glowsim.oc.characteristics import Budget
    from glowsim.oc.improvement import Improvement
    from glowsim.oc.policy import read_policy
    from glowsim.oc.saying import search_text
    from glowsim.oc.search import Candidate, Search

    rule = Improvement((0.02, 0.5, 1.0), (5400.0, 7200.0))
    said = search_text(Search(Candidate(rule, 1.0, None), ()), Budget())
    path = tmp_path / "found.yaml"
    path.write_text(said.partition("splitter: ")[2])
    read = read_policy(str(path)).rule
    assert (read.weights, read.holds_s) == (rule.weights, rule.holds_s)


def test_the_bundled_policies_are_the_controllers_own(controller):
    from glowsim.oc.policy import read_policy

    for strategy in ("immediate", "gradual", "canary"):
        settings = settings_of(controller, strategy=strategy)
        assert read_policy(strategy).rule == rule_of(strategy, settings)
        if strategy != "immediate":
            assert controller(**settings).first_weight == read_policy(strategy).rule.weights[0]

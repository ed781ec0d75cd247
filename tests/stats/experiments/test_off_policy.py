"""Off-policy estimates on logs whose truth is known: no bias, honest intervals, and "cannot tell" where it cannot."""

import math

import numpy as np
import pytest

from glowsim.stats.experiments.off_policy import Log, OffPolicy, always, off_policy, uniform

ACTIONS = ("a", "b", "c")
BASE = np.array([0.3, 0.5, 0.4])


def logged(seed: int, n: int = 2000, *, floor: float = 0.1) -> Log:
    """A log by a policy that prefers ``b`` where x is large; the reward of ``b`` falls with x."""
    rng = np.random.default_rng(seed)
    x = rng.random(n)
    chances = np.stack([1.0 - x, x, np.full(n, 0.5)], axis=1)
    chances = floor + (1 - 3 * floor) * chances / chances.sum(axis=1, keepdims=True)
    taken = (rng.random(n)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1).astype(np.intp)
    mean = BASE[taken] + np.where(taken == 1, 0.4 * (0.5 - x), 0.2 * x)
    rewards = (rng.random(n) < mean).astype(float)
    return Log(ACTIONS, taken, chances[np.arange(n), taken], rewards, x[:, None])


def truth(action: int) -> float:
    return float(BASE[action] + (0.0 if action == 1 else 0.1))


def test_estimates_have_no_bias_and_their_intervals_cover() -> None:
    found = [off_policy(log, always(log, "b")) for log in map(logged, range(300))]
    for estimate in ("ips", "snips", "doubly_robust"):
        each = [getattr(one, estimate) for one in found]
        values = [one.value for one in each]
        assert np.mean(values) == pytest.approx(truth(1), abs=4 * np.std(values) / math.sqrt(300)), estimate
        covered = np.mean([one.low <= truth(1) <= one.high for one in each])
        assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 300)), estimate
    naive = np.mean([log.rewards[log.taken == 1].mean() for log in map(logged, range(100))])
    assert naive < truth(1) - 0.02, "the log shows b where it does badly: that is what the weights mend"


def test_features_sharpen_the_doubly_robust_estimate() -> None:
    rng = np.random.default_rng(4)
    n = 4000
    x = rng.normal(size=(n, 1))
    taken = (rng.random(n) < 0.3).astype(np.intp)
    rewards = 10 * x[:, 0] + taken + rng.normal(size=n)
    log = Log(("a", "b"), taken, np.where(taken == 1, 0.3, 0.7), rewards, x)
    found = off_policy(log, always(log, "b"))
    assert width(found.doubly_robust) < 0.6 * width(found.ips)
    assert found.doubly_robust.low < 1.0 < found.doubly_robust.high
    assert width(found.gain) < 0.25 * width(found.snips)
    assert found.verdict == "better"


def width(estimate) -> float:
    return estimate.high - estimate.low


def test_the_logging_policy_itself_is_estimated_by_its_mean() -> None:
    rng = np.random.default_rng(5)
    taken = rng.integers(0, 2, 1000).astype(np.intp)
    log = Log(("a", "b"), taken, np.full(1000, 0.5), rng.random(1000), np.empty((1000, 0)))
    found = off_policy(log, uniform(log))
    assert found.effective == pytest.approx(1000)
    assert found.snips.value == found.ips.value == pytest.approx(log.rewards.mean())
    assert found.overlap == 1.0
    assert found.verdict == "undecided"


def never_took_b(log: Log) -> Log:
    keep = log.taken != 1
    return Log(log.actions, log.taken[keep], log.propensities[keep], log.rewards[keep], log.features[keep])


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        (never_took_b, {}, "it takes b in 100 % of the rows, which the log never did"),
        (lambda log: log, {"least": 1e6}, "and 1000000 are the least"),
        (lambda log: log, {"within": 0.001}, "the question needs 0.001"),
        (lambda log: log._replace(propensities=log.propensities / 2), {}, "the mean weight is"),
        (lambda log: log._replace(propensities=np.where(np.arange(2000) == np.argmax(log.taken == 1), 1e-6,
                                                        log.propensities)), {"least": 1.0}, "% of the weight"),
    ],
)  # fmt: skip
def test_it_says_that_it_cannot_tell(change, settings, says: str) -> None:
    log = change(logged(1))
    found = off_policy(log, always(log, "b"), **settings)
    assert found.verdict == "cannot tell"
    assert says in found.why


def test_an_action_that_could_not_be_taken_in_half_of_the_contexts_is_found_by_the_weights() -> None:
    rng = np.random.default_rng(6)
    n = 2000
    could = np.arange(n) % 2 == 0
    taken = np.where(could & (rng.random(n) < 0.5), 1, 0).astype(np.intp)
    log = Log(("a", "b"), taken, np.where(could, 0.5, 1.0), rng.random(n), np.empty((n, 0)))
    found = off_policy(log, always(log, "b"))
    assert (found.verdict, round(found.mean_weight, 1)) == ("cannot tell", 0.5)


def test_rows_of_one_user_widen_the_interval() -> None:
    rng = np.random.default_rng(7)
    users = np.repeat(np.arange(200), 20)
    taken = (rng.random(4000) < 0.5).astype(np.intp)
    rewards = rng.normal(size=200)[users] + 0.1 * rng.normal(size=4000)
    log = Log(("a", "b"), taken, np.full(4000, 0.5), rewards, np.empty((4000, 0)), users)
    clustered = off_policy(log, always(log, "b")).doubly_robust
    apart = off_policy(log._replace(units=None), always(log, "b")).doubly_robust
    assert width(clustered) > 2.5 * width(apart)


def test_verdicts_follow_the_gain_and_its_direction() -> None:
    def verdict(found: OffPolicy) -> str:
        return found.verdict

    rng = np.random.default_rng(8)
    taken = (rng.random(3000) < 0.5).astype(np.intp)
    rewards = (rng.random(3000) < 0.3 + 0.3 * taken).astype(float)
    log = Log(("a", "b"), taken, np.full(3000, 0.5), rewards, np.empty((3000, 0)))
    assert verdict(off_policy(log, always(log, "b"))) == "better"
    assert verdict(off_policy(log, always(log, "a"))) == "worse"
    assert verdict(off_policy(log, always(log, "a"), better="lower")) == "better"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensities": np.full(2000, 1.5)}, "row 0 has the propensity 1.5"),
        ({"propensities": np.full(3, 0.5)}, "one of each a row"),
        ({"rewards": np.full(2000, math.nan)}, "not finite"),
    ],
)
def test_a_log_that_is_none_is_refused(change, says: str) -> None:
    log = logged(1)._replace(**change)
    with pytest.raises(ValueError, match=says):
        off_policy(log, always(log, "b"))


def test_a_policy_without_a_whole_probability_is_refused() -> None:
    log = logged(1)
    with pytest.raises(ValueError, match="1 in all"):
        off_policy(log, always(log, "b") * 0.5)

"""A/B tests and bandits: when they end, how often they are wrong, what they lose, whether their chances are true."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.rollout.ab_test import ABTest
from controllers.rollout.bandit import Bandit
from glowsim.core.errors import ControllerError
from glowsim.core.streams import Stream
from glowsim.core.types import Advance, ChangeKind, Code, Observed, Request
from glowsim.stats.experiments.bandits import thompson_shares, ucb1_shares
from glowsim.stats.experiments.power import size_for_proportions
from glowsim.stats.experiments.proportions import proportions

Draw = Callable[[np.random.Generator, int, int], tuple[bool, float]]
"""(draws, variant, user) -> whether a request ended well, and its latency."""


def errors(*shares: float) -> Draw:
    return lambda rng, variant, user: (rng.random() >= shares[variant], 1.0)


def talk(one: ABTest, draw: Draw, seed: int, most: int = 20_000, users: int = 0) -> Iterator[Advance]:
    """Send a request each second, which is answered half a second later; yield what it says."""
    rng = np.random.default_rng(seed)
    for number in range(1, most + 1):
        user = int(rng.integers(1, users + 1)) if users else 0
        request = Request(number, 0, 1, 1, user=user)
        variant = one.assign(float(number), request)
        ok, latency_s = draw(rng, variant, user)
        said = one.finished(number + 0.5, float(number), variant, request, ok, latency_s, 0.01)
        if said is not None:
            yield said


def end(one: ABTest, draw: Draw, seed: int, **more: int) -> Advance | None:
    return next(talk(one, draw, seed, **more), None)


def ab_test(**changed: object) -> ABTest:
    return ABTest(**({"salt": "t", "sample_size": 400} | changed))  # type: ignore[arg-type]


def test_it_ends_once_both_samples_are_full_and_mature_and_says_why() -> None:
    one = ab_test()
    said = end(one, errors(0.3, 0.1), seed=1)
    assert said is not None
    assert (said.stage, said.weight, said.reason.code) == (2, 1.0, Code.VARIANT_BETTER)
    assert said.reason.a == pytest.approx(-0.2, abs=0.08)
    assert said.reason.c >= 800
    assert one.assign(9e9, Request(7, 0, 1, 1)) == 1
    assert end(one, errors(0.1, 0.9), seed=2) is None, "after the end nothing is compared any more"


def test_it_decides_as_the_test_of_what_is_mature_does() -> None:
    ends: list[tuple[int, bool]] = []

    def noted(rng: np.random.Generator, variant: int, user: int) -> tuple[bool, float]:
        failed = bool(rng.random() < (0.10, 0.13)[variant])
        ends.append((variant, failed))
        return not failed, 1.0

    said = end(ab_test(), noted, seed=3)
    assert said is not None
    mature = ends[: int(said.reason.c)]  # one a second, so they come in the order of assignment
    assert len(mature) % 60 == 59, "whole looks, and the first request came in second 1"
    counts = [(sum(f for v, f in mature if v == arm), sum(v == arm for v, _ in mature)) for arm in (0, 1)]
    assert min(n for _, n in counts) >= 400
    oracle = proportions(*counts)
    assert (said.reason.a, said.reason.b) == (pytest.approx(oracle.difference), pytest.approx(oracle.p))


@pytest.mark.parametrize(("then", "stage"), [("winner", 2), ("keep", 0)])
def test_the_winner_takes_over_if_that_was_ordered(then: str, stage: int) -> None:
    said = end(ab_test(then=then), errors(0.3, 0.1), seed=1)
    assert said is not None
    assert (said.stage, said.reason.code) == (stage, Code.VARIANT_BETTER)


def test_a_worse_variant_and_one_that_is_alike_leave_the_baseline() -> None:
    worse = end(ab_test(), errors(0.1, 0.3), seed=4)
    alike = end(ab_test(), errors(0.1, 0.1), seed=5)
    assert worse is not None
    assert alike is not None
    assert (worse.stage, worse.reason.code) == (0, Code.BASELINE_BETTER)
    assert (alike.stage, alike.reason.code) == (0, Code.NO_WINNER)


def test_the_sample_comes_from_the_power() -> None:
    one = ABTest(salt="t", base=0.1, effect=0.1, power=0.9)
    said = end(one, errors(0.1, 0.1), seed=6)
    assert said is not None
    assert 2 * size_for_proportions(0.1, 0.1, power=0.9)[0] <= said.reason.c < 700


@pytest.mark.parametrize("test", ["fixed", "sequential"])
def test_equal_arms_have_a_winner_no_more_often_than_alpha(test: str) -> None:
    wrong = 0
    for seed in range(200):
        one = ab_test(test=test, sample_size=150, look_s=10.0, maturity_s=5.0, salt=str(seed))
        said = end(one, errors(0.2, 0.2), seed=seed)
        assert said is not None
        wrong += said.reason.code != Code.NO_WINNER
    assert wrong <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_evidence_ends_it_early() -> None:
    sized = end(ab_test(sample_size=3000), errors(0.3, 0.1), seed=7)
    soon = end(ab_test(sample_size=3000, test="sequential"), errors(0.3, 0.1), seed=7)
    assert sized is not None
    assert soon is not None
    assert soon.reason.c < 0.2 * sized.reason.c
    assert soon.reason.code == sized.reason.code == Code.VARIANT_BETTER


def test_users_that_are_alike_in_themselves_are_no_thousand_witnesses() -> None:
    # 60 users, each with an error rate of their own: taken request by request, a third of equal variants would differ.
    naive = grouped = 0
    for seed in range(60):
        risk = np.random.default_rng(1000 + seed).beta(0.5, 2.0, 61)

        def draw(
            rng: np.random.Generator, variant: int, user: int, risk: np.ndarray = risk
        ) -> tuple[bool, float]:
            return rng.random() >= risk[user], 1.0

        one = ab_test(unit="user", sample_size=1000, salt=str(seed), look_s=100.0)
        said = end(one, draw, seed=seed, users=60, most=4000)
        assert said is not None
        grouped += said.reason.code != Code.NO_WINNER
        sums = [[0, 0], [0, 0]]
        for arm, groups in enumerate(one._arms):
            n = sum(each[0] for each in groups.values())
            sums[arm] = [round(sum(each[0] * each[1] for each in groups.values())), n]
        naive += proportions(tuple(sums[0]), tuple(sums[1])).winner != "undecided"
    assert naive / 60 > 0.25
    assert grouped / 60 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)


def test_latency_is_of_those_that_ended_well_and_late_outcomes_count_in_neither_arm() -> None:
    def slow(rng: np.random.Generator, variant: int, user: int) -> tuple[bool, float]:
        failed = rng.random() < 0.5
        return not failed, 1000.0 if failed else rng.exponential((1.0, 0.7)[variant])

    said = end(ab_test(metric="latency"), slow, seed=8)
    assert said is not None
    assert said.reason.code == Code.VARIANT_BETTER
    assert said.reason.a == pytest.approx(-0.3, abs=0.15)
    one = ab_test(sample_size=1, look_s=10.0, maturity_s=5.0)
    one.finished(15.0, 12.0, 0, Request(1, 0, 1, 1), True, 3.0, 0.0)
    assert one.finished(16.0, 9.0, 1, Request(2, 0, 1, 1), True, 7.0, 0.0) is None
    assert one.found is None, "the look of second 9 was over when it came"


def test_labels_count_once_a_request_and_by_the_moment_of_assignment() -> None:
    one = ab_test(
        metric="observed", label="accuracy", better="higher", sample_size=50, look_s=10.0, maturity_s=100.0
    )
    said = None
    rng = np.random.default_rng(9)
    for number in range(1, 400):
        variant = one.assign(float(number), Request(number, 0, 1, 1))
        right = float(rng.random() < (0.5, 0.9)[variant])
        label = Observed(number + 60.0, number, 0, variant, number, 0.5, "accuracy", right, 0, float(number))
        for each in (
            label,
            label._replace(value=1.0 - right),
            label._replace(metric="rating"),
            label._replace(assigned_s=None),
        ):
            said = said or one.observed(number + 60.0, each)
    assert said is not None
    assert said.reason.code == Code.VARIANT_BETTER
    assert said.reason.a == pytest.approx(0.4, abs=0.2)


def test_a_split_that_is_not_the_ordered_one_has_no_winner() -> None:
    one = ab_test(sample_size=300)
    said = None
    for number in range(1, 3000):
        variant = int(number % 5 == 0)
        request = Request(number, 0, 1, 1)
        said = said or one.finished(number + 0.5, float(number), variant, request, variant == 1, 1.0, 0.0)
    assert said is not None
    assert (said.stage, said.reason.code) == (0, Code.SPLIT_BROKEN)


def test_the_chance_of_an_assignment_is_the_share_of_its_moment() -> None:
    one = ab_test(weight=0.2)
    got = [one.assign(0.0, Request(number, 0, 1, 1)) for number in range(1, 20_001)]
    assert np.mean(got) == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 20_000))
    one.ordered(50.0, ChangeKind.PROMOTE)
    one.ordered(70.0, ChangeKind.ROLL_BACK)
    assert [one.propensity(t_s, 1) for t_s in (0.0, 49.0, 50.0, 70.0)] == [0.2, 0.2, 1.0, 0.0]
    assert one.propensity(49.0, 0) == 0.8
    assert one.ordered(80.0, ChangeKind.ROLL_BACK) is None
    assert one.ordered(80.0, ChangeKind.PAUSE_ROLLOUT) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight": 1.0}, "weight: 1.0 leaves an arm without traffic"),
        ({"alpha": 0.0}, "alpha: 0.0"),
        ({"metric": "observed"}, "label: give the name"),
        ({"label": "rating"}, "label: give the name"),
        (
            {"maturity_s": 86_400.0},
            "look_s: outcomes of 1440 looks would be pending at once; give a look of at least 432 s",
        ),
        ({"sample_size": None, "metric": "cost"}, "sample_size: give it, or the deviation"),
        ({"sample_size": None, "base": 0.5, "effect": 0.7}, "must be shares"),
    ],
)
def test_a_test_that_cannot_be_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ab_test(**settings)


# --- bandits ----------------------------------------------------------------------------------------------


def play(
    one: Bandit, means: tuple[float, ...], seed: int, rounds: int
) -> tuple[float, list[tuple[int, float, float]]]:
    """Return the regret, and (variant, chance, reward) of every round, one a second."""
    rng = np.random.default_rng(seed)
    lost, log = 0.0, []
    for number in range(1, rounds + 1):
        request = Request(number, 0, 1, 1)
        variant = one.assign(float(number), request)
        reward = float(rng.random() < means[variant])
        log.append((variant, one.propensity(float(number), variant), reward))
        one.finished(number + 0.5, float(number), variant, request, reward == 1.0, 1.0, math.nan)
        lost += max(means) - means[variant]
    return lost, log


def test_thompson_s_probabilities_are_those_of_draws() -> None:
    earned, pulls = [3.0, 9.0, 8.0], [10, 20, 11]
    rng = np.random.default_rng(1)
    draws = rng.beta(1 + np.array(earned), 1 + np.array(pulls) - earned, (200_000, 3))
    best = np.bincount(draws.argmax(axis=1), minlength=3) / 200_000
    assert thompson_shares(earned, pulls) == pytest.approx(best, abs=0.006)


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 100_000)), min_size=2, max_size=5),
    st.floats(0.0, 0.2),
)
def test_shares_are_shares_and_keep_the_floor(arms: list[tuple[float, int]], explore: float) -> None:
    earned, pulls = [mean * n for mean, n in arms], [n for _, n in arms]
    for rule in (thompson_shares, ucb1_shares):
        if rule is thompson_shares or sum(pulls):
            shares = rule(earned, pulls, explore)
            assert math.fsum(shares) == pytest.approx(1.0)
            assert min(shares) >= explore - 1e-12


def test_thompson_s_regret_is_logarithmic() -> None:
    # Lai & Robbins: 0.2 / KL(0.3, 0.5) ln T is 2.3 ln T in the limit, 20 at 6,000; batches of 40 and priors add to it.
    regrets = {}
    for rounds in (1000, 6000):
        lost = [
            play(Bandit(Stream(seed), 2, explore=0.0, look_s=40.0), (0.3, 0.5), seed, rounds)[0]
            for seed in range(6)
        ]
        regrets[rounds] = np.mean(lost)
    assert regrets[6000] < 45
    assert regrets[6000] < 2.5 * regrets[1000], "six times the rounds, far less than six times the regret"


def test_ucb1_s_regret_is_within_its_bound() -> None:
    # Auer et al., theorem 1: 8 ln n / gap + (1 + pi ** 2 / 3) gap, with a change at every round.
    gap, rounds = 0.3, 4000
    lost = [
        play(Bandit(Stream(seed), 2, rule="ucb1", explore=0.0, look_s=1.0), (0.5, 0.5 + gap), seed, rounds)[0]
        for seed in range(4)
    ]
    assert np.mean(lost) <= 8 * math.log(rounds) / gap + (1 + math.pi**2 / 3) * gap


def test_of_three_variants_the_best_gets_nearly_all_and_each_keeps_its_floor() -> None:
    one = Bandit(Stream(5), 3, explore=0.02, look_s=20.0)
    play(one, (0.4, 0.6, 0.8), 5, 4000)
    shares = [one.propensity(1e9, variant) for variant in range(3)]
    assert shares[2] > 0.9
    assert min(shares) >= 0.02
    assert math.fsum(shares) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", ["thompson", "ucb1"])
def test_the_chances_on_record_are_true(rule: str) -> None:
    # Weighted by 1 / chance, the rewards of a variant average to its mean whatever the bandit did.
    estimates = []
    for seed in range(40):
        _, log = play(Bandit(Stream(seed), 2, rule=rule, explore=0.1, look_s=50.0), (0.4, 0.6), seed, 1500)
        estimates.append(math.fsum(reward / chance for variant, chance, reward in log if variant == 0) / 1500)
    assert np.mean(estimates) == pytest.approx(0.4, abs=4 * np.std(estimates) / math.sqrt(40))


def test_labels_are_rewards_and_others_are_refused() -> None:
    one = Bandit(Stream(1), 2, metric="observed", label="helpful", look_s=10.0)
    heard = [Observed(20.0, n, 0, n % 2, n, 0.5, "helpful", float(n % 2), 0, 1.0) for n in range(200)]
    said = [one.observed(20.0 + n, each._replace(t_s=20.0 + n)) for n, each in enumerate(heard)]
    assert any(said)
    assert one.propensity(1e9, 1) > 0.9
    assert one.observed(300.0, heard[0]._replace(metric="rating", value=5.0)) is None
    with pytest.raises(ControllerError, match="a reward is 0 to 1"):
        one.observed(300.0, heard[0]._replace(value=5.0))


def test_an_operator_may_stop_it_hold_it_or_have_it_settle() -> None:
    one = Bandit(Stream(1), 2, look_s=10.0)
    play(one, (0.2, 0.9), 1, 300)
    held = one.ordered(301.0, ChangeKind.PAUSE_ROLLOUT)
    assert held is not None
    assert held.reason.code == Code.PAUSED
    before = one.propensity(301.0, 1)
    play(one, (0.9, 0.1), 2, 2000)
    assert one.propensity(1e9, 1) == before
    assert one.ordered(3000.0, ChangeKind.PAUSE_ROLLOUT) is None
    resumed = one.ordered(3000.0, ChangeKind.RESUME_ROLLOUT)
    assert resumed is not None
    settled = one.ordered(3001.0, ChangeKind.PROMOTE)
    assert settled is not None
    assert settled.weight in (0.0, 1.0)
    back = one.ordered(3002.0, ChangeKind.ROLL_BACK)
    assert back is not None
    assert (back.stage, back.weight) == (0, 0.0)
    assert {one.assign(4000.0, Request(n, 0, 1, 1)) for n in range(1, 99)} == {0}


def test_what_is_forgotten_is_said_and_memory_is_bounded() -> None:
    one = Bandit(Stream(1), 2, look_s=1.0)
    rng = np.random.default_rng(3)
    for number in range(1, 1300):
        one.finished(
            float(number), 0.0, number % 2, Request(number, 0, 1, 1), bool(rng.random() < 0.5), 1.0, 0.0
        )
    assert len(one._since) == 1000
    with pytest.raises(ControllerError, match="are forgotten"):
        one.propensity(0.5, 1)


@pytest.mark.parametrize(
    ("variants", "settings", "says"),
    [
        (1, {}, "nothing to choose from"),
        (3, {"explore": 0.4}, "explore: 0.4 for each of 3 variants"),
        (2, {"metric": "observed"}, "label: give the name"),
    ],
)
def test_a_bandit_that_cannot_be_is_refused(variants: int, settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Bandit(Stream(1), variants, **settings)  # type: ignore[arg-type]

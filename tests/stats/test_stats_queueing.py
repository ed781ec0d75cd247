"""Closed forms: the published digits, each other, and a simulation that knows no formula."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.stats import queueing as q

counts = st.integers(1, 60)
loads = st.floats(0.01, 0.98)
rates = st.floats(0.01, 100.0)


def digits(value: float, places: int = 6) -> str:
    return f"{value:.{places}f}"


def test_case_1_mm1() -> None:
    station = q.mmc(0.8, 1.0, 1)
    assert [digits(x, 1) for x in station] == ["0.8", "4.0", "5.0", "3.2", "4.0", "0.0"]
    assert digits(q.mmc_wait_quantile_s(0.95, 0.8, 1.0, 1), 4) == "13.8629"
    assert digits(q.mmc_wait_quantile_s(0.99, 0.8, 1.0, 1), 4) == "21.9101"
    assert digits(q.mmc_sojourn_quantile_s(0.95, 0.8, 1.0, 1), 3) == "14.979"
    assert digits(q.mmc_sojourn_quantile_s(0.99, 0.8, 1.0, 1), 3) == "23.026"


def test_case_2_mm10() -> None:
    station = q.mmc(8.0, 1.0, 10)
    assert digits(q.erlang_c(8.0, 10)) == digits(station.p_wait) == "0.409180"
    assert (digits(station.wait_s), digits(station.queued)) == ("0.204590", "1.636721")
    assert digits(q.mmc_wait_quantile_s(0.95, 8.0, 1.0, 10)) == "1.051066"
    assert digits(q.mmc_wait_quantile_s(0.99, 8.0, 1.0, 10)) == "1.855785"
    assert digits(q.mmc_sojourn_quantile_s(0.95, 8.0, 1.0, 10)) == "3.328275"
    assert digits(q.mmc_sojourn_quantile_s(0.99, 8.0, 1.0, 10)) == "4.946111"


@pytest.mark.parametrize(
    ("service_scv", "wait"),
    [(0.0, "2.000000"), (0.5, "3.000000"), (1.0, "4.000000"), (4.0, "10.000000"), (math.e - 1, "5.436564")],
)
def test_case_3_mg1(service_scv: float, wait: str) -> None:
    assert digits(q.mg1(0.8, 1.0, service_scv).wait_s) == wait


def test_case_4_losses() -> None:
    assert digits(q.erlang_b(8.0, 10)) == digits(q.mmck(8.0, 1.0, 10, 10).p_lost) == "0.121661"
    short = q.mmck(0.9, 1.0, 1, 5)
    assert (digits(short.p_lost), digits(short.in_system)) == ("0.126023", "2.194782")
    overloaded = q.mmck(3.5, 1.0, 3, 10)
    assert (digits(overloaded.p_lost), digits(overloaded.sojourn_s)) == ("0.182952", "2.361199")


def test_case_5_erlang_a() -> None:
    station = q.erlang_a(12.0, 1.0, 10, 0.5)
    assert digits(station.p_lost) == "0.195656"
    assert digits(station.queued) == "4.695743"
    assert digits(station.p_wait) == "0.850385"
    assert digits(q.erlang_a(8.0, 1.0, 10, 0.5).p_lost) == "0.038821"
    assert digits(q.erlang_a(100.0, 1.0, 100, 1.0).p_lost) == "0.039861"


def test_case_8_closed_systems() -> None:
    assert [digits(x) for x in q.mva(20, 10.0, [0.4, 0.3])] == ["1.722025", "1.614231"]
    assert [digits(x) for x in q.repairman(50, 10.0, 1.0, 5)] == ["4.327164", "1.554913"]


def test_case_11_processor_sharing() -> None:
    assert digits(q.mg1_ps_sojourn_s(0.8, 1.0), 1) == "5.0"
    assert digits(q.mg1_ps_sojourn_s(0.8, 1.0, service_s=0.1), 1) == "0.5"
    full_rate_up_to_three = 12.0 * np.minimum(np.arange(1, 301), 3)
    p = q.birth_death(np.full(300, 10.0), full_rate_up_to_three)
    assert [digits(x) for x in p[:4]] == ["0.432133", "0.360111", "0.150046", "0.041679"]


def test_case_12_limited_processor_sharing() -> None:
    replica = q.limited_processor_sharing(8.0, 1.0, batch=32, slowdown=0.05)
    assert digits(replica.in_system) == "13.334318"
    assert digits(replica.sojourn_s) == "1.666790"
    assert digits(replica.p_wait) == "0.000902"


def test_case_13_supermarket() -> None:
    assert digits(q.supermarket_sojourn(0.9)) == "2.614057"
    assert digits(q.supermarket_sojourn(0.95)) == "3.383046"
    assert q.supermarket_sojourn(0.9, choices=1) == pytest.approx(10.0)
    assert q.supermarket_sojourn(0.0) == 1.0
    # Three choices, load 0.5: 1 + 1/2^3 + 1/2^12 + 1/2^39 by hand.
    assert q.supermarket_sojourn(0.5, choices=3) == pytest.approx(1 + 2**-3 + 2**-12 + 2**-39, rel=1e-15)


def test_case_15_set_up() -> None:
    assert q.mm1_setup_sojourn_s(0.5, 1.0, 5.0) == 7.0


def test_the_thousand_users_of_little() -> None:
    assert round(q.little(167.0, 1.1)) == 184


@given(st.floats(0.0, 50.0), counts)
def test_erlang_b_equals_its_definition(load: float, servers: int) -> None:
    terms = [load**k / math.factorial(k) for k in range(servers + 1)]
    assert q.erlang_b(load, servers) == pytest.approx(terms[-1] / math.fsum(terms), rel=1e-9, abs=1e-300)


@given(loads, rates)
def test_one_server_is_mm1_and_mg1_and_a_batch_of_one(load: float, service: float) -> None:
    arrival = load * service
    station = q.mmc(arrival, service, 1)
    assert station.sojourn_s == pytest.approx(1.0 / (service - arrival), rel=1e-9)
    assert station == pytest.approx(q.mg1(arrival, 1.0 / service, 1.0), rel=1e-9)
    assert station == pytest.approx(q.limited_processor_sharing(arrival, service, 1, 0.7), rel=1e-9)
    assert station.sojourn_s == pytest.approx(q.mg1_ps_sojourn_s(arrival, 1.0 / service), rel=1e-9)


@given(loads, rates, counts)
def test_jobs_that_do_not_disturb_each_other_are_mmc(load: float, service: float, servers: int) -> None:
    arrival = load * servers * service
    shared = q.limited_processor_sharing(arrival, service, batch=servers, slowdown=0.0)
    assert shared == pytest.approx(q.mmc(arrival, service, servers), rel=1e-7, abs=1e-12)


@given(loads, st.integers(1, 40))
def test_jobs_that_share_one_rate_wait_less_but_stay_as_long_as_in_mm1(load: float, batch: int) -> None:
    shared = q.limited_processor_sharing(load, 1.0, batch, slowdown=1.0)
    assert shared.sojourn_s == pytest.approx(1.0 / (1.0 - load), rel=1e-9)
    assert shared.p_wait == pytest.approx(load**batch, rel=1e-9)


@given(loads, rates, st.integers(1, 10))
def test_with_many_places_mmck_is_mmc(load: float, service: float, servers: int) -> None:
    arrival = 0.8 * load * servers * service
    many = q.mmck(arrival, service, servers, servers + 400)
    assert many == pytest.approx(q.mmc(arrival, service, servers), rel=1e-6, abs=1e-12)


@given(st.floats(0.1, 3.0), rates, st.integers(1, 30), st.integers(0, 30))
def test_arrivals_let_in_are_those_served(load: float, service: float, servers: int, room: int) -> None:
    arrival = load * servers * service
    station = q.mmck(arrival, service, servers, servers + room)
    busy = station.in_system - station.queued
    assert arrival * (1.0 - station.p_lost) == pytest.approx(busy * service, rel=1e-9)
    assert station.sojourn_s == pytest.approx(station.wait_s + 1.0 / service, rel=1e-9)
    assert 0.0 <= station.p_wait <= 1.0 + 1e-12


@given(st.floats(0.1, 2.0), st.integers(1, 40), st.floats(0.05, 20.0))
def test_whoever_does_not_give_up_is_served(load: float, servers: int, abandon: float) -> None:
    station = q.erlang_a(load * servers, 1.0, servers, abandon)
    assert load * servers * (1.0 - station.p_lost) == pytest.approx(
        station.in_system - station.queued, rel=1e-9
    )


@given(st.floats(0.1, 50.0), st.integers(1, 40))
def test_patience_as_long_as_service_is_an_endless_fleet(load: float, servers: int) -> None:
    # With equal rates the number present is Poisson: M/M/infinity.
    assert q.erlang_a(load, 1.0, servers, 1.0).in_system == pytest.approx(load, rel=1e-9)


def test_patience_without_end_is_mmc() -> None:
    patient = q.erlang_a(8.0, 1.0, 10, 1e-7)
    assert patient[:5] == pytest.approx(q.mmc(8.0, 1.0, 10)[:5], rel=1e-4)


@given(st.integers(1, 60), st.floats(0.1, 20.0), st.floats(0.1, 5.0))
def test_two_ways_to_solve_a_closed_loop_agree(users: int, think: float, service: float) -> None:
    assert q.repairman(users, think, service, 1) == pytest.approx(q.mva(users, think, [service]), rel=1e-7)


@given(st.integers(1, 60), st.floats(0.1, 20.0), st.integers(1, 8))
def test_closed_loops_stay_within_their_asymptotes(users: int, think: float, servers: int) -> None:
    loop = q.repairman(users, think, 1.0, servers)
    assert loop.throughput_per_s <= min(servers, users / (think + 1.0)) * (1 + 1e-9)
    assert users == pytest.approx(loop.throughput_per_s * (think + loop.response_s), rel=1e-9)


@given(st.floats(0.0, 0.999), loads, st.integers(1, 20))
def test_quantiles_invert_tails(share: float, load: float, servers: int) -> None:
    rates = (load * servers, 1.0, servers)
    wait = q.mmc_wait_quantile_s(share, *rates)
    tail = q.mmc_wait_tail(wait, *rates)
    assert tail == pytest.approx(1.0 - share, rel=1e-9) if wait > 0.0 else tail <= 1.0 - share
    sojourn = q.mmc_sojourn_quantile_s(share, *rates)
    assert q.mmc_sojourn_tail(sojourn, *rates) == pytest.approx(1.0 - share, rel=1e-6)


@pytest.mark.parametrize(("arrival", "servers"), [(8.0, 10), (1.0, 2), (0.8, 1)])
def test_tails_integrate_to_means(arrival: float, servers: int) -> None:
    # (1.0, 2) is the case in which wait and service decay at one rate.
    from scipy.integrate import quad

    station = q.mmc(arrival, 1.0, servers)
    for tail, mean in ((q.mmc_wait_tail, station.wait_s), (q.mmc_sojourn_tail, station.sojourn_s)):
        area, _ = quad(tail, 0.0, math.inf, args=(arrival, 1.0, servers))
        assert area == pytest.approx(mean, rel=1e-7)


def test_a_simulation_that_knows_no_formula_agrees() -> None:
    # M/M/10 queues side by side by the Kiefer-Wolfowitz recursion, which knows arrivals and services only.
    rng = np.random.default_rng(20260101)
    chains, customers, warm_up = 400, 4000, 500
    free_in = np.zeros((chains, 10))
    waits = np.empty((customers, chains))
    for i in range(customers):
        waits[i] = free_in[:, 0]
        free_in[:, 0] += rng.exponential(1.0, chains)
        free_in -= rng.exponential(1.0 / 8.0, (chains, 1))
        np.maximum(free_in, 0.0, out=free_in)
        free_in.sort(axis=1)
    kept = waits[warm_up:]
    for measured, exact in [
        (kept.mean(axis=0), q.mmc(8.0, 1.0, 10).wait_s),
        ((kept > 0.0).mean(axis=0), q.erlang_c(8.0, 10)),
        ((kept > 1.0).mean(axis=0), q.mmc_wait_tail(1.0, 8.0, 1.0, 10)),
    ]:
        error = 4.0 * measured.std(ddof=1) / math.sqrt(chains)
        assert error < 0.15 * exact
        assert measured.mean() == pytest.approx(exact, abs=error)


def test_large_systems_and_times_do_not_overflow() -> None:
    assert q.mmc_sojourn_tail(2000.0, 0.8, 1.0, 1) == pytest.approx(math.exp(-400.0), rel=1e-9)
    assert q.erlang_b(10_000.0, 10_000) == pytest.approx(math.sqrt(2 / (math.pi * 10_000)), rel=0.02)
    assert q.mmck(3000.0, 1.0, 2000, 5000).p_lost == pytest.approx(1 / 3, rel=1e-9)
    # Far overloaded, exactly the surplus gives up.
    assert q.erlang_a(3000.0, 1.0, 2000, 0.1).p_lost == pytest.approx(1 / 3, rel=1e-6)


def test_staffing_for_a_twentieth_who_wait_a_third_of_a_service() -> None:
    # Least servers with P(wait > 1/3 of a service) <= 5 %, a textbook pair: 14 at 10 erlangs.
    late = [s for s in range(11, 20) if q.mmc_wait_tail(1 / 3, 10.0, 1.0, s) <= 0.05]
    assert late[0] == 14


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: q.little(-1.0, 1.0), "little"),
        (lambda: q.erlang_b(-1.0, 1), "erlang_b"),
        (lambda: q.erlang_c(2.0, 2), "2 servers"),
        (lambda: q.mmc(1.0, 0.0, 1), "above 0"),
        (lambda: q.mmc(math.nan, 1.0, 1), "above 0"),
        (lambda: q.mmc_wait_tail(-1.0, 0.5, 1.0, 1), "time of at least 0"),
        (lambda: q.mmc_sojourn_tail(-1.0, 0.5, 1.0, 1), "time of at least 0"),
        (lambda: q.mmc_wait_quantile_s(1.0, 0.5, 1.0, 1), "below 1"),
        (lambda: q.mmc_sojourn_quantile_s(1.0, 0.5, 1.0, 1), "below 1"),
        (lambda: q.mg1(1.0, 1.0, 1.0), "load is 1"),
        (lambda: q.mg1(0.5, 1.0, -0.1), "service_scv"),
        (lambda: q.mg1_ps_sojourn_s(0.5, 1.0, 0.0), "service_s above 0"),
        (lambda: q.mm1_setup_sojourn_s(0.5, 1.0, -1.0), "mean_setup_s"),
        (lambda: q.supermarket_sojourn(1.0), "load < 1"),
        (lambda: q.birth_death([1.0], [1.0, 2.0]), "as many birth as death"),
        (lambda: q.birth_death([1.0], [0.0]), "above 0"),
        (lambda: q.mmck(1.0, 1.0, 3, 2), "servers <= places"),
        (lambda: q.erlang_a(1.0, 1.0, 0, 1.0), "at least one server"),
        (lambda: q.erlang_a(12.0, 1.0, 10, 1e-7), "raise abandon_per_s"),
        (lambda: q.limited_processor_sharing(13.0, 1.0, 32, 0.05), "serves 12.549/s"),
        (lambda: q.limited_processor_sharing(1.0, 1.0, 0, 0.05), "batch >= 1"),
        (lambda: q.repairman(0, 1.0, 1.0, 1), "one user"),
        (lambda: q.repairman(1, 0.0, 1.0, 1), "times above 0"),
        (lambda: q.mva(0, 1.0, [1.0]), "one user"),
        (lambda: q.mva(1, 1.0, []), "demands above 0"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

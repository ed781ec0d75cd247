"""What is fitted to a log's numbers: prices exactly where they are exact, latencies by their quantiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gamma

from glowsim.build import law as built
from glowsim.importing.fitting import LEAST, fit_rates, time_law, token_service, weighted
from glowsim.importing.part import ImportProblem, part
from glowsim.importing.tariff import costs, tariff
from glowsim.presets.prices import ModelPrices, Rates
from glowsim.scenario.laws import Quantiles, TokenService
from glowsim.scenario.quantities import Duration
from glowsim.traces.fit import LENGTH_P
from glowsim.traces.log import Log, Named, Reading

PRICE = st.integers(1, 50_000).map(lambda n: n / 1000 * 1e-6)


def tokens(seed: int, n: int = 60):
    rng = np.random.default_rng(seed)
    fresh, output = rng.integers(10, 4000, (2, n)).astype(float)
    cached, written = rng.integers(0, 9000, (2, n)).astype(float)
    return fresh, cached, written, output


@given(PRICE, PRICE, PRICE, PRICE, st.integers(0, 99))
def test_exact_prices_are_recovered_exactly(fresh_usd, cached_usd, written_usd, output_usd, seed) -> None:
    kinds = tokens(seed)
    usd = np.array([fresh_usd, cached_usd, written_usd, output_usd])
    found = fit_rates(*kinds, usd @ np.array(kinds))
    rates = found.rates
    np.testing.assert_allclose(
        [rates.input_usd, rates.cached_usd, rates.write_usd, rates.output_usd], usd, rtol=2e-6
    )
    assert found.left < 1e-5
    assert found.within == 1.0


def test_what_prices_do_not_explain_is_said() -> None:
    fresh, cached, written, output = tokens(1, 400)
    cost = fresh * 1e-6 + output * 4e-6
    cost[::10] *= 1.5
    found = fit_rates(fresh, 0 * cached, 0 * written, output, cost)
    assert found.rates.cached_usd is None
    assert 0.02 < found.left < 0.12
    assert found.within < 0.9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda kinds, cost: (kinds[0][:9], kinds[3][:9], cost[:9]),
            f"9 rows have tokens and a cost, and {LEAST}",
        ),
        (lambda kinds, cost: (kinds[0], kinds[0] * 0.1, cost), "fixed proportions"),
        (lambda kinds, cost: (kinds[0], kinds[3], np.random.default_rng(1).pareto(0.8, 60)), "unexplained"),
    ],
)
def test_prices_that_nothing_tells_are_refused(change, said) -> None:
    kinds = tokens(2)
    fresh, output, cost = change(kinds, kinds[0] * 1e-6 + kinds[3] * 4e-6)
    with pytest.raises(ImportProblem, match=said):
        fit_rates(fresh, 0 * fresh, 0 * fresh, output, cost)


def test_a_law_of_service_by_tokens_has_the_latencies_own_quantiles() -> None:
    rng = np.random.default_rng(3)
    tokens_in, tokens_out = rng.integers(100, 4000, 5000).astype(float), rng.lognormal(5, 0.8, 5000)
    noise = rng.gamma(9, 1 / 9, 5000)
    latency_s = (0.4 + 1e-4 * tokens_in + 0.02 * tokens_out) * noise
    law = TokenService.model_validate(token_service(tokens_in, tokens_out, latency_s))
    assert law.base_s == pytest.approx(0.4, rel=0.3)
    assert law.output_s_per_token == pytest.approx(0.02, rel=0.05)
    middle = [law.noise.x[law.noise.p.index(p)] for p in (0.1, 0.5, 0.9)]
    np.testing.assert_allclose(middle, gamma(9, scale=1 / 9).ppf((0.1, 0.5, 0.9)), rtol=0.05)
    drawn = built(law.noise).ppf(rng.random(5000))
    again = (law.base_s + law.input_s_per_token * tokens_in + law.output_s_per_token * tokens_out) * drawn
    np.testing.assert_allclose(
        np.quantile(again, (0.5, 0.95)), np.quantile(latency_s, (0.5, 0.95)), rtol=0.06
    )


def test_a_law_of_time_keeps_the_quantiles_that_it_is_made_of() -> None:
    values = np.random.default_rng(4).lognormal(0.0, 1.0, 2000)
    quantiles = np.quantile(values, LENGTH_P)
    law = Quantiles[Duration].model_validate(time_law(quantiles))
    np.testing.assert_allclose(law.x, quantiles, rtol=1e-5)


def test_weights_count_as_repetitions_do() -> None:
    rng = np.random.default_rng(5)
    values, weights = rng.random(200), rng.integers(1, 40, 200)
    repeated = np.quantile(np.repeat(values, weights), LENGTH_P)
    np.testing.assert_allclose(weighted(values, weights.astype(float)), repeated, atol=0.02)
    assert weighted(np.array([3.0, 1.0, 2.0]), np.ones(3))[LENGTH_P.index(0.5)] == 2.0


# --- tariffs -------------------------------------------------------------------------------------------


def log_of(**numbers: list[float]) -> Log:
    n = len(next(iter(numbers.values())))
    columns = {name: np.array(values, dtype=float) for name, values in numbers.items()}
    return Log("a.csv", "csv", np.arange(float(n)), Reading(n), numbers=columns)


def test_a_tariff_prices_rows_as_the_price_map_prices_calls() -> None:
    prices = ModelPrices("m", "", "", {
        ("standard", 0): Rates(3e-6, 15e-6, 0.3e-6, 3.75e-6, None, 20e-6), ("standard", 200_000): Rates(6e-6, 22e-6),
    })  # fmt: skip
    log = log_of(
        tokens_in=[1000, 200_000, 200_001], tokens_cached=[400, 0, 1000], tokens_cache_write=[100, 0, 0],
        tokens_out=[50, 50, 50], tokens_reasoning=[20, 0, 0],
    )  # fmt: skip
    one_by_one = [
        prices.cost_usd(fresh=500, cached=400, written=100, output=30, reasoning=20),
        prices.cost_usd(fresh=200_000, output=50),
        prices.cost_usd(fresh=199_001, cached=1000, output=50),
    ]
    np.testing.assert_allclose(costs(prices, log).usd, one_by_one, rtol=1e-12)


def test_a_map_goes_before_the_costs_of_the_log_and_a_provider_before_a_name_is_no_other_model() -> None:
    fresh, _, _, output = tokens(6)
    log = log_of(tokens_in=fresh, tokens_out=output, cost_usd=9e-6 * fresh + 9e-6 * output)
    entry = ModelPrices("m", "", "", {("standard", 0): Rates(1e-6, 2e-6)})
    assert tariff("openai/m", log, {"m": entry}).prices is entry  # type: ignore[arg-type]
    fitted = tariff("other", log, {"m": entry})  # type: ignore[arg-type]
    assert fitted.origin == "fitted"
    assert fitted.prices.at(0)[:2] == (9e-6, 9e-6)


def test_a_part_of_a_log_knows_nothing_of_the_rest() -> None:
    whole = Log(
        "a.csv", "csv", np.array([0.0, 5.0, 6.0]), Reading(3, remarks=("said",)), "2026-01-01T00:00:00+00:00",
        {"tokens_in": np.array([1.0, 2.0, 3.0]), "cost_usd": np.array([1.0, np.nan, np.nan])},
        {"model": Named(np.array([0, 2, 1]), ("x", "y", "z")), "agent": Named(np.array([0, -1, -1]), ("a",))},
    )  # fmt: skip
    found = part(whole, whole.t_s > 1)
    assert found.t_s.tolist() == [0.0, 1.0]
    assert found.epoch == "2026-01-01T00:00:05+00:00"
    assert list(found.numbers) == ["tokens_in"]
    assert list(found.names) == ["model"]
    assert found.names["model"].labels == ("z", "y")
    assert found.names["model"].codes.tolist() == [0, 1]
    assert found.reading.remarks == ()

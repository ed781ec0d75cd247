"""A fitted workload resembles its log: what is known of the log comes out of simulated runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from glowsim import traffic
from glowsim.presets.workloads import load, parse
from glowsim.traces import statistics
from glowsim.traces.fit import LENGTH_P, fit, write
from glowsim.traces.log import Log, LogError, Named, Reading
from glowsim.traces.reading import read

CODE = "azure_llm_2023/AzureLLMInferenceTrace_code.csv"


@pytest.fixture(scope="module")
def azure_code(data_file) -> Log:
    return read(data_file(CODE))


def log_of(t_s: Any, tokens_in: Any, tokens_out: Any, **names: Named) -> Log:
    numbers = {"tokens_in": np.asarray(tokens_in, float), "tokens_out": np.asarray(tokens_out, float)}
    return Log(
        "log.csv", "csv", np.asarray(t_s, float), Reading(len(t_s)), numbers=numbers, names=dict(names)
    )


def poisson_log(n: int = 4000, rate_per_s: float = 2.0, seed: int = 1) -> Log:
    generator = np.random.default_rng(seed)
    t_s = np.cumsum(generator.exponential(1 / rate_per_s, n))
    tokens_in = np.rint(generator.lognormal(6, 1, n))
    return log_of(t_s - t_s[0], tokens_in, np.rint(tokens_in * generator.lognormal(-2, 0.5, n)))


def close(said: dict[str, Any], key: str, within: float) -> None:
    """The mean of the runs is within so many per cent of the log's."""
    wanted, (mean, _) = said["statistics"]["target"][key], said["statistics"]["achieved"][key]
    assert abs(mean / wanted - 1) <= within / 100, f"{key}: {mean} for {wanted}"


@pytest.mark.parametrize("envelope", ["stochastic", "recorded"])
def test_the_azure_code_hour_comes_out_at_three_scales(envelope: Any, azure_code) -> None:
    said = fit(azure_code, traffic.play, envelope=envelope)
    assert said["arrivals"]["window_s"] <= 10, "a minute hides its bursts"
    for scale in ("dispersion_1s", "dispersion_10s", "dispersion_60s"):
        close(said, scale, 15)
    close(said, "gap_cv", 15)
    close(said, "idle_share", 15)


def test_an_envelope_of_a_minute_cannot_hold_the_bursts_of_code(azure_code) -> None:
    said = fit(azure_code, traffic.play, window_s=60.0, samples=5)
    wanted = said["statistics"]["target"]["dispersion_10s"]
    assert said["statistics"]["achieved"]["dispersion_10s"][0] < 0.75 * wanted


def test_what_was_recorded_has_its_peaks_where_the_log_has_them(azure_code) -> None:
    log = azure_code
    recorded = parse(fit(log, traffic.play, envelope="recorded", samples=2), "recorded")
    stochastic = parse(fit(log, traffic.play, samples=2), "stochastic")
    wanted = statistics.counts(log.t_s, 60.0)
    for preset, low, high in ((recorded, 0.9, 1.0), (stochastic, -0.5, 0.5)):
        counts = statistics.counts(np.append(traffic.play(preset, 3, log.t_s[-1]), log.t_s[-1]), 60.0)
        assert low <= np.corrcoef(counts, wanted)[0, 1] <= high, preset.kind


def test_poisson_arrivals_are_fitted_by_poisson_arrivals() -> None:
    said = fit(poisson_log(), traffic.play)
    assert 0.85 < said["arrivals"]["cv"] < 1.15
    for key in ("dispersion_1s", "dispersion_10s", "gap_cv"):
        assert said["statistics"]["achieved"][key][0] == pytest.approx(1.0, abs=0.1), key


def test_a_known_process_is_recovered_from_its_own_run() -> None:
    """What a preset sends, fitted, sends alike: at a scale that the fit was not told of as well."""
    known = load("azure_conv").at_rate(2.0)
    t_s = traffic.play(known, 11, 4 * 3600.0)
    n = len(t_s)
    said = fit(log_of(t_s - t_s[0], np.arange(n) % 97, np.arange(n) % 89), traffic.play, window_s=60.0)
    for key in ("dispersion_1s", "dispersion_10s", "dispersion_60s", "gap_cv"):
        close(said, key, 20)
    wide = [
        statistics.dispersion(traffic.play(parse(said, "again"), seed, t_s[-1]), 300.0) for seed in range(10)
    ]
    assert np.mean(wide) == pytest.approx(statistics.dispersion(t_s, 300.0), rel=0.4)


def test_lengths_and_their_rank_correlation_are_kept() -> None:
    log = poisson_log()
    said = fit(log, traffic.play, samples=2)
    assert said["lengths"]["spearman"] == pytest.approx(
        statistics.spearman(log.numbers["tokens_in"], log.numbers["tokens_out"]), abs=1e-4
    )
    np.testing.assert_allclose(
        said["lengths"]["tokens_in"], np.quantile(log.numbers["tokens_in"], LENGTH_P), rtol=1e-3
    )


def test_tenants_keep_their_shares_and_their_lengths() -> None:
    """A third of the requests is a tenant's whose prompts are ten times as long; half of the rest have no tenant."""
    generator = np.random.default_rng(5)
    n = 6000
    codes = np.where(np.arange(n) % 3 == 0, 0, np.where(np.arange(n) % 3 == 1, 1, -1))
    tokens_in = generator.lognormal(5, 0.4, n) * np.where(codes == 0, 10, 1)
    tokens_out = generator.lognormal(4, 1, n) * np.where(codes == 0, 50, 1)
    log = log_of(np.arange(n) / 5, tokens_in, tokens_out, tenant=Named(codes, ("long", "short")))
    assert statistics.spearman(tokens_in, tokens_out) > 0.5
    said = fit(log, traffic.play, samples=2)
    assert [client["share"] for client in said["clients"]] == [pytest.approx(1 / 3, abs=1e-3)] * 3
    medians = sorted(client["tokens_in"][4] for client in said["clients"])
    assert medians[2] > 0.9
    assert medians[0] == pytest.approx(medians[1], abs=0.1)
    assert abs(said["lengths"]["spearman"]) < 0.04, "their sizes differ, within one they do not go together"


def test_small_tenants_are_together_one() -> None:
    codes = np.concatenate([np.repeat(np.arange(200), 3), np.full(1400, 200)])
    log = poisson_log(len(codes))
    log.names["user"] = Named(codes, tuple(map(str, range(201))))
    said = fit(log, traffic.play, samples=2)
    assert len(said["clients"]) == 51
    assert sum(client["share"] for client in said["clients"]) == pytest.approx(1, abs=1e-3)
    assert said["clients"][0]["share"] == pytest.approx(0.7)


def test_sessions_come_along() -> None:
    log = poisson_log(900)
    log.names["session"] = Named(np.arange(900) // 3, tuple(map(str, range(300))))
    said = fit(log, traffic.play, samples=2)
    sessions = parse(said, "fitted").sessions
    assert sessions is not None
    assert sessions["turns"]["x"] == [3] * len(sessions["turns"]["p"])
    assert sessions["rate_per_s"] == pytest.approx(300 / log.t_s[-1], rel=1e-4)
    assert sessions["think_from_end"] is False
    assert said["origins"]["sessions"]["origin"] == "fitted"


def test_it_is_written_as_it_is_read() -> None:
    said = fit(poisson_log(), traffic.play, name="mine", samples=2)
    text = write(said)
    again = YAML(typ="safe", pure=True).load(text)
    assert parse(again, "again") == parse(said, "said")
    assert again["name"] == "mine"
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_two_fits_of_a_log_are_the_same() -> None:
    assert fit(poisson_log(800), traffic.play, samples=3) == fit(poisson_log(800), traffic.play, samples=3)


def test_a_slow_log_is_fitted_at_its_own_pace() -> None:
    """Thirty requests a day for a month: windows of a minute would hold nothing."""
    said = fit(poisson_log(900, rate_per_s=30 / 86400), traffic.play, samples=3)
    assert said["arrivals"]["window_s"] > 7200
    assert said["statistics"]["achieved"]["gap_cv"][0] == pytest.approx(1.0, abs=0.15)


def test_a_slow_and_regular_log_stays_regular() -> None:
    """Thirty jobs a day, some 48 minutes apart: the dispersion at a second does not know, the gaps do."""
    gaps = np.random.default_rng(3).gamma(10.0, 288.0, 1200)
    t_s = np.cumsum(gaps) - gaps[0]
    said = fit(log_of(t_s, np.arange(1200) % 7, np.arange(1200) % 5), traffic.play, samples=6)
    assert said["statistics"]["target"]["gap_cv"] == pytest.approx(0.32, abs=0.02)
    close(said, "gap_cv", 15)


@pytest.mark.parametrize(
    ("log", "options", "said"),
    [
        (poisson_log(50), {}, "at least 100"),
        (Log("a.csv", "csv", np.arange(200.0), Reading(200)), {}, "no tokens_in"),
        (log_of(np.arange(200.0), np.full(200, np.nan), np.arange(200)), {}, "no tokens_in"),
        (log_of(np.zeros(200), np.arange(200), np.arange(200)), {}, "all at one time"),
        (poisson_log(200), {"window_s": 1e6}, "shorter"),
    ],
)
def test_what_cannot_be_fitted_says_why(log: Log, options: dict[str, Any], said: str) -> None:
    with pytest.raises(LogError, match=said):
        fit(log, traffic.play, **options)

"""Statistics of recorded workloads: what theory, independent implementations and published tables say."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from glowsim.traces import statistics
from glowsim.traces.log import Log, LogError, Named, Reading


def test_a_poisson_process_has_dispersion_one_at_every_scale_and_gaps_of_variation_one() -> None:
    t_s = np.cumsum(np.random.default_rng(1).exponential(0.2, 200_000))
    for window_s in (1.0, 10.0, 60.0):
        found = statistics.dispersion(t_s, window_s)
        assert abs(found - 1) < 4.5 * np.sqrt(2 / (t_s[-1] / window_s))
        assert abs(statistics.autocorrelation(t_s, window_s, 1)) < 4.5 / np.sqrt(t_s[-1] / window_s)
    assert statistics.variation(t_s) == pytest.approx(1.0, abs=0.01)


def test_batches_have_the_dispersion_of_theory() -> None:
    """Poisson batches of 1 to 9: E[B^2] / E[B] = 95/15."""
    generator = np.random.default_rng(2)
    moments = np.cumsum(generator.exponential(1.0, 60_000))
    t_s = np.repeat(moments, generator.integers(1, 10, 60_000))
    assert statistics.dispersion(t_s, 10.0) == pytest.approx(285 / 45, rel=0.08)


def test_a_window_that_the_end_cuts_short_does_not_count() -> None:
    t_s = np.array([0.0, 1.0, 9.9, 10.5])
    assert statistics.counts(t_s, 10.0).tolist() == [3]
    assert statistics.counts(np.array([0.0, 10.0]), 10.0).tolist() == [1]


@pytest.mark.parametrize("t_s", [[], [0.0], [0.0, 0.0], [0.0, 0.5]])
def test_what_a_log_is_too_short_for_is_nan(t_s: list[float]) -> None:
    moments = np.array(t_s)
    assert np.isnan(statistics.dispersion(moments, 60.0))
    assert np.isnan(statistics.peak_to_mean(moments))
    assert np.isnan(statistics.autocorrelation(moments, 60.0, 1))


def test_the_azure_code_hour_is_what_the_reference_says(data_file) -> None:
    with data_file("azure_llm_2023/AzureLLMInferenceTrace_code.csv").open() as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    t_s = np.array([(each - times[0]).total_seconds() for each in times])
    found = [statistics.dispersion(t_s, window_s) for window_s in (1.0, 10.0, 60.0)]
    np.testing.assert_allclose(found, [13.19, 71.85, 166.89], rtol=1e-3)
    assert statistics.variation(t_s) == pytest.approx(13.15, rel=1e-3)
    assert statistics.peak_to_mean(t_s) == pytest.approx(4.178, rel=1e-3)
    assert statistics.idle_share(t_s) == pytest.approx(0.58, abs=0.005)
    assert statistics.autocorrelation(t_s, 1.0, 1) == pytest.approx(0.757, abs=0.001)
    tokens = [np.array([float(row[name]) for row in rows]) for name in ("ContextTokens", "GeneratedTokens")]
    assert statistics.spearman(*tokens) == pytest.approx(-0.0215, abs=1e-4)


def test_mooncakes_prefixes_are_counted_exactly(data_file) -> None:
    with gzip.open(data_file("mooncake/conversation_trace.jsonl.gz"), "rt") as file:
        rows = [json.loads(line) for line in file]
    found = statistics.prefix_sharing(
        [row["hash_ids"] for row in rows], 512, np.array([float(row["input_length"]) for row in rows])
    )
    assert (found.blocks, found.unique, found.hits, found.requests_hit) == (288_500, 182_790, 105_710, 12_030)
    assert found.token_share == pytest.approx(0.3736, abs=5e-5)


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=12))
def test_prefix_hits_are_those_of_a_plain_search(prompts: list[list[int]]) -> None:
    found = statistics.prefix_sharing(prompts, 16)
    hits = 0
    for i, prompt in enumerate(prompts):
        before = {block for earlier in prompts[:i] for block in earlier}
        hits += next((n for n, block in enumerate(prompt) if block not in before), len(prompt))
    assert found.hits == hits
    assert found.blocks == len([block for prompt in prompts for block in prompt])
    assert found.unique == len({block for prompt in prompts for block in prompt})
    assert np.isnan(found.tokens)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(statistics.spearman(a, b))
        return
    assert statistics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    padded = statistics.spearman(np.append(a, np.nan), np.append(b, 1.0))
    assert padded == pytest.approx(statistics.spearman(a, b), abs=1e-12)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_gini_is_the_mean_difference_over_twice_the_mean(weights: list[int]) -> None:
    found = statistics.skew(weights)
    each = np.array([w for w in weights if w])
    apart = np.abs(each[:, None] - each[None, :]).mean()
    assert found.gini == pytest.approx(apart / (2 * each.mean()), abs=1e-12)
    upto = np.cumsum(found.shares)
    assert upto[found.for_most - 1] >= 0.9 - 1e-9
    assert found.for_most == 1 or upto[found.for_most - 2] < 0.9
    assert found.top[2] == pytest.approx(upto[: min(10, len(upto))][-1])


def talk(latency: bool = True) -> Log:
    """Session a: three turns, the last one compacted; b: one; a row without a session in between."""
    numbers = {
        "tokens_in": np.array([100.0, 7.0, 50.0, 160.0, 90.0]),
        "tokens_out": np.array([20.0, 1.0, 5.0, 30.0, 5.0]),
    }
    if latency:
        numbers["latency_s"] = np.array([4.0, 1.0, 1.0, 15.0, 1.0])
    session = Named(np.array([0, -1, 1, 0, 0]), ("a", "b"))
    t_s = np.array([0.0, 1.0, 2.0, 10.0, 20.0])
    return Log("a.jsonl", "test", t_s, Reading(5), numbers=numbers, names={"session": session})


def test_sessions_have_turns_thinking_and_growth() -> None:
    found = statistics.sessions(talk())
    assert found.number == 2
    assert sorted(found.turns.tolist()) == [1, 3]
    assert found.think_s.tolist() == [6.0, 0.0]
    assert (found.from_end, found.overlapping) == (True, 1)
    assert sorted(found.first_tokens.tolist()) == [50.0, 100.0]
    assert found.new_tokens.tolist() == [40.0, 0.0]
    assert found.shrunk == 1


def test_without_latencies_thinking_is_from_start_to_start_and_says_so() -> None:
    found = statistics.sessions(talk(latency=False))
    assert found.think_s.tolist() == [10.0, 10.0]
    assert not found.from_end


def test_a_log_without_sessions_says_so() -> None:
    with pytest.raises(LogError, match="no column 'session'"):
        statistics.sessions(Log("a.csv", "csv", np.arange(3.0), Reading(3)))

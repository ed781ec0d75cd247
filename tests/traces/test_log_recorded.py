"""Real traces: what is read is what was published about them. Named by GLOWSIM_DATA, or skipped."""

from __future__ import annotations

import numpy as np
import pytest

from glowsim.traces.reading import read


@pytest.fixture(scope="module")
def recorded(data_file):
    return lambda file: read(data_file(file))


def test_azure_code_is_the_one_of_the_paper(recorded) -> None:
    log = recorded("azure_llm_2023/AzureLLMInferenceTrace_code.csv")
    assert (len(log), log.format, log.reading.refused_count, log.reading.unknown) == (
        8819,
        "azure_llm",
        0,
        {},
    )
    assert log.epoch == "2023-11-16T18:17:03.979960+00:00"
    assert [np.median(log.numbers[name]) for name in ("tokens_in", "tokens_out")] == [1469.0, 13.0]
    assert log.t_s[-1] == pytest.approx(3436, abs=1)


def test_mooncake_conversation_has_its_blocks_and_arrives_smoothly(recorded) -> None:
    log = recorded("mooncake/conversation_trace.jsonl.gz")
    assert (len(log), log.format, log.reading.refused_count, log.reading.unknown) == (
        12031,
        "mooncake",
        0,
        {},
    )
    assert round(float(log.numbers["tokens_in"].mean())) == 12035
    assert log.blocks is not None
    counts = [len(blocks) for blocks in log.blocks]
    assert sum(counts) == 288_500
    assert len({each for blocks in log.blocks for each in blocks}) == 182_790
    assert counts == np.ceil(log.numbers["tokens_in"] / log.block_tokens).astype(int).tolist()
    per_second = np.bincount(log.t_s.astype(int))
    assert 0.85 < per_second.var() / per_second.mean() < 1.35  # on the grid it is 7.9
    per_minute = np.bincount((log.t_s / 60.0).astype(int))[:-1]
    assert 2.0 < per_minute.var() / per_minute.mean() < 4.0


@pytest.mark.parametrize("folder", ["sanitized", "derived"])
def test_tracelab_sessions_of_both_providers(folder: str, recorded) -> None:
    log = recorded(f"tracelab_example/example_sessions/{folder}/round_trace.jsonl")
    assert (len(log), log.format, log.reading.refused_count, log.reading.unknown) == (19, "tracelab", 0, {})
    agents, sessions = log.names["agent"], log.names["session"]
    assert set(agents.labels) == {"claude", "codex"}
    for name, calls in (("claude", 10), ("codex", 9)):
        of = agents.codes == agents.labels.index(name)
        assert len(set(sessions.codes[of])) == 1
        assert log.numbers["turn"][of].tolist() == list(range(calls))
        wrote = log.numbers["tokens_cache_write"][of]
        assert np.isnan(wrote).all() == (name == "codex")
        assert np.isnan(log.numbers["tokens_reasoning"][of]).all() == (name == "claude")
    latency_s = log.numbers["latency_s"]
    assert 1.0 < latency_s.min() < latency_s.max() < 35.0
    cached = log.numbers["tokens_cached"].sum() / log.numbers["tokens_in"].sum()
    assert cached == pytest.approx(0.92, abs=0.04)

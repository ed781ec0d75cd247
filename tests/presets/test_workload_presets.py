"""Workload presets: well formed, of known origin, and like the traces that they stand for at several time scales."""

from __future__ import annotations

import copy
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim import build, traffic
from glowsim.core.streams import Streams
from glowsim.presets import PresetError, read, workloads
from glowsim.results import fold
from glowsim.scenario import Scenario
from glowsim.sim.laws import Quantiles
from glowsim.sim.workload.clients import Sizes, joint_tokens
from glowsim.sim.workload.renewal import Flow, Sender, levels, renewal, superposed
from glowsim.traces import statistics
from glowsim.traces.fit import write

HOUR_S = 3600.0


def moments(rates: list[float], window_s: float, cv: float, seed: int = 1) -> np.ndarray[Any, Any]:
    until_s = len(rates) * window_s
    blocks = renewal(np.array(rates), window_s, cv, np.random.default_rng(seed), until_s)
    return np.concatenate([*blocks, np.empty(0)])


# --- the generator --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.5])
def test_at_a_steady_rate_gaps_are_gamma_and_counts_disperse_by_the_square_of_their_cv(cv: float) -> None:
    """The index of dispersion of a renewal process tends to CV^2: Cox, Renewal Theory, 1962."""
    found = moments([20.0], 20_000.0, cv)
    assert len(found) / 400_000 == pytest.approx(1, abs=4.5 * cv / np.sqrt(400_000))
    assert statistics.variation(found) == pytest.approx(cv, rel=0.02)
    assert statistics.dispersion(found, 20.0) == pytest.approx(cv**2, rel=0.2)


def test_it_is_in_its_steady_state_from_the_first_moment_on() -> None:
    """A renewal process that starts with an arrival has too many soon after: with a CV of 3 far too many."""
    soon = [int((moments([1.0], 200.0, 3.0, seed) < 2.0).sum()) for seed in range(4000)]
    assert np.mean(soon) == pytest.approx(2.0, abs=4.5 * np.std(soon) / np.sqrt(4000))


def test_arrivals_are_where_the_rate_is() -> None:
    found = moments([0.0, 500.0, 0.0, 100.0], 10.0, 1.0)
    held = np.histogram(found, [0, 10, 20, 30, 40])[0]
    assert held[0] == held[2] == 0
    assert abs(held[1] - 5000) < 4.5 * np.sqrt(5000)
    assert abs(held[3] - 1000) < 4.5 * np.sqrt(1000)
    assert np.all(np.diff(found) >= 0)


def test_rates_under_one_seed_stay_paired() -> None:
    slow, fast = moments([10.0], 1000.0, 2.0), moments([20.0], 1000.0, 2.0)
    np.testing.assert_allclose(slow, 2 * fast[: len(slow)])


@given(st.floats(0.3, 5.0), st.floats(0.5, 30.0), st.integers(0, 9))
@settings(max_examples=25)
def test_nothing_arrives_at_the_end_or_after(cv: float, rate: float, seed: int) -> None:
    blocks = list(renewal(np.full(4, rate), 10.0, cv, np.random.default_rng(seed), 35.0))
    assert all(block[0] >= 0 and block[-1] < 35.0 for block in blocks)


def test_a_rate_of_zero_ends_at_once() -> None:
    assert len(moments([0.0, 0.0], 10.0, 1.0)) == 0


def test_levels_have_their_law_and_their_memory() -> None:
    """Scores k windows apart correlate by sum share exp(-k window / time); here levels are the scores' ranks."""
    n, memory = 200_000, ((0.5, 20.0), (0.3, 200.0))
    found = levels((0.0, 1.0), (0.0, 1.0), memory, 10.0, np.random.default_rng(3), n)
    np.testing.assert_allclose(np.quantile(found, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    for k in (1, 5):
        scores = 0.5 * np.exp(-k * 0.5) + 0.3 * np.exp(-k * 0.05)
        ranks = 6 / np.pi * np.arcsin(scores / 2)
        assert np.corrcoef(found[k:], found[:-k])[0, 1] == pytest.approx(ranks, abs=0.02)


def test_levels_are_steady_from_the_first_on() -> None:
    first = [
        levels((0.0, 1.0), (0.0, 1.0), ((1.0, 1e5),), 1.0, np.random.default_rng(seed), 2)[0]
        for seed in range(2000)
    ]
    assert np.var(first) == pytest.approx(1 / 12, rel=0.1)


def test_senders_together_are_in_order_and_each_keeps_its_rate_and_its_draws() -> None:
    senders = (Sender(5.0, 1.0, (1.0, 1.0)), Sender(1.0, 2.0, (1.0, 1.0)), Sender(0.0, 1.0, (1.0, 1.0)))

    def sent(chosen: tuple[Sender, ...], until_s: float) -> tuple[Any, Any]:
        generators = (np.random.default_rng(seed) for seed in count())
        blocks = list(superposed(Flow(60.0, (0.0, 1.0), (), chosen), generators, until_s))
        return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])

    t_s, who = sent(senders, 5000.0)
    assert np.all(np.diff(t_s) >= 0)
    assert t_s[-1] < 5000.0
    assert np.bincount(who, minlength=3).tolist() == [
        pytest.approx(25_000, rel=0.04), pytest.approx(5_000, rel=0.13), 0,
    ]  # fmt: skip
    np.testing.assert_array_equal(t_s[who == 0], sent(senders[:1], 5000.0)[0])
    np.testing.assert_array_equal(
        sent(senders, 1000.0)[0], t_s[t_s < 1000.0][: len(sent(senders, 1000.0)[0])]
    )


@pytest.mark.parametrize("spearman", [-0.5, 0.0, 0.8])
def test_tokens_have_their_quantiles_and_their_rank_correlation(spearman: float) -> None:
    p, x = (0.0, 0.5, 0.9, 1.0), (10.0, 1000.0, 5000.0, 7000.0)
    sizes, nobody = Sizes(Quantiles(p, x), Quantiles(p, x), spearman), np.zeros(100_000, dtype=np.int64)
    tokens_in, tokens_out = joint_tokens(sizes, None, nobody, np.random.default_rng(1))
    assert statistics.spearman(tokens_in.astype(float), tokens_out.astype(float)) == pytest.approx(
        spearman, abs=0.01
    )
    for tokens in (tokens_in, tokens_out):
        np.testing.assert_allclose(np.quantile(tokens, [0.5, 0.9]), [1000, 5000], rtol=0.03)


# --- the presets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", workloads.preset_names())
def test_every_preset_is_well_formed_and_says_where_its_numbers_come_from(name: str) -> None:
    preset = workloads.load(name)
    assert preset.name == name
    assert all(len(entry["source"]) > 20 for entry in preset.origins.values())
    assert preset.statistics["target"]
    text = write(read("workloads", name))
    assert len(text) < 24_000, "a description, not a copy"


BANDS = {
    "azure_code": (3435.9, {"dispersion_1s": (13.2, 15), "dispersion_10s": (71.9, 15), "dispersion_60s": (166.9, 20),
                            "gap_cv": (13.15, 20), "idle_share": (0.58, 20), "peak_to_mean": (4.18, 25)}),
    "azure_conv": (3501.7, {"dispersion_1s": (1.39, 15), "dispersion_10s": (3.87, 25), "dispersion_60s": (16.4, 25),
                            "gap_cv": (1.09, 10), "peak_to_mean": (1.52, 15)}),
    "mooncake_conv": (3539.6, {"dispersion_10s": (1.5, 15), "dispersion_60s": (2.95, 20), "gap_cv": (1.02, 5),
                               "peak_to_mean": (1.21, 10)}),
}  # fmt: skip
"""Length of the trace; statistic -> what the trace has, and how far (in per cent) the mean of 24 runs may be off."""


@pytest.mark.parametrize("name", BANDS)
def test_arrivals_are_like_the_traces_at_three_scales(name: str) -> None:
    preset, (span_s, bands) = workloads.load(name), BANDS[name]
    runs = [traffic.play(preset, seed, span_s) for seed in range(24)]
    rates = [len(run) / span_s for run in runs]
    assert np.mean(rates) == pytest.approx(preset.rate_per_s, abs=4 * np.std(rates) / np.sqrt(24))
    for key, (wanted, within) in bands.items():
        seen = [measured(run, key) for run in runs]
        assert abs(np.mean(seen) / wanted - 1) <= within / 100, f"{key}: {np.mean(seen)} for {wanted}"
        assert min(seen) <= wanted <= max(seen), f"{key}: no run is like the trace"
        assert np.std(seen) > 0, "two seeds differ"


def measured(run: Any, key: str) -> float:
    if key.startswith("dispersion"):
        return statistics.dispersion(run, float(key.removeprefix("dispersion_").removesuffix("s")))
    return {
        "gap_cv": statistics.variation, "idle_share": statistics.idle_share, "peak_to_mean": statistics.peak_to_mean,
    }[key](run)  # fmt: skip


def test_a_week_of_code_traffic_goes_on_as_it_began() -> None:
    run = traffic.play(workloads.load("azure_code"), 5, 24 * HOUR_S)
    halves = run[run < 12 * HOUR_S], run[run >= 12 * HOUR_S] - 12 * HOUR_S
    for half in halves:
        assert statistics.dispersion(half, 10.0) == pytest.approx(76, rel=0.2)
        assert len(half) / (12 * HOUR_S) == pytest.approx(2.567, rel=0.15)


def test_many_clients_send_in_servegens_way() -> None:
    """The superposition of the pool's published clients over a day: 12.1 / 53.0 / 264.5, gap CV 1.74."""
    preset = workloads.load("servegen_deepseek_r1")
    seen = np.array(
        [
            [statistics.dispersion(run, 1.0), statistics.dispersion(run, 10.0), statistics.dispersion(run, 60.0),
             statistics.variation(run)]
            for run in (traffic.play(preset, seed, 12 * HOUR_S) for seed in range(3))
        ]
    )  # fmt: skip
    np.testing.assert_allclose(seen.mean(axis=0), [12.1, 53.0, 264.5, 1.74], rtol=0.3)
    skew = statistics.skew([client.share for client in preset.clients])
    assert skew.top == pytest.approx((0.286, 0.525, 0.677), abs=0.003)
    assert (skew.number, skew.for_most) == (73, 25)
    assert skew.gini == pytest.approx(0.752, abs=0.003)


LENGTHS = {
    "azure_code": ((2048, 1469, 5188, 7436), (27.9, 13, 55, 251), -0.02),
    "azure_conv": ((1155, 1020, 2735, 4142), (211, 129, 424, 601), 0.07),
    "mooncake_conv": ((12035, 6909, 27367, 85400), (343, 350, 597, 1119), 0.07),
    "servegen_deepseek_r1": ((1268, 208, 2092, 23423), (1527, 792, 3432, 12607), None),
}
"""Mean, p50, p90, p99 of tokens in and out, and their rank correlation; ServeGen's recomputed, with each client's law
of a quarter day weighted by its rate in all windows."""


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_are_those_of_the_trace(name: str) -> None:
    preset = workloads.load(name)
    wanted_in, wanted_out, spearman = LENGTHS[name]
    generator, clients = np.random.default_rng(1), traffic.clients(preset)
    shares = np.array([1.0] if clients is None else clients.shares)
    who = generator.choice(len(shares), 200_000, p=shares / shares.sum())
    found = joint_tokens(traffic.sizes(preset), clients, who, generator)
    within = 0.05 if clients is None else 0.15  # each client's own law is kept by nine quantiles
    for tokens, wanted in zip(found, (wanted_in, wanted_out), strict=True):
        seen = [tokens.mean(), *np.quantile(tokens, [0.5, 0.9, 0.99])]
        np.testing.assert_allclose(seen, wanted, rtol=within)
    if spearman is not None:
        assert statistics.spearman(found[0].astype(float), found[1].astype(float)) == pytest.approx(
            spearman, abs=0.02
        )


def test_coding_agents_have_the_means_of_the_dataset_cards() -> None:
    preset = workloads.load("coding_agent")
    assert mean_of(preset.lengths.p, preset.lengths.tokens_in) == pytest.approx(67_818, rel=0.01)
    assert mean_of(preset.lengths.p, preset.lengths.tokens_out) == pytest.approx(527.9, rel=0.01)
    sessions = preset.sessions
    assert sessions is not None
    for part, mean in (("turns", 9.2), ("calls_per_turn", 8.8), ("tools_per_call", 1.2)):
        assert mean_of(sessions[part]["p"], sessions[part]["x"]) == pytest.approx(mean, rel=0.04), part
    for part, mean in (("new_tokens", 6552), ("tokens_out", 525)):
        law = sessions[part]
        assert law["median"] * np.exp(law["sigma"] ** 2 / 2) == pytest.approx(mean, rel=0.02), part


def mean_of(p: Any, x: Any) -> float:
    return float(np.sum(np.diff(p) * (np.array(x[1:]) + np.array(x[:-1])) / 2))


def test_mooncakes_sessions_are_the_chains_that_the_reference_infers() -> None:
    sessions = workloads.load("mooncake_conv").sessions
    assert sessions is not None
    assert sessions["rate_per_s"] == pytest.approx(7373 / 3537, rel=0.01)
    law = Quantiles(tuple(sessions["think_s"]["p"]), tuple(sessions["think_s"]["x"]))
    assert law.ppf(np.array([0.5]))[0] == 123
    assert mean_of(sessions["turns"]["p"], sessions["turns"]["x"]) == pytest.approx(1.63, rel=0.01)


# --- what cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("rate_per_s", -1, "rate_per_s: must lie in"),
        ("rate_per_s", True, "rate_per_s: must be a number"),
        ("name", None, "name: must be a text"),
        ("arrivals.kind", "poisson", "arrivals: kind: must be one of stochastic, recorded"),
        ("arrivals.cv", 0, "arrivals: cv: must lie in"),
        ("arrivals.p", [0, 0.5], "arrivals: p: must increase from 0 to 1"),
        ("arrivals.level", [1, 2, 3], "arrivals: level: must be 23 numbers"),
        ("arrivals.level", [3.0] * 23, "must have the mean 1, and has 3.000"),
        ("arrivals.memory", [{"share": 0.8, "time_s": 1}, {"share": 0.3, "time_s": 1}], "more than 1"),
        ("arrivals.memory", [{"share": 0.8}], r"arrivals: memory\[0\]: time_s: is missing"),
        ("lengths.spearman", 2, "lengths: spearman: must lie in"),
        ("lengths.tokens_in", [5, 4], "lengths: tokens_in: must be 55 numbers that never decrease"),
        ("lengths", None, "lengths: must be a mapping"),
        ("origins", {}, "origins: arrivals: is missing"),
        ("origins.lengths", {"origin": "guessed", "source": "a"}, "must be one of measured"),
        ("clients", [{"share": 0.5, "tokens_in": [0, 1], "tokens_out": [0, 1]}], "clients: their shares must add up"),
        ("clients", [{"share": 1.0, "tokens_in": [0], "tokens_out": [0, 1]}], r"clients\[0\]: tokens_in: must be 2"),
        ("clients", [{"share": 1.0, "cv": 1, "level": [1.0] * 23, "tokens_in": [0, 1], "tokens_out": [0, 1]}],
         "arrivals: cv: and 'level' belong to the clients"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_with_its_place(place: str, value: Any, said: str) -> None:
    preset = copy.deepcopy(read("workloads", "azure_code"))
    *path, last = place.split(".")
    within = preset
    for key in path:
        within = within[key]
    within[last] = value
    if place == "clients":
        preset["lengths"]["client_p"] = [0, 1]
        preset["origins"]["clients"] = {"origin": "assumed", "source": "a test of what is refused"}
    with pytest.raises(PresetError, match=said):
        workloads.parse(preset, "here")


def test_an_unknown_preset_says_which_there_are() -> None:
    with pytest.raises(PresetError, match="choose from azure_code, azure_conv, coding_agent"):
        workloads.load("azure")


def test_a_file_that_is_no_preset_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("a: [1")
    with pytest.raises(PresetError, match=r"mine\.yaml is no YAML"):
        workloads.load_file(path)
    path.write_text("- 1")
    with pytest.raises(PresetError, match=r"mine\.yaml: must be a mapping"):
        workloads.load_file(path)


# --- in a scenario --------------------------------------------------------------------------------------


def scenario(workload: dict[str, Any], duration: str = "10m") -> Scenario:
    return Scenario.model_validate(
        {
            "title": "preset", "question": "Is it like the trace?", "seed": 1, "duration": duration,
            "models": {"m": {"input": "$1/1M", "output": "$1/1M"}},
            "fleet": [{"agent": "a", "model": "m", "instances": 1, "concurrency": 1000,
                       "service": {"law": "time", "time": "1ms"}}],
            "workload": [{"max_tokens_out": 100_000, **workload}],
        }
    )  # fmt: skip


def requests(workload: dict[str, Any], data: Path | None = None, number: int = 0) -> dict[str, Any]:
    built = build.replication(scenario(workload), number, data=data)
    built.world.start()
    built.world.run(700.0)
    return dict(fold(built.journal.recording(), scenario(workload)).requests.items())


def test_a_scenario_runs_a_preset_by_its_name() -> None:
    found = requests({"kind": "preset", "preset": "azure_conv"})
    streams = Streams(1, 0)
    generators = (streams.generator("workload", "0", "arrivals", i) for i in count())
    preset = workloads.load("azure_conv")
    moments = np.concatenate([block for block, _ in superposed(traffic.flow(preset), generators, 600.0)])
    np.testing.assert_allclose(found["t_arrive_s"], moments)
    assert np.median(found["tokens_in"]) == pytest.approx(1020, rel=0.05)


def test_the_rate_is_scaled_and_the_same_seed_stays_paired() -> None:
    slow = requests({"kind": "preset", "preset": "azure_conv", "rate": "1/s"})
    fast = requests({"kind": "preset", "preset": "azure_conv", "rate": "10/s"})
    n = len(slow["t_arrive_s"])
    assert len(fast["t_arrive_s"]) == pytest.approx(10 * n, rel=0.1)
    assert slow["tokens_in"].tolist() == fast["tokens_in"][:n].tolist()
    again = requests({"kind": "preset", "preset": "azure_conv", "rate": "1/s"}, number=1)
    assert again["t_arrive_s"].tolist() != slow["t_arrive_s"].tolist()


def test_tenants_come_with_a_preset_that_has_them() -> None:
    found = requests({"kind": "preset", "preset": "servegen_deepseek_r1", "rate": "40/s"})
    tenants = np.bincount(found["tenant"].astype(int), minlength=74)
    assert tenants[0] == 0
    assert (tenants > 0).sum() > 10
    first = found["tokens_in"][found["tenant"] == tenants.argmax()]
    everyone = found["tokens_in"]
    assert len(np.unique(found["user"])) == (tenants > 0).sum() if "user" in found else True
    assert len(first) > 100
    assert np.median(first) != np.median(everyone)


def test_a_preset_with_tenants_refuses_others() -> None:
    with pytest.raises(build.BuildError, match="brings its own tenants"):
        requests({"kind": "preset", "preset": "servegen_deepseek_r1", "tenants": 3})


def test_a_fitted_file_is_run_like_a_preset(tmp_path: Path) -> None:
    said = copy.deepcopy(read("workloads", "azure_conv"))
    said["clients"] = [
        {"share": 0.75, "tokens_in": [-0.5, 1.5], "tokens_out": [-2, 2]},
        {"share": 0.25, "tokens_in": [-2.5, -0.5], "tokens_out": [-2, 2]},
    ]
    said["lengths"]["client_p"] = [0, 1]
    said["origins"]["clients"] = {"origin": "assumed", "source": "two tenants for a test"}
    (tmp_path / "mine.yaml").write_text(write(said))
    found = requests({"kind": "fitted", "file": "mine.yaml"}, tmp_path)
    plain = requests({"kind": "preset", "preset": "azure_conv"})
    np.testing.assert_allclose(found["t_arrive_s"], plain["t_arrive_s"])
    big = found["tenant"] == 1
    assert big.mean() == pytest.approx(0.75, abs=0.05)
    assert np.median(found["tokens_in"][big]) > 2 * np.median(found["tokens_in"][~big])


def test_a_recorded_envelope_begins_again_after_its_end() -> None:
    said = copy.deepcopy(read("workloads", "azure_conv"))
    said["arrivals"] = {"kind": "recorded", "window_s": 60, "cv": 1.0, "level": [0.0, 2.0]}
    run = traffic.play(workloads.parse(said, "here"), 1, 600.0)
    held = np.histogram(run, np.arange(11) * 60)[0]
    assert not held[::2].any()
    assert held[1::2].min() > 500

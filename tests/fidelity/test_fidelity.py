"""The fidelity campaign without its servers: its worlds, its fits against known truths, its intervals, its seal."""

import importlib.util
import json
import re
from math import nan

import numpy as np
import pytest

from glowsim.core.errors import GlowsimError
from glowsim.fidelity import campaign, fit
from glowsim.fidelity.driving import figures, simulated
from glowsim.fidelity.page import page
from glowsim.fidelity.worlds import (
    ARMS,
    DIFFERENCES,
    LOADS,
    Fitted,
    arm_scenario,
    load_scenario,
    mean_tokens,
    timely_s,
)  # fmt: skip

LAW = {"law": "tokens", "base": "6ms", "input": "100us/token", "output": "1ms/token"}
TRUE = Fitted(LAW, 0.0384, 3.6, 2.5, 0.03, {"base": 0.0022, "prefill": 1e-4, "sequence": 4e-4}, 30.0)
PLAN = campaign.Plan(2.0, 2, 1.0, 2)


@pytest.mark.parametrize(("server", "load"), [(server, load) for server in LOADS for load in LOADS[server]])
def test_every_load_is_answered_whole(server, load):
    scenario = load_scenario(server, load, TRUE, 2.0)
    found = figures(simulated(scenario, 0), scenario, nan)
    assert found["success"] == 1.0
    assert found["latency_s_p50"] <= found["latency_s_p95"]
    assert np.isnan(found["first_token_s_p50"]) == (server == "llama"), "only transformers streams"


def test_half_of_the_loads_calibrates():
    for loads in LOADS.values():
        assert sum(load.calibrates for load in loads) == len(loads) / 2
        assert len({load.name for load in loads}) == len(loads)


def test_the_policies_differ_as_queueing_theory_says():
    """Signs that need no server: priority helps the urgent and costs the others, a full queue sheds, and so on."""
    names = {name for each in DIFFERENCES for name in (each.a, each.b)}
    assert names == set(ARMS), "every arm is compared, and every comparison has its arms"
    assert len(DIFFERENCES) >= 10
    rows = {}
    for name in ARMS:
        scenario = arm_scenario(name, TRUE, 4.0)
        rows[name] = [figures(simulated(scenario, number), scenario, timely_s(TRUE)) for number in range(6)]

    def sign(a, b, figure):
        return campaign._difference(rows[a], rows[b], figure)["sign"]

    assert sign("urgent, fifo", "urgent, priority", "urgent_s_p95") == -1
    assert sign("urgent, fifo", "urgent, priority", "others_s_p95") == 1
    assert sign("overload", "overload, queue of 5", "success") == -1
    assert sign("overload", "overload, queue of 5", "latency_s_p95") == -1
    assert sign("round robin", "least connections", "latency_s_p95") == -1
    assert sign("dead, no retry", "dead, retry", "success") == 1
    assert sign("one instance", "scaler to two", "latency_s_p95") == -1
    assert sign("plain", "plain", "latency_s_p95") == 0


def test_the_fit_of_requests_alone_finds_the_line():
    rng = np.random.default_rng(3)
    tokens_in, tokens_out = rng.integers(8, 56, 300), rng.choice([12, 32, 80], 300)
    latency_s = 0.006 + 1e-4 * tokens_in + 1e-3 * tokens_out
    law, mean_s = fit.fit_llama(fit.Alone(tokens_in, tokens_out, latency_s))
    assert (law["base"], law["input"], law["output"]) == ("6ms", "100us/token", "1ms/token")
    assert mean_s == pytest.approx(0.006 + 0.0032 + 1e-3 * mean_tokens())


def observed(server, fitted, loads):
    rows = {}
    for load in loads:
        scenario = load_scenario(server, load, fitted, 2.0)
        rows[load.name] = [figures(simulated(scenario, number), scenario, nan) for number in range(2)]
    return rows


def test_the_factor_of_a_simulated_server_is_found():
    loads = [load for load in LOADS["llama"] if load.calibrates]
    truth = observed("llama", TRUE, loads)
    wrong = TRUE._replace(llama=LAW | {"base": "7.5ms", "input": "125us/token", "output": "1.25ms/token"})
    found, factor = fit.scaled(wrong, truth, loads, 2.0)
    assert factor == pytest.approx(0.8, rel=0.01)
    assert fit.distance("llama", found, truth, loads, 2.0) < 1e-3


def test_the_steps_of_a_simulated_engine_are_found():
    loads = [load for load in LOADS["transformers"] if load.calibrates]
    truth = observed("transformers", TRUE, loads)
    one, many = truth["closed, 1 client"][0], truth["closed, 16 clients"][0]
    start = fit.start_transformers(one, many, 16, 32)._replace(transformers_per_s=TRUE.transformers_per_s)
    found = fit.fit_transformers(start, truth, loads, 2.0)
    assert fit.distance("transformers", found, truth, loads, 2.0) < 0.01
    assert found.step_s["base"] + found.step_s["sequence"] == pytest.approx(0.0026, rel=0.1), "alone"
    assert found.step_s["base"] + 16 * found.step_s["sequence"] == pytest.approx(0.0086, rel=0.1), "together"


def test_a_prediction_interval_holds_a_new_mean_19_times_of_20():
    """Against its definition, on normal variables; 4,000 trials have a standard error of 0.35 %."""
    rng, trials = np.random.default_rng(5), 4000
    held = 0
    for _ in range(trials):
        foreseen = campaign._foreseen(rng.normal(size=24), 2)
        held += foreseen["low"] <= rng.normal(size=2).mean() <= foreseen["high"]
    assert held / trials == pytest.approx(0.95, abs=0.012)


def test_predictions_that_were_changed_are_refused(tmp_path):
    (tmp_path / "predictions.json").write_text("{}\n")
    sealed = campaign._sealed(tmp_path)
    campaign._unchanged(tmp_path, sealed)
    (tmp_path / "predictions.json").write_text('{"better": 1}\n')
    with pytest.raises(GlowsimError, match=r"predictions\.json is not what was sealed"):
        campaign._unchanged(tmp_path, sealed)


def test_a_part_that_is_there_is_not_made_again(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": np.float64(1.5)}

    assert campaign._part(tmp_path, "x", make) == campaign._part(tmp_path, "x", make) == {"x": 1.5}
    assert made == [1]
    assert not list(tmp_path.glob("*.partial"))


def test_another_plan_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(PLAN._asdict()))
    with pytest.raises(GlowsimError, match="another plan"):
        campaign.campaign(tmp_path, campaign.Plan(), print)


def test_the_page_tells_failures(monkeypatch):
    """On a measurement that is the simulator itself, but for one load four times as slow and one sign turned."""
    monkeypatch.setattr(campaign, "_PREDICTED", 4)
    predictions = campaign._predict(TRUE, PLAN, lambda _: None)
    parts = {
        "plan": PLAN._asdict(), "predictions": predictions, "digest": {"sha256": "ab", "written_at": "then"},
        "machine": {
            "cpu": "a cpu", "cores": 2, "system": "s", "python": "3", "packages": {"torch": "2"}, "load_average": 0.5,
            "begun_at": "now",
        },
        "fitted": {"parameters": TRUE._asdict(), "factor": 1.0, "left": {"llama": 0.1}}, "arms": {},
        "again": {}, "groups": {"pair": {"late_s": 0.012, "load_average": 2.0}},
    }  # fmt: skip
    parts["fitted"]["parameters"]["llama"] = LAW | {"noise": {"x": [0.9, 1.1]}}
    for server, loads in LOADS.items():
        rows = observed(server, TRUE, [load for load in loads if not load.calibrates])
        parts[f"loads-{server}"] = {"loads": rows, "begun_at": "later", "late_s": 0.001, "load_average": 1.5}
        calibrating = observed(server, TRUE, [load for load in loads if load.calibrates])
        parts[f"calibration-{server}"] = {"loads": calibrating}
        parts["again"][server] = calibrating
    for row in parts["loads-llama"]["loads"]["open 65 %"]:
        row["latency_s_p50"] *= 4
    for name in ARMS:
        scenario = arm_scenario(name, TRUE, 1.0)
        parts["arms"][name] = [figures(simulated(scenario, n), scenario, timely_s(TRUE)) for n in range(4)]
    swapped = ("dead, no retry", "dead, retry")
    parts["arms"] |= dict(zip(swapped, [parts["arms"][name] for name in reversed(swapped)], strict=True))
    parts["judged"] = campaign.judged(parts)
    text = page(parts)
    assert "- Wrong sign: dead, no retry to dead, retry, share answered." in text
    assert re.search(r"open 65 % \| latency p50 \| .*\| \*\*no\*\*", text)
    assert "load average while measuring was at most 2.0" in text
    assert "at most 12 ms late" in text
    assert "open 20 % 1.00, open 50 % 1.00" in text
    assert "is wrong in 1," in text
    assert text.count("undecided |") == sum(
        each["verdict"] == "undecided" for each in parts["judged"]["differences"]
    )
    assert "—" not in text


@pytest.mark.campaign
def test_the_campaign_runs_with_the_real_servers(tmp_path):
    """A short one: that it runs and says what it should, not that a busy machine is predicted well."""
    for name in ("llama_cpp", "transformers", "torch", "gguf"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is missing: pip install 'glowsim[fidelity]'")
    parts = campaign.campaign(tmp_path, campaign.Plan(2.0, 2, 2.0, 2), print)
    assert parts["digest"]["written_at"] <= parts["loads-llama"]["begun_at"]
    assert len(parts["judged"]["differences"]) == len(DIFFERENCES)
    dead = next(each for each in parts["judged"]["differences"] if each["predicted"]["b"] == "dead, retry")
    assert dead["verdict"] == "agree", "half of the requests are lost without a retry"
    assert "## Policy differences" in page(parts)

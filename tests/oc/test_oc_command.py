"""`glowsim oc` from the command line: the answer, the figures, the page, what it refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from glowsim.cli import app
from glowsim.core.errors import GlowsimError
from glowsim.resources import resource

AT = ("--base-error", "5%", "--campaigns", "200", "--effect", "5%")


def ran(*arguments, code=0):
    done = CliRunner().invoke(app, ["oc", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def test_our_canary_keeps_its_budget_at_two_requests_a_second():
    said = ran("canary", "--rate", "2/s", *AT)
    assert said.startswith("canary at 2/s, errors at 5 %: keeps its budget\n")
    assert "a healthy version is rolled back" in said
    assert "+5\N{NO-BREAK SPACE}pt" in said


def test_a_quiet_fleet_is_refused_with_numbers_and_what_to_do_instead():
    found = json.loads(ran("canary", "--rate", "31/d", *AT, "--json", code=1))
    assert found["verdict"] == "not kept"
    # 31 a day: 5 % for a day, then 10, 25 and 50 % for two hours each
    assert found["remedy"]["requests"] == pytest.approx(31 * (0.05 + (0.10 + 0.25 + 0.5) / 12))
    assert found["remedy"]["times_power"] > 100
    assert found["remedy"]["pairs"] > 100
    assert "it can detect nothing" in found["advice"]
    assert f"pool {found['remedy']['times_power']} such agents" in found["advice"]
    assert f"replay {found['remedy']['pairs']} recorded tasks in pairs" in found["advice"]


def test_what_is_advised_helps():
    """Pooled as it says, the same canary keeps its budget."""
    found = json.loads(ran("canary", "--rate", "0.2/s", *AT, "--json", code=1))
    times = found["remedy"]["times_all"]
    again = json.loads(ran("canary", "--rate", f"{0.2 * times}/s", *AT, "--json"))
    assert again["verdict"] == "kept"


def test_straight_to_full_traffic_detects_nothing():
    said = ran("immediate", "--rate", "2/s", *AT, code=1)
    assert "all the traffic at once: it can detect nothing" in said


def test_json_holds_what_the_table_says_and_equal_seeds_say_the_same(tmp_path):
    arguments = ("gradual", "--rate", "4/s", *AT, "--seed", "3")
    folder = tmp_path / "oc"
    printed = ran(*arguments, "--out", folder)
    found = json.loads((folder / "oc.json").read_text())
    assert json.loads(ran(*arguments, "--json")) == found
    assert [each["effect"] for each in found["effects"]] == [0.0, 0.01, 0.05]
    for each in found["effects"]:
        ways = [each[way]["share"] for way in ("rolled_back", "promoted", "held")]
        assert sum(ways) == pytest.approx(1.0)
        assert all(
            each[way]["low"] <= each[way]["share"] <= each[way]["high"] for way in ("promoted", "held")
        )
    assert found["answer"] in printed
    page = (folder / "oc.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("<table") == 1
    with pytest.raises(AssertionError, match="exists: name another folder"):
        ran(*arguments, "--out", folder)


def test_everything_that_traffic_may_be_can_be_said():
    more = ("--daily", "--incidents", "--onset", "1h", "--label-delay", "10m", "--effect", "5%,10%")
    found = json.loads(ran("gradual", "--rate", "2/s", *AT, *more, "--json", code=1))
    assert found["traffic"] == {
        "rate_per_s": 2.0, "base": {"errors": 0.05}, "onset_s": 3600.0, "daily": True, "incidents": True,
        "label_delay_s": 600.0, "tenants": 0, "correlation": 0.0, "zipf": 0.0,
    }  # fmt: skip
    assert [each["effect"] for each in found["effects"]] == [0.0, 0.01, 0.05, 0.1]


def test_a_scenario_gives_the_traffic_and_what_is_given_counts_instead(tmp_path):
    scenario = tmp_path / "small.yaml"
    scenario.write_text(
        "title: t\nquestion: q\nseed: 1\nduration: 10m\nmodels: {m: {input: $1/1M, output: $1/1M}}\n"
        "fleet: [{agent: a, model: m, instances: 4, concurrency: 8, service: {law: time, time: 100ms}}]\n"
        "workload: [{kind: poisson, rate: 3/s, tokens_in: 10, tokens_out: 10}]\n"
        "faults: [{agent: a, kind: errors, at: 0s, lasts: 10m, error: 20%}]\n"
    )
    found = json.loads(ran("gradual", "--scenario", scenario, *AT[2:], "--json", code=1))
    assert found["traffic"]["rate_per_s"] == pytest.approx(3.0, rel=0.1)
    assert found["traffic"]["base"]["errors"] == pytest.approx(0.2, abs=0.05)
    given = ("--rate", "2/s", "--base-error", "5%")
    found = json.loads(ran("canary", "--scenario", scenario, *given, *AT[2:], "--json"))
    assert found["traffic"]["base"] == {"errors": 0.05}


def test_a_search_finds_a_schedule_that_keeps_the_budget_sooner_or_says_that_there_is_none():
    at = ("--base-error", "5%", "--campaigns", "500", "--effect", "5%", "--search", "--json")
    found = json.loads(ran("canary", "--rate", "20/s", *at))
    best = found["search"]["best"]
    assert best["verdict"] == found["verdict"] == "kept"
    assert sum(best["holds_s"]) < 24 * 3600
    assert all(
        best["cost"] <= 1.3 * each["cost"] for each in found["search"]["tried"] if each["verdict"] == "kept"
    )
    assert json.loads(ran("canary", "--rate", "31/d", *at, code=1))["search"] == {"best": None, "tried": []}


def test_another_tools_configuration_is_run_by_its_own_rules():
    said = ran(resource("scenarios", "rollouts/argo.yaml"), "--rate", "2/s", *AT, code=1)
    assert "It rolls back 100 % of the healthy versions." in said
    assert "the metric 'success-rate' is read as success" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("canary", "--base-error", "5%"), "--rate 2/s"),
        (("canary", "--rate", "2", "--base-error", "5%"), "--rate: 2.0 has no unit"),
        (("canary", "--rate", "2/s", "--base-error", "much"), "--base-error: must be a share"),
        (("canary", "--rate", "2/s", *AT, "--base", "latency"), "write NAME=VALUE"),
    ],
)
def test_bad_options_are_said_by_name(arguments, says):
    assert says in ran(*arguments, code=2)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("canry", "did you mean 'canary'"),
        ("gone.yaml", "there is no file"),
        ("other.yaml", "this is no policy"),
    ],
)
def test_what_is_no_policy_is_refused(policy, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("title: a page\n")
    with pytest.raises(GlowsimError, match=says):
        ran(policy, "--rate", "2/s", *AT)

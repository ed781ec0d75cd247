import copy
import functools
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from glowsim.scenario import Scenario, ScenarioError, load
from glowsim.scenario.source import read_file

EXAMPLE = Path(__file__).parent / "example.yaml"


def problems_of(text, overrides=(), **options):
    with pytest.raises(ScenarioError) as caught:
        load(text, overrides, **options)
    return caught.value.problems


def only(text, overrides=()):
    (problem,) = problems_of(text, overrides)
    return problem


def test_a_misspelt_key_shows_the_line_the_caret_and_what_was_meant(tmp_path, example_text):
    path = tmp_path / "x.yaml"
    path.write_text(example_text.replace("concurrency: 8", "concurency: 8"), encoding="utf-8")
    (problem,) = problems_of(path)
    assert (
        problem.render()
        == textwrap.dedent(f"""\
        {path}:21:5: fleet.0.concurency: unknown key; did you mean 'concurrency'?
          21 |     concurency: 8
             |     ^^^^^^^^^^
           allowed here: agent, cancellable, concurrency, controllers, count, domain, failures, first_token_timeout, \
health_check, idle_timeout, instance_price, instances, model, queue, region, service, slots, startup, timeout, variants""")
    )


# ruff: noqa: E501
# (written, instead, path, part of the message, suggestion): each alone in the example
MISTAKES = [
    ("title: A tax desk under a surge", "title: 5", "title", "must be a text", None),
    ("seed: 1", "seed: 1.0", "seed", "must be a whole number, got 1.0", None),
    ("seed: 1", "seed: -1", "seed", "must be at least 0, got -1", None),
    ("seed: 1", "seed: yes", "seed", "must be a whole number, got 'yes'", None),
    ("seed: 1", "seed: true", "seed", "must be a whole number, got true", None),
    ("duration: 70s", "duration: 70", "duration", "70 has no unit: write 70s or 70ms", None),
    ("duration: 70s", "duraton: 70s", "duraton", "unknown key", "duration"),
    ("warmup: 5s", "warmup: 70s", "warmup", "must be shorter than the duration (70s)", None),
    ("input: $0.15/1M", "input: 0.15", "models.mini.input", "0.15 has no unit: write $0.15/1M", None),
    ("model: large", "model: lage", "fleet.1.model", "unknown model 'lage'", "large"),
    ("region: eu", "region: eur", "fleet.0.region", "unknown region 'eur'", "eu"),
    ("slots: 16", "slots: 4", "fleet.0.slots", "must be at least the concurrency (8)", None),
    ("queue: instance", "queue: centrl", "fleet.0.queue", "cannot be 'centrl'", "central"),
    ("law: lognormal", "law: lognorml", "fleet.0.startup.law", "unknown law 'lognorml'", "lognormal"),
    ("median: 20s", "median: 20", "fleet.0.startup.median", "20 has no unit", None),
    ("sigma: 0.3", "sigmma: 0.3", "fleet.0.startup.sigmma", "unknown key", "sigma"),
    ("max: 2m}", "max: 2m, min: 3m}", "fleet.0.startup.max", "must be above 'min'", None),
    ("law: tokens\n", "law: token\n", "fleet.0.service.law", "unknown law 'token'", "tokens"),
    ("      law: tokens\n", "", "fleet.0.service.law", "this key is required", None),
    ("mean: 1, cv", "mean: 2, cv", "fleet.0.service.noise", "must have mean 1, has 2", None),
    ("mean: 1, cv: 0.2", "mean: 1, cv: 0.2, max: 3", "fleet.0.service.noise", "must not be clipped", None),
    ("{law: exponential, mean: 300ms, min: 10ms}", "soon", "fleet.1.service.time", "got 'soon'", None),
    ("{law: exponential, mean: 300ms, min: 10ms}", "{mean: 3s}", "fleet.1.service.time.law", "this key is required", None),
    ("kind: closed", "kind: close", "workload.4.kind", "unknown kind 'close'", "closed"),
    ("rate: 167/s", "rate: 167", "workload.0.rate", "167 has no unit: write 167/s or 167/min", None),
    ("{at: 0s, rate: 10/min}", "{at: 1s, rate: 10/min}", "workload.1.steps.0.at", "must begin at 0s", None),
    ("{at: 60s, rate: 500/h}", "{at: 0s, rate: 500/h}", "workload.1.steps.1.at", "later than the step before", None),
    ("p: [0, 0.5, 1]", "p: [0, 0.5, 0.9]", "workload.1.tokens_in.p", "must increase from 0 to 1", None),
    ("x: [10, 200, 4000]", "x: [10, 4000]", "workload.1.tokens_in.x", "must have 3 values", None),
    ("share: 40%", "share: 140%", "workload.1.cacheable.share", "must be at most 1, got 140%", None),
    ("lasts: 60s", "lasts: 10m", "workload.3.lasts", "must be shorter than 'every'", None),
    ("stream: true", "stream: yes", "workload.3.stream", "must be true or false, got 'yes'", None),
    ("priority: 0", "priority: 10", "workload.4.priority", "must be at most 9, got 10", None),
    ("{invoice: 1, tax-eu-001: 3}", "{invoice: 1, tax: 3}", "workload.4.agents.tax", "unknown agent 'tax'", None),
    ("[invoice-001, invoice-003]", "[invoice-001, invoice]", "workload.1.agents.1", "names 'invoice-001' a second time", None),
    ("[invoice-001, invoice-003]", "[]", "workload.1.agents", "must hold names", None),
    ("file: mine.csv", "file: ../mine.csv", "workload.6.file", "inside the data folder", None),
    (", columns: {time: t, tokens_in: in, tokens_out: out}", "", "workload.6.columns", "is required for csv", None),
    ("speed: 2,", "speed: 2, tokens_in: 5,", "workload.5.tokens_in", "unknown key", None),
    ("at: 20s, lasts: 30s, error", "at: 370s, lasts: 30s, error", "faults.2.at", "after the end of the run (370s", None),
    ("agent: invoice, at", "agent: invoic, at", "faults.1.agent", "unknown agent 'invoic'", "invoice"),
    ("factor: 5", "factor: 0", "faults.1.factor", "must be above 0, got 0", None),
    ("  balancer: {use: least}", "  balancr: {use: least}", "controllers.balancr", "unknown key", "balancer"),
    ("use: least", "use: lest", "controllers.balancer.use", "unknown balancer 'lest'", "least"),
    ("target: 60%", "taget: 60%", "controllers.scaler.taget", "unknown key", "target"),
    ("target: 60%", "target: 160%", "controllers.scaler.target", "must be at most 1, got 160%", None),
    ("cooldown: 5m", "cooldown: 300", "controllers.scaler.cooldown", "300 has no unit: write 300s", None),
    ("target: 0.7", "target: high", "controllers.scaler.shadow.target", "must be a share", None),
    ("strict: true", "strict: maybe", "controllers.detector.1.strict", "must be true or false", None),
    ("use: turns", "use: trns", "fleet.0.controllers.balancer.use", "unknown balancer 'trns'", "turns"),
    ("max: 2s", "max: 2", "slos.0.max", "2 has no unit: write 2s or 2ms", None),
    ("max: 2s,", "max: 2s, min: 1s,", "slos.0", "must have either 'max' or 'min', has both", None),
    ("max: 2s, ", "", "slos.0", "has neither", None),
    ("min: 99%", "min: 990%", "slos.1.min", "must be at most 1, got 990%", None),
    ("metric: success_rate", "metric: succes_rate", "slos.1.metric", "cannot be 'succes_rate'", "success_rate"),
    ("low: 160/s", "low: 180/s", "expectations.0.high", "must be at least 'low'", None),
    ("fleet.0.service:", "fleet.0.servce:", "origins.fleet.0.servce", "there is no 'servce'", "service"),
    ("origin: fitted", "origin: guessed", "origins.fleet.0.service.origin", "cannot be 'guessed'", None),
]  # fmt: skip


@pytest.mark.parametrize(("written", "instead", "path", "message", "suggestion"), MISTAKES)
def test_one_mistake_gives_one_problem_at_its_place(
    example_text, written, instead, path, message, suggestion
):
    assert written in example_text
    text = example_text.replace(written, instead, 1)
    problem = only(text)
    assert problem.path == path
    assert message in problem.message
    assert problem.suggestion == suggestion
    assert 1 <= problem.line <= len(text.splitlines())
    assert problem.source == text.splitlines()[problem.line - 1]
    if suggestion:
        assert suggestion in problem.allowed


def test_all_mistakes_of_a_file_come_at_once_and_in_order(example_text):
    text = example_text
    chosen = [
        row
        for row in MISTAKES
        if row[0] in ("seed: 1", "model: large", "kind: closed", "use: least", "max: 2s")
    ]
    expected = []
    for written, instead, path, *_ in chosen:
        if written in text:
            text = text.replace(written, instead, 1)
            expected.append(path)
    problems = problems_of(text, ["workload.0.raet=1/s"])
    assert {p.path for p in problems} == {*expected, "workload.0.raet"}
    lines = [p.line for p in problems if p.line]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("agent", "Tax", "'Tax' is not a name: it must match ^[a-z0-9-]+$"),
        ("count", 0, "must be at least 1, got 0"),
        ("count", 1001, "must be at most 1000, got 1001"),
        ("variants", [], "must be a mapping (key: value), got a list"),
        ("failures", None, "must be a mapping (key: value), got nothing"),
    ],
)
def test_an_agents_own_mistakes(small, key, value, message):
    small["fleet"][0][key] = value
    problem = only(json.dumps(small, indent=1))
    assert (problem.path, problem.message) == (f"fleet.0.{key}", message)


def test_duplicate_names_are_found_after_expansion(small):
    first = small["fleet"][0]
    clash = {**small, "fleet": [{**first, "agent": "a", "count": 3}, {**first, "agent": "a-002"}]}
    problem = only(json.dumps(clash, indent=1))
    assert (problem.path, problem.message) == (
        "fleet.1.agent",
        "the agent 'a-002' exists already, from fleet.0",
    )


def test_an_agent_cannot_be_called_all(small):
    small["fleet"][0]["agent"] = "all"
    assert "means every agent" in only(json.dumps(small, indent=1)).message


@pytest.mark.parametrize("text", ["[]\n", "- a\n- b\n", "just text\n# and a remark\n", "3\n\n"])
def test_a_file_that_is_no_mapping_says_so(text):
    assert "must be a mapping" in only(text).message


def test_parts_of_a_wrong_kind_do_not_hide_other_mistakes(small):
    broken = {
        **small,
        "fleet": 3,
        "models": [],
        "origins": [1],
        "faults": {"a": 1},
        "regions": "eu",
        "warmup": "99s",
    }
    paths = {p.path for p in problems_of(json.dumps(broken, indent=1))}
    assert paths == {"fleet", "models", "origins", "faults", "regions", "warmup"}


def test_missing_keys_that_share_a_line_show_it_once():
    with pytest.raises(ScenarioError) as caught:
        load("title: a\nseed: 1\n")
    assert str(caught.value).count("| title: a") == 1
    assert {p.path for p in caught.value.problems} >= {"question", "duration", "fleet", "workload", "models"}


def test_a_long_line_is_cut_around_the_caret(example_text):
    text = example_text.replace("question: ", f"question: {'x' * 2000} #", 1)
    shown = only(text).render().splitlines()
    assert max(map(len, shown)) < 130


def test_cross_checks_hold_for_plain_data_too(small):
    with pytest.raises(ValidationError, match="unknown model"):
        Scenario.model_validate({**small, "models": {"other": small["models"]["mini"]}})


def places(data, path=()):
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


JUNK = st.sampled_from(
    [None, True, -1, 0, 1.5, 10**30, 1e400, "", "x", "5s", "a.b", "all", [], {}, [{}], {"law": 3}, [[1]]]
)
PLAIN = read_file(EXAMPLE).plain()
PLACES = list(places(PLAIN))[1:]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), JUNK, st.booleans()), min_size=1, max_size=3))
def test_whatever_stands_anywhere_is_a_scenario_or_a_list_of_problems(changes):
    data = json.loads(json.dumps(PLAIN))
    for path, junk, is_key in changes:
        try:
            *way, last = path
            inner = functools.reduce(lambda part, key: part[key], way, data)
            if is_key and isinstance(inner, dict):
                inner[str(junk)] = inner.pop(last)
            else:
                inner[last] = copy.deepcopy(junk)
        except (LookupError, TypeError):
            continue  # an earlier change took this place away
    text = json.dumps(data, indent=1).replace("Infinity", "1e400")
    try:
        scenario = load(text)
    except ScenarioError as error:
        problems = error.problems
    else:
        problems = ()
        assert Scenario.model_validate(scenario.dump()) == scenario
    assert all(problem.line and problem.source for problem in problems)


def test_code_beside_the_scenario_needs_leave(tmp_path, small, monkeypatch):
    (tmp_path / "my_routing.py").write_text(
        "class Cheapest:\n    def __init__(self, *, weight: float = 1.0): ...\n", encoding="utf-8"
    )
    path = tmp_path / "x.yaml"
    small["controllers"] = {"balancer": {"use": "my_routing:Cheapest", "weight": 2}}
    path.write_text(json.dumps(small, indent=1), encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (problem,) = problems_of(path)
    assert (problem.path, "--allow-plugins" in problem.message) == ("controllers.balancer.use", True)
    assert str(tmp_path) not in sys.path
    assert load(path, allow_plugins=True).controllers.balancer.settings == {"weight": 2}
    assert sys.path[-1] == str(tmp_path)
    (problem,) = problems_of(path, ["controllers.balancer.use=my_routing:Cheapst"], allow_plugins=True)
    assert problem.suggestion == "Cheapest"


@pytest.mark.parametrize("first", ["glowsim.registry", "glowsim.scenario", "glowsim.scenario.quantities"])
def test_importing_is_light_and_works_in_any_order(first):
    heavy = {"scipy", "pandas", "matplotlib", "pyarrow", "statsmodels", "simpy"}
    code = f"import sys, {first}, glowsim.registry, glowsim.scenario; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

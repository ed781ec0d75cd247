import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from glowsim import registry
from glowsim.scenario import Scenario, digest, load
from glowsim.scenario.controllers import Controllers
from glowsim.scenario.fleet import member_names
from glowsim.scenario.laws import Lognormal, Quantiles, TokenService, mean
from glowsim.scenario.quantities import DURATION, PRICE_PER_TOKEN, RATE, Duration


def test_the_example_has_every_part_in_base_units(example_path):
    scenario = load(example_path)
    tax, invoice = scenario.fleet
    assert (scenario.duration_s, scenario.drain_s, scenario.warmup_s) == (70.0, 300.0, 5.0)
    assert scenario.models["mini"].cached_input_usd_per_token == 0.075e-6
    assert isinstance(tax.service, TokenService)
    assert tax.service.output_s_per_token == 0.008
    assert tax.failures.invalid == 0.0013
    assert isinstance(tax.startup_s, Lognormal)
    assert tax.startup_s.maximum == 120.0
    assert invoice.names() == ("invoice-001", "invoice-002", "invoice-003")
    assert scenario.workload[1].steps[1].rate_per_s == 500 / 3600
    assert [w.kind for w in scenario.workload] == [
        "poisson", "piecewise", "diurnal", "bursts", "closed", "trace", "trace"
    ]  # fmt: skip
    assert scenario.slos[0].maximum == 2.0
    assert scenario.slos[1].minimum == 0.99
    assert scenario.expectations[0].low == 160.0
    assert scenario.controllers.scaler.settings == {"target": "60%", "cooldown": "5m"}


def test_defaults_depend_on_what_was_written(small):
    agent = small["fleet"][0]
    plain = Scenario.model_validate(small)
    assert (plain.fleet[0].slots, plain.fleet[0].region, plain.regions) == (4, "home", ("home",))
    assert plain.models["mini"].cached_input_usd_per_token == 0.15e-6
    backlog = Scenario.model_validate(
        {**small, "regions": ["eu", "us"], "fleet": [{**agent, "queue": "instance"}]}
    )
    assert (backlog.fleet[0].slots, backlog.fleet[0].region) == (32, "eu")


def test_a_scenario_cannot_be_changed(small):
    scenario = Scenario.model_validate(small)
    with pytest.raises(ValidationError):
        scenario.seed = 2


def test_shares_follow_names_groups_and_weights(example_path):
    scenario = load(example_path)
    tax, invoices = "tax-eu-001", member_names("invoice", 3)
    assert scenario.shares(scenario.workload[0]) == {tax: 1.0}
    assert scenario.shares(scenario.workload[2]) == dict.fromkeys((tax, *invoices), 0.25)
    assert scenario.shares(scenario.workload[4]) == {**dict.fromkeys(invoices, 1 / 6), tax: 0.5}
    assert scenario.members("invoice") == invoices
    assert scenario.members("invoice-002") == ("invoice-002",)
    with pytest.raises(KeyError):
        scenario.members("nobody")


def test_an_agents_controllers_replace_the_scenarios_family_by_family(example_path):
    scenario = load(example_path)
    of_tax, of_invoice = (scenario.controllers_of(agent) for agent in scenario.fleet)
    assert (of_tax["balancer"][0].use, of_invoice["balancer"][0].use) == ("turns", "least")
    assert of_tax["scaler"] == of_invoice["scaler"] == (scenario.controllers.scaler,)
    assert len(of_tax["detector"]) == 2


def test_controllers_have_the_registrys_families_in_its_order():
    assert tuple(Controllers.model_fields) == registry.FAMILIES


def test_the_example_survives_a_round_trip(example_path):
    scenario = load(example_path)
    assert Scenario.model_validate(scenario.dump()) == scenario
    assert load(json.dumps(scenario.dump(), indent=1)) == scenario


def test_the_digest_depends_on_meaning_and_not_on_spelling(example_text):
    reference = digest(load(example_text))
    assert (
        digest(load("# a remark\n" + example_text.replace("duration: 70s", "duration: 70000ms"))) == reference
    )
    assert digest(load(example_text.replace("seed: 1", "seed: 2"))) != reference
    assert len(reference) == 32


SECONDS = st.floats(min_value=1e-6, max_value=1e6).map(DURATION.write)
TOKENS = st.floats(min_value=0, max_value=1e6)
RATES = st.floats(min_value=1e-6, max_value=1e4).map(RATE.write)
SHARES = st.floats(min_value=0, max_value=1)


def laws(values):
    return st.one_of(
        values,
        st.fixed_dictionaries({"law": st.just("exponential"), "mean": values}),
        st.fixed_dictionaries({"law": st.just("lognormal"), "median": values, "sigma": SHARES}),
        st.fixed_dictionaries({"law": st.just("gamma"), "mean": values, "cv": st.floats(0.1, 3)}),
        st.fixed_dictionaries(
            {"law": st.just("quantiles"), "p": st.just([0, 1]), "x": values.map(lambda x: [x, x])}
        ),
    )


AGENTS = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "instances": st.integers(1, 9),
        "concurrency": st.integers(1, 9),
        "service": st.one_of(
            st.fixed_dictionaries({"law": st.just("time"), "time": laws(SECONDS)}),
            st.fixed_dictionaries(
                {
                    "law": st.just("tokens"),
                    "base": SECONDS,
                    "input": st.just("40us/token"),
                    "output": st.just("8ms/token"),
                }
            ),
        ),
    },
    optional={
        "count": st.integers(1, 12),
        "queue": st.sampled_from(["central", "instance"]),
        "startup": laws(SECONDS),
        "timeout": SECONDS,
        "failures": st.fixed_dictionaries({"invalid": SHARES, "error": SHARES}),
        "variants": st.dictionaries(st.sampled_from("ab"), st.fixed_dictionaries({"error": SHARES})),
        "controllers": st.just({"balancer": {"use": "turns"}}),
    },
)
SIZES = {"tokens_in": laws(TOKENS), "tokens_out": laws(TOKENS)}
WORKLOADS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("poisson"), "rate": RATES, **SIZES}),
    st.fixed_dictionaries(
        {"kind": st.just("closed"), "users": st.integers(1, 99), "think": laws(SECONDS), **SIZES},
        optional={
            "deadline": st.just("none") | SECONDS,
            "priority": st.integers(0, 9),
            "stream": st.booleans(),
        },
    ),
    st.fixed_dictionaries({"kind": st.just("diurnal"), "mean": RATES, "amplitude": SHARES, **SIZES}),
    st.just({"kind": "trace", "format": "azure_llm", "file": "x.csv"}),
)
SCENARIOS = st.fixed_dictionaries(
    {
        "title": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
        "question": st.just("does it load?"),
        "seed": st.integers(0, 2**63 - 1),
        "duration": SECONDS,
        "models": st.fixed_dictionaries(
            {
                "m": st.fixed_dictionaries(
                    dict.fromkeys(("input", "output"), SHARES.map(PRICE_PER_TOKEN.write))
                )
            }
        ),
        "fleet": st.lists(AGENTS, min_size=1, max_size=3).map(
            lambda agents: [{"agent": f"a{i}", **agent} for i, agent in enumerate(agents)]
        ),
        "workload": st.lists(WORKLOADS, min_size=1, max_size=3),
    },
    optional={"drain": SECONDS, "replications": st.integers(1, 99), "regions": st.just(["eu", "us"])},
)


@settings(max_examples=60, deadline=None)
@given(SCENARIOS)
def test_every_scenario_survives_a_round_trip_through_its_dump(data):
    scenario = Scenario.model_validate(data)
    dumped = scenario.dump()
    again = Scenario.model_validate(json.loads(json.dumps(dumped)))
    assert again == scenario
    assert again.dump() == dumped
    assert digest(again) == digest(scenario)
    for workload in scenario.workload:
        assert math.fsum(scenario.shares(workload).values()) == pytest.approx(1)


def test_the_mean_of_a_law_is_the_known_one():
    lognormal = Lognormal[Duration].model_validate({"law": "lognormal", "median": "2s", "sigma": 0.5})
    assert mean(lognormal) == pytest.approx(2 * math.exp(0.125))
    piecewise = {"law": "quantiles", "p": [0, 0.5, 1], "x": ["0s", "1s", "5s"]}
    assert mean(Quantiles[Duration].model_validate(piecewise)) == pytest.approx(0.25 + 1.5)

import pytest

from glowsim.scenario import ScenarioError, load
from glowsim.scenario.overrides import apply
from glowsim.scenario.source import read_text


def only(text, override):
    with pytest.raises(ScenarioError) as caught:
        load(text, [override])
    (problem,) = caught.value.problems
    return problem


def test_overrides_reach_every_part(example_path):
    scenario = load(
        example_path,
        [
            "seed=7",
            "workload.0.rate=10/min",
            "fleet.tax-eu-001.instances=9",
            "fleet.1.service.time={law: uniform, low: 1s, high: 3s}",
            "controllers.scaler.cooldown=1m",
            "fleet.1.controllers.balancer.use=turns",
            "origins.fleet.0.service.source=a better fit",
            "replications=",
        ],
    )
    assert scenario.seed == 7
    assert scenario.workload[0].rate_per_s == 10 / 60
    assert scenario.fleet[0].instances == 9
    assert scenario.fleet[1].service.time_s.high == 3.0
    assert scenario.controllers.scaler.settings["cooldown"] == "1m"
    assert scenario.fleet[1].controllers.balancer.use == "turns"
    assert scenario.origins["fleet.0.service"].source == "a better fit"
    assert scenario.replications is None


def test_a_later_override_wins(example_path):
    assert load(example_path, ["seed=7", "seed=8"]).seed == 8


def test_an_override_changes_one_place_and_not_its_aliases():
    root = read_text("a: &x {n: 1}\nb: *x\n")
    assert apply(root, "b.n=2").plain() == {"a": {"n": 1}, "b": {"n": 2}}
    assert root.plain() == {"a": {"n": 1}, "b": {"n": 1}}


@pytest.mark.parametrize(
    ("override", "path", "message", "caret"),
    [
        ("workload.0.raet=5/s", "workload.0.raet", "unknown key", "raet"),
        ("workload.0.rate=5", "workload.0.rate", "5 has no unit: write 5/s or 5/min", "5"),
        ("workload.9.rate=5/s", "workload.9.rate", "'9' is not in the list", "9"),
        (
            "fleet.tax-eu-002.slots=9",
            "fleet.tax-eu-002.slots",
            "'tax-eu-002' is not in the list",
            "tax-eu-002",
        ),
        ("seed.x=1", "seed.x", "'x' would stand inside a plain value", "x"),
        ("seed=[1", "", "is not YAML", None),
        ("seed", "", "an override is written key.path=value", "seed"),
        ("a..b=1", "", "an override is written key.path=value", "a..b=1"),
        (".".join("a" * 40) + "=1", "", "an override is written key.path=value", None),
        ("controllers.scaler.taget=1", "controllers.scaler.taget", "unknown key", "taget"),
    ],
)
def test_a_mistake_is_shown_in_the_overrides_own_text(example_path, override, path, message, caret):
    problem = only(example_path, override)
    assert (problem.file, problem.line, problem.path) == ("-s", 0, path)
    assert message in problem.message
    assert problem.source == override
    if caret:
        start = problem.column - 1
        assert override[start : start + problem.width] == caret
    assert problem.render().splitlines()[1] == f"  -s | {override}"


@pytest.mark.parametrize("nothing", ["null", "~", ""])
def test_a_family_can_be_switched_off(example_path, nothing):
    assert load(example_path).controllers.scaler is not None
    assert load(example_path, [f"controllers.scaler={nothing}"]).controllers.scaler is None

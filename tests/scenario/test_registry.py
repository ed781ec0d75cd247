import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from glowsim import registry
from glowsim.registry import RegistryError, check, find, parameters


def findings(controller, **settings):
    return check(controller, settings)[1]


def test_keys_leave_out_the_unit_and_positional_arguments(threshold, drift):
    assert [p.key for p in parameters(threshold)] == ["target", "cooldown", "min_instances"]
    assert {p.name: p.quantity.name for p in parameters(drift) if p.kind == "quantity"} == {
        "rate_per_s": "a rate",
        "cost_usd": "an amount of money",
        "window_s": "a duration",
        "steps": "a share",
    }


def test_what_is_written_becomes_the_constructors_arguments(threshold, drift):
    arguments, wrong = check(threshold, {"target": "60%", "cooldown": "5m", "min_instances": 2})
    assert (arguments, wrong) == ({"target": 0.6, "cooldown_s": 300.0, "min_instances": 2}, [])
    threshold(1, **arguments)
    written = {
        "metric": "x",
        "side": "up",
        "rate": "2/s",
        "cost": "$3",
        "window": None,
        "strict": True,
        "steps": ["5%", 1],
    }
    arguments, wrong = check(drift, written)
    assert wrong == []
    assert arguments == {
        "metric": "x", "side": "up", "rate_per_s": 2.0, "cost_usd": 3.0, "window_s": None, "strict": True,
        "steps": (0.05, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 1.6}, "must be at most 1, got 1.6"),
        ({"target": -0.1}, "must be at least 0, got -0.1"),
        ({"target": True}, "must be a share"),
        ({"target": 0.5, "min_instances": 0}, "must be at least 1, got 0"),
        ({"target": 0.5, "min_instances": 1.0}, "must be a whole number, got 1.0"),
        ({"target": 0.5, "min_instances": True}, "must be a whole number"),
        ({"target": 0.5, "cooldown": "-1s"}, "must be at least 0s"),
        ({}, "this key is required"),
    ],
)
def test_values_are_kept_within_their_bounds(threshold, settings, message):
    (finding,) = findings(threshold, **settings)
    assert message in finding.message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": "left"}, "must be one of up, down, got 'left'"),
        ({"strict": "yes"}, "must be true or false"),
        ({"window": "0s"}, "must be above 0s"),
        ({"rate": 3}, "3 has no unit"),
        ({"steps": "5%"}, "must be a list, got '5%'"),
        ({"steps": ["5%", "500%"]}, "must be at most 1, got 500%"),
        ({"metric": 3}, "must be a text"),
    ],
)
def test_other_kinds_are_strict_too(drift, settings, message):
    (finding,) = findings(drift, **{"metric": "x", **settings})
    assert message in finding.message


def test_a_wrong_key_says_what_was_meant(threshold):
    unknown, required = findings(threshold, taget=0.6)
    assert (unknown.path, unknown.suggestion) == (("taget",), "target")
    assert required.path == ("target",)


def test_a_controller_that_yaml_cannot_express_is_refused():
    class Odd:
        def __init__(self, *, table: dict[str, int]) -> None: ...

    with pytest.raises(RegistryError, match=r"Odd.table: annotate it"):
        parameters(Odd)


def test_unknown_names_list_what_there_is(threshold):
    assert find("scaler", "threshold") is threshold
    with pytest.raises(RegistryError) as caught:
        find("scaler", "treshold")
    assert (caught.value.allowed, caught.value.suggestion) == (("threshold",), "threshold")
    with pytest.raises(RegistryError) as caught:
        find("balancr", "turns")
    assert caught.value.suggestion == "balancer"


def test_installed_plugins_are_found_by_family_and_name(monkeypatch, threshold):
    entry = EntryPoint("balancer.cheapest", "fakes:Threshold", "glowsim.controllers")
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", lambda group: [entry])
    assert find("balancer", "cheapest") is threshold
    with pytest.raises(RegistryError) as caught:
        find("scaler", "cheapest")
    assert caught.value.allowed == ("threshold",)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("no_such_module_here:X", "cannot be imported: No module named"),
        ("fakes:Nothing", "has no class 'Nothing'"),
        ("fakes:__name__", "has no class '__name__'"),
    ],
)
def test_code_that_cannot_be_had_says_why(use, message):
    with pytest.raises(RegistryError, match=message):
        find("scaler", use, allow_plugins=True)


def test_a_foreign_package_of_the_same_name_is_refused(monkeypatch, tmp_path):
    foreign = tmp_path / "controllers"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("raise SystemExit('foreign code ran')", encoding="utf-8")
    for name in [name for name in sys.modules if name.partition(".")[0] == "controllers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RegistryError, match=f"shadowed by {foreign}"):
        find("balancer", "turns")


def test_a_foreign_module_that_is_already_imported_is_refused(monkeypatch, tmp_path):
    foreign = ModuleType("controllers")
    foreign.__spec__ = registry.importlib.util.spec_from_file_location(
        "controllers", tmp_path / "controllers.py"
    )
    monkeypatch.setitem(sys.modules, "controllers", foreign)
    with pytest.raises(RegistryError, match="is shadowed by"):
        find("balancer", "turns")


def test_every_built_in_is_there_and_says_what_it_decides(real_controllers):
    for family, use in real_controllers:
        controller = find(family, use)
        keys = [parameter.key for parameter in parameters(controller)]
        assert len(set(keys)) == len(keys)
        assert controller.__doc__


def test_settings_that_do_not_go_together_are_refused_by_the_constructor():
    class Between:
        def __init__(self, *, low_s: float = 0.0, high_s: float = 9.0) -> None:
            if low_s > high_s:
                raise ValueError(f"high_s: {high_s} is below low_s, {low_s}")

    assert findings(Between, low="1s") == []
    (finding,) = findings(Between, low="10s")
    assert (finding.path, finding.message) == (("high",), "9.0 is below low_s, 10.0")

import json
import re

import pytest
from jsonschema import Draft202012Validator

from glowsim.scenario import load, schema
from glowsim.scenario.source import read_file


@pytest.fixture
def validator():
    found = schema()
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def test_the_schema_accepts_the_example_as_written_and_as_dumped(validator, example_path):
    validator.validate(read_file(example_path).plain())
    validator.validate(load(example_path).dump())


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("concurrency: 8", "concurency: 8"),
        ("duration: 70s", "duration: 70"),
        ("rate: 167/s", "rate: 167ms"),
        ("law: lognormal", "law: lognorml"),
        ("kind: closed", "kind: close"),
        ("use: least", "use: lest"),
        ("target: 60%", "taget: 60%"),
        ("target: 0.7", "target: 1.7"),
        ("strict: true", "strict: maybe"),
        ("metric: success_rate", "metric: succes_rate"),
        ("error: 0.5%}", "error: half}"),
        ("tokens_out: 100\n", "tokens_out: -1\n"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(validator, tmp_path, example_text, written, instead):
    assert written in example_text
    path = tmp_path / "x.yaml"
    path.write_text(example_text.replace(written, instead, 1), encoding="utf-8")
    assert not validator.is_valid(read_file(path).plain())


def test_the_schema_names_everything_it_refers_to_and_explains_every_key():
    found = schema()
    text = json.dumps(found, allow_nan=False)
    assert set(re.findall(r'"#/\$defs/([^"]*)"', text)) <= set(found["$defs"])
    assert not [name for name in found["$defs"] if "__" in name]
    undescribed = [
        (name, key)
        for name in ("Agent", "Poisson", "Closed", "Trace", "Slo", "Prices", "Crash", "TokenService")
        for key, part in found["$defs"][name]["properties"].items()
        if "description" not in part and key not in ("kind", "law")
    ]
    assert undescribed == []
    assert all("description" in part for part in found["properties"].values())


def test_editors_see_a_controllers_parameters():
    threshold = schema()["$defs"]["scaler"]["oneOf"][0]
    assert threshold["description"] == "Adds instances above a target."
    assert threshold["required"] == ["use", "target"]
    assert threshold["properties"]["cooldown"]["default"] == "5m"
    assert threshold["properties"]["min_instances"] == {"type": "integer", "minimum": 1, "default": 1}


def test_the_schema_of_the_built_in_controllers_is_valid_and_complete(real_controllers):
    found = schema()
    Draft202012Validator.check_schema(found)
    json.dumps(found, allow_nan=False)
    for family, use in real_controllers:
        titles = [part["title"] for part in found["$defs"][family]["oneOf"]]
        assert use in titles

"""The scenarios that ship: valid, documented, and what they expect does happen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from glowsim.experiment.run import run
from glowsim.registry import BUILT_INS
from glowsim.resources import resource
from glowsim.scenario import Scenario, load, schema
from glowsim.scenario.model import digest

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = sorted(resource("scenarios").glob("*.yaml"))
TRACE = "azure_llm_2023/AzureLLMInferenceTrace_code.csv"


@pytest.fixture
def data_folder(data_file) -> Path:
    return data_file(TRACE).parents[1]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_it_says_what_it_asks_and_editors_can_complete_it(path: Path) -> None:
    scenario = load(path)
    assert scenario.question.endswith("?")
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=scenario.schema.json"
    assert digest(Scenario.model_validate(scenario.dump())) == digest(scenario)


def test_the_schema_beside_them_is_the_present_one() -> None:
    assert json.loads(resource("scenarios", "scenario.schema.json").read_text()) == json.loads(
        json.dumps(schema())
    )


def test_the_readme_names_every_scenario_and_every_controller() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [path.stem for path in SCENARIOS] + [name for built_in in BUILT_INS.values() for name in built_in]
    assert [name for name in names if f"`{name}`" not in text] == []
    pages = re.findall(r"\]\((controllers/\S+)\)", text)
    assert {ROOT / page for page in pages} == set((ROOT / "controllers").glob("*/README.md"))


@pytest.mark.parametrize("name", ["phase5_load_test", "phase5_load_test_open"])
def test_the_claimed_band_is_held(name: str, tmp_path: Path) -> None:
    finished = run(load(resource("scenarios", f"{name}.yaml")), name, tmp_path / "run")
    missed = [each for each in finished.summary["expectations"] if not each["held"]]
    assert not missed
    assert finished.summary["verdict"] == "met"


def test_a_fleet_too_small_does_not_hold_it(tmp_path: Path) -> None:
    """The negative control: with a third of the instances and no scaler, the levels are not met."""
    overrides = [f"fleet.{agent}.instances=3" for agent in ("tax", "audit", "accounting")]
    overrides += ["controllers.scaler.max_instances=3", "controllers.scaler.min_instances=1"]
    scenario = load(resource("scenarios", "phase5_load_test.yaml"), overrides)
    finished = run(scenario, "small", tmp_path / "run", replications=2)
    assert finished.summary["verdict"] == "not met"
    assert not all(each["held"] for each in finished.summary["expectations"])


def test_the_real_hour_is_replayed_whole(tmp_path: Path, data_folder: Path) -> None:
    scenario = load(resource("scenarios", "azure_code.yaml"))
    finished = run(scenario, "azure_code", tmp_path / "run", data=data_folder)
    assert finished.summary["deterministic"]
    assert finished.summary["replications"] == 1
    assert finished.summary["metrics"]["launched"]["value"] == 8819
    assert all(each["held"] for each in finished.summary["expectations"])
    assert finished.summary["verdict"] in ("met", "not met"), "nothing random: one run decides"

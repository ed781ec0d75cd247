"""Scenarios: YAML in, frozen models out, and errors that say where, what is allowed and what was meant."""

from glowsim.scenario.loader import load
from glowsim.scenario.metrics import METRICS, quantity_of
from glowsim.scenario.model import Scenario, digest
from glowsim.scenario.problems import Problem, ScenarioError
from glowsim.scenario.quantities import format_duration, format_rate
from glowsim.scenario.schema import schema

__all__ = [
    "METRICS",
    "Problem",
    "Scenario",
    "ScenarioError",
    "digest",
    "format_duration",
    "format_rate",
    "load",
    "quantity_of",
    "schema",
]

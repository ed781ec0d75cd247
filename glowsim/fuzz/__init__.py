"""The fuzzer: random scenarios, everything that must hold of each, and the smallest one that breaks it."""

from glowsim.fuzz.campaign import Found, campaign, write
from glowsim.fuzz.facts import facts_of
from glowsim.fuzz.generate import scenario_data
from glowsim.fuzz.judge import Failure, judge
from glowsim.fuzz.shrink import shrink

__all__ = ["Failure", "Found", "campaign", "facts_of", "judge", "scenario_data", "shrink", "write"]

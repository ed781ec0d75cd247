"""The simulator against exact answers: every case of the oracle table, run and reported on one page."""

from glowsim.validation.command import Validation, report_validation

__all__ = ["Validation", "report_validation"]

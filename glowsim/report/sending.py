"""How the requests of a measured run were sent: what its figures hang on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glowsim.report.blocks import Block, section, table, text
from glowsim.report.numbers import DASH, plain

__all__ = ["sending"]


def sending(measured: Mapping[str, Any]) -> Block:
    """Return the section about a real target: where, how late the generator was, what went wrong, what spoils it.

    Parameters
    ----------
    measured
        As it stands in the summary.
    """
    late = measured["lateness_s"]
    rows = [
        ["target", f"{measured['target']} (--api {measured['api']})"],
        ["requests sent", f"{measured['sent']:,}"],
        *(
            [f"sent late by, {name}", DASH if late is None else plain(late[key], "duration")]
            for key, name in (("p50", "median"), ("p99", "p99"), ("max", "at most"))
        ),
        ["most in flight", f"{measured['peak_in_flight']:,} of {measured['most_in_flight']:,} allowed"],
        *([f"went wrong: {words}", f"{n:,}"] for words, n in measured["errors"].items()),
    ]
    said = [f"Warning: {each}." for each in measured["warnings"]] + [
        f"Note: {each}." for each in measured["notes"]
    ]
    lead = "Measured, not simulated: every time counts from the moment that a request was due."
    return section("sending", "How it was measured", lead, [table("|*", rows), *map(text, said)])

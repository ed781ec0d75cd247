"""A simulation that was lived through: its journal, its tables, and what telemetry made of the same events."""

from __future__ import annotations

from types import SimpleNamespace

from glowsim import build
from glowsim.core.streams import Streams
from glowsim.core.types import Event
from glowsim.live.telemetry import Telemetry
from glowsim.results import fold


def telemetry_of(scenario):
    """Return the telemetry of a scenario, which has seen nothing yet."""
    plane = build.control_plane(scenario, Streams(scenario.seed, 0))
    return Telemetry(scenario, plane, [each.instances for each in scenario.agents().values()])


def lived_through(scenario):
    """Return ``scenario``, ``recording``, ``tables``, ``telemetry`` and when it ends, ``t_s``."""
    replication = build.replication(scenario, 0)
    replication.world.start()
    replication.world.run(scenario.duration_s + scenario.drain_s)
    recording = replication.journal.recording()
    telemetry = telemetry_of(scenario)
    events = [record for record in recording.records() if isinstance(record, Event)]
    for event in events:
        telemetry.saw(event, telemetry.plane.handle(event))
    return SimpleNamespace(
        scenario=scenario, recording=recording, tables=fold(recording, scenario), telemetry=telemetry,
        t_s=events[-1].t_s,
    )  # fmt: skip

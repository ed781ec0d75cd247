"""The metrics that a simulated run would have shown, for the dashboard of the live fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glowsim.commands.common import stop

if TYPE_CHECKING:
    from glowsim.core.journal import Recording
    from glowsim.scenario import Scenario

__all__ = ["PrometheusOption", "exposed", "ready_for", "write"]

PrometheusOption = Annotated[
    Path | None,
    typer.Option(
        "--prometheus",
        metavar="FILE",
        help="Also write what the daemon's /metrics would say at the end of the first replication.",
    ),
]


def ready_for(path: Path) -> None:
    """Stop, before anything is run, if a file cannot be written there."""
    if path.is_dir() or not path.parent.is_dir():
        stop(f"--prometheus {path}: give a file in a folder that exists")


def write(path: Path, folder: Path, *, allow_plugins: bool) -> None:
    """Write the metrics of a run's first replication, in place of what is there, whole or not at all.

    Parameters
    ----------
    path
        Where they go.
    folder
        The run, which stays if they cannot be written.
    allow_plugins
        Whether its controllers may be code beside the scenario.
    """
    from glowsim.recordings import recordings

    _, recording, scenario = next(recordings(folder, None))
    text = exposed(recording, scenario, allow_plugins=allow_plugins)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        stop(f"--prometheus {path}: {error.strerror}; the run itself is in {folder}")


def exposed(recording: Recording, scenario: Scenario, *, allow_plugins: bool = False) -> str:
    """Return Prometheus' text of a fleet at the end of a whole journal, as the daemon that wrote it would give it then.

    The events are told to a fresh control plane, so whatever wrote the journal, a simulation or a daemon, spent
    nothing on it.

    Parameters
    ----------
    recording
        The journal.
    scenario
        What it was made with.
    allow_plugins
        Whether its controllers may be code beside the scenario.
    """
    from glowsim import build
    from glowsim.core.streams import Streams
    from glowsim.core.types import Event
    from glowsim.live.exposition import exposition
    from glowsim.live.telemetry import Telemetry

    header = recording.header
    streams = Streams(header["seed"], header["replication"])
    fall_back = header["on_error"] == "fall back"
    plane = build.control_plane(scenario, streams, allow_plugins=allow_plugins, fall_back=fall_back)
    telemetry = Telemetry(scenario, plane, [agent.instances for agent in scenario.agents().values()])
    t_s = 0.0
    for record in recording.records():
        if isinstance(record, Event):
            t_s = record.t_s
            telemetry.saw(record, plane.handle(record))
    return exposition(telemetry, t_s)

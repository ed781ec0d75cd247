"""``glowsim load``: the workload of a scenario against a real target, with the summary and verdict of a run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from glowsim.commands.common import fresh_folder, load_scenario, stop, summary_as_json
from glowsim.commands.options import DataOption, JsonOption, PluginsOption, ScenarioArgument, SetOption

__all__ = ["add_to"]

_MISSING = "a load on a real target needs aiohttp: pip install 'glowsim[live]'"


def load(
    scenario: ScenarioArgument,
    target: Annotated[str, typer.Option(metavar="URL", help="Where the requests go: http://HOST:PORT.")],
    overrides: SetOption = [],  # noqa: B006
    api: Annotated[
        str,
        typer.Option(help="chat: OpenAI's chat completions, model = the agent; tasks: the gateway's own."),
    ] = "chat",
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", metavar="NAME", help="Environment variable with the bearer key."),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(help="Stop sending after this, such as 5m; default: the scenario's duration."),
    ] = None,
    replications: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Runs one after the other; one alone leaves levels undecided."),
    ] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the scenario's seed.")] = None,
    max_in_flight: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="Requests open at once; beyond, they wait, and it is said."),
    ] = 10_000,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: a new one under runs/.")
    ] = None,
    data: DataOption = None,
    allow_plugins: PluginsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Send a scenario's workload to real agents, timed from when each request was due; exit codes as of run."""
    try:
        from glowsim.load.run import Load
        from glowsim.load.run import load as send
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        stop(_MISSING)
    from glowsim.experiment.judgement import EXIT_CODES
    from glowsim.scenario import format_duration

    if api not in ("chat", "tasks"):
        stop(f"--api {api!r}: choose chat or tasks")
    seeded = overrides if seed is None else [*overrides, f"seed={seed}"]
    path, loaded = load_scenario(scenario, seeded, allow_plugins=allow_plugins)
    how = Load(target, api, _key(key_env), _seconds(duration), replications, max_in_flight)
    if sys.stderr.isatty():
        lasts_s = min(how.duration_s or loaded.duration_s, loaded.duration_s) * replications
        typer.echo(
            f"sending for {format_duration(lasts_s)}; Ctrl-C ends it and keeps what was measured", err=True
        )
    finished = send(
        loaded, path.stem, out or fresh_folder(path.stem), how, data=data, command=["glowsim", *sys.argv[1:]]
    )
    if as_json:
        said = summary_as_json(finished.summary, finished.folder, finished.wall_s, finished.cpu_s)
        typer.echo(json.dumps(said | {"measured": finished.summary["measured"]}))
    else:
        from glowsim.summary import render

        typer.echo(render(finished.summary, finished.folder, finished.wall_s))
    sys.exit(EXIT_CODES[finished.summary["verdict"]])


def _key(name: str | None) -> str | None:
    """Return the key in an environment variable; it is never shown."""
    if name is None:
        return None
    if name not in os.environ:
        stop(
            "--key-env: there is no such variable in the environment; give the name of one, not the key itself"
        )
    return os.environ[name]


def _seconds(duration: str | None) -> float | None:
    if duration is None:
        return None
    from glowsim.scenario.quantities import DURATION, QuantityError

    try:
        seconds = DURATION.read(duration)
    except QuantityError as error:
        stop(f"--duration: {error}")
    if seconds <= 0.0:
        stop("--duration: must be more than 0s")
    return seconds


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(load)

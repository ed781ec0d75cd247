"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DataOption", "FormatOption", "JobsOption", "JsonOption", "LogArgument", "OutOption", "PluginsOption",
    "PolicyOption", "ScenarioArgument", "SetOption",
]  # fmt: skip

DataOption = Annotated[
    Path | None,
    typer.Option("--data", envvar="GLOWSIM_DATA", help="Folder of recorded traces (or GLOWSIM_DATA)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
LogArgument = Annotated[
    Path, typer.Argument(metavar="LOG", help="A recorded workload: a trace, spend logs, spans; may be .gz.")
]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="How it is laid out; default: found out from its fields.")
]
JobsOption = Annotated[int, typer.Option(min=1, max=256, help="Processes to spread the work over.")]
OutOption = Annotated[Path, typer.Option(help="Folder of the pages.")]
ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A YAML file, or a bundled name (see list).")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", "-s", metavar="KEY.PATH=VALUE", help="Override a value; may be given often."),
]
PolicyOption = Annotated[
    list[str],
    typer.Option(
        "--policy",
        "-p",
        metavar="KEY.PATH=VALUE",
        help="What another policy would have done: a controller, or a parameter of one; may be given often.",
    ),
]
PluginsOption = Annotated[
    bool,
    typer.Option(
        "--allow-plugins", help="Trust controllers that are code beside the scenario (module:Class)."
    ),
]

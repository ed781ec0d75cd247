"""``glowsim workload``: what a recorded workload looks like, and another one like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from glowsim.commands.options import FormatOption, JsonOption, LogArgument

__all__ = ["app"]

app = typer.Typer(help="Recorded workloads: describe them, make more of them.", no_args_is_help=True)


@app.command()
def describe(log: LogArgument, layout: FormatOption = None, as_json: JsonOption = False) -> None:
    """Print rate, burstiness at three scales, lengths, prefix sharing and sessions of a recorded workload."""
    from glowsim.traces.describe import describe as described
    from glowsim.traces.reading import read

    found = read(log, layout)
    description = described(found)
    if as_json:
        reading = found.reading
        refused = [{"line": row.line, "why": row.why} for row in reading.refused]
        said = {"rows": reading.rows, "refused": reading.refused_count, "first_refused": refused,
                "unknown_fields": reading.unknown, "remarks": list(reading.remarks)}  # fmt: skip
        typer.echo(json.dumps({**description.as_dict(), "reading": said}))
        return
    typer.echo(description.text())
    typer.echo("")
    typer.echo(found.reading.text())


@app.command()
def fit(
    log: LogArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; it must not exist.")],
    layout: FormatOption = None,
    envelope: Annotated[
        str,
        typer.Option(
            help="stochastic: any length, another each seed; recorded: the log's own busy and quiet times."
        ),
    ] = "stochastic",
    window: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds of a step of the rate; default: what fits best.")
    ] = None,
) -> None:
    """Write a preset that makes traffic like a recorded workload: for 'kind: fitted' in a scenario."""
    from glowsim.core.errors import GlowsimError
    from glowsim.traces.fit import fit as fitted
    from glowsim.traces.fit import write
    from glowsim.traces.reading import read
    from glowsim.traffic import play

    if envelope not in ("stochastic", "recorded"):
        raise GlowsimError(f"--envelope {envelope!r}: choose stochastic or recorded")
    if out.exists():
        raise GlowsimError(f"{out} exists: name another file, or remove it")
    found = read(log, layout)
    text = write(fitted(found, play, envelope=envelope, window_s=window, name=out.stem))  # type: ignore[arg-type]
    out.write_text(text, encoding="utf-8")
    typer.echo(found.reading.text())
    typer.echo(f"wrote {out}; in a scenario: {{kind: fitted, file: {out.name}}}, with --data {out.parent}")

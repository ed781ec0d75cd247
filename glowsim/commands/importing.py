"""``glowsim import`` and ``glowsim backtest``: a scenario from a log, and how well one would have foretold it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from glowsim.commands.options import FormatOption, JsonOption, LogArgument, OutOption

__all__ = ["add_to"]

PricesOption = Annotated[
    Path | None,
    typer.Option(
        help="LiteLLM's price map, model_prices_and_context_window.json; default: the log's own costs."
    ),
]
UnpricedOption = Annotated[
    bool, typer.Option("--unpriced", help="Take models whose price nobody knows as free.")
]
ModelOption = Annotated[str | None, typer.Option(help="The model of rows that name none.")]
HOW = ("replay", "fitted", "sessions")


def import_log(
    log: LogArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The scenario to write; it must not exist.")],
    layout: FormatOption = None,
    prices: PricesOption = None,
    unpriced: UnpricedOption = False,
    model: ModelOption = None,
    how: Annotated[
        str, typer.Option(help="replay: the log's own requests; fitted: others like them; sessions.")
    ] = "replay",
) -> None:
    """Write a scenario from a log: agents, models, prices, latencies, failures and traffic, each with its origin."""
    from glowsim.core.errors import GlowsimError
    from glowsim.importing.command import import_log as imported

    if how not in HOW:
        raise GlowsimError(f"--how {how!r}: choose from {', '.join(HOW)}")
    done = imported(
        log, out, format=layout, prices=prices, unpriced=unpriced, model=model, how=how,  # type: ignore[arg-type]
        command=_command(),
    )  # fmt: skip
    typer.echo(done.text())


def backtest(
    log: LogArgument,
    out: OutOption = Path("backtest"),
    layout: FormatOption = None,
    prices: PricesOption = None,
    unpriced: UnpricedOption = False,
    model: ModelOption = None,
    holdout: Annotated[
        float, typer.Option(min=0.05, max=0.9, help="Share of the time that is judged, the last.")
    ] = 0.25,
    replications: Annotated[int, typer.Option(min=2, max=1000, help="Replays of the judged part.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Fit a log but its last part, replay that part, and compare: cost, latencies, errors, every difference named."""
    from glowsim.backtest.command import backtest as backtested

    done = backtested(
        log, out, format=layout, prices=prices, unpriced=unpriced, model=model, holdout=holdout,
        replications=replications, command=_command(),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(done.found.as_json()))
        return
    typer.echo(done.found.text())
    typer.echo(f"page: {done.html}")


def add_to(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("import")(import_log)
    app.command()(backtest)


def _command() -> list[str]:
    return ["glowsim", *sys.argv[1:]]

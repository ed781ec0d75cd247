"""``glowsim report``: pages that are not about one run."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from glowsim.commands.common import read_quantity
from glowsim.commands.options import DataOption, JobsOption, JsonOption, OutOption

__all__ = ["app"]

app = typer.Typer(help="Pages: validation against theory, claims of a document.", no_args_is_help=True)


@app.command()
def validation(
    out: OutOption = Path("validation"),
    full: Annotated[
        bool, typer.Option("--full", help="The sizes of the campaign: an hour of CPU, 2 % of half-width.")
    ] = False,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Simulate the cases whose answers are known exactly; exit 1 if one disagrees."""
    from glowsim.validation import report_validation

    def tell(done: int, of: int, title: str) -> None:
        typer.echo(f"{done} of {of}: {title}", err=True)

    done = report_validation(
        out, full=full, jobs=jobs, command=_command(), progress=None if as_json else tell
    )
    counts = Counter(each.verdict for each in done.measured)
    if as_json:
        typer.echo(json.dumps({"html": str(done.html), "pdf": str(done.pdf), "verdicts": counts}))
    else:
        typer.echo(", ".join(f"{n} {word}" for word, n in counts.most_common()))
        typer.echo(f"page: {done.html}")
    sys.exit(0 if done.agrees else 1)


@app.command()
def claims(
    source: Annotated[
        Path | None, typer.Argument(help="A file of claims; default: those of the Phase 5 report.")
    ] = None,
    out: OutOption = Path("claims"),
    simulate: Annotated[
        bool, typer.Option(help="Run the scenarios that are to show some of the claims.")
    ] = True,
    data: DataOption = None,
    jobs: JobsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Hold a document's claims against each other and against simulation; exit 1 if they cannot all be true."""
    from glowsim.claims.command import BUNDLED, report_claims
    from glowsim.claims.verdicts import INCONSISTENT, NOT_REPRODUCED

    def tell(scenario: str) -> None:
        typer.echo(f"running {scenario}", err=True)

    done = report_claims(
        out, source or BUNDLED, simulated=simulate, data=data, jobs=jobs, command=_command(),
        progress=None if as_json else tell,
    )  # fmt: skip
    counts = Counter(each.verdict for each in done.judged)
    if as_json:
        verdicts = {each.name: {"verdict": each.verdict, "against": each.against} for each in done.judged}
        typer.echo(json.dumps({"html": str(done.html), "pdf": str(done.pdf), "claims": verdicts}))
    else:
        typer.echo(", ".join(f"{n} {word}" for word, n in counts.most_common()))
        typer.echo(f"page: {done.html}")
    sys.exit(1 if counts[INCONSISTENT] or counts[NOT_REPRODUCED] else 0)


@app.command()
def rollouts(
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[POLICY...]", help="As for glowsim oc; default: canary, argo, flagger, kayenta."
        ),
    ] = None,
    rates: Annotated[
        str, typer.Option(metavar="RATE,...", help="Requests of the rollout: 31/d,2/s.")
    ] = "0.2/s,2/s,20/s",
    base_error: Annotated[
        str, typer.Option(metavar="SHARE", help="Of the old version's requests that fail.")
    ] = "5%",
    weight: Annotated[
        str, typer.Option(metavar="SHARE", help="Of the new version, in policies that do not say it.")
    ] = "5%",
    out: OutOption = Path("rollouts"),
    campaigns: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of each effect.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal figures.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Put rollout policies beside each other, by their own rules; exit 1 if one does not keep the budget."""
    from glowsim.oc.characteristics import KEPT
    from glowsim.oc.comparison import BUNDLED, compare, pages, report_rollouts
    from glowsim.scenario.quantities import FRACTION, RATE

    def tell(what: str) -> None:
        typer.echo(f"simulating {what}", err=True)

    pages(out)
    found = compare(
        policies or BUNDLED, [read_quantity("--rates", each, RATE) for each in rates.split(",")],
        read_quantity("--base-error", base_error, FRACTION), weight=read_quantity("--weight", weight, FRACTION),
        campaigns=campaigns, seed=seed,
        progress=None if as_json else tell,
    )  # fmt: skip
    done = report_rollouts(out, found, campaigns, seed, _command())
    counts = Counter(each.verdict for each in found)
    if as_json:
        typer.echo(json.dumps({"html": str(done.html), "pdf": str(done.pdf), "verdicts": counts}))
    else:
        typer.echo(", ".join(f"{n} {word}" for word, n in counts.most_common()))
        typer.echo(f"page: {done.html}")
    sys.exit(0 if counts[KEPT] == len(found) else 1)


def _command() -> list[str]:
    return ["glowsim", *sys.argv[1:]]

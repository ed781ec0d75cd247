"""``glowsim ab rank``: which suggested improvement to try first, and how to roll it out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from glowsim.commands.common import read_quantity, stop
from glowsim.commands.options import JsonOption

__all__ = ["rank"]

_COLUMNS = (
    "name", "variant", "value_usd_per_day", "error_usd_per_day", "harm_chance", "harm_usd_per_day", "critical",
)  # fmt: skip
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def rank(
    data: Annotated[Path, typer.Argument(metavar="SUGGESTIONS", help="Rows: .csv, .jsonl or .parquet.")],
    confidence: Annotated[
        str, typer.Option(help="Of the lower bound of the value: 50% to below 100%.")
    ] = "95%",
    high_risk: Annotated[
        str, typer.Option(help="Part of the expected value above which expected harm asks for a canary.")
    ] = "10%",
    as_json: JsonOption = False,
) -> None:
    """Rank suggested improvements by a lower bound of their value less the expected harm, with a strategy for each.

    Columns: name, variant, value_usd_per_day, error_usd_per_day (its standard error; inf without evidence),
    harm_chance (0 to 1), harm_usd_per_day, critical (true or false).
    """
    from glowsim.commands.rows import read_rows
    from glowsim.scenario.quantities import FRACTION
    from glowsim.stats.experiments.suggestions import Suggestion
    from glowsim.stats.experiments.suggestions import rank as ranked_by_worth

    rows = read_rows(data, list(_COLUMNS))
    critical = [_WORDS.get(str(value).strip().lower()) for value in rows.columns["critical"]]
    rows.refuse(
        [(place, "critical must be true or false") for place, each in enumerate(critical) if each is None]
    )
    spread = [_number_or_inf(each) for each in rows.texts("error_usd_per_day")]
    rows.refuse(
        [
            (place, "error_usd_per_day must be a number, or inf without evidence")
            for place, each in enumerate(spread)
            if math.isnan(each)
        ]
    )
    columns = (
        rows.texts("name"), rows.texts("variant"), rows.numbers("value_usd_per_day"), spread,
        rows.numbers("harm_chance"), rows.numbers("harm_usd_per_day"), map(bool, critical),
    )  # fmt: skip
    try:
        found = ranked_by_worth(
            map(Suggestion._make, zip(*columns, strict=True)),
            confidence=read_quantity("--confidence", confidence, FRACTION),
            high_risk=read_quantity("--high-risk", high_risk, FRACTION),
        )
    except ValueError as error:
        stop(f"{data}: {error}")
    if as_json:
        typer.echo(json.dumps([
            {"name": each.suggestion.name, "variant": each.suggestion.variant,
             "worth_usd_per_day": each.worth_usd_per_day if math.isfinite(each.worth_usd_per_day) else None,
             "strategy": each.strategy}
            for each in found
        ]))  # fmt: skip
        return
    for place, each in enumerate(found, 1):
        one, worth = each.suggestion, each.worth_usd_per_day
        said = f"worth at least ${worth:,.2f} a day" if math.isfinite(worth) else "no evidence of its worth"
        advice = each.strategy if worth > 0.0 else "not yet"
        typer.echo(f"{place}. {one.name} ({one.variant}): {said}: {advice}")


def _number_or_inf(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        return math.nan

"""``glowsim oc``: how often a rollout policy rolls back a healthy version, and how long a bad one runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from glowsim.commands.common import load_scenario, read_quantity, stop
from glowsim.commands.options import DataOption, JsonOption, PluginsOption

if TYPE_CHECKING:
    from glowsim.oc.characteristics import Characteristics
    from glowsim.oc.measure import Measured
    from glowsim.oc.policy import Policy

__all__ = ["add_to"]

_MOST_STREAMS = 200
"""Of --drift: each is as long as the budget."""


def oc(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="POLICY",
            help="immediate, gradual, canary; YAML with a splitter, a scenario, or a configuration of Argo Rollouts, "
            "Flagger or Kayenta.",
        ),
    ],
    rate: Annotated[str | None, typer.Option(help="Requests of the rollout: 2/s, 31/d.")] = None,
    base_error: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Of the old version's requests that fail: 5%.")
    ] = None,
    base: Annotated[
        list[str], typer.Option(metavar="GUARDRAIL=SHARE", help="Of another guardrail: latency=5%.")
    ] = [],  # noqa: B006
    effect: Annotated[
        str, typer.Option(metavar="SHARE,...", help="What a bad version adds, in points: 1%,2%,5%.")
    ] = "0.5%,1%,2%,3%,5%",
    onset: Annotated[str, typer.Option(help="When a bad version gets bad: 12h.")] = "0s",
    campaigns: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of each effect.")] = 2000,
    daily: Annotated[bool, typer.Option("--daily", help="Traffic and errors with a daily rhythm.")] = False,
    incidents: Annotated[
        bool,
        typer.Option("--incidents", help="Now and then errors of both versions are six times as frequent."),
    ] = False,
    label_delay: Annotated[str, typer.Option(help="From a request to its outcome: 10m.")] = "0s",
    tenants: Annotated[
        int, typer.Option(min=0, max=10_000, help="Assign by tenant, of so many; 0: by request.")
    ] = 0,
    correlation: Annotated[
        str, typer.Option(metavar="SHARE", help="Of two outcomes of one tenant: 1%.")
    ] = "0%",
    zipf: Annotated[
        float, typer.Option(min=0.0, max=3.0, help="Exponent of the tenants' sizes; 0: all alike.")
    ] = 0.0,
    metric: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=GUARDRAIL", help="What a metric of another tool's configuration measures."
        ),
    ] = [],  # noqa: B006
    weight: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Of the new version, where such a configuration has none."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="After what time a person resumes it where it pauses without an end: 1h."),
    ] = None,
    most_rollbacks: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Budget: healthy versions rolled back; default: its alpha."),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="Budget: what no version may be worse by; default: its own, or 1%."
        ),
    ] = None,
    smallest: Annotated[
        str, typer.Option(metavar="SHARE", help="Budget: effect that it must find with probability 0.95.")
    ] = "5%",
    scenario: Annotated[
        str | None,
        typer.Option(
            help="Measure rate and shares in a run of this scenario; what is given here counts instead."
        ),
    ] = None,
    data: DataOption = None,
    search: Annotated[
        bool, typer.Option("--search", help="Look for the schedule that keeps the budget at the least cost.")
    ] = False,
    hour_worth: Annotated[
        float,
        typer.Option(min=0.0, help="Of --search: harmed requests that an hour until full traffic is worth."),
    ] = 1.0,
    drift: Annotated[
        bool,
        typer.Option(
            "--drift",
            help="Look at drift detectors instead: POLICY is all, a detector's name, or YAML with some.",
        ),
    ] = False,
    regime: Annotated[
        str | None,
        typer.Option(
            metavar="LAW",
            help="Of --drift, what the metric does while all is well: errors:5%, normal:MEAN,DEVIATION, "
            "lognormal:MEAN,VARIATION, or FILE.csv:COLUMN; default: errors at --base-error.",
        ),
    ] = None,
    run_length: Annotated[
        float, typer.Option(help="Of --drift, the budget: values between false alarms.")
    ] = 50_000.0,
    shift: Annotated[
        str,
        typer.Option(metavar="SHARE,...", help="Of --drift: changes, of a rate in points, else relative."),
    ] = "2.5%,5%,10%",
    swing: Annotated[
        str,
        typer.Option(metavar="SHARE", help="Of --drift: daily, weekly and between kinds of task; 0%: none."),
    ] = "30%",
    out: Annotated[
        Path | None, typer.Option(help="Folder for oc.html and oc.json; default: nothing is written.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal figures.")] = 0,
    allow_plugins: PluginsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say how often a rollout policy is wrong at a traffic: exit 0 if it keeps its budget, 1 if not, 3 if undecided.

    Bad input: exit 2.
    """
    if drift:
        _drift(
            policy, regime, rate, base_error, run_length, shift, swing, campaigns, seed, out, as_json=as_json,
            allow_plugins=allow_plugins,
        )  # fmt: skip
    from glowsim.oc.characteristics import KEPT, NOT_KEPT, Budget, characterise
    from glowsim.oc.policy import read_policy
    from glowsim.oc.remedy import remedy
    from glowsim.oc.saying import advice, search_json, search_text, text
    from glowsim.oc.saying import as_json as plain
    from glowsim.oc.traffic import Traffic
    from glowsim.scenario.quantities import DURATION, FRACTION, RATE

    written = (out / "oc.html", out / "oc.json") if out is not None else None
    for path in written or ():
        if path.exists():
            stop(f"{path} exists: name another folder, or remove it")
    delay_s = read_quantity("--label-delay", label_delay, DURATION)
    read = read_policy(
        policy,
        label_delay_s=delay_s,
        sticky=tenants > 0,
        metrics=_pairs("--metric", metric),
        weight=None if weight is None else read_quantity("--weight", weight, FRACTION),
        pause_s=None if resume is None else read_quantity("--resume", resume, DURATION),
        allow_plugins=allow_plugins,
    )
    rule = read.rule
    bases = {name: read_quantity("--base", share, FRACTION) for name, share in _pairs("--base", base).items()}
    if base_error is not None:
        bases["errors"] = read_quantity("--base-error", base_error, FRACTION)
    source = scenario or read.scenario
    if source is not None and (rate is None or not set(rule.guardrails) <= set(bases)):
        measured = _measured(source, read, data, allow_plugins=allow_plugins)
        bases = {**measured.base, **bases}
        rate = rate or f"{measured.rate_per_s!r}/s"
    if rate is None or not bases:
        stop("give the traffic: --rate 2/s (or 31/d) and --base-error 5%, or --scenario to measure it in")
    traffic = Traffic(
        read_quantity("--rate", rate, RATE), bases, read_quantity("--onset", onset, DURATION), daily, incidents,
        delay_s, tenants, read_quantity("--correlation", correlation, FRACTION), zipf,
    )  # fmt: skip
    budget = Budget(
        false_rollback=_or(most_rollbacks, "--most-rollbacks", rule.alpha or 0.01),
        margin=_or(margin, "--margin", getattr(rule, "margin", 0.01)),
        false_promotion=getattr(rule, "promote_alpha", 0.025),
        smallest=read_quantity("--smallest", smallest, FRACTION),
    )
    effects = [read_quantity("--effect", each, FRACTION) for each in effect.split(",")]
    sought = None
    if search:
        from glowsim.oc.search import search as look_for

        sought = look_for(rule, traffic, budget, hour_worth, campaigns, seed)
        rule = rule if sought.best is None else sought.best.rule
        seed += sought.best is not None  # the campaigns by which it was chosen
    found = characterise(rule, traffic, budget, effects, campaigns, seed)
    helps = None if found.verdict != NOT_KEPT else remedy(found, seed)
    advised = None if helps is None else advice(found, helps)
    said = plain(found, helps, advised, campaigns, seed)
    if sought is not None:
        said["search"] = search_json(sought)
    as_data = json.dumps(said, allow_nan=False)
    if written is not None:
        _write(found, advised, campaigns, as_data, *written)
    if as_json:
        typer.echo(as_data)
    else:
        if sought is not None:
            typer.echo(search_text(sought, budget))
        typer.echo(text(found, advised, campaigns))
        if written is not None:
            typer.echo(f"page: {written[0]}")
    sys.exit({KEPT: 0, NOT_KEPT: 1}.get(found.verdict, 3))


def _measured(scenario: str | Path, read: Policy, data: Path | None, *, allow_plugins: bool) -> Measured:
    """Return the traffic of a scenario."""
    from glowsim.oc.measure import measure

    _, loaded = load_scenario(str(scenario), [], allow_plugins=allow_plugins)
    return measure(loaded, read.bounds, data=data, allow_plugins=allow_plugins)


def _drift(
    policy: str, regime: str | None, rate: str | None, base_error: str | None, run_length: float, shift: str,
    swing: str, campaigns: int, seed: int, out: Path | None, *, as_json: bool, allow_plugins: bool,
) -> NoReturn:  # fmt: skip
    """Say how often drift detectors are wrong: exit 0 if each keeps the run length, 1 if one does not."""
    from glowsim.oc.drift.command import drift
    from glowsim.oc.drift.saying import as_json as plain
    from glowsim.oc.drift.saying import text
    from glowsim.scenario.quantities import FRACTION, RATE

    if (regime is None) == (base_error is None):
        stop("give what the metric does while all is well: --base-error 5%, or --regime lognormal:2,0.5")
    if rate is None:
        stop("give how many values there are, for what a day does to them: --rate 31/d")
    html = None if out is None else out / "drift.html"
    if html is not None and html.exists():
        stop(f"{html} exists: name another folder, or remove it")
    found = drift(
        policy,
        regime=regime or f"errors:{base_error}",
        run_length=run_length,
        shifts=[_signed(each) for each in shift.split(",")],
        per_day=read_quantity("--rate", rate, RATE) * 86_400.0,
        swing=read_quantity("--swing", swing, FRACTION),
        streams=min(campaigns, _MOST_STREAMS),
        seed=seed,
        allow_plugins=allow_plugins,
    )
    data = json.dumps(plain(found), allow_nan=False)
    typer.echo(data if as_json else text(found))
    if html is not None:
        from datetime import UTC, datetime

        from glowsim.oc.drift.page import build
        from glowsim.report import render

        page = build(found, datetime.now(UTC).isoformat(timespec="seconds"), ["glowsim", *sys.argv[1:]])
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render.html(page), encoding="utf-8")
        html.with_suffix(".json").write_text(data + "\n", encoding="utf-8")
        if not as_json:
            typer.echo(f"page: {html}")
    sys.exit(0 if found.kept else 1)


def _signed(written: str) -> float:
    from glowsim.scenario.quantities import FRACTION

    bare = written.strip()
    return (-1.0 if bare.startswith("-") else 1.0) * read_quantity("--shift", bare.lstrip("+-"), FRACTION)


def _write(
    found: Characteristics, advised: str | None, campaigns: int, data: str, html: Path, plain: Path
) -> None:
    """Write the page and the same as JSON."""
    from datetime import UTC, datetime

    from glowsim.oc import page
    from glowsim.oc.figure import by_effect
    from glowsim.report import render

    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    picture = by_effect(found.lines, found.budget)
    report = page.build(found, advised, picture, campaigns, finished_at, ["glowsim", *sys.argv[1:]])
    html.parent.mkdir(parents=True, exist_ok=True)
    html.write_text(render.html(report), encoding="utf-8")
    plain.write_text(data + "\n", encoding="utf-8")


def _or(written: str | None, option: str, default: float) -> float:
    from glowsim.scenario.quantities import FRACTION

    return default if written is None else read_quantity(option, written, FRACTION)


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """Return name -> value of an option that may be given often."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name or not value:
            stop(f"{option} {each!r}: write NAME=VALUE")
        found[name] = value
    return found


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(oc)

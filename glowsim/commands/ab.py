"""``glowsim ab``: how large an experiment must be, who won it, what another policy would have got."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from glowsim.commands.ab_rank import rank
from glowsim.commands.common import read_quantity, stop
from glowsim.commands.options import JsonOption

if TYPE_CHECKING:
    from glowsim.stats.experiments.evaluation import Evaluation, Judged
    from glowsim.stats.experiments.off_policy import OffPolicy

__all__ = ["app"]

app = typer.Typer(
    help="Experiments: sizes, winners, and what other policies would have got.", no_args_is_help=True
)

app.command()(rank)

AlphaOption = Annotated[str, typer.Option(help="Chance of a winner where there is no difference.")]
BetterOption = Annotated[str, typer.Option(help="higher or lower: which of two values is the better one.")]
SpendingOption = Annotated[
    str, typer.Option(help="Of group-sequential looks: obrien-fleming (late), pocock (evenly), power.")
]


@app.command()
def size(
    effect: Annotated[
        str, typer.Option(help="Difference to be found: 1% of a share, else in the metric's unit.")
    ],
    base: Annotated[
        str | None, typer.Option(help="Of a share: what it is in the baseline, such as 5%.")
    ] = None,
    deviation: Annotated[
        float | None, typer.Option(help="Of a mean: standard deviation between units.")
    ] = None,
    alpha: AlphaOption = "5%",
    power: Annotated[str, typer.Option(help="Chance that the difference is found.")] = "80%",
    share: Annotated[str, typer.Option(help="Part of the units that gets the new variant.")] = "50%",
    looks: Annotated[int, typer.Option(min=1, max=100, help="Looks, evenly spread (group-sequential).")] = 1,
    spending: SpendingOption = "obrien-fleming",
    rate: Annotated[
        str | None, typer.Option(help="Units that come, such as 31/d: says how long it takes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how many units an experiment needs so that it finds a difference."""
    from glowsim.scenario.quantities import FRACTION, NUMBER, RATE, format_duration
    from glowsim.stats.experiments.group_sequential import inflation
    from glowsim.stats.experiments.power import size_for_means, size_for_proportions

    if (base is None) == (deviation is None):
        stop("give --base for a share, or --deviation for a mean")
    asked = {"alpha": read_quantity("--alpha", alpha, FRACTION), "power": read_quantity("--power", power, FRACTION),
             "share": read_quantity("--share", share, FRACTION)}  # fmt: skip
    spends = _one_of("--spending", spending, ("obrien-fleming", "pocock", "power"))
    negative, text = effect.startswith("-"), effect.removeprefix("-")
    wanted = read_quantity("--effect", text, NUMBER if base is None else FRACTION) * (
        -1.0 if negative else 1.0
    )
    try:
        if base is not None:
            arms = size_for_proportions(read_quantity("--base", base, FRACTION), wanted, **asked)
        else:
            assert deviation is not None
            arms = size_for_means(wanted, deviation, **asked)
        evenly = [i / looks for i in range(1, looks + 1)]
        times = (
            1.0
            if looks == 1
            else inflation(evenly, alpha=asked["alpha"], power=asked["power"], spending=spends)
        )
    except ValueError as error:
        stop(f"ab size: {error}")
    n_a, n_b = (math.ceil(n * times) for n in arms)
    per_s = None if rate is None else read_quantity("--rate", rate, RATE)
    if per_s == 0.0:
        stop("--rate: at no units at all no experiment ends")
    lasts_s = None if per_s is None else (n_a + n_b) / per_s
    if as_json:
        typer.echo(json.dumps({"units": n_a + n_b, "a": n_a, "b": n_b, **asked, "effect": wanted, "looks": looks,
                               "inflation": times, "lasts_s": lasts_s}))  # fmt: skip
        return
    typer.echo(
        f"{n_a + n_b:,} units: {n_a:,} of the baseline, {n_b:,} of the new variant"
        + ("" if lasts_s is None else f"; {format_duration(lasts_s)} at {rate}")
    )
    typer.echo(
        f"finds a difference of {effect} with a chance of {100 * asked['power']:g} %, and a winner where there is none "
        f"with {100 * asked['alpha']:g} %"
    )
    if looks > 1:
        typer.echo(
            f"{looks} looks ({spends}) cost {100 * (times - 1):.1f} % more units at most, and may end it sooner"
        )


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Rows: .csv, .jsonl or .parquet.")],
    variant: Annotated[str, typer.Option(help="Column of the variant.")],
    metric: Annotated[list[str], typer.Option(help="Column of what counts; may be given often.")],
    unit: Annotated[
        str | None, typer.Option(help="Column of what was assigned, such as user; default: each row is one.")
    ] = None,
    covariate: Annotated[
        str | None,
        typer.Option(help="Column of what was known of a unit before: makes the test sharper (CUPED)."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The variant that the others are held against.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="A=W,B=W", help="Parts of the traffic, by variant; default: even.")
    ] = None,
    test: Annotated[
        str, typer.Option(help="auto, welch, proportions, mann-whitney, sequential or group-sequential.")
    ] = "auto",
    better: BetterOption = "higher",
    matters: Annotated[
        float,
        typer.Option(min=0, help="Smallest difference that matters: within it there is no winner to find."),
    ] = 0.0,
    alpha: AlphaOption = "5%",
    looks: Annotated[
        int, typer.Option(min=1, max=1000, help="How often the data were looked at, with this time.")
    ] = 1,
    planned: Annotated[
        int | None, typer.Option(min=2, help="Units at which it was to end, in both arms.")
    ] = None,
    earlier: Annotated[
        str, typer.Option(metavar="N,N", help="Of group-sequential: units at the looks before this one.")
    ] = "",
    spending: SpendingOption = "obrien-fleming",
    as_json: JsonOption = False,
) -> None:
    """Say who won: exit 0 a variant or nobody, 1 the baseline somewhere, 3 undecided, 2 on bad input."""
    from glowsim.commands.rows import read_rows
    from glowsim.scenario.quantities import FRACTION
    from glowsim.stats.experiments import evaluation

    if len(set(metric)) != len(metric):
        stop("--metric: the same column was given twice")
    how = evaluation.How(
        test=_one_of("--test", test, get_args(evaluation.Test)), alpha=read_quantity("--alpha", alpha, FRACTION),
        better=_one_of("--better", better, ("higher", "lower")), matters=matters, looks=looks, planned=planned,
        earlier=_whole_numbers("--earlier", earlier),
        spending=_one_of("--spending", spending, ("obrien-fleming", "pocock", "power")),
    )  # fmt: skip
    if earlier and how.test != "group-sequential":
        stop("--earlier is for --test group-sequential")
    wanted = dict.fromkeys([variant, *metric, *(each for each in (unit, covariate) if each is not None)])
    rows = read_rows(data, list(wanted))
    variants = rows.texts(variant)
    weights = _weights(sorted(set(variants)), split)
    units, wrong = evaluation.units_of(
        variants,
        {name: rows.numbers(name) for name in metric},
        None if unit is None else rows.texts(unit),
        None if covariate is None else rows.numbers(covariate),
    )
    rows.refuse(wrong)
    try:
        found = evaluation.evaluate(units, _baseline(list(weights), baseline), weights, how)
    except ValueError as error:
        stop(f"{data}: {error}")
    if as_json:
        typer.echo(json.dumps(_as_json(found)))
    else:
        typer.echo(_text(found))
    sys.exit(_exit_code(found))


@app.command("off-policy")
def off_policy(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG", help="Rows (.csv, .jsonl, .parquet), or a run or journal with feedback."
        ),
    ],
    policy: Annotated[
        str,
        typer.Option(
            help="always:ACTION, uniform, or column:NAME, where that column holds what it would do."
        ),
    ],
    action: Annotated[str, typer.Option(help="Column of what was done.")] = "action",
    propensity: Annotated[
        str, typer.Option(help="Column of the probability with which it was done.")
    ] = "propensity",
    reward: Annotated[str, typer.Option(help="Column of what came of it; of a run, the metric.")] = "reward",
    context: Annotated[
        list[str],
        typer.Option(help="Column of what was known before: a number or a word; may be given often."),
    ] = [],  # noqa: B006
    unit: Annotated[
        str | None,
        typer.Option(help="Column of whom rows belong to, such as user; default: each row is one."),
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Of a run: whose variants.")] = None,
    better: BetterOption = "higher",
    within: Annotated[
        float | None,
        typer.Option(min=0, help="How sharp the answer must be, to each side, in the reward's unit."),
    ] = None,
    alpha: AlphaOption = "5%",
    as_json: JsonOption = False,
) -> None:
    """Say what another policy would have got: exit 0 better, 1 worse, 3 undecided or 'cannot tell', 2 on bad input."""
    from glowsim.commands import ab_log
    from glowsim.scenario.quantities import FRACTION
    from glowsim.stats.experiments import off_policy as estimators

    asked = {
        "alpha": read_quantity("--alpha", alpha, FRACTION),
        "better": _one_of("--better", better, ("higher", "lower")),
    }
    kind, _, name = policy.partition(":")
    if kind not in ("always", "uniform", "column") or (kind != "uniform") != bool(name):
        stop(f"--policy {policy!r}: give always:ACTION, uniform, or column:NAME")
    if log.suffix == ".glow" or log.is_dir():
        if kind == "column" or context or unit is not None:
            stop("of a run: --policy always:VARIANT or uniform; no --context, and its units are known")
        read = ab_log.of_run(log, reward, agent, name)
    else:
        columns = ab_log.Columns(action, propensity, reward, tuple(context), unit)
        read = ab_log.of_rows(
            log, columns, name if kind == "column" else None, name if kind == "always" else None
        )
    if kind == "column":
        assert read.wanted is not None
        target = read.wanted
    else:
        target = estimators.uniform(read.log) if kind == "uniform" else estimators.always(read.log, name)
    try:
        found = estimators.off_policy(
            read.log, target, within=math.inf if within is None else within, **asked
        )
    except ValueError as error:
        stop(f"{log}: {error}")
    if as_json:
        plain = {
            key: value._asdict() if isinstance(value, estimators.Estimate) else value
            for key, value in found._asdict().items()
        }
        typer.echo(json.dumps({"policy": policy, "rows": read.log.taken.size, **_finite(plain)}))
    else:
        typer.echo(_off_policy_text(policy, read.log.taken.size, found))
    sys.exit({"better": 0, "worse": 1}.get(found.verdict, 3))


def _off_policy_text(policy: str, rows: int, found: OffPolicy) -> str:
    lines = [f"{policy}: {found.verdict}: {found.why}", ""]
    for title, each in (
        ("as logged", found.logged), ("IPS", found.ips), ("SNIPS", found.snips),
        ("doubly robust", found.doubly_robust), ("gain", found.gain),
    ):  # fmt: skip
        lines.append(f"{title:14}{each.value:>12.5g}   {each.low:.5g} to {each.high:.5g}")
    lines.append("")
    lines.append(
        f"{rows:,} rows, worth {found.effective:,.0f} of this policy; it could have done what was done in "
        f"{100 * found.overlap:.0f} % of them; mean weight {found.mean_weight:.3f}"
    )
    return "\n".join(lines)


def _finite(value: Any) -> Any:
    """Return plain data that JSON can hold: what is not finite is not known."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _exit_code(found: Evaluation) -> int:
    winners = {each.found.winner for each in found.judged}
    if "a" in winners:
        return 1
    return 0 if winners & {"b", "none"} else 3


def _text(found: Evaluation) -> str:
    lines = [_answer(found.baseline, each) for each in found.judged]
    lines.append("")
    header = (
        "metric",
        "variant",
        "units",
        found.baseline,
        "it",
        "difference",
        "interval",
        "p",
        "Holm",
        "test",
    )
    table = [header]
    for each in found.judged:
        one = each.found
        table.append((
            each.metric, each.variant, f"{one.n_b:,}", f"{one.a:.5g}", f"{one.b:.5g}", f"{one.difference:+.4g}",
            f"{one.low:.4g} to {one.high:.4g}", f"{one.p:.3g}", f"{each.adjusted_p:.3g}", one.test,
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    of = ", ".join(f"{n:,} {name}" for name, n in found.units.items())
    lines += ["", f"units: {of}; split p = {found.split.p:.3g}"]
    lines += [
        f"the covariate took away {100 * each.removed:.0f} % of the variance of {each.metric}"
        for each in found.judged
        if each.removed
    ]
    return "\n".join([*lines, *found.remarks])


def _answer(baseline: str, each: Judged) -> str:
    said = {"b": f"{each.variant} wins", "a": f"{baseline} wins", "none": "no difference that matters"}
    return f"{each.metric}: {said.get(each.found.winner, 'undecided')}: {each.found.why}"


def _as_json(found: Evaluation) -> dict[str, Any]:
    names = {"a": found.baseline}
    judged = []
    for each in found.judged:
        numbers = _finite(each.found._asdict())
        winner = {**names, "b": each.variant}.get(each.found.winner, each.found.winner)
        judged.append({"metric": each.metric, "variant": each.variant, "adjusted_p": each.adjusted_p,
                       "variance_removed": each.removed, **numbers, "verdict": each.found.winner,
                       "winner": winner})  # fmt: skip
    return {"baseline": found.baseline, "units": found.units, "comparisons": judged,
            "sample_ratio": found.split._asdict(), "remarks": list(found.remarks)}  # fmt: skip


def _baseline(names: list[str], given: str | None) -> str:
    if given is not None:
        if given not in names:
            stop(f"--baseline {given!r}: there is no such variant; there are {', '.join(names)}")
        return given
    usual = [name for name in names if name.lower() in ("a", "0", "baseline", "control")]
    if len(usual) != 1:
        stop(f"which of {', '.join(names)} is the baseline? Say it by --baseline")
    return usual[0]


def _weights(names: list[str], split: str | None) -> dict[str, float]:
    if split is None:
        return dict.fromkeys(names, 1.0)
    weights: dict[str, float] = {}
    for part in split.split(","):
        name, _, weight = part.rpartition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            stop(f"--split {split!r}: write A=W,B=W with a number above 0 for each variant")
    if sorted(weights) != names or not all(0.0 < weight < math.inf for weight in weights.values()):
        stop(f"--split {split!r}: give a number above 0 for each variant: {', '.join(names)}")
    return weights


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and len(part) < 16 for part in parts):
        stop(f"{option} {text!r}: write whole numbers, separated by commas")
    return tuple(int(part) for part in parts)


def _one_of(option: str, given: str, allowed: tuple[str, ...]) -> Any:
    if given not in allowed:
        stop(f"{option} {given!r}: give one of {', '.join(allowed)}")
    return given

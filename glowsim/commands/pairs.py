"""``glowsim pairs``: recorded tasks through two variants, for agents that are too quiet for a canary."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glowsim.commands.common import load_scenario, read_quantity, stop
from glowsim.commands.options import DataOption, JsonOption, PluginsOption, ScenarioArgument, SetOption

if TYPE_CHECKING:
    from glowsim.pairs.asking import Side
    from glowsim.pairs.verdict import Rules

__all__ = ["app"]

_MISSING = "asking real agents needs aiohttp: pip install 'glowsim[live]'"

app = typer.Typer(
    help="Two variants on the same recorded tasks: for agents that are too quiet for a canary.",
    no_args_is_help=True,
)

AlphaOption = Annotated[
    str, typer.Option("--alpha", help="Chance of calling a variant worse that is not, such as 1%.")
]
MarginOption = Annotated[
    str, typer.Option("--margin", help="Share of failures that the variant may add and still pass.")
]
PassOption = Annotated[
    str, typer.Option("--promote-alpha", help="Chance of passing a variant that adds the margin or more.")
]


@app.command()
def run(
    tasks: Annotated[
        Path,
        typer.Argument(metavar="TASKS.jsonl", help="Lines of JSON: task, messages or input, expected."),
    ],
    baseline: Annotated[str, typer.Option(metavar="URL[,MODEL]", help="Where the baseline is asked.")],
    variant: Annotated[str, typer.Option(metavar="URL[,MODEL]", help="Where the variant is.")],
    judge: Annotated[str, typer.Option(help="exact, contains, json, regex, or file:LABELS.jsonl.")] = "exact",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of results; default: TASKS.results.jsonl beside the tasks. It is gone on with."
        ),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="A scenario, or LiteLLM's map of prices: what the models cost.")
    ] = None,
    max_cost: Annotated[str | None, typer.Option(help="Such as $20: no pair is begun beyond it.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Pairs open at once.")] = 4,
    timeout: Annotated[str, typer.Option(help="For a whole answer.")] = "60s",
    baseline_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the baseline's bearer key.")
    ] = None,
    variant_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the variant's.")
    ] = None,
    alpha: AlphaOption = "1%",
    margin: MarginOption = "3%",
    promote_alpha: PassOption = "2.5%",
    futility: Annotated[
        str, typer.Option(help="End once the chance that the rest decides is below this; 0%: never.")
    ] = "2%",
    seed: Annotated[int, typer.Option(min=0, help="Of the order of tasks, and of sides.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Send recorded tasks to both: exit 0 if the variant is not worse, 1 if it is, 3 if undecided, 2 on bad input."""
    try:
        from glowsim.pairs.asking import side_of
        from glowsim.pairs.replay import How, replay
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        stop(_MISSING)
    import asyncio

    from glowsim.pairs.judges import judge_of
    from glowsim.pairs.kept import Results
    from glowsim.pairs.ordering import in_order
    from glowsim.pairs.prices import pricing
    from glowsim.pairs.saying import of_replay, text
    from glowsim.pairs.sequential import fewest_to_pass
    from glowsim.pairs.tasks import read_tasks
    from glowsim.pairs.verdict import EXIT_CODES
    from glowsim.scenario.quantities import DURATION, MONEY

    sides: dict[Side, str | None] = {
        side_of("baseline", baseline): _key("--baseline-key-env", baseline_key_env),
        side_of("variant", variant): _key("--variant-key-env", variant_key_env),
    }
    rules = _rules(alpha, margin, promote_alpha, futility)
    timeout_s = read_quantity("--timeout", timeout, DURATION)
    max_cost_usd = None if max_cost is None else read_quantity("--max-cost", max_cost, MONEY)
    if not 0.0 < timeout_s <= 86_400.0:
        stop("--timeout: must be above 0s and at most 1d")
    if max_cost_usd is not None and prices is None:
        stop("--max-cost needs --prices: a scenario, or LiteLLM's map of prices")
    judged = judge_of(judge)
    recorded = read_tasks(tasks, judge, models_named=all(side.model for side in sides))
    models = {side.model or task.model or "" for side in sides for task in recorded.tasks}
    price = None if prices is None else pricing(prices, models)
    header = {
        "tasks": recorded.digest, "judge": judge, "seed": seed, "timeout_s": timeout_s, "rules": rules._asdict(),
        **{side.name: {"url": side.url, "model": side.model} for side in sides},
    }  # fmt: skip
    how = How(timeout_s, concurrency, max_cost_usd, seed)
    path = out or tasks.with_name(f"{tasks.stem}.results.jsonl")
    shown = not as_json and sys.stderr.isatty()
    distinct = len(in_order(recorded.tasks, seed))
    fewest = fewest_to_pass(rules.margin, rules.promote_alpha)
    if not as_json and (fewest is None or fewest > distinct):
        takes = "no number of tasks does" if fewest is None else f"that takes {fewest:,} tasks at least"
        typer.echo(
            f"{distinct:,} tasks cannot show that the variant is not worse by {margin}: {takes}; they can show that "
            "it is worse", err=True
        )  # fmt: skip
    with Results(path, header) as results:
        if results.torn and not as_json:
            typer.echo(f"{path}: a line that a kill cut off was left out; its task is asked again", err=True)
        try:
            replayed = asyncio.run(
                replay(recorded, sides, judged, results, rules, how, price, _tell if shown else None)
            )
        except KeyboardInterrupt:
            typer.echo(
                f"interrupted: what was answered is kept in {path}; give the same command to go on", err=True
            )
            sys.exit(130)
    if shown:
        typer.echo(err=True)
    said = {**of_replay(replayed, recorded, distinct), "fewest_to_pass": fewest, "results": str(path)}
    typer.echo(json.dumps(said, allow_nan=False) if as_json else f"{text(said)}\n  results: {path}")
    sys.exit(EXIT_CODES[replayed.watcher.verdict])


@app.command()
def evaluate(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS", help="CSV or lines of JSON: task, baseline, variant (0 to 1), costs."
        ),
    ],
    looks: Annotated[
        str,
        typer.Option(help="once: the number of tasks was fixed beforehand; every: it was looked at before."),
    ] = "once",
    alpha: AlphaOption = "1%",
    margin: MarginOption = "3%",
    promote_alpha: PassOption = "2.5%",
    as_json: JsonOption = False,
) -> None:
    """Judge pairs made elsewhere: exit 0 if the variant is not worse, 1 if it is, 3 if undecided, 2 on bad input."""
    from glowsim.pairs.evaluating import read_rows
    from glowsim.pairs.saying import of_rows, text
    from glowsim.pairs.verdict import EXIT_CODES, by_task, judge_once, judge_sequentially

    if looks not in ("once", "every"):
        stop(f"--looks {looks!r}: choose once or every")
    rules = _rules(alpha, margin, promote_alpha, "0%")
    rows = read_rows(results)
    pairs = list(by_task((row.task, row.baseline, row.variant) for row in rows))
    found = judge_once(pairs, rules) if looks == "once" else judge_sequentially(pairs, rules, len(pairs))
    said = of_rows(found, rules, rows)
    typer.echo(json.dumps(said, allow_nan=False) if as_json else text(said))
    sys.exit(EXIT_CODES[found.verdict])


@app.command()
def plan(
    base_error: Annotated[
        str, typer.Option("--base-error", help="The baseline's share of failures, such as 5%.")
    ],
    effect: Annotated[
        str, typer.Option(help="What the variant may add to it and must be found, such as 3%.")
    ],
    correlation: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of the two failures at one task; 0.5 is assumed.")
    ] = 0.5,
    margin: Annotated[
        str | None,
        typer.Option(help="Share of failures that it may add and still pass; default: the effect."),
    ] = None,
    alpha: AlphaOption = "1%",
    promote_alpha: PassOption = "2.5%",
    cost: Annotated[
        str | None, typer.Option(metavar="$0.04/task", help="Of a task with one variant.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(help="Of a call, such as 5s: to say how long it takes.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Pairs open at once.")] = 4,
    rate: Annotated[
        str | None, typer.Option(help="Tasks that come, such as 31/d: to say how soon they are recorded.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say how many recorded tasks tell two variants apart, and what their replay costs, before anything is sent."""
    from glowsim.pairs.plan import Price, planned, text
    from glowsim.scenario.quantities import DURATION, RATE

    rules = _rules(alpha, effect if margin is None else margin, promote_alpha, "0%")
    price = Price(
        None if cost is None else _cost(cost),
        None if latency is None else read_quantity("--latency", latency, DURATION),
        concurrency,
        None if rate is None else read_quantity("--rate", rate, RATE),
    )
    try:
        said = planned(
            _share("--base-error", base_error), _share("--effect", effect), correlation, rules, price
        )
    except ValueError as error:
        stop(str(error))
    typer.echo(json.dumps(said, allow_nan=False) if as_json else text(said))


@app.command()
def simulate(
    scenario: ScenarioArgument,
    agent: Annotated[str, typer.Option(help="Whose tasks are replayed.")],
    overrides: SetOption = [],  # noqa: B006
    variant: Annotated[
        str | None, typer.Option(help="A variant of the agent's, as the scenario has it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Another model of the scenario's.")] = None,
    campaigns: Annotated[int, typer.Option(min=10, max=10_000, help="Replays, each with other luck.")] = 200,
    alpha: AlphaOption = "1%",
    margin: MarginOption = "3%",
    promote_alpha: PassOption = "2.5%",
    data: DataOption = None,
    allow_plugins: PluginsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Replay a scenario's own tasks through two variants, many times: how many pairs tell, and what they cost."""
    from glowsim.pairs.plan import simulated, simulated_text
    from glowsim.pairs.simulating import simulate as simulate_pairs

    rules = _rules(alpha, margin, promote_alpha, "0%")
    _, loaded = load_scenario(scenario, overrides, allow_plugins=allow_plugins)
    found = simulate_pairs(
        loaded, agent, variant=variant, model=model, rules=rules, campaigns=campaigns, data=data,
        allow_plugins=allow_plugins,
    )  # fmt: skip
    said = simulated(found, rules)
    typer.echo(
        json.dumps(said, allow_nan=False) if as_json else simulated_text(said, agent, variant or model or "")
    )


def _tell(done: int, of: int, usd: float) -> None:
    typer.echo(f"\r{done} of {of} pairs, ${usd:.4g}", nl=False, err=True)


def _rules(alpha: str, margin: str, promote_alpha: str, futility: str) -> Rules:
    from glowsim.pairs.verdict import Rules

    levels = [_share("--alpha", alpha), _share("--promote-alpha", promote_alpha)]
    if not all(0.0 < level < 0.5 for level in levels):
        stop("--alpha and --promote-alpha: above 0% and below 50%")
    allowed, least = _share("--margin", margin), _share("--futility", futility)
    if not 0.0 <= allowed < 1.0:
        stop("--margin: 0% or more, and below 100%")
    if not 0.0 <= least < 1.0:
        stop("--futility: 0% or more, and below 100%")
    return Rules(levels[0], allowed, levels[1], least)


def _share(option: str, written: str) -> float:
    """Return a share that is written with its unit, or as a plain number."""
    from glowsim.scenario.quantities import FRACTION

    return read_quantity(option, written, FRACTION)


def _cost(written: str) -> float:
    """Return the US dollars of a task: ``$0.04/task`` or ``$0.04``."""
    from glowsim.scenario.quantities import MONEY

    return read_quantity("--cost", written.removesuffix("/task"), MONEY)


def _key(option: str, name: str | None) -> str | None:
    """Return the key in an environment variable; it is never shown."""
    if name is None:
        return None
    if name not in os.environ:
        stop(
            f"{option}: there is no such variable in the environment; give the name of one, not the key itself"
        )
    return os.environ[name]

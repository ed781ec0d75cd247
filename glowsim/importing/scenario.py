"""A scenario that is a log's own: its agents, its models with prices, how they answer, and what was asked."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim import traffic
from glowsim.importing.fitting import LEAST, number_law, time_law
from glowsim.importing.part import ImportProblem, Key, answered, column, keys, part
from glowsim.importing.service import Answering, answering, failed_share, replayable
from glowsim.importing.spelling import spelled
from glowsim.importing.tariff import Tariff, costs, tariffs
from glowsim.presets.prices import PriceMap
from glowsim.scenario.quantities import DURATION, PRICE_PER_TOKEN, RATE
from glowsim.traces.fit import LENGTH_P, fit, write
from glowsim.traces.log import Log
from glowsim.traces.statistics import sessions

__all__ = ["NAMELESS", "Imported", "How", "replay", "scenario_of", "text_of"]

How = Literal["replay", "fitted", "sessions"]
NAMELESS: Final = "unknown"
"""The model of rows that name none."""
_MOST_AGENTS: Final = 1000
_AT_ONCE: Final = 100_000
_LEAST_TIMEOUT_S: Final = 600.0
_MOST_TOKENS: Final = 10_000_000


class Imported(NamedTuple):
    """A scenario made of a log."""

    scenario: dict[str, Any]
    """In YAML spelling."""
    files: dict[str, str]
    """Name of a file that its workload reads -> its content."""
    remarks: tuple[str, ...]
    """What was left out, filled in or assumed, each a sentence."""
    agents: dict[Key, str]
    """Agent and model as the log names them -> agent of the scenario."""
    tariffs: dict[str, Tariff]
    """Model of the log -> what its tokens cost."""
    models: dict[str, str]
    """Model of the log -> its name in the scenario."""


def scenario_of(
    log: Log, *, prices: PriceMap | None = None, unpriced: bool = False, model: str | None = None,
    how: How = "replay", stem: str = "workload",
) -> Imported:  # fmt: skip
    """Return the scenario of a log.

    There is an agent for each agent of the log, or each model where it names none; an agent that used several
    models becomes one for each. What a prompt's tokens cost is the mean of what the log's did, with the shares
    that were read from and written to a prompt cache. Instances take any number of calls at once: a log has no
    limits in it.

    Parameters
    ----------
    log
        At least 15 requests with tokens.
    prices
        A map of prices; without, or for models that it lacks, they are fitted to the log's own costs.
    unpriced
        Whether models whose price nobody knows are taken as free.
    model
        The model of rows that name none.
    how
        ``replay``: the log's own arrivals and tokens; ``fitted``: a workload that resembles them, for runs of any
        length; ``sessions``: conversations like the log's, each turn after the last one's answer.
    stem
        How the names of the files begin that the workload reads.

    Raises
    ------
    ImportProblem
        There is too little in the log, or prices are not known; says what to give.
    """
    if len(log) < LEAST:
        raise ImportProblem(
            f"{log.source} has {len(log)} rows, too little to say anything: give at least {LEAST}"
        )
    missing = [name for name in ("tokens_in", "tokens_out") if not np.isfinite(column(log, name)).any()]
    if missing:
        raise ImportProblem(
            f"{log.source} has no {missing[0]}: without tokens there is neither cost nor work"
        )
    log, unanswered = _with_answers(log)
    places, found = keys(log)
    nameless = (model or NAMELESS) if any(key.model is None for key in found) else None
    named = [key._replace(model=key.model or nameless) for key in found]
    models = {
        name: part(log, np.isin(places, [i for i, key in enumerate(named) if key.model == name]))
        for name in dict.fromkeys(str(key.model) for key in named)
    }
    tariff = tariffs(log, models, prices, unpriced=unpriced)
    served = answering(log, models)
    slugs = _distinct({name: re.sub(r"[^A-Za-z0-9._-]+", "-", name) for name in models}, "model")
    agents = _agents(found, named)
    if len(set(agents.values())) > _MOST_AGENTS:
        raise ImportProblem(f"{log.source} has over {_MOST_AGENTS:,} agents: import a part of it")
    own = {
        agent: np.isin(places, [i for i, key in enumerate(found) if agents[key] == agent])
        for agent in dict.fromkeys(agents.values())
    }
    model_of = {agents[key]: str(new.model) for key, new in zip(found, named, strict=True)}
    workload, files, left_out = _workload(log, own, how, stem)
    used = {str(entry["agents"]) for entry in workload}
    longest_s = float(np.nanmax(column(log, "latency_s"), initial=0.0))
    scenario: dict[str, Any] = {
        "title": f"Imported from {Path(log.source).name}"[:300],
        "question": "Does the fleet, modelled from its own log, cost and answer as recorded?",
        "seed": 1,
        "duration": DURATION.write(float(max(ceil(float(log.t_s[-1])), 1) + 1)),
        "drain": DURATION.write(float(ceil(max(300.0, 2.0 * longest_s)))),
        "models": {slugs[name]: _prices(tariff[name], rows) for name, rows in models.items()},
        "servers": {},
        "fleet": [
            {
                "agent": agent,
                "domain": "unknown",
                "model": slugs[model_of[agent]],
                "instances": 1,
                "concurrency": _AT_ONCE,
                "timeout": DURATION.write(float(ceil(max(_LEAST_TIMEOUT_S, 2.0 * longest_s)))),
                "service": served[model_of[agent]].service,
                **({"failures": failures} if (failures := served[model_of[agent]].failures) else {}),
            }
            for agent in own
            if agent in used
        ],
        "workload": workload,
    }
    for name, each in served.items():
        if each.server is not None:
            scenario["servers"][f"{slugs[name]}-api"] = each.server
            scenario["models"][slugs[name]]["server"] = f"{slugs[name]}-api"
    if not scenario["servers"]:
        del scenario["servers"]
    scenario["origins"] = _origins(log, scenario, slugs, tariff, models, served, model_of, how)
    remarks = (
        *_remarks(log, models, tariff, served, named, nameless),
        *unanswered,
        *left_out,
    )
    return Imported(scenario, files, remarks, agents, tariff, slugs)


def _with_answers(log: Log) -> tuple[Log, list[str]]:
    """Return a log without the agents and models that never answered, and what is to be said of these."""
    places, found = keys(log)
    answers = np.bincount(places[answered(log) & replayable(log)], minlength=len(found))
    silent = np.flatnonzero(answers == 0)
    if not len(silent):
        return log, []
    said = [
        f"{' '.join(name for name in found[i] if name) or 'rows without a name'}: {int((places == i).sum())} rows, "
        "none of them an answer with tokens, are left out"
        for i in silent.tolist()
    ]
    if len(silent) == len(found):
        raise ImportProblem(f"{log.source} has no answer with tokens")
    return dataclasses.replace(part(log, ~np.isin(places, silent)), reading=log.reading), said


def replay(
    log: Log, own: Mapping[str, npt.NDArray[np.bool_]], stem: str
) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    """Return the workload that replays a log, the files that it reads, and what was filled in or left out.

    A call that failed and has no tokens is replayed with those of the call before it, since the simulated
    world decides anew which calls fail.

    Parameters
    ----------
    log
        The whole.
    own
        Agent -> its rows.
    stem
        How the files' names begin.
    """
    workload: list[dict[str, Any]] = []
    files: dict[str, str] = {}
    said: list[str] = []
    for agent, mine in own.items():
        rows = part(log, mine)
        tokens = [np.nan_to_num(column(rows, name)) for name in ("tokens_in", "tokens_out")]
        failed, usable = ~answered(rows), replayable(rows)
        lent = failed & ~usable
        if lent.any() and usable.any():
            before = np.maximum.accumulate(np.where(usable, np.arange(len(rows)), -1))
            before = np.where(before < 0, int(np.argmax(usable)), before)
            tokens = [np.where(lent, values[before], values) for values in tokens]
            usable = usable | lent
            said.append(
                f"{agent}: {int(lent.sum())} calls that failed and have no tokens have those of the call before"
            )
        if not usable.all():
            said.append(f"{agent}: {int((~usable).sum())} rows without tokens are left out")
        if not usable.any():
            continue
        file = f"{stem}-{agent}.csv"
        files[file] = _csv(rows.t_s[usable], tokens[0][usable], tokens[1][usable])
        entry: dict[str, Any] = {
            "kind": "trace", "format": "csv", "file": file,
            "columns": {"time": "t_s", "tokens_in": "tokens_in", "tokens_out": "tokens_out"},
        }  # fmt: skip
        begun_s = float(log.t_s[mine][usable][0])
        if begun_s > 1.0:
            said.append(
                f"{agent}: its first call came {begun_s:.0f} s after the log's first; the replay begins with it"
            )
        workload.append(entry | _common(agent, tokens[1][usable]))
    return workload, files, said


def _workload(
    log: Log, own: Mapping[str, npt.NDArray[np.bool_]], how: How, stem: str
) -> tuple[list[dict[str, Any]], dict[str, str], list[str]]:
    if how == "replay":
        return replay(log, own, stem)
    workload, files = [], {}
    for agent, mine in own.items():
        rows = part(log, mine)
        rows = part(rows, answered(rows) & replayable(rows))
        common = _common(agent, rows.numbers["tokens_out"])
        if how == "fitted":
            file = f"{stem}-{agent}.yaml"
            files[file] = write(fit(rows, traffic.play, name=agent))
            workload.append({"kind": "fitted", "file": file, **common})
        else:
            workload.append({**_sessions(rows, agent, float(log.t_s[-1])), **common})
    return workload, files, []


def _common(agent: str, tokens_out: npt.NDArray[np.float64]) -> dict[str, Any]:
    most = int(min(max(tokens_out.max(), 1.0), _MOST_TOKENS))
    return {"agents": agent, "max_tokens_out": most, "stream": True}


def _sessions(rows: Log, agent: str, span_s: float) -> dict[str, Any]:
    found = sessions(rows)
    if not len(found.think_s) or not len(found.new_tokens):
        raise ImportProblem(
            f"{agent}: no session of the log has a second turn with tokens: import it as a replay"
        )
    laws = {
        "turns": number_law(np.quantile(found.turns.astype(np.float64), LENGTH_P)),
        "think": time_law(np.quantile(found.think_s, LENGTH_P)),
        "first_tokens_in": number_law(np.quantile(found.first_tokens, LENGTH_P)),
        "tokens_in": number_law(np.quantile(found.new_tokens, LENGTH_P)),
        "tokens_out": number_law(np.quantile(rows.numbers["tokens_out"], LENGTH_P)),
    }
    rate = float(f"{found.number / max(span_s, 1.0):.6g}")
    arrivals = {"kind": "poisson", "rate": RATE.write(rate)}
    return {"kind": "sessions", "arrivals": arrivals, "most_turns": max(int(found.turns.max()), 1), **laws}


def _csv(t_s: npt.NDArray[np.float64], *tokens: npt.NDArray[np.float64]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["t_s", "tokens_in", "tokens_out"])
    columns = (np.rint(values).astype(np.int64).tolist() for values in tokens)
    writer.writerows(zip((f"{t:.6f}" for t in (t_s - t_s[0]).tolist()), *columns, strict=True))
    return text.getvalue()


def _agents(found: list[Key], named: list[Key]) -> dict[Key, str]:
    several = {key.agent for key in found if sum(other.agent == key.agent for other in found) > 1}
    wanted = {}
    for key, new in zip(found, named, strict=True):
        words = (
            [new.model] if key.agent is None else [key.agent, *([new.model] if key.agent in several else [])]
        )
        wanted[key] = re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, words)).lower()).strip("-") or "agent"
    return _distinct(wanted, "agent")


def _distinct(wanted: Mapping[Any, str], what: str) -> dict[Any, str]:
    """Return names that are short enough, begin with a letter or digit, and are all different."""
    found: dict[Any, str] = {}
    taken = {"all"}
    for key, name in wanted.items():
        base = name.lstrip("._-")[:90] or what
        chosen, n = base, 2
        while chosen in taken:
            chosen, n = f"{base}-{n}", n + 1
        taken.add(chosen)
        found[key] = chosen
    return found


def _prices(tariff: Tariff, rows: Log) -> dict[str, Any]:
    """Return a model's block: what a token of its prompts and answers cost on average in the log."""
    rates = tariff.prices.at(0)
    input_usd, output_usd = _mean_prices(tariff, rows)
    spelled = {"input": PRICE_PER_TOKEN.write(input_usd)}
    if rates.cached_usd is not None and rates.cached_usd <= input_usd:
        spelled["cached_input"] = PRICE_PER_TOKEN.write(rates.cached_usd)
    return spelled | {"output": PRICE_PER_TOKEN.write(output_usd)}


def _mean_prices(tariff: Tariff, rows: Log) -> tuple[float, float]:
    usable = answered(rows) & replayable(rows)
    rates = tariff.prices.at(0)
    list_usd = (rates.input_usd or 0.0, rates.output_usd or 0.0)
    if not usable.any():
        return list_usd
    mine = part(rows, usable)
    made = []
    for usd, name, plain in zip(
        costs(tariff.prices, mine), ("tokens_in", "tokens_out"), list_usd, strict=True
    ):
        tokens = float(column(mine, name).sum())
        mean = float(usd.sum()) / tokens if tokens else plain
        made.append(plain if abs(mean - plain) <= 1e-9 * plain else float(f"{mean:.6g}"))
    return made[0], made[1]


def _origins(
    log: Log, scenario: Mapping[str, Any], slugs: Mapping[str, str], tariff: Mapping[str, Tariff],
    models: Mapping[str, Log], served: Mapping[str, Answering], model_of: Mapping[str, str], how: How,
) -> dict[str, dict[str, str]]:  # fmt: skip
    made: dict[str, dict[str, str]] = {}

    def say(path: str, origin: str, source: str) -> None:
        made[path] = {"origin": origin, "source": source}

    for name, rows in models.items():
        say(f"models.{slugs[name]}", *_price_origin(tariff[name], rows))
        share = failed_share(rows)
        failures = (
            ("assumed", "the log does not say which calls failed")
            if share is None
            else ("measured", f"{100 * share:.3g} % of {len(rows)} rows")
        )
        if served[name].server is not None:
            say(f"servers.{slugs[name]}-api", served[name].origin, served[name].source)
            say(f"servers.{slugs[name]}-api.error", *failures)
    for i, agent in enumerate(scenario["fleet"]):
        each = served[model_of[agent["agent"]]]
        if each.server is None:
            say(f"fleet.{agent['agent']}.service", each.origin, each.source)
            if each.failures:
                say(f"fleet.{agent['agent']}.failures", "measured", "the log's statuses")
        say(f"fleet.{i}.concurrency", "assumed", "a log has no limit in it: any number of calls at once")
        say(f"fleet.{i}.timeout", "assumed", "longer than twice the longest recorded latency")
    name = Path(log.source).name
    for i in range(len(scenario["workload"])):
        say(
            f"workload.{i}",
            "measured" if how == "replay" else "fitted",
            f"{name} ({log.format}), {len(log)} rows" + ("" if log.epoch is None else f" from {log.epoch}"),
        )
    return made


def _price_origin(tariff: Tariff, rows: Log) -> tuple[str, str]:
    tokens = float(np.nansum(column(rows, "tokens_in")))
    shares = [
        f"{100 * float(np.nansum(column(rows, name))) / tokens:.3g} % {words}"
        for name, words in (("tokens_cached", "read from a cache"), ("tokens_cache_write", "written to one"))
        if tokens and np.nansum(column(rows, name)) > 0
    ]
    if not shares or not tariff.known:
        return tariff.origin, tariff.source
    return (
        "fitted",
        f"{tariff.source}; the mean over the log's prompts, of whose tokens {' and '.join(shares)}",
    )


def _remarks(
    log: Log, models: Mapping[str, Log], tariff: Mapping[str, Tariff], served: Mapping[str, Answering],
    named: list[Key], nameless: str | None,
) -> list[str]:  # fmt: skip
    said = list(log.reading.remarks)
    if log.reading.refused_count:
        first = log.reading.refused[0]
        said.append(
            f"{log.reading.refused_count} rows were refused, the first at {log.reading.unit} {first.line}: {first.why}"
        )
    if log.reading.unknown:
        said.append(f"fields not used: {', '.join(sorted(log.reading.unknown))}")
    lacking = [
        words
        for name, words in (
            ("latency_s", "latencies"),
            ("first_token_s", "times to the first token"),
            ("cost_usd", "costs"),
        )
        if not np.isfinite(column(log, name)).any()
    ]
    if "status" not in log.names:
        lacking.append("statuses, so that nothing is known of failures")
    if lacking:
        said.append(f"the log has no {', no '.join(lacking)}")
    if nameless is not None:
        said.append(f"rows that name no model are taken to be of {nameless!r}")
    if any(key.agent is None for key in named):
        said.append("rows that name no agent belong to an agent named after their model")
    for name, rows in models.items():
        if served[name].origin == "assumed":
            said.append(f"{name}: {served[name].source}")
        if not tariff[name].known:
            usd = float(np.nansum(column(rows, "cost_usd")))
            said.append(f"{name}: its price is not known, and it is taken as free; recorded are ${usd:.4g}")
            continue
        said += _unexplained(name, rows, tariff[name])
    failed_usd = float(np.nansum(column(log, "cost_usd")[~answered(log)]))
    if failed_usd > 0.0:
        said.append(f"calls that failed cost ${failed_usd:.4g} in the log; in a run they cost nothing")
    return said


def _unexplained(name: str, rows: Log, tariff: Tariff) -> list[str]:
    """Say how much of a model's recorded cost its tariff does not give."""
    cost_usd, listed = column(rows, "cost_usd"), costs(tariff.prices, rows).usd
    both = answered(rows) & np.isfinite(cost_usd + listed)
    recorded, left = float(cost_usd[both].sum()), float((cost_usd - listed)[both].sum())
    said = []
    if recorded and abs(left) > 1e-6 * recorded:
        said.append(
            f"{name}: of ${recorded:.6g} recorded, ${left:.4g} ({100 * left / recorded:.2g} %) are not explained by "
            "tokens and prices"
        )
    free = int((both & (cost_usd == 0) & (listed > 0)).sum())
    return [*said, f"{name}: {free} answers were free, and cost in a run"] if free else said


def text_of(imported: Imported, command: str) -> str:
    """Return the file of a scenario: what was left out and assumed as comments, then the YAML.

    Parameters
    ----------
    imported
        The scenario.
    command
        How it was made.
    """
    comments = [
        f"Made by: {command}",
        "To know, before anything is believed:",
        *(f"- {each}" for each in imported.remarks),
    ]
    folded = [line for each in comments for line in each.splitlines()]
    return "".join(f"# {line}\n" for line in folded) + spelled(imported.scenario)

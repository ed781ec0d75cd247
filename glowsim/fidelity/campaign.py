"""The campaign: calibrate on half of the loads, write predictions down, only then measure the other half.

Every part leaves a JSON file in the campaign's folder and is passed over when that is there, so a campaign that was
interrupted goes on where it stopped. `measured` refuses to go on if the predictions are not those that were written.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from math import fsum, isfinite, nan, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.core.errors import GlowsimError
from glowsim.fidelity import fit, models
from glowsim.fidelity.driving import figures, sent, simulated
from glowsim.fidelity.servers import ENVIRONMENT, Server, command, glowsim_serving, prime, running
from glowsim.fidelity.worlds import (
    AGENT,
    ARMS,
    DIFFERENCES,
    LOADS,
    SIZES,
    Fitted,
    Load,
    arm_scenario,
    load_scenario,
    probe_scenario,
    timely_s,
)  # fmt: skip
from glowsim.results import Table
from glowsim.scenario import Scenario
from glowsim.stats.intervals import paired_difference, t_interval

__all__ = ["Plan", "campaign", "judged", "sign"]

_SERVERS: Final = ("llama", "transformers")
_PREDICTED: Final = 24
"""Replications of a prediction."""
_PROBE_S: Final = 3.0
_PACKAGES: Final = ("glowsim", "llama-cpp-python", "transformers", "torch", "numpy", "simpy")
_LOAD_FIGURES: Final = ("latency_s_p50", "latency_s_p95", "throughput_per_s", "first_token_s_p50")
_LATE_S: Final = 0.02

Say = Callable[[str], None]


class Plan(NamedTuple):
    """How long and how often is measured."""

    load_s: float = 6.0
    """Seconds of sending of each load."""
    load_replications: int = 2
    arm_s: float = 3.5
    """Seconds of sending of each arm."""
    arm_replications: int = 4


def campaign(folder: Path, plan: Plan, say: Say) -> dict[str, Any]:
    """Run what of the campaign is not done yet; return all of it, for the page.

    Parameters
    ----------
    folder
        Where the parts are; made if it is not there.
    plan
        How long and how often; a campaign goes on only with the plan that it began with.
    say
        Told what happens.

    Raises
    ------
    GlowsimError
        The folder is of another plan, the predictions were changed, or a server does not work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = _part(folder, "plan", plan._asdict)
    if found != plan._asdict():
        raise GlowsimError(f"{folder} is of a campaign with another plan, {found}: name another folder")
    place = folder / "models"
    place.mkdir(exist_ok=True)
    small = models.make_gguf(place / "small.gguf", models.SMALL)
    large = models.make_gguf(place / "large.gguf", models.LARGE)
    tiny = models.make_transformers(place / "tiny", models.SMALL)
    log = folder / "servers.log"
    kept = {"llama": small, "transformers": tiny}
    parts: dict[str, Any] = {"plan": found, "machine": _part(folder, "machine", _machine)}
    probed: dict[str, Any] = {}
    for server in _SERVERS:
        probed[server] = _part(
            folder, f"probe-{server}", partial(_probe, server, kept[server], large, log, say)
        )
    first = _first(probed)
    for server in _SERVERS:
        name = f"calibration-{server}"
        parts[name] = _part(
            folder,
            name,
            partial(_measure_loads, server, kept[server], _half(server, True), first, plan, log, say),
        )
    parts["fitted"] = _part(folder, "fitted", lambda: _fit(first, parts, plan, say))
    fitted = Fitted(**parts["fitted"]["parameters"])
    parts["predictions"] = _part(folder, "predictions", lambda: _predict(fitted, plan, say))
    parts["digest"] = _part(folder, "predictions-digest", lambda: _sealed(folder))
    for server in _SERVERS:
        name = f"loads-{server}"
        _unchanged(folder, parts["digest"])
        parts[name] = _part(
            folder,
            name,
            partial(_measure_loads, server, kept[server], _half(server, False), fitted, plan, log, say),
        )
    parts["groups"], parts["arms"] = {}, {}
    for group in dict.fromkeys(arm.servers for arm in ARMS.values()):
        _unchanged(folder, parts["digest"])
        measure = partial(_measure_arms, group, small, large, tiny, fitted, plan, log, say)
        parts["groups"][group] = measured = _part(folder, f"arms-{group}", measure)
        parts["arms"] |= measured["arms"]
    parts["again"] = {}
    for server in _SERVERS:
        once = plan._replace(load_replications=1)
        measure = partial(_measure_loads, server, kept[server], _half(server, True), first, once, log, say)
        parts["again"][server] = _part(folder, f"again-{server}", measure)["loads"]
    parts["judged"] = judged(parts)
    return parts


# --- parts on disk ------------------------------------------------------------------------------------------


def _part(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a part that is on disk, or make it and write it whole."""
    path = folder / f"{name}.json"
    if not path.exists():
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(_json(make()), encoding="utf-8")
        unfinished.rename(path)
    part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return part


def _json(said: Mapping[str, Any]) -> str:
    return json.dumps(said, indent=1, sort_keys=True, default=float) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "predictions.json").read_bytes()).hexdigest()


def _sealed(folder: Path) -> dict[str, Any]:
    return {"sha256": _digest(folder), "written_at": _now()}


def _unchanged(folder: Path, sealed: Mapping[str, Any]) -> None:
    if _digest(folder) != sealed["sha256"]:
        raise GlowsimError(
            f"{folder / 'predictions.json'} is not what was sealed at {sealed['written_at']}: a prediction that is "
            "changed after measuring is none; begin anew in another folder"
        )


def _machine() -> dict[str, Any]:
    models_of_cpu = [
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith("model name")
    ]
    return {
        "cpu": models_of_cpu[0] if models_of_cpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "packages": {name: version(name) for name in _PACKAGES},
        "load_average": os.getloadavg()[0], "begun_at": _now(),
    }  # fmt: skip


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


# --- measuring ----------------------------------------------------------------------------------------------


def _half(server: str, calibrates: bool) -> list[Load]:
    return [load for load in LOADS[server] if load.calibrates == calibrates]


def _probe(server: str, model: Path, large: Path, log: Path, say: Say) -> dict[str, Any]:
    """Measure what a server does with a request alone, or with 16 at once: what the loads' rates come from."""
    if server == "transformers":
        clients = (1, 16)
        probes = [probe_scenario(server, SIZES[1][0], users, _PROBE_S) for users in clients]
        with running(server, [model], log) as up:
            runs = _runs(probes, 0, up, model, say)
        return {str(users): run.figures for users, run in zip(clients, runs, strict=True)}
    alone: dict[str, Any] = {}
    probes = [probe_scenario(server, tokens, 1, _PROBE_S) for tokens, _ in SIZES]
    for name, each in (("small", model), ("large", large)):
        columns: list[list[float]] = [[], [], []]
        with running(server, [each], log) as up:
            for run in _runs(probes, 0, up, each, say):
                answered = run.requests["ending"] == 1
                for column, key in zip(columns, ("tokens_in", "tokens_out", "latency_s"), strict=True):
                    column.extend(run.requests[key][answered].tolist())
        alone[name] = columns
    with running(server, [model], log) as [again]:  # its files are in memory now, as a scaler would find them
        alone["startup_s"] = again.ready_after_s
    return alone


def _first(probed: Mapping[str, Any]) -> Fitted:
    """Return the parameters as the probes alone give them."""
    small, mean_s = fit.fit_llama(fit.Alone(*probed["llama"]["small"]))
    _, slow_s = fit.fit_llama(fit.Alone(*probed["llama"]["large"]))
    guess = fit.start_transformers(probed["transformers"]["1"], probed["transformers"]["16"], 16, SIZES[1][0])
    return guess._replace(
        llama=small, llama_s=mean_s, slow_factor=slow_s / mean_s, startup_s=probed["llama"]["startup_s"]
    )


def _measure_loads(
    server: str, model: Path, loads: Sequence[Load], fitted: Fitted, plan: Plan, log: Path, say: Say
) -> dict[str, Any]:
    begun_at, late_s = _now(), 0.0
    rows: dict[str, list[dict[str, float]]] = {load.name: [] for load in loads}
    scenarios = [load_scenario(server, load, fitted, plan.load_s) for load in loads]
    with running(server, [model], log) as up:
        for number in range(plan.load_replications):
            for load, run in zip(loads, _runs(scenarios, number, up, model, say), strict=True):
                rows[load.name].append(run.figures)
                late_s = max(late_s, run.late_s)
    return {"begun_at": begun_at, "late_s": late_s, "load_average": os.getloadavg()[0], "loads": rows}


def _measure_arms(
    group: str, small: Path, large: Path, tiny: Path, fitted: Fitted, plan: Plan, log: Path, say: Say
) -> dict[str, Any]:
    """Measure the arms on one set of servers, every replication in another order of them."""
    begun_at, late_s = _now(), 0.0
    names = [name for name, arm in ARMS.items() if arm.servers == group]
    kind, model = ("transformers", tiny) if group == "batching" else ("llama", small)
    on = {"pair": [large, small], "one": [small], "process": [], "batching": [tiny]}.get(
        group, [small, small]
    )
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def replication(number: int, up: Sequence[Server]) -> float:
        order = [names[(at + number) % len(names)] for at in range(len(names))]
        scenarios = [arm_scenario(name, fitted, plan.arm_s) for name in order]
        runs = _runs(scenarios, number, up, model, say, group=group, within_s=timely_s(fitted))
        for name, run in zip(order, runs, strict=True):
            rows[name].append(run.figures)
        return max(run.late_s for run in runs)

    if group == "dead":  # a server dies only once
        for number in range(plan.arm_replications):
            with running(kind, on, log) as up:
                late_s = max(late_s, replication(number, up))
    else:
        with running(kind, on, log) as up:
            late_s = max(replication(number, up) for number in range(plan.arm_replications))
    return {"begun_at": begun_at, "late_s": late_s, "load_average": os.getloadavg()[0], "arms": rows}


class _Run(NamedTuple):
    """What became of a replication that was sent."""

    requests: Table
    figures: dict[str, float]
    late_s: float


def _runs(
    scenarios: Sequence[Scenario], number: int, servers: Sequence[Server], model: Path, say: Say, *,
    group: str = "", within_s: float = nan,
) -> list[_Run]:  # fmt: skip
    """Send a replication of each scenario, one after the other, each through a fresh gateway of its own."""
    live: dict[str, Any] = {"adapter": "openai_http", "speaks": ["chat"], "model": str(model)}
    if group == "process":
        live["process"] = {
            "command": command("llama", model, "{port}", "{instance}"), "environment": ENVIRONMENT, "limit": 2,
            "ready_within": "2m", "stop_within": "5s",
        }  # fmt: skip
    else:
        live["urls"] = [server.url for server in servers]
    served = [scenario.dump() | {"live": {"agents": {AGENT: live}}} for scenario in scenarios]
    found = []
    with TemporaryDirectory() as place, glowsim_serving(served, Path(place)) as urls:
        for url in urls if group == "process" else ():
            prime(url, AGENT, times=1)  # until the gateway's first process answers
        if (
            group == "dead"
        ):  # after the gateways have begun: one that they never reached would not be in the pool
            servers[0].process.kill()
        for scenario, url in zip(scenarios, urls, strict=True):
            with _stopped(servers[0]) if group == "hung" else nullcontext():
                requests, late_s = sent(scenario, number, url)
            for server in servers[1:] if group == "dead" else servers:
                prime(
                    server.url, str(model), times=1
                )  # what it still does for nobody ends before the next run
            run = _Run(requests, figures(requests, scenario, within_s), late_s)
            if not run.figures["success"]:
                raise GlowsimError(
                    f"{scenario.title}: none of {run.figures['requests']:.0f} requests was answered"
                )
            say(_told(scenario.title, number, run))
            found.append(run)
    return found


@contextmanager
def _stopped(server: Server) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def _told(title: str, number: int, run: _Run) -> str:
    p50_ms, p95_ms = (run.figures[name] * 1e3 for name in ("latency_s_p50", "latency_s_p95"))
    late = f"; the generator was {run.late_s * 1e3:.0f} ms late" if run.late_s > _LATE_S else ""
    requests = f"{run.figures['requests']:.0f} requests"
    return f"{title}, replication {number}: {requests}, p50 {p50_ms:.0f} ms, p95 {p95_ms:.0f} ms{late}"


# --- fitting, predicting, judging ---------------------------------------------------------------------------


def _fit(first: Fitted, parts: Mapping[str, Any], plan: Plan, say: Say) -> dict[str, Any]:
    say("fitting")
    observed = {server: parts[f"calibration-{server}"]["loads"] for server in _SERVERS}
    fitted, factor = fit.scaled(first, observed["llama"], _half("llama", True), plan.load_s)
    fitted = fit.fit_transformers(fitted, observed["transformers"], _half("transformers", True), plan.load_s)
    left = {
        server: fit.distance(server, fitted, observed[server], _half(server, True), plan.load_s)
        for server in _SERVERS
    }
    return {"parameters": fitted._asdict(), "factor": factor, "left": left}


def _predict(fitted: Fitted, plan: Plan, say: Say) -> dict[str, Any]:
    say("predicting")
    begun_s = time.monotonic()
    loads: dict[str, Any] = {}
    for server in _SERVERS:
        for load in _half(server, False):
            scenario = load_scenario(server, load, fitted, plan.load_s)
            rows = [figures(simulated(scenario, number), scenario, nan) for number in range(_PREDICTED)]
            loads[f"{server}: {load.name}"] = {
                name: _foreseen([row[name] for row in rows], plan.load_replications) for name in _LOAD_FIGURES
            }
    rows_of: dict[str, list[dict[str, float]]] = {}
    for name in ARMS:
        scenario = arm_scenario(name, fitted, plan.arm_s)
        rows_of[name] = [
            figures(simulated(scenario, number), scenario, timely_s(fitted)) for number in range(_PREDICTED)
        ]
    differences = [
        {"a": each.a, "b": each.b, "figure": each.figure}
        | _difference(rows_of[each.a], rows_of[each.b], each.figure)
        for each in DIFFERENCES
    ]
    return {"loads": loads, "differences": differences, "took_s": time.monotonic() - begun_s}


def _foreseen(values: Sequence[float], replications: int) -> dict[str, float] | None:
    """Return the mean and the 95 % interval in which the mean of so many further replications should lie.

    >>> _foreseen([nan, nan], 2) is None
    True
    """
    if not all(map(isfinite, values)):
        return None
    mean, low, high, n = t_interval(values)
    half = (
        (high - low) / 2 * sqrt(1 + n / replications)
    )  # the spread of the new mean on top of that of this one
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _difference(
    a: Sequence[Mapping[str, float]], b: Sequence[Mapping[str, float]], name: str
) -> dict[str, Any]:
    pairs = [(x[name], y[name]) for x, y in zip(a, b, strict=True)]
    there = [pair for pair in pairs if all(map(isfinite, pair))]
    if len(there) < len(pairs) or len(there) < 2:
        return {"mean": None, "low": None, "high": None, "sign": 0}
    found = paired_difference([y for _, y in there], [x for x, _ in there])
    return {"mean": found.mean, "low": found.low, "high": found.high, "sign": sign(found.low, found.high)}


def sign(low: float, high: float) -> int:
    """Return the sign of a difference whose interval is this: 1, -1, or 0 where it is undecided.

    >>> sign(0.1, 0.3), sign(-0.1, 0.3), sign(-0.3, -0.1)
    (1, 0, -1)
    """
    return int(low > 0.0) - int(high < 0.0)


def judged(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return predictions beside what was measured: errors of every held-out load, signs of every difference."""
    loads = []
    for server in _SERVERS:
        for name, rows in parts[f"loads-{server}"]["loads"].items():
            for figure, foreseen in parts["predictions"]["loads"][f"{server}: {name}"].items():
                values = [row[figure] for row in rows]
                if foreseen is None or not all(map(isfinite, values)):
                    continue
                mean = fsum(values) / len(values)
                loads.append(
                    {
                        "server": server, "load": name, "figure": figure, "predicted": foreseen, "measured": mean,
                        "replications": values, "error": foreseen["mean"] / mean - 1.0,
                        "inside": foreseen["low"] <= mean <= foreseen["high"],
                    }
                )  # fmt: skip
    differences = []
    for foreseen in parts["predictions"]["differences"]:
        measured = _difference(parts["arms"][foreseen["a"]], parts["arms"][foreseen["b"]], foreseen["figure"])
        differences.append(
            {"predicted": foreseen, "measured": measured, "verdict": _verdict(foreseen, measured)}
        )
    errors = {
        figure: float(np.mean([abs(each["error"]) for each in loads if each["figure"] == figure]))
        for figure in dict.fromkeys(each["figure"] for each in loads)
    }
    drift = {
        server: {
            name: _mean_p50(rows) / _mean_p50(parts[f"calibration-{server}"]["loads"][name][: len(rows)])
            for name, rows in parts["again"][server].items()
        }
        for server in _SERVERS
    }
    return {"loads": loads, "differences": differences, "mean_errors": errors, "drift": drift}


def _mean_p50(rows: Sequence[Mapping[str, float]]) -> float:
    return fsum(row["latency_s_p50"] for row in rows) / len(rows)


def _verdict(predicted: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Return whether the signs agree.

    >>> _verdict({"sign": 1}, {"sign": 1}), _verdict({"sign": 1}, {"sign": 0}), _verdict({"sign": 1}, {"sign": -1})
    ('agree', 'undecided', 'WRONG')
    """
    if 0 in (predicted["sign"], measured["sign"]):
        return "undecided"
    return "agree" if predicted["sign"] == measured["sign"] else "WRONG"

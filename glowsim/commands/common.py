"""What commands that work on a scenario share: finding it, stopping with a message, naming a run's folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from glowsim.scenario import Scenario
    from glowsim.scenario.quantities import Quantity

__all__ = ["BAD_INPUT", "fresh_folder", "load_scenario", "read_quantity", "stop", "summary_as_json"]

BAD_INPUT = 2


def stop(message: str) -> NoReturn:
    """Say what is wrong with the input, and end with the exit code for that."""
    typer.echo(message, err=True)
    sys.exit(BAD_INPUT)


def read_quantity(option: str, written: str, quantity: Quantity) -> float:
    """Return what an option says, in base units; what it cannot mean ends the command."""
    from glowsim.scenario.quantities import QuantityError

    bare = written.strip()
    value: Any = float(bare) if bare.replace(".", "", 1).isdigit() else bare
    try:
        return quantity.read(value)
    except QuantityError as error:
        stop(f"{option}: {error}")


def _scenario_file(scenario: str) -> Path:
    """Return the file of a path or of a bundled name."""
    path = Path(scenario)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            stop(f"there is no file {path}")
        return path
    from glowsim.resources import resource

    bundled = {each.stem: each for each in sorted(resource("scenarios").glob("*.yaml"))}
    if scenario not in bundled:
        from glowsim.scenario.problems import did_you_mean

        meant = did_you_mean(scenario, tuple(bundled))
        hint = f"; did you mean {meant!r}?" if meant else ""
        stop(f"there is no file and no bundled scenario {scenario!r}{hint}\nbundled: {', '.join(bundled)}")
    return bundled[scenario]


def load_scenario(scenario: str, overrides: list[str], *, allow_plugins: bool) -> tuple[Path, Scenario]:
    """Return the file of a scenario, by its path or bundled name, and the scenario with its overrides."""
    from glowsim.scenario import load

    path = _scenario_file(scenario)
    return path, load(path, overrides, allow_plugins=allow_plugins)


def fresh_folder(name: str) -> Path:
    """Return the first folder runs/NAME-N that is free."""
    for number in range(1, 1_000_000):
        folder = Path("runs") / f"{name}-{number}"
        if not folder.exists() and not folder.with_name(folder.name + ".partial").exists():
            return folder
    stop("runs/ is full: name a folder with --out")


def summary_as_json(summary: dict[str, Any], folder: Path, wall_s: float, cpu_s: float) -> dict[str, Any]:
    """Return the summary in the documented shape: means over the replications."""
    value = {metric: figure["value"] for metric, figure in summary["metrics"].items()}
    spread = ("min", "mean", "p50", "p95", "p99", "max")
    return {
        **{key: summary[key] for key in ("name", "scenario", "question", "seed", "replications", "verdict")},
        **{
            key: value[key]
            for key in ("launched", "completed", "success_rate", "error_rate", "request_rate_per_s")
        },
        "latency_s": {each: value[f"latency_s_{each}"] for each in spread},
        "first_token_s": {each: value[f"first_token_s_{each}"] for each in ("p50", "p95", "p99")},
        **{
            key: value[key]
            for key in ("tokens_in", "tokens_out", "cost_usd", "cost_usd_per_task", "cache_hit_rate")
        },
        "retries": value["retries"],
        "degraded_rate": value["degraded_rate"],
        "cost_parts_usd": summary["cost_parts_usd"],
        "slos": summary["slos"],
        "expectations": summary["expectations"],
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "run_dir": str(folder),
    }

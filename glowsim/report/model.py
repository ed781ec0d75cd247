"""The report as plain data, section by section: the one thing that both formats are made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glowsim.report import answer, world
from glowsim.report.blocks import MARKS, Block, clean
from glowsim.report.cost import cost
from glowsim.report.reading import read_first
from glowsim.report.regions import regions
from glowsim.report.sending import sending
from glowsim.report.servers import model_servers
from glowsim.report.traffic import Traffic
from glowsim.scenario import Scenario

__all__ = ["build"]


def build(folder: Path, scenario: Scenario, summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Block:
    """Return a report: title, question, verdict, sentences on service levels, and sections of blocks.

    Parameters
    ----------
    folder
        The run's, with its tables.
    scenario
        What was run.
    summary, manifest
        As they are written beside the tables.

    Raises
    ------
    FileNotFoundError
        A table is missing from the folder.
    """
    first = read_first(folder)
    traffic = Traffic(first, scenario, summary)
    head = [answer.service_levels(summary), answer.key_figures(summary), *answer.expectations(summary)]
    measured = "measured" in summary
    tail = [*world.description(scenario), world.reproduction(summary, manifest, scenario)]
    if measured:
        sections = [
            sending(summary["measured"]),
            *head,
            traffic.latency(),
            traffic.time_line(),
            traffic.endings(),
            *tail,
        ]
    else:
        sections = [
            *head,
            traffic.latency(),
            traffic.time_line(),
            traffic.instances(),
            cost(first, scenario, summary),
            *model_servers(scenario, summary),
            *regions(first, scenario),
            traffic.endings(),
            *tail[:-1],
            world.origins(scenario),
            world.controllers(scenario),
            tail[-1],
        ]
    verdict = summary["verdict"] if summary["slos"] else "nothing to decide"
    runs = "one replication" if summary["replications"] == 1 else f"{summary['replications']} replications"
    levels = answer.level_sentences(summary["slos"])
    return {
        "title": clean(summary["scenario"]),
        "question": clean(summary["question"]),
        "verdict": verdict,
        "mark": MARKS.get(verdict, "open"),
        "headline": answer.headline(summary),
        "levels": [{key: clean(value) for key, value in level.items()} for level in levels],
        "sections": sections,
        "marks": MARKS,
        **({"kicker": "Load report"} if measured else {}),
        "footer": clean(
            f"glowsim {manifest['glowsim']} · {manifest['name']} · seed {manifest['seed']} · {runs} · "
            f"{manifest['finished_at']}"
        ),
    }

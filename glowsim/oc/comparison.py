"""``glowsim report rollouts``: several policies beside each other, at several rates of traffic."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from glowsim.core.errors import GlowsimError
from glowsim.oc.characteristics import Budget, Characteristics, characterise
from glowsim.oc.policy import read_policy
from glowsim.oc.saying import as_json
from glowsim.oc.traffic import Traffic

__all__ = ["BUNDLED", "RolloutsReport", "compare", "pages", "report_rollouts"]

BUNDLED: Final = ("canary", "argo", "flagger", "kayenta")
"""What is put beside each other unless something else is named."""


class RolloutsReport(NamedTuple):
    """Pages that are on disk."""

    html: Path
    pdf: Path
    data: Path


def compare(
    policies: Sequence[str], rates_per_s: Sequence[float], base_error: float, *, weight: float = 0.05,
    campaigns: int = 2000, seed: int = 0, progress: Callable[[str], None] | None = None,
) -> tuple[Characteristics, ...]:  # fmt: skip
    """Return the characteristics of each policy at each rate, a policy after the other.

    All are held against one budget: 1 % of healthy versions rolled back, one worse by 1 point promoted in 2.5 %, one
    worse by 5 points found with probability 0.95, one that is no worse promoted in 80 %.

    Parameters
    ----------
    policies
        What ``glowsim oc`` takes, at least one.
    rates_per_s
        Requests a second, each above 0, at least one.
    base_error
        Share of the baseline's requests that fail, 0 to below 1.
    weight
        Share of the new version in policies that do not say it themselves (Kayenta's), above 0 and below 1.
    campaigns
        Of each effect, at least 1.
    seed
        Equal seeds give equal figures.
    progress
        Told what is simulated.

    Raises
    ------
    GlowsimError
        A policy cannot be read, or a figure is out of its bounds.
    """
    rules = [read_policy(policy, weight=weight).rule for policy in policies]
    found = []
    for rule in rules:
        for rate_per_s in rates_per_s:
            if progress is not None:
                progress(f"{rule.name} at {rate_per_s:g} requests/s")
            traffic = Traffic(rate_per_s, dict.fromkeys(rule.guardrails, base_error))
            found.append(characterise(rule, traffic, Budget(), (0.02,), campaigns, seed))
    return tuple(found)


def pages(folder: Path) -> tuple[Path, Path, Path]:
    """Return where the page, its PDF and its data go.

    Raises
    ------
    GlowsimError
        One of them is there already.
    """
    html, pdf, data = (folder / f"rollouts.{kind}" for kind in ("html", "pdf", "json"))
    for path in (html, pdf, data):
        if path.exists():
            raise GlowsimError(f"{path} exists: name another folder, or remove it")
    return html, pdf, data


def report_rollouts(
    folder: Path, found: Sequence[Characteristics], campaigns: int, seed: int,
    command: Sequence[str] = ("glowsim", "report", "rollouts"),
) -> RolloutsReport:  # fmt: skip
    """Write ``rollouts.html``, ``rollouts.pdf`` and ``rollouts.json``.

    Parameters
    ----------
    folder
        Where to; made if it is not there.
    found
        Of `compare`.
    campaigns, seed
        That it was given.
    command
        How to do it again, for the page.

    Raises
    ------
    GlowsimError
        The page is there already.
    """
    html, pdf, data = pages(folder)
    from glowsim.oc import comparison_page
    from glowsim.report import render

    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    report = comparison_page.build(found, campaigns, finished_at, command)
    folder.mkdir(parents=True, exist_ok=True)
    html.write_text(render.html(report), encoding="utf-8")
    pdf.write_bytes(render.pdf(report, finished_at))
    plain = [as_json(each, None, None, campaigns, seed) for each in found]
    data.write_text(json.dumps(plain, allow_nan=False) + "\n", encoding="utf-8")
    return RolloutsReport(html, pdf, data)

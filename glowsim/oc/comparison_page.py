"""The page of several policies beside each other as plain data, and its picture."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Final

import glowsim
from glowsim.oc.characteristics import KEPT, NOT_KEPT, UNDECIDED, Characteristics, points
from glowsim.oc.page import MARKS, VERDICTS
from glowsim.oc.saying import percent, rate_text, row
from glowsim.report.blocks import Block, clean, code, figure, section, table, text
from glowsim.stats.intervals import Interval

__all__ = ["build", "picture", "rows"]

COLUMNS: Final = (
    "policy|>rate|>false rollback|>promoted|>+{margin:.3g} promoted|>+{smallest:.3g} found|>after|?verdict"
)


def build(
    found: Sequence[Characteristics], campaigns: int, finished_at: str, command: Sequence[str]
) -> Block:
    """Return the page: the answer, one picture, one table, what is promised.

    Parameters
    ----------
    found
        Of every policy at every rate, with one budget, at least one.
    campaigns
        Of each effect.
    finished_at
        ISO 8601, for the foot of the page.
    command
        How to do it again.
    """
    budget = found[0].budget
    words = Counter(each.verdict for each in found)
    verdict = VERDICTS[KEPT if words[KEPT] == len(found) else NOT_KEPT if not words[KEPT] else UNDECIDED]
    marks = MARKS | {f"{words[KEPT]} of {len(found)}": "open"}
    if verdict == UNDECIDED:
        verdict = f"{words[KEPT]} of {len(found)}"
    columns = COLUMNS.format(margin=100 * budget.margin, smallest=100 * budget.smallest)
    return {
        "kicker": "Rollout risk",
        "title": "Rollout policies beside each other",
        "question": "How often does each roll back a healthy version, and how surely does it find a bad one?",
        "verdict": verdict,
        "mark": marks.get(verdict, "open"),
        "headline": clean(_headline(found)),
        "levels": [],
        "sections": [
            section(
                "policies", "By policy and traffic",
                "One rollout of one version, thousands of times, by each tool's own rules. What a policy sees depends "
                "on the traffic, and so does how often it is wrong.",
                [
                    figure(
                        picture(found),
                        "Share of campaigns rolled back over the effect; a panel a policy, a line a rate.",
                        "Share of campaigns that are rolled back, by how much worse the new version is. A policy that "
                        "can be trusted starts at 0 and reaches 100 % before the effect that must be found.",
                    ),
                    table(
                        columns, rows(found),
                        more="% of the campaigns of a version that is no worse, and of one worse by so many points; "
                        "found: rolled back; after: requests of the new version until then, median / p95. "
                        f"{campaigns:,} campaigns each, intervals of 95 %. Errors of the old version: "
                        f"{percent(found[0].traffic.base_of(found[0].rule.guardrails[0]))}.",
                    ),
                ],
            ),
            section(
                "promises", "What was asked of all of them", "",
                [
                    text(
                        f"A healthy version is rolled back in at most {percent(budget.false_rollback)}; one worse by "
                        f"{points(budget.margin)} is promoted in at most {percent(budget.false_promotion)}; one worse "
                        f"by {points(budget.smallest)} is rolled back in at least {percent(budget.power)}; one that is "
                        f"no worse is promoted in at least {percent(budget.promotion)}."
                    )
                ],
            ),
            section("again", "Again", "", [code(" ".join(command))]),
        ],
        "marks": marks,
        "footer": clean(f"glowsim {glowsim.__version__} · oc · {finished_at}"),
    }  # fmt: skip


def rows(found: Sequence[Characteristics]) -> list[tuple[str, ...]]:
    """Return the cells of the table, a row for each policy and rate."""
    shown: list[tuple[str, ...]] = []
    for each in found:
        budget = each.budget
        healthy, margin, smallest = (each.line(at) for at in (0.0, budget.margin, budget.smallest))
        shares = (healthy.rolled_back, healthy.promoted, margin.promoted, smallest.rolled_back)
        rate = rate_text(each.traffic.rate_per_s)
        after = row(smallest)[4]
        shown.append((each.rule.name, rate, *map(_in_percent, shares), after, each.verdict))
    return shown


def _in_percent(share: Interval) -> str:
    mean, low, high = (100 * each for each in share[:3])
    return f"{mean:.3g} ({low:.2g} to {high:.2g})" if high < 10 else f"{mean:.3g} ({low:.3g} to {high:.3g})"


def _headline(found: Sequence[Characteristics]) -> str:
    keep = [
        f"{each.rule.name} at {rate_text(each.traffic.rate_per_s)}" for each in found if each.verdict == KEPT
    ]
    worst = max(found, key=lambda each: each.line(0.0).rolled_back.mean)
    said = f"{', '.join(keep)} keep the budget." if keep else "None keeps the budget."
    return (
        f"{said} {worst.rule.name} at {rate_text(worst.traffic.rate_per_s)} rolls back "
        f"{percent(worst.line(0.0).rolled_back.mean)} of the healthy versions."
    )


def picture(found: Sequence[Characteristics]) -> str:
    """Return the share of campaigns rolled back over the effect as SVG, a panel for each policy."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from glowsim.report.style import BAND, BLUE, GREEN, ORANGE, RED, STYLE, bare

    policies = list(dict.fromkeys(each.rule.name for each in found))
    rates = list(dict.fromkeys(each.traffic.rate_per_s for each in found))
    colours = dict(zip(rates, (BLUE, GREEN, ORANGE, RED) * len(rates), strict=False))
    across = min(len(policies), 4)
    down = -(-len(policies) // across)
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(7.2, 0.5 + 2.0 * down))
        panels = drawn.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for axes, policy in zip(
            panels.flat, [*policies, *[None] * (down * across - len(policies))], strict=True
        ):
            if policy is None:
                axes.set_visible(False)
                continue
            axes.axvline(100 * found[0].budget.smallest, color=BAND, linewidth=3.0, zorder=0)
            for each in found:
                if each.rule.name == policy:
                    x = [100 * line.effect for line in each.lines]
                    y = [100 * line.rolled_back.mean for line in each.lines]
                    rate_per_s = each.traffic.rate_per_s
                    axes.plot(
                        x,
                        y,
                        color=colours[rate_per_s],
                        marker="o",
                        markersize=3.0,
                        label=rate_text(rate_per_s),
                    )
            axes.set_title(policy.replace(": ", "\n"))
            axes.set_ylim(-3, 103)
        panels[0, 0].set_ylabel("% rolled back")
        for axes in panels[-1]:
            axes.set_xlabel("points worse")
        panels[0, 0].legend(loc="lower right")
        drawn.tight_layout()
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(written, format="svg", metadata=nothing, transparent=True)
    return bare(written.getvalue())

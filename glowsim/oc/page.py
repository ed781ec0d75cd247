"""The page of a policy's characteristics as plain data, for the templates that every report uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import glowsim
from glowsim.oc.characteristics import KEPT, NOT_KEPT, UNDECIDED, Characteristics
from glowsim.oc.saying import HEADINGS, percent, promise_text, row, traffic_text
from glowsim.report.blocks import Block, clean, code, figure, section, table, tiles

__all__ = ["MARKS", "VERDICTS", "build"]

MARKS: Final = {
    KEPT: "good",
    NOT_KEPT: "bad",
    UNDECIDED: "open",
    "keeps its budget": "good",
    "refused": "bad",
}
_HEADLINES: Final = {
    KEPT: "Every part of the budget is kept, by the estimates below.",
    NOT_KEPT: "Part of the budget is not kept.",
    UNDECIDED: "An estimate is beyond its bound, and its interval is not: run more campaigns.",
}
VERDICTS: Final = {KEPT: "keeps its budget", NOT_KEPT: "refused", UNDECIDED: UNDECIDED}


def build(
    found: Characteristics, advised: str | None, picture: str, campaigns: int, finished_at: str,
    command: Sequence[str],
) -> Block:  # fmt: skip
    """Return the page: the answer, the budget, one chart, one table.

    Parameters
    ----------
    found
        The characteristics.
    advised
        What to do instead, where the budget is not kept.
    picture
        Of ``by_effect``.
    campaigns
        Of each effect.
    finished_at
        ISO 8601, for the foot of the page.
    command
        How to do it again.
    """
    word = VERDICTS[found.verdict]
    healthy, smallest = found.line(0.0), found.line(found.budget.smallest)
    heads = dict(zip(HEADINGS, row(smallest), strict=True))
    return {
        "kicker": "Operating characteristics",
        "title": clean(f"{found.rule.name} at {traffic_text(found)}"),
        "question": "How often does this policy roll back a healthy version, and how long does a bad one run?",
        "verdict": word,
        "mark": MARKS[word],
        "headline": clean(advised or _HEADLINES[found.verdict]),
        "levels": [
            {"word": each.verdict, "name": clean(each.what), "text": clean(promise_text(each).split(": ")[1])}
            for each in found.promises
        ],
        "sections": [
            section(
                "effects", "By effect",
                "A campaign is one rollout of one version from its first request until it is promoted, rolled back or "
                "held. Intervals are Wilson's, of 95 %.",
                [
                    tiles([
                        ("healthy versions rolled back", percent(healthy.rolled_back.mean), ""),
                        ("healthy versions promoted", percent(healthy.promoted.mean), ""),
                        (f"{heads['effect']} found after", heads["delay, requests"], "requests, median / p95"),
                        (f"{heads['effect']} found after", heads["delay, time"], "median / p95"),
                    ]),
                    figure(
                        picture, "Shares of campaigns rolled back, promoted and held, over the effect.",
                        "Share of campaigns by how they end; bars are intervals of 95 %.",
                    ),
                    table(
                        "|>".join(HEADINGS),
                        [row(line) for line in found.lines],
                        more=f"{campaigns:,} campaigns an effect. Delays are from the onset, median / p95. Bad: "
                        "outcomes of the new version until the decision, on average; harmed: those that the effect "
                        "alone added.",
                    ),
                ],
            ),
            section("again", "Again", "", [code(" ".join(command))]),
        ],
        "marks": MARKS,
        "footer": clean(f"glowsim {glowsim.__version__} · oc · {finished_at}"),
    }  # fmt: skip

"""The page of a document's claims as plain data, for the templates that every report uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import glowsim
from glowsim.claims.arithmetic import filled_in
from glowsim.claims.document import Claim, Claims, Shown
from glowsim.claims.quiet import MATTERS, NOT, POOLED, which_matter
from glowsim.claims.verdicts import (
    CONSISTENT,
    INCONSISTENT,
    NOT_REPRODUCED,
    REPRODUCED,
    UNKNOWABLE,
    Checked,
    Judged,
    Simulated,
    check,
)
from glowsim.report.blocks import Block, clean, code, section, table, tiles
from glowsim.report.numbers import DASH

__all__ = ["build", "shown_as"]

_MARKS: Final = {
    REPRODUCED: "good", CONSISTENT: "good", INCONSISTENT: "bad", NOT_REPRODUCED: "bad", UNKNOWABLE: "open",
    "holds": "good", "fails": "bad", MATTERS: "good", POOLED: "open", NOT: "bad",
}  # fmt: skip


def shown_as(claim: Claim) -> str:
    """Return a figure for reading, in its unit.

    >>> shown_as(Claim(value=2100, unit="USD", says="$2,100/month", where="Cost"))
    '$2,100'
    >>> shown_as(Claim(value=0.34, says="34% savings", where="After"))
    '34 %'
    """
    if claim.unit == "USD":
        return f"${claim.value:,.10g}"
    if claim.unit == "":
        return f"{100 * claim.value:.6g} %"
    return f"{claim.value:,.10g} {claim.unit}"


def build(
    document: Claims, judged: Sequence[Judged], simulated: Mapping[str, Simulated], finished_at: str,
    command: Sequence[str],
) -> Block:  # fmt: skip
    """Return the page: the count of verdicts, what does not fit and why, what was simulated, every claim.

    Parameters
    ----------
    document
        The claims.
    judged
        Their verdicts.
    simulated
        Claim -> what was simulated for it.
    finished_at
        ISO 8601, for the foot of the page.
    command
        How to do it again.
    """
    counts = Counter(each.verdict for each in judged)
    checked = check(document)
    broken = sorted((each for each in checked if not each.holds), key=lambda each: -abs(each.off))
    verdict = INCONSISTENT if broken else NOT_REPRODUCED if counts[NOT_REPRODUCED] else CONSISTENT
    order = (REPRODUCED, CONSISTENT, NOT_REPRODUCED, INCONSISTENT, UNKNOWABLE)
    return {
        "title": clean(f"The claims of {document.title}"),
        "question": "Can all of it be true at once, and what does a simulation reproduce?",
        "verdict": verdict,
        "mark": _MARKS[verdict],
        "headline": (
            f"{len(document.claims)} figures and {len(checked)} relations between them; {len(broken)} do not hold."
        ),
        "levels": [
            {"word": "fails", "name": clean(each.relation.name), "text": clean(each.relation.why)}
            for each in broken
        ],
        "sections": [
            section(
                "count", "Verdicts",
                "A claim in a relation that does not hold is inconsistent with the others in it, whatever a simulation "
                "gives. Of the rest, one that was simulated is reproduced or not, one whose relations all hold is "
                "consistent, and one that nothing can be said about is unknowable.",
                [tiles([(word, str(counts[word]), "") for word in order if counts[word]])],
            ),
            _arithmetic(document, checked),
            *([_simulated(simulated)] if simulated else []),
            *_quiet(document),
            _claims(document, judged, simulated),
            section("again", "Again", "", [code(" ".join(command))]),
        ],
        "marks": _MARKS,
        "footer": clean(f"glowsim {glowsim.__version__} · claims · {document.source} · {finished_at}"),
    }  # fmt: skip


def _arithmetic(document: Claims, checked: Sequence[Checked]) -> Block:
    words = {name: shown_as(claim) for name, claim in document.claims.items()}
    rows: list[list[Any]] = [
        [
            each.relation.name,
            filled_in(each.relation.left, words),
            f"{each.left:,.5g}",
            ("at most " if each.relation.at_most else "") + filled_in(each.relation.right, words),
            f"{each.right:,.5g}",
            f"{100 * each.off:+.1f} %",
            "holds" if each.holds else "fails",
        ]
        for each in sorted(checked, key=lambda each: each.holds)
    ]
    lead = "What must be equal, or ordered, if the document is right; first what does not hold."
    columns = "*relation|*left|>is|*right|>is|>apart|?verdict"
    return section("arithmetic", "The arithmetic", lead, [table(columns, rows)])


def _simulated(simulated: Mapping[str, Simulated]) -> Block:
    tables: dict[str, list[list[Any]]] = {}
    for name, each in simulated.items():
        how = "fitted to these claims" if each.shown.fitted else "not fitted to these"
        tables.setdefault(f"{each.shown.scenario}, {how}", []).append(
            [
                f"{name}: {_figure(each.shown)}",
                _number(each.claimed),
                f"{_number(each.value)} ({_number(each.low)} to {_number(each.high)})",
                f"{100 * each.off:+.1f} %",
                REPRODUCED if each.holds else NOT_REPRODUCED,
                each.shown.why or "",
            ]
        )
    lead = (
        "A scenario that was fitted to a claim and reproduces it shows that the claim can be true together with the "
        "others that it was fitted to, and no more. What was not fitted is a prediction, and is printed whether it "
        "comes out above the claim or below. A saving is what the same seeds cost more without the controller. "
        "Intervals are of 95 %, over replications."
    )
    columns = "*claim|>claimed|>simulated|>apart|?verdict|*why"
    return section(
        "simulated",
        "What was simulated",
        lead,
        [table(columns, rows, title=name) for name, rows in tables.items()],
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _figure(shown: Shown) -> str:
    """Return what figure it is, in words."""
    if shown.agent is not None:
        return f"{shown.metric} of {shown.agent}"
    if shown.domain is not None:
        return f"{shown.metric}, share of {shown.domain}"
    if shown.less:
        return f"{shown.metric}, more with {', '.join(shown.less)}"
    return shown.metric


def _quiet(document: Claims) -> list[Block]:
    """Return the section about the policies that can matter at the document's traffic, if it gives the numbers."""
    parameters = document.parameters()
    if parameters is None:
        return []
    tasks = parameters.tasks_per_day / parameters.active
    lead = (
        f"{tasks:.0f} tasks a day are one every {24 * 60 / tasks:.0f} minutes, "
        f"{tasks * parameters.peak / 24:.1f} an hour in the busiest hours. Shares are of the tasks in those hours, the "
        "best case for every policy; tests and costs are those of an average day. A policy that matters only pooled "
        "needs what all active agents have together: one cache, one breaker, one rollout for all of them."
    )
    words = {name: shown_as(claim) for name, claim in document.claims.items()}
    stated = [
        [
            name.replace("_", " "),
            f"{value:,.5g}",
            filled_in(each.amount, words) if isinstance(each.amount, str) else "",
            each.source,
        ]
        for (name, each), value in zip(
            ((name, document.quiet[name]) for name in parameters._fields), parameters, strict=True
        )
    ]
    return [
        section(
            "quiet",
            f"At {tasks:.0f} tasks a day per agent",
            lead,
            [
                table("policy|*it needs|*one agent has|*all of them have|?verdict", which_matter(parameters)),
                table("number|>value|*from|*source", stated, title="Computed from"),
            ],
        )
    ]


def _claims(document: Claims, judged: Sequence[Judged], simulated: Mapping[str, Simulated]) -> Block:
    rows: list[list[Any]] = []
    for each in judged:
        claim = document.claims[each.name]
        if each.verdict == INCONSISTENT:
            why = f"with {', '.join(each.against)}" if each.against else "with what can be"
        elif each.verdict == UNKNOWABLE:
            why = claim.unknowable or DASH
        elif each.name in simulated:
            why = f"by {simulated[each.name].shown.scenario}"
        else:
            why = "; ".join(each.holds)
        rows.append([claim.where, claim.says, shown_as(claim), each.verdict, why])
    lead = "Every figure in the order of the document."
    return section("claims", "Claim by claim", lead, [table("section|*it says|>figure|?verdict|*why", rows)])

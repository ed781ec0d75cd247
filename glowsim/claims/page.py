"""The page of a document's claims as plain data, for the templates that every report uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import glowsim
from glowsim.claims.arithmetic import filled_in
from glowsim.claims.document import Claim, Claims
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
    "holds": "good", "fails": "bad",
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
            *([_simulated(document, simulated)] if simulated else []),
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


def _simulated(document: Claims, simulated: Mapping[str, Simulated]) -> Block:
    rows: list[list[Any]] = [
        [
            name,
            each.shown.scenario,
            each.shown.metric,
            f"{each.claimed:.5g}",
            f"{each.value:.5g}",
            f"{each.low:.4g} to {each.high:.4g}",
            f"{100 * each.off:+.1f} %",
            REPRODUCED if each.holds else NOT_REPRODUCED,
            "fitted to it" if each.shown.fitted else "not fitted",
        ]
        for name, each in simulated.items()
    ]
    lead = (
        "A scenario that was fitted to a claim and reproduces it shows that the claim can be true together with the "
        "others that it was fitted to, and no more."
    )
    columns = "claim|scenario|figure|>claimed|>simulated|>95 % interval|>apart|?verdict|how"
    return section("simulated", "What was simulated", lead, [table(columns, rows)])


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

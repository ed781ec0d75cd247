"""What a report is made of: plain data that the HTML and the PDF template both read.

A section has blocks; a block is a text, a table, tables side by side, tiles, a figure or code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

__all__ = ["MARKS", "Block", "code", "figure", "section", "side_by_side", "table", "text", "tiles"]

Block = dict[str, Any]

MARKS: Final = {
    "met": "good", "held": "good", "not met": "bad", "not held": "bad", "undecided": "open",
    "no value": "open", "keeps up": "good", "saturated": "bad", "too close to call": "open",
}  # fmt: skip
"""Word in a column of verdicts -> how it is drawn; the word itself is always there."""

_CONTROL: Final = dict.fromkeys(
    [*range(9), 11, 12, *range(14, 32), *range(127, 160), 0xFFFE, 0xFFFF], "\ufffd"
)
_SURROGATES: Final = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_UNPRINTABLE: Final = _CONTROL | _SURROGATES


def clean(words: object) -> str:
    """Return text with a mark in place of characters that one of the formats cannot hold.

    >>> clean("a" + chr(0) + "b") == "a" + chr(0xFFFD) + "b"
    True
    """
    return str(words).translate(_UNPRINTABLE)


def section(name: str, title: str, lead: str, blocks: Sequence[Block]) -> Block:
    """Return a section: its anchor, its title, a paragraph and what follows."""
    return {"id": name, "title": title, "lead": clean(lead), "blocks": list(blocks)}


def text(words: str) -> Block:
    """Return a paragraph."""
    return {"kind": "text", "text": clean(words)}


def code(words: str) -> Block:
    """Return text in a fixed width, such as a command."""
    return {"kind": "code", "text": clean(words)}


def table(columns: str, rows: Sequence[Sequence[object]], *, title: str = "", more: str = "") -> Block:
    """Return a table.

    Parameters
    ----------
    columns
        Headings, separated by ``|``, all of them empty for none; one that begins with ``>`` is of numbers,
        with ``?`` of verdicts, and with ``*`` of text that may take room.
    rows
        Cells, as many as columns.
    title
        Stands above it.
    more
        A line below it.

    >>> table("level|>value", [["p95", "2 s"]])["columns"][1]
    {'label': 'value', 'align': 'number'}
    """
    aligns = {">": "number", "?": "verdict", "*": "wide"}
    headings = columns.split("|")
    return {
        "kind": "table",
        "title": title,
        "columns": [
            {"label": each.lstrip(">?*"), "align": aligns.get(each[:1], "text")} for each in headings
        ],
        "headed": any(each.lstrip(">?*") for each in headings),
        "rows": [[clean(cell) for cell in row] for row in rows],
        "more": clean(more),
    }


def side_by_side(tables: Sequence[Block]) -> Block:
    """Return small tables that stand beside each other where there is room."""
    return {"kind": "side", "tables": list(tables)}


def tiles(figures: Sequence[tuple[str, str, str]]) -> Block:
    """Return the few figures to see first, as (label, value, detail) each."""
    keys = ("label", "value", "detail")
    return {"kind": "tiles", "tiles": [dict(zip(keys, map(clean, each), strict=True)) for each in figures]}


def figure(svg: str, description: str, caption: str) -> Block:
    """Return a picture, what it shows for those who cannot see it, and the line below it."""
    return {"kind": "figure", "svg": svg, "description": clean(description), "caption": clean(caption)}

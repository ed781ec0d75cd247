"""Draws the pictures and puts them into the families' READMEs: ``python -m glowsim.pictures controllers``."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from glowsim.pictures.families import PICTURES
from glowsim.pictures.panels import svg
from glowsim.pictures.picture import Picture

__all__ = ["main", "with_section"]

NAME = "ramp_step_burst.svg"
_HEADING = "## On a ramp, a step and a burst"


def with_section(readme: str, picture: Picture) -> str:
    """Return a README with the section of its picture at the end, in the place of an older one."""
    before = readme.partition(f"\n{_HEADING}\n")[0].rstrip()
    says = textwrap.fill(picture.says, 112, break_on_hyphens=False)
    section = f"{_HEADING}\n\n![{picture.alternative}]({NAME})\n\n{says}\n"
    return f"{before}\n\n{section}"


def main(arguments: list[str]) -> int:
    """Write a picture into the folder of each family, and its section into the README where there is one.

    Parameters
    ----------
    arguments
        The folder of the families' folders, then the families: all, if none is named.
    """
    unknown = [family for family in arguments[1:] if family not in PICTURES]
    if not arguments or unknown:
        wrong = f"there is no picture of {unknown[0]!r}; " if unknown else ""
        print(f"{wrong}usage: python -m glowsim.pictures DIR [{'|'.join(PICTURES)} ...]", file=sys.stderr)
        return 2
    for family in arguments[1:] or PICTURES:
        folder = Path(arguments[0]) / family
        folder.mkdir(parents=True, exist_ok=True)
        picture = PICTURES[family]()
        (folder / NAME).write_text(svg(picture.panels, picture.shaded), encoding="utf-8")
        readme = folder / "README.md"
        if readme.is_file():
            readme.write_text(with_section(readme.read_text(encoding="utf-8"), picture), encoding="utf-8")
        print(f"{folder / NAME}\n    {picture.says}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where the files lie that are not code: scenarios, notebooks, templates of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from glowsim.core.errors import GlowsimError

__all__ = ["KINDS", "ResourceError", "resource"]

KINDS: Final = ("scenarios", "notebooks", "reports/templates")
"""The folders that come with glowsim."""

_PACKAGE: Final = Path(__file__).resolve().parent


class ResourceError(GlowsimError):
    """A file that should have come with glowsim is not there, or was never part of it."""


def resource(kind: str, name: str = "") -> Path:
    """Return the path of a file that comes with glowsim, or of its folder.

    An installed wheel carries the folders inside the package; a checkout has them beside it.

    Parameters
    ----------
    kind
        One of ``KINDS``.
    name
        A file in it; default: the folder itself.

    Raises
    ------
    ResourceError
        No such kind, or no such file.

    >>> resource("reports/templates", "style.css").name
    'style.css'
    """
    if kind not in KINDS:
        raise ResourceError(f"there is no resource of the kind {kind!r}: choose one of {', '.join(KINDS)}")
    bundled = _PACKAGE / "_bundled" / kind
    folder = bundled if bundled.is_dir() else _PACKAGE.parent / kind
    if not folder.is_dir():
        raise ResourceError(f"{kind} is missing beside glowsim at {folder}: install glowsim again")
    path = folder / name
    if not path.exists():
        there = ", ".join(sorted(each.name for each in folder.iterdir()))
        raise ResourceError(f"there is no {name!r} in {kind}; it holds {there}")
    return path

"""Numbers that others measured, published or fitted, as files with their origin: never constants in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from glowsim.core.errors import GlowsimError

__all__ = ["PresetError", "names", "read"]

_FOLDER: Final = Path(__file__).resolve().parent


class PresetError(GlowsimError):
    """There is no such preset, or its numbers cannot be."""


def names(kind: str) -> tuple[str, ...]:
    """Return the names of the presets of a kind, such as ``serving``, in order."""
    return tuple(sorted(path.stem for path in (_FOLDER / kind).glob("*.yaml")))


def read(kind: str, name: str) -> dict[str, Any]:
    """Return what a preset's file says.

    Raises
    ------
    PresetError
        There is no such preset; says which there are.
    """
    if name not in names(kind):
        raise PresetError(f"there is no {kind} preset {name!r}: choose from {', '.join(names(kind))}")
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(_FOLDER / kind / f"{name}.yaml")
    return found

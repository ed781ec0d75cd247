"""What each family does with the standard load: one to three policies side by side, drawn and put into words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from glowsim.pictures.families.admission import admission
from glowsim.pictures.families.balancing import balancing
from glowsim.pictures.families.caching import caching
from glowsim.pictures.families.drift import drift
from glowsim.pictures.families.guards import guards
from glowsim.pictures.families.monitoring import monitoring
from glowsim.pictures.families.queueing import queueing
from glowsim.pictures.families.resilience import resilience
from glowsim.pictures.families.rollout import rollout
from glowsim.pictures.families.routing import routing
from glowsim.pictures.families.scaling import scaling
from glowsim.pictures.families.tokens import tokens
from glowsim.pictures.picture import Picture

__all__ = ["PICTURES"]

PICTURES: Final[Mapping[str, Callable[[], Picture]]] = {
    "guards": guards,
    "admission": admission,
    "rollout": rollout,
    "caching": caching,
    "tokens": tokens,
    "routing": routing,
    "queueing": queueing,
    "balancing": balancing,
    "resilience": resilience,
    "scaling": scaling,
    "monitoring": monitoring,
    "drift": drift,
}
"""Folder of a family under ``controllers`` -> its picture, in the order of a request's way."""

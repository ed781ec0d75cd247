"""Errors that say whose fault it is."""

from __future__ import annotations

__all__ = ["ControllerError", "GlowsimError", "JournalError", "WorldError"]


class GlowsimError(Exception):
    """Any error of glowsim that a user can act on."""


class ControllerError(GlowsimError):
    """A controller raised, or answered with something that its protocol does not allow."""


class WorldError(GlowsimError):
    """A driver or world broke the rules of the conversation with the control plane."""


class JournalError(GlowsimError):
    """A journal cannot be read: torn, of another version, or not a journal."""

"""Argo Rollouts, Flagger and Kayenta by their own rules, from their own configurations.

Each has three files: the rules, one rollout at a time (``argo``, ``flagger``, ``kayenta``: the specification), the same
over many campaigns (``*_course``), and the reader of its configuration (``*_file``). What they measure is told by
``readings``; nothing that is not understood is guessed.
"""

from glowsim.oc.foreign.reading import ForeignRule, read_foreign

__all__ = ["ForeignRule", "read_foreign"]

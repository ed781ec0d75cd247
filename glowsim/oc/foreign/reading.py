"""Recognises a foreign configuration and reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from glowsim.core.errors import GlowsimError
from glowsim.oc.foreign.answers import Answers
from glowsim.oc.foreign.argo_course import ArgoRule
from glowsim.oc.foreign.argo_file import TEMPLATES, read_argo
from glowsim.oc.foreign.documents import Fields, documents, refuse
from glowsim.oc.foreign.flagger_course import FlaggerRule
from glowsim.oc.foreign.flagger_file import read_flagger
from glowsim.oc.foreign.kayenta_course import KayentaRule
from glowsim.oc.foreign.kayenta_file import read_kayenta
from glowsim.scenario.source import Node

__all__ = ["ForeignRule", "read_foreign"]

_MOST_LOOKS: Final = 300_000
_ROLLOUTS: Final = ("Rollout", "Canary", "Kayenta")

ForeignRule = ArgoRule | FlaggerRule | KayentaRule


def read_foreign(
    path: Path,
    metrics: Mapping[str, str] | None = None,
    *,
    weight: float | None = None,
    pause_s: float | None = None,
) -> ForeignRule | None:
    """Read the configuration of Argo Rollouts, Flagger or Kayenta; None if the file is none of these.

    Args:
        path: a YAML or JSON file; several documents may stand in it, such as a rollout and its templates.
        metrics: metric's name -> what it measures (``readings.SPELLINGS``), where its name does not say it.
        weight: the share of the requests that the new version gets, above 0 and below 1, where the file does not say
            it (Kayenta, Flagger's A/B tests).
        pause_s: seconds after which a person resumes an indefinite pause, > 0 (Argo's ``pause: {}``).

    Raises:
        ScenarioError: the file cannot be read or simulated, or leaves something open that has to be said; the problem
            names the line.
        GlowsimError: an answer is not understood, or about a metric that there is not.
    """
    kinds = [(_kind(node), node) for document in documents(path) for node in _flat(document)]
    answers = Answers(metrics or {}, weight, pause_s)
    rule = _read([each for each in kinds if each[0]], answers)
    if rule is None:
        return None
    answers.check_all_used()
    looks = rule.schedule_s / rule.look_s
    if looks > _MOST_LOOKS:
        raise GlowsimError(
            f"{path}: {looks:,.0f} looks of {rule.look_s:g} s are too many to simulate (at most {_MOST_LOOKS:,}): "
            "write times that have a larger common divisor, or a shorter schedule"
        )
    return rule


def _read(kinds: list[tuple[str, Node]], answers: Answers) -> ForeignRule | None:
    rollouts = [(kind, Fields(node)) for kind, node in kinds if kind in _ROLLOUTS]
    if not kinds:
        return None
    if not rollouts:
        refuse(kinds[0][1].mark, "holds templates only: add the Rollout or Canary that uses them")
    if len(rollouts) > 1:
        refuse(rollouts[1][1].mark, "a second rollout: keep one in the file")
    ((kind, fields),) = rollouts
    if kind == "Canary":
        return read_flagger(fields, answers)
    if kind == "Kayenta":
        return read_kayenta(fields, answers)
    templates = {}
    for other, node in kinds:
        if other in TEMPLATES:
            template = Fields(node)
            metadata = template.fields("metadata")
            if metadata is None:
                refuse(node.mark, "needs 'metadata'")
            templates[metadata.text("name")] = template
    return read_argo(fields, templates, answers)


def _flat(document: Node) -> list[Node]:
    """Return the objects of a document: itself, or those of a list."""
    value = document.value
    if isinstance(value, dict) and "items" in value and isinstance(value["items"].value, list):
        kind = value.get("kind")
        if kind is not None and str(kind.value).endswith("List"):
            return list(value["items"].value)
    return [document]


def _kind(node: Node) -> str:
    """Return what kind of foreign object it is; empty: none."""
    if not isinstance(node.value, dict):
        return ""
    version, kind = (
        str(node.value[key].value) if key in node.value else "" for key in ("apiVersion", "kind")
    )
    if version.startswith("argoproj.io/") and kind in ("Rollout", *TEMPLATES):
        return kind
    if version.startswith("flagger.app/") and kind in ("Canary", "MetricTemplate"):
        return kind
    is_kayenta = "canaryConfig" in node.value or {"metrics", "classifier"} <= set(node.value)
    return "Kayenta" if is_kayenta else ""

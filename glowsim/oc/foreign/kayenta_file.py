"""Reads a canary configuration of Kayenta with its schedule (docs/canary-config.md of spinnaker/kayenta).

The file is what one sends to a stand-alone Kayenta: ``canaryConfig`` with the metrics, ``executionRequest`` with the
times and thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from glowsim.oc.foreign.answers import Answers
from glowsim.oc.foreign.documents import Fields, refuse
from glowsim.oc.foreign.kayenta import Judge, Metric, Schedule
from glowsim.oc.foreign.kayenta_course import KayentaRule

__all__ = ["read_kayenta"]

_POINT_S: Final = 60.0
_LONGEST_MIN: Final = 72 * 60
"""A course holds every point of every campaign."""


def read_kayenta(whole: Fields, answers: Answers) -> KayentaRule:
    """Return the rule of a canary configuration.

    Args:
        whole: the file.
        answers: what it does not say; the share of the requests never stands in it.

    Raises:
        ScenarioError: something in it cannot be simulated, or is asked of the person; the problem says where.
    """
    request, config = whole.fields("executionRequest"), whole.fields("canaryConfig")
    if request is None or config is None:
        refuse(
            whole.mark,
            "holds no schedule: put the configuration under 'canaryConfig', and beside it an 'executionRequest' with "
            "lifetimeDurationMins, analysisIntervalMins and thresholds",
        )
    if answers.weight is None:
        refuse(whole.mark, "which share of the requests does the canary get? say it by --weight, such as 5%")
    if answers.weight > 0.5:
        refuse(
            whole.mark,
            "a canary with more than half of the requests has no baseline of its size: at most 50%",
        )
    name = config.text("name", "canary")
    metrics = tuple(metric for item in config.each("metrics") for metric in _metric(item, answers))
    if not metrics:
        refuse(config.mark_of("metrics"), "has no metric that counts", config.place("metrics"))
    classifier = config.fields("classifier")
    pass_at, marginal = _thresholds(request, classifier)
    judge = Judge(metrics=metrics, group_weights=_weights(classifier), pass_at=pass_at, marginal=marginal)
    schedule = _schedule(request)
    answers.notes.append(
        f"the canary gets {100 * answers.weight:g} % of the requests, and is compared with as many of the old version"
    )
    answers.notes += request.unread(("scopes", "siteLocal"))
    answers.notes += config.unread(
        ("id", "description", "applications", "judge", "templates", "configVersion", "createdTimestamp",
         "updatedTimestamp", "createdTimestampIso", "updatedTimestampIso")
    )  # fmt: skip
    return KayentaRule(
        name=f"Kayenta: {name}",
        judge=judge,
        schedule=schedule,
        weight=answers.weight,
        notes=tuple(answers.notes),
    )


def _metric(item: Fields, answers: Answers) -> list[Metric]:
    name = item.text("name")
    outer = item.fields("analysisConfigurations")
    canary = outer.fields("canary") if outer else None
    if canary is None:
        refuse(
            item.mark, f"the metric {name!r} needs analysisConfigurations.canary: how it is judged", item.path
        )
    if canary.flag("muted"):
        answers.notes.append(f"the metric {name!r} is muted: it decides nothing")
        return []
    reading = answers.reading(name, 0.0, _POINT_S, item.mark, item.path)
    if reading is None:
        return []
    if reading.percentile is not None:
        reading = replace(reading, percentile=None)
        answers.notes.append(f"the metric {name!r}: a point is the share of requests slower than its bound")
    effect, outliers = canary.fields("effectSize"), canary.fields("outliers")
    removes = outliers is not None and _one_of(outliers, "strategy", ("keep", "remove")) == "remove"
    limits = {
        name: effect.number(key, 0.0) if effect is not None and effect.get(key) is not None else None
        for name, key in (
            ("allowed_increase", "allowedIncrease"),
            ("allowed_decrease", "allowedDecrease"),
            ("critical_increase", "criticalIncrease"),
            ("critical_decrease", "criticalDecrease"),
        )
    }
    metric = Metric(
        name=name,
        reading=reading,
        groups=tuple(str(node.value) for node in item.items("groups")),
        direction=_one_of(canary, "direction", ("either", "increase", "decrease")),
        replace_nan=_one_of(canary, "nanStrategy", ("remove", "replace")) == "replace",
        critical=canary.flag("critical"),
        must_have_data=canary.flag("mustHaveData"),
        measure=_one_of(effect, "measure", ("meanRatio", "cles")) if effect else "meanRatio",
        outlier_factor=outliers.number("outlierFactor", 3.0) if removes and outliers else None,
        **limits,
    )
    if not metric.groups:
        refuse(item.mark, f"the metric {name!r} is in no group: it would not count", item.path)
    for fields in (canary, effect, outliers):
        answers.notes += fields.unread() if fields else []
    answers.notes += item.unread(("query", "scopeName"))
    return [metric]


def _one_of(fields: Fields, key: str, allowed: tuple[str, ...]) -> str:
    found = fields.text(key, allowed[0])
    if found not in allowed:
        refuse(fields.mark_of(key), f"{found!r} is not known", fields.place(key), allowed=allowed)
    return found


def _weights(classifier: Fields | None) -> dict[str, float]:
    weights = classifier.fields("groupWeights") if classifier else None
    return {} if weights is None else {group: weights.number(group, 0.0) for group in weights.names}


def _thresholds(request: Fields, classifier: Fields | None) -> tuple[float, float]:
    given = request.fields("thresholds") or (classifier.fields("scoreThresholds") if classifier else None)
    if given is None:
        refuse(request.mark, "needs 'thresholds' with pass and marginal", request.path)
    pass_at, marginal = (given.number(key, -1.0) for key in ("pass", "marginal"))
    if not 0.0 <= marginal <= pass_at <= 100.0:
        refuse(given.mark, "should have 0 <= marginal <= pass <= 100", given.path)
    return pass_at, marginal


def _schedule(request: Fields) -> Schedule:
    lifetime = request.integer("lifetimeDurationMins", 0)
    if not 1 <= lifetime <= _LONGEST_MIN:
        place = request.place("lifetimeDurationMins")
        refuse(request.mark_of("lifetimeDurationMins"), f"should be 1 to {_LONGEST_MIN} minutes", place)
    interval = request.integer("analysisIntervalMins", 0) or lifetime
    return Schedule(
        lifetime_min=lifetime,
        interval_min=min(interval, lifetime),
        begin_after_min=min(request.integer("beginAfterMins", 0), _LONGEST_MIN),
        lookback_min=request.integer("lookbackMins", 0) or None,
    )

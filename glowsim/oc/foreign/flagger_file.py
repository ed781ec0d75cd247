"""Reads a Flagger ``Canary`` (docs/gitbook/usage/how-it-works.md and metrics.md of fluxcd/flagger)."""

from __future__ import annotations

from typing import Final

from glowsim.oc.foreign.answers import Answers
from glowsim.oc.foreign.documents import Fields, refuse
from glowsim.oc.foreign.flagger import Analysis, Check
from glowsim.oc.foreign.flagger_course import FlaggerRule
from glowsim.oc.foreign.history import MOST_LOOKS
from glowsim.oc.foreign.readings import Reading

__all__ = ["read_flagger"]

_SHORTEST_S: Final = 10.0
_DEFAULT_S: Final = 60.0
_BUILT_IN: Final = {
    "request-success-rate": Reading("errors", good=True, percent=True),
    "request-duration": Reading("latency", percentile=99.0),
}
"""What Flagger's own metrics are: the per cent of requests without a server error, and the 99th percentile."""


def read_flagger(canary: Fields, answers: Answers) -> FlaggerRule:
    """Return the rule of a canary.

    Args:
        canary: the ``Canary``.
        answers: what the file does not say.

    Raises:
        ScenarioError: something in it cannot be simulated, or is asked of the person; the problem says where.
    """
    metadata = canary.fields("metadata")
    name = metadata.text("name", "canary") if metadata else "canary"
    spec = canary.fields("spec")
    if spec is None:
        refuse(canary.mark, "needs 'spec'", canary.path)
    if spec.flag("skipAnalysis"):
        answers.notes.append("skipAnalysis is set: it is promoted at once, nothing is checked")
        return FlaggerRule(
            name=f"Flagger: {name}", analysis=Analysis(step_weight=100), notes=tuple(answers.notes)
        )
    key = "canaryAnalysis" if "canaryAnalysis" in spec else "analysis"
    fields = spec.fields(key)
    if fields is None:
        refuse(spec.mark, "needs 'analysis'", spec.path)
    checks = tuple(check for item in fields.each("metrics") for check in _check(item, answers))
    iterations, test_weight = _test(fields, answers)
    if fields.each("webhooks"):
        line = fields.mark_of("webhooks").line + 1
        answers.notes.append(
            f"line {line}: webhooks are taken as passed; the traffic of load tests is not simulated"
        )
    if fields.integer("stepWeightPromotion", 0):
        answers.notes.append(
            "stepWeightPromotion moves requests between two copies of the new version: no part here"
        )
    try:
        analysis = Analysis(
            interval_s=max(fields.seconds("interval") or _DEFAULT_S, _SHORTEST_S),
            threshold=max(fields.integer("threshold", 1), 1),
            max_weight=_percent(fields, "maxWeight") or 100,
            step_weight=_percent(fields, "stepWeight"),
            step_weights=tuple(_weight(node.value, fields) for node in fields.items("stepWeights")),
            iterations=iterations,
            test_weight=test_weight,
            checks=checks,
        )
    except ValueError as error:
        refuse(fields.mark, str(error), fields.path)
    longest = max((check.window_s for check in checks), default=0.0)
    if longest > MOST_LOOKS * analysis.look_s:
        refuse(
            fields.mark,
            f"a metric looks back {longest:g} s, over {MOST_LOOKS} looks of {analysis.look_s:g} s",
        )
    answers.notes += fields.unread(("alerts", "match", "primaryReadyThreshold", "canaryReadyThreshold"))
    return FlaggerRule(name=f"Flagger: {name}", analysis=analysis, notes=tuple(answers.notes))


def _check(item: Fields, answers: Answers) -> list[Check]:
    name = item.text("name")
    window_s = item.seconds("interval") or _DEFAULT_S
    bounds = item.fields("thresholdRange")
    least, most = (_bound(bounds, "min"), _bound(bounds, "max")) if bounds else _old_bound(item, name)
    if name in _BUILT_IN and name not in answers.metrics:
        reading: Reading | None = _BUILT_IN[name]
        if reading and reading.stream == "latency":
            answers.notes.append(
                f"the metric {name!r} is the 99th percentile of the latency: out of range if more than 1 % of the "
                f"requests in its window are slower than {most or 0:g} ms"
            )
    else:
        largest = max(abs(each) for each in (least or 0.0, most or 0.0))
        reading = answers.reading(name, largest, window_s, item.mark, item.path)
    answers.notes += item.unread(("templateRef", "templateVariables", "query"))
    return [Check(name=name, reading=reading, window_s=window_s, least=least, most=most)] if reading else []


def _bound(bounds: Fields, key: str) -> float | None:
    return None if bounds.get(key) is None else bounds.number(key, 0.0)


def _old_bound(item: Fields, name: str) -> tuple[float | None, float | None]:
    """Return what the deprecated ``threshold`` means: the least success rate, else the most; 0 without one."""
    threshold = item.number("threshold", 0.0)
    return (threshold, None) if name == "request-success-rate" else (None, threshold)


def _test(fields: Fields, answers: Answers) -> tuple[int, float]:
    iterations = fields.integer("iterations", 0)
    if not iterations:
        return 0, 0.0
    if not fields.items("match"):
        refuse(
            fields.mark_of("iterations"),
            "iterations without match is a blue/green test: its canary gets no request of a user, only those of load "
            "tests, which this file does not hold; write stepWeight and maxWeight",
            fields.path,
        )
    if answers.weight is None:
        refuse(
            fields.mark_of("match"),
            "which share of the requests matches? say it by --weight, such as 5%",
            fields.path,
        )
    return iterations, answers.weight


def _percent(fields: Fields, key: str) -> int:
    value = fields.integer(key, 0)
    if value > 100:
        refuse(fields.mark_of(key), "is above 100 per cent", fields.place(key))
    return value


def _weight(value: object, fields: Fields) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
        refuse(
            fields.mark_of("stepWeights"), "should be whole per cents, 1 to 100", fields.place("stepWeights")
        )
    return value

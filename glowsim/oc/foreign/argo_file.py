"""Reads an Argo ``Rollout`` with its analysis templates (docs/features/specification.md and analysis.md there)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from glowsim.oc.foreign.answers import Answers
from glowsim.oc.foreign.argo import Analyse, Metric, Pause, Plan, SetWeight, Step, share_by_replicas
from glowsim.oc.foreign.argo_course import ArgoRule
from glowsim.oc.foreign.conditions import Condition, ConditionError
from glowsim.oc.foreign.documents import Fields, duration_s, refuse
from glowsim.oc.foreign.history import MOST_LOOKS
from glowsim.scenario.source import Node

__all__ = ["TEMPLATES", "read_argo"]

TEMPLATES: Final = ("AnalysisTemplate", "ClusterAnalysisTemplate")
_PLACEHOLDER = re.compile(r"\{\{\s*args\.([\w.-]+)\s*\}\}")
_RANGE = re.compile(r"\[(\d+(?:ms|s|m|h|d))\]")
_WITHOUT_PART: Final = ("setCanaryScale", "setHeaderRoute", "setMirrorRoute", "replicaProgressThreshold")
"""Steps that change no share of the ordinary requests."""
_OF_THE_STRATEGY: Final = (
    "canaryService", "stableService", "maxUnavailable", "antiAffinity", "canaryMetadata", "stableMetadata",
    "scaleDownDelaySeconds", "scaleDownDelayRevisionLimit", "abortScaleDownDelaySeconds", "dynamicStableScale",
    "minPodsPerReplicaSet", "pingPong",
)  # fmt: skip
_DEEPEST_TEMPLATES: Final = 5


def read_argo(rollout: Fields, templates: Mapping[str, Fields], answers: Answers) -> ArgoRule:
    """Return the rule of a rollout.

    Args:
        rollout: the ``Rollout``.
        templates: the analysis templates of the file, by name.
        answers: what the file does not say.

    Raises:
        ScenarioError: something in it cannot be simulated, or is asked of the person; the problem says where.
    """
    return _Reader(rollout, templates, answers).read()


class _Reader:
    def __init__(self, rollout: Fields, templates: Mapping[str, Fields], answers: Answers) -> None:
        self._rollout = rollout
        self._templates = templates
        self._answers = answers
        self._runs: list[tuple[Metric, ...]] = []

    def read(self) -> ArgoRule:
        metadata = self._rollout.fields("metadata")
        name = metadata.text("name", "") if metadata else ""
        spec = self._inner(self._rollout, "spec")
        strategy = self._inner(spec, "strategy")
        if "blueGreen" in strategy:
            refuse(
                strategy.mark_of("blueGreen"),
                "gives the new version all the requests at once: there is no share to simulate; write a canary",
                strategy.place("blueGreen"),
            )
        canary = self._inner(strategy, "canary")
        background, starting_step = self._background(canary)
        steps = tuple(step for item in canary.each("steps") for step in self._step(item, spec, canary))
        if not steps:
            self._answers.notes.append("it has no steps: the new version gets all the requests at once")
        plan = Plan(steps=steps, runs=tuple(self._runs), background=background, starting_step=starting_step)
        longest = max((metric.window_s for metric in plan.metrics), default=0.0)
        if longest > MOST_LOOKS * plan.look_s:
            refuse(
                canary.mark,
                f"a metric looks back {longest:g} s, over {MOST_LOOKS} looks of {plan.look_s:g} s",
            )
        self._answers.notes += canary.unread((*_OF_THE_STRATEGY, "maxSurge", "trafficRouting"))
        return ArgoRule(
            name=f"Argo Rollouts: {name or 'rollout'}", plan=plan, notes=tuple(self._answers.notes)
        )

    def _inner(self, fields: Fields, key: str) -> Fields:
        inner = fields.fields(key)
        if inner is None:
            refuse(fields.mark, f"needs {key!r}", fields.path)
        return inner

    def _background(self, canary: Fields) -> tuple[int | None, int]:
        analysis = canary.fields("analysis")
        if analysis is None:
            return None, 0
        starting_step = analysis.integer("startingStep", 0)
        metrics = self._metrics(analysis)
        if not metrics:
            return None, 0
        self._runs.append(metrics)
        if starting_step == 0 and any(each.may_err and not each.initial_delay_s for each in metrics):
            self._answers.notes.append(
                "the background analysis begins with the rollout, before the new version had a request: its first "
                "measurements err until it has one, and the fifth error in a row aborts; initialDelay avoids that"
            )
        return 0, starting_step

    def _step(self, item: Fields, spec: Fields, canary: Fields) -> list[Step]:
        if len(item.names) != 1:
            refuse(item.mark, "a step should have one field, such as setWeight, pause or analysis", item.path)
        (kind,) = item.names
        if kind == "setWeight":
            return [SetWeight(self._share(item, spec, canary))]
        if kind == "pause":
            return [Pause(self._pause(item))]
        if kind == "analysis":
            return self._inline(self._inner(item, "analysis"))
        if kind not in _WITHOUT_PART:
            refuse(item.mark_of(kind), f"the step {kind!r} cannot be simulated", item.path, allowed=_STEPS)
        line = item.mark_of(kind).line + 1
        self._answers.notes.append(f"line {line}: {item.place(kind)} has no part here")
        return []

    def _share(self, item: Fields, spec: Fields, canary: Fields) -> float:
        percent = item.integer("setWeight", 0)
        if percent > 100:
            refuse(item.mark_of("setWeight"), "is above 100 per cent", item.place("setWeight"))
        if canary.get("trafficRouting") is not None:
            return percent / 100.0
        if "replicas" not in spec:
            return percent / 100.0
        replicas = spec.integer("replicas", 1, least=1)
        share = share_by_replicas(replicas, percent, self._surge(canary, replicas))
        if abs(share - percent / 100.0) > 1e-9:
            line = item.mark_of("setWeight").line + 1
            self._answers.notes.append(
                f"line {line}: without trafficRouting, {percent} % of {replicas} replicas are {100 * share:.3g} %"
            )
        return share

    def _surge(self, canary: Fields, replicas: int) -> int:
        text = canary.text("maxSurge", "25%")
        if not re.fullmatch(r"\d{1,6}%?", text):
            refuse(canary.mark_of("maxSurge"), "should be a number or a percentage", canary.place("maxSurge"))
        return math.ceil(replicas * int(text[:-1]) / 100.0) if text.endswith("%") else int(text)

    def _pause(self, item: Fields) -> float:
        pause = item.fields("pause")
        given = pause.get("duration") if pause else None
        if given is not None and pause is not None:
            return duration_s(given, pause.place("duration"))
        if self._answers.pause_s is None:
            refuse(
                item.mark_of("pause"),
                "waits for a person: say after how long one resumes it, by --resume",
                item.path,
            )
        return self._answers.pause_s

    def _inline(self, analysis: Fields) -> list[Step]:
        metrics = self._metrics(analysis)
        for metric in metrics:
            if metric.ends_after is None and not metric.consecutive_success_limit:
                refuse(
                    analysis.mark,
                    f"the metric {metric.name!r} has an interval and no count: as a step it would never end",
                    analysis.path,
                )
        if not metrics:
            return []
        self._runs.append(metrics)
        return [Analyse(len(self._runs) - 1)]

    def _metrics(self, analysis: Fields) -> tuple[Metric, ...]:
        """Return the metrics of all templates that an analysis names, without those that only run dry."""
        given = {}
        for each in analysis.each("args"):
            value = each.get("value")
            if value is not None:
                given[each.text("name")] = str(value.value)
        named = analysis.each("templates")
        names = [(each.text("templateName"), each) for each in named]
        if "templateName" in analysis:
            names.append((analysis.text("templateName"), analysis))
        dry = [_dry(each) for each in analysis.each("dryRun")]
        known = ("analysisRunMetadata", "measurementRetention", "startingStep")
        self._answers.notes += analysis.unread(known)
        found = [
            metric
            for name, place in names
            for metric in self._template(name, place, given, dry, _DEEPEST_TEMPLATES)
        ]
        twice = {metric.name for metric in found if [each.name for each in found].count(metric.name) > 1}
        if twice:
            refuse(analysis.mark, f"the metric {min(twice)!r} comes from two templates", analysis.path)
        return tuple(found)

    def _template(
        self, name: str, place: Fields, given: Mapping[str, str], dry: list[str], depth: int
    ) -> list[Metric]:
        template = self._templates.get(name)
        if template is None:
            there = ", ".join(self._templates) or "none"
            refuse(place.mark, f"the file has no analysis template {name!r} (there is {there})", place.path)
        if depth == 0:
            refuse(place.mark, f"templates are nested deeper than {_DEEPEST_TEMPLATES}", place.path)
        spec = self._inner(template, "spec")
        args = {
            each.text("name"): str(value.value)
            for each in spec.each("args")
            if (value := each.get("value")) is not None
        }
        args.update(given)
        dry = dry + [_dry(each) for each in spec.each("dryRun")]
        found = []
        for item in spec.items("metrics"):
            fields = Fields(_filled(item, args), f"{name}: spec.metrics")
            metric = self._metric(fields, dry)
            if metric is not None:
                found.append(metric)
        for each in spec.each("templates"):
            found += self._template(each.text("templateName"), each, args, dry, depth - 1)
        self._answers.notes += spec.unread(("measurementRetention",))
        return found

    def _metric(self, fields: Fields, dry: list[str]) -> Metric | None:
        name = fields.text("name")
        if any(_matches(pattern, name) for pattern in dry):
            self._answers.notes.append(f"the metric {name!r} only runs dry: it decides nothing")
            return None
        provider = self._inner(fields, "provider")
        success, failure = (
            self._condition(fields, "successCondition"),
            self._condition(fields, "failureCondition"),
        )
        interval_s = fields.seconds("interval")
        count = fields.integer("count", 0)
        if count > 1 and interval_s is None:
            refuse(fields.mark_of("count"), "a count above 1 needs an interval", fields.place("count"))
        window_s = _looks_back_s(provider) or interval_s
        if window_s is None:
            refuse(
                fields.mark,
                f"the metric {name!r} says neither by an interval nor by its query how far it looks back",
                fields.path,
            )
        largest = max((each.largest for each in (success, failure) if each), default=0.0)
        reading = self._answers.reading(name, largest, window_s, fields.mark, fields.path)
        if reading is None:
            return None
        metric = Metric(
            name=name,
            reading=reading,
            window_s=window_s,
            interval_s=interval_s,
            count=count or None,
            initial_delay_s=fields.seconds("initialDelay") or 0.0,
            failure_limit=fields.integer("failureLimit", 0, least=-1),
            inconclusive_limit=fields.integer("inconclusiveLimit", 0),
            consecutive_error_limit=fields.integer("consecutiveErrorLimit", 4),
            consecutive_success_limit=fields.integer("consecutiveSuccessLimit", 0),
            success=success,
            failure=failure,
            nan_without_requests="prometheus" in provider,
        )
        self._answers.notes += fields.unread()
        return metric

    def _condition(self, fields: Fields, key: str) -> Condition | None:
        if fields.get(key) is None:
            return None
        text = fields.text(key)
        missing = _PLACEHOLDER.search(text)
        if missing:
            refuse(
                fields.mark_of(key),
                f"the argument {missing[1]!r} has no value in this file",
                fields.place(key),
            )
        try:
            return Condition(text)
        except ConditionError as error:
            refuse(fields.mark_of(key), f"the condition {error}", fields.place(key))


_STEPS: Final = ("setWeight", "pause", "analysis", *_WITHOUT_PART)


def _dry(each: Fields) -> str:
    """Return the names that run dry: one name, or its beginning with ``.*`` after it."""
    pattern = each.text("metricName")
    if not re.fullmatch(r"[\w-]*(\.\*)?", pattern):
        refuse(each.mark, "should be a name, or its beginning with '.*' after it", each.place("metricName"))
    return pattern


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-2]) if pattern.endswith(".*") else name == pattern


def _filled(node: Node, args: Mapping[str, str]) -> Node:
    """Return the node with the arguments that have a value put in; its place is the same."""
    value = node.value
    if isinstance(value, str) and "{{" in value:
        value = _PLACEHOLDER.sub(lambda found: args.get(found[1], found[0]), value)
    elif isinstance(value, dict):
        value = {key: _filled(inner, args) for key, inner in value.items()}
    elif isinstance(value, list):
        value = [_filled(inner, args) for inner in value]
    return Node(value, node.mark, node.keys, node.size, node.height)


def _looks_back_s(provider: Fields) -> float | None:
    """Return the range that the metric's query names, if it names one and the same everywhere."""
    prometheus = provider.fields("prometheus")
    if prometheus is None or prometheus.get("query") is None:
        return None
    ranges = set(_RANGE.findall(prometheus.text("query")))
    return duration_s(Node(ranges.pop(), prometheus.mark), prometheus.path) if len(ranges) == 1 else None

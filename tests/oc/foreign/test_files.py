"""Configurations as people have them: what is understood, what is asked for, and what is named with its line."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.errors import GlowsimError
from glowsim.oc.foreign import read_foreign
from glowsim.oc.foreign.argo import Analyse, Pause, SetWeight
from glowsim.oc.foreign.readings import Reading
from glowsim.resources import resource

ROLLOUT = """\
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: guestbook}
spec:
  strategy:
    canary:
      analysis:
        templates: [{templateName: success-rate}]
        startingStep: 2
        args: [{name: service-name, value: guestbook}]
      steps:
      - setWeight: 20
      - pause: {duration: 10m}
      - setWeight: 40
      - pause: {duration: 600}
---
# the template of docs/features/analysis.md, in its shape
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: success-rate}
spec:
  args: [{name: service-name}, {name: least, value: "0.95"}]
  metrics:
  - name: success-rate
    interval: 5m
    successCondition: result[0] >= {{args.least}}
    failureLimit: 3
    provider:
      prometheus:
        query: sum(rate(ok{service="{{args.service-name}}"}[2m])) / sum(rate(all[2m]))
"""
CANARY = """\
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo}
spec:
  analysis:
    interval: 1m
    threshold: 10
    maxWeight: 50
    stepWeight: 5
    metrics:
    - name: request-success-rate
      thresholdRange: {min: 99}
      interval: 1m
    - name: request-duration
      thresholdRange: {max: 500}
      interval: 30s
    webhooks: [{name: load-test, url: "http://tester/"}]
"""


@pytest.fixture
def read(tmp_path: Path):
    def read(text: str, name: str = "policy.yaml", **answers):
        path = tmp_path / name
        path.write_text(text)
        return read_foreign(path, **answers)

    return read


def test_a_rollout_with_its_template_is_read(read) -> None:
    rule = read(ROLLOUT)
    assert rule.name == "Argo Rollouts: guestbook"
    assert rule.plan.steps == (SetWeight(0.2), Pause(600.0), SetWeight(0.4), Pause(600.0))
    ((metric,),) = rule.plan.runs
    assert (rule.plan.background, rule.plan.starting_step) == (0, 2)
    assert (metric.interval_s, metric.window_s, metric.failure_limit, metric.count) == (300.0, 120.0, 3, None)
    assert metric.success is not None
    assert metric.success.text == "result[0] >= 0.95"
    assert metric.reading == Reading("errors", good=True)
    assert (rule.look_s, rule.schedule_s, rule.guardrails, rule.alpha) == (10.0, 1200.0, ("errors",), None)
    assert rule.notes == ("the metric 'success-rate' is read as success over 2min",)


def test_an_argument_of_the_rollout_overrides_that_of_the_template(read) -> None:
    rule = read(ROLLOUT.replace("value: guestbook}", "value: guestbook}, {name: least, value: '95'}"))
    metric = rule.plan.runs[0][0]
    assert metric.success.text == "result[0] >= 95"
    assert metric.reading.percent, "a number above 1 means per cent"


def test_inline_analyses_and_shares_by_replicas_are_read(read) -> None:
    text = ROLLOUT.replace("spec:\n  strategy", "spec:\n  replicas: 5\n  strategy", 1)
    text = text.replace(
        "      - setWeight: 40\n", "      - analysis: {templates: [{templateName: success-rate}]}\n"
    )
    text = text.replace("    failureLimit: 3\n", "    failureLimit: 3\n    count: '4'\n")
    rule = read(text)
    assert rule.plan.steps == (SetWeight(0.2), Pause(600.0), Analyse(1), Pause(600.0))
    assert rule.schedule_s == 600.0 + 3 * 300.0 + 600.0
    ten = read(text.replace("setWeight: 20", "setWeight: 10"))
    assert ten.plan.steps[0].weight == pytest.approx(1 / 6)
    assert any("10 % of 5 replicas are 16.7 %" in note for note in ten.notes)


def test_a_canary_is_read(read) -> None:
    rule = read(CANARY)
    assert rule.name == "Flagger: podinfo"
    assert (rule.look_s, rule.schedule_s, rule.guardrails) == (30.0, 600.0, ("errors", "latency"))
    assert rule.analysis.shares == tuple(step / 100 for step in range(5, 51, 5))
    success, duration = rule.analysis.checks
    assert (success.least, success.reading) == (99.0, Reading("errors", good=True, percent=True))
    assert (duration.most, duration.window_s, duration.reading.percentile) == (500.0, 30.0, 99.0)
    assert any("slower than 500 ms" in note for note in rule.notes)
    assert any("webhooks" in note for note in rule.notes)
    assert read(CANARY, metrics={"request-duration": "ignore"}).guardrails == ("errors",)


def test_what_flagger_leaves_out_is_what_its_code_takes(read) -> None:
    rule = read(
        "apiVersion: flagger.app/v1beta1\nkind: Canary\nspec: {analysis: {stepWeights: [1, 10, 80]}}\n"
    )
    assert (rule.analysis.interval_s, rule.analysis.threshold) == (60.0, 1)
    assert rule.analysis.shares == (0.01, 0.1, 0.8)
    assert read(CANARY.replace("interval: 1m\n    thr", "interval: 1s\n    thr")).analysis.interval_s == 10.0
    old = read(
        CANARY.replace("thresholdRange: {min: 99}", "threshold: 99").replace("analysis:", "canaryAnalysis:")
    )
    assert old.analysis.checks[0].least == 99.0


@pytest.mark.parametrize("name", ["argo.yaml", "flagger.yaml"])
def test_the_bundled_configurations_are_understood_to_the_last_field(name: str) -> None:
    rule = read_foreign(resource("scenarios") / "rollouts" / name)
    assert rule is not None
    assert not [note for note in rule.notes if "not understood" in note]


def test_other_files_are_not_claimed(read) -> None:
    assert read("name: mine\nfleet: {a: 1}\n") is None
    assert read('{"metrics": [1]}', "x.json") is None
    assert read("apiVersion: apps/v1\nkind: Deployment\n") is None
    assert read("- 1\n- 2\n") is None


def test_objects_of_a_list_and_of_other_kinds_beside_them_are_fine(read) -> None:
    first, second = ROLLOUT.split("---\n")
    indented = ["\n".join("  " + line for line in part.splitlines()) for part in (first, second)]
    listed = "apiVersion: v1\nkind: List\nitems:\n" + "\n".join("-" + part[1:] for part in indented)
    assert read(listed).plan == read(ROLLOUT).plan
    assert read("apiVersion: v1\nkind: Service\n---\n" + ROLLOUT).plan == read(ROLLOUT).plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ROLLOUT.replace("name: success-rate\n    interval", "name: queue\n    interval"),
            "policy.yaml:24:5: success-rate: spec.metrics: what does the metric 'queue' measure? say it by",
        ),
        (
            ROLLOUT.replace("pause: {duration: 10m}", "pause: {}"),
            "policy.yaml:13:9: spec.strategy.canary.steps[1]: waits for a person: say after how long one resumes it",
        ),
        (
            ROLLOUT.replace("duration: 10m", "duration: soon"),
            "is no duration: write such as 90s, 5m or 1h30m",
        ),
        (
            ROLLOUT.replace("- setWeight: 40", "- experiment: {}"),
            "policy.yaml:14:9: spec.strategy.canary.steps[2]: the step 'experiment' cannot be simulated",
        ),
        (ROLLOUT.replace("{{args.least}}", "{{args.most}}"), "the argument 'most' has no value in this file"),
        (ROLLOUT.replace(">= {{args.least}}", "in range"), "the condition has 'in' where a comparison"),
        (
            ROLLOUT.replace("[{templateName: success-rate}]", "[{templateName: x}]"),
            "no analysis template 'x'",
        ),
        (
            ROLLOUT.replace("- setWeight: 40", "- analysis: {templates: [{templateName: success-rate}]}"),
            "has an interval and no count: as a step it would never end",
        ),
        (ROLLOUT.replace("setWeight: 20", "setWeight: 120"), "is above 100 per cent"),
        (ROLLOUT.split("---\n")[1], "holds templates only"),
        (ROLLOUT + "---\n" + CANARY, "a second rollout: keep one in the file"),
        (ROLLOUT.replace("failureLimit: 3", "failureLimit: -2"), "should be a whole number of at least -1"),
        (CANARY.replace("stepWeight: 5", "iterations: 5"), "gets no request of a user"),
        (
            CANARY.replace("stepWeight: 5", "iterations: 5\n    match: [{headers: {}}]"),
            "which share of the requests matches? say it by --weight",
        ),
        (CANARY.replace("    stepWeight: 5\n", ""), "neither stepWeight, stepWeights nor iterations"),
        (CANARY.replace("stepWeight: 5", "stepWeights: [5, 5]"), "have to rise"),
        (
            CANARY.replace("name: request-duration", "name: queue-depth"),
            "what does the metric 'queue-depth' measure?",
        ),
        (CANARY.replace("interval: 30s", "interval: [1]"), "is no duration"),
        ("a: b: c\n---\n" + CANARY, "policy.yaml:1:"),
    ],
)
def test_what_cannot_be_simulated_is_named_with_its_place_and_remedy(read, text, message) -> None:
    with pytest.raises(GlowsimError) as refused:
        read(text)
    assert message in str(refused.value)


def test_what_is_asked_can_be_answered(read) -> None:
    queue = ROLLOUT.replace("name: success-rate\n    interval", "name: queue\n    interval")
    assert read(queue, metrics={"queue": "errors"}).plan.runs[0][0].reading == Reading("errors")
    assert read(queue, metrics={"queue": "ignore"}).plan.background is None
    paused = ROLLOUT.replace("pause: {duration: 10m}", "pause: {}")
    assert read(paused, pause_s=3600.0).plan.steps[1] == Pause(3600.0)
    test = CANARY.replace("stepWeight: 5", "iterations: 5\n    match: [{headers: {}}]")
    assert read(test, weight=0.1).analysis.shares == (0.1,) * 5
    with pytest.raises(GlowsimError, match="no metric 'succes-rate'; did you mean 'success-rate'"):
        read(ROLLOUT, metrics={"succes-rate": "errors"})
    with pytest.raises(GlowsimError, match="'sucess' is no reading"):
        read(ROLLOUT, metrics={"success-rate": "sucess"})


def test_fields_that_are_not_understood_are_named_with_their_lines(read) -> None:
    rule = read(ROLLOUT.replace("    failureLimit: 3\n", "    failureLimt: 3\n"))
    assert (
        "line 27: success-rate: spec.metrics.failureLimt is not understood and has no part here"
        in rule.notes[-1]
    )
    assert "did you mean 'failureLimit'?" in rule.notes[-1]


def test_metrics_that_only_run_dry_decide_nothing(read) -> None:
    for pattern in ("success-rate", ".*", "success.*"):
        dry = ROLLOUT.replace("startingStep: 2", f"dryRun: [{{metricName: '{pattern}'}}]")
        assert read(dry).plan.background is None


def test_what_would_take_too_long_or_too_much_memory_is_refused(read) -> None:
    with pytest.raises(GlowsimError, match="looks of 1 s are too many to simulate"):
        read(ROLLOUT.replace("duration: 10m", "duration: 3601s").replace("duration: 600", "duration: 60d"))
    with pytest.raises(GlowsimError, match="over 2000 looks of 10 s"):
        read(ROLLOUT.replace("[2m]", "[30d]"))
    with pytest.raises(GlowsimError, match="from 1 second to a year"):
        read(ROLLOUT.replace("duration: 10m", "duration: 5ms"))


KAYENTA = (resource("scenarios") / "rollouts" / "kayenta.json").read_text().splitlines()
ODD = [
    "1",
    "-1",
    "x",
    "",
    "{}",
    "[]",
    "[1]",
    "null",
    "true",
    ".inf",
    ".nan",
    "1e400",
    "'{{args.x}}'",
    "{a: {b: 1}}",
]


@given(
    st.sampled_from([ROLLOUT.splitlines(), CANARY.splitlines(), KAYENTA]),
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from(["drop", "twice", "value"]), st.sampled_from(ODD)),
        max_size=4,
    ),
)
def test_a_mangled_configuration_is_refused_or_read_and_never_breaks(lines, changes) -> None:
    lines = list(lines)
    for place, what, odd in changes:
        at = place % len(lines)
        if what == "drop":
            del lines[at]
        elif what == "twice":
            lines.insert(at, lines[at])
        else:
            key, colon, _ = lines[at].partition(":")
            lines[at] = f"{key}{colon} {odd}"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text("\n".join(lines))
        try:
            rule = read_foreign(path, weight=0.1, pause_s=60.0)
        except GlowsimError:
            return
    if rule is not None:
        assert rule.look_s > 0
        assert rule.start(3).weight.shape == (3,)


def test_files_are_bounded(read) -> None:
    with pytest.raises(GlowsimError, match="more than 64 documents"):
        read("a: 1\n---\n" * 65)
    with pytest.raises(GlowsimError, match="larger than 1024 KiB"):
        read("# " + "x" * (1 << 20))
    with pytest.raises(GlowsimError, match="nested deeper"):
        read(ROLLOUT.replace(">= {{args.least}}", ">= 1 || " + "(" * 25 + "result[0] > 1" + ")" * 25))
    with pytest.raises(GlowsimError, match="cannot be read"):
        read_foreign(Path("/nowhere/policy.yaml"))

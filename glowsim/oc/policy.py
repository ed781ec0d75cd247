"""What POLICY may be: a bundled name, a splitter in YAML, a scenario with one, or another tool's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from glowsim import registry
from glowsim.core.errors import GlowsimError
from glowsim.oc.foreign import read_foreign
from glowsim.oc.improvement import STRATEGIES, Improvement
from glowsim.oc.rules import Rule
from glowsim.scenario.problems import did_you_mean
from glowsim.scenario.quantities import DURATION

__all__ = ["USE", "Policy", "read_policy", "rule_of"]

USE: Final = "improvement_rollout"
"""The controller that is simulated here."""
_LARGEST_BYTES: Final = 1_000_000


class Policy(NamedTuple):
    """A rule, the bounds of its guardrails on latency (s) and cost (US dollars), and the scenario it came with."""

    rule: Rule
    bounds: Mapping[str, float] = {}
    scenario: Path | None = None


def read_policy(
    policy: str,
    *,
    label_delay_s: float = 0.0,
    sticky: bool = False,
    metrics: Mapping[str, str] | None = None,
    weight: float | None = None,
    pause_s: float | None = None,
    allow_plugins: bool = False,
) -> Policy:
    """Return what a policy is.

    Parameters
    ----------
    policy
        A bundled name, or a file.
    label_delay_s
        Of the traffic: a bundled policy waits as long for its outcomes.
    sticky
        Whether the traffic is of tenants: a bundled policy assigns by tenant.
    metrics
        Of another tool's configuration: name of a metric -> what it measures, one of ``GUARDRAILS``.
    weight
        Of another tool's configuration that does not say it: share of the new version.
    pause_s
        Of another tool's configuration: seconds until a person resumes it where it pauses without an end.
    allow_plugins
        Whether a scenario's controllers may be code beside it.

    Raises
    ------
    GlowsimError
        No such policy, or one that cannot be read; with file, line and remedy.

    >>> read_policy("gradual").rule.schedule_s
    21600.0
    """
    path = Path(policy)
    if path.suffix not in (".yaml", ".yml", ".json") and not path.exists():
        if policy in STRATEGIES:
            return Policy(_bundled(policy, label_delay_s, sticky=sticky))
        path = _bundled_file(policy)
    if not path.is_file():
        raise GlowsimError(f"there is no file {path}")
    if path.stat().st_size > _LARGEST_BYTES:
        raise GlowsimError(f"{path} is larger than {_LARGEST_BYTES:,} bytes: that is no policy")
    foreign = read_foreign(path, dict(metrics or {}), weight=weight, pause_s=pause_s)
    if foreign is not None:
        return Policy(foreign)
    found = _ours(path, allow_plugins=allow_plugins)
    if label_delay_s > found.rule.maturity_s:
        late = DURATION.write(label_delay_s)
        raise GlowsimError(
            f"{path}: outcomes come after {late}, but are taken in after {DURATION.write(found.rule.maturity_s)}: all "
            f"would be late; write maturity: {late}"
        )
    return found


def _bundled_file(name: str) -> Path:
    from glowsim.resources import resource

    files = {each.stem: each for each in sorted(resource("scenarios", "rollouts").iterdir())}
    if name not in files:
        names = (*STRATEGIES, *files)
        meant = did_you_mean(name, names)
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise GlowsimError(
            f"there is no file and no bundled policy {name!r}{hint}\nbundled: {', '.join(names)}"
        )
    return files[name]


def _bundled(name: str, label_delay_s: float, *, sticky: bool) -> Improvement:
    weights, holds_s = STRATEGIES[name]
    maturity_s = max(Improvement.maturity_s, label_delay_s)
    unit = "tenant" if sticky else "request"
    return Improvement(weights=weights, holds_s=holds_s, maturity_s=maturity_s, unit=unit, name=name)


def _ours(path: Path, *, allow_plugins: bool) -> Policy:
    """Return the splitter of a YAML file: the file itself (``use: ...``), or a scenario's."""
    from glowsim.scenario.source import read_file

    data = read_file(path).plain()
    if not isinstance(data, dict) or not ("use" in data or "controllers" in data or "fleet" in data):
        raise GlowsimError(
            f"{path}: this is no policy: write 'use: {USE}' and its settings, or give a scenario with "
            "controllers.splitter, or a configuration of Argo Rollouts, Flagger or Kayenta"
        )
    if "use" in data:
        settings = {key: value for key, value in data.items() if key != "use"}
        return _checked(path, data["use"], settings)
    from glowsim.scenario import load

    scenario = load(path, allow_plugins=allow_plugins)
    chosen = [
        one
        for controllers in (scenario.controllers, *(agent.controllers for agent in scenario.fleet))
        for one in controllers.chosen().get("splitter", ())
    ]
    if not chosen:
        raise GlowsimError(
            f"{path}: the scenario has no controllers.splitter: there is no rollout to look at"
        )
    if len({(one.use, str(one.settings)) for one in chosen}) > 1:
        raise GlowsimError(
            f"{path}: the scenario has several splitters: write the one to look at into a file"
        )
    return _checked(path, chosen[0].use, chosen[0].settings)._replace(scenario=path)


def _checked(path: Path, use: Any, settings: Mapping[str, Any]) -> Policy:
    if use != USE:
        raise GlowsimError(f"{path}: use: {use!r} cannot be simulated here: write {USE}")
    controller = registry.find("splitter", USE)
    arguments, findings = registry.check(controller, {"salt": "oc", **settings})
    if findings:
        said = [f"{path}: {'.'.join(map(str, each.path))}: {each.message}" for each in findings]
        raise GlowsimError("\n".join(said))
    known = {each.name: each.default for each in registry.parameters(controller)}
    written = known | arguments
    bounds = {"latency": written["latency_above_s"], "cost": written["cost_above_usd"]}
    return Policy(
        rule_of(path.stem, written), {name: bound for name, bound in bounds.items() if bound is not None}
    )


def rule_of(name: str, settings: Mapping[str, Any]) -> Improvement:
    """Return the rule of a controller's arguments.

    Parameters
    ----------
    name
        What the table calls it.
    settings
        Every argument of ``improvement_rollout``, in base units.

    Raises
    ------
    GlowsimError
        No guardrail is on.
    """
    on = {
        "errors": settings["errors"],
        "latency": settings["latency_above_s"] is not None,
        "cost": settings["cost_above_usd"] is not None,
        "quality": bool(settings["quality_metric"]),
        "complaints": settings["complaints"],
    }
    guardrails = tuple(name for name, is_on in on.items() if is_on)
    if not guardrails:
        raise GlowsimError(f"{name}: no guardrail is on: nothing can be detected; write errors: true")
    weights, holds_s = STRATEGIES.get(
        settings["strategy"], ((*settings["weights"], 1.0), settings["holds_s"])
    )
    if len(holds_s) == 1:
        holds_s *= len(weights) - 1
    same = (
        "look_s", "maturity_s", "alpha", "promote_alpha", "risk_ratio", "gates", "minimum", "margin", "unit",
        "correlation",
    )  # fmt: skip
    return replace(
        Improvement(name=name, weights=weights, holds_s=holds_s, guardrails=guardrails),
        **{each: settings[each] for each in same},
    )

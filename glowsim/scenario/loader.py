"""From a file, a text and overrides to a checked scenario, or to all of its problems at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from glowsim import registry
from glowsim.scenario.base import Model
from glowsim.scenario.checks import cross_checks
from glowsim.scenario.model import CROSS_CHECKED, Scenario
from glowsim.scenario.overrides import apply
from glowsim.scenario.paths import join
from glowsim.scenario.problems import REQUIRED, UNKNOWN_KEY, Finding, Problem, ScenarioError
from glowsim.scenario.source import Node, read_file, read_text
from glowsim.scenario.translate import translate

__all__ = ["load", "load_as"]

M = TypeVar("M", bound=Model)


def load(
    source: Path | str, overrides: Sequence[str] = (), *, allow_plugins: bool = False, option: str = "-s"
) -> Scenario:
    r"""Return the scenario of a file, or of a text (a string with a line break), after the overrides.

    Args:
        source: a path, or YAML text.
        overrides: ``key.path=value`` each, the value in YAML; applied in order, before any check.
        allow_plugins: controllers may be code beside the scenario (``use: my_pkg.routing:CheapestFirst``).
        option: how the overrides were given, for their errors.

    Raises:
        ScenarioError: everything that is wrong, each with file, line, column, path and what is allowed.

    >>> try:
    ...     load("title: a line\nsed: 1\n")
    ... except ScenarioError as error:
    ...     print(error.problems[-1].render())  # doctest: +ELLIPSIS
    <text>:2:1: sed: unknown key; did you mean 'seed'?
       2 | sed: 1
         | ^^^
       allowed here: controllers, description, ...
    """
    is_text = isinstance(source, str) and "\n" in source
    root = read_text(str(source)) if is_text else read_file(Path(source))
    if allow_plugins and not is_text:
        registry.add_plugin_folder(Path(source).resolve().parent)
    root, problems = _overridden(root, overrides, option)
    data = root.plain()
    findings: list[Finding] = []
    scenario = None
    try:
        scenario = Scenario.model_validate(data, context=CROSS_CHECKED)
    except ValidationError as error:
        findings += translate(error, Scenario, data)
    if isinstance(data, dict):
        findings += cross_checks(data)
        findings += _controller_findings(data, allow_plugins=allow_plugins)
    problems += [_placed(root, finding) for finding in _distinct(findings)]
    if scenario is None or problems:
        raise ScenarioError(problems)
    return scenario


def load_as(kind: type[M], source: Path | str) -> M:
    """Return another kind of document, such as a list of claims, read and checked as scenarios are.

    Args:
        kind: the model of the whole document.
        source: a path, or YAML text (a string with a line break).

    Raises:
        ScenarioError: everything that is wrong, each with file, line, column, path and what is allowed.
    """
    is_text = isinstance(source, str) and "\n" in source
    root = read_text(str(source)) if is_text else read_file(Path(source))
    data = root.plain()
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = _distinct(translate(error, kind, data))
        raise ScenarioError([_placed(root, finding) for finding in found]) from error


def _distinct(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Keep one finding a place, and leave out a missing key that is there misspelt."""
    misspelt = {(*finding.path[:-1], finding.suggestion) for finding in findings}
    seen: set[tuple[str | int, ...]] = set()
    for finding in findings:
        if finding.path not in seen and not (finding.message == REQUIRED and finding.path in misspelt):
            yield finding
        seen.add(finding.path)


def _overridden(root: Node, overrides: Sequence[str], option: str) -> tuple[Node, list[Problem]]:
    problems: list[Problem] = []
    for override in overrides:
        try:
            root = apply(root, override, option)
        except ScenarioError as error:
            problems += error.problems
    return root, problems


def _controller_findings(data: dict[str, Any], *, allow_plugins: bool) -> Iterator[Finding]:
    places: list[tuple[tuple[str | int, ...], Any]] = [(("controllers",), data.get("controllers"))]
    fleet = data.get("fleet")
    for i, agent in enumerate(fleet if isinstance(fleet, list) else ()):
        if isinstance(agent, dict):
            places.append((("fleet", i, "controllers"), agent.get("controllers")))
    for path, families in places:
        for family, written in families.items() if isinstance(families, dict) else ():
            if family in registry.FAMILIES:
                many = isinstance(written, list)
                for i, one in enumerate(written if many else [written]):
                    at = (*path, family, i) if many else (*path, family)
                    yield from _one_controller(at, family, one, allow_plugins=allow_plugins)


def _one_controller(
    path: tuple[str | int, ...], family: str, written: Any, *, allow_plugins: bool
) -> Iterator[Finding]:
    if not isinstance(written, dict) or not isinstance(written.get("use"), str):
        return
    ours = ("use", "shadow", "scope") if family == "limiter" else ("use", "shadow")
    settings = {key: value for key, value in written.items() if key not in ours}
    try:
        controller = registry.find(family, written["use"], allow_plugins=allow_plugins)
        _, findings = registry.check(controller, settings)
        if (
            family == "limiter"
            and written.get("scope") == "fleet"
            and "agent" in registry.handed_in(controller)
        ):
            message = f"{written['use']} decides for one agent: leave its scope out"
            findings = [*findings, Finding(("scope",), message)]
    except registry.RegistryError as error:
        findings = [Finding(("use",), str(error), error.allowed, error.suggestion)]
    yield from (finding._replace(path=path + finding.path) for finding in findings)
    if "shadow" in written:
        yield from _one_controller((*path, "shadow"), family, written["shadow"], allow_plugins=allow_plugins)


def _placed(root: Node, finding: Finding) -> Problem:
    """Place a finding: at its key or its value, or at the nearest part of the file that exists."""
    node, mark = root, root.mark
    for part in finding.path:
        if isinstance(node.value, dict) and part in node.value:
            mark = node.keys[str(part)]
            node = node.value[str(part)]
        elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.mark
        else:
            break
    else:
        is_plain = not isinstance(node.value, dict | list) and node.value is not None
        if is_plain and finding.message != UNKNOWN_KEY:
            mark = node.mark
    return mark.source.problem(
        mark, finding.message, join(finding.path), allowed=finding.allowed, suggestion=finding.suggestion
    )

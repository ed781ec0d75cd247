"""Which detectors to look at: all, one by name, or those of a YAML file or a scenario."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from glowsim import registry
from glowsim.core.errors import GlowsimError
from glowsim.oc.drift.calibrate import Watched
from glowsim.oc.drift.courses import COURSES
from glowsim.scenario.problems import did_you_mean

__all__ = ["ALL", "read_detectors"]

ALL: Final = "all"
_THRESHOLDS: Final[dict[str, dict[str, Any]]] = {
    "cusum": {"threshold": 5.0},
    "page_hinkley": {"threshold": 5.0},
}
"""Of detectors that have no default for what is calibrated here: anything."""


def read_detectors(
    policy: str, metric: str, effect: float, deviation: float, *, allow_plugins: bool = False
) -> list[Watched]:
    """Return the detectors to look at; what is found here is their threshold, so one that is given is left out.

    Parameters
    ----------
    policy
        ``all``, a detector's name, or a YAML file: ``use: ...``, a list of such, or a scenario with
        ``controllers.detector``, whose drift detectors are taken.
    metric
        Of detectors that are not from a file.
    effect, deviation
        The smallest change to be told and the metric's standard deviation, in its unit: for detectors that
        are not from a file, the allowances of `cusum` and `page_hinkley` are half of that change.
    allow_plugins
        Whether a scenario's controllers may be code beside it.

    Raises
    ------
    GlowsimError
        No such detector, or a file that cannot be read; with the place and the remedy.

    >>> [each.name for each in read_detectors("cusum", "error", 0.05, 0.218)]
    ['cusum']
    """
    if policy == ALL or policy in COURSES:
        names = list(COURSES) if policy == ALL else [policy]
        tuned = {"cusum": {"allowance": effect / deviation / 2.0}, "page_hinkley": {"delta": effect / 2.0}}
        return [
            _watched(
                "--drift", name, {"metric": metric, "baseline": 2000, **tuned.get(name, {})}, lenient=True
            )
            for name in names
        ]
    path = Path(policy)
    if not path.is_file():
        meant = did_you_mean(policy, (ALL, *COURSES))
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise GlowsimError(
            f"there is no file and no drift detector {policy!r}{hint}\ndetectors: {', '.join((ALL, *COURSES))}"
        )
    found = list(_of_file(path, allow_plugins=allow_plugins))
    if not found:
        raise GlowsimError(
            f"{path}: no drift detector is there: write 'use: shiryaev_roberts' and its metric"
        )
    return found


def _of_file(path: Path, *, allow_plugins: bool) -> Iterator[Watched]:
    from glowsim.scenario import load
    from glowsim.scenario.source import read_file

    data = read_file(path).plain()
    if isinstance(data, dict) and "fleet" in data:
        scenario = load(path, allow_plugins=allow_plugins)
        for controllers in (scenario.controllers, *(agent.controllers for agent in scenario.fleet)):
            for one in controllers.chosen().get("detector", ()):
                if one.use in COURSES:
                    yield _watched(str(path), one.use, one.settings)
        return
    for one in data if isinstance(data, list) else [data]:
        if not isinstance(one, dict) or one.get("use") not in COURSES:
            raise GlowsimError(f"{path}: write 'use:' and one of {', '.join(COURSES)}, or a list of such")
        yield _watched(str(path), one["use"], {key: each for key, each in one.items() if key != "use"})


def _watched(where: str, name: str, settings: Mapping[str, Any], *, lenient: bool = False) -> Watched:
    detector = registry.find("detector", name)
    known = registry.parameters(detector)
    if lenient:
        keys = {each.key for each in known}
        settings = {key: value for key, value in settings.items() if key in keys}
    arguments, findings = registry.check(detector, {**_THRESHOLDS.get(name, {}), **settings})
    if findings:
        said = [f"{where}: {name}: {'.'.join(map(str, each.path))}: {each.message}" for each in findings]
        raise GlowsimError("\n".join(said))
    return Watched(name, {each.name: each.default for each in known} | arguments)

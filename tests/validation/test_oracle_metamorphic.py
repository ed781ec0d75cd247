"""What must hold between two runs, and that the checks see a world that is wrong."""

from __future__ import annotations

from functools import partial
from math import inf, pi, sin

import numpy as np
import pytest

from glowsim import build, results
from glowsim.core.errors import WorldError
from glowsim.results import Tables
from glowsim.scenario import Scenario
from glowsim.stats.intervals import Interval
from glowsim.validation import measures, networks, simulations, worlds
from glowsim.validation.case import Quantity, Size
from glowsim.validation.cases import CASES
from glowsim.validation.running import AGREES, DISAGREES, TOO_WIDE, judge, measure, measure_all


def exponential(mean_s: float) -> dict[str, object]:
    return {"service": {"law": "time", "time": {"law": "exponential", "mean": f"{mean_s!r}s"}}}


@pytest.mark.parametrize("factor", [0.001, 3600.0])
def test_time_scaled_by_a_factor_scales_every_wait_by_it(factor: float) -> None:
    scaled = [
        worlds.simulated(worlds.station(8.0 / k, 3000, agent={"instances": 10} | exponential(k)), 0)
        for k in (1.0, factor)
    ]
    for column in ("wait_s", "latency_s", "t_end_s"):
        once, more = (each.requests[column] for each in scaled)
        np.testing.assert_allclose(more, once * factor, rtol=1e-6, atol=1e-9 * factor)
    assert (scaled[0].requests["wait_s"] > 0.0).mean() > 0.3


def renumbered(scenario: Scenario, numbers: list[int]) -> Tables:
    """Run a scenario whose instances are announced with these numbers."""
    built = build.replication(scenario, 0)
    world, make, left = built.world, built.world._make, iter(numbers)

    def make_numbered(agent: int):
        world._started_instances = next(left)
        return make(agent)

    world._make = make_numbered
    world.start()
    world.run(inf)
    return results.fold(built.journal.recording(), scenario)


@pytest.mark.parametrize("use", ["round_robin", "least_connections"])
def test_what_instances_are_called_changes_no_figure(use: str) -> None:
    scenario = worlds.station(
        4,
        3000,
        agent={"instances": 5, "queue": "instance", "slots": 1000},
        controllers={"balancer": {"use": use}},
    )
    plain, other = renumbered(scenario, [0, 1, 2, 3, 4]), renumbered(scenario, [40, 17, 3, 29, 8])
    assert set(other.requests["instance"]) == {40, 17, 3, 29, 8}
    found, expected = results.figures(other), results.figures(plain)
    if use == "round_robin":
        assert found == pytest.approx(expected, nan_ok=True, rel=1e-12)
    else:  # ties go by number, so that single requests differ: the work does not
        assert found["latency_s_mean"] == pytest.approx(expected["latency_s_mean"], rel=0.1)
    assert found["completed"] == expected["completed"] == 3000


def test_a_run_that_breaks_littles_law_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "little", lambda tables: (1.0, 1.1))
    with pytest.raises(WorldError, match=r"Little's law fails: 1\.0 open"):
        worlds.simulated(worlds.station(0.5, 50), 0)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("mg1-constant", partial(simulations.steady, 0.8, 1000.0)),
        ("mm10", partial(simulations.steady, 8, 100.0, agent={"instances": 12})),
        ("priority", lambda number, tasks: simulations.prioritised([0.6, 0.1], 1, 500.0, number, tasks)),
        ("erlang-a-calm", partial(simulations.gives_up, 8.0, 10, 1.0)),
        ("tandem", lambda number, tasks: networks.open_network(
            3.0, [[0.0, 1.0], [0.0, 0.0]], [5.0, 2.2], [1, 2], tasks, 100.0, np.random.default_rng(number)
        )),
        ("ttl", partial(simulations.cached, "0.5/s", 1, 0.0, {"use": "lru", "entries": 1, "ttl": "11s"}, 100.0)),
    ],
)  # fmt: skip
def test_another_world_than_the_cases_own_disagrees(key: str, wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative controls: the quick sizes already tell these worlds from the right ones."""
    case = CASES[key]
    monkeypatch.setitem(CASES, key, case.__class__(**{**vars(case), "simulate": wrong}))
    assert case.quick is not None
    assert DISAGREES in [each.verdict for each in measure(CASES[key], case.quick, narrow=False)]


def test_the_verdict_knows_its_three_words() -> None:
    near, wide = Interval(1.0, 0.99, 1.01, 8), Interval(1.0, 0.9, 1.1, 8)
    assert judge(Quantity("x", 1.005), near, narrow=True) == AGREES
    assert judge(Quantity("x", 1.02), near, narrow=False) == DISAGREES
    assert judge(Quantity("x", 1.02, within=0.01), near, narrow=False) == AGREES
    assert judge(Quantity("x", 1.0), wide, narrow=True) == TOO_WIDE
    assert judge(Quantity("x", 1.0, why_wide="too rare"), wide, narrow=True) == AGREES


def test_no_two_cases_and_no_two_replications_share_random_numbers() -> None:
    first, second = (measure(CASES[key], Size(500, 2), narrow=False) for key in ("tandem", "agent-loop"))
    assert first[0].interval.low < first[0].interval.high
    assert first[0].interval.mean != second[0].interval.mean
    assert measure(CASES["tandem"], Size(500, 2), narrow=False) == first


def test_several_processes_measure_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {key: case for key, case in CASES.items() if key in ("tandem", "closed-stations", "cusum-5")}
    monkeypatch.setattr("glowsim.validation.running.CASES", kept)
    told: list[tuple[int, int, str]] = []
    alone = list(measure_all(full=False, progress=lambda *step: told.append(step)))
    assert list(measure_all(full=False, jobs=2)) == alone
    assert told == [(0, 2, "Tandem of two stations"), (1, 2, "Closed, two stations")]


def test_the_sine_is_found_where_it_was_put() -> None:
    """Ten are always there, and fifty more from 12 to 13 each day, in hours; the rate's own peak is called 6."""
    came = np.sort(np.concatenate([np.arange(0.0, 72.0, 0.1), np.repeat([12.0, 36.0, 60.0], 50)]))
    tables = Tables({"t_arrive_s": came, "t_end_s": came + 1.0}, *({} for _ in Tables._fields[1:]))
    found = measures.swing(tables, 24.0, 6.0, 24.0)
    turn = 2.0 * pi / 24.0
    swing = 2.0 / 24.0 * 50.0 * 2.0 * sin(turn / 2.0) / turn
    assert found["lag_s"] == pytest.approx(6.5)
    assert found["peak"] == pytest.approx(10.0 + 50.0 / 24.0 + swing)

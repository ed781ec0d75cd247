"""The standard load against its own arithmetic, what the pictures claim, and that they can be read."""

from __future__ import annotations

import re
from functools import cache
from math import sqrt
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glowsim.pictures import load
from glowsim.pictures.__main__ import NAME, main, with_section
from glowsim.pictures.families import PICTURES, Facts, Picture
from glowsim.pictures.load import BURST_S, CENTRES_S, DURATION_S, RAMP_S, STEP_S, arrivals, during
from glowsim.pictures.panels import STYLE, Line, Panel, Shaded, figure, svg

ROOT = Path(__file__).resolve().parents[1]
LARGEST_BYTES = 120_000
FAMILIES = list(PICTURES)


@cache
def picture(family: str) -> Picture:
    return PICTURES[family]()


def of(facts: Facts, what: str) -> list[float]:
    return [value for (name, _), value in facts.items() if name == what]


# --- the load ---------------------------------------------------------------------------------------


def per_second_at(workload: dict[str, object], t_s: float) -> float:
    steps = [(float(step["at"][:-1]), float(step["rate"][:-2])) for step in workload["steps"]]
    return next(rate for at_s, rate in reversed(steps) if at_s <= t_s)


def test_the_load_is_a_base_a_ramp_a_step_and_a_burst() -> None:
    standard = arrivals(2.0)
    assert per_second_at(standard, 0.0) == per_second_at(standard, STEP_S[0] - 1) == 2.0
    ramp = [per_second_at(standard, t_s) for t_s in np.arange(*RAMP_S, 5.0)]
    assert ramp == sorted(ramp)
    assert np.mean(ramp) == pytest.approx(5.0)
    assert 2.0 < ramp[0] < 2.3
    assert 7.7 < ramp[-1] < 8.0 == per_second_at(standard, RAMP_S[1])
    assert per_second_at(standard, sum(STEP_S) / 2) == 8.0
    assert per_second_at(standard, sum(BURST_S) / 2) == 20.0
    assert per_second_at(standard, BURST_S[1]) == 2.0


def test_two_parts_of_the_load_are_the_whole() -> None:
    parts = arrivals(2.0, (0.0, STEP_S[0])), arrivals(2.0, (STEP_S[0], DURATION_S))
    for t_s in np.arange(0.0, DURATION_S, 7.0):
        assert sum(per_second_at(part, t_s) for part in parts) == per_second_at(arrivals(2.0), t_s)


def test_what_arrives_is_what_the_load_says() -> None:
    service = {"law": "time", "time": "10ms"}
    tables = load.run({"instances": 1, "concurrency": 100, "service": service}, [arrivals(1.0)], {})
    counted = load.per_second(tables.requests["t_arrive_s"])
    assert round(counted.sum() * 30) == len(tables.requests["t_arrive_s"])
    for span, expected in (((0.0, RAMP_S[0]), 1.0), (RAMP_S, 2.5), (STEP_S, 4.0), (BURST_S, 10.0)):
        length_s = span[1] - span[0]
        assert abs(counted[during(CENTRES_S, span)].mean() - expected) < 4 * sqrt(expected / length_s)


def test_shares_and_quantiles_of_the_bins() -> None:
    t_s = np.array([1.0, 2.0, 29.9, 30.0, 95.0])
    values = np.array([1.0, 3.0, 5.0, 7.0, 9.0])
    assert load.per_second(t_s)[:4].tolist() == [3 / 30, 1 / 30, 0.0, 1 / 30]
    shares = load.share(t_s, values > 2)
    assert shares[[0, 1, 3]].tolist() == [2 / 3, 1.0, 1.0]
    assert np.isnan(shares[2])
    medians = load.quantile(t_s, values, 0.5)
    assert medians[[0, 1, 3]].tolist() == [3.0, 7.0, 9.0]
    assert np.isnan(medians[2])


# --- what the pictures show -------------------------------------------------------------------------


def test_a_symmetric_cooldown_is_paid_for_on_the_way_up() -> None:
    for phase in ("ramp", "step"):
        default, quick, hpa = of(picture("scaling").facts, phase)
        assert default > 3 * quick
        assert default > 2 * hpa
    assert min(of(picture("scaling").facts, "burst")) > 0.9, "no instance starts in time for a burst"


def test_a_slow_instance_fills_up_unless_the_balancer_looks() -> None:
    facts = picture("balancing").facts
    turns, *looking = of(facts, "slow")
    assert turns > 8 * max(looking)
    turns, *looking = of(facts, "p99")
    assert turns > 4 * max(looking)


def test_priorities_hand_the_wait_on() -> None:
    facts = picture("queueing").facts
    most, least = of(facts, "priority 0"), of(facts, "priority 2")
    assert most == sorted(most, reverse=True)
    assert least == sorted(least)
    assert most[2] < 1.0, "strict priorities: the most urgent have a free server soon"
    first_come = [of(facts, f"priority {number}")[0] for number in range(3)]
    assert max(first_come) < 1.1 * min(first_come)


def test_a_limit_trades_answers_for_latency() -> None:
    facts = picture("admission").facts
    limited, free = of(facts, "answered")
    assert limited == pytest.approx((15 * 60 + 30) / 2220, rel=0.1), "rate * burst + what is let in at once"
    assert free > limited
    for what in ("p95", "p95 after"):
        limited, free = of(facts, what)
        assert limited < free / 3


def test_plain_lfu_collapses_when_popularity_moves() -> None:
    facts = picture("caching").facts
    for what in ("after", "later"):
        ageing, plain, lru = of(facts, what)
        assert plain < 0.7 * min(ageing, lru)
    ageing, plain, lru = of(facts, "before")
    assert lru < ageing <= plain + 0.05


def test_a_budget_for_retries_is_no_storm() -> None:
    facts = picture("resilience").facts
    within, without, none = of(facts, "outage attempts")
    assert none == pytest.approx(1.0, abs=0.05)
    assert within < 1.3 < 2.0 < without
    within, without, none = of(facts, "brown-out answered")
    assert none == pytest.approx(0.7, abs=0.03)
    assert none < within < without


# --- that they can be read --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_small_whole_and_the_same_again(family: str) -> None:
    drawn = svg(picture(family).panels, picture(family).shaded)
    assert len(drawn.encode()) < LARGEST_BYTES
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert not re.search(r"@font-face|base64|<script|20\d\d-\d\d-\d\d|NaN|nan[ ,]", drawn)
    assert drawn == svg(picture(family).panels, picture(family).shaded)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_axis_has_a_unit_and_no_two_curves_look_alike(family: str) -> None:
    for panel in picture(family).panels:
        assert re.search(r"\(.+\)|^Instances|^Requests in flight", panel.title), panel.title
        labelled = [line.look for line in panel.lines if line.label != "_"]
        assert len(set(labelled)) == len(labelled)


def overlaps(panels: tuple[Panel, ...], shaded: Shaded | None) -> list[str]:
    """Return what is cut off or written over something else."""
    with mpl.rc_context(STYLE):
        drawn = figure(panels, shaded)
        renderer = FigureCanvasAgg(drawn).get_renderer()
        drawn.draw(renderer)
        boxes = [(each.get_text(), each.get_window_extent(renderer)) for each in drawn.texts]
        for axes in drawn.axes:
            low, high = axes.get_ylim()
            ticks = [each for each in axes.get_yticklabels() if low <= each.get_position()[1] <= high]
            texts = [axes.xaxis.label, axes._left_title, *axes.texts, *ticks]
            boxes += [
                (each.get_text(), each.get_window_extent(renderer)) for each in texts if each.get_text()
            ]
            if axes.get_legend() is not None:
                boxes.append(("legend", axes.get_legend().get_window_extent(renderer)))
    page = drawn.bbox
    cut_off = [text for text, box in boxes if not (page.contains(*box.min) and page.contains(*box.max))]
    pairs = [(one, other) for i, one in enumerate(boxes) for other in boxes[:i]]
    return cut_off + [f"{one[0]} / {other[0]}" for one, other in pairs if one[1].overlaps(other[1])]


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_written_over_anything(family: str) -> None:
    assert overlaps(picture(family).panels, picture(family).shaded) == []


def test_what_is_written_over_something_is_found() -> None:
    line = Line("a label that is as long as that of the title", CENTRES_S, CENTRES_S)
    panel = Panel("A title that is longer than anybody should write above a panel (requests/s)", [line])
    plain = Panel("Load", [line._replace(label="_")])
    assert overlaps((plain, panel), None)
    assert overlaps((plain,), Shaded("w" * 200, (STEP_S,)))


# --- the command ------------------------------------------------------------------------------------


def test_the_section_takes_the_place_of_an_older_one() -> None:
    shown = picture("admission")
    once = with_section("# Admission\n\nWhat it decides.\n", shown)
    assert once.startswith("# Admission\n\nWhat it decides.\n\n## On a ramp, a step and a burst\n\n![")
    picture_link, says = once.split("![")[1].split(f"]({NAME})\n\n")
    assert (picture_link, " ".join(says.split())) == (shown.alternative, shown.says)
    assert max(map(len, says.splitlines())) <= 112
    assert with_section(once, shown) == once
    assert with_section(once.replace(says, "Old.\n"), shown) == once


def test_the_command_writes_the_picture_and_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PICTURES, "queueing", lambda: picture("queueing"))  # type: ignore[misc]
    monkeypatch.setitem(PICTURES, "caching", lambda: picture("caching"))  # type: ignore[misc]
    (tmp_path / "queueing").mkdir()
    (tmp_path / "queueing" / "README.md").write_text("# Queues\n")
    assert main([str(tmp_path), "queueing", "caching"]) == 0
    assert (tmp_path / "queueing" / "README.md").read_text() == with_section(
        "# Queues\n", picture("queueing")
    )
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["README.md", NAME, NAME]
    assert "caching" in capsys.readouterr().out
    assert main([]) == main([str(tmp_path), "quueing"]) == 2
    assert "there is no picture of 'quueing'" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_shows_its_picture(family: str) -> None:
    folder = ROOT / "controllers" / family
    if not (folder / "README.md").exists():
        pytest.skip("this family has no README")
    remedy = f"run: python -m glowsim.pictures controllers {family}"
    assert f"]({NAME})" in (folder / "README.md").read_text(encoding="utf-8"), remedy
    assert (folder / NAME).stat().st_size < LARGEST_BYTES, remedy

"""The standard load against its own arithmetic, what the pictures claim, and that they can be read."""

from __future__ import annotations

import re
from functools import cache
from math import exp, log, sqrt
from pathlib import Path
from statistics import NormalDist
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glowsim import presets
from glowsim.pictures import load
from glowsim.pictures.__main__ import NAME, main, with_section
from glowsim.pictures.families import PICTURES
from glowsim.pictures.load import BURST_S, CENTRES_S, DURATION_S, RAMP_S, STEP_S, arrivals, during
from glowsim.pictures.panels import STYLE, Line, Panel, Shaded, figure, svg
from glowsim.pictures.picture import Facts, Picture, added_up, changes, so_far

ROOT = Path(__file__).resolve().parents[1]
LARGEST_BYTES = 120_000
FAMILIES = list(PICTURES)


@cache
def picture(family: str) -> Picture:
    return PICTURES[family]()


@cache
def drawn_of(family: str) -> str:
    return svg(picture(family).panels, picture(family).shaded)


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
    means = load.mean(t_s, values)
    assert means[[0, 1, 3]].tolist() == [3.0, 7.0, 9.0]
    assert np.isnan(means[2])
    medians = load.quantile(t_s, values, 0.5)
    assert medians[[0, 1, 3]].tolist() == [3.0, 7.0, 9.0]
    assert np.isnan(medians[2])


def test_counts_and_sums_grow_with_time() -> None:
    t_s, usd = np.array([17.0, 2.0, 16.0, DURATION_S + 40.0]), np.array([4.0, 1.0, 2.0, 8.0])
    count, total = so_far("n", t_s, 0), added_up("usd", t_s, usd, 0)
    assert (count.t_s.tolist(), count.values.tolist()) == ([0, 5, 20, DURATION_S], [0, 1, 3, 3])
    assert (total.t_s.tolist(), total.step) == (CENTRES_S.tolist(), "post")
    assert [*total.values[:3], total.values[-1]] == [1.0, 7.0, 7.0, 7.0]


def test_a_level_is_drawn_where_it_changes() -> None:
    line = changes("n", np.arange(6.0), np.array([2.0, 2.0, 3.0, 3.0, 1.0, 1.0]), 0)
    assert (line.t_s.tolist(), line.values.tolist()) == ([0, 2, 4, 5], [2, 3, 1, 1])


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


TIMES_BASE_S = 5100.0
"""Requests of the standard load for each a second of its base rate: the integral of its multiples."""


def test_a_guard_keeps_the_others_as_quick_as_if_alone() -> None:
    facts = picture("guards").facts
    prefill_s, median_s, sigma = 0.1 + 2000 * 60e-6, 150 * 4e-3, 0.6
    alone_s = prefill_s + median_s * exp(1.645 * sigma)
    for phase in ("step", "burst"):
        guarded, free = of(facts, phase)
        assert guarded == pytest.approx(alone_s, rel=0.15)
        assert free > 3 * guarded
    guarded, free = of(facts, "cost")
    ordinary_usd = 2000 * 1e-6 + 150 * exp(sigma**2 / 2) * 4e-6
    assert guarded == pytest.approx(1.8 * TIMES_BASE_S * ordinary_usd, rel=0.05)
    turned_away, failed = of(facts, "turned away")
    assert failed == 0
    assert turned_away == pytest.approx(0.4 * 4 * 120 + 0.1 * 10 * 60, rel=0.2)
    assert free - guarded == pytest.approx(turned_away * (0.15 + 4e-6 * 150 * exp(sigma**2 / 2)), rel=0.01)


def test_output_tokens_are_the_latency_and_input_tokens_the_bill() -> None:
    facts = picture("tokens").facts
    written, read, none = of(facts, "burst")
    assert written < none / 3
    assert written < read < none
    written, read, none = of(facts, "cost")
    assert read < 0.7 * none
    assert 0.9 * none < written < none
    above = NormalDist().cdf
    assert of(facts, "cut") == pytest.approx(
        [above(log(100 / 200) / 0.9), above(log(2900 / 2000) / 0.6)], abs=0.015
    )
    assert of(facts, "failed") == [0, 0, 0]


def test_a_cascade_sees_a_cheap_model_get_worse_and_a_share_by_kind_does_not() -> None:
    facts = picture("routing").facts
    quality = presets.read("quality", "routellm")["quality"]["models"]
    weak, strong = ([quality[name]["accuracy"][kind] for kind in ("mmlu", "gsm8k")] for name in quality)

    def mixed(mmlu: float, gsm8k: float) -> float:
        return (2 * mmlu + gsm8k) / 3

    mmlu = 0.25 * strong[0] + 0.75 * weak[0]  # half of all is all gsm8k, and a quarter of mmlu
    by_kind = mixed(mmlu, strong[1])
    alone, first, half, cheap = of(facts, "right before")
    assert [alone, half, cheap] == pytest.approx([mixed(*strong), by_kind, mixed(*weak)], abs=0.015)
    assert half < first < alone
    alone, first, half, worse = of(facts, "right step")
    assert worse == pytest.approx(0.7 * mixed(*weak), abs=0.02)
    assert worse < half < first < alone
    cheap_usd = 1000 * (900 * 0.5e-6 + 90 * exp(0.5**2 / 2) * 1.5e-6)
    for phase, escalated in zip(("before", "step"), of(facts, "escalated"), strict=True):
        wanted = [20 * cheap_usd, (1 + 20 * escalated) * cheap_usd, 10.5 * cheap_usd, cheap_usd]
        assert of(facts, f"cost {phase}") == pytest.approx(wanted, rel=0.03)
    assert facts["escalated", "step"] > facts["escalated", "before"] + 0.05
    assert facts["p95", "cheap first"] > facts["p95", "strong only"]
    assert of(facts, "failed") == [0, 0, 0, 0]


def test_a_canary_hurts_few_and_lets_the_harmless_through() -> None:
    facts = picture("rollout").facts
    assert of(facts, "share in the end") == [1.0, 0.0, 0.0]
    as_often, twice, five_times = of(facts, "turned at")
    assert as_often >= 5 + 4 * 5 > twice > five_times
    _, twice, five_times, at_once = of(facts, "failed")
    assert at_once == pytest.approx(0.10 * 4 * TIMES_BASE_S, rel=0.08)
    assert max(twice, five_times) < at_once / 50


def test_burn_rates_over_two_windows_are_quiet_where_a_plain_threshold_is_not() -> None:
    facts = picture("monitoring").facts
    critical, warning, plain = of(facts, "raised after")
    assert plain < warning < critical < STEP_S[1] - STEP_S[0]
    assert of(facts, "brown-out") == [1, 1, 1]
    assert of(facts, "hitch") == [0, 0, 1]
    critical_false, warning_false, plain_false = of(facts, "false")
    assert critical_false == warning_false == 0 < plain_false
    assert of(facts, "over after")[0] < 50, "the short window ends it"


def test_the_critical_alert_is_where_both_burn_rates_cross() -> None:
    long, short, at = picture("monitoring").panels[1].lines
    both = np.minimum(long.values, short.values)
    alerted_s = STEP_S[0] + picture("monitoring").facts["raised after", "critical"]
    first_s = long.t_s[np.argmax(both >= at.values[0])]
    assert abs(first_s - alerted_s) < 10.0, "the windows are up to one bucket of 4 s shorter than drawn"


def test_a_threshold_for_drift_trades_delay_for_false_alarms() -> None:
    facts = picture("drift").facts
    low, middle, high = of(facts, "before")
    assert low > 3
    assert middle == high == 0
    low, middle, high = of(facts, "told after")
    assert low < middle < high
    excess_s = 4.0 * 4 * (0.2 * 1.1 - 0.1)
    assert [middle, high] == pytest.approx([20 / excess_s, 80 / excess_s], rel=0.35)
    assert of(facts, "burst") == [1, 1, 1]


def test_drift_is_told_when_the_statistic_that_is_drawn_crosses_the_threshold() -> None:
    strayed, threshold = picture("drift").panels[2].lines
    over = strayed.values > threshold.values[0]
    told_s = STEP_S[0] + picture("drift").facts["told after", "threshold 20"]
    first = int(np.argmax(over))
    assert strayed.t_s[first] - 5.0 < told_s <= strayed.t_s[first]
    assert not over[first + 1], "it starts afresh"


# --- that they can be read --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_small_whole_and_the_same_again(family: str) -> None:
    drawn = drawn_of(family)
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
    made = {family: picture(family) for family in ("queueing", "caching")}  # before their makers are replaced
    for family, one in made.items():
        monkeypatch.setitem(PICTURES, family, lambda one=one: one)  # type: ignore[misc]
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
    shown = picture(family)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme == with_section(readme, shown), remedy
    committed = (folder / NAME).read_text(encoding="utf-8")
    assert len(committed.encode()) < LARGEST_BYTES, remedy
    assert written_in(committed) == written_in(drawn_of(family)), remedy


def written_in(drawn: str) -> list[str]:
    """Return the words and numbers of an SVG: they are equal under any version of matplotlib."""
    return [each.text or "" for each in ElementTree.fromstring(drawn).iter() if each.tag.endswith("text")]

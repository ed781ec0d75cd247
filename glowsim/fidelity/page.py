"""The campaign's page, in Markdown: what was fitted, what was foretold, what was measured, where it failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from glowsim.fidelity.worlds import ARMS, LOADS

__all__ = ["page"]

_TITLES: Final = {"llama": "llama.cpp's server", "transformers": "transformers serve, continuous batching"}
_FIGURES: Final = {
    "latency_s_p50": "latency p50", "latency_s_p95": "latency p95", "throughput_per_s": "throughput",
    "first_token_s_p50": "first token p50", "urgent_s_p95": "urgent: latency p95",
    "others_s_p95": "others: latency p95", "success": "share answered", "share_within": "share answered in time",
}  # fmt: skip
_SIGNS: Final = {1: "+", -1: "-", 0: "?"}
_SERVERS: Final = {
    "pair": "a small and a large model, llama.cpp", "one": "one small model, llama.cpp",
    "dead": "two small models, one killed", "hung": "two small models, one stopped (SIGSTOP)",
    "process": "processes that the gateway starts, llama.cpp", "batching": "transformers serve",
}  # fmt: skip


def page(parts: Mapping[str, Any]) -> str:
    """Return the page of a whole campaign.

    Parameters
    ----------
    parts
        As `glowsim.fidelity.campaign.campaign` returns them.
    """
    return "\n".join(_lines(parts)) + "\n"


def _lines(parts: Mapping[str, Any]) -> Iterator[str]:
    machine, judged, plan = parts["machine"], parts["judged"], parts["plan"]
    verdicts = Counter(each["verdict"] for each in judged["differences"])
    count = len(judged["differences"])
    yield "# Fidelity: predictions against real model servers"
    yield ""
    yield "Written by `python -m glowsim.fidelity`; do not edit. How: [fidelity-method.md](fidelity-method.md)."
    yield ""
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    yield (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"{packages}. Load average at the start: {machine['load_average']:.2f}. Begun {machine['begun_at']}."
    )
    yield ""
    inside = sum(each["inside"] for each in judged["loads"])
    yield (
        f"**In short.** {_errors(judged)}. {inside} of {len(judged['loads'])} measured means lie within their 95 % "
        f"prediction intervals. Of {count} policy differences the sign agrees in {verdicts['agree']}, is wrong in "
        f"{verdicts['WRONG']}, and {verdicts['undecided']} are undecided."
    )
    yield ""
    yield from _fitted(parts)
    sealed = parts["digest"]
    yield "## Held-out loads"
    yield ""
    begun = min(parts[f"loads-{server}"]["begun_at"] for server in LOADS)
    yield (
        f"Predictions were written at {sealed['written_at']} (SHA-256 `{sealed['sha256']}` of `predictions.json`); "
        f"measuring began at {begun}. Each load was sent for {plan['load_s']:g} s, {plan['load_replications']} times. "
        "In brackets: where the mean of so many replications should lie with 95 %. Error: predicted over measured, "
        "less 1."
    )
    for server, title in _TITLES.items():
        yield from ("", f"### {title}", "")
        yield from _table(
            ("load", "figure", "predicted", "measured", "error", "inside"),
            (
                (
                    each["load"], _FIGURES[each["figure"]], _interval(each["predicted"], each["figure"]),
                    _value(each["measured"], each["figure"]), f"{each['error']:+.1%}",
                    "yes" if each["inside"] else "**no**",
                )
                for each in judged["loads"] if each["server"] == server
            ),
        )  # fmt: skip
    yield from ("", "## Policy differences", "")
    yield (
        f"Each arm was sent for {plan['arm_s']:g} s, {plan['arm_replications']} times, the arms of a group in turn, "
        "every run through a fresh `glowsim serve`. The difference is the second policy less the first, over the same "
        "requests; in brackets the paired 95 % interval. `?`: the interval holds 0, so there is no sign."
    )
    for servers, title in _SERVERS.items():
        of_group = [each for each in judged["differences"] if ARMS[each["predicted"]["a"]].servers == servers]
        yield from ("", f"### {title[0].upper()}{title[1:]}", "")
        yield from _table(
            ("from", "to", "figure", "predicted", "measured", "signs", "verdict"), map(_row, of_group)
        )
    yield from ("", "## What went wrong", "")
    yield from _failures(judged)
    for server, title in _TITLES.items():
        shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in judged["drift"][server].items())
        yield (
            f"- {title}: the same calibrating loads, measured again at the end, p50 over that of the calibration: "
            f"{shown}. No prediction can be better than the machine is steady."
        )
    measured = [*(parts[f"loads-{server}"] for server in LOADS), *parts["groups"].values()]
    late_s, load = (max(each[name] for each in measured) for name in ("late_s", "load_average"))
    yield (
        f"- The machine's load average while measuring was at most {load:.1f}; servers, gateway and generator are part "
        f"of it. Of 100 requests of a run the one sent last but one was at most {late_s * 1e3:.0f} ms late, which is "
        "part of its latency."
    )


def _fitted(parts: Mapping[str, Any]) -> Iterator[str]:
    fit = parts["fitted"]
    found, law = fit["parameters"], fit["parameters"]["llama"]
    step, noise = found["step_s"], law["noise"]["x"]
    line = f"{law['base']}, {law['input']}, {law['output']}"
    yield from ("## What was fitted", "")
    calibrating = {
        server: ", ".join(load.name for load in loads if load.calibrates) for server, loads in LOADS.items()
    }
    rows = [
        ("llama.cpp: base, input, output", line, "least squares, requests alone, then one factor"),
        ("llama.cpp: that factor", f"{fit['factor']:g}", f"loads: {calibrating['llama']}"),
        ("llama.cpp: noise", f"quantiles, from {min(noise):.3g} to {max(noise):.3g}", "requests alone"),
        ("llama.cpp: mean time of a request, for the rates", _seconds(found["llama_s"]), "requests alone"),
        ("large model over small", f"{found['slow_factor']:.3g}", "requests alone"),
        ("start of a process", _seconds(found["startup_s"]), "one start"),
        ("transformers: outside the steps", _seconds(found["overhead_s"]), f"loads: {calibrating['transformers']}"),
        ("transformers: step, base", _seconds(step["base"]), "same"),
        ("transformers: step, each token of 4 bytes read", _seconds(step["prefill"]), "same"),
        ("transformers: step, each sequence", _seconds(step["sequence"]), "same"),
        ("transformers: capacity, for the rates", f"{found['transformers_per_s']:.3g}/s", "16 clients"),
    ]  # fmt: skip
    yield from _table(("parameter", "value", "from"), rows)
    yield ""
    yield (
        "Sum of squared logarithms of simulated over measured that the fit leaves on the calibrating loads: "
        + ", ".join(f"{server} {value:.3g}" for server, value in fit["left"].items())
        + "."
    )
    yield ""


def _errors(judged: Mapping[str, Any]) -> str:
    means = judged["mean_errors"]
    return "Mean absolute error over the held-out loads: " + ", ".join(
        f"{_FIGURES[name]} {value:.1%}" for name, value in means.items()
    )


def _failures(judged: Mapping[str, Any]) -> Iterator[str]:
    wrong = [each for each in judged["differences"] if each["verdict"] == "WRONG"]
    outside = [each for each in judged["loads"] if not each["inside"]]
    for each in wrong:
        foreseen = each["predicted"]
        yield f"- Wrong sign: {foreseen['a']} to {foreseen['b']}, {_FIGURES[foreseen['figure']]}."
    if outside:
        count = len(judged["loads"])
        yield f"- {len(outside)} of {count} means of held-out loads outside their intervals, in bold above."
    if not wrong and not outside:
        yield "- No sign was wrong and no mean was outside its interval."


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    foreseen, measured = each["predicted"], each["measured"]
    figure = foreseen["figure"]
    return (
        foreseen["a"], foreseen["b"], _FIGURES[figure], _interval(foreseen, figure, signed=True),
        _interval(measured, figure, signed=True), f"{_SIGNS[foreseen['sign']]} {_SIGNS[measured['sign']]}",
        each["verdict"],
    )  # fmt: skip


def _table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _interval(said: Mapping[str, Any], figure: str, *, signed: bool = False) -> str:
    if said["mean"] is None:
        return "none"
    mean, low, high = (_value(said[name], figure, signed=signed) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _value(value: float, figure: str, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if "_s_" in figure:
        return f"{value * 1e3:{sign}.0f} ms"
    if figure.endswith("_per_s"):
        return f"{value:{sign}.1f}/s"
    return f"{value:{sign}.1%}"


def _seconds(value: float) -> str:
    return (
        f"{value:.3g} s"
        if value >= 1.0
        else f"{value * 1e3:.3g} ms"
        if value >= 1e-3
        else f"{value * 1e6:.3g} us"
    )

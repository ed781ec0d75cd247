"""The loads and policies of the campaign, as scenarios: the same file is simulated and served.

Everything that depends on the machine is in `Fitted`; rates are shares of the capacity that the calibration found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from glowsim.fidelity.driving import URGENT
from glowsim.scenario import Scenario

__all__ = [
    "AGENT", "ARMS", "DIFFERENCES", "LOADS", "SIZES", "Arm", "Difference", "Fitted", "Load", "arm_scenario",
    "load_scenario", "mean_tokens", "probe_scenario", "timely_s",
]  # fmt: skip

AGENT: Final = "tiny"
SIZES: Final = ((12, 0.5), (32, 0.35), (80, 0.15))
"""(tokens of an answer, share of the requests)."""
_CLOSED_SIZE: Final = 32
_TOKENS_IN: Final = {"law": "uniform", "low": 8, "high": 56}
_FREE: Final = {"input": "$0/1M", "output": "$0/1M"}
_PATIENT_S: Final = 30.0
_LATER: Final = 5


class Fitted(NamedTuple):
    """What the calibration says of the machine."""

    llama: dict[str, Any]
    """Law of service of the small model on llama.cpp."""
    llama_s: float
    """Its mean time for a request of the mix, in seconds."""
    slow_factor: float
    """How much longer the large model takes."""
    startup_s: float
    """Until a process of llama.cpp's server is ready, in seconds."""
    overhead_s: float
    """What a request takes outside the steps of transformers' engine, in seconds."""
    step_s: dict[str, float]
    """Of transformers' engine: base, prefill and sequence, in seconds."""
    transformers_per_s: float
    """Requests of the mix a second that transformers serves when 16 are always open."""


class Load(NamedTuple):
    """One load on one server."""

    name: str
    share: float = 0.0
    """Rate as a share of the capacity; 0: a closed loop."""
    users: int = 0
    """Of the closed loop."""
    calibrates: bool = False


_LLAMA: Final = (
    Load("open 20 %", share=0.2, calibrates=True),
    Load("open 35 %", share=0.35),
    Load("open 50 %", share=0.5, calibrates=True),
    Load("open 65 %", share=0.65),
    Load("open 80 %", share=0.8, calibrates=True),
    Load("open 90 %", share=0.9),
    Load("closed, 4 clients", users=4, calibrates=True),
    Load("closed, 8 clients", users=8),
)
_TRANSFORMERS: Final = (
    Load("closed, 1 client", users=1, calibrates=True),
    Load("closed, 2 clients", users=2),
    Load("closed, 4 clients", users=4, calibrates=True),
    Load("closed, 8 clients", users=8),
    Load("closed, 16 clients", users=16, calibrates=True),
    Load("open 30 %", share=0.3),
    Load("open 50 %", share=0.5, calibrates=True),
    Load("open 75 %", share=0.75),
)
LOADS: Final = {"llama": _LLAMA, "transformers": _TRANSFORMERS}
"""Server -> its loads; every second one calibrates, and the others are predicted."""


class Arm(NamedTuple):
    """One set of policies on one set of servers, under one load."""

    servers: str
    """``pair`` (large and small), ``one``, ``twins``, ``dead`` and ``hung`` (twins of which one does not answer),
    ``process``, ``batching``."""
    share: float
    """Rate as a share of the capacity of one small model (``batching``: of transformers)."""
    controllers: Mapping[str, Any] = MappingProxyType({})
    agent: Mapping[str, Any] = MappingProxyType({})
    workload: str = "plain"
    """``plain``, ``urgent`` or ``repeats``."""


_BACKLOG: Final = {"queue": "instance", "slots": 64}
_RETRY: Final = {"use": "backoff", "attempts": 4, "base": "20ms", "budget_ratio": None}
_ROUND_ROBIN: Final = {"balancer": {"use": "round_robin"}}
_FASTEST: Final = {"balancer": {"use": "least_connections"}}
_TO_TWO: Final = {
    "scaler": {
        "use": "agent_scaler",
        "min_instances": 1,
        "max_instances": 2,
        "look": "200ms",
        "cooldown_up": "0s",
    }
}

ARMS: Final[Mapping[str, Arm]] = {
    "round robin": Arm("pair", 0.75, _ROUND_ROBIN, _BACKLOG),
    "least connections": Arm("pair", 0.75, _FASTEST, _BACKLOG),
    "power of two": Arm("pair", 0.75, {"balancer": {"use": "power_of_two"}}, _BACKLOG),
    "peak EWMA": Arm("pair", 0.75, {"balancer": {"use": "peak_ewma"}}, _BACKLOG),
    "weighted": Arm("pair", 0.75, {"balancer": {"use": "weighted", "weights": [1, 4]}}, _BACKLOG),
    "queue at the gateway": Arm("pair", 0.75, _ROUND_ROBIN),
    "plain": Arm("one", 0.8),
    "cap of 32 tokens": Arm("one", 0.8, {"planner": {"use": "cap", "max_tokens_out": 32}}),
    "repeats, no cache": Arm("one", 0.8, workload="repeats"),
    "repeats, cache": Arm("one", 0.8, {"cache": {"use": "lru"}}, workload="repeats"),
    "urgent, fifo": Arm("one", 0.95, {"queue": {"use": "fifo"}}, workload="urgent"),
    "urgent, priority": Arm("one", 0.95, {"queue": {"use": "priority", "ageing": None}}, workload="urgent"),
    "overload": Arm("one", 1.5),
    "overload, queue of 5": Arm("one", 1.5, {"queue": {"use": "fifo", "limit": 5}}),
    "overload, limit of rate": Arm(
        "one", 1.5, {"limiter": {"use": "token_bucket", "rate": "{rate}", "burst": 3}}
    ),
    "overload, timeout": Arm("one", 1.5, {}, {"timeout": "{timeout}"}),
    "overload, timeout, newest first": Arm(
        "one", 1.5, {"queue": {"use": "adaptive_lifo", "overload": "{patience}"}}, {"timeout": "{timeout}"}
    ),
    "dead, no retry": Arm("dead", 0.6, _ROUND_ROBIN),
    "dead, retry": Arm("dead", 0.6, _ROUND_ROBIN | {"retrier": _RETRY}),
    "hung, no breaker": Arm(
        "hung", 0.6, _ROUND_ROBIN | {"retrier": _RETRY}, {"idle_timeout": "{timeout}"}
    ),
    "hung, breaker": Arm(
        "hung", 0.6, _ROUND_ROBIN | {"retrier": _RETRY, "breaker": {"use": "consecutive", "failures": 1}},
        {"idle_timeout": "{timeout}"},
    ),
    "one instance": Arm("process", 1.4),
    "scaler to two": Arm("process", 1.4, _TO_TWO),
    "cap of 2": Arm("batching", 0.6, agent={"concurrency": 2, "slots": 2}),
    "cap of 6": Arm("batching", 0.6, agent={"concurrency": 6, "slots": 6}),
    "cap of 64": Arm("batching", 0.6),
}  # fmt: skip
"""Name -> arm; texts in braces are filled in from what was fitted."""


class Difference(NamedTuple):
    """``b`` less ``a``, in one figure."""

    a: str
    b: str
    figure: str


DIFFERENCES: Final = (
    Difference("round robin", "least connections", "latency_s_p95"),
    Difference("round robin", "power of two", "latency_s_p95"),
    Difference("round robin", "peak EWMA", "latency_s_p95"),
    Difference("round robin", "weighted", "latency_s_p95"),
    Difference("round robin", "queue at the gateway", "latency_s_p95"),
    Difference("least connections", "power of two", "latency_s_p50"),
    Difference("least connections", "peak EWMA", "latency_s_p50"),
    Difference("least connections", "queue at the gateway", "latency_s_p50"),
    Difference("plain", "cap of 32 tokens", "latency_s_p95"),
    Difference("repeats, no cache", "repeats, cache", "latency_s_p50"),
    Difference("urgent, fifo", "urgent, priority", "urgent_s_p95"),
    Difference("urgent, fifo", "urgent, priority", "others_s_p95"),
    Difference("overload", "overload, queue of 5", "latency_s_p95"),
    Difference("overload", "overload, queue of 5", "success"),
    Difference("overload", "overload, limit of rate", "share_within"),
    Difference("overload", "overload, timeout", "latency_s_p95"),
    Difference("overload, timeout", "overload, timeout, newest first", "share_within"),
    Difference("dead, no retry", "dead, retry", "success"),
    Difference("hung, no breaker", "hung, breaker", "latency_s_p95"),
    Difference("one instance", "scaler to two", "latency_s_p95"),
    Difference("cap of 2", "cap of 64", "latency_s_p95"),
    Difference("cap of 6", "cap of 64", "latency_s_p50"),
    Difference("cap of 6", "cap of 64", "first_token_s_p50"),
)


def mean_tokens() -> float:
    """Return the mean tokens of an answer of the mix."""
    return sum(tokens * share for tokens, share in SIZES)


def timely_s(fitted: Fitted) -> float:
    """Return within how many seconds an answer counts as timely: eight times a request's mean time alone."""
    return 8.0 * fitted.llama_s


def probe_scenario(server: str, tokens: int, users: int, duration_s: float) -> Scenario:
    """Return a closed loop without thinking time, before anything is fitted; its law of service means nothing.

    Parameters
    ----------
    server
        ``llama`` or ``transformers``.
    tokens
        Of each answer.
    users
        Who each wait for an answer and ask again at once.
    duration_s
        Of sending.
    """
    guess = {"law": "tokens", "base": "1ms", "input": "1us/token", "output": "1ms/token"}
    return _scenario(
        f"probe of {server}",
        _agent(guess, 64),
        [_closed(users, tokens, stream=server == "transformers")],
        duration_s,
    )


def load_scenario(server: str, load: Load, fitted: Fitted, duration_s: float) -> Scenario:
    """Return one of the loads on one server.

    Parameters
    ----------
    server
        ``llama`` or ``transformers``.
    load
        Which.
    fitted
        The parameters of the simulated world.
    duration_s
        Of sending.
    """
    stream = server == "transformers"
    per_s = fitted.transformers_per_s if stream else 1.0 / fitted.llama_s
    workload = (
        [_closed(load.users, _CLOSED_SIZE, stream)] if load.users else _plain(load.share * per_s, stream)
    )
    if stream:
        return _scenario(load.name, _batching(fitted), workload, duration_s, servers=_servers(fitted))
    return _scenario(load.name, _agent(fitted.llama, 1, **_BACKLOG), workload, duration_s)


def arm_scenario(name: str, fitted: Fitted, duration_s: float) -> Scenario:
    """Return one of `ARMS`.

    Parameters
    ----------
    name
        Which.
    fitted
        The parameters of the simulated world.
    duration_s
        Of sending.
    """
    arm = ARMS[name]
    batching = arm.servers == "batching"
    rate = arm.share * (fitted.transformers_per_s if batching else 1.0 / fitted.llama_s)
    patience_s = timely_s(fitted)
    words = {
        "{rate}": f"{0.8 / fitted.llama_s:.4g}/s",
        "{timeout}": f"{patience_s:.4g}s",
        "{patience}": f"{patience_s / 4:.4g}s",
    }
    workload = {"plain": _plain, "urgent": _urgent, "repeats": _repeats}[arm.workload](rate, batching)
    if batching:
        agent = _batching(fitted) | dict(arm.agent)
    else:
        instances = {"one": 1, "process": 1}.get(arm.servers, 2)
        agent = _agent(fitted.llama, 1, instances=instances, **_filled(arm.agent, words))
        if arm.servers == "process":
            agent["startup"] = f"{fitted.startup_s:.4g}s"
    faults: dict[str, dict[str, Any]] = {
        "pair": {"kind": "slow", "factor": round(fitted.slow_factor, 4)},
        "dead": {"kind": "refuse", "after": "1ms"},
        "hung": {"kind": "hang"},
    }
    always = {"agent": AGENT, "at": "0s", "lasts": f"{duration_s + _PATIENT_S:g}s", "instances": 1}
    return _scenario(
        name, agent, workload, duration_s, servers=_servers(fitted) if batching else {},
        faults=[always | faults[arm.servers]] if arm.servers in faults else [],
        controllers=_filled(arm.controllers, words),
    )  # fmt: skip


def _filled(said: Any, words: Mapping[str, str]) -> Any:
    match said:
        case Mapping():
            return {key: _filled(value, words) for key, value in said.items()}
        case str():
            return words.get(said, said)
        case _:
            return said


def _scenario(
    title: str, agent: dict[str, Any], workload: Sequence[dict[str, Any]], duration_s: float, **more: Any
) -> Scenario:
    servers = more.get("servers")
    return Scenario.model_validate(
        {
            "title": title, "question": "Does the simulated world answer as the real one does?", "seed": 20,
            "duration": f"{duration_s:g}s", "drain": f"{_PATIENT_S:g}s", "fleet": [agent], "workload": list(workload),
            "models": {AGENT: _FREE | ({"server": AGENT} if servers else {})}, **more,
        }
    )  # fmt: skip


def _agent(service: dict[str, Any], concurrency: int, **more: Any) -> dict[str, Any]:
    return {
        "agent": AGENT, "model": AGENT, "instances": 1, "concurrency": concurrency, "timeout": f"{_PATIENT_S:g}s",
        "cancellable": False, "service": service, **more,
    }  # fmt: skip


def _batching(fitted: Fitted) -> dict[str, Any]:
    outside = {"step": "tool", "name": "http", "time": f"{fitted.overhead_s:.6g}s", "tokens": 0}
    return _agent({"law": "steps", "steps": [outside, {"step": "answer"}]}, 64, cancellable=True)


def _servers(fitted: Fitted) -> dict[str, Any]:
    step = fitted.step_s
    times = {
        "base": f"{step['base']:.6g}s",
        "prefill": f"{step['prefill']:.6g}s/token",
        "sequence": f"{step['sequence']:.6g}s",
    }
    return {
        AGENT: {
            "engine": "batch", "step": times, "sequences": 256, "batched_tokens": 256, "cache_tokens": 100_000,
            "prefix_caching": False,
        }
    }  # fmt: skip


def _source(kind: str, tokens_out: int, stream: bool, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind, "agents": AGENT, "tokens_in": _TOKENS_IN, "tokens_out": tokens_out,
        "max_tokens_out": tokens_out, "stream": stream, **more,
    }  # fmt: skip


def _closed(users: int, tokens_out: int, stream: bool) -> dict[str, Any]:
    return _source("closed", tokens_out, stream, users=users, think="0s")


def _plain(rate_per_s: float, stream: bool, **more: Any) -> list[dict[str, Any]]:
    return [
        _source("poisson", size, stream, rate=f"{rate_per_s * share:.6g}/s", **more) for size, share in SIZES
    ]


def _urgent(rate_per_s: float, stream: bool) -> list[dict[str, Any]]:
    urgent = _plain(0.3 * rate_per_s, stream, priority=URGENT)
    return [*urgent, *_plain(0.7 * rate_per_s, stream, priority=_LATER)]


def _repeats(rate_per_s: float, stream: bool) -> list[dict[str, Any]]:
    return _plain(rate_per_s, stream, cacheable={"share": 0.6, "keys": 8})

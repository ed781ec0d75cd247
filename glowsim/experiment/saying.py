"""Commands and events of a journal in words, with the names of its header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glowsim.core.reasons import sentence
from glowsim.core.types import (
    Advance,
    Answer,
    Arrived,
    Ask,
    Cancel,
    Command,
    Dispatch,
    Event,
    Fail,
    Finished,
    Forget,
    InstanceChanged,
    Keep,
    Probe,
    Raise,
    Reject,
    Scale,
    Shadowed,
    Woke,
)

__all__ = ["said", "what_happened"]


def said(command: Command, header: Mapping[str, Any]) -> str:
    """Return what a command orders, and why.

    Parameters
    ----------
    command
        A command of a journal.
    header
        The journal's header: names by number.

    >>> from glowsim.core.reasons import Code, Reason
    >>> why = Reason(Code.LOAD_HIGH, a=0.93, b=0.8, c=12.0)
    >>> said(Scale(0, 0, 0, 12, (), why), {"agents": ["tax"]})
    'have 12 instances of tax: load 0.93 over 0.80; 12 wanted'
    """
    agents, models = header["agents"], header.get("models", ())
    match command:
        case Dispatch(attempt, request_id, instance, plan, reason):
            variant = f", variant {plan.variant}" if plan.variant else ""
            text = (
                f"send request {request_id} to instance {instance} as attempt {attempt} "
                f"({models[plan.model]}{variant}, at most {plan.max_tokens_out} tokens)"
            )
        case Cancel(attempt, reason):
            text = f"cancel attempt {attempt}"
        case Answer(request_id, source, reason):
            text = f"answer request {request_id} with what attempt {source} said"
        case Reject(request_id, retry_after_s, reason):
            again = f", to come again in {retry_after_s:.3g} s" if retry_after_s else ""
            text = f"turn request {request_id} away{again}"
        case Fail(request_id, outcome, reason):
            text = f"fail request {request_id} ({outcome.name.lower().replace('_', ' ')})"
        case Scale(agent, _, _, want, victims, reason):
            leave = f", of which {', '.join(map(str, victims))} leave" if victims else ""
            text = f"have {want} instance{'' if want == 1 else 's'} of {agents[agent]}{leave}"
        case Advance(agent, stage, weight, reason):
            text = f"move the rollout of {agents[agent]} to stage {stage}, {100 * weight:.3g} % of its units"
        case Raise(alert):
            text, reason = f"raise an alert on {alert.subject} of {agents[alert.agent]}", alert.reason
        case Probe(agent):
            return f"probe the instances of {agents[agent]}"
        case Ask(ask_id, kind, _, amount):
            return f"ask for {amount:.4g} of {kind} (question {ask_id})"
        case Keep(source):
            return f"keep what attempt {source} said"
        case Forget(source):
            return f"forget what attempt {source} said"
        case Shadowed(agent, family, live, candidate):
            return f"note that the {family} of {agents[agent]} said {live:.4g} and its shadow {candidate:.4g}"
    return f"{text}: {sentence(reason)}"


def what_happened(event: Event | None, header: Mapping[str, Any]) -> str:
    """Return what an event tells; None is a timer.

    >>> from glowsim.core.types import Request
    >>> what_happened(Arrived(1.0, Request(7, 0, 900, 100)), {"agents": ["tax"]})
    'request 7 arrived for tax'
    """
    match event:
        case None | Woke():
            return "a timer was due"
        case Arrived(_, request):
            return f"request {request.request_id} arrived for {header['agents'][request.agent]}"
        case Finished(_, attempt, outcome):
            return f"attempt {attempt} ended ({outcome.name.lower().replace('_', ' ')})"
        case InstanceChanged(_, agent, instance, state):
            return f"instance {instance} of {header['agents'][agent]} is {state.name.lower()}"
        case _:
            rest = ", ".join(f"{name} {value}" for name, value in event._asdict().items() if name != "t_s")
            return type(event).__name__.lower() + (f" ({rest})" if rest else "")

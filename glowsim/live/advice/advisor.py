"""Tells a control plane beside the traffic what a log and load reports say, in the order in which it happened.

A row is written when its request is over, so what is read now has begun a while ago. Everything waits, by its own
time, until nothing earlier is to be expected: the advisor lives ``lag_s`` behind the log. Its time goes on by the log's
own times while there is something to read, and by the clock when everything has been read.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import inf, isnan, nan
from typing import Any, Final, TypeAlias

from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import Journal, Recording, gone_on_with
from glowsim.core.types import (
    Abandoned,
    Arrived,
    Command,
    Dispatch,
    Event,
    Finished,
    InstanceChanged,
    Outcome,
    Reported,
    Request,
    Signal,
    State,
    Usage,
    Woke,
)
from glowsim.live.advice.fleet import Instances
from glowsim.live.advice.rows import Call

__all__ = ["Advisor", "after_instances"]

_MOST_WAITING: Final = 1_000_000
"""Calls and ends that wait for their time, some 400 bytes each."""
_AHEAD_S: Final = 300.0
"""How far a row's end may lie in the future: clocks differ."""
_SILENT_S: Final = 30.0
"""After so long without a report an instance that used to report is gone."""
_Key: TypeAlias = tuple[int, float, int, int]
"""What tells a row from others: its agent, when it began, its tokens in and out."""


class Advisor:
    """The driver of an advised control plane (`glowsim.core.advice`): events in, advice out, nothing carried out.

    Parameters
    ----------
    plane
        The control plane.
    journal
        Where everything is written down.
    instances
        Who is there; the stand-in of each agent is made ready by `begin`.
    regions
        The number of each agent's region.
    lag_s
        How much earlier than the newest a row may have begun without being late, 0 or more.
    hash_of
        Returns the keyed hash of a (kind, name).
    watch
        Is told every event and the commands that answered it.
    beside
        Returns what else the head of a segment shall hold, as plain JSON data.
    """

    def __init__(
        self, plane: ControlPlane, journal: Journal, instances: Instances, *, regions: Sequence[int], lag_s: float,
        hash_of: Callable[[str, str], int], watch: Callable[[Event, Sequence[Command]], None],
        beside: Callable[[], dict[str, Any]] = dict,
    ) -> None:  # fmt: skip
        self._plane = plane
        self._journal = journal
        self._instances = instances
        self._regions = regions
        self._lag_s = lag_s
        self._hash_of = hash_of
        self._watch = watch
        self._beside = beside
        self._waiting: list[tuple[float, int, int, Reported | Call | int]] = []
        """(when, order at that moment, number, what) of what is to be told: an event, a call that begins, its end."""
        self._told = 0
        self._open: dict[int, tuple[int, int, Call]] = {}
        """Request -> its attempt, its agent, and the call."""
        self._orphans: dict[_Key, list[tuple[int, int]]] = {}
        """Requests that were open when an earlier advisor ended: (request, attempt) of each. The log holds their rows,
        unless it was rotated away."""
        self._last_request = 0
        self._heard: dict[int, float] = {}
        """Instance that reports -> since when it is silent, nan if it is not."""
        self._agent_of: dict[int, int] = {}
        self.now_s = -inf
        """The plane's time: everything up to here has been told."""
        self.newest_s = -inf
        """The latest end of a row."""
        self.recovered_s = -inf
        """Where the journal of an earlier advisor ends: rows from before it were told by that one."""
        self.counts: Counter[str] = Counter()
        """``told``, ``late``, ``too_late``, ``ahead``, ``before`` -> calls; ``dropped_reports`` -> reports."""

    # --- what is heard --------------------------------------------------------------------------------

    def call(self, agent: int, call: Call, epoch_unix_s: float, clock_s: float) -> None:
        """Take in a request that is over.

        Parameters
        ----------
        agent
            Its number.
        call
            What the log says.
        epoch_unix_s
            When the journal's time begins, in seconds since 1970.
        clock_s
            What time it is, in the journal's time.
        """
        begun_s, ended_s = call.begun_s - epoch_unix_s, call.ended_s - epoch_unix_s
        if begun_s <= self.recovered_s:
            self._before(agent, begun_s, call._replace(begun_s=begun_s, ended_s=ended_s))
            return
        if ended_s > clock_s + _AHEAD_S:
            self.counts["ahead"] += 1  # believing one such row would make all others late
            return
        if ended_s < self.now_s - max(self._lag_s, 60.0):
            self.counts["too_late"] += 1
            return
        if begun_s < self.now_s:  # as long as it was, and as much work, but later than it was
            self.counts["late"] += 1
            begun_s, ended_s = self.now_s, self.now_s + (ended_s - begun_s)
        self.newest_s = max(self.newest_s, ended_s)
        self.counts["told"] += 1
        self._wait(begun_s, agent, call._replace(begun_s=begun_s, ended_s=ended_s))

    def _before(self, agent: int, begun_s: float, call: Call) -> None:
        """Take in a call that an earlier advisor told the beginning of: if it was open, its end is told."""
        self.counts["before"] += 1
        orphans = self._orphans.get((agent, begun_s, call.tokens_in, call.tokens_out))
        if orphans:
            request_id, attempt = orphans.pop()
            self._open[request_id] = (attempt, agent, call)
            self._wait(max(call.ended_s, self.now_s), agent, request_id)

    def report(self, reported: Reported) -> None:
        """Take in a load report."""
        if reported.t_s < self.now_s:
            self.counts["dropped_reports"] += 1
            return
        self._wait(reported.t_s, reported.agent, reported)

    def _wait(self, t_s: float, number: int, what: Reported | Call | int) -> None:
        self._told += 1
        # An end comes before what begins at the same moment.
        order = (0 if type(what) is int else 1) << 60 | self._told
        heapq.heappush(self._waiting, (t_s, order, number, what))

    # --- time -----------------------------------------------------------------------------------------

    def go_on(self, clock_s: float, *, all_read: bool) -> None:
        """Tell what is due, and that time has passed.

        Parameters
        ----------
        clock_s
            What time it is, in the journal's time.
        all_read
            Whether the log holds nothing that was not read: then time goes by the clock.
        """
        if all_read and self._orphans:
            self._let_go()
        until_s = (max(self.newest_s, clock_s) if all_read else self.newest_s) - self._lag_s
        while len(self._waiting) > _MOST_WAITING:  # then rows that come later are late
            self.until(max(self._waiting[0][0], self.now_s))
        if until_s > self.now_s:
            self.until(until_s)

    def until(self, t_s: float) -> None:
        """Tell everything up to a moment, not before the last one."""
        while self._waiting and self._waiting[0][0] <= t_s:
            at_s, _, number, what = heapq.heappop(self._waiting)
            if isinstance(what, Call):
                self._begin(at_s, number, what)
            elif isinstance(what, int):
                self._end(at_s, what)
            else:
                self._reported(what)
        if self._plane.next_wake_s() <= t_s:
            self._take(Woke(t_s))
        self.now_s = t_s
        for number, since_s in self._heard.items():
            if since_s <= t_s - _SILENT_S:
                self._heard[number] = inf
                self._take(
                    InstanceChanged(
                        t_s, self._agent_of[number], number, State.GONE, self._regions[self._agent_of[number]]
                    )
                )

    # --- what is told ---------------------------------------------------------------------------------

    def begin(self, t_s: float) -> None:
        """Have the stand-ins and all known instances take part from now on."""
        self.now_s = t_s
        for agent in range(len(self._regions)):
            self._ready(t_s, agent, agent)
        for agent, number in self._instances.all():
            self._ready(t_s, agent, number)

    def _ready(self, t_s: float, agent: int, number: int) -> None:
        self._agent_of[number] = agent
        self._take(InstanceChanged(t_s, agent, number, State.READY, self._regions[agent]))

    def _begin(self, t_s: float, agent: int, call: Call) -> None:
        self._last_request = request_id = self._last_request + 1
        number, new = self._instances.find(agent, call.instance)
        if new and number is not None:
            self._ready(t_s, agent, number)
        there = number is not None and number in self._plane.pools[agent].instances
        request = Request(
            request_id, agent, call.tokens_in, call.tokens_out, region=self._regions[agent],
            stream=call.first_token_s is not None,
            session=self._hash("session", call.session), user=self._hash("user", call.user),
            tenant=self._hash("tenant", call.tenant), payload=number + 1 if there and number is not None else 0,
        )  # fmt: skip
        for command in self._take(Arrived(t_s, request)):
            if type(command) is Dispatch:
                self._open[request_id] = (command.attempt, agent, call)
        self._wait(call.ended_s, agent, request_id)

    def _hash(self, kind: str, name: str | None) -> int:
        return 0 if name is None else self._hash_of(kind, name)

    def _end(self, t_s: float, request_id: int) -> None:
        attempt, _, call = self._open.pop(request_id)
        first_s = nan if call.first_token_s is None else call.first_token_s
        usage = Usage(call.tokens_in, call.tokens_cached, call.tokens_out, first_s)
        if call.outcome == Outcome.CANCELLED:
            self._take(Abandoned(t_s, request_id))
        self._take(Finished(t_s, attempt, call.outcome, usage))

    def _reported(self, reported: Reported) -> None:
        number, t_s = reported.instance, reported.t_s
        if reported.signal == Signal.RUNNING:
            silent = isnan(reported.value)
            if not silent:
                if self._heard.get(number) == inf:
                    self._ready(t_s, reported.agent, number)
                self._heard[number] = nan
            elif number in self._heard and isnan(self._heard[number]):
                self._heard[number] = t_s
        self._take(reported)

    def _take(self, event: Event) -> Sequence[Command]:
        self._journal.event(event)
        commands = self._plane.handle(event)
        for command in commands:
            self._journal.command(command)
        self._watch(event, commands)
        return commands

    # --- going on -------------------------------------------------------------------------------------

    def recover(self, recording: Recording) -> None:
        """Go on where a journal ends; call it before `begin`.

        Its events are replayed, and a segment is begun with the state that they lead to. Requests that were open end
        as their rows say when the log is read again, or are taken as abandoned when they are not in it any more; its
        instances make room for those that are there now (`forget_instances`).

        Parameters
        ----------
        recording
            The whole journal, or its last segment.

        Raises
        ------
        JournalError
            The control plane decides otherwise than the journal says: another scenario, another version.
        """
        last_s = gone_on_with(recording, self._plane, fresh_s=-inf)
        world = recording.header.get("world", {})
        arrived = recording.table(Arrived)
        self._last_request = int(arrived["request_id"].max(initial=world.get("last_request", 0)))
        self.now_s = self.recovered_s = last_s
        self._adopt(world.get("open", ()), arrived, recording.table(Dispatch))
        self._journal.begin(self._head(last_s, recording.commands))

    def _adopt(self, known: Iterable[list[Any]], arrived: Any, dispatched: Any) -> None:
        """Remember the requests that are open in the control plane by what their rows will say."""
        attempts = {row[0]: row[1] for row in known} | dict(
            zip(dispatched["request_id"].tolist(), dispatched["attempt"].tolist(), strict=True)
        )
        keys: dict[int, _Key] = {row[0]: (row[2], row[3], row[4], row[5]) for row in known}
        columns = [
            arrived[name].tolist() for name in ("request_id", "agent", "t_s", "tokens_in", "max_tokens_out")
        ]
        keys |= {request_id: tuple(key) for request_id, *key in zip(*columns, strict=True)}
        for request_id in self._plane.under_way().requests:
            self._orphans.setdefault(keys[request_id], []).append((request_id, attempts[request_id]))

    def _let_go(self) -> None:
        """Take requests whose row did not come again as abandoned."""
        for several in self._orphans.values():
            for request_id, attempt in several:
                self._take(Abandoned(self.now_s, request_id))
                self._take(Finished(self.now_s, attempt, Outcome.CANCELLED, Usage()))
        self._orphans.clear()

    def _head(self, t_s: float, commands: int) -> dict[str, Any]:
        """Return what a segment begins with: all that going on needs of what was before."""
        open_now = [
            [request_id, attempt, agent, call.begun_s, call.tokens_in, call.tokens_out]
            for request_id, (attempt, agent, call) in self._open.items()
        ]
        open_now += [[*each, *key] for key, several in self._orphans.items() for each in several]
        return {
            "t_s": t_s,
            "commands": commands,
            "world": {
                "last_request": self._last_request, "next_instance": self._instances.next, "open": open_now,
            },
            "state": self._plane.snapshot(),
            **self._beside(),
        }  # fmt: skip

    def flush(self) -> None:
        """Write down what has happened so far, so that it outlives this process."""
        journal = self._journal
        journal.settle(self.now_s)
        journal.flush()
        if journal.full:
            journal.begin(self._head(self.now_s, journal.commands))

    def forget_instances(self) -> None:
        """Let go of the instances of an earlier advisor, once those that are there now have taken their place."""
        known = {number for _, number in self._instances.all()}
        for agent, pool in enumerate(self._plane.pools):
            for number in [each for each in pool.instances if each != agent and each not in known]:
                self._take(InstanceChanged(self.now_s, agent, number, State.GONE, self._regions[agent]))


def after_instances(recording: Recording) -> int:
    """Return the first number of an instance that a journal has not used."""
    before = recording.header.get("world", {}).get("next_instance", 0)
    return int(recording.table(InstanceChanged)["instance"].max(initial=before - 1)) + 1

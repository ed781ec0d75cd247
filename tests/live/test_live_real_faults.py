"""Faults of real servers in processes of their own, seen through a real gateway.

Whatever an instance does, every request ends within its time, in its protocol's shape or with its own good answer, is
counted once, and leaves nothing behind: no slot, no task, no socket, no process.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from glowsim import build
from glowsim.core.checker import ledger
from glowsim.core.journal import first_difference, read
from glowsim.core.streams import Streams
from glowsim.core.types import Abandoned, Answer, Arrived, Dispatch, Fail, Finished, Outcome, Reject
from glowsim.fuzz.journals import check_journals
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

PROGRAM = Path(__file__).with_name("faulty.py")
BUSY_S = 30.0
"""What a busy machine may add to a time limit."""
PROTOCOLS = ("chat", "messages", "task")


# --- the stage ------------------------------------------------------------------------------------------


class Server:
    """A faulty server in a process of its own."""

    def __init__(self, fault="good", port=0):
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), str(port), fault], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def send(self, number):
        self.process.send_signal(number)


@contextmanager
def servers(count=1):
    each = [Server() for _ in range(count)]
    try:
        yield each
    finally:
        for one in each:
            one.kill()


def fleet(agents, **more):
    """Return a scenario's text: agent -> its fields, of which ``live`` says where it is."""
    usual = {"model": "m", "concurrency": 4, "service": {"law": "time", "time": "1ms"}, "timeout": "60s"}
    listed, places = [], {}
    for name, fields in agents.items():
        fields = dict(fields)
        places[name] = {"adapter": "openai_http", **fields.pop("live")}
        listed.append({"agent": name, "instances": len(places[name].get("urls", "1")), **usual, **fields})
    said = {
        "title": "Faults", "question": "Does every request end well?", "seed": 1, "duration": "10s",
        "models": {"m": {"input": "$1/1M", "output": "$2/1M"}}, "fleet": listed, "live": {"agents": places},
        "workload": [{"kind": "poisson", "rate": "1/s", "agents": "all", "tokens_in": 10, "tokens_out": 5}],
    }  # fmt: skip
    return json.dumps(said | more, indent=1)


class Said(NamedTuple):
    """What a client got."""

    status: int
    text: str
    complete: bool
    error: dict | None
    took_s: float


class Worker(NamedTuple):
    """A faulty server that somebody else started."""

    url: str


class Stage:
    """A gateway, its clients, and their count."""

    def __init__(self, daemon, session, admin):
        self.daemon = daemon
        self.session = session
        self.admin = admin
        self.ends = Counter()
        """(Agent, good or not) -> how many."""
        self.attempted = []
        """The instance of every dispatch, in order."""
        watch = daemon.driver._watch

        def hear(event, commands):
            watch(event, commands)
            self.attempted += [each.instance for each in commands if isinstance(each, Dispatch)]

        daemon.driver._watch = hear

    async def ask(self, agent, protocol="chat", text="What is due?", *, stream=False):
        """Ask and return what was said, which has the protocol's shape whatever happened."""
        loop = asyncio.get_running_loop()
        path, body = asked(agent, protocol, text, stream)
        begun_s = loop.time()
        async with self.session.post(path, json=body) as response:
            raw = await response.text()
        took_s = loop.time() - begun_s
        if response.content_type == "text/event-stream":
            said = Said(response.status, *streamed(protocol, raw), took_s)
        elif response.status == 200:
            said = Said(200, whole_text(protocol, json.loads(raw)), True, None, took_s)
        else:
            said = Said(response.status, "", False, shape_of(protocol, json.loads(raw)), took_s)
        self.ends[agent, said.complete] += 1
        return said

    def running(self):
        """Return the attempts under way."""
        return list(self.daemon.driver._running.values())

    async def settled(self):
        """Return when no attempt runs any more; no slot is held then."""
        driver = self.daemon.driver
        while driver._running:
            await asyncio.wait([each.task for each in driver._running.values()], timeout=BUSY_S)
        assert not driver._tickets
        assert not [each for each in driver._instances.values() if each.in_flight]

    async def figures(self):
        """Return every sample of the metrics."""
        async with self.admin.get("/metrics") as response:
            text = await response.text()
        return {
            name: float(value)
            for name, _, value in (
                line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")
            )
        }


def asked(agent, protocol, text, stream):
    """Return path and body of a question."""
    if protocol == "task":
        return f"/v1/agents/{agent}/tasks", {
            "input": [{"role": "user", "content": text}], "max_tokens_out": 50, "stream": stream,
        }  # fmt: skip
    path = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}[protocol]
    messages = [{"role": "user", "content": text}]
    return path, {"model": agent, "messages": messages, "max_tokens": 50, "stream": stream}


def whole_text(protocol, said):
    match said:
        case {"choices": [{"message": {"content": text}}]} if protocol == "chat":
            return text
        case {"content": [{"type": "text", "text": text}], "type": "message"} if protocol == "messages":
            return text
        case {"output": text, "answered": "own"} if protocol == "task":
            return text
    raise AssertionError(f"no answer of {protocol}: {said}")


def shape_of(protocol, said):
    """Return the error of a body, which has the protocol's shape."""
    match said:
        case {"error": {"message": str(), "type": str(), "param": _, "code": _}} if protocol == "chat":
            return said["error"]
        case {"type": "error", "error": {"type": str(), "message": str()}} if protocol == "messages":
            return said["error"]
        case {"error": {"code": _, "message": str()}} if protocol == "task":
            return said["error"]
    raise AssertionError(f"no error of {protocol}: {said}")


def streamed(protocol, raw):
    """Return text, whether it is complete, and the error of a stream."""
    text, complete, error = "", False, None
    for event in raw.split("\n\n")[:-1]:
        assert not complete, f"something after the end: {event}"
        assert error is None, f"something after the error: {event}"
        data = event.partition("data: ")[2]
        if data == "[DONE]":
            complete = True
            continue
        match json.loads(data):
            case {"error": _} as said:
                error = shape_of(protocol, said)
            case {"choices": [{"delta": {"content": str(piece)}}]} | {"delta": {"text": str(piece)}}:
                text += piece
            case {"delta": str(piece)}:
                text += piece
            case {"done": True} | {"type": "message_stop"}:
                complete = True
    assert raw.endswith("\n\n")
    assert complete == (error is None), raw[-500:]
    return text, complete, error


def sockets():
    """Return the sockets that this process has open, where the system shows them."""
    found = set()
    for each in Path("/proc/self/fd").glob("*"):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(each.readlink()))
    return {each for each in found if each.startswith("socket:")}


@asynccontextmanager
async def gateway(text, path):
    """Put a gateway in front of a fleet; at the end the books must be in order, and nothing may be left."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    scenario = load(text)
    chosen = settings(environment={}, journal_path=path, port=0, admin_port=0, grace_s=4.0)
    before, tasks = sockets(), asyncio.all_tasks()
    # A clock that is put forward ends idle connections, so clients keep none.
    connectors = [aiohttp.TCPConnector(limit=0, force_close=True) for _ in range(2)]
    patient = aiohttp.ClientTimeout(None)
    async with (
        serving(scenario, chosen) as daemon,
        aiohttp.ClientSession(daemon.address, connector=connectors[0], timeout=patient) as session,
        aiohttp.ClientSession(daemon.admin_address, connector=connectors[1], timeout=patient) as admin,
    ):
        stage = Stage(daemon, session, admin)
        yield stage
        await stage.settled()
        figures = await stage.figures()
    for _ in range(5):
        await asyncio.sleep(0)  # what was closed says so
    assert not [task for task in asyncio.all_tasks() - tasks if not task.done()]
    assert not sockets() - before
    check_books(scenario, path, stage.ends, figures)


def check_books(scenario, path, ends, figures):
    """Every request is counted once, and alike, by clients, journal, metrics and ledger."""
    recording = read(path)
    fresh = build.control_plane(scenario, Streams(scenario.seed), fall_back=True)
    assert first_difference(recording, fresh) is None
    (checked,) = check_journals(path, scenario)
    assert checked.violations == []
    records = list(recording.records())
    names = list(scenario.agents())
    agent_of = {
        each.request.request_id: names[each.request.agent] for each in records if isinstance(each, Arrived)
    }
    closing = Counter(
        each.request_id for each in records if isinstance(each, Answer | Fail | Reject | Abandoned)
    )
    assert closing == dict.fromkeys(agent_of, 1)
    good = Counter(
        (agent_of[each.request_id], isinstance(each, Answer))
        for each in records
        if isinstance(each, Answer | Fail | Reject | Abandoned)
    )
    assert good == ends
    attempts = [each.attempt for each in records if isinstance(each, Dispatch)]
    finished = Counter(each.attempt for each in records if isinstance(each, Finished))
    assert finished == dict.fromkeys(attempts, 1)
    billed = {}
    for number, name in enumerate(names):
        of_agent = [value for key, value in figures.items() if f'agent="{name}"' in key]
        assert of_agent
        counted = sum(
            value
            for key, value in figures.items()
            if key.startswith("glowsim_requests_total") and f'agent="{name}"' in key
        )
        assert counted == ends[name, True] + ends[name, False], name
        for gauge in ("glowsim_inflight_requests", "glowsim_open_requests", "glowsim_queue_depth"):
            assert [
                v for key, v in figures.items() if key.startswith(gauge) and f'agent="{name}"' in key
            ] == [0.0]
        (billed[number],) = (
            value
            for key, value in figures.items()
            if key.startswith("glowsim_cost_usd_total")
            and f'agent="{name}"' in key
            and 'part="tokens"' in key
        )
    prices = {number: each.price for number, each in enumerate(scenario.models.values())}
    assert ledger(recording, prices, billed) == []


def outcomes(path, agent=0):
    """Return how the attempts of an agent ended, in order."""
    records = list(read(path).records())
    mine = {
        each.request.request_id
        for each in records
        if isinstance(each, Arrived) and each.request.agent == agent
    }
    attempts = {each.attempt for each in records if isinstance(each, Dispatch) and each.request_id in mine}
    return [each.outcome for each in records if isinstance(each, Finished) and each.attempt in attempts]


async def until(holds):
    while not holds():
        await asyncio.sleep(0.001)


@pytest.fixture
def play(live, monkeypatch):
    """Return what runs a coroutine function with a clock that ``wind`` puts forward, for the daemon and all it does."""

    def run(main):
        from glowsim.live import daemon

        with asyncio.Runner(loop_factory=live.WoundLoop) as runner:
            loop = runner.get_loop()
            monkeypatch.setattr(daemon, "time", SimpleNamespace(perf_counter=loop.time, time=time.time))
            runner.run(asyncio.wait_for(main(), 1e6 + 10.0 * BUSY_S))

    return run


def wind(seconds):
    asyncio.get_running_loop().ahead_s += seconds


@pytest.fixture
def path(tmp_path):
    return tmp_path / "faults.journal"


# --- broken answers -------------------------------------------------------------------------------------

OK, ERROR, UNREACHABLE, INVALID = Outcome.OK, Outcome.ERROR, Outcome.UNREACHABLE, Outcome.INVALID
BROKEN = {
    # fault: (how a plain attempt ends, how a stream's ends)
    "rst": (UNREACHABLE, UNREACHABLE),
    "no_byte": (UNREACHABLE, UNREACHABLE),
    "half_status": (UNREACHABLE, UNREACHABLE),
    "half_closed": (UNREACHABLE, UNREACHABLE),
    "closes_in_body": (UNREACHABLE, UNREACHABLE),
    "rst_in_body": (UNREACHABLE, UNREACHABLE),
    "no_done": (ERROR, UNREACHABLE),
    "no_http": (ERROR, ERROR),
    "bad_chunks": (ERROR, ERROR),
    "bad_chunks_late": (ERROR, ERROR),
    "two_lengths": (ERROR, ERROR),
    "truncated_json": (ERROR, ERROR),
    "html": (ERROR, ERROR),
    "wrong_shape": (ERROR, ERROR),
    "long_header": (ERROR, ERROR),
    "many_headers": (ERROR, ERROR),
    "no_gzip": (UNREACHABLE, UNREACHABLE),
    "switches": (ERROR, ERROR),
    "no_content": (ERROR, ERROR),
    "status_500": (ERROR, ERROR),
    "status_503_html": (ERROR, ERROR),
    "redirects": (ERROR, ERROR),
    "invalid_dripped": (INVALID, INVALID),
    "every_byte": (OK, OK),
    "every_byte_framed": (OK, OK),
    "half_characters": (OK, OK),
    "good": (OK, OK),
}
IN_MID_STREAM = {"closes_in_body", "rst_in_body", "no_done"}
"""Those that say some of a stream's answer first, which commits it."""
AGAIN = {"use": "backoff", "attempts": 4, "base": "1ms", "longest": "1ms", "budget_ratio": None}


def name_of(fault):
    return fault.replace("_", "-")


async def ask_all(stage, agents):
    """Ask every agent in every way; return ((agent, protocol, stream), said), in this order."""
    ways = [(name, protocol, stream) for name in agents for protocol in PROTOCOLS for stream in (False, True)]
    said = await asyncio.gather(
        *(stage.ask(name, protocol, f"To {name}?", stream=stream) for name, protocol, stream in ways)
    )
    return list(zip(ways, said, strict=True))


def test_whatever_an_instance_answers_its_client_gets_an_answer_or_an_error_in_shape(path):
    async def main():
        with servers() as (server,):
            agents = {
                name_of(fault): {"live": {"urls": [f"{server.url}/{fault}"]}, "concurrency": 8}
                for fault in BROKEN
            }
            async with gateway(fleet(agents), path) as stage:
                return await ask_all(stage, agents)

    for (name, protocol, stream), said in asyncio.run(main()):
        fault = name.replace("-", "_")
        outcome = BROKEN[fault][stream]
        about = (fault, protocol, stream, said)
        assert said.complete == (outcome == OK), about
        if outcome == OK:
            assert re.sub("[\ud83d\ude00]", "", said.text) == f"To {name}?", about
        elif stream and fault in IN_MID_STREAM:
            assert (said.status, f"To {name}?".startswith(said.text)) == (200, True), about
            assert "the stream broke after its first token" in said.error["message"], about
        else:
            refused = 422 if protocol == "task" else 400
            assert said.status == (refused if outcome == INVALID else 502), about
        if outcome == INVALID:
            assert said.error["message"].endswith("too long for me"), about
    for number, (fault, ends) in enumerate(BROKEN.items()):
        if fault == "wrong_shape":
            assert set(outcomes(path, number)) <= {ERROR, UNREACHABLE}, "in a stream, none of it may be wrong"
            continue
        assert Counter(outcomes(path, number)) == Counter([ends[0]] * 3 + [ends[1]] * 3), fault


def test_what_can_be_tried_elsewhere_is_and_the_client_sees_only_the_good_answer(path):
    async def main():
        with servers(2) as (bad, well):
            agents = {
                name_of(fault): {
                    "live": {"urls": [f"{bad.url}/{fault}", well.url]}, "concurrency": 8,
                    "controllers": {"retrier": AGAIN},
                }
                for fault, ends in BROKEN.items()
                if INVALID not in ends
            }  # fmt: skip
            async with gateway(fleet(agents), path) as stage:
                return await ask_all(stage, agents)

    for (name, protocol, stream), said in asyncio.run(main()):
        fault = name.replace("-", "_")
        if stream and fault in IN_MID_STREAM:
            continue  # as told by the test above; which of the two was asked first is chance
        assert (said.status, said.complete) == (200, True), (fault, protocol, stream, said)
        assert re.sub("[\ud83d\ude00]", "", said.text) == f"To {name}?"


@pytest.mark.parametrize("fault", ["closes_when_reused", "resets_when_reused"])
def test_a_connection_that_ends_as_it_is_used_again_is_a_failure_that_another_try_mends(path, fault):
    async def main():
        with servers() as (server,):
            fields = {"live": {"urls": [f"{server.url}/{fault}"]}, "controllers": {"retrier": AGAIN}}
            async with gateway(fleet({"tax": fields}), path) as stage:
                for number in range(6):
                    said = await stage.ask("tax", text=f"Number {number}", stream=bool(number % 2))
                    assert (said.complete, said.text) == (True, f"Number {number}")

    asyncio.run(main())
    assert Counter(outcomes(path))[Outcome.OK] == 6
    assert set(outcomes(path)) == {Outcome.OK, Outcome.UNREACHABLE}


def test_nobody_gets_an_answer_that_an_instance_gave_unasked(path):
    async def main():
        import aiohttp

        with servers() as (server,):
            text = fleet({"tax": {"live": {"urls": [f"{server.url}/answers_twice"]}}})
            async with gateway(text, path) as stage, aiohttp.ClientSession(server.url) as beside:
                assert (await stage.ask("tax", text="first")).text == "first"
                async with beside.get("/speak") as response:  # answered when the other answer is out
                    assert response.status == 200
                said = await stage.ask("tax", text="second")
                assert (said.status, said.text) == (502, ""), "the connection is given up"
                assert (await stage.ask("tax", text="third")).text == "third"

    asyncio.run(main())
    assert outcomes(path) == [Outcome.OK, Outcome.UNREACHABLE, Outcome.OK]


@pytest.mark.parametrize(
    ("fault", "stream", "why"),
    [
        ("endless_body", False, "the answer is longer than"),
        ("gzip_bomb", False, "the answer is longer than"),
        ("gzip_bomb", True, "a line of the stream is longer than"),
        ("endless_line", True, "a line of the stream is longer than"),
        ("endless_words", True, "the stream is longer than"),
        ("endless_nothing", True, "the stream is longer than"),
    ],
)
def test_an_answer_without_an_end_is_cut_off_before_it_fills_the_memory(fault, stream, why):
    from glowsim.core.types import Plan, Request
    from glowsim.live.adapters import Reach, of_urls
    from glowsim.live.calls import Call, InstanceError

    async def serve(url):
        import aiohttp

        async with aiohttp.ClientSession() as session:
            reach = Reach(of_urls([f"{url}/v1/chat/completions"], None), {}, timeout_s=1000.0, models=["m"])
            made = reach.at(reach.urls[0], session)(
                Call(1, 0, Request(1, 0, 9, 9, stream=stream), Plan(0, 0, 9, 9), "What is due?")
            )
            return [piece async for piece in made] if stream else await made

    with servers() as (server,), pytest.raises(InstanceError, match=why):
        asyncio.run(serve(f"{server.url}/{fault}"))


# --- silence --------------------------------------------------------------------------------------------


@contextmanager
def filling_backlog():
    """A socket that listens: its URL, and what has it take no connection any more, neither accepted nor refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as one, ExitStack() as stack:
        port = one.getsockname()[1]
        visitors = [stack.enter_context(socket.socket()) for _ in range(64)]

        def fill():
            for visitor in visitors:
                visitor.setblocking(False)
                visitor.connect_ex(("127.0.0.1", port))

        yield f"http://127.0.0.1:{port}", fill


SILENT = ["never", "stalls", "drips", "continues", "drips_words"]


@pytest.mark.parametrize(
    ("limits", "patience_s", "goes_on"),
    [
        ({"timeout": "1000s"}, 1000.0, set()),
        ({"timeout": "9000s", "idle_timeout": "100s"}, 100.0, {"drips_words"}),
        ({"timeout": "9000s", "first_token_timeout": "100s"}, 100.0, {"stalls", "drips_words"}),
    ],
    ids=["total", "idle", "first token"],
)
def test_who_never_comes_to_an_end_is_waited_for_as_long_as_it_says(play, path, limits, patience_s, goes_on):
    only_streams = "first_token_timeout" in limits

    async def main():
        with servers() as (server,), filling_backlog() as (full, fill):
            places = {fault: f"{server.url}/{fault}" for fault in SILENT if fault not in goes_on} | {
                "full": full
            }
            agents = {
                name_of(fault): {"live": {"urls": [url]}, "concurrency": 8, **limits}
                for fault, url in places.items()
            }
            ways = [
                (name, protocol, stream)
                for name in agents
                for protocol in (("chat", "messages") if only_streams else PROTOCOLS)
                for stream in ((True,) if only_streams else (False, True))
            ]
            async with gateway(fleet(agents), path) as stage:
                fill()  # an instance that takes no connection at the start would be waited for instead
                asking = [asyncio.ensure_future(stage.ask(name, how, stream=s)) for name, how, s in ways]
                begun = sum(s for name, _, s in ways if name in ("stalls", "drips-words"))
                await until(lambda: len(stage.running()) == len(ways))
                await until(lambda: sum(each.first_token_s > 0.0 for each in stage.running()) == begun)
                wind(patience_s)
                for way, said in zip(ways, await asyncio.gather(*asking), strict=True):
                    assert patience_s <= said.took_s < patience_s + BUSY_S, way
                    assert not said.complete
                    committed = way[2] and way[0] in ("stalls", "drips-words")
                    assert said.status == (200 if committed else 504), way
                    assert "TIMEOUT" in said.error["message"], way

    play(main)
    for number in range(len(SILENT) + 1 - len(goes_on)):
        assert set(outcomes(path, number)) <= {Outcome.TIMEOUT, Outcome.CANCELLED}


def test_a_port_that_closes_is_a_failure_at_once(path):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as there:
            fields = {"live": {"urls": [f"http://127.0.0.1:{there.getsockname()[1]}"]}}
            async with gateway(fleet({"tax": fields}), path) as stage:
                there.close()
                for _, said in await ask_all(stage, ["tax"]):
                    assert (said.status, said.complete) == (502, False)

    asyncio.run(main())
    assert outcomes(path) == [Outcome.UNREACHABLE] * 6


# --- processes that stop, die, and come back -------------------------------------------------------------


def by_instance(path):
    """Return (instance, outcome) of every attempt, in the order of their ends."""
    records = list(read(path).records())
    instance = {each.attempt: each.instance for each in records if isinstance(each, Dispatch)}
    return [(instance[each.attempt], each.outcome) for each in records if isinstance(each, Finished)]


async def pid_of(server):
    import aiohttp

    async with aiohttp.ClientSession(server.url) as session, session.get("/health") as response:
        return int(await response.text())


async def become(server, fault):
    import aiohttp

    async with aiohttp.ClientSession(server.url) as session, session.post(f"/become/{fault}") as response:
        assert response.status == 200


def test_a_stopped_process_is_ejected_comes_back_is_ejected_for_longer_and_stays_when_it_goes_on(play, path):
    breaker = {"use": "outlier", "failures": 3, "eject": "30s", "interval": "1000s"}

    async def main():
        with servers(2) as (stopped, well):
            fields = {
                "live": {"urls": [stopped.url, well.url]}, "idle_timeout": "10s", "timeout": "9000s",
                "controllers": {"breaker": breaker, "retrier": AGAIN},
            }  # fmt: skip
            async with gateway(fleet({"tax": fields}), path) as stage:

                async def ask(times):
                    """Ask and return how often the stopped one was waited for; the answer came from the other."""
                    waited = 0
                    for _ in range(times):
                        asking = asyncio.ensure_future(stage.ask("tax"))
                        stuck = lambda: [each for each in stage.running() if each.instance.number == 0]  # noqa: E731
                        await until(lambda: asking.done() or stuck())  # noqa: B023
                        if is_stopped and not asking.done():
                            waited += 1
                            wind(10.0)
                        assert (await asking).complete
                    return waited

                is_stopped = True
                stopped.send(signal.SIGSTOP)
                assert await ask(12) == 3, "three failures in a row"
                wind(30.0)
                assert await ask(12) == 3, "it was tried again"
                wind(31.0)
                assert await ask(6) == 0, "it is out for twice as long"
                stopped.send(signal.SIGCONT)
                is_stopped = False
                wind(30.0)
                await ask(12)

    play(main)
    ends = by_instance(path)
    assert Counter(ends) == {
        (0, Outcome.TIMEOUT): 6, (0, Outcome.OK): 6, (1, Outcome.OK): 36,
    }  # fmt: skip


def test_a_killed_server_opens_the_circuit_and_one_that_is_back_closes_it(play, path):
    breaker = {"use": "consecutive", "failures": 3, "open": "30s", "when_all_open": "fail"}

    async def main():
        with servers() as each:
            fields = {
                "live": {"urls": [each[0].url]}, "controllers": {"breaker": breaker},
                "idle_timeout": "10s", "timeout": "9000s",
            }  # fmt: skip
            async with gateway(fleet({"tax": fields}), path) as stage:
                assert (await stage.ask("tax")).complete
                each[0].kill()
                assert [(await stage.ask("tax")).status for _ in range(5)] == [502, 502, 502, 503, 503]
                wind(30.0)
                assert [(await stage.ask("tax")).status for _ in range(3)] == [502, 503, 503], (
                    "half-open: one try"
                )
                each[0] = Server(port=each[0].port)
                wind(60.0)
                await become(each[0], "never")
                tried = asyncio.ensure_future(stage.ask("tax"))
                held = asyncio.ensure_future(stage.ask("tax"))
                await until(lambda: len(stage.daemon.driver._tickets) == 2)
                await until(stage.running)
                assert len(stage.running()) == 1, "half-open: one at a time"
                wind(10.0)
                assert (await tried).status == 504
                assert (await stage.ask("tax")).status == 503, "open again, for twice as long"
                await become(each[0], "good")
                wind(119.0 - BUSY_S)
                assert (await stage.ask("tax")).status == 503
                wind(1.0 + BUSY_S)
                assert (await held).status == 200, "it was taken in before, and waited"
                assert [(await stage.ask("tax")).status for _ in range(3)] == [200, 200, 200]

    play(main)
    assert outcomes(path) == [Outcome.OK, *[Outcome.UNREACHABLE] * 4, Outcome.TIMEOUT, *[Outcome.OK] * 4]


def test_health_checks_take_a_stopped_process_out_and_let_it_in_again(play, path):
    probes = {"use": "probes", "unhealthy": 2, "healthy": 1, "lapse": "1000s"}

    async def main():
        with servers(2) as (stopped, well):
            fields = {
                "live": {"urls": [stopped.url, well.url], "health": "/health"}, "timeout": "9000s",
                "health_check": "30s", "controllers": {"breaker": probes},
            }  # fmt: skip
            async with gateway(fleet({"tax": fields}), path) as stage:
                driver, said_so = stage.daemon.driver, []

                async def is_well(instance, ask=driver._is_well):
                    said = await ask(instance)
                    said_so.append(said)
                    return said

                driver._is_well = is_well

                async def checks(count, answers):
                    """Have health checks made, of which so many are answered; the others run out of time."""
                    for _ in range(count):
                        said_so.clear()
                        wind(30.0)
                        await until(lambda: len(said_so) == answers)
                        if answers < 2:
                            wind(5.0)
                        await until(lambda: not driver._chores)

                async def used():
                    begun = len(stage.attempted)
                    for _ in range(6):
                        assert (await stage.ask("tax")).complete
                    return set(stage.attempted[begun:])

                assert await used() == {0, 1}
                stopped.send(signal.SIGSTOP)
                await checks(2, answers=1)
                assert await used() == {1}, "two checks failed"
                stopped.send(signal.SIGCONT)
                await checks(1, answers=2)
                assert await used() == {0, 1}

    play(main)
    assert set(outcomes(path)) == {Outcome.OK}


# --- workers that the daemon starts ----------------------------------------------------------------------


def children():
    """Return the processes that this one has, where the system shows them."""
    return set(" ".join(each.read_text() for each in Path("/proc/self/task").glob("*/children")).split())


def deaf(url):
    """Return whether nobody listens at an address."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def test_a_worker_that_is_killed_at_its_work_is_replaced_and_no_process_is_left(play, path):
    seen = set()

    async def main():
        before = children()
        command = [sys.executable, "-I", "-S", str(PROGRAM), "{port}"]
        fields = {
            "live": {
                "process": {"command": command, "ready_within": "9000s", "stop_within": "1s", "limit": 4},
                "health": "/health",
            },
            "instances": 2, "timeout": "9000s",
            "controllers": {
                "retrier": AGAIN, "scaler": {"use": "agent_scaler", "min_instances": 2, "max_instances": 2},
            },
        }  # fmt: skip
        async with gateway(fleet({"tax": fields}), path) as stage:
            driver = stage.daemon.driver
            addresses = driver.scalers[0].addresses

            async def two(fault):
                """Return instance -> worker, once there are two, which do as they are told."""
                await until(lambda: sum(each.serve is not None for each in driver._instances.values()) == 2)
                workers = {number: Worker(url) for number, url in addresses().items()}
                for each in workers.values():
                    await become(each, fault)
                    seen.add(each.url)
                return workers

            workers = await two("stalls")
            asking = asyncio.ensure_future(stage.ask("tax"))
            await until(stage.running)
            at_work = stage.running()[0].instance.number
            await become(workers[1 - at_work], "good")
            os.kill(await pid_of(workers[at_work]), signal.SIGKILL)
            assert (await asking).complete, "in mid-answer: the other one answers"

            await until(lambda: at_work not in driver._instances)
            wind(60.0)  # the scaler looks
            workers = await two("stalls")
            asking = asyncio.ensure_future(stage.ask("tax", stream=True))
            await until(lambda: [each for each in stage.running() if each.first_token_s > 0.0])
            at_work = stage.running()[0].instance.number
            os.kill(await pid_of(workers[at_work]), signal.SIGKILL)
            said = await asking
            assert (said.status, said.complete, said.text) == (200, False, "What i"), (
                "in mid-stream: it breaks"
            )

            await until(lambda: at_work not in driver._instances)
            wind(60.0)
            workers = await two("good")
            for _ in range(4):
                assert (await stage.ask("tax")).complete
            os.kill(await pid_of(workers.popitem()[1]), signal.SIGSTOP)  # it is made to go like any other
        assert children() <= before

    play(main)
    assert len(seen) == 4
    assert all(map(deaf, seen))
    assert Counter(outcomes(path)) == {Outcome.UNREACHABLE: 2, Outcome.OK: 5}


# --- everything at once ----------------------------------------------------------------------------------

CAMPAIGN_S = 60.0
ANY = [
    *(fault for fault in BROKEN if fault not in ("good", "half_characters")), *SILENT, "long_header", "endless_body",
    "endless_line", "gzip_bomb", "closes_when_reused", "resets_when_reused",
]  # fmt: skip


class Saboteur:
    """Does something to a random instance at random moments, and undoes it."""

    def __init__(self, chance, fixed, workers):
        self.chance = chance
        self.fixed = fixed
        self.workers = workers
        self.did = Counter()

    async def work(self, until_s):
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            await asyncio.sleep(self.chance.expovariate(4.0))
            number = self.chance.randrange(len(self.fixed))
            match self.chance.choice(("become", "become", "become", "good", "stop", "kill", "worker")):
                case "become":
                    await self.turn(number, self.chance.choice(ANY))
                case "good":
                    await self.turn(number, "good")
                case "stop":
                    await self.pause(self.fixed[number].process.pid)
                case "kill":
                    await self.restart(number)
                case "worker":
                    await self.hurt_a_worker()

    async def turn(self, number, fault):
        await become(self.fixed[number], fault)
        self.did[fault] += 1

    async def pause(self, pid):
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(0.1, 3.0))
        os.kill(pid, signal.SIGCONT)
        self.did["SIGSTOP"] += 1

    async def restart(self, number):
        one = self.fixed[number]
        one.kill()
        await asyncio.sleep(self.chance.uniform(0.0, 2.0))
        self.fixed[number] = await asyncio.to_thread(Server, port=one.port)
        self.did["SIGKILL"] += 1

    async def hurt_a_worker(self):
        import aiohttp

        for url in list(self.workers().values())[:1]:
            try:
                pid = await pid_of(Worker(url))
            except aiohttp.ClientError:
                continue  # it has gone by itself meanwhile
            if self.chance.random() < 0.5:
                os.kill(pid, signal.SIGKILL)
                self.did["SIGKILL of a worker"] += 1
            else:
                await self.pause(pid)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_faults_at_random_moments_under_load(path, seed, capsys):
    uvloop = pytest.importorskip("uvloop")
    chance = random.Random(seed)
    limits = {"timeout": "3s", "first_token_timeout": "1500ms", "idle_timeout": "1s"}
    outlier = {"use": "outlier", "failures": 3, "eject": "1s", "longest_eject": "2s", "max_ejected": 0.5}
    controllers = {"retrier": AGAIN | {"attempts": 3}, "breaker": outlier}
    command = [sys.executable, "-I", "-S", str(PROGRAM), "{port}"]
    took_s = []

    async def main():
        with servers(4) as fixed:
            agents = {
                "tax": {
                    "live": {"urls": [each.url for each in fixed[:3]], "health": "/health"}, "health_check": "1s",
                    "controllers": controllers, **limits,
                },
                "alone": {"live": {"urls": [fixed[3].url]}, **limits},
                "audit": {
                    "live": {"process": {"command": command, "stop_within": "1s", "limit": 6}, "health": "/health"},
                    "instances": 2, **limits,
                    "controllers": controllers | {
                        "scaler": {
                            "use": "agent_scaler", "min_instances": 2, "max_instances": 3,
                            "look": "1s", "cooldown": "0s",
                        }
                    },
                },
            }  # fmt: skip
            before = children()
            async with gateway(fleet(agents), path) as stage:
                loop = asyncio.get_running_loop()
                saboteur = Saboteur(chance, fixed, stage.daemon.driver.scalers[2].addresses)
                until_s = loop.time() + CAMPAIGN_S

                async def ask(number):
                    text = f"question {number} of {seed}: " + "?" * chance.randrange(200)
                    name, protocol = chance.choice(list(agents)), chance.choice(PROTOCOLS)
                    said = await stage.ask(name, protocol, text, stream=chance.random() < 0.5)
                    took_s.append(said.took_s)
                    assert said.took_s < 3.0 + BUSY_S
                    assert text.startswith(said.text.rstrip(".")), "nobody gets another's answer"
                    assert not said.complete or said.text == text
                    return said.complete

                async def client(number):
                    while loop.time() < until_s:
                        await ask(number)

                await asyncio.gather(saboteur.work(until_s), *map(client, range(16)))
                for number in range(4):
                    await saboteur.turn(number, "good")
                while not all(await asyncio.gather(*map(ask, range(30)))):
                    assert loop.time() < until_s + 20.0 * BUSY_S, "what was ejected is not let in again"
            assert children() - {str(each.process.pid) for each in fixed} <= before

    uvloop.run(main())
    ends = Counter(Outcome(each).name for number in range(3) for each in outcomes(path, number))
    with capsys.disabled():
        print(f"\nseed {seed}: {len(took_s)} requests, longest {max(took_s):.1f} s, attempts {dict(ends)}")
    assert ends["OK"] > 0.1 * len(took_s)

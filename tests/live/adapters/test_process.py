"""Worker processes on this machine: real ones, really killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import urllib.request
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path

import pytest

from controllers.scaling.agent_scaler import AgentScaler
from glowsim.core.snapshot import Stateful
from glowsim.core.types import InstanceChanged, Plan, Request
from glowsim.live.adapters import process
from glowsim.live.adapters.process import Workers
from glowsim.live.calls import Call, Checked, InstanceError

pytestmark = pytest.mark.usefixtures("_serving")

HERE = Path(__file__).parent
DEADLINE_S = 60.0


class Line:
    """The read end of a named pipe that every worker holds open."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._said = b""
        self._gate = f"{path}.gate"
        os.mkfifo(self._gate)
        self._opened = None

    def open_gate(self):
        """Let workers that are held at their work go on, from now on."""
        self._opened = os.open(self._gate, os.O_RDWR)

    def close(self):
        os.close(self.fd)
        if self._opened is not None:
            os.close(self._opened)

    async def workers(self, count):
        """Return (role, instance, pid) of so many, once they have said so."""
        await self._read(lambda: self._said.count(b"\n") >= count)
        return [
            (role, int(at), int(pid)) for role, at, pid in map(str.split, self._said.decode().splitlines())
        ]

    async def all_gone(self):
        """Return when nobody holds the other end any more."""
        await self._read(None)

    async def _read(self, enough):
        loop, end = asyncio.get_running_loop(), asyncio.Event()

        def readable():
            data = None
            with suppress(BlockingIOError):  # raised while a worker holds the other end and says nothing
                data = os.read(self.fd, 65536)
                self._said += data
            if enough() if enough else data == b"":
                end.set()

        loop.add_reader(self.fd, readable)
        readable()
        try:
            await end.wait()
        finally:
            loop.remove_reader(self.fd)


@pytest.fixture
def line(tmp_path):
    line = Line(tmp_path / "line")
    yield line
    line.close()


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def _loop(request, monkeypatch):
    """Each loop tells of processes in its own way; the daemon runs on uvloop."""
    if request.param == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        monkeypatch.setitem(globals(), "new_loop", uvloop.new_event_loop)


new_loop = asyncio.new_event_loop


def run(main):
    async def bounded():
        async with asyncio.timeout(DEADLINE_S):
            await main()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(bounded())


def command(line, how="well"):
    return [sys.executable, str(HERE / "worker.py"), "{port}", how, str(line.path), "{instance}"]


def workers(line, how="well", **given):
    given = {
        "connect": lambda url: url,
        "lost": lambda instance: None,
        "max_workers": 3,
        "grace_s": 5.0,
    } | given
    return Workers(command(line, how), **given)


def keeper_of(some, instance):
    return some._workers[instance]._transport.get_pid()


# --- lives ------------------------------------------------------------------------------------------


def test_a_worker_serves_where_and_as_it_was_told(line, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOWSIM_ADMIN_TOKEN", "a-secret-of-the-daemon")
    import aiohttp

    from glowsim.live.adapters import Reach
    from glowsim.scenario.live import HttpJson

    spec = HttpJson.model_validate({"adapter": "http_json", "urls": ["http://any"], "health": "/health"})
    reach = Reach(spec, {}, timeout_s=5.0, models=["m"])

    async def main():
        async with aiohttp.ClientSession() as session:

            def connect(url):
                return reach.at(url, session)

            some = workers(
                line, connect=connect, environment={"GREETING": "hello {instance} {on}"}, directory=tmp_path
            )
            serve = await some.start(7)
            reply = await serve(Call(1, 7, Request(1, 0, 1, 1), Plan(0, 0, 1, 1), "hi"))
            assert reply.content == f"instance 7 in {tmp_path}, hello 7 {{on}}, None"
            assert list(some.addresses()) == [7]
            keeper = keeper_of(some, 7)
            await some.stop(7)
            with pytest.raises(ProcessLookupError):  # not even a zombie is left
                os.kill(keeper, 0)
            assert some.addresses() == {}
            await some.stop(7)  # it is gone
        await line.all_gone()

    run(main)


def test_a_worker_that_ignores_the_request_to_end_is_killed_with_all_that_it_started(line):
    async def main():
        some = workers(line, "stubborn", grace_s=0.2)
        await some.start(0)
        await some.stop(0)
        await line.all_gone()

    run(main)


@pytest.mark.parametrize("end", ["stop", "close", "killed"])
def test_no_process_that_a_worker_started_outlives_it(line, end):
    async def main():
        lost = asyncio.Event()
        some = workers(line, "parent", grace_s=0.2, lost=lambda instance: lost.set())
        await some.start(0)
        pids = {role: pid for role, _, pid in await line.workers(2)}
        match end:
            case "stop":
                await some.stop(0)
            case "close":
                await some.close()
            case "killed":
                os.kill(pids["worker"], signal.SIGKILL)
                await lost.wait()
        await line.all_gone()
        await some.close()

    run(main)


def test_megabytes_of_output_do_not_block_a_worker_and_are_not_kept(line):
    async def main():
        some = workers(line, "chatty")
        await some.start(0)
        (worker,) = some._workers.values()
        assert len(worker._tail) <= process._TAIL_BYTES
        await some.close()

    run(main)


# --- deaths -----------------------------------------------------------------------------------------


def test_a_worker_that_ends_before_it_is_ready_says_why_without_its_escapes(line):
    async def main():
        some = workers(line, "dies")
        with pytest.raises(InstanceError) as error:
            await some.start(0)
        assert str(error.value) == (
            "the worker ended with exit code 1 before it was ready; its last lines:\n"
            "loading the model\nno ?[31mmemory?[0m is left"
        )
        await some.close()

    run(main)


def test_a_worker_that_is_killed_while_it_starts_has_failed(line):
    async def main():
        some = workers(line, "never")
        start = asyncio.ensure_future(some.start(0))
        ((_, _, pid),) = await line.workers(1)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(InstanceError, match="was ended by SIGKILL before it was ready"):
            await start
        await line.all_gone()
        assert not some._workers

    run(main)


def test_a_worker_that_never_gets_ready_is_ended(line):
    async def main():
        some = workers(line, "never", startup_timeout_s=0.5)
        with pytest.raises(InstanceError, match=re.escape("was not ready within 0.5 s")):
            await some.start(0)
        await some.stop(0)
        await line.all_gone()

    run(main)


def test_a_start_that_is_cancelled_leaves_nothing(line):
    async def main():
        some = workers(line, "never")
        for turns in (1, 2, 5):  # before, while and after its process is made
            start = asyncio.ensure_future(some.start(turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            start.cancel()
            await asyncio.wait((start,))
            assert start.cancelled()
        await some.close()
        assert not some._workers
        await some.close()

    run(main)


def test_a_program_that_is_not_there_and_a_folder_that_is_not_there(tmp_path):
    async def main():
        given = {"connect": print, "lost": print, "max_workers": 1}
        with pytest.raises(InstanceError, match="cannot run nosuchprogram: No such file"):
            await Workers(["nosuchprogram", "{port}"], **given).start(0)
        missing = tmp_path / "missing"
        with pytest.raises(InstanceError, match=f"no process could be started in {missing}: No such file"):
            await Workers([sys.executable, "{port}"], **given, directory=missing).start(0)

    run(main)


def test_a_ready_worker_that_dies_is_told_of_at_once_and_one_that_was_to_go_is_not(line):
    async def main():
        loop = asyncio.get_running_loop()
        lost = loop.create_future()
        some = workers(line, lost=lost.set_result)
        await asyncio.gather(*map(some.start, range(2)))
        pids = {instance: pid for _, instance, pid in await line.workers(2)}
        os.kill(pids[1], signal.SIGKILL)
        assert await lost == 1
        assert list(some.addresses()) == [0]
        await some.close()  # the other one would set the result twice
        await line.all_gone()

    run(main)


def test_a_killed_keeper_takes_its_worker_along(line):
    async def main():
        lost = asyncio.get_running_loop().create_future()
        some = workers(line, lost=lost.set_result)
        await some.start(4)
        os.kill(keeper_of(some, 4), signal.SIGKILL)
        assert await lost == 4
        await line.all_gone()
        await some.close()

    run(main)


@pytest.mark.parametrize(("how", "grace_s"), [("well", 5.0), ("stubborn", 0.2), ("parent", 0.2)])
def test_workers_end_when_the_daemon_is_killed(line, how, grace_s):
    async def main():
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            HERE / "daemon_like.py",
            how,
            str(line.path),
            str(grace_s),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert await daemon.stdout.readline() == b"ready\n"
            count = 4 if how == "parent" else 2
            assert len(await line.workers(count)) == count
        finally:
            daemon.kill()
        await line.all_gone()
        assert await daemon.wait() == -signal.SIGKILL

    run(main)


# --- bounds -----------------------------------------------------------------------------------------


def test_the_number_of_workers_is_bounded_and_none_starts_after_the_end(line):
    async def main():
        some = workers(line, max_workers=1)
        await some.start(0)
        with pytest.raises(InstanceError, match="instance 0 has a worker already"):
            await some.start(0)
        with pytest.raises(InstanceError, match="there are 1 workers already: raise max_workers"):
            await some.start(1)
        await some.close()
        with pytest.raises(InstanceError, match="no worker is started any more"):
            await some.start(2)

    run(main)


def test_a_port_that_somebody_took_is_exchanged(line, monkeypatch):
    async def main():
        def connect(url):
            async def well():
                return (await asyncio.to_thread(urllib.request.urlopen, url, timeout=0.5)).status == 200

            return Checked(None, well)

        with socket.create_server(("127.0.0.1", 0)) as other:
            some = workers(line, connect=connect)
            ports = [some._port(), other.getsockname()[1]]
            monkeypatch.setattr(some, "_port", ports.pop)
            await some.start(0)
            assert not ports
            assert some.addresses() != {0: f"http://127.0.0.1:{other.getsockname()[1]}"}
            assert len(await line.workers(2)) == 2, "the first could not listen"
            await some.close()

    run(main)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"command": "serve {port}"}, "is a list of a program and its arguments, not 'serve {port}'"),
        ({"command": []}, "is a list of a program"),
        ({"command": ["serve"]}, "needs {port}"),
        ({"max_workers": 0}, "max_workers: 0 is not at least 1"),
        ({"startup_timeout_s": 0.0}, "startup_timeout_s: 0.0 is not"),
        ({"startup_timeout_s": inf}, "startup_timeout_s: inf is not"),
        ({"grace_s": -1.0}, "grace_s: -1.0 is not"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    given = {"command": ["serve", "{port}"], "connect": print, "lost": print, "max_workers": 1} | given
    with pytest.raises(ValueError, match=re.escape(message)):
        Workers(given.pop("command"), **given)


# --- under a driver ---------------------------------------------------------------------------------


class Soon(Stateful):
    """Retrier: in a tenth of a second, as often as it takes."""

    def after(self, t_s, request, attempts, outcome, retry_after_s):
        return 0.1

    def succeeded(self, t_s, request):
        pass


@asynccontextmanager
async def fleet(live, line):
    """Yield a stage whose agent has workers, one at first and three at most; what waits for states; the states."""
    import aiohttp

    from glowsim.live.adapters import Reach
    from glowsim.scenario.live import HttpJson

    spec = HttpJson.model_validate({"adapter": "http_json", "urls": ["http://any"], "health": "/health"})
    reach = Reach(spec, {}, timeout_s=30.0, models=["m"])
    lives, changed = {}, asyncio.Event()

    def saw(event, commands):
        if isinstance(event, InstanceChanged):
            lives.setdefault(event.instance, []).append(event.state.name)
            changed.set()

    async def until(condition):
        while not condition(list(lives.values())):
            changed.clear()
            await changed.wait()

    def scaler():
        return AgentScaler(
            min_instances=1, max_instances=3, cooldown_s=0.0, cooldown_down_s=0.2, idle_s=60.0, look_s=0.05
        )

    async with aiohttp.ClientSession() as session:

        def connect(url):
            return reach.at(url, session)

        stage = live.Stage(scaler=scaler, retrier=Soon, watch=saw)
        some = workers(line, "held", connect=connect, lost=stage.driver.lost)
        stage.driver.scalers[0] = some
        stage.driver.start(0)
        yield stage, until, lives
        await stage.close(grace_s=5.0)
        await some.close()
    await line.all_gone()


def test_a_fleet_of_workers_grows_with_its_load_and_shrinks_after_their_work_is_done(line, live):
    async def main():
        async with fleet(live, line) as (stage, until, lives):
            work = [stage.start() for _ in range(9)]
            await until(lambda all_lives: [each[-1] for each in all_lives] == ["READY"] * 3)
            line.open_gate()
            answers = await asyncio.gather(*work)
            assert {each.content[:10] for each in answers} == {f"instance {number}" for number in range(3)}
            await until(lambda all_lives: sum(each[-1] == "GONE" for each in all_lives) == 2)
            assert all(each[:2] == ["STARTING", "READY"] for each in lives.values())
            assert len(lives) == 3
            assert (await stage.ask()).content.startswith("instance"), "one is left"

    run(main)


def test_a_worker_that_is_killed_at_work_is_replaced_and_its_request_is_answered_by_another(line, live):
    async def main():
        async with fleet(live, line) as (stage, until, lives):
            await until(lambda all_lives: all_lives[:1] == [["STARTING", "READY"]])
            work = stage.start()
            ((_, _, pid),) = await line.workers(1)
            os.kill(pid, signal.SIGKILL)
            line.open_gate()
            assert re.match("instance [12] ", (await work).content)
            assert lives[0] == ["STARTING", "READY", "FAILED"]

    run(main)

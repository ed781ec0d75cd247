"""Agents on loopback that answer sums, and are wrong, slow or broken at tasks that the test names."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]


class Agents:
    """Both variants behind one socket, told apart by their models: ``old`` and ``new``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        """(model, task), in the order of arrival."""
        self.keys: set[tuple[str, str | None]] = set()
        self.bodies: list[dict[str, Any]] = []
        self.wrong: dict[str, set[str]] = {"old": set(), "new": set()}
        self.status: dict[tuple[str, str], list[int]] = {}
        """(model, task) -> status of its first answers; then it is answered well."""
        self.silent: set[tuple[str, str]] = set()
        """Never answered, until the test ends."""
        self.dropped: set[tuple[str, str]] = set()
        """The connection is closed without an answer."""
        self.usage: dict[str, int] | None = {"prompt_tokens": 1000, "completion_tokens": 500}
        self.hold_after: int | None = None
        """Requests after which none is answered until ``release`` is set."""
        self.holding = threading.Event()
        self.release = threading.Event()
        self.over = threading.Event()
        self._lock = threading.Lock()
        agents = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer, headers = agents.answer(asked, self.headers.get("Authorization"))
                if (
                    agents.over.is_set()
                    or (asked["model"], asked["messages"][-1]["content"]) in agents.dropped
                ):
                    self.close_connection = True
                    return
                raw = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, asked: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any], dict[str, str]]:
        model, text = asked["model"], asked["messages"][-1]["content"]
        with self._lock:
            self.asked.append((model, text))
            self.bodies.append(asked)
            self.keys.add((model, key))
            held = self.hold_after is not None and len(self.asked) > self.hold_after
            statuses = self.status.get((model, text))
            status = statuses.pop(0) if statuses else 200
        if held:
            self.holding.set()
            self.release.wait(60.0)
        if (model, text) in self.silent:
            self.over.wait(60.0)
        if status != 200:
            return status, {"error": {"message": "no"}}, {"Retry-After": "0"}
        a, b = text.split("+")
        said = str(int(a) + int(b) + (text in self.wrong[model]))
        answer: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": said}}]}
        if self.usage is not None:
            answer["usage"] = self.usage
        return 200, answer, {"Content-Type": "application/json"}

    def times(self) -> Counter[tuple[str, str]]:
        return Counter(self.asked)

    def close(self) -> None:
        self.over.set()
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def agents(_serving: None) -> Iterator[Agents]:
    """Give the agents, and stop them afterwards."""
    made = Agents()
    yield made
    made.close()


@pytest.fixture
def tasks(tmp_path: Path) -> Callable[[int], Path]:
    """Return what writes recorded tasks ``0+1``, ``1+1`` and so on, named ``t0`` and so on."""

    def write(count: int) -> Path:
        path = tmp_path / "tasks.jsonl"
        rows = [
            {"task": f"t{n}", "messages": [{"role": "user", "content": f"{n}+1"}], "expected": str(n + 1)}
            for n in range(count)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs ``glowsim pairs ...`` in this process and gives exit code, stdout and stderr."""
    from glowsim.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["glowsim", "pairs", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run

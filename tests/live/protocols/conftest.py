"""What the tests of the protocols share: official clients that talk to a server made of the functions under test."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import ModuleType
from typing import Any

import pytest
from pydantic import TypeAdapter


def needed(name: str) -> ModuleType:
    """Return a module of the test extra, or skip."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed: install glowsim[test]"
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail(message)
        pytest.skip(message)


class Server:
    """A server on 127.0.0.1 that answers every POST as it was told last."""

    def __init__(self) -> None:
        self.reply("{}")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked = self.rfile.read(int(self.headers["content-length"]))
                outer.path = self.path
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def reply(self, text: str, status: int = 200, **headers: str) -> None:
        """Answer all that comes with this: JSON, or server-sent events."""
        kind = "application/json" if text.startswith("{") else "text/event-stream"
        self.body, self.status, self.headers = text.encode(), status, {"content-type": kind} | headers

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def is_chat() -> Callable[[dict[str, Any]], None]:
    """Return what checks a body of chat completions against OpenAI's own types, and that it has nothing else."""
    needed("openai")
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase

    fields = CompletionCreateParamsBase.__annotations__.keys() | {"stream"}
    adapter = TypeAdapter(CompletionCreateParamsBase)

    def check(body: dict[str, Any]) -> None:
        assert body.keys() <= fields
        _walk(adapter.validate_python(body))

    return check


def _walk(value: Any) -> None:
    """Make pydantic check what it would check only when it is looked at."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for each in value:
            _walk(each)


def events_in(stream: str) -> list[tuple[str | None, str]]:
    """Return the events of a stream: names and data."""
    frames = stream.removesuffix("\n\n").split("\n\n")
    found: list[tuple[str | None, str]] = []
    for frame in frames:
        *names, data = frame.split("\n")
        assert data.startswith("data: ")
        found.append((names[0].removeprefix("event: ") if names else None, data.removeprefix("data: ")))
    return found


@pytest.fixture(scope="session")
def events() -> Callable[[str], list[tuple[str | None, str]]]:
    """Return what finds the events of a stream."""
    return events_in


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def openai(server: Server) -> Iterator[Any]:
    """Return OpenAI's client of the server, which tries once."""
    with needed("openai").OpenAI(api_key="k", base_url=f"{server.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic(server: Server) -> Iterator[Any]:
    """Return Anthropic's client of the server, which tries once."""
    with needed("anthropic").Anthropic(api_key="k", base_url=server.url, max_retries=0) as client:
        yield client

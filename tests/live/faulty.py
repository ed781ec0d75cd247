"""An instance that misbehaves as it is told: ``faulty.py PORT [FAULT]``; port 0 is one that the system chooses.

It prints its address, speaks enough of OpenAI's chat completions to be an instance, and answers a good question with
the question itself, so that a client can tell its own answer from another's. What comes before ``/v1`` in a path names
the fault of that one exchange: ``/rst_in_body/v1/chat/completions``. Without one the fault given at the start, or by
the last ``POST /become/FAULT``, holds. ``/health`` answers with the process's number. Standard library only, a thread
a connection, bytes by hand.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import sys
import threading
from contextlib import suppress
from itertools import repeat

FOREVER = 10_000_000
PATIENCE_S = 60.0
"""A connection that says nothing for so long is the test's fault."""
BOMB = gzip.compress(bytes(64 << 20), 9) * 2


class Over(Exception):
    """The connection has ended."""


class Wire:
    """One connection from a client."""

    def __init__(self, connection):
        self.connection = connection
        self.read = b""
        connection.settimeout(PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def more(self):
        data = self.connection.recv(65536)
        if not data:
            raise Over
        self.read += data

    def question(self):
        """Return path and body of the next request."""
        while b"\r\n\r\n" not in self.read:
            self.more()
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        named = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in headers)}
        length = int(named.get("content-length", "0"))
        while len(self.read) < length:
            self.more()
        body, self.read = self.read[:length], self.read[length:]
        return line.split()[1], body

    def say(self, data):
        self.connection.sendall(data)

    def drip(self, data, every_s):
        for i in range(len(data)):
            self.say(data[i : i + 1])
            self.wait(every_s)

    def wait(self, seconds):
        """Wait; a client that has gone ends it."""
        self.connection.settimeout(seconds)
        with suppress(TimeoutError):
            self.more()
        self.connection.settimeout(PATIENCE_S)

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Over

    def hold(self):
        """Say nothing more until the client has gone."""
        while True:
            self.more()


# --- what a good instance says --------------------------------------------------------------------------


def head(kind, *more, status="200 OK"):
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Type: {kind}", *more, "", "")).encode()


def whole(data, *more, kind="application/json", status="200 OK"):
    return head(kind, f"Content-Length: {len(data)}", *more, status=status) + data


def answer(text):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    about = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps(about | {"choices": [choice], "usage": usage}).encode()


def chunk(**delta):
    about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: %s\n\n" % json.dumps(about | {"choices": [{"index": 0, "delta": delta}]}).encode()


def events(text):
    """Return the events of a stream: the role, the answer in two, its end."""
    half = len(text) // 2
    said = [chunk(role="assistant", content=""), chunk(content=text[:half]), chunk(content=text[half:])]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
    said += [b"data: %s\n\n" % json.dumps(each).encode() for each in (end, usage)]
    return [*said, b"data: [DONE]\n\n"]


STREAM = head("text/event-stream", "Transfer-Encoding: chunked")
LAST = b"0\r\n\r\n"


def framed(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def good(wire, text, stream):
    if stream:
        wire.say(STREAM + b"".join(map(framed, events(text))) + LAST)
    else:
        wire.say(whole(answer(text)))


# --- faults: each takes the connection, the question's text, and whether a stream was asked for ------------


def begun(wire, text, stream):
    """Say the beginning of a good answer: of a stream up to and with some of its text."""
    if stream:
        wire.say(STREAM + b"".join(map(framed, events(text)[:2])))
    else:
        data = whole(answer(text))
        wire.say(data[: len(data) - 40])


def closes_in_body(wire, text, stream):
    begun(wire, text, stream)
    raise Over


def rst_in_body(wire, text, stream):
    begun(wire, text, stream)
    wire.reset()


def rst(wire, text, stream):
    wire.reset()


def no_byte(wire, text, stream):
    raise Over


def half_closed(wire, text, stream):
    wire.say(STREAM if stream else head("application/json", "Content-Length: 500"))
    wire.connection.shutdown(socket.SHUT_WR)
    wire.hold()


def never(wire, text, stream):
    wire.hold()


def stalls(wire, text, stream):
    begun(wire, text, stream)
    wire.hold()


def drips(wire, text, stream):
    wire.say(STREAM if stream else head("application/json", f"Content-Length: {FOREVER}"))
    for _ in range(FOREVER):
        wire.say(framed(b":") if stream else b" ")
        wire.wait(0.02)


def drips_words(wire, text, stream):
    """Goes on and on: no silence, no end."""
    begun(wire, text, True)
    for _ in range(FOREVER):
        wire.say(framed(chunk(content=".")))
        wire.wait(0.02)


def continues(wire, text, stream):
    for _ in range(FOREVER):
        wire.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.wait(0.02)


def every_byte(wire, text, stream):
    data = STREAM + b"".join(framed(each) for each in events(text)) if stream else whole(answer(text))
    wire.drip(data + (LAST if stream else b""), 1e-6)


def every_byte_framed(wire, text, stream):
    """As a stream in chunks of one byte, with CRLF, comments and names of events."""
    if not stream:
        good(wire, text, stream)
        return
    said = b": hello\r\n\r\n" + b"".join(
        b"event: message\r\n" + each.replace(b"\n", b"\r\n") for each in events(text)
    )
    wire.say(STREAM + b"".join(framed(said[i : i + 1]) for i in range(len(said))) + LAST)


def no_http(wire, text, stream):
    wire.say(b"SSH-2.0-OpenSSH_9.6\r\n")
    raise Over


def half_status(wire, text, stream):
    wire.say(b"HTTP/1.1 20")
    raise Over


def bad_chunks(wire, text, stream):
    wire.say(head("text/event-stream" if stream else "application/json", "Transfer-Encoding: chunked"))
    wire.say(b"ZZ\r\nhello\r\n")
    wire.hold()


def bad_chunks_late(wire, text, stream):
    """As `bad_chunks`, when the client is reading the body."""
    wire.say(head("text/event-stream" if stream else "application/json", "Transfer-Encoding: chunked"))
    wire.wait(0.1)
    wire.say(b"ZZ\r\nhello\r\n")
    wire.hold()


def two_lengths(wire, text, stream):
    data = answer(text)
    wire.say(head("application/json", "Content-Length: 3", f"Content-Length: {len(data)}") + data)
    raise Over


def truncated_json(wire, text, stream):
    if stream:
        wire.say(STREAM + framed(events(text)[0]) + framed(events(text)[1][:-9] + b"\n\n") + LAST)
    else:
        wire.say(whole(answer(text)[:-9]))


def no_done(wire, text, stream):
    """The connection is fine, but the answer stops before its end."""
    if stream:
        wire.say(STREAM + b"".join(map(framed, events(text)[:3])) + LAST)
    else:
        wire.say(whole(b""))


def html(wire, text, stream):
    wire.say(whole(b"<html><h1>It works!</h1></html>", kind="text/html"))


WRONG = [
    b"[1, 2]", b"null", b'{"choices": 7}', b'{"choices": []}', b'{"choices": [{"message": "x"}]}',
    b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -1}}',
]  # fmt: skip


def wrong_shape(wire, text, stream):
    """One after the other; a stream stops short of its end, too."""
    WRONG.append(data := WRONG.pop(0))
    wire.say(STREAM + framed(b"data: " + data + b"\n\n") + LAST if stream else whole(data))


def long_header(wire, text, stream):
    wire.say(b"HTTP/1.1 200 OK\r\nX-Long: ")
    for _ in repeat(None, 64):
        wire.say(b"x" * 65536)
    wire.hold()


def many_headers(wire, text, stream):
    wire.say(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        wire.say(b"".join(b"X-%d-%d: y\r\n" % (number, i) for i in range(1000)))


def endless_body(wire, text, stream):
    wire.say(head("application/json", "Transfer-Encoding: chunked"))
    for _ in repeat(None, FOREVER):
        wire.say(framed(b" " * 65536))


def endless_line(wire, text, stream):
    wire.say(head("text/event-stream") + b"data: ")
    for _ in repeat(None, FOREVER):
        wire.say(b"x" * 65536)


def endless_words(wire, text, stream):
    """As fast as it can, and never silent."""
    wire.say(head("text/event-stream") + b"".join(events(text)[:2]))
    words = chunk(content="word " * 1000) * 12
    for _ in repeat(None, FOREVER):
        wire.say(words)


def endless_nothing(wire, text, stream):
    """Well-formed events that bring nothing of the answer."""
    wire.say(head("text/event-stream"))
    nothing = chunk(role="assistant", content="", name="x" * 5000) * 12
    for _ in repeat(None, FOREVER):
        wire.say(nothing)


def switches(wire, text, stream):
    wire.say(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x01a"
    )
    wire.hold()


def no_content(wire, text, stream):
    wire.say(b"HTTP/1.1 204 No Content\r\n\r\n")


def gzip_bomb(wire, text, stream):
    wire.say(
        whole(BOMB, "Content-Encoding: gzip", kind="text/event-stream" if stream else "application/json")
    )


def no_gzip(wire, text, stream):
    wire.say(whole(answer(text), "Content-Encoding: gzip"))


def bad_utf8(wire, text, stream):
    if stream:
        wire.say(
            STREAM + b"".join(framed(each.replace(b"stop", b"st\xff\xfeop")) for each in events(text)) + LAST
        )
    else:
        wire.say(whole(answer(text).replace(b"stop", b"st\xff\xfeop")))


def half_characters(wire, text, stream):
    """JSON can spell half of a character, as models that stream bytes do."""
    good(wire, "\ud83d" + text + "\ude00", stream)


def status_500(wire, text, stream):
    wire.say(whole(b"{}", status="500 Internal Server Error"))


def status_503_html(wire, text, stream):
    wire.say(whole(b"<html>", kind="text/html", status="503 Service Unavailable"))


def redirects(wire, text, stream):
    wire.say(whole(b"", "Location: http://127.0.0.1:1/", status="307 Temporary Redirect"))


def invalid_dripped(wire, text, stream):
    wire.drip(whole(b'{"error": {"message": "too long for me"}}', status="400 Bad Request"), 1e-6)


def closes_when_reused(wire, text, stream):
    """Answers well, keeps the connection, and closes it when the next request is on it."""
    good(wire, text, stream)
    wire.more()
    raise Over


def resets_when_reused(wire, text, stream):
    good(wire, text, stream)
    wire.more()
    wire.reset()


READ, SPOKEN = threading.Event(), threading.Event()


def answers_twice(wire, text, stream):
    """Says an answer that nobody asked for, on the connection that was kept: after the first was taken in."""
    good(wire, text, stream)
    SPOKEN.clear()
    READ.wait(PATIENCE_S)
    good(wire, "not for you", False)
    SPOKEN.set()


FAULTS = {
    each.__name__: each
    for each in (
        closes_in_body, rst_in_body, rst, no_byte, half_closed, never, stalls, drips, drips_words, continues,
        every_byte, every_byte_framed, no_http, half_status, bad_chunks, bad_chunks_late, two_lengths,
        truncated_json, no_done, html, wrong_shape, long_header, many_headers, endless_body, endless_line,
        endless_words, endless_nothing, switches, no_content, gzip_bomb, no_gzip, bad_utf8, half_characters,
        status_500, status_503_html, redirects, invalid_dripped, closes_when_reused, resets_when_reused,
        answers_twice, good,
    )
}  # fmt: skip


class Faulty:
    """The server."""

    def __init__(self, fault):
        self.fault = fault

    def serve(self, connection):
        wire = Wire(connection)
        with connection, suppress(Over, OSError):
            while True:
                path, body = wire.question()
                *_, before = path.partition("/v1/")[0].split("/")
                if path.startswith("/become/"):
                    self.fault = path.removeprefix("/become/")
                    wire.say(whole(b"{}"))
                elif path == "/speak":
                    READ.set()
                    SPOKEN.wait(PATIENCE_S)
                    wire.say(whole(b"{}"))
                elif path.endswith("/health"):
                    wire.say(whole(b"%d" % os.getpid()))
                else:
                    asked = json.loads(body)
                    text = asked["messages"][-1]["content"]
                    FAULTS[before or self.fault](wire, text, bool(asked.get("stream")))


def main(port, fault="good"):
    server = Faulty(fault)
    with socket.create_server(("127.0.0.1", port), backlog=512) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=server.serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
